"""Random numbers for training: the noise that G makes images of, and generators for layers and penalties.

They depend on nothing but the seed, the purpose and the step. NumPy's are drawn by NumPy. A GPU draws its own
(gpu/formulas.py says how), so that nothing has to be sent there in a step. So the noise of a run on a GPU is
not that of the same run on a CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backend as _backend
from ..kernels import device
from ..streams import key, stream
from ..tensor import Tensor, constant

__all__ = ["DeviceGenerator", "Noise", "generator"]

BLOCK = 64  # batches drawn at a time, on a CPU
ODD = 0x9E3779B97F4A7C15  # from one key to the next. Being odd, it comes back to the first after 2⁶⁴ of them


class Noise:
    """Batches of noise z (N, size), which depend on nothing but the seed and their number.

    kind: "normal" draws from N(0, 1), "uniform" between -1 and 1. purpose: another one, other numbers.

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

    def at(self, number: Any, count: int | None = None) -> Tensor:
        """Batch `number`, or its first `count` rows. On a GPU the number may lie there: 0-d, int64."""
        if self.backend != "numpy":
            draws = generator(self.seed, self._purpose, number, self.backend)
            return constant(self._draw(draws, (self.batch, self.size))[:count])
        if number // BLOCK != self._number:
            self._number = number // BLOCK
            draws = stream(self.seed, self._purpose, self._number)
            self._block = self._draw(draws, (BLOCK, self.batch, self.size))
        return constant(self._block[number % BLOCK, :count])

    def _draw(self, rng: Any, shape: tuple[int, ...]) -> _backend.Array:
        if self.kind == "normal":
            return rng.standard_normal(shape, dtype="float32")
        return rng.random(shape, dtype="float32") * 2 - 1


def generator(seed: int, purpose: str, step: Any, backend: str) -> Any:
    """The generator for `purpose` at this step, whose numbers are arrays of the backend.

    On a GPU the step may lie there, in an array (0-d, int64): it is looked up when the numbers are drawn.
    """
    return (
        stream(seed, purpose, step) if backend == "numpy" else DeviceGenerator(seed, purpose, step, backend)
    )


class DeviceGenerator:
    """As much of numpy.random.Generator as layers and penalties need, on a GPU. Its numbers are float32.

    The kernels want a key and a position (gpu/formulas.py). The position is the step, and nothing else,
    since it may lie on the GPU. What tells several draws of one step apart goes into the key.
    """

    def __init__(self, seed: int, purpose: str, step: Any, backend: str):
        xp = _backend.get(backend).xp
        self._fused, self._xp = device.of(xp.empty(0)), xp
        self._key, self._step, self._drawn = key(seed, purpose), step, 0

    def random(self, shape: Any = (), dtype: Any = "float32") -> _backend.Array:
        """Uniform between 0 and 1."""
        return self._fused.uniform(_shape(shape), self._next(), self._xp).astype(dtype, copy=False)

    def standard_normal(self, shape: Any = (), dtype: Any = "float32") -> _backend.Array:
        """N(0, 1)."""
        return self._fused.normal(_shape(shape), self._next(), self._xp).astype(dtype, copy=False)

    def _next(self) -> tuple[int, Any]:
        """A step may ask several times, and each time gets a key of its own."""
        mixed = (self._key + self._drawn * ODD) % 2**64
        self._drawn += 1
        return mixed, self._step


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (int(np.asarray(shape)),)
