"""Reductions along an axis of few entries, as in maxout: slice by slice.

NumPy's own reduction begins its inner loop anew for each result. Where that loop has five rounds, most of the
time goes into beginning it. Here the few entries are the outer loop, and each round treats all results.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array

SHORT, WORTH = 16, 1 << 10  # entries along the axis, at most; entries in all, at least
UFUNCS = {"max": np.maximum, "min": np.minimum, "sum": np.add}


def suits(x: Array, axes: tuple[int, ...]) -> bool:
    """Whether this is the faster way. On a GPU it would be many small steps instead of one."""
    return type(x) is np.ndarray and x.size >= WORTH and len(axes) == 1 and 2 <= x.shape[axes[0]] <= SHORT


def reduced(name: str, x: Array, axes: tuple[int, ...]) -> Array:
    """x.max(axes), x.min(axes) or x.sum(axes); the axes are kept with length 1. Booleans are counted."""
    if not suits(x, axes):
        return getattr(x, name)(axis=axes, keepdims=True)
    ufunc = UFUNCS[name]
    first, second, *rest = np.moveaxis(x.view(np.int8) if x.dtype == bool else x, axes[0], 0)
    y = ufunc(first, second)
    for entries in rest:
        ufunc(y, entries, out=y)
    return np.expand_dims(y, axes[0])
