"""Draws: everything that differs from one step to the next.

    draws = Draws(seed=0)
    for step in range(1000):
        now = draws.at(step)
        x = now.batch(images)            a batch of a data set (data/batches.py)
        z = now.noise((100, 32))         noise for G
        rng = now.rng("dropout")         a generator for whatever else is random

All of it depends on nothing but the seed, the purpose and the number of the step, and nothing here has a
state. So a step is a function of its number: a run that was interrupted goes on as if nothing had been, and
any step can be computed again.

NumPy's numbers are drawn by NumPy. A GPU draws its own (gpu/random.py), so that nothing has to be sent there
in a step. So the noise of a run on a GPU is not that of the same run on a CPU."""

from __future__ import annotations

import copy
from typing import Any

from ..backend import Array, asarray, get
from ..data.batches import Batches
from ..streams import stream
from ..tensor import Tensor, constant

__all__ = ["Draws"]

BLOCK = 64  # batches of noise drawn at a time, on a CPU


class Draws:
    """What the step called `step` is made of. backend: where the numbers are wanted.

    >>> draws = Draws(seed=0)
    >>> draws.at(3).noise((64, 100)).shape
    (64, 100)
    """

    def __init__(self, seed: int, backend: str = "numpy", step: int = 0):
        self.seed, self.backend = seed, backend
        self.step: Any = step
        self._blocks: dict[Any, tuple[int, Array]] = {}  # the noise at hand

    def at(self, step: int) -> Draws:
        """The same for another step."""
        there = copy.copy(self)
        there.step = step
        return there

    def batch(self, data: Batches, i: int = 0, of: int = 1) -> Any:
        """The next batch of a data set, as a Tensor; of (images, labels), a tuple of Tensors.

        i, of: a step that takes `of` batches of this data set gets the first one with i=0, and so on.
        """
        rows = data.at(self.step * of + i)
        return tuple(map(constant, rows)) if isinstance(rows, tuple) else constant(rows)

    def noise(
        self, shape: tuple[int, ...], kind: str = "normal", i: int = 0, of: int = 1, purpose: str = "noise"
    ) -> Tensor:
        """Noise of this shape, float32. kind: "normal" draws from N(0, 1), "uniform" between -1 and 1.

        i, of: as for `batch`. purpose: another one, other numbers.
        """
        if kind not in ("normal", "uniform"):
            raise ValueError(f"noise: kind={kind!r}; there are 'normal' and 'uniform'")
        if not shape or min(shape) < 1:
            raise ValueError(f"noise: shape {shape}; it must have axes, all of length 1 or more")
        number = self._number(i, of)
        if self.backend == "cupy":
            return constant(_noise(self._generator(purpose, number), shape, kind))
        block, row = divmod(number, BLOCK)
        known, numbers = self._blocks.get((purpose, shape, kind), (-1, None))
        if known != block:
            numbers = _noise(stream(self.seed, purpose, block), (BLOCK, *shape), kind)
            self._blocks[purpose, shape, kind] = block, numbers
        assert numbers is not None
        return constant(asarray(numbers[row], get(self.backend), copy=False))

    def rng(self, purpose: str) -> Any:
        """A generator for this purpose in this step: the methods are those of numpy.random.Generator."""
        return self._generator(purpose, self.step)

    def _number(self, i: int, of: int) -> Any:
        return self.step if of == 1 else self.step * of + i

    def _generator(self, purpose: str, number: Any) -> Any:
        if self.backend != "cupy":
            return stream(self.seed, purpose, number)
        from ..gpu.random import DeviceGenerator

        return DeviceGenerator(self.seed, purpose, number)


def _noise(rng: Any, shape: tuple[int, ...], kind: str) -> Array:
    if kind == "normal":
        return rng.standard_normal(shape, dtype="float32")
    return rng.random(shape, dtype="float32") * 2 - 1
