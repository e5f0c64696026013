"""Ops that move entries around, copy them, or leave some out.

They are all linear, so the vjp of each is its adjoint, and the adjoints are ops of this file too:

    sum_to ↔ broadcast_to     getitem ↔ scatter_add     pad ↔ crop     concat ↔ slices
    reshape, transpose, flip ↔ the same op the other way round
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .. import backend as _backend
from ..backend import xp_of
from ..tape import is_recording
from ..tensor import Tensor, constant, record
from .operands import Shape, axes_of, axis_of, tensor, whole

__all__ = [
    "broadcast_to", "concat", "crop", "flip", "getitem", "matrix_transpose", "moveaxis", "pad", "reshape",
    "scatter_add", "split", "stack", "sum_to", "take", "transpose",
]  # fmt: skip


def reshape(x: Any, *shape: Any) -> Tensor:
    """y = the entries of x, in the same order, in another shape        x̄ = ȳ in the shape of x

    One length may be -1: whatever is left. Both reshape(x, (2, -1)) and reshape(x, 2, -1) work.
    """
    x = tensor(x, "reshape")
    new = tuple(shape[0]) if len(shape) == 1 and hasattr(shape[0], "__len__") else shape
    before = x.shape
    try:
        data = x._data.reshape(new)
    except (ValueError, TypeError):
        raise ValueError(f"reshape: {x.size} entries of shape {before} do not fit into shape {new}") from None
    return record("reshape", data, (x, lambda g: reshape(g, before)))


def transpose(x: Any, *axes: Any) -> Tensor:
    """y = x with its axes in another order (reversed if none is given)        x̄ = ȳ put back"""
    x = tensor(x, "transpose")
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = () if axes[0] is None else tuple(axes[0])
    order = axes_of("transpose", axes or tuple(reversed(range(x.ndim))), x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"transpose: axes {axes} for a Tensor of shape {x.shape}; name every axis once")
    back = tuple(sorted(range(x.ndim), key=lambda i: order[i]))
    return record("transpose", x._data.transpose(order), (x, lambda g: transpose(g, back)))


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """y = x with the axes `source` moved to the places `destination`, the others in order"""
    x = tensor(x, "moveaxis")
    start, end = axes_of("moveaxis", source, x.ndim), axes_of("moveaxis", destination, x.ndim)
    if len(start) != len(end):
        raise ValueError(f"moveaxis: {len(start)} axes to move to {len(end)} places")
    order = [i for i in range(x.ndim) if i not in start]
    for place, axis in sorted(zip(end, start, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


def matrix_transpose(x: Any) -> Tensor:
    """y = x with its last two axes swapped: `x.mT`"""
    x = tensor(x, "matrix_transpose")
    if x.ndim < 2:
        raise ValueError(f"mT: a Tensor of shape {x.shape} is no matrix; it needs two axes or more")
    return record("transpose", x._data.swapaxes(-1, -2), (x, lambda g: matrix_transpose(g)))


def itself(x: Tensor) -> Tensor:
    """x where there is nothing to do: to the tape, no op at all; under no_grad, a constant."""
    return x if is_recording() else x.detach()


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Tensor:
    """y = x repeated to fill `shape` (x itself if it does)        x̄ = ȳ summed over the repetitions"""
    x = tensor(x, "broadcast_to")
    shape, before = _shape(shape), x.shape
    if shape == before:
        return itself(x)
    lead = len(shape) - len(before)
    if lead < 0 or any(old not in (1, new) for old, new in zip(before, shape[lead:], strict=True)):
        raise ValueError(
            f"broadcast_to: shape {before} does not fill {shape}; lined up from the right, "
            "each length must be equal or 1"
        )
    return record(
        "broadcast_to", xp_of(x._data).broadcast_to(x._data, shape), (x, lambda g: sum_to(g, before))
    )


def sum_to(x: Any, shape: int | Sequence[int]) -> Tensor:
    """y = x summed over the axes along which `shape` is broadcast to fill x's (x itself if it fits)

    x̄ = ȳ broadcast back
    """
    x = tensor(x, "sum_to")
    shape, before = _shape(shape), x.shape
    if shape == before:
        return itself(x)
    lead = len(before) - len(shape)
    if lead < 0 or any(new not in (1, old) for old, new in zip(before[lead:], shape, strict=True)):
        raise ValueError(f"sum_to: shape {shape} does not broadcast to {before}, so no sum leads back")
    axes = tuple(i for i, old in enumerate(before) if i < lead or (old != 1 and shape[i - lead] == 1))
    data = x._data.sum(axis=axes)
    if data.shape != shape:
        data = data.reshape(shape)
    return record("sum_to", data, (x, lambda g: broadcast_to(g, before)))


def _shape(shape: int | Sequence[int]) -> Shape:
    return tuple(shape) if isinstance(shape, (list, tuple)) else (whole("shape", "a length", shape),)


def concat(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """y = the Tensors of `xs` one behind the other along an axis        x̄ᵢ = its slice of ȳ"""
    xs = _several(xs, "concat")
    axis = axis_of("concat", axis, xs[0].ndim)
    for x in xs:
        if x.ndim != xs[0].ndim or any(i != axis and x.shape[i] != xs[0].shape[i] for i in range(x.ndim)):
            raise ValueError(f"concat: shapes {[x.shape for x in xs]} must be equal except along axis {axis}")
    edges, start = [], 0
    for x in xs:
        stop = start + x.shape[axis]
        part = (slice(None),) * axis + (slice(start, stop),)
        edges.append((x, lambda g, part=part: getitem(g, part)))
        start = stop
    return record("concat", xp_of(xs[0]._data).concatenate([x._data for x in xs], axis), *edges)


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """y = Tensors of one shape side by side along a new axis        x̄ᵢ = its layer of ȳ"""
    xs = _several(xs, "stack")
    axis = axis_of("stack", axis, xs[0].ndim + 1)
    if any(x.shape != xs[0].shape for x in xs):
        raise ValueError(f"stack: shapes {[x.shape for x in xs]} must be equal")
    edges = [(x, lambda g, layer=(slice(None),) * axis + (i,): getitem(g, layer)) for i, x in enumerate(xs)]
    return record("stack", xp_of(xs[0]._data).stack([x._data for x in xs], axis), *edges)


def _several(xs: Sequence[Any], op: str) -> list[Tensor]:
    xs = list(xs)
    if not xs:
        raise ValueError(f"{op}: needs at least one Tensor")
    like = next((x for x in xs if isinstance(x, Tensor)), None)
    return [tensor(x, op, like=like) for x in xs]


def split(x: Any, parts: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """x cut along an axis: into `parts` equal parts, or at the places listed in `parts`"""
    x = tensor(x, "split")
    axis = axis_of("split", axis, x.ndim)
    length = x.shape[axis]
    if not isinstance(parts, (list, tuple)):
        parts = whole("split", "parts", parts)
        if parts < 1 or length % parts:
            raise ValueError(f"split: axis {axis} of shape {x.shape} does not divide into {parts} parts")
        parts = [length // parts * i for i in range(1, parts)]
    cuts = [0, *parts, length]
    lead = (slice(None),) * axis
    return [getitem(x, (*lead, slice(i, j))) for i, j in pairwise(cuts)]


Widths = int | Sequence[tuple[int, int]]


def pad(x: Any, widths: Widths, value: float = 0.0) -> Tensor:
    """y = x with `value` around it        x̄ = ȳ without the border

    widths: (before, after) for each axis, or one number for all sides.
    """
    x = tensor(x, "pad")
    widths = _widths(widths, x, "pad")
    if x.dtype.kind != "f" and not float(value).is_integer():
        raise TypeError(f"pad: value={value} is not a number of dtype {x.dtype}")
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    data = xp_of(x._data).full(shape, value, x.dtype)
    data[_inside(widths, shape)] = x._data
    return record("pad", data, (x, lambda g: crop(g, widths)))


def crop(x: Any, widths: Widths) -> Tensor:
    """y = x without its border        x̄ = ȳ with zeros around it"""
    x = tensor(x, "crop")
    widths = _widths(widths, x, "crop")
    if any(before + after > n for n, (before, after) in zip(x.shape, widths, strict=True)):
        raise ValueError(f"crop: shape {x.shape} is too small to lose {widths}")
    return record("crop", x._data[_inside(widths, x.shape)], (x, lambda g: pad(g, widths)))


def _inside(widths: Sequence[tuple[int, int]], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(before, n - after) for n, (before, after) in zip(shape, widths, strict=True))


def _widths(widths: Widths, x: Tensor, op: str) -> tuple[tuple[int, int], ...]:
    sides = widths if isinstance(widths, (list, tuple)) else [(widths, widths)] * x.ndim
    if not all(isinstance(side, (list, tuple)) and len(side) == 2 for side in sides):
        raise ValueError(f"{op}: widths {widths}; give (before, after) for each axis, or one number for all")
    pairs = tuple((whole(op, "a width", a), whole(op, "a width", b)) for a, b in sides)
    if len(pairs) != x.ndim or any(n < 0 for pair in pairs for n in pair):
        raise ValueError(
            f"{op}: widths {pairs} for a Tensor of shape {x.shape}; give (before, after), "
            "neither negative, for each axis"
        )
    return pairs


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """y = x backwards along some axes (all by default)        x̄ = ȳ flipped back"""
    x = tensor(x, "flip")
    axes = axes_of("flip", axis, x.ndim)
    return record("flip", xp_of(x._data).flip(x._data, axes), (x, lambda g: flip(g, axes)))


def getitem(x: Any, index: Any) -> Tensor:
    """y = x[index], with everything NumPy indexes with        x̄ = zeros with ȳ added at [index]

    Positions outside are an IndexError, unless they are on a GPU already: there CuPy wraps them around.
    """
    x = tensor(x, "getitem")
    return _getitem(x, _safe_index("getitem", index, x, x.shape), "getitem")


def scatter_add(values: Any, index: Any, shape: int | Sequence[int]) -> Tensor:
    """y = zeros(shape); y[index] += values, every repetition counted        v̄ = ȳ[index]"""
    values = tensor(values, "scatter_add")
    shape = _shape(shape)
    index = _safe_index("scatter_add", index, values, shape)
    xp = xp_of(values._data)
    taken = _getitem(constant(xp.broadcast_to(xp.zeros((), values.dtype), shape)), index, "scatter_add").shape
    if taken != values.shape:
        raise ValueError(
            f"scatter_add: this index takes shape {taken} out of {shape}, "
            f"but the values have shape {values.shape}"
        )
    return _scatter_add(values, index, shape)


def _getitem(x: Tensor, index: Any, name: str) -> Tensor:
    shape = x.shape
    try:
        data = x._data[index]
    except IndexError as error:
        raise IndexError(f"{name}: {error} (the Tensor has shape {shape})") from None
    return record(name, data, (x, lambda g: _scatter_add(g, index, shape)))


def _scatter_add(values: Tensor, index: Any, shape: Shape) -> Tensor:
    data = xp_of(values._data).zeros(shape, values.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if any(hasattr(part, "dtype") and part.dtype.kind != "b" for part in parts):
        _backend.scatter_add(data, index, values._data)  # integers may repeat
    else:
        data[index] = values._data
    return record("scatter_add", data, (values, lambda g: _getitem(g, index, "getitem")))


def take(x: Any, indices: Any, axis: int = 0) -> Tensor:
    """y = the entries of x at whole-number positions along an axis: an embedding lookup if axis = 0

    A position outside is an IndexError. Only those that are on a GPU already are not looked at, since that
    would mean to wait for it: there CuPy wraps them around.

    >>> take([[0.0, 1.0], [2.0, 3.0]], [1, 1, 0])
    Tensor([[2., 3.],
            [2., 3.],
            [0., 1.]], dtype=float64, backend=numpy)
    """
    x = tensor(x, "take")
    axis = axis_of("take", axis, x.ndim)
    positions = _safe_array(indices, x)
    if positions.dtype.kind == "b":
        raise TypeError("take: the indices are booleans; use x[mask] to select where a mask holds")
    _check_positions("take", indices, positions, axis, x.shape)
    return _getitem(x, (slice(None),) * axis + (positions,), "take")


def _safe_index(op: str, index: Any, x: Tensor, shape: Shape) -> Any:
    """The index, for an array of `shape` beside x, in a form that nobody can change before the walk back."""
    parts = index if isinstance(index, tuple) else (index,)
    safe = [_safe_part(part, x) for part in parts]
    if type(x._data) is not np.ndarray:
        axis, taken = 0, [_axes_taken(part) for part in safe]
        for given, made, axes in zip(parts, safe, taken, strict=True):
            if made is Ellipsis:
                axis += len(shape) - sum(taken)
            elif hasattr(made, "dtype") and axis < len(shape):
                _check_positions(op, given, made, axis, shape)
            axis += axes
    return tuple(safe) if isinstance(index, tuple) else safe[0]


def _axes_taken(part: Any) -> int:
    """How many axes a part of an index is for."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if hasattr(part, "dtype") and part.dtype.kind == "b" else 1


def _check_positions(op: str, given: Any, made: Any, axis: int, shape: Shape) -> None:
    """An IndexError for positions outside, as in NumPy; CuPy has none. So look before they go to the GPU."""
    if type(made) is np.ndarray or made.dtype.kind == "b" or isinstance(given, Tensor):
        return
    if _backend.home_of(given).name == "numpy":
        positions, length = np.asarray(given), shape[axis]
        outside = positions[(positions < -length) | (positions >= length)]
        if outside.size:
            raise IndexError(
                f"{op}: index {outside[0]} is out of bounds for axis {axis} with size {length} "
                f"(the Tensor has shape {shape})"
            )


def _safe_part(part: Any, x: Tensor) -> Any:
    if isinstance(part, slice):
        ends = (part.start, part.stop, part.step)
        return slice(*(None if end is None else whole("getitem", "a slice's end", end) for end in ends))
    simple = part is None or part is Ellipsis or isinstance(part, (int, np.integer))
    return part if simple else _safe_array(part, x)


def _safe_array(part: Any, x: Tensor) -> Any:
    if isinstance(part, Tensor) and type(part._data) is type(x._data):
        array = part._data  # read-only, and nobody has another way to it
    else:
        try:
            array = _backend.asarray(part, _backend.backend_of(x._data))
        except (TypeError, ValueError):
            raise IndexError(f"an index of type {type(part).__name__}: see NumPy's indexing") from None
    if array.size == 0 and isinstance(part, (list, tuple)):
        array = array.astype(int)  # NumPy makes [] an array of floats
    if array.dtype.kind not in "iub":
        raise IndexError(f"an index of dtype {array.dtype}: positions are whole numbers, masks booleans")
    return _backend.seal(array)
