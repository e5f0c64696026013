"""How probable real images are under the samples of a generator: the Parzen window estimate.

A generator that only draws has no formula for the probability density of an image. So one is made of its
samples: each of the M samples becomes the middle of a small normal distribution, and all of them have an
equal share of the density.

    p(x) = 1/M · Σₛ N(x; s, σ² I)

    log p(x) = log (1/M · Σₛ exp(-|x - s|² / 2σ²)) - F log(σ √2π)

Samples far from all real images do no harm here, but a real image without a sample nearby counts heavily. The
unit is the nat, per image. σ, the width of the windows, is chosen on validation images, and the mean is
taken over test images (Goodfellow et al. 2014).

In many dimensions the estimate stays far from the true density, however many samples one draws. A thousand
centres of clusters of real images get a higher one than ten thousand real images, for a centre lies near more
of them than any real image does (Theis, van den Oord, Bethge 2016). So the estimate can compare a generator
with what was published then, and is little use for anything else.

Shapes: M samples, N points, F numbers in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, xp_of
from .checks import features, same_width

__all__ = ["ParzenReport", "judge_parzen", "parzen_log_likelihood"]

ENTRIES = 4_000_000  # distances looked at together: 32 MB, and as much again for their exponentials

SIGMAS = tuple(np.logspace(-1, 0, 10).tolist())  # those of the paper, for pixels from 0 to 1


@dataclass(frozen=True)
class ParzenReport:
    """What judge_parzen found.

    mean: log p(x), the mean over the test points, in nats. error: its standard error, sd / √N; it says how
    much other test points could change it, not other samples. sigma: the width of the windows.
    validation: the mean of log p(x) over the validation points, the highest of all sigmas.

    >>> print(ParzenReport(225.2, 2.04, 0.167, 226.1))
    log-likelihood 225.2 ± 2.0 nats (sigma 0.167)
    """

    mean: float
    error: float
    sigma: float
    validation: float

    def __str__(self) -> str:
        return f"log-likelihood {self.mean:.1f} ± {self.error:.1f} nats (sigma {self.sigma:.3g})"


def judge_parzen(samples: Any, validation: Any, test: Any, sigmas: Sequence[float] = SIGMAS) -> ParzenReport:
    """The mean log-likelihood of test points, with the sigma that suits the validation points best.

    Shapes: samples (M, F), validation and test (N, F) with an N for each. Neither of them may have been used
    to train the generator. If the best sigma is the first or the last of `sigmas`, try others beyond it.
    """
    drawn = features("judge_parzen", "samples", samples, least=1)
    chosen_on = features("judge_parzen", "validation points", validation, least=1)
    judged_on = features("judge_parzen", "test points", test, least=2)
    means = parzen_log_likelihood(drawn, chosen_on, sigmas).mean(axis=1)
    best = int(means.argmax())
    found = parzen_log_likelihood(drawn, judged_on, sigmas[best])
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    return ParzenReport(float(found.mean()), error, float(sigmas[best]), float(means[best]))


def parzen_log_likelihood(samples: Any, points: Any, sigma: float | Sequence[float]) -> Array:
    """log p(x) = log (1/M · Σₛ exp(-|x - s|² / 2σ²)) - F log(σ √2π) of each point x, in float64

    Shapes: samples (M, F), points (N, F), the result (N,). Several sigmas, say S of them, share the work of
    finding the distances; the result is then (S, N).

    >>> parzen_log_likelihood(np.zeros((1, 1)), np.array([[0.0], [1.0]]), sigma=1.0).round(4).tolist()
    [-0.9189, -1.4189]
    """
    who = "parzen_log_likelihood"
    s, x = features(who, "samples", samples, least=1), features(who, "points", points, least=1)
    same_width(who, s, x)
    widths = np.asarray(sigma, dtype=float)
    if widths.ndim > 1 or not widths.size or not (np.isfinite(widths) & (widths > 0)).all():
        raise ValueError(f"{who}: sigma={sigma}; it must be a number above 0, or some of them")
    # |x - s|² = |x|² + |s|² - 2 x·s takes one product of matrices. Numbers far from zero would lose their
    # digits in the difference, so the samples are moved around zero first, and all is done in float64.
    xp = xp_of(s)
    s = s.astype("float64")
    centre = s.mean(axis=0)
    s -= centre
    lengths = (s * s).sum(axis=1)
    result = xp.empty((widths.size, len(x)))
    rows = max(1, ENTRIES // len(s))
    for start in range(0, len(x), rows):
        part = x[start : start + rows] - centre
        squares = part @ s.T
        squares *= -2
        squares += lengths
        squares += (part * part).sum(axis=1)[:, None]
        result[:, start : start + rows] = _log_mean_exp(xp, squares, widths.reshape(-1).tolist(), s.shape[1])
    return result if widths.ndim else result[0]


def _log_mean_exp(xp: Any, squares: Array, sigmas: Sequence[float], size: int) -> Array:
    """log p of points (N,) for each sigma, from their squared distances (N, M) to the samples.

    The nearest sample's term is taken out of the sum, e⁻ᵃ = e⁻ᵐ · e⁻⁽ᵃ⁻ᵐ⁾: without it, all could be zero.
    `squares` is changed.
    """
    nearest = squares.min(axis=1)
    squares -= nearest[:, None]
    found = []
    for sigma in sigmas:
        rest = squares * (-0.5 / sigma**2)
        xp.exp(rest, out=rest)
        # the nearest is at -0 where a point is a sample, give or take rounding
        exponent = xp.log(rest.mean(axis=1)) - xp.maximum(nearest, 0) * (0.5 / sigma**2)
        found.append(exponent - size * math.log(sigma * math.sqrt(2 * math.pi)))
    return xp.stack(found)
