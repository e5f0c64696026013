"""The slow, obvious twin of each kernel: what it computes, in a few lines. The tests hold kernels to these.

Shapes: image x (N, C, H, W), weight (O, C/G, KH, KW), result y (N, O, OH, OW).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backend import Array, xp_of
from .geometry import Geometry, Pair


def conv2d(x: Array, weight: Array, how: Geometry, bias: Array | None = None) -> Array:
    """y[n, o, p] = Σ over c, k of weight[o, c, k] · x[n, c, where kernel entry k is at place p]"""
    size = how.size_after(x.shape[2:], weight.shape[2:])
    y = xp_of(x).zeros((x.shape[0], weight.shape[0], *size), np.result_type(x.dtype, weight.dtype))
    wide = _padded(x, how.padding)
    for outs, ins in _groups(weight.shape[0], x.shape[1], how.groups):
        for i, j, rows, columns in _kernel_entries(weight.shape[2:], size, how):
            seen = wide[:, ins, rows, columns]  # (N, C/G, OH, OW): what entry (i, j) sees
            y[:, outs] += xp_of(x).einsum("ncpq,oc->nopq", seen, weight[outs, :, i, j])
    return y if bias is None else y + _per_channel(bias, y)


def conv_transpose2d(y: Array, weight: Array, how: Geometry, size: Pair, bias: Array | None = None) -> Array:
    """The adjoint of conv2d in x: what y owes to a pixel goes back to that pixel. size: H, W."""
    (ph, pw), (height, width) = how.padding, size
    channels = weight.shape[1] * how.groups
    dtype = np.result_type(y.dtype, weight.dtype)
    wide = xp_of(y).zeros((y.shape[0], channels, height + 2 * ph, width + 2 * pw), dtype)
    for outs, ins in _groups(weight.shape[0], channels, how.groups):
        for i, j, rows, columns in _kernel_entries(weight.shape[2:], y.shape[2:], how):
            owed = xp_of(y).einsum("nopq,oc->ncpq", y[:, outs], weight[outs, :, i, j])
            wide[:, ins, rows, columns] += owed
    x = wide[:, :, ph : ph + height, pw : pw + width]
    return x if bias is None else x + _per_channel(bias, x)


def conv2d_weight(x: Array, y: Array, how: Geometry, kernel: Pair) -> Array:
    """The adjoint of conv2d in the weight: what a kernel entry saw, times what came out there."""
    dtype = np.result_type(x.dtype, y.dtype)
    weight = xp_of(x).empty((y.shape[1], x.shape[1] // how.groups, *kernel), dtype)
    wide = _padded(x, how.padding)
    for outs, ins in _groups(y.shape[1], x.shape[1], how.groups):
        for i, j, rows, columns in _kernel_entries(kernel, y.shape[2:], how):
            seen = wide[:, ins, rows, columns]
            weight[outs, :, i, j] = xp_of(x).einsum("nopq,ncpq->oc", y[:, outs], seen)
    return weight


def _kernel_entries(kernel: Pair, size: Pair, how: Geometry) -> Iterator[tuple[int, int, slice, slice]]:
    """i, j of each kernel entry, and the rows and columns of the padded image that it sees."""
    (sh, sw), (dh, dw), (oh, ow) = how.stride, how.dilation, size
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dh, j * dw
            yield i, j, slice(top, top + sh * oh, sh), slice(left, left + sw * ow, sw)


def _groups(outputs: int, inputs: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """The channels of each group: those that come out, and those that go in."""
    o, c = outputs // groups, inputs // groups
    for g in range(groups):
        yield slice(g * o, (g + 1) * o), slice(g * c, (g + 1) * c)


def _padded(x: Array, padding: Pair) -> Array:
    """x with a border of zeros."""
    (n, c, height, width), (ph, pw) = x.shape, padding
    wide = xp_of(x).zeros((n, c, height + 2 * ph, width + 2 * pw), x.dtype)
    wide[:, :, ph : ph + height, pw : pw + width] = x
    return wide


# ------------------------------------------------------------------------------ batch normalisation


def channels_last(x: Array) -> Array:
    """x: here the order in memory makes no difference."""
    return x


def statistics(x: Array) -> tuple[Array, Array]:
    """μ and σ² of each channel: over all axes but the second."""
    axes = (0, *range(2, x.ndim))
    mu = x.mean(axis=axes)
    off = x - _per_channel(mu, x)
    return mu, (off * off).mean(axis=axes)


def affine(x: Array, mu: Array, scale: Array, shift: Array | None) -> Array:
    """y = (x - μ) · scale + shift, where each is one number per channel."""
    y = (x - _per_channel(mu, x)) * _per_channel(scale, x)
    return y if shift is None else y + _per_channel(shift, x)


def channel_sums(g: Array) -> Array:
    """For each channel, Σ g."""
    return g.sum(axis=(0, *range(2, g.ndim)))


def gradient_sums(g: Array, x: Array, mu: Array) -> tuple[Array, Array]:
    """For each channel, Σ g and Σ g (x - μ)."""
    axes = (0, *range(2, x.ndim))
    return g.sum(axis=axes), (g * (x - _per_channel(mu, x))).sum(axis=axes)


def combine(g: Array, x: Array, mu: Array, a: Array, b: Array, c: Array) -> Array:
    """a · g + b · (x - μ) + c, where a, b, c and μ are one number per channel."""
    mu, a, b, c = (_per_channel(v, x) for v in (mu, a, b, c))
    return a * g + b * (x - mu) + c


def _per_channel(v: Array, x: Array) -> Array:
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


# -------------------------------------------------------------------------------------- activations


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope · x."""
    return xp_of(x).where(x > 0, x, slope * x)


def leaky_relu_backward(g: Array, y: Array, slope: float) -> Array:
    """g where y > 0, else slope · g. With slope 0, y is relu's: 0 where y = 0, else g."""
    return xp_of(g).where(y > 0, g, slope * g) if slope else masked(g, y != 0)


def masked(g: Array, keep: Array) -> Array:
    """g where `keep` holds, else 0."""
    return xp_of(g).where(keep, g, g.dtype.type(0))


def relu(x: Array) -> Array:
    """x where x > 0, else 0."""
    return xp_of(x).maximum(x, 0)


def tanh(x: Array) -> Array:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)"""
    return xp_of(x).tanh(x)


def tanh_backward(g: Array, y: Array) -> Array:
    """g (1 - y²)"""
    return g * (1 - y * y)
