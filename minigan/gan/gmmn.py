"""GMMN (Li, Swersky & Zemel 2015): a generator without a discriminator.

Take points x from the data and points y from G, and a kernel k, which says how close two points are:

    k(a, b) = Σσ exp(-|a - b|² / 2σ²)

If x and y come from one distribution, two x's are on average as close as two y's, and as an x and a y. The
maximum mean discrepancy measures how far that is from being so:

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

There are several bandwidths σ because one alone measures differences at one scale only. G needs large
batches: MMD² is estimated from one batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from ..nn import Module
from ..ops.elementwise import exp, sqrt, where
from ..ops.operands import tensors
from ..optim import Optimizer
from ..tensor import Tensor, no_grad, record
from .steps import Report, gradients, move

__all__ = ["GMMN", "mmd2"]

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # suits images of some hundred pixels


def mmd2(real: Any, fake: Any, bandwidths: Sequence[float] = BANDWIDTHS, unbiased: bool = False) -> Tensor:
    """MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

    dMMD²/dyᵢ = 2 [Σⱼ w(yᵢ, yⱼ) (yⱼ - yᵢ) / m² - Σⱼ w(yᵢ, xⱼ) (xⱼ - yᵢ) / nm]        (for x likewise)
    with w(a, b) = Σσ exp(-|a - b|² / 2σ²) / σ²

    Down this slope the x's attract the y's, and the y's repel each other.
    Shapes: real x (n, F), fake y (m, F), F numbers to a point.
    unbiased: a point is not compared with itself, so n (n - 1) and m (m - 1) replace n² and m². The result
    is then right on average, and may be negative.
    """
    x, y = tensors("mmd2", real, fake)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not (x.size and y.size):
        raise ValueError(
            f"mmd2: real points of shape {x.shape}, fake points of shape {y.shape}; they must be (n, F) and "
            "(m, F), one row a point"
        )
    n, m = len(x), len(y)
    if unbiased and min(n, m) < 2:
        raise ValueError(f"mmd2: {n} real and {m} fake points; unbiased=True compares at least two of each")
    n_pairs, m_pairs = (n * (n - 1), m * (m - 1)) if unbiased else (n * n, m * m)
    itself = len(bandwidths) if unbiased else 0  # k(a, a)

    with no_grad():
        xx = (kernel(x, x, bandwidths).sum() - n * itself) / n_pairs
        yy = (kernel(y, y, bandwidths).sum() - m * itself) / m_pairs
        value = xx + yy - kernel(x, y, bandwidths).mean() * 2
    return record(
        "mmd2",
        value.data,
        (x, lambda g: g * 2 * (slope(x, x, bandwidths) / n_pairs - slope(x, y, bandwidths) / (n * m))),
        (y, lambda g: g * 2 * (slope(y, y, bandwidths) / m_pairs - slope(y, x, bandwidths) / (n * m))),
    )


def kernel(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """k(aᵢ, bⱼ) = Σσ exp(-|aᵢ - bⱼ|² / 2σ²)"""
    d2 = squared_distances(a, b)
    return reduce(add, [exp(d2 * (-0.5 / s**2)) for s in bandwidths])


def slope(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Σⱼ w(aᵢ, bⱼ) (bⱼ - aᵢ): the gradient of Σⱼ k(aᵢ, bⱼ) in aᵢ"""
    d2 = squared_distances(a, b)
    w = reduce(add, [exp(d2 * (-0.5 / s**2)) * s**-2 for s in bandwidths])
    return w @ b - w.sum(axis=1, keepdims=True) * a


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|aᵢ - bⱼ|² = |aᵢ|² + |bⱼ|² - 2 aᵢ·bⱼ        Shapes: a (n, F), b (m, F), result (n, m)"""
    return (a * a).sum(axis=1, keepdims=True) + (b * b).sum(axis=1) - (a @ b.mT) * 2


@dataclass
class GMMN:
    """L_G = MMD² of real and fake images, or its root. There is no D: G plays alone.

    g, optimizer: the generator, and what moves it. bandwidths: the σ's of the kernels. unbiased: see mmd2.
    root: √MMD², as in the paper's experiments; its slope does not fade as fast when the distributions are
    nearly equal.

        gmmn = GMMN(g, Adam(g.parameters(), 1e-3))
        for step in range(10_000):
            report = gmmn.step(batch(step), noise(step))
    """

    g: Module
    optimizer: Optimizer
    bandwidths: Sequence[float] = BANDWIDTHS
    unbiased: bool = False
    root: bool = False

    def __post_init__(self) -> None:
        self.bandwidths = tuple(float(s) for s in self.bandwidths)
        if not self.bandwidths or min(self.bandwidths) <= 0:
            raise ValueError(f"GMMN: bandwidths {self.bandwidths}; it needs one or more, all above 0")
        if self.unbiased and self.root:
            raise ValueError(
                "GMMN: the unbiased MMD² may be negative, and then has no root; choose one option"
            )

    def loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_G = MMD², or √MMD²        Shapes: real and fake images (N, ...), each taken for a point"""
        x, y = (images.reshape(len(images), -1) for images in (real, fake))
        squared = mmd2(x, y, self.bandwidths, self.unbiased)
        if not self.root:
            return squared
        equal = squared.data <= 0  # √ has no slope at 0: it gets slope 0 here
        return where(equal, 0.0, sqrt(where(equal, 1.0, squared)))

    def step(self, real: Tensor, z: Tensor) -> Report:
        """θ_G ← θ_G - a step along ∂L_G/∂θ_G"""
        loss_g = self.loss(real, self.g(z))
        move(self.optimizer, gradients(self.optimizer, loss_g, "L_G"))
        return Report(loss_g=loss_g.detach())

    def parts(self) -> dict[str, Any]:
        """All that has a state, by name."""
        return {"g": self.g, "g_optimizer": self.optimizer}

    def settings(self) -> dict[str, Any]:
        """The rules, as JSON can hold them."""
        rules = {"bandwidths": list(self.bandwidths), "unbiased": self.unbiased, "root": self.root}
        return {"loss": {"name": "gmmn", **rules}}
