"""Activations on bare arrays, for arrays too large for the cache: piece by piece, over the threads of a team.

The formulas are those of simple.py, each a few passes over the array. Done for a piece at a time, all passes
but the first find it in the cache. A GPU has kernels of its own for them (device.py). Every function
returns a new array, in the memory order of what was computed forward: its own input, or for a gradient, y.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array, xp_of
from .device import gpu_kernels
from .threads import split

PIECE = 1 << 17  # entries: small enough for the cache, long enough that threads rarely meet at Python's lock
WORTH = 1 << 19  # entries that are worth a thread


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope · x."""
    xp, x = xp_of(x), _floats(x)
    if (gpu := gpu_kernels(x)) is not None:
        return gpu.leaky_relu(x, slope)
    larger = xp.minimum if slope > 1 else xp.maximum

    def piece(x: Array, y: Array) -> None:
        xp.multiply(x, slope, out=y)
        larger(x, y, out=y)

    return _by_pieces(piece, x)


def leaky_relu_backward(g: Array, y: Array, slope: float) -> Array:
    """g where y > 0, else slope · g. With slope 0, y is relu's: 0 where y = 0, else g.

    By arithmetic, since choosing on a random mask is slow. ∞ · 0 is NaN, so slope 0 works like `masked`.
    """
    xp = xp_of(g)
    if (gpu := gpu_kernels(g, y)) is not None:
        return gpu.leaky_relu_backward(g, y, slope)
    whole = _WHOLE.get(g.dtype.char)

    def piece(g: Array, y: Array, out: Array) -> None:
        xp.greater(y, 0, out=out, casting="unsafe")  # 1 or 0
        out *= 1 - slope
        out += slope
        out *= g

    def choose(g: Array, y: Array, out: Array) -> None:
        if whole is None:
            out[...] = masked(g, y != 0)
        else:
            bits = out.view(whole)
            xp.not_equal(y, 0, out=bits, casting="unsafe")  # 1 or 0
            bits *= g.view(whole)

    return _by_pieces(piece if slope else choose, g, y)


_WHOLE = {"e": "i2", "f": "i4", "d": "i8"}  # whole numbers of as many bits


def masked(g: Array, keep: Array) -> Array:
    """g where `keep` holds, else 0; the two broadcast.

    The bits of g, read as whole numbers, times 1 or 0: ten times as fast as `where` on a random mask, and
    unlike a product of floats it makes 0 of ∞ and NaN.
    """
    if type(g) is np.ndarray and (whole := _WHOLE.get(g.dtype.char)) is not None:
        return np.multiply(g.view(whole), keep).view(g.dtype)
    if g.shape == keep.shape and (gpu := gpu_kernels(g)) is not None:
        return gpu.masked(g, keep)
    return xp_of(g).where(keep, g, g.dtype.type(0))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    xp = xp_of(x)
    if (gpu := gpu_kernels(x)) is not None:
        return gpu.leaky_relu(x, 0.0)

    def piece(x: Array, y: Array) -> None:
        y[...] = 0
        xp.maximum(x, y, out=y)  # three times as fast as the larger of an array and a number

    return _by_pieces(piece, x)


def tanh(x: Array) -> Array:
    """tanh x."""
    xp, x = xp_of(x), _floats(x)
    return _by_pieces(lambda x, y: xp.tanh(x, out=y), x)


def tanh_backward(g: Array, y: Array) -> Array:
    """g (1 - y²)."""
    xp = xp_of(g)
    if (gpu := gpu_kernels(g, y)) is not None:
        return gpu.tanh_backward(g, y)

    def piece(g: Array, y: Array, out: Array) -> None:
        xp.multiply(y, y, out=out)
        xp.subtract(1, out, out=out)
        out *= g

    return _by_pieces(piece, g, y)


def softplus(x: Array) -> Array:
    """log(1 + eˣ), as max(x, 0) + log(1 + e^-|x|)."""
    if (gpu := gpu_kernels(x)) is not None:
        return gpu.softplus(x)
    xp = xp_of(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ), as e^min(x, 0) / (1 + e^-|x|)."""
    if (gpu := gpu_kernels(x)) is not None:
        return gpu.sigmoid(x)
    xp = xp_of(x)
    return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-xp.abs(x)))


def _floats(x: Array) -> Array:
    return x if x.dtype.kind == "f" else x.astype(float)


def _by_pieces(f: Callable[..., object], *arrays: Array) -> Array:
    """f(*pieces, out), piece after piece, for arrays of one shape. `out` is laid out like the last of them.

    (The last is what was computed forward; a gradient may come in another order, from a reshape.)
    """
    xp, last = xp_of(arrays[0]), arrays[-1]
    out = xp.empty_like(last, dtype=arrays[0].dtype)
    if last.size <= PIECE or type(last) is not np.ndarray:
        f(*arrays, out)
        return out
    everything = [*arrays, out]
    if all(a.strides == out.strides for a in arrays):  # one order in memory: as good as vectors
        axes = sorted(range(out.ndim), key=lambda i: -out.strides[i])
        everything = [a.transpose(axes).reshape(-1) for a in everything]
    n = len(everything[0])
    step = max(1, PIECE * n // last.size)

    def work(lo: int, hi: int) -> None:
        for start in range(lo, hi, step):
            f(*(a[start : min(start + step, hi)] for a in everything))

    split(work, n, last, least=max(1, WORTH * n // last.size))
    return out
