"""Random numbers that a GPU draws itself, from a key and a position.

The kernels (kernels.cu) make them with Philox, which turns (key, position, counter) into random bits. The
position is the step, and nothing else, since it may lie on the GPU: then it is looked up when the numbers are
drawn. What tells several draws of one step apart goes into the key.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..backend import Array

__all__ = ["DeviceGenerator", "key"]

ODD = 0x9E3779B97F4A7C15  # from one key to the next. Being odd, it comes back to the first after 2⁶⁴ of them


class DeviceGenerator:
    """As much of numpy.random.Generator as layers and penalties need. Its numbers are float32.

    step: a number, or where it lies on the GPU: 0-d, int64.
    """

    def __init__(self, seed: int, purpose: str, step: Any):
        self._key, self._step, self._drawn = key(seed, purpose), step, 0

    def random(self, shape: Any = (), dtype: Any = "float32") -> Array:
        """Uniform between 0 and 1."""
        return self._drawn_by("uniform", shape, dtype)

    def standard_normal(self, shape: Any = (), dtype: Any = "float32") -> Array:
        """N(0, 1)."""
        return self._drawn_by("normal", shape, dtype)

    def _drawn_by(self, kernel: str, shape: Any, dtype: Any) -> Array:
        from . import kernels  # only now: that loads CuPy

        return getattr(kernels, kernel)(_shape(shape), self._next()).astype(dtype, copy=False)

    def _next(self) -> tuple[int, Any]:
        """A step may ask several times, and each time gets a key of its own."""
        mixed = (self._key + self._drawn * ODD) % 2**64
        self._drawn += 1
        return mixed, self._step


def key(seed: int, purpose: str) -> int:
    """A number below 2⁶⁴ for (seed, purpose): what the random numbers of a GPU begin with.

    >>> key(0, "noise") == key(0, "noise"), key(0, "noise") == key(1, "noise")
    (True, False)
    """
    if seed < 0:
        raise ValueError(f"key: seed={seed} must be 0 or more")
    words = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return int(words.generate_state(1, np.uint64)[0])


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (int(np.asarray(shape)),)
