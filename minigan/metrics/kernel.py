"""How far apart two sets of vectors are, judged by a kernel: MMD², the squared maximum mean discrepancy.

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y)        k(x, y) = (x·y / F + 1)³

x and x' are two different vectors of the first set, y and y' of the second. The kernel k says how alike two
vectors are. If both sets come from one distribution, vectors of the same set are as alike as those of
different sets, and MMD² is 0. With this kernel it compares all means of products of up to three features: the
means, the covariances, and the skewness. Applied to a classifier's features of images it is the score called
KID (Bińkowski et al. 2018).

Fréchet's distance (frechet.py) is too large on average if the vectors are few. This one is right on average,
however few they are, and comes with its own error.

Shapes: N and M vectors, F numbers in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, backend_of, xp_of
from ..streams import stream
from .checks import features, same_width

__all__ = ["KernelReport", "kernel_distance", "squared_mmd"]

FEWEST = 10  # blocks: the spread of fewer would be known badly


@dataclass(frozen=True)
class KernelReport:
    """What kernel_distance found. distance: MMD². error: its standard error.

    >>> print(KernelReport(0.01234, 0.00056))
    kernel distance 0.01234 ± 0.00056
    """

    distance: float
    error: float

    def __str__(self) -> str:
        return f"kernel distance {self.distance:.5f} ± {self.error:.5f}"


def kernel_distance(x: Any, y: Any, block: int = 1000, seed: int = 0) -> KernelReport:
    """MMD² between x and y: the mean over blocks of both, and the standard error of this mean.

    Shapes: x (N, F), y (M, F), 20 or more of each. Both are shuffled (with `seed`) and cut into B pieces:
    B = min(N, M) / block, but 10 at least. Each piece of x is compared with one piece of y. No vector is in
    two pieces, so the B results are independent, and

        distance = mean of the B results        error = their standard deviation (over B - 1) / √B

    The error is what the choice of vectors contributes: how far the distance would be off if one drew new x
    and new y from the same distributions. What another run of training would change is not in it. Results
    are right on average, so for equal distributions about every second one is below 0.
    """
    a, b = features("kernel_distance", "x", x, 2 * FEWEST), features("kernel_distance", "y", y, 2 * FEWEST)
    same_width("kernel_distance", a, b)
    if block < 2:
        raise ValueError(f"kernel_distance: block={block}; it must be 2 or more")
    pieces = max(FEWEST, min(len(a), len(b)) // block)
    rng = stream(seed, "kernel distance: blocks")
    in_a, in_b = (np.array_split(rng.permutation(len(z)), pieces) for z in (a, b))
    home = backend_of(a)
    results = [
        _squared_mmd(a[home.from_numpy(i)], b[home.from_numpy(j)]) for i, j in zip(in_a, in_b, strict=True)
    ]
    return KernelReport(float(np.mean(results)), float(np.std(results, ddof=1) / pieces**0.5))


def squared_mmd(x: Any, y: Any) -> float:
    """MMD² = Σᵢ≠ⱼ k(xᵢ, xⱼ) / N(N-1) + Σᵢ≠ⱼ k(yᵢ, yⱼ) / M(M-1) - 2 Σᵢⱼ k(xᵢ, yⱼ) / NM

    Shapes: x (N, F), y (M, F), 2 or more of each. All pairs are compared at once, so it needs memory for
    N · N, M · M and N · M numbers. No vector is compared with itself: that makes it right on average. It
    can be below 0.

    >>> squared_mmd([[0.0], [2.0]], [[1.0], [-1.0]])        # 1 + 0 - 2 (1 + 1 + 27 - 1) / 4
    -13.0
    """
    a, b = features("squared_mmd", "x", x, 2), features("squared_mmd", "y", y, 2)
    same_width("squared_mmd", a, b)
    return _squared_mmd(a, b)


def _squared_mmd(x: Array, y: Array) -> float:
    # in double precision: the three means are much larger than what is left of them
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _within(x) + _within(y) - 2 * float(_kernel(x, y).mean())


def _within(x: Array) -> float:
    """The mean of k over all pairs of two different x."""
    k = _kernel(x, x)
    return float(k.sum() - xp_of(k).trace(k)) / (len(x) * (len(x) - 1))


def _kernel(x: Array, y: Array) -> Array:
    """k(x, y) = (x·y / F + 1)³ for every x with every y: (N, M)."""
    k = x @ y.T / x.shape[1] + 1
    return k * k * k
