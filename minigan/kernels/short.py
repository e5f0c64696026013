"""The largest or smallest along an axis of few entries, as in maxout: slice by slice.

NumPy's own reduction begins its inner loop anew for each result. Where that loop has five rounds, most of the
time goes into beginning it. Here the few entries are the outer loop, and each round treats all results.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array

SHORT, WORTH = 16, 1 << 10  # entries along the axis, at most; entries in all, at least


def suits(x: Array, axes: tuple[int, ...]) -> bool:
    """Whether this is the faster way. On a GPU it would be many small steps instead of one."""
    return type(x) is np.ndarray and x.size >= WORTH and len(axes) == 1 and 2 <= x.shape[axes[0]] <= SHORT


def extreme(name: str, x: Array, axis: int) -> Array:
    """x.max(axis) or x.min(axis)."""
    larger = np.maximum if name == "max" else np.minimum
    first, second, *rest = np.moveaxis(x, axis, 0)
    y = larger(first, second)
    for entries in rest:
        larger(y, entries, out=y)
    return y


def shares(best: Array, axis: int, dtype: np.dtype) -> Array:
    """best / Σ best along the axis: what each entry gets of the gradient. best: which are the extreme."""
    first, second, *rest = np.moveaxis(best.view(np.int8), axis, 0)
    count = first + second
    for entries in rest:
        count += entries
    if (count == 1).all():
        return best.astype(dtype)
    return best / np.expand_dims(count, axis).astype(dtype)
