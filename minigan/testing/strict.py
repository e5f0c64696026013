"""NumPy with a GPU's manners: a backend for testing code meant for CuPy on a machine without it.

A StrictArray behaves like a cupy.ndarray. It

    refuses to meet a plain NumPy array, and to become one unasked;
    is no np.ndarray, so no branch for NumPy's arrays is taken;
    gives 0-d arrays where NumPy gives scalars: sums, single entries;
    has results in C order, whatever the order of its inputs. Their order is kept by what KEEP_ORDER names, by
    views, and where out= says where a result goes;
    cannot be made read-only, so writing to a tensor's data is not noticed.

Code that works on both `numpy` and `strict` has not forgotten an `np.` where it should ask `xp_of(array)`.
For what a GPU is asked to do (kernels, launches, recorded steps) there is the real CuPy, on a CPU if need be:
see tests/cupy_on_cpu.

Importing this module makes the backend known:

>>> import minigan, minigan.testing.strict
>>> minigan.Tensor([1.0, 2.0], backend="strict").sum()
Tensor(3., dtype=float64, backend=strict)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..backend import Backend, in_memory_order, register

KEEP_ORDER = {"copy", "array", "asarray", "empty_like", "zeros_like", "ones_like", "full_like", "nan_to_num"}


class StrictArray(NDArrayOperatorsMixin):
    """An array that stays among its own."""

    __slots__ = ("_base", "_plain")

    def __init__(self, plain: np.ndarray, base: StrictArray | None = None):
        self._plain, self._base = plain, base

    @property
    def base(self) -> StrictArray | None:
        """The array that this is a view of; None where it has memory of its own."""
        return self._base

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise TypeError("a StrictArray does not become a NumPy array by itself: use minigan.backend.to_numpy")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return _call(getattr(ufunc, method), inputs, options, ufunc.__name__)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return _call(function, args, options)

    def __getitem__(self, index: Any) -> StrictArray:
        return _wrapped(self._plain[_plain(index, "an index")], [self])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._plain[_plain(index, "an index")] = _plain(value, "an assignment")

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[StrictArray]:
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, memo: Any) -> StrictArray:
        return self.copy()

    def __repr__(self) -> str:
        return repr(self._plain).replace("array", "StrictArray", 1)

    def copy(self, order: Any = "C") -> StrictArray:
        """In C order, if nothing else is said."""
        return StrictArray(self._plain.copy(order))

    def astype(self, dtype: Any, order: Any = "K", copy: bool = True) -> StrictArray:
        """In another dtype. The order stays."""
        return _as_it_lies(self._plain.astype(dtype, order, copy=copy), self)

    @property
    def flags(self) -> SimpleNamespace:
        """As many as CuPy has."""
        flags = self._plain.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    T = property(lambda self: self.transpose())


def _as_it_lies(made: np.ndarray, source: StrictArray) -> StrictArray:
    return source if made is source._plain else StrictArray(made)


def _attribute(name: str) -> Any:
    return property(lambda self: getattr(self._plain, name))


def _method(name: str) -> Callable[..., Any]:
    def method(self: StrictArray, *args: Any, **options: Any) -> Any:
        return _call(getattr(self._plain, name), args, options, name, [self])

    return method


def _reading(name: str) -> Callable[..., Any]:
    """A method for which Python has to wait until the device has the number."""
    return lambda self, *args: getattr(self._plain, name)(*args)


for _name in ("dtype", "itemsize", "nbytes", "ndim", "shape", "size", "strides"):
    setattr(StrictArray, _name, _attribute(_name))
for _name in (
    "all", "any", "argmax", "argmin", "argsort", "clip", "cumprod", "cumsum", "diagonal", "dot", "fill",
    "flatten", "max", "mean", "min", "nonzero", "partition", "prod", "put", "ravel", "repeat", "reshape",
    "round", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace", "transpose", "var", "view",
):  # fmt: skip
    setattr(StrictArray, _name, _method(_name))
for _name in ("item", "tolist", "__float__", "__int__", "__bool__", "__format__"):
    setattr(StrictArray, _name, _reading(_name))


def _plain(value: Any, where: str, met: list[StrictArray] | None = None) -> Any:
    """A StrictArray as the NumPy array underneath, which is noted in `met`; a NumPy array is refused."""
    if isinstance(value, StrictArray):
        if met is not None:
            met.append(value)
        return value._plain
    if isinstance(value, np.ndarray):
        raise TypeError(f"{where}: a plain NumPy array of shape {value.shape} meets the strict backend")
    if type(value) in (list, tuple):
        return type(value)(_plain(v, where, met) for v in value)
    return value


def _wrapped(made: Any, sources: list[StrictArray], keep: bool = False) -> Any:
    """What a function made of the sources: views of them, or arrays in C order (unless `keep`)."""
    if type(made) in (list, tuple):
        return type(made)(_wrapped(part, sources, keep) for part in made)
    if not isinstance(made, (np.ndarray, np.generic)):
        return made
    made = np.asarray(made)
    for source in sources:
        if made is source._plain:
            return source
        if np.may_share_memory(made, source._plain):
            return StrictArray(made, source if source._base is None else source._base)
    return StrictArray(made if keep else np.asarray(made, order="C"))


def _call(function: Any, args: Any, options: Any, name: str = "", sources: Any = ()) -> Any:
    """function(*args, **options), on the plain arrays underneath; `sources`: others that it looks at."""
    name = name or function.__name__
    met = list(sources)
    plain = [_plain(x, name, met) for x in args]
    made = function(*plain, **{key: _plain(value, name, met) for key, value in options.items()})
    out = options.get("out")
    if out is not None:
        return out[0] if type(out) is tuple and len(out) == 1 else out
    return _wrapped(made, met, name in KEEP_ORDER)


class _Function:
    """A NumPy function, or a ufunc with its methods, for StrictArrays."""

    def __init__(self, function: Any):
        self._function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        return _call(self._function, args, options)

    def __getattr__(self, name: str) -> Any:
        return _Function(getattr(self._function, name))


def _as_strided(x: StrictArray, shape: Any, strides: Any) -> StrictArray:
    """Like CuPy's, it does not say what it is a view of."""
    return StrictArray(np.lib.stride_tricks.as_strided(x._plain, shape, strides))


class StrictNumPy:
    """What `xp_of` gives for a StrictArray: numpy, with every function made strict."""

    __name__ = "strict"
    ndarray = StrictArray
    random = np.random  # generators give NumPy arrays: move them with xp.asarray, as to a device
    lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        return value if isinstance(value, type) or not callable(value) else _Function(value)

    @staticmethod
    def array(value: Any, dtype: Any = None, copy: bool | None = True, order: Any = "K") -> StrictArray:
        """From numbers, lists or any array: the one way in, as cupy.array copies to the device."""
        if isinstance(value, StrictArray):
            return _as_it_lies(np.array(value._plain, dtype, copy=copy, order=order), value)
        if isinstance(value, np.ndarray) and order == "K":
            order = "A"  # what is in neither order arrives in C order
        met: list[StrictArray] = []
        value = value if isinstance(value, np.ndarray) else _plain(value, "array", met)
        return StrictArray(np.array(value, dtype, order=order))

    @classmethod
    def asarray(cls, value: Any, dtype: Any = None, order: Any = "K") -> StrictArray:
        """An array of this backend: itself, or a copy."""
        return cls.array(value, dtype, None, order)


register(
    Backend(
        "strict",
        StrictArray,
        StrictNumPy(),
        from_numpy=in_memory_order(StrictNumPy.asarray),
        to_numpy=in_memory_order(lambda array: array._plain.copy()),
    )
)
