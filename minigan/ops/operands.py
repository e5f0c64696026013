"""What every op does first: turn its operands into Tensors that fit together."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from .. import backend as _backend
from .. import errors
from ..tape import observer
from ..tensor import Tensor

Shape = tuple[int, ...]


class Number(Tensor):
    """A Python number in an expression, with just enough of a Tensor to take part.

    It stays a Python number, so float32 * 2.0 stays float32, by NumPy's own rule.
    """

    __slots__ = ()
    shape = ()

    def __init__(self, value: float | int | bool):
        self._data = value
        self.node = None
        self.leaf = None


def tensor(value: Any, op: str, like: Tensor | None = None) -> Tensor:
    """An operand as a Tensor; numbers, lists and arrays are copied into one.

    like: another operand, whose backend this one must share (numbers and lists simply go there). A list has
    no precision of its own: it takes that of `like`.
    """
    if (onlooker := observer()) is not None:
        onlooker.begin()
    if isinstance(value, Tensor):
        if like is not None and type(value._data) is not type(like._data):
            raise errors.two_backends(op, like.backend, value.backend)
        return value
    theirs = _backend.home_of(value)
    home = theirs if like is None else _backend.backend_of(like._data)
    if theirs is not home and isinstance(value, theirs.array_type):
        raise errors.two_backends(op, home.name, theirs.name)
    try:
        takes = like is not None and isinstance(value, (list, tuple)) and like.dtype.kind == "f"
        return Tensor(value, backend=home.name, dtype=like.dtype if like is not None and takes else None)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{op}: {error}") from None


def tensors(op: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Two operands as Tensors of one backend: that of the first one that is a Tensor already."""
    if not isinstance(a, Tensor) and isinstance(b, Tensor):
        return tensor(a, op, like=b), b
    a = tensor(a, op)
    if isinstance(b, Tensor) and type(a._data) is type(b._data):
        return a, b
    return a, tensor(b, op, like=a)


def operands(op: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """The two operands of an op that broadcasts. One of them may stay a Python number.

    NumPy's scalars become one: np.sqrt(2.0) says nothing of how precise a Tensor should be. A 0-d array does.
    """
    if type(a) is Tensor and type(b) is Tensor and type(a._data) is type(b._data):
        if (onlooker := observer()) is not None:
            onlooker.begin()
    elif isinstance(b := _backend.weak(b), (float, int)):
        return tensor(a, op), Number(b)
    elif isinstance(a := _backend.weak(a), (float, int)):
        return Number(a), tensor(b, op)
    elif type(a) is Number or type(b) is Number:
        return a, b
    else:
        a, b = tensors(op, a, b)
    if a._data.shape != b._data.shape:
        broadcast_shape(op, a.shape, b.shape)
    return a, b


def broadcast_shape(op: str, *shapes: Shape) -> Shape:
    """The shape that `shapes` broadcast to: from the right, equal lengths or one of them 1."""
    result: list[int] = []
    for i in range(1, max(map(len, shapes), default=0) + 1):
        lengths = {shape[-i] for shape in shapes if i <= len(shape)} - {1}
        if len(lengths) > 1:
            raise errors.no_broadcast(op, *shapes)
        result.append(lengths.pop() if lengths else 1)
    return tuple(reversed(result))


def whole(op: str, what: str, value: Any, least: int | None = None) -> int:
    """A whole number, NumPy's included; not 1.0, and not True."""
    if (
        isinstance(value, (bool, np.bool_))
        or not hasattr(value, "__index__")
        or getattr(value, "shape", None)
    ):
        raise TypeError(f"{op}: {what} must be a whole number, not {value!r}")
    n = index(value)
    if least is not None and n < least:
        raise ValueError(f"{op}: {what} must be {least} or more, not {n}")
    return n


def number(op: str, what: str, value: Any) -> float:
    """A plain number for a setting that no gradient flows to (a slope, an epsilon)."""
    if isinstance(value, Tensor) or getattr(value, "shape", None):
        raise TypeError(
            f"{op}: {what} must be a plain number, not {type(value).__name__}; no gradient flows to it"
        )
    return float(value)


def axis_of(op: str, axis: int, ndim: int) -> int:
    """One axis, counted from 0."""
    if axis is None or isinstance(axis, (list, tuple)):
        raise TypeError(f"{op}: axis={axis}; this op works along one axis")
    return axes_of(op, axis, ndim)[0]


def axes_of(op: str, axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """`axis` as a tuple of axes from 0 to ndim - 1. None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int and 0 <= axis < ndim:
        return (axis,)
    several = axis if isinstance(axis, (list, tuple)) else (axis,)
    given = tuple(whole(op, "an axis", a) for a in several)
    for a in given:
        if ndim == 0:
            raise ValueError(f"{op}: axis {a} of a Tensor with shape (), which has no axes")
        if not -ndim <= a < ndim:
            raise ValueError(f"{op}: axis {a} of a Tensor with {ndim} axes; it has {-ndim} to {ndim - 1}")
    axes = tuple(a % ndim for a in given)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{op}: axis {axis} names the same axis twice")
    return axes
