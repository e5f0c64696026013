"""One stretch of memory for all parameters of an optimiser.

    memory     [ weight 0 ....... | bias 0 | weight 1 ............. | bias 1 ]
    parameter    each Tensor's array is a view of its part, read-only

The optimiser writes new values into that memory, in place: at every step the same memory, which the
processor knows already. But a value that somebody still holds (by `w.data`, `w.detach()`, or a view such as
`w.T` in the history of a loss) must not change under his hands. So before it writes, the optimiser counts
who refers to its memory. If anybody else does, that memory is his now, and the parameters move to a copy.

A parameter keeps the order in which its own entries lay in memory (a weight may be column-major, since the
matrix products that it goes through prefer that). And it may move out at any time, by `w.data = array` or
into another optimiser's memory. The next step finds it gone, and takes it in again with the value it has.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import numpy as np

from ..backend import Array, get
from ..tensor import Leaf, Tensor


class Flat:
    """The memory of some parameters. Nothing moves in before `take_in`."""

    def __init__(self, params: Iterable[Tensor], who: str):
        self.params = leaves(params, who)
        if not self.params:
            raise ValueError(f"{who}: there are no parameters to optimise; is model.parameters() empty?")
        self.backend, self.dtype = self.params[0].backend, self.params[0].dtype
        for i, p in enumerate(self.params):
            if p.backend != self.backend or p.dtype != self.dtype:
                raise ValueError(
                    f"{who}: parameter 0 is {self.dtype} on {self.backend}, parameter {i} {_place(p)}; "
                    "move them together with model.to(...), or make an optimiser for each kind"
                )
        if self.dtype.itemsize < 4:
            raise ValueError(
                f"{who}: parameters of dtype {self.dtype} are too coarse to be optimised, small steps would "
                'round to nothing; keep them in float32: model.to(dtype="float32")'
            )
        self._shapes = [p.shape for p in self.params]
        self._orders = [memory_order(p._data) for p in self.params]
        ends = np.cumsum([p.size for p in self.params]).tolist()
        self._cuts = [slice(end - p.size, end) for p, end in zip(self.params, ends, strict=True)]
        self._memory: list[Array] = [self.zeros()]  # one array, in a list so that `_references` can ask
        self._homes: list[Array] = [None] * len(self.params)  # the view that a parameter was given

    def zeros(self) -> Array:
        """As many zeros as there are entries in all parameters."""
        return get(self.backend).xp.zeros(sum(math.prod(shape) for shape in self._shapes), self.dtype)

    def start(self, i: int) -> int:
        """Where the part of parameter i begins."""
        return self._cuts[i].start

    def whole(self) -> Array:
        """All of the memory, to write to, after `take_in`."""
        return self._memory[0]

    @property
    def holder(self) -> list[Array]:
        """A list with the memory in it. Another list is another memory."""
        return self._memory

    def settle_in(self, holder: list[Array]) -> None:
        """Have all parameters live in that memory, with the values that are there."""
        self._memory = holder
        for i in range(len(self.params)):
            self._settle(i)

    def piece(self, memory: Array, i: int) -> Array:
        """The part of `memory` that belongs to parameter i, as it lies: one axis."""
        return memory[self._cuts[i]]

    def view(self, memory: Array, i: int) -> Array:
        """The part of `memory` that belongs to parameter i, in its shape."""
        order, shape = self._orders[i], self._shapes[i]
        back = tuple(sorted(range(len(order)), key=order.__getitem__))
        return self.piece(memory, i).reshape(tuple(shape[axis] for axis in order)).transpose(back)

    def as_it_lies(self, array: Array, i: int) -> Array:
        """An array of parameter i's shape, entries in the order of its memory. Copied only if need be."""
        return array.transpose(self._orders[i]).reshape(-1)

    def check(self, who: str) -> None:
        """Are all parameters where they were, in the precision they had?"""
        for i, p in enumerate(self.params):
            if p.backend != self.backend or p.dtype != self.dtype:
                raise ValueError(
                    f"{who}: parameter {i} is {_place(p)} now, and was {self.dtype} on {self.backend} "
                    "when the optimiser was made; make the optimiser after model.to(...)"
                )

    def make_room(self) -> None:
        """Before a step: if somebody else holds an array of ours, leave him the memory and move to a copy."""
        for i, p in enumerate(self.params):
            if p._data is not self._homes[i]:
                self._homes[i] = None  # it moved out
        homes = [i for i, home in enumerate(self._homes) if home is not None]
        alone = _references(self._memory, 0) == 1 + len(homes)  # ours, and that of each home
        if alone and all(_references(self._homes, i) == 2 for i in homes):  # ours, and the parameter's
            return
        self._memory = [self._memory[0].copy()]
        for i in homes:
            self._settle(i)

    def take_in(self, i: int) -> Array:
        """Parameter i's memory, to write to; after that `leaf.version` must be raised."""
        p, memory = self.params[i], self.piece(self._memory[0], i)
        if p._data is not self._homes[i]:
            memory[...] = self.as_it_lies(p._data, i)
            self._settle(i)
        return memory

    def _settle(self, i: int) -> None:
        self._homes[i] = self.view(self._memory[0], i)
        self.params[i]._live_in(self._homes[i])


def _references(holder: list, i: int) -> int:
    """How many references there are to holder[i], the one in `holder` included."""
    return sys.getrefcount(holder[i]) - _BY_ASKING


_BY_ASKING = 0
_BY_ASKING = _references([object()], 0) - 1  # the question itself makes some


def leaves(params: Iterable[Tensor], who: str) -> list[Tensor]:
    """`params` as a list, if they are what can be trained."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(
            f"{who}: params is a {type(params).__name__}; give a list of Tensors, as model.parameters() does"
        )
    found = list(params)
    seen: dict[Tensor, int] = {}
    for i, p in enumerate(found):
        if not isinstance(p, Tensor):
            raise TypeError(
                f"{who}: params[{i}] is a {type(p).__name__}, not a Tensor; give model.parameters()"
            )
        if p.leaf is None:
            raise ValueError(
                f"{who}: params[{i}] of shape {p.shape} is no leaf; only a Tensor made with "
                "requires_grad=True can take new values"
            )
        if p.leaf.fixed:
            raise ValueError(
                f"{who}: params[{i}] of shape {p.shape} was a constant before requires_grad_(), and an op "
                "may rely on its value; make it Tensor(..., requires_grad=True) from the start"
            )
        if p in seen:
            raise ValueError(
                f"{who}: params[{seen[p]}] and params[{i}] are the same Tensor; give each of them once"
            )
        seen[p] = i
    return found


def leaf_of(p: Tensor) -> Leaf:
    assert p.leaf is not None
    return p.leaf


def memory_order(array: Array) -> tuple[int, ...]:
    """The axes, from the one with the longest stride in memory to the one with the shortest.

    In this order the array is C-contiguous. One with gaps is not, in any order; it gets the usual one.
    """
    order = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return order if array.transpose(order).flags.c_contiguous else tuple(range(array.ndim))


def _place(p: Tensor) -> str:
    return f"{p.dtype} on {p.backend}"
