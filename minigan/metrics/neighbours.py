"""Are the fakes like real points, and are the real points all reached? Judged by nearest neighbours.

A ball is put around each point: its radius r is the distance to the k-th nearest other point of its own set.
All the balls of a set together cover about the region that its distribution lives in. With N real points x_i,
M fakes y_j, and 1[...] for 1 where ... is true and 0 where not:

    precision = 1/M Σ_j 1[y_j lies in the ball of at least one x_i]     are fakes like real points?
    recall    = 1/N Σ_i 1[x_i lies in the ball of at least one y_j]     is all that is real drawn, too?
    density   = 1/(k M) Σ_j Σ_i 1[y_j lies in the ball of x_i]          are fakes where many real points are?
    coverage  = 1/N Σ_i 1[the ball of x_i holds at least one y_j]       have all real points a fake nearby?

The first two are those of Kynkäänniemi et al. 2019 ("Improved precision and recall metric"; k = 3 there), the
others those of Naeem et al. 2020 ("Reliable fidelity and diversity metrics"; k = 5 there).

A real point far from all others has a huge ball, and each fake in it is precise. Density adds only 1/k for
this ball. A fake far from all others has a huge ball, too, and each real point in it is recalled. Coverage
asks the balls of real points only. So single points do not lead the newer two astray.

If both sets come from one distribution, density is about 1 (it may be above), and coverage is near
1 - 2^-k where N = M is large: 0.97 for k = 5. All four depend on k, N and M: compare them only where these
are equal.

Shapes: N real points and M fakes, F numbers in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, xp_of
from ..ops.operands import whole
from .checks import features, same_width

__all__ = ["NeighbourReport", "judge_neighbours"]

AT_ONCE = 2**21  # so many distances are in memory at a time: 16 MB


@dataclass(frozen=True)
class NeighbourReport:
    """What judge_neighbours found: four numbers, all 0 at worst; density may be above 1.

    >>> print(NeighbourReport(0.9, 0.75, 1.125, 0.96875))
    precision 0.900, recall 0.750, density 1.125, coverage 0.969
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in vars(self).items())


def judge_neighbours(real: Any, fake: Any, k: int = 5) -> NeighbourReport:
    """Precision, recall, density and coverage of fake points: the formulas are at the top of this file.

    Shapes: real (N, F), fake (M, F). Usually N = M = 10,000 points, each of them the features of an image.
    k: which neighbour gives a ball its radius. A point on the edge of a ball lies in it. Equal points are
    neighbours at distance 0.

    The balls of 0, 1, 2 and 9 for k = 1 have the radii 1, 1, 1 and 7. Two of the four fakes lie in some:

    >>> real, fake = [[0.0], [1.0], [2.0], [9.0]], [[-5.0], [1.5], [2.5], [30.0]]
    >>> judge_neighbours(real, fake, k=1)
    NeighbourReport(precision=0.5, recall=1.0, density=1.0, coverage=0.75)
    """
    k = whole("judge_neighbours", "k", k, least=1)
    x = features("judge_neighbours", "real", real, least=2)
    y = features("judge_neighbours", "fake", fake, least=2)
    same_width("judge_neighbours", x, y)
    if k >= min(len(x), len(y)):
        raise ValueError(
            f"judge_neighbours: k={k}, but there are {len(x)} real and {len(y)} fake points; each needs k "
            "others in its own set"
        )
    # |a|² + |b|² - 2 a·b loses the digits that |a|² has in common with |b|²: fewest around the centre.
    centre = x.mean(axis=0, dtype=np.float64)
    x, y = x - centre, y - centre
    xp = xp_of(x)
    x_radii, y_radii = _squared_radii(x, k), _squared_radii(y, k)

    y_is_in_a_ball, x_is_in_a_ball = xp.zeros(len(y), bool), xp.zeros(len(x), bool)
    x_has_a_fake = xp.zeros(len(x), bool)
    pairs = 0
    for some, d2 in _squared_distances(x, y, 1 - _rounding(x)):
        in_ball_of_x = d2 <= x_radii[some, None]
        y_is_in_a_ball |= in_ball_of_x.any(axis=0)
        x_has_a_fake[some] = in_ball_of_x.any(axis=1)
        x_is_in_a_ball[some] = (d2 <= y_radii).any(axis=1)
        pairs += int(xp.count_nonzero(in_ball_of_x))
    return NeighbourReport(
        precision=float(y_is_in_a_ball.mean()),
        recall=float(x_is_in_a_ball.mean()),
        density=pairs / (k * len(y)),
        coverage=float(x_has_a_fake.mean()),
    )


def _squared_radii(points: Array, k: int) -> Array:
    """r²: from each point the squared distance to its k-th nearest other point. Shape (N,)"""
    xp = xp_of(points)
    radii = xp.empty(len(points))
    for some, d2 in _squared_distances(points, points):
        row = xp.arange(len(d2))
        d2[row, some.start + row] = np.inf  # a point is not its own neighbour, but an equal one is
        d2.partition(k - 1, axis=1)
        radii[some] = d2[:, k - 1]
    return xp.maximum(radii, 0)  # that of equal points may come out a little below


def _squared_distances(a: Array, b: Array, share: float = 1.0) -> Iterator[tuple[slice, Array]]:
    """|a_i - b_j|² = |a_i|² + |b_j|² - 2 a_i·b_j, for some rows i at a time and all j

    Shapes: a (n, F), b (m, F); gives pairs of a slice of the rows i and the distances (rows, m). share: only
    so much of |a_i|² + |b_j|² is taken.
    """
    a2, b2 = (share * (points * points).sum(axis=1) for points in (a, b))
    rows = max(1, AT_ONCE // len(b))
    for start in range(0, len(a), rows):
        some = slice(start, start + rows)
        d2 = (-2 * a[some]) @ b.T
        d2 += a2[some, None]
        d2 += b2
        yield some, d2


def _rounding(points: Array) -> float:
    """How wrong |a - b|² may be after rounding, in units of |a|² + |b|². The sums have F terms.

    Points on the edge of a ball are common: a fake that equals a real point is on several. Taken off the
    squared distances, this much puts such points inside, however the sums were rounded. It also makes points
    equal that are closer than some 10⁻⁷ of their distance from the centre.
    """
    return (points.shape[1] + 8) * float(np.finfo(np.float64).eps)
