"""A data set, cut into batches in another order each epoch."""

from __future__ import annotations

import operator
import zlib
from typing import Any

import numpy as np

from ..backend import Array, get, home_of, to_numpy
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

    @property
    def even(self) -> bool:
        """Whether all batches have the same number of rows."""
        return self.count % len(self) == 0

    def at(self, step: int) -> Any:
        """The batch of a step, counted from 0 over all epochs: a copy, free to be written to."""
        epoch, turn = divmod(operator.index(step), len(self))
        if epoch < 0:
            raise ValueError(f"Batches.at: step={step}; the first step is 0")
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.backend.from_numpy(self.order(epoch))
        rows, more = divmod(self.count, len(self))  # the first `more` batches have a row more
        start = turn * rows + min(turn, more)
        return self.take(self._order[start : start + rows + (turn < more)])

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of the rows in the order in which this epoch shows them."""
        return stream(self.seed, "shuffle", epoch).permutation(self.count)

    def take(self, rows: Array) -> Any:
        """The rows with these numbers, of each part: a copy."""
        parts = tuple(array[rows] for array in self._arrays)  # indexing by an array copies
        return parts[0] if self._alone else parts

    def fingerprint(self) -> dict[str, Any]:
        """What this data set is, for the record of a run: shapes, dtypes, ranges, and a checksum."""
        arrays = [to_numpy(array) for array in self._arrays]
        found: dict[str, list[Any]] = {
            "shape": [array.shape for array in arrays],
            "dtype": [str(array.dtype) for array in arrays],
            "range": [[float(array.min()), float(array.max())] for array in arrays],
            "crc32": [zlib.crc32(np.ascontiguousarray(array).data) for array in arrays],
        }
        return {name: values[0] if self._alone else values for name, values in found.items()}
