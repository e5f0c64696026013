"""A backend for testing code meant for a GPU on a machine without one.

A StrictArray is a NumPy array with a device's manners: it refuses to mix with plain NumPy arrays, and
a reduction gives a 0-d array, never a NumPy scalar. Code that works on both `numpy` and `strict` has
not forgotten an `np.` where it should ask `xp_of(array)`.

Importing this module makes the backend known:

>>> import minigan, minigan.testing.strict
>>> minigan.Tensor([1.0, 2.0], backend="strict").sum()
Tensor(3., dtype=float64, backend=strict)

It also counts what would cost time on a device: launches of kernels, and meetings with the host, where Python
waits for a number or sends some.

>>> with counting() as counts:
...     x = minigan.Tensor([1.0, 2.0], backend="strict")
...     float((x * x).sum())
5.0
>>> counts.launches, counts.to_device, counts.to_host
(2, 1, 1)

Its fused kernels (minigan/kernels/device.py) are the formulas of gpu/formulas.py. Each counts as so many
launches as it may take on a GPU.

And it records, as CUDA does for a graph (gpu/recorded_steps.py): what is launched is not done, but noted, as
what is to be written where. A replay does it, as often as you like, in the same memory. Numbers of Python's
are those of the recording for ever, and to meet the host is an error. Of memory that was there before, only
the address is known; if nobody keeps that memory, a replay would use somebody else's, and is an error, too.

>>> x = minigan.Tensor([1.0, 2.0], backend="strict").data.copy()
>>> recording, y = record(lambda: x * 2.0)
>>> x[...] = 5.0
>>> recording.replay()
>>> y
StrictArray([10., 10.])
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..backend import Backend, register
from ..gpu import formulas as fused
from ..kernels import device

# ------------------------------------------------------------------------------------------ counting


@dataclass
class Counts:
    """What a device would have had to do. `launched` says which kernels, and how often each."""

    to_device: int = 0
    to_host: int = 0
    launched: Counter[str] = field(default_factory=Counter)

    @property
    def launches(self) -> int:
        """Kernels started in all."""
        return self.launched.total()


_counts: ContextVar[Counts | None] = ContextVar("counts", default=None)


@contextmanager
def counting() -> Iterator[Counts]:
    """Inside, what is done with arrays of the backend "strict" is counted."""
    counts = Counts()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def _launched(name: str, times: int = 1) -> None:
    if (counts := _counts.get()) is not None:
        counts.launched[name] += times


def _met(where: str) -> None:
    if _recording.get() is not None:
        raise RecordingError(f"a step that is being recorded cannot wait for the host ({where})")
    if (counts := _counts.get()) is not None:
        setattr(counts, where, getattr(counts, where) + 1)


# --------------------------------------------------------------------------------------- recording


class RecordingError(RuntimeError):
    """Something that a step cannot do while it is being recorded."""


class Recording:
    """Launches that can be done again: what each computes, and the memory where it goes."""

    def __init__(self) -> None:
        self._launches: list[tuple[Callable[[], Any], Any]] = []
        self._inside: dict[int, np.ndarray] = {}  # memory that was made meanwhile
        self._outside: dict[int, weakref.ref[np.ndarray]] = {}  # memory that was there before

    def __len__(self) -> int:
        return len(self._launches)

    def note(self, work: Callable[[], Any], memory: Any) -> None:
        """memory: the arrays, perhaps in lists, that get what work() returns; None: it writes by itself."""
        self._launches.append((work, memory))
        self.keep(memory)

    def keep(self, made: Any) -> None:
        """These arrays, perhaps in lists, were made for the recording, which keeps their memory."""
        if isinstance(made, (list, tuple)):
            for part in made:
                self.keep(part)
        elif isinstance(made, np.ndarray):
            owner = _owner(made)
            self._inside[id(owner)] = owner

    def at(self, array: np.ndarray) -> np.ndarray:
        """An array at the same address. If its memory was there before, that is not a reference to it."""
        owner = _owner(array)
        if id(owner) in self._inside:
            return array
        self._outside[id(owner)] = weakref.ref(owner)
        return np.asarray(_Address(array))

    def replay(self) -> None:
        """Do all of it, in order. To the host it is one launch."""
        _launched("replay")
        if any(memory() is None for memory in self._outside.values()):
            raise RecordingError("memory that was recorded is no longer there")
        with _unobserved(), np.errstate(all="ignore"):
            for work, memory in self._launches:
                _write(memory, work())


_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)


def record(work: Callable[[], Any]) -> tuple[Recording, Any]:
    """Record what work() launches. Its arrays come out, too; a replay fills them."""
    recording = Recording()
    token = _recording.set(recording)
    try:
        with np.errstate(all="ignore"):  # nothing is written in place, so the numbers mean nothing
            return recording, work()
    finally:
        _recording.reset(token)


class _Address:
    """Where an array is, without a reference to it."""

    def __init__(self, array: np.ndarray):
        known = array.__array_interface__
        self.__array_interface__ = {**known, "data": (known["data"][0], False), "strides": array.strides}


def _owner(array: np.ndarray) -> np.ndarray:
    """The array that this is, in the end, a view of, as NumPy knows it."""
    base: Any = np.ndarray.base  # a StrictArray has its own answer
    while isinstance(below := base.__get__(array), np.ndarray):
        array = below
    return array


def _under(array: StrictArray) -> np.ndarray:
    """The plain array underneath; while a step is being recorded, all that is recorded of it."""
    recording = _recording.get()
    return array.view(np.ndarray) if recording is None else recording.at(array.view(np.ndarray))


@contextmanager
def _unobserved() -> Iterator[None]:
    """Inside, nothing is counted or recorded: it is part of one launch."""
    tokens = _counts.set(None), _recording.set(None)
    try:
        yield
    finally:
        _counts.reset(tokens[0])
        _recording.reset(tokens[1])


def _done(work: Callable[[], Any], writes: bool = False) -> Any:
    """work(), now; or later, if a step is being recorded. writes: into arrays that were there before.

    The result of a recorded launch is the memory where each replay will put it. (Its shape is found by doing
    it once. What that has written does not count.)
    """
    recording = _recording.get()
    if recording is None:
        return work()
    if writes:
        recording.note(work, None)
        return None
    made = _arrays(work())
    recording.note(work, made)
    return made


def _arrays(made: Any) -> Any:
    """NumPy's scalars as 0-d arrays, that something can be written into."""
    if isinstance(made, (list, tuple)):
        return type(made)(_arrays(part) for part in made)
    return np.asarray(made) if isinstance(made, np.generic) else made


def _write(memory: Any, made: Any) -> None:
    if isinstance(memory, (list, tuple)):
        for room, part in zip(memory, made, strict=True):
            _write(room, part)
    elif isinstance(memory, np.ndarray):
        memory[...] = made


def _writable(value: Any) -> Any:
    """The same memory in arrays of their own, which stay writable if the tape seals the others."""
    if isinstance(value, StrictArray):
        return _under(value).view(StrictArray)
    return type(value)(map(_writable, value)) if type(value) in (list, tuple) else value


# ------------------------------------------------------------------------------------------ the array


class StrictArray(np.ndarray):
    """An array that stays among its own."""

    _source: StrictArray | None = None

    @property
    def base(self):
        """The array that this is a view of; None where it has memory of its own."""
        return self._source

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        _launched(ufunc.__name__)
        if out is not None:
            kwargs["out"] = tuple(_plain(o, ufunc) for o in out)
        plain = [_plain(x, ufunc) for x in inputs]
        writes = out is not None or method == "at"
        result = _done(partial(getattr(ufunc, method), *plain, **kwargs), writes)
        return out[0] if out is not None else _strict(result)

    def __array_function__(self, function, types, args, kwargs):
        return _call(function, args, kwargs)

    def __getitem__(self, index):
        index = _plain(index, "an index")
        return _made_of(self, lambda plain: plain[index], "take")

    def __setitem__(self, index, value):
        _launched("assign")
        index, plain = _plain(index, "an index"), _plain(value, "assignment")
        _done(partial(_under(self).__setitem__, index, plain), writes=True)

    def __deepcopy__(self, memo):
        return self.copy("K")

    T = property(lambda self: self.transpose())


def _made_of(source: StrictArray, make: Callable[[np.ndarray], Any], name: str) -> Any:
    """What `make` makes of the source: a view, or a copy; a copy is a launch."""
    found = make(source.view(np.ndarray))
    made = _arrays(found)
    result = _strict(made)
    if isinstance(found, np.ndarray) and np.may_share_memory(made, source.view(np.ndarray)):
        result._source = source if source._source is None else source._source
        return result
    if isinstance(found, np.ndarray):
        _launched(name)
    if isinstance(made, np.ndarray) and (recording := _recording.get()) is not None:
        recording.note(partial(make, _under(source)), made)
    return result


def _perhaps_a_view(name: str) -> Callable[..., Any]:
    """A method that copies only where it has to."""

    def method(self: StrictArray, *args: Any, **options: Any) -> Any:
        return _made_of(self, lambda plain: getattr(plain, name)(*args, **options), name)

    return method


def _one_launch(name: str) -> Callable[..., Any]:
    """A method that is a kernel of its own on a device."""

    def method(self: StrictArray, *args: Any, **options: Any) -> Any:
        _launched(name)
        options = {key: _plain(value, name) for key, value in options.items()}
        plain = [_plain(x, name) for x in args]
        return _strict(_done(partial(getattr(_under(self), name), *plain, **options)))

    return method


def _reading(name: str) -> Callable[..., Any]:
    """A method for which Python has to wait until the device has the number."""

    def method(self: StrictArray, *args: Any) -> Any:
        _met("to_host")
        return getattr(self.view(np.ndarray), name)(*args)

    return method


for _name in ("astype", "ravel", "reshape", "squeeze", "swapaxes", "transpose"):
    setattr(StrictArray, _name, _perhaps_a_view(_name))
for _name in ("copy", "mean", "argmax", "argmin", "clip", "cumsum", "take"):
    setattr(StrictArray, _name, _one_launch(_name))
for _name in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__"):
    setattr(StrictArray, _name, _reading(_name))


def _plain(value: Any, where: Any) -> Any:
    """A StrictArray as the NumPy array it is underneath; a NumPy array is refused."""
    if isinstance(value, StrictArray):
        return _under(value)
    if isinstance(value, np.ndarray):
        name = getattr(where, "__name__", where)
        raise TypeError(f"{name}: a plain NumPy array of shape {value.shape} meets the strict backend")
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v, where) for v in value)
    return value


def _strict(value: Any) -> Any:
    """Results go back among their own, NumPy scalars as 0-d arrays."""
    if isinstance(value, StrictArray):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value).view(StrictArray)
    if isinstance(value, (list, tuple)):
        return type(value)(_strict(v) for v in value)
    return value


# Functions that make no new numbers: views, and memory whose content does not matter yet.
_FREE = {
    "as_strided", "atleast_1d", "atleast_2d", "broadcast_arrays", "broadcast_to", "diagonal", "empty",
    "empty_like", "expand_dims", "flip", "moveaxis", "ndim", "ravel", "reshape", "result_type", "shape",
    "size", "split", "squeeze", "swapaxes", "transpose",
}  # fmt: skip


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    name = function.__name__
    plain = [_plain(x, function) for x in args]
    kwargs = {k: _plain(v, function) for k, v in kwargs.items()}
    if name not in _FREE:
        writes = kwargs.get("out") is not None or name in ("at", "copyto")
        result = _done(partial(function, *plain, **kwargs), writes)
        _launched(name, len(args[0]) if name == "concatenate" else 1)
        return _strict(result)
    result = function(*plain, **kwargs)
    if not args or not isinstance(args[0], StrictArray) or name.startswith("empty"):
        if (recording := _recording.get()) is not None:
            recording.keep(result)  # it is empty memory
        return _strict(result)
    make = lambda source: function(source, *plain[1:], **kwargs)
    if not isinstance(result, (list, tuple)):
        return _made_of(args[0], make, name)
    return [_made_of(args[0], partial(_part, make, i), name) for i in range(len(result))]


def _part(make: Callable[[np.ndarray], Any], i: int, source: np.ndarray) -> Any:
    return make(source)[i]


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
        if isinstance(value, StrictArray):
            make = partial(np.array, dtype=dtype, copy=copy)
            return _made_of(value, make, "copy") if make(value.view(np.ndarray)).base is None else value
        _met("to_device")
        return np.array(value, dtype=dtype, copy=copy).view(StrictArray)

    @classmethod
    def asarray(cls, value: Any, dtype: Any = None) -> StrictArray:
        return cls.array(value, dtype, copy=None)


def _from_numpy(array: np.ndarray) -> StrictArray:
    _met("to_device")
    return np.array(array).view(StrictArray)


def _to_numpy(array: StrictArray) -> np.ndarray:
    _met("to_host")
    return np.array(array.view(np.ndarray))


register(Backend("strict", StrictArray, StrictNumPy(), from_numpy=_from_numpy, to_numpy=_to_numpy))


# ------------------------------------------------------------------------------------- fused kernels


def _fused(name: str, launches: int | Callable[..., int], writes: bool = False) -> Callable[..., Any]:
    formula = getattr(fused, name)

    def kernel(*args: Any, **options: Any) -> Any:
        _launched(name, launches if isinstance(launches, int) else launches(*args))
        args = _writable(args)

        def work() -> Any:
            with _unobserved():  # what the formula does in several passes is one kernel on a device
                return _bare(_shared(formula(*args, **options)))

        return _strict(_done(work, writes))

    return kernel


def _bare(made: Any) -> Any:
    """StrictArrays as the plain arrays underneath, so that others can be made of their memory."""
    if isinstance(made, (tuple, list)):
        return type(made)(map(_bare, made))
    return made.view(np.ndarray) if isinstance(made, StrictArray) else made


def _shared(made: Any) -> Any:
    """0-d arrays, not NumPy's scalars."""
    return type(made)(map(_shared, made)) if isinstance(made, (tuple, list)) else _strict(made)


def _by_sixteen(items: Sequence[Any]) -> int:
    return -(-len(items) // 16)


device.register(
    StrictArray,
    SimpleNamespace(
        leaky_relu=_fused("leaky_relu", 1),
        leaky_relu_backward=_fused("leaky_relu_backward", 1),
        tanh_backward=_fused("tanh_backward", 1),
        add_bias=_fused("add_bias", 1, writes=True),
        channel_sums=_fused("channel_sums", 1),
        batch_norm=_fused("batch_norm", 2),
        batch_norm_backward=_fused("batch_norm_backward", 2),
        running=_fused("running", 1),
        softplus_means=_fused("softplus_means", 1),
        sigmoid_means=_fused("sigmoid_means", 1),
        add_up=_fused("add_up", 1, writes=True),
        im2col=_fused("im2col", 1),
        col2im=_fused("col2im", 1),
        adam=_fused("adam", lambda p, m, v, gradients, *rest: _by_sixteen(gradients), writes=True),
        averages=_fused("averages", lambda kept, *rest: _by_sixteen(kept), writes=True),
        uniform=_fused("uniform", 1),
        normal=_fused("normal", 1),
        batch=_fused("batch", 1),
        recorder=SimpleNamespace(record=record, products=nullcontext),
    ),
)
