"""How a Tensor feels like a NumPy array. Nothing here knows about gradients.

The operators (`+`, `@`, `t[i]`, `t.sum()` ...) are ops, and are bound in ops/__init__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter, eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backend as _backend
from .backend import Array

if TYPE_CHECKING:
    from .tensor import Tensor


def _comparison(compare: Callable[[Any, Any], Any], sign: str) -> Any:
    def method(self: ArrayLike, other: Any) -> Array:
        return compare(self._data, other._data if isinstance(other, ArrayLike) else _backend.weak(other))

    method.__name__ = f"__{compare.__name__}__"
    method.__doc__ = f"self {sign} other, entry by entry: a plain array of booleans."
    return method


class ArrayLike:
    """The parts of a Tensor that only look at its array, `_data`."""

    __slots__ = ()
    __array_ufunc__ = None  # array * tensor is the Tensor's to compute, not NumPy's
    __array_priority__ = 1000  # the same for CuPy
    _data: Array
    node: Any
    leaf: Any

    # attrgetter runs in C: these are read several times in every op
    shape = property(attrgetter("_data.shape"), doc="Length along each axis.")
    ndim = property(attrgetter("_data.ndim"), doc="Number of axes.")
    dtype = property(attrgetter("_data.dtype"), doc="The kind of number, for instance float32.")
    size = property(attrgetter("_data.size"), doc="Number of entries.")

    @property
    def backend(self) -> str:
        """The name of the array library: "numpy" or "cupy"."""
        return _backend.backend_of(self._data).name

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array: read-only, copied only if it was on a device."""
        return _backend.to_numpy(self._data)

    def item(self) -> float | int | bool:
        """The value of a Tensor with a single entry, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: only a single number converts; this Tensor has shape {self.shape}")
        return self._data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self._data)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a 0-d Tensor (a single number) has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self._data == value).any())

    __eq__ = _comparison(eq, "==")
    __ne__ = _comparison(ne, "!=")
    __lt__ = _comparison(lt, "<")
    __le__ = _comparison(le, "<=")
    __gt__ = _comparison(gt, ">")
    __ge__ = _comparison(ge, ">=")

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else format(repr(self), spec)

    __hash__ = object.__hash__  # `==` compares entries, but as a key a Tensor is itself

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.node is not None:
            raise TypeError("NumPy would lose this Tensor's history; say so with .numpy() or .detach()")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def _refuse_in_place(self, other: Any) -> Any:
        """`r -= x` makes a new Tensor and calls it r, as Python does; on a leaf that hides a mistake."""
        if self.leaf is not None:
            raise TypeError(
                "w -= x would not change the leaf w but make a new Tensor; write w.data = w.data - x, "
                "or w = w - x if a new Tensor is what you want"
            )
        return NotImplemented

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _refuse_in_place

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "t[index] = value is refused: the tape may still need the old value. Build a new Tensor "
            "with where() or scatter_add(), or give a leaf a new value with leaf.data = array"
        )

    def __repr__(self) -> str:
        value = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100)
        origin = f", op={self.node.name}" if self.node else ""
        return f"Tensor({value}, dtype={self.dtype}, backend={self.backend}{origin})"

    if TYPE_CHECKING:  # the operators are bound in ops/__init__.py; this tells type checkers and editors

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def copy(self) -> Tensor: ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def sum_to(self, shape: Any) -> Tensor: ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor: ...
        def max(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...

        T: Tensor
        mT: Tensor
