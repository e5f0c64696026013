"""Which array library holds the numbers: NumPy, or CuPy on a GPU.

minigan never asks a global which library is in use. It asks the array: `xp_of(array)` is the
module whose functions work on that array (`xp` is the customary name for "NumPy or CuPy").
CuPy is imported only when somebody asks for it.

This file is the one place that says where the libraries differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import BackendError

__all__ = [
    "Array",
    "Backend",
    "BackendError",
    "asarray",
    "available",
    "backend_of",
    "generator",
    "get",
    "home_of",
    "in_memory_order",
    "loaded",
    "register",
    "scatter_add",
    "seal",
    "shortage",
    "to_numpy",
    "weak",
    "xp_of",
]

Array = Any  # an array of some backend; typing cannot name cupy.ndarray where CuPy is not installed


@dataclass(frozen=True)
class Backend:
    """One array library.

    name: what users type (`--backend cupy`). array_type: the class of its arrays. xp: the module
    with `exp`, `zeros` and the rest. from_numpy, to_numpy: move an array here and back.
    synchronize: wait until the device has finished (for measuring times). memory: the device's free memory
    and all of it, in bytes; None where there is no device.
    """

    name: str
    array_type: type
    xp: Any
    from_numpy: Callable[[np.ndarray], Array]
    to_numpy: Callable[[Array], np.ndarray]
    synchronize: Callable[[], None] = lambda: None
    memory: Callable[[], tuple[int, int] | None] = lambda: None


_by_name: dict[str, Backend] = {}
_by_type: dict[type, Backend] = {}
_xp_by_type: dict[type, Any] = {}


def register(backend: Backend) -> None:
    """Make a further array library known: its name to `get`, its array type to `xp_of`."""
    _by_name[backend.name] = backend
    _by_type[backend.array_type] = backend
    _xp_by_type[backend.array_type] = backend.xp


register(Backend("numpy", np.ndarray, np, lambda array: array, lambda array: array))


def xp_of(array: Array) -> Any:
    """The module (numpy, cupy) that an array belongs to."""
    try:
        return _xp_by_type[type(array)]
    except KeyError:
        return backend_of(array).xp


def backend_of(array: Array) -> Backend:
    """The backend that an array belongs to."""
    found = home_of(array)
    if not isinstance(array, found.array_type):
        raise TypeError(f"{type(array).__name__} is not an array of a known backend")
    return found


def get(name: str) -> Backend:
    """The backend called `name`; a BackendError of one line where it cannot be used.

    >>> get("numpy").name
    'numpy'
    """
    if name not in _by_name:
        if name != "cupy":
            known = ", ".join(sorted({*_by_name, "cupy"}))
            raise BackendError(f"there is no backend {name!r}; choose one of: {known}")
        from .gpu import setup  # only now: it takes longer to load than all of this file

        cupy = setup.load()
        register(
            Backend(
                "cupy",
                cupy.ndarray,
                cupy,
                in_memory_order(cupy.asarray),
                in_memory_order(cupy.asnumpy),
                lambda: cupy.cuda.Device().synchronize(),
                cupy.cuda.runtime.memGetInfo,
            )
        )
    return _by_name[name]


def in_memory_order(move: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`move`, whose result lies in memory as what was moved does.

    CuPy's own keep the order of axes for some arrays only, and leave the rest in C order. A weight that lies
    in the order that its layer works in would then be copied to that order at every step.
    """

    def moved(array: Array) -> Array:
        slowest_first = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        back = sorted(range(array.ndim), key=lambda axis: slowest_first[axis])
        return move(array.transpose(slowest_first)).transpose(back)

    return moved


def available() -> list[str]:
    """The names of the backends that work on this machine.

    >>> "numpy" in available()
    True
    """
    names = []
    for name in ("numpy", "cupy"):
        try:
            get(name)
        except BackendError:
            continue
        names.append(name)
    return names


def loaded() -> list[Backend]:
    """The backends in use by this process so far."""
    return list(_by_name.values())


def home_of(value: Any) -> Backend:
    """The backend of an array; NumPy for numbers, lists and whatever else NumPy can make sense of."""
    owner = _by_type.get(type(value))
    if owner is None and type(value).__module__.split(".")[0] == "cupy":
        owner = get("cupy")
    return owner or get("numpy")


def to_numpy(value: Any) -> np.ndarray:
    """The same numbers as a NumPy array, copied off the device where there is one. Lists become arrays."""
    home = home_of(value)
    return home.to_numpy(value) if isinstance(value, home.array_type) else np.asarray(value)


def asarray(value: Any, backend: Backend, dtype: Any = None, copy: bool = True) -> Array:
    """`value` (a number, nested lists, an array) as an array of `backend`, of its own unless copy=False.

    NumPy arrays can go anywhere. Taking an array off a device is never done in passing: use to().
    """
    owner = home_of(value)
    if getattr(value, "dtype", None) is not None and value.dtype.kind not in "fiub":
        raise _not_numbers(value, value.dtype)
    if owner is backend and isinstance(value, backend.array_type):
        return backend.xp.array(value, dtype=dtype, copy=copy or None)
    if owner.name != "numpy":
        raise TypeError(f"an array of backend {owner.name!r} where {backend.name!r} is needed; move it first")
    try:
        array = np.array(value)
    except ValueError as error:
        raise ValueError(f"cannot make a Tensor of this {type(value).__name__}: {error}") from None
    if array.dtype.kind not in "fiub":
        raise _not_numbers(value, array.dtype)
    return backend.from_numpy(array if dtype is None else array.astype(dtype))


def weak(value: Any) -> Any:
    """A NumPy scalar as the Python number that it is; anything else as it is."""
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        return float(value) if value.dtype.kind == "f" else value.item()
    return value


def _not_numbers(value: Any, dtype: Any) -> TypeError:
    kind = type(value).__name__
    return TypeError(f"cannot make a Tensor of {kind} with dtype {dtype}: it holds real numbers or booleans")


def seal(array: Array) -> Array:
    """Forbid writing to an array that the tape may still need.

    NumPy scalars, which NumPy returns in place of 0-d arrays, become 0-d arrays first. CuPy has no
    read-only flag: there, writing into `tensor.data` is not noticed.
    """
    if isinstance(array, np.generic):
        array = np.asarray(array)
    if type(array) is np.ndarray:
        array.setflags(write=False)
    return array


def scatter_add(array: Array, index: Any, values: Array) -> None:
    """array[index] += values, counting every repetition in `index`."""
    xp_of(array).add.at(array, index, values)


def generator(seed: Any, backend: str = "numpy") -> Any:
    """A random generator of the backend, seeded; the methods are those of numpy.random.Generator."""
    return get(backend).xp.random.default_rng(seed)


def shortage(error: BaseException) -> str | None:
    """What a device that has run out of memory was asked for, and what it has; None for other errors."""
    from .gpu import setup

    return setup.shortage(error, memory)


def memory() -> tuple[int, int] | None:
    """Free memory and all memory of the device in use, in bytes; None if none is."""
    answers = (backend.memory() for backend in loaded())
    return next((answer for answer in answers if answer is not None), None)
