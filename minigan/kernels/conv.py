"""Convolution on bare arrays, fast. What is computed, in a few lines each, is in simple.py.

All three kernels make a matrix product of it. In memory the channels of a pixel lie side by side
("channels last": N H W C), whatever the shape says: the arrays returned here have the *shape* (N, C, H, W),
as views of such memory, and elementwise ops keep it. So what a kernel sees is copied in long runs, and

    Y = X W        X: a row for each place (N · OH · OW), a column for each entry of the kernel (KH · KW · C)
                   W: a row for each entry, a column for each filter (O)

    conv2d            Y = X W
    conv2d_weight     W̄ = Xᵀ Ȳ
    conv_transpose2d  X̄ = Ȳ Wᵀ, and each entry of X̄ is added to the pixel it was seen at. Mostly there is a
                      better way: the pixels fall into phases (with stride 2, those of even and of odd rows
                      and columns), and each phase is a small convolution of ȳ, which needs no adding up.

X is bigger than the images by the size of the kernel, so it is made for a block of images at a time, which
stays in the cache. With one or a few channels the runs are short, and X is better built entry by entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, xp_of
from .geometry import Geometry, Pair, add_windows, empty, windows
from .threads import split

BLOCK = 1 << 20  # bytes of X at a time, to stay in a second-level cache
LAST = (0, 2, 3, 1)  # the axes of an image in memory
FEW = 4  # up to so many channels, X is built entry by entry


# ------------------------------------------------------------------------------- the three kernels


def conv2d(x: Array, weight: Array, how: Geometry, bias: Array | None = None) -> Array:
    """y[n, o, p] = Σ over c, k of weight[o, c, k] · x[n, c, where kernel entry k is at place p] + bias[o]"""
    if how.groups > 1:
        alone = how._replace(groups=1)
        f = lambda x, w, b=None: conv2d(x, w, alone, b)
        return _by_group(how.groups, f, (x, 1), (weight, 0), (bias, 0))
    o, _, kh, kw = weight.shape
    oh, ow = how.size_after(x.shape[2:], (kh, kw))
    y = empty(xp_of(x), (len(x), o, oh, ow), np.result_type(x.dtype, weight.dtype), LAST)
    pixels, few = _pixels(y), x.shape[1] <= FEW
    matrix = _matrix(weight, few)

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
        return _by_group(how.groups, lambda x, y: conv2d_weight(x, y, alone, kernel), (x, 1), (y, 1), out=0)
    c, o = x.shape[1], y.shape[1]
    few = c <= FEW
    ȳ = _pixels(y)

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
    weight = empty(xp_of(x), (o, c, *kernel), np.result_type(x.dtype, y.dtype), memory)
    matrix = _matrix(weight, few)
    matrix[...] = parts[0] if parts else 0
    for part in parts[1:]:
        matrix += part
    return weight


def conv_transpose2d(y: Array, weight: Array, how: Geometry, size: Pair, bias: Array | None = None) -> Array:
    """The adjoint of conv2d in x: a transposed convolution. size: H, W of the image to make; bias (C,)."""
    if how.groups > 1:
        alone = how._replace(groups=1)
        f = lambda y, w, b=None: conv_transpose2d(y, w, alone, size, b)
        return _by_group(how.groups, f, (y, 1), (weight, 0), (bias, 0))
    places = y.shape[2] * y.shape[3] * how.stride[0] * how.stride[1]
    if weight.shape[1] <= FEW or size[0] * size[1] > 1.5 * places:
        return _by_adding_up(y, weight, how, size, bias)
    return _by_phases(y, weight, how, size, bias)


# ------------------------------------------------------------------------------------ the matrices


def _matrix(weight: Array, few: bool) -> Array:
    """W, of shape (KH · KW · C, O), or (C · KH · KW, O) for few channels.

    A view if the weight lies like that in memory. The weights that conv2d_weight makes do.
    """
    return weight.transpose((1, 2, 3, 0) if few else (2, 3, 1, 0)).reshape(-1, weight.shape[0])


def _pixels(x: Array) -> Array:
    """(N, C, H, W) → (N · H · W, C), a view if the channels are last in memory."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def _seen(
    x: Array, lo: int, hi: int, kernel: Pair, how: Geometry, few: bool = False
) -> Iterator[tuple[slice, Array]]:
    """X for the images from lo to hi, block by block: (which rows, those rows)."""
    oh, ow = how.size_after(x.shape[2:], kernel)
    c, (kh, kw) = x.shape[1], kernel
    if kernel == how.stride == (1, 1) and how.padding == (0, 0):
        yield slice(lo * oh * ow, hi * oh * ow), _pixels(x[lo:hi])  # each place sees its own pixel
        return
    block = _block(x, oh * ow * kh * kw * c * x.itemsize, hi - lo)
    pad = _padding(x, block, how.padding, few)
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


def _block(x: Array, bytes_of_one: int, n: int) -> int:
    """How many images to take at a time."""
    if not isinstance(x, np.ndarray):
        return max(n, 1)  # a GPU wants all the work at once
    return max(1, min(n, BLOCK // max(bytes_of_one, 1)))


def _padding(x: Array, n: int, padding: Pair, few: bool = False) -> Callable[[Array], Array]:
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


def _by_group(groups: int, f: Callable[..., Array], *operands: tuple[Any, int], out: int = 1) -> Array:
    """f for each group of channels by itself. Each operand comes with the axis along which to divide it."""
    split_up = [xp_of(a).split(a, groups, axis) for a, axis in operands if a is not None]
    return xp_of(operands[0][0]).concatenate([f(*parts) for parts in zip(*split_up, strict=True)], axis=out)


# ------------------------------------------------------------------------- transposed convolution


def _by_adding_up(y: Array, weight: Array, how: Geometry, size: Pair, bias: Array | None) -> Array:
    """X̄ = Ȳ Wᵀ, and each of its entries is added to the pixel it was seen at."""
    xp = xp_of(y)
    (ph, pw), (height, width), (oh, ow) = how.padding, size, y.shape[2:]
    c, kh, kw = weight.shape[1:]
    few = c <= FEW
    matrix, ȳ = _matrix(weight, few), _pixels(y)
    dtype = np.result_type(y.dtype, weight.dtype)
    tall, broad = height + 2 * ph, width + 2 * pw
    if few:
        image = xp.zeros((c, y.shape[0], tall, broad), dtype).transpose(1, 0, 2, 3)
    else:
        image = xp.zeros((y.shape[0], tall, broad, c), dtype).transpose(0, 3, 1, 2)
    if bias is not None:
        image += bias.reshape(-1, 1, 1)

    def work(lo: int, hi: int) -> None:
        block = _block(y, oh * ow * kh * kw * c * dtype.itemsize, hi - lo)
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
    """

    start: int  # the first pixel
    pixels: int  # how many pixels
    entries: list[int]  # the i, from the last to the first, so that m - t rises
    spread: int  # from one t to the next
    first: int  # m - t for the first pixel and the first of `entries`: a place, perhaps outside
    border: int  # how far the places reach outside


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
            phases.append(_Phase(start, count, entries, spread, first, max(-first, last - places + 1, 0)))
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
    matrices = [[kernels[v.entries][:, h.entries].reshape(-1, c) for h in across] for v in down]
    most = max(
        (v.pixels * len(v.entries) * h.pixels * len(h.entries) for v in down for h in across), default=0
    )

    def work(lo: int, hi: int) -> None:
        block = _block(y, most * o * y.itemsize, hi - lo)
        pad = _padding(y, block, border)
        room = xp.empty(block * most * o, y.dtype)
        for at in range(lo, hi, block):
            wide = pad(y[at : min(at + block, hi)])
            for v, row in zip(down, matrices, strict=True):
                for h, matrix in zip(across, row, strict=True):
                    shape = (len(wide), v.pixels, h.pixels, len(v.entries), len(h.entries), o)
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
