"""Two-dimensional data sets of which everything is known: mixtures of normal distributions, and a spiral.

    p(x) = 1/K Σ_k N(x; c_k, σ² I)        K centres c_k, all equally likely

The numbers in ring() and grid() are those of the experiments of PacGAN and VEEGAN. The functions whose names
begin with wgan_gp are the toys of "Improved Training of Wasserstein GANs".

    data = ring()
    x = data.sample(100_000, stream(0, "data"))          (100000, 2), float32
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Mixture", "SwissRoll", "grid", "ring", "wgan_gp_grid", "wgan_gp_ring", "wgan_gp_swiss_roll"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Normal distributions of the same width around centres (K, 2), float64."""

    centres: np.ndarray
    sigma: float

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """x = c_k + σ ε, k uniform, ε standard normal: (count, 2), float32."""
        k = rng.integers(len(self.centres), size=count)
        return (self.centres[k] + self.sigma * rng.standard_normal((count, 2))).astype(np.float32)


@dataclass(frozen=True)
class SwissRoll:
    """A spiral: x = (t cos t, t sin t) / scale, with t from 1.5 π to 4.5 π, and noise before the division."""

    noise: float
    scale: float

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, 2), float32; t is uniform, so the outer turns are thinner."""
        t = 1.5 * np.pi * (1 + 2 * rng.uniform(size=count))
        x = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) + self.noise * rng.standard_normal((count, 2))
        return (x / self.scale).astype(np.float32)


def ring(modes: int = 8, radius: float = 1.0, sigma: float = 0.01) -> Mixture:
    """Centres on a circle: c_k = radius (cos 2πk/K, sin 2πk/K), k = 0 ... K-1.

    >>> ring(4).centres.round(9).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, -1.0]]
    """
    angle = 2 * np.pi * np.arange(modes) / modes  # K different angles: 2π would be the first again
    return Mixture(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), sigma)


def grid(side: int = 5, spacing: float = 2.0, sigma: float = 0.05) -> Mixture:
    """Centres on a square grid around 0, side x side of them: for 5, {-4, -2, 0, 2, 4}²."""
    line = spacing * (np.arange(side) - (side - 1) / 2)
    return Mixture(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), sigma)


def wgan_gp_ring() -> Mixture:
    """8 Gaussians: a ring of radius 2, σ = 0.02, all divided by 1.414."""
    return ring(8, 2 / 1.414, 0.02 / 1.414)


def wgan_gp_grid() -> Mixture:
    """25 Gaussians: the grid {-4, -2, 0, 2, 4}², σ = 0.05, all divided by 2.828."""
    return grid(5, 2 / 2.828, 0.05 / 2.828)


def wgan_gp_swiss_roll() -> SwissRoll:
    """The swiss roll with noise 0.25, seen from the side and divided by 7.5."""
    return SwissRoll(0.25, 7.5)
