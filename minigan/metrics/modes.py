"""Does a generator find all the places where the data is? For data in the plane of which all is known.

    report = judge_modes(samples, ring())         # after data.mixtures: how many of the 8 were found
    grid_js(real, samples, extent=((-2, 2), (-2, 2)))

A generator that makes only some kinds of what is in the data is said to have lost modes. For a mixture of
normal distributions that can be counted: each sample belongs to the centre it is nearest to. Where there are
no centres, as in a spiral, two clouds of points can be counted into the cells of a grid, and compared.

Shapes: N points of D numbers each, in grids D = 2; K centres. All logarithms are natural ones: nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, backend_of, to_numpy, xp_of
from ..data.mixtures import Mixture
from .checks import features, on_host, same_width

__all__ = ["ModeReport", "grid_js", "grid_kl", "judge_modes", "reverse_kl"]

Extent = tuple[tuple[float, float], tuple[float, float]]  # from where to where, in x and in y

AT_ONCE = 2**20  # distances held at the same time: 8 MiB of them, however many samples there are


# ------------------------------------------------------------------------------- centres that are known


@dataclass(frozen=True)
class ModeReport:
    """What judge_modes found.

    modes: how many centres have a sample of high quality. high_quality: the share of such samples.
    reverse_kl: how unevenly they are spread over the centres; 0 is even. counts: how many each centre has.

    >>> print(ModeReport(3, 0.875, 0.25, (30, 4, 1, 0)))
    3 of 4 modes, 87.5 % of the samples of high quality, reverse KL 0.2500
    """

    modes: int
    high_quality: float
    reverse_kl: float
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.modes} of {len(self.counts)} modes, {100 * self.high_quality:.1f} % of the samples of "
            f"high quality, reverse KL {self.reverse_kl:.4f}"
        )


def judge_modes(samples: Any, mixture: Mixture, within: float = 3.0) -> ModeReport:
    """Count samples that are of high quality: at most within · σ away from the centre nearest to them.

    Shapes: samples (N, D), mixture.centres (K, D). A mode is found if one such sample at least is its own.
    Samples of the mixture itself are not all of high quality, either: in the plane 1 - e^(-within²/2) of
    them are, 98.9 % for 3. Where no sample is, no mode is found and the reverse KL is infinite.
    """
    x = features("judge_modes", "samples", samples, least=1)
    centres = np.asarray(mixture.centres, np.float64)
    if centres.shape[1:] != x.shape[1:]:
        raise ValueError(f"judge_modes: samples {x.shape} and centres {centres.shape}; they must be alike")
    if not within > 0:
        raise ValueError(f"judge_modes: within={within}; it must be more than 0")
    counts = _count_near(x, centres, within * mixture.sigma)
    return ModeReport(
        int((counts > 0).sum()), float(counts.sum() / len(x)), reverse_kl(counts), tuple(counts.tolist())
    )


def _count_near(x: Array, centres: np.ndarray, radius: float) -> np.ndarray:
    """(K,): for how many x each centre is the nearest of all, and not farther than radius."""
    home, xp, modes = backend_of(x), xp_of(x), len(centres)
    c = home.from_numpy(centres)
    counts = np.zeros(modes, np.int64)
    rows = max(1, AT_ONCE // modes)
    for start in range(0, len(x), rows):
        part = x[start : start + rows].astype(np.float64)
        # differences first: |x|² - 2 x·c + |c|² would lose the digits of a small distance far from 0
        squares = sum((part[:, d, None] - c[None, :, d]) ** 2 for d in range(c.shape[1]))
        owner = xp.where(squares.min(axis=1) <= radius**2, squares.argmin(axis=1), modes)  # K: nobody's
        counts += to_numpy(xp.bincount(owner, minlength=modes + 1))[:modes]
    return counts


def reverse_kl(counts: Any) -> float:
    """KL(p̂ || uniform) = ln K + Σ p ln p, where p = counts / Σ counts, and 0 ln 0 = 0.

    Shapes: counts (K,). It is 0 if all K counts are the same, and ln K, the largest that any p̂ can have, if
    only one is not 0. N fair draws do not have equal counts: they give (K - 1) / 2N, about, and not 0. If
    all counts are 0 there is no p̂. The result is infinity then: worse than all that can be compared.

    >>> reverse_kl([5, 5, 5]), round(reverse_kl([7, 0]), 4), reverse_kl([0, 0])     # ln 2 = 0.6931
    (0.0, 0.6931, inf)
    """
    n = on_host(counts).astype(np.float64)
    if n.ndim != 1 or n.size == 0 or not np.isfinite(n).all() or n.min() < 0:
        raise ValueError(f"reverse_kl: counts {n} of shape {n.shape}; they must be (K,), each 0 or more")
    if n.sum() == 0:
        return float("inf")
    return _kl(n / n.sum(), np.full(n.size, 1 / n.size))


# --------------------------------------------------------------------------- two clouds of points


def grid_kl(x: Any, y: Any, bins: int = 50, extent: Extent | None = None, smoothing: float = 0.0) -> float:
    """KL(p || q) = Σ p ln (p / q), where p and q are the shares of x and of y in each cell of a grid.

    Shapes: x (N, 2), y (M, 2); bins · bins cells of equal size. grid_kl(real, fake) is large where fakes are
    missing, grid_kl(fake, real) where there are fakes but no data.

    extent: ((left, right), (bottom, top)) of the grid; all points outside share one more cell. If it is not
    given, the grid just covers both clouds. Then one point far away makes all cells large, so for numbers
    that are to be compared give the same extent to all.
    smoothing: this many points are added to each cell of both. With 0 the result is infinite if any cell
    holds an x and no y. With more it is finite, but depends on how much was added; grid_js needs no such
    choice.
    """
    if not 0 <= smoothing < np.inf:
        raise ValueError(f"grid_kl: smoothing={smoothing}; it must be 0 or more")
    n, m = _histograms("grid_kl", x, y, bins, extent)
    p, q = n + smoothing, m + smoothing
    return _kl(p / p.sum(), q / q.sum())


def grid_js(x: Any, y: Any, bins: int = 50, extent: Extent | None = None) -> float:
    """JS(p, q) = ½ KL(p || m) + ½ KL(q || m), m = ½ (p + q): from 0, if p = q, to ln 2, if no cell has both.

    p, q, and the arguments: see grid_kl. It is symmetric, and never infinite. (Its root is a distance in
    the sense of mathematics.) Two clouds from one distribution do not have equal shares: with few points
    in many cells the result is far from 0.
    """
    n, m = _histograms("grid_js", x, y, bins, extent)
    p, q = n / n.sum(), m / m.sum()
    half = (p + q) / 2
    return (_kl(p, half) + _kl(q, half)) / 2


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    """Σ p ln (p / q) of two distributions; 0 ln 0 = 0, and infinity where q = 0 < p."""
    here = p > 0
    if (q[here] == 0).any():
        return float("inf")
    # rounding may bring the sum of equal distributions a little below 0
    return max(0.0, float((p[here] * np.log(p[here] / q[here])).sum()))


def _histograms(who: str, x: Any, y: Any, bins: int, extent: Extent | None) -> tuple[np.ndarray, np.ndarray]:
    """How many of x and of y lie in each cell: twice (bins² + 1,); the last one is for those outside."""
    a, b = features(who, "x", x, least=1), features(who, "y", y, least=1)
    same_width(who, a, b)
    if a.shape[1] != 2:
        raise ValueError(f"{who}: points {a.shape}; they must be points in the plane, (N, 2)")
    if bins < 1:
        raise ValueError(f"{who}: bins={bins}; it must be 1 or more")
    if extent is None:
        lowest = np.minimum(*(to_numpy(z.min(axis=0)).astype(np.float64) for z in (a, b)))
        highest = np.maximum(*(to_numpy(z.max(axis=0)).astype(np.float64) for z in (a, b)))
        highest = np.where(highest > lowest, highest, lowest + 1)  # points on a line: any width will do
    else:
        lowest, highest = np.array(extent, np.float64).T
    if not (np.isfinite(highest - lowest) & (highest > lowest)).all():
        raise ValueError(f"{who}: a grid from {lowest} to {highest}; each end must be above its beginning")
    return _cells(a, lowest, highest, bins), _cells(b, lowest, highest, bins)


def _cells(x: Array, lowest: np.ndarray, highest: np.ndarray, bins: int) -> np.ndarray:
    home, xp = backend_of(x), xp_of(x)
    low, high = home.from_numpy(lowest), home.from_numpy(highest)
    points = x.astype(np.float64)
    inside = ((points >= low) & (points <= high)).all(axis=1)
    # a point outside may be anywhere: brought to the edge first, so that its cell is a small whole number
    share = (xp.clip(points, low, high) - low) / (high - low)
    cell = xp.minimum((share * bins).astype(np.int64), bins - 1)  # the upper edge is the last cell's
    number = xp.where(inside, cell[:, 0] * bins + cell[:, 1], bins * bins)
    return to_numpy(xp.bincount(number, minlength=bins * bins + 1)).astype(np.float64)
