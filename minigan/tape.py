"""What a Tensor's history is made of: nodes and edges, and whether anything is being remembered.

    w ──┐
        ├── mul ── tanh          the history of y = tanh(w * x)
    x ──┘

A Node is one step of such a history. It knows the op's name and, for each input, the node that the
input came from and the *vjp* that leads a gradient back to it. There are no Tensors here; they are in
tensor.py, where histories are written (`record`) and walked (`grad`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Array

if TYPE_CHECKING:
    from .tensor import Tensor

Vjp = Callable[..., "Tensor"]

_count = itertools.count()


class Node:
    """One step of history: an op, and an edge to each input that a gradient can flow to.

    A node holds no activations; its vjps hold exactly what they need, and the rest is freed at
    once. `output` is the exception that avoids a circle: the vjp of tanh needs tanh's own result,
    and a closure holding the result Tensor would in turn be held by it. So an op that records with
    output=True has its array kept here, and its vjps are called as vjp(g, y).
    """

    __slots__ = ("broadcasts", "dtype", "edges", "frozen", "name", "number", "output", "shape")
    version, active = 0, True  # the result of an op never changes, and is never frozen

    def __init__(self, name, shape, dtype, edges=(), frozen=(), broadcasts=False, output=None):
        self.name: str = name
        self.number: int = next(_count)  # a parent is always older than its child
        self.shape: tuple[int, ...] = shape
        self.dtype: np.dtype = dtype
        self.edges: Sequence[tuple[Node, Vjp, int]] = edges  # input, vjp, version of the input
        self.frozen: Sequence[tuple[Leaf, int]] = frozen  # inputs that are frozen leaves, and versions
        self.broadcasts: bool = broadcasts
        self.output: Array | None = output


class Leaf(Node):
    """Where history begins: a Tensor made by the user with requires_grad. Here gradients arrive.

    `version` counts how often the Tensor's value was changed. Every op notes the version it saw,
    so that a backward walk through a value that is no longer there fails instead of lying. Likewise
    `active`, which is False while the Tensor is frozen.
    """

    __slots__ = ("active", "fixed", "grad", "version")

    def __init__(self, name, shape, dtype, fixed):
        super().__init__(name, shape, dtype)
        self.grad: Tensor | None = None
        self.version: int = 0
        self.active: bool = True
        self.fixed: bool = fixed  # was a constant before: ops may have used it without noting a version


def history(*roots: Node) -> list[Node]:
    """The nodes that `roots` came from, themselves included, youngest first.

    Every node is younger than its inputs, so this order visits a node only after everything that
    was computed from it. No recursion: a history may be longer than Python's stack.
    """
    found, stack = set(roots), list(roots)
    while stack:
        for parent, _, _ in stack.pop().edges:
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=attrgetter("number"), reverse=True)


def leading_to(wanted: Iterable[Node], order: list[Node]) -> set[Node]:
    """The nodes of `order` (youngest first) from which a path leads down to a wanted one."""
    useful = set(wanted)
    for node in reversed(order):
        for parent, _, _ in node.edges:
            if parent in useful:
                useful.add(node)
                break
    return useful


# ------------------------------------------------------------------------------------- modes

# Per thread and per task, so that `no_grad` in one never switches off another.
recording: ContextVar[bool] = ContextVar("recording", default=True)
observing: ContextVar[Any] = ContextVar("observing", default=None)

# The two questions that every op asks; bound here, since looking `get` up each time takes longer than it.
is_recording = recording.get  # are ops remembered just now?
observer = observing.get  # who looks on (draw.trace), or None


class no_grad(ContextDecorator):
    """Inside, ops are computed but not remembered. Also a decorator: `@no_grad()`.

    >>> from minigan import Tensor
    >>> x = Tensor(2.0, requires_grad=True)
    >>> with no_grad():
    ...     (x * x).requires_grad
    False
    """

    def __init__(self) -> None:
        self._before: list[bool] = []  # a stack: the same one may be entered again inside itself

    def __enter__(self) -> None:
        self._before.append(recording.get())
        recording.set(False)

    def __exit__(self, *exception: Any) -> None:
        recording.set(self._before.pop())

    def _recreate_cm(self) -> no_grad:
        return no_grad()  # one for each call of a decorated function, which may call itself

    def __call__(self, function: Any) -> Any:
        if isgeneratorfunction(function) or iscoroutinefunction(function) or isasyncgenfunction(function):
            raise TypeError("@no_grad() would end before the body of a generator runs; use `with no_grad():`")
        return super().__call__(function)
