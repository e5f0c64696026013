"""What a GPU computes with kernels of our own, for CuPy's arrays.

To start a kernel takes a GPU some microseconds, however small the arrays, and nearly all of the time of a
small network goes into that. So here is what occurs in every step and would take CuPy several launches. The
callers are the functions of the same names in kernels/, optim's in kernels/optim.py. Arrays come as
`gpu_kernels` (kernels/device.py) says: all of float32 or all of float64, not empty.

What works on each entry by itself is a formula for CuPy. The rest is in kernels.cu, in CUDA; it is compiled
when a kernel is first needed (CuPy keeps the result on disk for the next time). Those kernels want arrays in
a certain order in memory; one that lies otherwise is copied first, which is a launch more.
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
from ..kernels.conv import LAST
from ..kernels.geometry import Geometry, Pair, empty
from ..kernels.optim import Piece

try:
    import cupy
except ImportError:  # nobody has CuPy arrays, then; but tools that look at every file may look at this one
    cupy = None

# ------------------------------------------------------------------------- each entry by itself


def _formula(name: str, arguments: str, formula: str) -> Callable[..., Array]:
    """A function that computes y by a formula of C++: one launch, whatever the order in memory.

    arguments: T is the precision of the arrays. y lies in memory like x.
    """
    x = arguments.split(", ").index("T x")

    @functools.cache
    def kernel() -> Any:
        return cupy.ElementwiseKernel(arguments, "T y", f"y = {formula}", name)

    return lambda *args: kernel()(*args, cupy.empty_like(args[x]))


# A gradient whose slope is 0 is 0, even where it is infinite or NaN: it is chosen, not multiplied.
leaky_relu = _formula("leaky_relu", "T x, T slope", "x <= 0 ? (slope == 0 ? 0 : slope * x) : x")
leaky_relu_backward = _formula(
    "leaky_relu_backward", "T g, T x, T slope", "slope == 0 ? (x != 0 ? g : 0) : x > 0 ? g : slope * g"
)
masked = _formula("masked", "T x, bool keep", "keep ? x : 0")
tanh_backward = _formula("tanh_backward", "T g, T x", "g * (1 - x * x)")
softplus = _formula("softplus", "T x", "(x > 0 ? x : 0) + log1p(exp(-fabs(x)))")
sigmoid = _formula("sigmoid", "T x", "exp(x < 0 ? x : 0) / (1 + exp(-fabs(x)))")


@functools.cache
def _running_averages() -> Any:
    return cupy.ElementwiseKernel(
        "T mean, T var, T mu, T variance, float64 share, float64 correction",
        "T new_mean, T new_var",
        "new_mean = mean * T(1 - share) + mu * T(share);"
        "new_var = var * T(1 - share) + variance * T(correction) * T(share)",
        "running_averages",
    )


def running_averages(
    mean: Array, var: Array, mu: Array, variance: Array, share: float | Array, n: int
) -> tuple[Array, Array]:
    """One launch."""
    return _running_averages()(mean, var, mu, variance, share, n / (n - 1))


# -------------------------------------------------------------------- to start a kernel of kernels.cu

THREADS = 256  # of a block. This and the next one as in kernels.cu
PIECE_BLOCK = 1024
MANY = 512  # blocks that keep a GPU busy

# Rows that a thread of a channel kernel should have at least: in one that changes each, and in one that sums
# up. (Blocks that sum up have to meet afterwards: it is not worth it for little.)
APPLIED, SUMMED = 4, 16

# Structs of kernels.cu, which are passed by value. Addresses of arrays are whole numbers here.
WINDOWS = np.dtype([("numbers", "i4", 13)])
PIECES = np.dtype([(name, "u8", 16) for name in ("p", "g", "new", "m", "v", "count", "size", "blocks")])
PAIRS = np.dtype([(name, "u8", 16) for name in ("kept", "now", "size", "blocks")])


def _launch(name: str, dtype: np.dtype, grid: tuple[int, ...], block: tuple[int, ...], args: tuple) -> None:
    """Start a kernel of kernels.cu. grid: how many blocks. block: how many threads in each.

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


def _blocks(work: int, of_one: int) -> int:
    """How many blocks it takes, if one does so much."""
    return -(-work // of_one)


def _address(array: Array) -> int:
    """Where an array begins in the memory of the device."""
    return array.data.ptr


# ------------------------------------------------------------------------------------ order in memory


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
    """Counters for `is_last` in kernels.cu. They are zero whenever a kernel starts.

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


# ------------------------------------------------------------------------------ batch normalisation


def batch_norm(
    x: Array, gamma: Array | None, beta: Array | None, eps: float
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
    each = (x, mu, s, _vector(gamma, dtype), _vector(beta, dtype), y, n, c, share)
    _launch("batch_norm_apply", dtype, grid, block, each)
    return y, mu, variance, s


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


# -------------------------------------------------------------------------------------- convolution


@functools.lru_cache(maxsize=1024)
def _windows(shape: tuple[int, ...], kernel: Pair, how: Geometry) -> tuple[np.ndarray, int]:
    """The struct Windows, and how many places there are in all. shape: N, C, H, W."""
    n, c, h, w = shape
    oh, ow = how.size_after((h, w), kernel)
    numbers = (c, h, w, *kernel, oh, ow, *how.stride, *how.padding, *how.dilation)
    return np.array([(numbers,)], WINDOWS), n * oh * ow


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


def col2im(
    columns: Array, shape: tuple[int, int, int, int], kernel: Pair, how: Geometry, bias: Array | None = None
) -> Array:
    """One launch for columns in C order. The image has its channels last in memory."""
    n, c, h, w = shape
    struct, _ = _windows(tuple(shape), kernel, how)
    dtype = columns.dtype
    image = empty(cupy, shape, dtype, LAST)
    width = _power_of_two(c, 32)
    height = THREADS // width
    _launch(
        "col2im", dtype, (_blocks(n * h * w, height),), (width, height),
        (cupy.ascontiguousarray(columns), _vector(bias, dtype), image, struct, n * h * w),
    )  # fmt: skip
    return image


# ----------------------------------------------------------------------- optimisers, moving averages


def _sixteens(kind: np.dtype, rows: Sequence[Sequence[Array]]) -> Iterator[tuple[np.ndarray, int]]:
    """For each launch: the struct that tells of up to sixteen rows, and how many blocks it takes.

    A row has an array for each field of the struct, of one length (but a count has one entry), without gaps.
    """
    rows = [row for row in rows if row[0].size > 0]
    for start in range(0, len(rows), 16):
        chosen, struct = rows[start : start + 16], np.zeros(1, kind)
        for name, arrays in zip(kind.names or (), zip(*chosen, strict=True), strict=False):
            struct[name][0, : len(chosen)] = [_address(array) for array in arrays]
        together = list(itertools.accumulate(_blocks(row[0].size, PIECE_BLOCK) for row in chosen))
        struct["size"][0, : len(chosen)] = [row[0].size for row in chosen]
        struct["blocks"][0, : len(chosen)] = together
        yield struct, together[-1]


def adam(
    pieces: Sequence[Piece], lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    decoupled: bool,
) -> None:  # fmt: skip
    """One launch for each sixteen pieces."""
    decay, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    numbers = tuple(float(number) for number in (lr, beta1, beta2, eps, decay, shrink))
    rows = [(piece.p, piece.g, piece.new, *piece.kept, piece.count) for piece in pieces]
    dtype = pieces[0].p.dtype
    for struct, blocks in _sixteens(PIECES, rows):
        _launch("adam", dtype, (blocks,), (THREADS,), (struct, *numbers))


def averages(pairs: Sequence[tuple[Array, Array]], share: float | Array) -> None:
    """One launch for each sixteen pairs. share on the device: 0-d, float64."""
    on_device = isinstance(share, cupy.ndarray)
    number = (0.0, share) if on_device else (float(share), None)
    for struct, blocks in _sixteens(PAIRS, pairs):
        _launch("averages", pairs[0][0].dtype, (blocks,), (THREADS,), (struct, *number))


# ----------------------------------------------------------------------------------- random numbers

# Two numbers below 2⁶⁴: which purpose, and which position (a step). The position may also be a 0-d int64
# array on the device, looked up when the kernel runs.
Key = tuple[int, Any]


def uniform(shape: tuple[int, ...], key: Key) -> Array:
    """Numbers between 0 and 1, float32, that depend on nothing but the key. One launch.

    They come from Philox (Salmon et al. 2011), which makes 256 random bits of (key, counter), and are those
    of numpy.random.Generator(numpy.random.Philox(key=key)).random(shape, "float32").
    """
    return _random("uniform", shape, key)


def normal(shape: tuple[int, ...], key: Key) -> Array:
    """Numbers of N(0, 1), float32, that depend on nothing but the key. One launch.

    Box and Muller: of two uniform numbers u (above 0) and v they make two normal ones,

        √(-2 log u) cos(2π v)  and  √(-2 log u) sin(2π v)

    u and v are those of `uniform`, two by two, but u is larger by 2⁻²⁴.
    """
    return _random("normal", shape, key)


def _random(name: str, shape: tuple[int, ...], key: Key) -> Array:
    out, (purpose, position) = cupy.empty(shape, np.float32), key
    if out.size > 0:
        on_device = isinstance(position, cupy.ndarray)
        number = (0, position) if on_device else (int(position), None)
        args = (out, int(purpose), *number, out.size)
        _launch(name, out.dtype, (_blocks(math.prod(shape), 8 * THREADS),), (THREADS,), args)
    return out
