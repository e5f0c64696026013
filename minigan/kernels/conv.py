"""Convolution on bare arrays, fast. What is computed, in a few lines each, is in simple.py.

In memory the channels of a pixel lie side by side ("channels last": N H W C), whatever the shape says: the
arrays returned here have the *shape* (N, C, H, W), laid out like that, and elementwise ops keep it. So what
a kernel sees is copied in long runs, and the rest is a matrix product:

    conv2d            Y = X W       X: a row for each place (N · OH · OW), a column for each entry of the
    conv2d_weight     W̄ = Xᵀ Ȳ      kernel (KH · KW · C). W: a row for each entry, a column for each filter

X is bigger than the images by the size of the kernel, so it is made for a block of images at a time, which
stays in the cache. With one or a few channels the runs are short, and X is better built entry by entry. A GPU
makes all of X at once, in one launch.

The third corner of the triangle, the transposed convolution, is in conv_transpose.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import Array, xp_of
from .device import gpu_kernels
from .geometry import Geometry, Pair, empty, windows
from .linear import matmul
from .threads import split

BLOCK = 1 << 20  # bytes of X at a time, to stay in a second-level cache
LAST = (0, 2, 3, 1)  # the axes of an image in memory
FEW = 4  # up to so many channels, X is built entry by entry


# -------------------------------------------------------------------------------- the two kernels


def conv2d(x: Array, weight: Array, how: Geometry, bias: Array | None = None) -> Array:
    """y[n, o, p] = Σ over c, k of weight[o, c, k] · x[n, c, where kernel entry k is at place p] + bias[o]"""
    if how.groups > 1:
        alone = how._replace(groups=1)
        f = lambda x, w, b=None: conv2d(x, w, alone, b)
        return by_group(how.groups, f, (x, 1), (weight, 0), (bias, 0))
    o, _, kh, kw = weight.shape
    oh, ow = how.size_after(x.shape[2:], (kh, kw))
    y = empty(xp_of(x), (len(x), o, oh, ow), np.result_type(x.dtype, weight.dtype), LAST)
    pixels = pixels_of(y)
    if (gpu := gpu_kernels(x)) is not None:
        matmul(_all_seen(gpu, x, (kh, kw), how), matrix_of(weight, few=False), pixels)
        if bias is not None:
            pixels += bias
        return y
    few = are_few(x.shape[1])
    matrix = matrix_of(weight, few)

    def work(lo: int, hi: int) -> None:
        for rows, seen in _seen(x, lo, hi, (kh, kw), how, few):
            made = xp_of(x).matmul(seen, matrix, out=pixels[rows])
            if bias is not None:
                made += bias

    split(work, x.shape[0], x)
    return y


def conv2d_weight(x: Array, y: Array, how: Geometry, kernel: Pair) -> Array:
    """The adjoint of conv2d in the weight. kernel: KH, KW."""
    if how.groups > 1:
        alone = how._replace(groups=1)
        return by_group(how.groups, lambda x, y: conv2d_weight(x, y, alone, kernel), (x, 1), (y, 1), out=0)
    c, o = x.shape[1], y.shape[1]
    ȳ, dtype = pixels_of(y), np.result_type(x.dtype, y.dtype)
    if (gpu := gpu_kernels(x)) is not None:
        weight = empty(xp_of(x), (o, c, *kernel), dtype, (2, 3, 1, 0))
        matmul(_all_seen(gpu, x, kernel, how).T, ȳ, matrix_of(weight, few=False))
        return weight
    few = are_few(c)

    def work(lo: int, hi: int) -> Array:
        total = None
        for rows, seen in _seen(x, lo, hi, kernel, how, few):
            part = seen.T @ ȳ[rows]
            if total is None:
                total = part
            else:
                total += part
        return total

    parts = [part for part in split(work, x.shape[0], x) if part is not None]
    memory = (1, 2, 3, 0) if few else (2, 3, 1, 0)  # so that its matrix is a view of it
    weight = empty(xp_of(x), (o, c, *kernel), dtype, memory)
    matrix = matrix_of(weight, few)
    matrix[...] = parts[0] if parts else 0
    for part in parts[1:]:
        matrix += part
    return weight


# ------------------------------------------------------------------------------------ the matrices


def are_few(channels: int) -> bool:
    """Whether X is better built entry by entry: the runs of channels are short."""
    return channels <= FEW


def matrix_of(weight: Array, few: bool) -> Array:
    """W, of shape (KH · KW · C, O), or (C · KH · KW, O) for few channels.

    A view if the weight lies like that in memory. The weights that conv2d_weight makes do.
    """
    return weight.transpose((1, 2, 3, 0) if few else (2, 3, 1, 0)).reshape(-1, weight.shape[0])


def pixels_of(x: Array) -> Array:
    """(N, C, H, W) → (N · H · W, C), a view if the channels are last in memory."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def _all_seen(gpu: Any, x: Array, kernel: Pair, how: Geometry) -> Array:
    """X for all images, on a GPU."""
    pointwise = kernel == how.stride == (1, 1) and how.padding == (0, 0)
    return pixels_of(x) if pointwise else gpu.im2col(x, kernel, how)


def _seen(
    x: Array, lo: int, hi: int, kernel: Pair, how: Geometry, few: bool = False
) -> Iterator[tuple[slice, Array]]:
    """X for the images from lo to hi, block by block: (which rows, those rows)."""
    oh, ow = how.size_after(x.shape[2:], kernel)
    c, (kh, kw) = x.shape[1], kernel
    if kernel == how.stride == (1, 1) and how.padding == (0, 0):
        yield slice(lo * oh * ow, hi * oh * ow), pixels_of(x[lo:hi])  # each place sees its own pixel
        return
    block = images_at_a_time(oh * ow * kh * kw * c * x.itemsize, hi - lo)
    pad = padder(x, block, how.padding, few)
    xp = xp_of(x)
    if few:
        room = xp.empty(block * oh * ow * kh * kw * c, x.dtype)
    else:
        room = xp.empty((block * oh * ow, kh * kw * c), x.dtype)
    for start in range(lo, hi, block):
        stop = min(start + block, hi)
        n, wide = stop - start, pad(x[start:stop])
        seen = windows(wide, kernel, how.stride, how.dilation)  # (N, C, KH, KW, OH, OW)
        if few:
            flat = room[: n * oh * ow * kh * kw * c]
            flat.reshape(c, kh, kw, n, oh, ow)[...] = seen.transpose(1, 2, 3, 0, 4, 5)
            rows = flat.reshape(c * kh * kw, n * oh * ow).T
        else:
            rows = room[: n * oh * ow]
            rows.reshape(n, oh, ow, kh, kw, c)[...] = seen.transpose(0, 4, 5, 2, 3, 1)
        yield slice(start * oh * ow, stop * oh * ow), rows


def images_at_a_time(bytes_of_one: int, n: int) -> int:
    """How many images to take at a time."""
    return max(1, min(n, BLOCK // max(bytes_of_one, 1)))


def padder(x: Array, n: int, padding: Pair, few: bool = False) -> Callable[[Array], Array]:
    """A function that puts a border of zeros around up to n images, in memory that it uses again."""
    (ph, pw), (_, c, height, width) = padding, x.shape
    if padding == (0, 0):
        return lambda images: images
    if few:  # channels first
        wide = xp_of(x).zeros((c, n, height + 2 * ph, width + 2 * pw), x.dtype).transpose(1, 0, 2, 3)
    else:
        wide = xp_of(x).zeros((n, height + 2 * ph, width + 2 * pw, c), x.dtype).transpose(0, 3, 1, 2)

    def pad(images: Array) -> Array:
        wide[: len(images), :, ph : ph + height, pw : pw + width] = images
        return wide[: len(images)]

    return pad


def by_group(groups: int, f: Callable[..., Array], *operands: tuple[Any, int], out: int = 1) -> Array:
    """f for each group of channels by itself. Each operand comes with the axis along which to divide it."""
    split_up = [xp_of(a).split(a, groups, axis) for a, axis in operands if a is not None]
    return xp_of(operands[0][0]).concatenate([f(*parts) for parts in zip(*split_up, strict=True)], axis=out)
