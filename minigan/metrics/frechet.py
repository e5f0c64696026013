"""How far apart two sets of vectors are, judged by their means and covariances alone: Fréchet's distance.

    d² = |μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)

If both sets came from normal distributions, d would be the Wasserstein-2 distance between the two: the root
of the least mean square way that one must move the points of the first to make them the second. Applied to
a classifier's features of images, real ones and fakes, d² is the score called FID (Heusel et al. 2017); it is
d² that is reported, and that `frechet_distance` gives.

Shapes: N vectors, F numbers in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import to_numpy
from . import checks

__all__ = ["frechet_distance", "moments"]

# Rounding can make the zero eigenvalues of a covariance a little negative, in units of the largest one:
# by 1e-15 in double precision, by 1e-7 where it was computed in single precision.
ROUNDING = 1e-5


def moments(features: Any) -> tuple[np.ndarray, np.ndarray]:
    """The mean μ = Σ x / N and the covariance C = Σ (x - μ)(x - μ)ᵀ / (N - 1) of N vectors, in float64.

    Shapes: features (N, F), μ (F,), C (F, F). The sums are made where the features are, on the GPU if they
    are there; μ and C are NumPy arrays.

    With N ≤ F vectors C is not invertible. It is still right to compute a distance with it, but few vectors
    look farther apart than the distributions they come from: compare only distances that were made of
    equally many.

    >>> mean, cov = moments(np.array([[0.0, 1.0], [2.0, 5.0]]))
    >>> mean.tolist(), cov.tolist()
    ([1.0, 3.0], [[2.0, 4.0], [4.0, 8.0]])
    """
    x = checks.features("moments", "features", features, least=0)
    if len(x) < 2:
        raise ValueError(f"moments: {len(x)} vectors have no covariance; give 2 at least, better thousands")
    mean = x.mean(axis=0, dtype=np.float64)
    x = x - mean
    return to_numpy(mean), to_numpy(x.T @ x / (len(x) - 1))


def frechet_distance(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> float:
    """d² = |μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)

    Shapes: means (F,), covariances (F, F). The root of the product C₁ C₂, which is not symmetric, is not
    needed: it has the trace of (C₁^½ C₂ C₁^½)^½, which is (M Mᵀ)^½ with M = C₁^½ C₂^½, and that trace is the
    sum of the singular values of M. So M Mᵀ is never computed, and no digits are lost by squaring and taking
    the root again. Nor does it matter whether C₁ and C₂ can be inverted.

    >>> frechet_distance(np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1))    # 3² + (1 - 2)²
    10.0
    """
    m1, c1 = _checked(mean1, cov1, 1)
    m2, c2 = _checked(mean2, cov2, 2)
    if m1.shape != m2.shape:
        raise ValueError(
            f"frechet_distance: the first mean has {len(m1)} entries, the second {len(m2)}; "
            "both must be of features of the same kind"
        )
    root = np.linalg.svd(_root(c1, 1) @ _root(c2, 2), compute_uv=False).sum()
    away = m1 - m2
    # nothing below zero is a distance: what equal sets give is zero but for rounding
    return max(0.0, float(away @ away + np.trace(c1) + np.trace(c2) - 2 * root))


def _root(cov: np.ndarray, which: int) -> np.ndarray:
    """C^½ = Q √Λ Qᵀ, where C = Q Λ Qᵀ; it is symmetric, and its square is C."""
    values, vectors = np.linalg.eigh(cov)
    if values.size and values[0] < -ROUNDING * max(values[-1], 0.0):
        raise ValueError(
            f"frechet_distance: cov{which} has the eigenvalue {values[0]:.3g}, the largest is "
            f"{values[-1]:.3g}; a covariance has none below 0. Use what moments(features) gives"
        )
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _checked(mean: Any, cov: Any, which: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance as float64, exactly symmetric; or an error that says what is wrong with them."""
    m, c = checks.on_host(mean).astype(np.float64), checks.on_host(cov).astype(np.float64)
    if m.ndim != 1 or c.shape != (m.size, m.size):
        raise ValueError(
            f"frechet_distance: mean{which} has shape {m.shape} and cov{which} {c.shape}; they must be (F,) "
            "and (F, F), as moments(features) gives them"
        )
    if not (np.isfinite(m).all() and np.isfinite(c).all()):
        raise ValueError(f"frechet_distance: mean{which} or cov{which} contains NaN or infinity")
    if np.abs(c - c.T).max(initial=0) > ROUNDING * np.abs(c).max(initial=0):
        raise ValueError(f"frechet_distance: cov{which} is not symmetric, as a covariance is")
    return m, (c + c.T) / 2
