"""Where the parameters of an optimiser live: in one stretch of memory.

    memory     [ weight 0 ....... | bias 0 | weight 1 ............. | bias 1 ]
    parameter    each Tensor's array is a view of its part, read-only

A step never writes where parameters are. It computes the new values in a new stretch, and then the parameters
move there. So a value that somebody still holds (by `w.data`, `w.detach()`, or a view such as `w.T` in the
history of a loss) stays what it was. The old stretch is freed when nobody holds any part of it.

A parameter without a gradient stays where it is; then the others move into arrays of their own. (If it were a
stretch, one parameter that stays behind at this step, and one at the next, would keep all of each.)

A parameter keeps the order in which its entries lay in memory: a weight may be column-major, since the matrix
products that it goes through prefer that. And it may move out at any time, by `w.data = array` or into the
memory of another optimiser: a step begins with the value that it finds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from ..backend import Array, get
from ..tensor import Tensor


class Flat:
    """The memory of some parameters. Nothing moves in before the first `move_into`."""

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
        # Of each parameter: its axes in the order of memory, their lengths in that order, and the way back.
        self._orders = [memory_order(p._data) for p in self.params]
        self._lengths = [p._data.transpose(o).shape for p, o in zip(self.params, self._orders, strict=True)]
        self._backs = [tuple(sorted(range(len(o)), key=o.__getitem__)) for o in self._orders]
        edges = [0, *itertools.accumulate(p.size for p in self.params)]
        self._parts = [slice(*part) for part in itertools.pairwise(edges)]
        self._size = edges[-1]
        self._homes: list[Array] = [None] * len(self.params)  # the array that each was given
        self._memory: Array | None = None  # where all of these are, if they are in one stretch

    def empty(self) -> Array:
        """A stretch of memory for all parameters."""
        return get(self.backend).xp.empty(self._size, self.dtype)

    def part(self, memory: Array | None, i: int) -> Array:
        """The entries of parameter i there, an array of one axis. Without a `memory`, one of its own."""
        if memory is None:
            return get(self.backend).xp.empty(self.params[i].size, self.dtype)
        return memory[self._parts[i]]

    def line(self, array: Array, i: int) -> Array:
        """The entries of an array of parameter i's shape, in the order of its memory: one axis.

        A view; only of an array that lies otherwise it is a copy.
        """
        return array.transpose(self._orders[i]).reshape(-1)

    def shaped(self, line: Array, i: int) -> Array:
        """The way back: these entries in parameter i's shape. Always a view."""
        return line.reshape(self._lengths[i]).transpose(self._backs[i])

    def view(self, memory: Array, i: int) -> Array:
        """Parameter i there, in its shape."""
        return self.shaped(self.part(memory, i), i)

    def move_into(self, lines: Mapping[int, Array], memory: Array | None) -> None:
        """Let parameter i live in lines[i], with the value that is there. memory: what they are parts of."""
        for i, line in lines.items():
            self._homes[i] = self.shaped(line, i)
            self.params[i]._live_in(self._homes[i])
        self._memory = memory

    @property
    def together(self) -> Array | None:
        """The stretch that all parameters are in, one behind the other; None if one of them is elsewhere."""
        at_home = all(p._data is home for p, home in zip(self.params, self._homes, strict=True))
        return self._memory if at_home else None

    def check(self, who: str) -> None:
        """Are all parameters where they were, in the precision they had?"""
        for i, p in enumerate(self.params):
            if p.backend != self.backend or p.dtype != self.dtype:
                raise ValueError(
                    f"{who}: parameter {i} is {_place(p)} now, and was {self.dtype} on {self.backend} "
                    "when the optimiser was made; make the optimiser after model.to(...)"
                )


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


def memory_order(array: Array) -> tuple[int, ...]:
    """The axes, from the one with the longest stride in memory to the one with the shortest.

    In this order the array is C-contiguous. One with gaps is not, in any order; it gets the usual one.
    """
    order = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return order if array.transpose(order).flags.c_contiguous else tuple(range(array.ndim))


def _place(p: Tensor) -> str:
    return f"{p.dtype} on {p.backend}"
