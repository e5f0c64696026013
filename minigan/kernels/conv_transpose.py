"""Transposed convolution on bare arrays, fast: the adjoint of conv2d in the image. Read conv.py first.

What is computed, in a few lines, is in simple.py: X̄ = Ȳ Wᵀ, and each entry of X̄ is added to the pixel that
it was seen at. Mostly there is a better way. The pixels fall into phases (with stride 2, those of even and of
odd rows and columns), and each phase is a small convolution of ȳ, in which nothing needs to be added up. On a
GPU each pixel collects what is its own, in one launch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..backend import Array, xp_of
from .conv import LAST, are_few, by_group, images_at_a_time, matrix_of, padder, pixels_of
from .device import gpu_kernels
from .geometry import Geometry, Pair, add_windows, empty, windows
from .linear import matmul
from .threads import split


def conv_transpose2d(y: Array, weight: Array, how: Geometry, size: Pair, bias: Array | None = None) -> Array:
    """The adjoint of conv2d in x: a transposed convolution. size: H, W of the image to make; bias (C,)."""
    if how.groups > 1:
        alone = how._replace(groups=1)
        f = lambda y, w, b=None: conv_transpose2d(y, w, alone, size, b)
        return by_group(how.groups, f, (y, 1), (weight, 0), (bias, 0))
    if (gpu := gpu_kernels(y, weight)) is not None:
        columns = matmul(pixels_of(y), matrix_of(weight, few=False).T)
        return gpu.col2im(columns, (len(y), weight.shape[1], *size), weight.shape[2:], how, bias)
    # By phases, each pixel of the image takes KH · KW / stride² products of channels, many of them with zeros
    # from outside ȳ if the image is much larger. Adding up takes as many for `places` pixels only, but then
    # its sums go through memory: it is the better way where the others have half as many products again.
    places = y.shape[2] * y.shape[3] * how.stride[0] * how.stride[1]
    if are_few(weight.shape[1]) or size[0] * size[1] > 1.5 * places:
        return _by_adding_up(y, weight, how, size, bias)
    return _by_phases(y, weight, how, size, bias)


def _by_adding_up(y: Array, weight: Array, how: Geometry, size: Pair, bias: Array | None) -> Array:
    """X̄ = Ȳ Wᵀ, and each of its entries is added to the pixel it was seen at."""
    xp = xp_of(y)
    (ph, pw), (height, width), (oh, ow) = how.padding, size, y.shape[2:]
    c, kh, kw = weight.shape[1:]
    few = are_few(c)
    matrix, ȳ = matrix_of(weight, few), pixels_of(y)
    dtype = np.result_type(y.dtype, weight.dtype)
    tall, broad = height + 2 * ph, width + 2 * pw
    if few:
        image = xp.zeros((c, y.shape[0], tall, broad), dtype).transpose(1, 0, 2, 3)
    else:
        image = xp.zeros((y.shape[0], tall, broad, c), dtype).transpose(0, 3, 1, 2)
    if bias is not None:
        image += bias.reshape(-1, 1, 1)

    def work(lo: int, hi: int) -> None:
        block = images_at_a_time(oh * ow * kh * kw * c * dtype.itemsize, hi - lo)
        for start in range(lo, hi, block):
            stop = min(start + block, hi)
            rows = ȳ[start * oh * ow : stop * oh * ow]
            if few:
                owed = (matrix @ rows.T).reshape(c, kh, kw, -1, oh, ow).transpose(3, 0, 1, 2, 4, 5)
            else:
                owed = (rows @ matrix.T).reshape(-1, oh, ow, kh, kw, c).transpose(0, 5, 3, 4, 1, 2)
            add_windows(owed, image[start:stop], how.stride, how.dilation)

    split(work, y.shape[0], y)
    return image[:, :, ph : ph + height, pw : pw + width]


class _Phase(NamedTuple):
    """Along one axis: the pixels h = start, start + stride, ... and the kernel entries that paint them.

    h + padding = r + stride · m, with the same remainder r for all of them. Entry i at place q paints the
    pixel h = q · stride + i · dilation - padding, so i takes part if i · dilation = r + stride · t for some
    t, and then q = m - t. Thus x̄[m] = Σ over t of w[t] ȳ[m - t]: a convolution, with the kernel turned round.

    With stride 2, padding 1, a kernel of 4 and 14 places, the image has 28 pixels. Those with r = 0 are
    1, 3 ... 27, with m = 1, 2 ... 14. Entries 2 and 0 take part (t = 1, 0): pixel 1 is painted by entry 2 at
    place 0 and by entry 0 at place 1; pixel 27 by entry 2 at place 13, while place 14 lies outside.
    """

    start: int  # the first pixel: 1
    pixels: int  # how many of them: 14
    entries: slice  # the i, from the last to the first, so that m - t rises: [2::-2]
    kernel: int  # how many i: 2
    spread: int  # from one t to the next: 1 (more if the kernel is dilated)
    first: int  # m - t for the first pixel and the first of `entries`, a place, perhaps outside: 0
    border: int  # how far the places reach outside: 1


def _phases(size: int, places: int, kernel: int, stride: int, padding: int, dilation: int) -> list[_Phase]:
    phases = []
    for r in range(stride):
        start = (r - padding) % stride
        count = len(range(start, size, stride))
        entries = [i for i in reversed(range(kernel)) if i * dilation % stride == r]
        if count and entries:
            m = (start + padding - r) // stride
            newest, oldest = (entries[i] * dilation // stride for i in (0, -1))  # largest and smallest t
            first, last = m - newest, m + count - 1 - oldest
            spread = dilation // math.gcd(dilation, stride)
            step = stride // math.gcd(dilation, stride)
            last_first = slice(entries[0], None if entries[-1] < step else entries[-1] - step, -step)
            border = max(-first, last - places + 1, 0)
            phases.append(_Phase(start, count, last_first, len(entries), spread, first, border))
    return phases


def _by_phases(y: Array, weight: Array, how: Geometry, size: Pair, bias: Array | None) -> Array:
    """Each phase of the image is a convolution of ȳ with its part of the kernel."""
    xp, (n, o), c = xp_of(y), y.shape[:2], weight.shape[1]
    dtype = np.result_type(y.dtype, weight.dtype)
    axes = zip(size, y.shape[2:], weight.shape[2:], how.stride, how.padding, how.dilation, strict=True)
    down, across = (_phases(*axis) for axis in axes)
    border = max((v.border for v in down), default=0), max((h.border for h in across), default=0)
    full = sum(v.pixels for v in down) * sum(h.pixels for h in across) == size[0] * size[1]
    image = empty(xp, (n, c, *size), dtype, LAST)
    pixels = image.transpose(0, 2, 3, 1)
    if not full:  # a stride may step over pixels
        pixels[...] = 0 if bias is None else bias
    kernels = weight.transpose(2, 3, 0, 1)
    matrices = [[kernels[v.entries, h.entries].reshape(-1, c) for h in across] for v in down]
    most = max((v.pixels * v.kernel * h.pixels * h.kernel for v in down for h in across), default=0)

    def work(lo: int, hi: int) -> None:
        block = images_at_a_time(most * o * y.itemsize, hi - lo)
        pad = padder(y, block, border)
        room = xp.empty(block * most * o, y.dtype)
        for at in range(lo, hi, block):
            wide = pad(y[at : min(at + block, hi)])
            for v, row in zip(down, matrices, strict=True):
                for h, matrix in zip(across, row, strict=True):
                    shape = (len(wide), v.pixels, h.pixels, v.kernel, h.kernel, o)
                    seen = wide[:, :, border[0] + v.first :, border[1] + h.first :]
                    seen = windows(seen, shape[3:5], (1, 1), (v.spread, h.spread))
                    seen = seen[:, :, :, :, : v.pixels, : h.pixels]
                    columns = room[: math.prod(shape)].reshape(shape)
                    columns[...] = seen.transpose(0, 4, 5, 2, 3, 1)
                    made = columns.reshape(-1, len(matrix)) @ matrix
                    if bias is not None:
                        made += bias
                    phase = (slice(v.start, None, how.stride[0]), slice(h.start, None, how.stride[1]))
                    pixels[at : at + len(wide), phase[0], phase[1]] = made.reshape(*shape[:3], c)

    split(work, n, y)
    return image
