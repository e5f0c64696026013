"""Checks of the vectors that the scores are given.

    x = features("kernel_distance", "x", x, least=2)
    y = features("kernel_distance", "y", y, least=2)
    same_width("kernel_distance", x, y)

The arrays stay where they are: on the GPU, if that is where they came from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, backend_of, home_of, to_numpy, xp_of
from ..tensor import Tensor

__all__ = ["features", "on_host", "same_width"]


def features(who: str, what: str, values: Any, least: int) -> Array:
    """N vectors of F finite numbers as an array (N, F) of their own backend, in float32 or float64.

    who: the function that asks; what: its name for these vectors. Both are for the errors. least: how many
    vectors it needs. values: a Tensor, an array of any backend, or a list. Whole numbers and half precision
    become float32 where it holds them exactly, and float64 otherwise. What comes back may be the caller's
    own array: not to be written into.
    """
    x: Array = values.data if isinstance(values, Tensor) else values
    if not isinstance(x, home_of(x).array_type):
        x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{who}: {what} of dtype {x.dtype}; real numbers are needed")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{who}: {what} of shape {x.shape}; it must be (N, F), one vector in each row")
    if len(x) < least:
        raise ValueError(f"{who}: {len(x)} vectors in {what}; {least} are needed at least")
    bad = int((~xp_of(x).isfinite(x)).any(axis=1).sum())
    if bad:
        raise ValueError(
            f"{who}: {bad} of {len(x)} vectors in {what} contain NaN or infinity; has training diverged?"
        )
    return x.astype(np.result_type(x.dtype, np.float32), copy=False)


def same_width(who: str, a: Array, b: Array) -> None:
    """An error unless the vectors in both have equally many numbers, and both live in the same memory."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{who}: vectors of {a.shape[1]} numbers and vectors of {b.shape[1]}; both must be features of "
            "the same kind"
        )
    one, other = backend_of(a).name, backend_of(b).name
    if one != other:
        raise TypeError(f"{who}: one array of backend {one!r} and one of {other!r}; move one of them first")


def on_host(values: Any) -> np.ndarray:
    """A NumPy array of a Tensor, an array of any backend, or a list: for scores that NumPy alone computes."""
    return values.numpy() if isinstance(values, Tensor) else to_numpy(values)
