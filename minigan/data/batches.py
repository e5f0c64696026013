"""A data set, cut into batches in another order each epoch."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..backend import Array, get, home_of
from ..kernels import device
from ..streams import stream

__all__ = ["Batches"]


class Batches:
    """Random batches of data (N, ...), a NumPy array or an array of the backend.

        batches = Batches(scaled(images), size=100, seed=0)
        for step in range(10 * len(batches)):                 10 epochs
            x = batches.at(step)                              (100, 28, 28)

    An epoch shows each row once, in an order that depends on the seed and the epoch only. So any step can be
    asked for, in any order, and a run that was interrupted goes on with the batches it would have had.

    size: rows in a batch, at most. If N is not a multiple of it, the rows are dealt out evenly, so that the
    sizes differ by one at most: 10 rows in batches of 4 are 4, 3 and 3. (A last batch of 2 would weigh as
    much as the others, and batch normalisation would not like it.)

    data may be a pair (or more) such as (images, labels); `at` then gives a tuple. All of it is put on the
    device once, at the start; NumPy's arrays are used where they are. The dtype stays what it is.
    """

    def __init__(self, data: Array | tuple[Array, ...], size: int, seed: int, backend: str = "numpy"):
        self.backend = get(backend)
        self.size, self.seed = operator.index(size), seed
        self._alone = not isinstance(data, tuple)
        self._arrays = [self._here(part) for part in (data if isinstance(data, tuple) else (data,))]
        counts = [len(part) for part in self._arrays]
        if len(set(counts)) != 1 or not counts[0] or self.size < 1:
            raise ValueError(
                f"Batches: {' and '.join(map(str, counts)) or 'no'} rows in batches of {size}; all parts "
                "must have the same number of rows, and that and the size must be 1 or more"
            )
        self.count = counts[0]
        self._epoch, self._order = -1, self.backend.from_numpy(np.arange(0))
        self._recorded = False  # if so, the recorded step looks for the order where it is

    def _here(self, part: Any) -> Array:
        """The array on the backend's device."""
        owner = home_of(part)
        array: Array
        if owner is self.backend and isinstance(part, owner.array_type):
            array = part
        elif owner.name == "numpy":
            array = self.backend.from_numpy(np.asarray(part))
        else:
            raise TypeError(
                f"Batches: an array of backend {owner.name!r} where {self.backend.name!r} is needed; "
                "move it first"
            )
        if not array.ndim:
            raise ValueError("Batches: a single number; data has the shape (N, ...)")
        return array

    def __len__(self) -> int:
        """Steps per epoch: ceil(N / size)."""
        return -(-self.count // self.size)

    def at(self, step: int) -> Any:
        """The batch of a step, counted from 0 over all epochs: a copy, free to be written to."""
        turn = self.turn(step)
        rows, more = divmod(self.count, len(self))  # the first `more` batches have a row more
        start = turn * rows + min(turn, more)
        chosen = self._order[start : start + rows + (turn < more)]
        if device.of(chosen) is not None:
            return self._gathered(chosen, 0, len(chosen))
        parts = tuple(array[chosen] for array in self._arrays)  # indexing by an array copies
        return parts[0] if self._alone else parts

    def turn(self, step: int) -> int:
        """Which batch of its epoch a step takes, from 0. The order of that epoch is at hand from now on."""
        epoch, turn = divmod(operator.index(step), len(self))
        if epoch < 0:
            raise ValueError(f"Batches.at: step={step}; the first step is 0")
        if epoch != self._epoch:
            order = self.backend.from_numpy(stream(self.seed, "shuffle", epoch).permutation(self.count))
            self._epoch = epoch
            if self._recorded:
                self._order[...] = order
            else:
                self._order = order
        return turn

    @property
    def even(self) -> bool:
        """Whether all batches have the same number of rows."""
        return self.count % len(self) == 0

    def at_turn(self, turn: Array) -> Any:
        """A batch of the epoch at hand, on a GPU, where its number lies, too: 0-d, int64.

        All batches must have the same number of rows.
        """
        self._recorded = True
        return self._gathered(self._order, turn, self.count // len(self))

    def _gathered(self, order: Array, turn: Any, count: int) -> Any:
        """The rows that order[turn · count : (turn + 1) · count] names, in one launch for each part."""
        fused = device.of(order)
        parts = tuple(fused.batch(array, order, turn, count) for array in self._arrays)
        return parts[0] if self._alone else parts
