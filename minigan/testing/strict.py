"""A backend for testing code meant for a GPU on a machine without one.

A StrictArray is a NumPy array with a device's manners: it refuses to mix with plain NumPy arrays, and
a reduction gives a 0-d array, never a NumPy scalar. Code that works on both `numpy` and `strict` has
not forgotten an `np.` where it should ask `xp_of(array)`.

Importing this module makes the backend known:

>>> import minigan, minigan.testing.strict
>>> minigan.Tensor([1.0, 2.0], backend="strict").sum()
Tensor(3., dtype=float64, backend=strict)
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..backend import Backend, register


class StrictArray(np.ndarray):
    """An array that stays among its own."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if out is not None:
            kwargs["out"] = tuple(_plain(o, ufunc) for o in out)
        result = getattr(ufunc, method)(*(_plain(x, ufunc) for x in inputs), **kwargs)
        return out[0] if out is not None else _strict(result)

    def __array_function__(self, function, types, args, kwargs):
        return _call(function, args, kwargs)

    def __getitem__(self, index):
        return _strict(self.view(np.ndarray)[_plain(index, "an index")])

    def __setitem__(self, index, value):
        self.view(np.ndarray)[_plain(index, "an index")] = _plain(value, "assignment")


def _plain(value: Any, where: Any) -> Any:
    """A StrictArray as the NumPy array it is underneath; a NumPy array is refused."""
    if isinstance(value, StrictArray):
        return value.view(np.ndarray)
    if isinstance(value, np.ndarray):
        name = getattr(where, "__name__", where)
        raise TypeError(f"{name}: a plain NumPy array of shape {value.shape} meets the strict backend")
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v, where) for v in value)
    return value


def _strict(value: Any) -> Any:
    """Results go back among their own, NumPy scalars as 0-d arrays."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value).view(StrictArray)
    if isinstance(value, (list, tuple)):
        return type(value)(_strict(v) for v in value)
    return value


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    args = [_plain(x, function) for x in args]
    return _strict(function(*args, **{k: _plain(v, function) for k, v in kwargs.items()}))


class _Function:
    """A NumPy function, or a ufunc with its methods, for StrictArrays."""

    def __init__(self, function: Any):
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        result = _call(self._function, args, kwargs)
        return result if out is None else out

    def __getattr__(self, name: str) -> Any:
        return _Function(getattr(self._function, name))


class StrictNumPy:
    """What `xp_of` gives for a StrictArray: numpy, with every function made strict."""

    __name__ = "strict"
    ndarray = StrictArray
    random = np.random  # generators give NumPy arrays: move them with xp.asarray, as to a device
    lib = SimpleNamespace(
        stride_tricks=SimpleNamespace(as_strided=_Function(np.lib.stride_tricks.as_strided))
    )

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        return value if isinstance(value, type) or not callable(value) else _Function(value)

    @staticmethod
    def array(value: Any, dtype: Any = None, copy: bool | None = True) -> StrictArray:
        """From numbers, lists or any array: the one way in, as cupy.array copies to the device."""
        return np.array(value, dtype=dtype, copy=copy).view(StrictArray)

    @classmethod
    def asarray(cls, value: Any, dtype: Any = None) -> StrictArray:
        return cls.array(value, dtype, copy=None)


register(
    Backend(
        "strict",
        StrictArray,
        StrictNumPy(),
        from_numpy=lambda array: np.array(array).view(StrictArray),
        to_numpy=lambda array: np.array(array),
    )
)
