"""Infinite numbers and NaN: whether there are any, and which op made the first.

    with checked():
        loss = network(x)          raises NonFiniteError at the first op whose result is not finite,
        loss.backward()            on the way forward or on the way back

To look at every result costs time, so nobody does it all along. The training loop looks at losses and
gradients, and repeats a step with `checked` when something is wrong there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .backend import Array, xp_of
from .tape import Node, Vjp, observing
from .tensor import Tensor

__all__ = ["NonFiniteError", "all_finite", "check_finite", "checked"]


class NonFiniteError(ArithmeticError):
    """A number became infinite or NaN where there should be an ordinary one."""


def all_finite(arrays: Iterable[Array]) -> bool:
    """Whether no array has an infinite entry or a NaN.

    The sum of squares shows it: one product, where looking at each entry would be two passes and a copy. It
    may also be infinite because the entries are huge, so then they are looked at after all.
    """
    for array in arrays:
        flat = array.ravel(order="K")
        xp = xp_of(array)
        if not xp.isfinite(xp.vdot(flat, flat)) and not xp.isfinite(flat).all():
            return False
    return True


def check_finite(what: str, loss: Tensor, gradients: Iterable[Tensor | None]) -> None:
    """A NonFiniteError if the loss called `what`, or one of its gradients, is not finite.

    On a GPU nobody looks, since that would be to wait until all is computed. Whoever reads the losses later
    sees it there.
    """
    if type(loss.data) is not np.ndarray:
        return
    if not all_finite([loss.data]):
        raise NonFiniteError(f"{what} is {float(loss)}")
    if not all_finite(g.data for g in gradients if g is not None):
        raise NonFiniteError(f"{what} is {float(loss):.4g}, but its gradient is not finite")


@contextmanager
def checked() -> Iterator[None]:
    """Inside, the first op whose result is not finite raises a NonFiniteError that names it.

    >>> import minigan as mg
    >>> with checked():
    ...     mg.log(mg.Tensor([1.0, -1.0]))
    Traceback (most recent call last):
        ...
    minigan.finite.NonFiniteError: op 'log' made nan, at [1] of its result of shape (2,), from finite inputs
    """
    token = observing.set(_Checks())
    try:
        with _quiet():
            yield
    finally:
        observing.reset(token)


@contextmanager
def _quiet() -> Iterator[None]:
    """NumPy's own warnings would come before our error, and say less."""
    with np.errstate(all="ignore"):
        yield


class _Checks:
    """Looks on while ops run; the methods are called by the tape."""

    def __init__(self) -> None:
        self._in_vjp = False  # then the result of the vjp is looked at, not that of each op inside

    def walking(self, step: int) -> None:
        """A backward walk begins (1) or ends (-1)."""

    def begin(self) -> None:
        """An op starts."""

    def forward(self, name: str, data: Array, inputs: Sequence[Tensor]) -> None:
        """Op `name` has computed `data` from `inputs`."""
        if not self._in_vjp and not _finite(data):
            raise NonFiniteError(f"op {name!r} made {_where(data)}, from {_described(inputs)}")

    def backward(
        self, node: Node, vjp: Vjp, g: Tensor, pull: Callable[[Node, Vjp, Tensor], Tensor]
    ) -> Tensor:
        """The gradient g goes back through one edge of an op."""
        outermost, self._in_vjp = not self._in_vjp, True
        try:
            part = pull(node, vjp, g)
        finally:
            self._in_vjp = not outermost
        if outermost and not _finite(part._data):
            raise NonFiniteError(
                f"the gradient of op {node.name!r} became {_where(part._data)}, from {_described([g])}"
            )
        return part


def _finite(array: Array) -> bool:
    if isinstance(array, (int, float)):  # a plain number among an op's operands
        return math.isfinite(array)
    return array.dtype.kind != "f" or bool(xp_of(array).isfinite(array).all())


def _where(array: Array) -> str:
    """The first entry that is not finite: its value, and where it is."""
    xp = xp_of(array)
    index = tuple(int(i[0]) for i in xp.nonzero(~xp.isfinite(array.reshape(array.shape or (1,)))))
    value = float(array.reshape(array.shape or (1,))[index])
    place = f", at [{', '.join(map(str, index))}] of its result of shape {array.shape}" if array.shape else ""
    return f"{value}{place}"


def _described(inputs: Sequence[Any]) -> str:
    bad = [x for x in inputs if not _finite(x._data)]
    if not bad:
        return "finite inputs"
    names = [f"{x.leaf.name!r}" if x.leaf is not None else f"one of shape {x.shape}" for x in bad]
    return "an input that was not finite already: " + ", ".join(names)
