"""Ops that boil axes down to one number: sums, means, extremes, and what is built from them.

N is the number of entries that are boiled down. `axis` is an axis, several, or None for all;
keepdims=True leaves the axes in place with length 1. Each vjp first spreads ȳ over the entries it
was computed from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, xp_of
from ..kernels import short
from ..tensor import Tensor, constant, record
from .elementwise import exp, masked, where
from .operands import Shape, axes_of, axis_of, tensor
from .shape import broadcast_to, reshape

__all__ = ["log_softmax", "logsumexp", "max", "mean", "min", "norm", "softmax", "sum", "var"]

Axis = int | Sequence[int] | None


def _kept(shape: Shape, axes: Shape) -> Shape:
    """`shape` with length 1 along `axes`."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _count(shape: Shape, axes: Shape) -> int:
    return math.prod(shape[i] for i in axes)


def _spread(g: Tensor, shape: Shape, axes: Shape) -> Tensor:
    """A gradient for the result of a sum, handed to each of the entries that were summed."""
    return broadcast_to(reshape(g, _kept(shape, axes)), shape)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Σ x        x̄ = ȳ, spread"""
    x = tensor(x, "sum")
    shape, axes = x.shape, axes_of("sum", axis, x.ndim)
    data = x._data.sum(axis=axes, keepdims=keepdims)
    return record("sum", data, (x, lambda g: _spread(g, shape, axes)))


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Σ x / N        x̄ = ȳ / N, spread"""
    x = tensor(x, "mean")
    shape, axes = x.shape, axes_of("mean", axis, x.ndim)
    n = _count(shape, axes)
    if n == 0:
        raise ValueError(f"mean: nothing to average over axes {axes} of shape {shape}")
    data = x._data.mean(axis=axes, keepdims=keepdims)
    return record("mean", data, (x, lambda g: _spread(g * (1 / n), shape, axes)))


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """y = Σ (x - mean)² / (N - ddof)        x̄ = 2 ȳ (x - mean) / (N - ddof)

    ddof=0 is the variance of these numbers; ddof=1 estimates that of the source they came from.
    """
    x = tensor(x, "var")
    axes = axes_of("var", axis, x.ndim)
    kept, n = _kept(x.shape, axes), _count(x.shape, axes) - ddof
    if n <= 0:
        raise ValueError(f"var: {n + ddof} entries with ddof={ddof} have no variance (shape {x.shape})")
    data = x._data.var(axis=axes, keepdims=keepdims, ddof=ddof)
    return record("var", data, (x, lambda g: reshape(g, kept) * (2 / n) * (x - mean(x, axes, keepdims=True))))


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = the largest entry        ȳ goes to it; if several are equal they share it equally"""
    return _extreme("max", x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = the smallest entry        ȳ goes to it; if several are equal they share it equally"""
    return _extreme("min", x, axis, keepdims)


def _extreme(name: str, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    x = tensor(x, name)
    axes, array = axes_of(name, axis, x.ndim), x._data
    kept = _kept(x.shape, axes)
    if _count(x.shape, axes) == 0:
        raise ValueError(f"{name}: no entries along axes {axes} of shape {x.shape}")
    top = short.reduced(name, array, axes)

    def vjp(g: Tensor) -> Tensor:
        best = (array == top) | (array != array)  # a NaN is both the largest and the smallest
        ties = short.reduced("sum", best, axes)
        return masked(reshape(g, kept) * constant(1 / ties.astype(g.dtype)), best)

    return record(name, top if keepdims else top.squeeze(axes), (x, vjp))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = log Σ eˣ        x̄ = ȳ eˣ / Σ eˣ   (the softmax of x; 0 where every x is -∞)

    The largest entry is taken out before the exponentials, so none overflows. (eˣ⁻ʸ would be the same, but
    loses the digits of y after the point where x is large.)
    """
    x = tensor(x, "logsumexp")
    xp, axes = xp_of(x._data), axes_of("logsumexp", axis, x.ndim)
    kept = _kept(x.shape, axes)
    if _count(x.shape, axes) == 0:
        raise ValueError(f"logsumexp: no entries along axes {axes} of shape {x.shape}")
    top = x._data.max(axis=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, top.dtype.type(0))  # ∞ - ∞ is no number
    with np.errstate(divide="ignore", over="ignore"):  # -∞ is right where every entry is, ∞ where one is
        total = xp.exp(x._data - top).sum(axis=axes, keepdims=True)
        data = xp.log(total) + top
    empty = total == 0

    def vjp(g: Tensor) -> Tensor:
        e = exp(x - constant(top))
        return reshape(g, kept) * (e / where(empty, 1.0, sum(e, axes, keepdims=True)))

    return record("logsumexp", data if keepdims else data.squeeze(axes), (x, vjp))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """y = eˣ / Σ eˣ        x̄ = y (ȳ - Σ ȳ y)"""
    x = tensor(x, "softmax")
    axis = axis_of("softmax", axis, x.ndim)
    e = xp_of(x._data).exp(_below_top(x, axis))
    data = e / e.sum(axis=axis, keepdims=True)
    return record("softmax", data, (x, lambda g, y: y * (g - sum(g * y, axis, keepdims=True))), output=True)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """y = x - log Σ eˣ        x̄ = ȳ - eʸ Σ ȳ"""
    x = tensor(x, "log_softmax")
    xp, axis = xp_of(x._data), axis_of("log_softmax", axis, x.ndim)
    shifted = _below_top(x, axis)
    data = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True)) if x.size else shifted
    return record(
        "log_softmax", data, (x, lambda g, y: g - exp(y) * sum(g, axis, keepdims=True)), output=True
    )


def _below_top(x: Tensor, axis: int) -> Array:
    """x minus its largest entry, which changes no softmax and keeps eˣ from overflowing."""
    return x._data - x._data.max(axis=axis, keepdims=True) if x.size else x._data


def norm(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = √Σ x²        x̄ = ȳ x / y   (0 at y = 0, where the norm has a tip)"""
    x = tensor(x, "norm")
    axes = axes_of("norm", axis, x.ndim)
    kept = _kept(x.shape, axes)
    data = _length(x._data, axes)

    def vjp(g: Tensor, y: Tensor) -> Tensor:
        y = reshape(y, kept)
        at_tip = y._data == 0
        return masked(reshape(g, kept), ~at_tip) * (x / where(at_tip, 1.0, y))

    return record("norm", data if keepdims else data.squeeze(axes), (x, vjp), output=True)


def _length(x: Array, axes: Shape) -> Array:
    """√Σ x², axes kept. x² may be too large or too small for a number where |x| is not.

    So x is divided by its largest entry first. NumPy can look whether that is needed; for a GPU looking is
    slower than doing it.
    """
    xp, x = xp_of(x), x if x.dtype.kind == "f" else x.astype(float)
    if type(x) is np.ndarray or x.size == 0:
        with np.errstate(over="ignore", under="ignore"):
            total = (x * x).sum(axis=axes, keepdims=True)
        if x.size == 0:
            return xp.sqrt(total)
        limits = np.finfo(total.dtype)
        if ((total > limits.tiny / limits.eps**2) & (total <= limits.max)).all():
            return np.sqrt(total)
    top = xp.abs(x).max(axis=axes, keepdims=True)
    top = xp.where((top > 0) & (top < np.inf), top, top.dtype.type(1))
    part = x / top
    return xp.sqrt((part * part).sum(axis=axes, keepdims=True)) * top
