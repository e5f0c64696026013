"""Noise: what G makes images of. The same for the same seed and position, on every backend."""

from __future__ import annotations

import numpy as np

from .. import backend as _backend
from ..streams import stream
from ..tensor import Tensor, constant

__all__ = ["Noise"]

BLOCK = 64  # batches drawn, and taken to the device, at a time


class Noise:
    """Batches of noise z (N, size), which depend on nothing but the seed and their number.

    kind: "normal" draws from N(0, 1), "uniform" between -1 and 1. purpose: another one, other numbers. NumPy
    draws for all backends, so that a run on a GPU sees the same noise as one on a CPU.

    >>> noise = Noise(size=100, batch=64, seed=0)
    >>> noise.at(3).shape
    (64, 100)
    """

    def __init__(
        self,
        size: int,
        batch: int,
        seed: int,
        kind: str = "normal",
        backend: str = "numpy",
        purpose: str = "noise",
    ):
        if kind not in ("normal", "uniform"):
            raise ValueError(f"Noise: kind={kind!r}; there are 'normal' and 'uniform'")
        if size < 1 or batch < 1:
            raise ValueError(f"Noise: size={size} and batch={batch} must be 1 or more")
        self.size, self.batch, self.seed, self.kind, self.backend = size, batch, seed, kind, backend
        self._purpose = purpose
        self._number = -1  # of the block at hand

    def at(self, number: int, count: int | None = None) -> Tensor:
        """Batch `number`, or its first `count` rows."""
        if number // BLOCK != self._number:
            self._number = number // BLOCK
            self._block = _backend.get(self.backend).from_numpy(self._draw(self._number))
        return constant(self._block[number % BLOCK, :count])

    def _draw(self, number: int) -> np.ndarray:
        rng, shape = stream(self.seed, self._purpose, number), (BLOCK, self.batch, self.size)
        if self.kind == "normal":
            return rng.standard_normal(shape, dtype="float32")
        return rng.random(shape, dtype="float32") * 2 - 1
