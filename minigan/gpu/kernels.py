"""The functions of fused.py for CuPy's arrays: they start the kernels of cuda.cu.

What each computes is said in fused.py, under the same name. Here is said how many launches it takes, and
where its results lie in memory. An array whose order in memory a kernel cannot use is copied first, which is
a launch more for each such array. There are two ways to look at memory:

    flat    Elementwise kernels run over memory from one end to the other. All arrays must lie there without
            gaps, in one order of their axes. That is the order of the last array; results lie in it, too.
    rows    Channel kernels want a matrix of rows and channels: (N, C) in C order, or (N, C, H, W) with the
            channels last, as conv.py makes them. Results lie like that.

The file cuda.cu is compiled when a kernel is first needed (CuPy keeps the result on disk for the next time).
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..kernels.geometry import Geometry, Pair, empty
from . import formulas as fused
from .formulas import Key, Piece, Row

try:
    import cupy
except ImportError:  # nobody has CuPy arrays, then; but tools that look at every file may look at this one
    cupy = None

THREADS = 256  # of a block. This and the next two as in cuda.cu
LOSS_THREADS = 512
PIECE_BLOCK = 1024
MANY = 512  # blocks that keep a GPU busy

# Rows that a thread of a channel kernel should have at least: in an elementwise one, and in one that sums up.
# (Blocks that sum up have to meet afterwards: it is not worth it for little.)
APPLIED, SUMMED = 4, 16

# Structs of cuda.cu, which are passed by value. Addresses of arrays are whole numbers here.
ROWS = np.dtype(
    [("logits", "u8", 4), ("slopes", "u8", 4), ("size", "i8", 4)] + [(name, "f8", 4) for name in "abc"]
)
WINDOWS = np.dtype([("numbers", "i4", 13)])
GRADIENTS = np.dtype([("g", "u8", 16), ("start", "i8", 16), ("size", "i8", 16), ("blocks", "i8", 16)])
SEVERAL = np.dtype([("logits", "u8", 4), ("mean", "u8", 4), ("size", "i8", 4)])
VALUES = np.dtype([("at", "u8", 16), ("double", "i8", 16), ("number", "f8", 16)])
PAIRS = np.dtype([("kept", "u8", 16), ("made", "u8", 16), ("size", "i8", 16), ("blocks", "i8", 16)])


# ---------------------------------------------------------------------------------- to start a kernel


def _launch(name: str, dtype: np.dtype, grid: tuple[int, ...], block: tuple[int, ...], args: tuple) -> None:
    """Start a kernel of cuda.cu. grid: how many blocks. block: how many threads in each.

    args: arrays; int, which arrive as 64 bits; float, which arrive as double; None, a null pointer; and
    structs, as NumPy arrays of one entry.
    """
    _kernel(name, dtype)(grid, block, args)


@functools.cache
def _kernel(name: str, dtype: np.dtype) -> Any:
    """A kernel by its name. CuPy compiles it for each device that it is started on."""
    return _module("float" if dtype == np.float32 else "double").get_function(name)


@functools.cache
def _module(real: str) -> Any:
    code = Path(__file__).with_name("kernels.cu").read_text(encoding="utf-8")
    return cupy.RawModule(code=code, options=(f"-DREAL={real}",))


def _for_floats(*places: int) -> Callable[[Callable], Callable]:
    """For a function of this file: where its kernels do not apply, the formula in fused.py computes.

    They are for arrays that are all of float32 or all of float64, and not empty. places: where among the
    arguments the arrays are; what is None does not count.
    """

    def decorate(function: Callable) -> Callable:
        formula = getattr(fused, function.__name__)

        @functools.wraps(function)
        def chosen(*args: Any, **options: Any) -> Any:
            arrays = [args[i] for i in places if i < len(args) and args[i] is not None]
            suits = args[0].size > 0 and _alike(arrays)
            return (function if suits else formula)(*args, **options)

        return chosen

    return decorate


def _alike(arrays: Sequence[Array]) -> bool:
    """Whether they are all of float32 or all of float64."""
    return {a.dtype.char for a in arrays} in ({"f"}, {"d"})


def _blocks(work: int, of_one: int) -> int:
    """How many blocks it takes, if one does so much."""
    return -(-work // of_one)


def _address(array: Array) -> int:
    """Where an array begins in the memory of the device."""
    return array.data.ptr


# ------------------------------------------------------------------------------------ order in memory


def _flat(name: str, size: int, dtype: np.dtype, args: tuple) -> None:
    """Start an elementwise kernel: a thread for each entry. The size is its last argument."""
    _launch(name, dtype, (_blocks(size, THREADS),), (THREADS,), (*args, size))


def _lying_like(y: Array, x: Array) -> Array:
    """x in the memory order and dtype of y, an array of its shape without gaps: itself, or a copy."""
    if x.dtype == y.dtype and _same_steps(x, y):
        return x
    copy = cupy.empty_like(y)
    copy[...] = x
    return copy


def _same_steps(x: Array, y: Array) -> bool:
    """Whether each axis takes the same steps in the memory of both. An axis of length 1 takes none."""
    if x.strides == y.strides:
        return True
    return all(n == 1 or s == t for n, s, t in zip(x.shape, x.strides, y.strides, strict=True))


def _rows(x: Array, dtype: np.dtype) -> Array:
    """x with the channels last in memory: itself, or a copy. For images that is N H W C."""
    order = (0, *range(2, x.ndim), 1)
    if x.dtype == dtype and x.transpose(order).flags.c_contiguous:
        return x
    last = empty(cupy, x.shape, dtype, order)
    last[...] = x
    return last


def _vector(v: Array | None, dtype: np.dtype) -> Array | None:
    """One number per channel, without gaps in memory. (CuPy returns v itself where it is so.)"""
    return None if v is None else cupy.ascontiguousarray(v, dtype)


@functools.lru_cache(maxsize=1024)
def _shares(rows: int, channels: int, least: int) -> tuple[tuple[int, int], tuple[int, int], int]:
    """For a channel kernel: grid, block, and how many rows are a block's share.

    A block has a thread for each of up to 32 neighbouring channels, and as many rows of them as fit. Each
    thread should have a few rows to go through (least), but the GPU should be busy.
    """
    width = _power_of_two(channels, 32)
    height = THREADS // width
    groups = _blocks(channels, width)
    blocks = max(1, min(_blocks(rows, least * height), MANY // groups))
    share = _blocks(rows, blocks)
    return (groups, _blocks(rows, share)), (width, height), share


def _power_of_two(n: int, most: int) -> int:
    """The first power of two that is not below n, up to `most`."""
    return min(1 << (n - 1).bit_length(), most)


def _between(shares: int, numbers: int, dtype: np.dtype) -> tuple[Array | None, Array | None]:
    """What a kernel needs whose blocks meet: memory for `numbers` from each share, and the counters.

    Nothing, if there is only one share. Counters are for groups of channels. With more than one share there
    are not more than MANY / 2 groups.
    """
    if shares == 1:
        return None, None
    runtime, stream = cupy.cuda.runtime, cupy.cuda.get_current_stream()
    counters = _counters(runtime.getDevice(), stream.ptr, threading.get_ident())
    return cupy.empty(shares * numbers, dtype), counters


@functools.cache
def _counters(device: int, stream: int, thread: int) -> Array:
    """Counters for `is_last` in cuda.cu. They are zero whenever a kernel starts.

    To make zeros is a launch, so they are made once, and kept. Every kernel that counts with them leaves them
    zero again. So kernels may share them that run one after the other, and those of one stream do. Kernels of
    two streams may run at the same time: each stream has counters of its own. (thread: because the default
    stream may be one for each thread, which cannot be seen from its number.)

    A CUDA graph (graphs.py) does what it has recorded in the order of the stream it was recorded from, and is
    not started again before it has ended. Wherever it runs, it uses the counters of that stream. So it must
    not run at the same time as that stream, or as another graph from it.

    If a recording is the first to need them, nothing of this may become a part of it. So the zeros are made
    at once, on another stream. And the memory comes from CUDA itself, since that of a recording lives no
    longer than its graph.
    """
    memory, aside = cupy.cuda.Memory(4 * MANY), cupy.cuda.Stream(non_blocking=True)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    pointer.memset_async(0, 4 * MANY, aside)
    aside.synchronize()
    return cupy.ndarray((MANY,), np.uint32, pointer)


def _slope(slope: float | None) -> float:
    """As the kernels take it. Slope 1 changes nothing."""
    return 1.0 if slope is None else float(slope)


def _number(value: int | Array) -> tuple[int, Array | None]:
    """A number as the kernels take it: by value, or where it lies on the device."""
    if isinstance(value, cupy.ndarray):
        return 0, cupy.ascontiguousarray(value, np.int64)
    return int(value), None


# ---------------------------------------------------------------------------- activations and biases


@_for_floats(0)
def leaky_relu(x: Array, slope: float) -> Array:
    """One launch."""
    y = cupy.empty_like(x)
    _flat("leaky_relu", x.size, x.dtype, (_lying_like(y, x), y, float(slope)))
    return y


@_for_floats(0, 1)
def leaky_relu_backward(g: Array, y: Array, slope: float) -> Array:
    """One launch."""
    out = cupy.empty_like(y)
    _flat(
        "leaky_relu_backward", y.size, y.dtype, (_lying_like(out, g), _lying_like(out, y), out, float(slope))
    )
    return out


@_for_floats(0, 1)
def tanh_backward(g: Array, y: Array) -> Array:
    """One launch."""
    out = cupy.empty_like(y)
    _flat("tanh_backward", y.size, y.dtype, (_lying_like(out, g), _lying_like(out, y), out))
    return out


@_for_floats(0, 1)
def add_bias(y: Array, bias: Array, slope: float | None = None) -> None:
    """One launch. If the channels are not last in memory, as many as the formula of fused.py takes."""
    c = y.shape[1]
    if not y.transpose(0, *range(2, y.ndim), 1).flags.c_contiguous:
        fused.add_bias(y, bias, slope)
        return
    n = y.size // c
    grid, block, share = _shares(n, c, APPLIED)
    _launch("add_bias", y.dtype, grid, block, (y, _vector(bias, y.dtype), _slope(slope), n, c, share))


@_for_floats(0)
def channel_sums(g: Array) -> Array:
    """One launch."""
    c, dtype = g.shape[1], g.dtype
    n = g.size // c
    grid, block, share = _shares(n, c, SUMMED)
    g, total, (parts, done) = _rows(g, dtype), cupy.empty(c, dtype), _between(grid[1], c, dtype)
    _launch("channel_sums", dtype, grid, block, (g, parts, total, done, n, c, share))
    return total


# ------------------------------------------------------------------------------ batch normalisation


@_for_floats(0, 1, 2)
def batch_norm(
    x: Array, gamma: Array | None, beta: Array | None, eps: float, leaky: float | None = None
) -> tuple[Array, Array, Array, Array]:
    """Two launches. y has the channels last in memory."""
    c, dtype = x.shape[1], x.dtype
    n, x = x.size // c, _rows(x, dtype)
    y, (mu, variance, s) = cupy.empty_like(x), (cupy.empty(c, dtype) for _ in range(3))
    grid, block, share = _shares(n, c, SUMMED)
    parts, done = _between(grid[1], 3 * c, dtype)
    args = (x, parts, mu, variance, s, done, float(eps), n, c, share)
    _launch("batch_norm_statistics", dtype, grid, block, args)
    grid, block, share = _shares(n, c, APPLIED)
    args = (x, mu, s, _vector(gamma, dtype), _vector(beta, dtype), y, _slope(leaky), n, c, share)
    _launch("batch_norm_apply", dtype, grid, block, args)
    return y, mu, variance, s


@_for_floats(0, 1, 2, 3, 4)
def batch_norm_backward(
    g: Array, x: Array, mu: Array, s: Array, gamma: Array | None
) -> tuple[Array, Array, Array]:
    """Two launches. x̄ has the channels last in memory."""
    c, dtype = x.shape[1], x.dtype
    n, g, x = x.size // c, _rows(g, dtype), _rows(x, dtype)
    mu, s, gamma = _vector(mu, dtype), _vector(s, dtype), _vector(gamma, dtype)
    x_bar, gamma_bar, beta_bar = cupy.empty_like(x), cupy.empty(c, dtype), cupy.empty(c, dtype)
    abc = cupy.empty((3, c), dtype)
    grid, block, share = _shares(n, c, SUMMED)
    parts, done = _between(grid[1], 2 * c, dtype)
    args = (g, x, mu, s, gamma, parts, gamma_bar, beta_bar, abc, done, n, c, share)
    _launch("batch_norm_backward_sums", dtype, grid, block, args)
    grid, block, share = _shares(n, c, APPLIED)
    _launch("batch_norm_backward_apply", dtype, grid, block, (g, x, mu, abc, x_bar, n, c, share))
    return x_bar, gamma_bar, beta_bar


@_for_floats(0, 1, 3, 4)
def running(
    mean: Array, var: Array, count: Array, mu: Array, variance: Array, share: float, n: int
) -> tuple[Array, Array, Array]:
    """One launch."""
    if count.dtype != np.int64:
        return fused.running(mean, var, count, mu, variance, share, n)
    dtype = mean.dtype
    made = cupy.empty_like(mean), cupy.empty_like(var), cupy.empty_like(count)
    old = (_vector(mean, dtype), _vector(var, dtype), count, _vector(mu, dtype), _vector(variance, dtype))
    numbers = (float(1 - share), float(share), float(share * n / (n - 1)))
    _flat("running", mean.size, dtype, (*old, *made, *numbers))
    return made


# ------------------------------------------------------------------------------------------- losses


def softplus_means(rows: Sequence[Row]) -> tuple[Array, list[Array]]:
    """One launch, of one block: logits are few."""
    if not _alike([logits for logits, *_ in rows]):
        return fused.softplus_means(rows)
    dtype = rows[0][0].dtype
    struct, loss = np.zeros(1, ROWS), cupy.empty((), dtype)
    slopes = [cupy.empty_like(logits, dtype=dtype) for logits, *_ in rows]
    logits = [_lying_like(slope, row[0]) for slope, row in zip(slopes, rows, strict=True)]
    for k, (_, a, b, c) in enumerate(rows):
        struct["logits"][0, k], struct["slopes"][0, k] = _address(logits[k]), _address(slopes[k])
        struct["size"][0, k] = logits[k].size
        struct["a"][0, k], struct["b"][0, k], struct["c"][0, k] = a, b, c
    _launch("softplus_means", dtype, (1,), (1, LOSS_THREADS), (struct, len(rows), loss))
    return loss, slopes


def sigmoid_means(several: Sequence[Array]) -> list[Array]:
    """One launch, of a block for each array."""
    if not _alike(several):
        return fused.sigmoid_means(several)
    dtype, struct = several[0].dtype, np.zeros(1, SEVERAL)
    means = [cupy.empty((), dtype) for _ in several]
    several = [cupy.ascontiguousarray(logits) for logits in several]  # copies must live until the launch
    for k, (logits, mean) in enumerate(zip(several, means, strict=True)):
        struct["logits"][0, k], struct["mean"][0, k] = _address(logits), _address(mean)
        struct["size"][0, k] = logits.size
    _launch("sigmoid_means", dtype, (len(means),), (1, LOSS_THREADS), (struct,))
    return means


def add_up(sums: Array, values: Sequence[Array]) -> None:
    """One launch, if sums are float64 and the values that lie on the device float32 or float64."""
    there = [isinstance(value, cupy.ndarray) for value in values]
    dtypes = [value.dtype.char for value, on_device in zip(values, there, strict=True) if on_device]
    if sums.dtype != np.float64 or not sums.flags.c_contiguous or not set(dtypes) <= {"f", "d"}:
        fused.add_up(sums, values)
        return
    struct = np.zeros(1, VALUES)
    for i, (value, on_device) in enumerate(zip(values, there, strict=True)):
        if on_device:
            struct["at"][0, i], struct["double"][0, i] = _address(value), value.dtype.char == "d"
        else:
            struct["number"][0, i] = value
    if values:
        _launch("add_up", sums.dtype, (1,), (16,), (sums, struct, len(values)))


# -------------------------------------------------------------------------------------- convolution


@functools.lru_cache(maxsize=1024)
def _windows(shape: tuple[int, ...], kernel: Pair, how: Geometry) -> tuple[np.ndarray, int]:
    """The struct Windows, and how many places there are in all. shape: N, C, H, W."""
    n, c, h, w = shape
    oh, ow = how.size_after((h, w), kernel)
    numbers = (c, h, w, *kernel, oh, ow, *how.stride, *how.padding, *how.dilation)
    return np.array([(numbers,)], WINDOWS), n * oh * ow


@_for_floats(0)
def im2col(x: Array, kernel: Pair, how: Geometry) -> Array:
    """One launch, whatever the order of x in memory. The result lies in C order."""
    struct, places = _windows(x.shape, kernel, how)
    columns = cupy.empty((places, kernel[0] * kernel[1] * x.shape[1]), x.dtype)
    width = _power_of_two(columns.shape[1], THREADS)
    height = THREADS // width
    steps = tuple(s // x.itemsize for s in x.strides)
    _launch(
        "im2col", x.dtype, (_blocks(places, height),), (width, height), (x, columns, struct, places, *steps)
    )
    return columns


@_for_floats(0, 4)
def col2im(
    columns: Array, shape: tuple[int, int, int, int], kernel: Pair, how: Geometry, bias: Array | None = None
) -> Array:
    """One launch for columns in C order. The image has its channels last in memory."""
    n, c, h, w = shape
    struct, _ = _windows(tuple(shape), kernel, how)
    dtype = columns.dtype
    image = empty(cupy, shape, dtype, fused.LAST)
    width = _power_of_two(c, 32)
    height = THREADS // width
    _launch(
        "col2im", dtype, (_blocks(n * h * w, height),), (width, height),
        (cupy.ascontiguousarray(columns), _vector(bias, dtype), image, struct, n * h * w),
    )  # fmt: skip
    return image


# ----------------------------------------------------------------------- optimisers, moving averages


def _sixteens(kind: np.dtype, sizes: Sequence[int], **fields: Sequence[int]) -> Iterator[tuple[Any, int]]:
    """For each launch: the struct that tells of its pieces, and how many blocks it takes.

    Empty pieces are left out. fields: what the struct says of each piece, beside its size.
    """
    which = [k for k, size in enumerate(sizes) if size > 0]
    for start in range(0, len(which), 16):
        chosen = which[start : start + 16]
        struct, n = np.zeros(1, kind), len(chosen)
        for name, values in (*fields.items(), ("size", sizes)):
            struct[name][0, :n] = [values[k] for k in chosen]
        together = list(itertools.accumulate(_blocks(sizes[k], PIECE_BLOCK) for k in chosen))
        struct["blocks"][0, :n] = together
        yield struct, together[-1]


@_for_floats(0, 1, 2)
def adam(
    p: Array, m: Array, v: Array, gradients: Sequence[Piece], step: int | Array, lr: float, beta1: float,
    beta2: float, eps: float, weight_decay: float = 0.0, decoupled: bool = False,
) -> None:  # fmt: skip
    """One launch for each sixteen pieces."""
    decay, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    numbers = tuple(float(number) for number in (lr, beta1, beta2, eps, decay, shrink))
    slopes = [cupy.ascontiguousarray(g, p.dtype) for _, g in gradients]
    sizes, starts = [g.size for g in slopes], [start for start, _ in gradients]
    for struct, blocks in _sixteens(GRADIENTS, sizes, g=[_address(g) for g in slopes], start=starts):
        _launch("adam", p.dtype, (blocks,), (THREADS,), (p, m, v, struct, *_number(step), *numbers))


def averages(kept: Sequence[Array], new: Sequence[Array], decay: float) -> None:
    """One launch for each sixteen pairs, if they are all of float32 or all of float64."""
    if not _alike([*kept, *new]):
        fused.averages(kept, new, decay)
        return
    sizes, there, new_ones = [a.size for a in kept], map(_address, kept), map(_address, new)
    for struct, blocks in _sixteens(PAIRS, sizes, kept=list(there), made=list(new_ones)):
        _launch("averages", kept[0].dtype, (blocks,), (THREADS,), (struct, float(1 - decay)))


# ----------------------------------------------------------------------------------- random numbers


def uniform(shape: tuple[int, ...], key: Key, like: Any) -> Array:
    """One launch; a thread for each eight numbers."""
    return _random("uniform", shape, key)


def normal(shape: tuple[int, ...], key: Key, like: Any) -> Array:
    """One launch; a thread for each eight numbers."""
    return _random("normal", shape, key)


def _random(name: str, shape: tuple[int, ...], key: Key) -> Array:
    out = cupy.empty(shape, np.float32)
    if out.size > 0:
        args = (out, int(key[0]), *_number(key[1]), out.size)
        _launch(name, out.dtype, (_blocks(math.prod(shape), 8 * THREADS),), (THREADS,), args)
    return out


def batch(data: Array, order: Array, turn: int | Array, count: int) -> Array:
    """One launch, for data of any dtype. The rows lie in memory as those of data do.

    For that, the first axis of data must be the slowest one in memory, without gaps; else the formula of
    fused.py computes. If turn lies on the device, rows beyond the end of `order` are zero.
    """
    number, on_device = _number(turn)
    rows = count if on_device is not None else max(0, min(count, order.size - number * count))
    out = cupy.empty_like(data, shape=(rows, *data.shape[1:]))
    if out.size == 0:
        return out
    if not _same_steps_of_rows(data, out):
        return fused.batch(data, order, turn, count)
    width, name = out.nbytes // rows, "batch_bytes"
    if width % 4 == 0 and _address(data) % 4 == 0:
        width, name = width // 4, "batch_words"
    across = _power_of_two(width, THREADS)
    height = THREADS // across
    grid = (_blocks(rows, height), min(_blocks(width, across), 64))
    args = (
        data,
        cupy.ascontiguousarray(order, np.int64),
        out,
        number,
        on_device,
        count,
        order.size,
        rows,
        width,
    )
    _launch(name, np.dtype(np.float32), grid, (across, height), args)
    return out


def _same_steps_of_rows(data: Array, out: Array) -> bool:
    """Whether rows of data lie in memory like those of out, one after the other."""
    same = lambda axis: data.shape[axis] == 1 or data.strides[axis] == out.strides[axis]
    return (len(data) == 1 or data.strides[0] == out.nbytes // len(out)) and all(
        same(axis) for axis in range(1, data.ndim)
    )
