"""Convolution on bare arrays, as one matrix product over unfolded windows (im2col).

Shapes: image (N, C, H, W), weight (O, C/G, KH, KW), result (N, O, OH, OW): N batch, C channels in,
O channels out, G groups, K kernel. P = OH · OW is the number of places the kernel is put.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, xp_of

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a kernel moves over an image, (vertical, horizontal) each."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def size_after(self, size: Pair, kernel: Pair) -> Pair:
        """OH, OW: how many places there are for a kernel in an image of H, W.

        From the padded length, what the (dilated) kernel covers is taken off; the rest is steps.
        """
        h, w = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return h, w

    def size_before(self, size: Pair, kernel: Pair) -> Pair:
        """H, W: the smallest image in which a kernel has OH, OW places."""
        h, w = (
            (n - 1) * s + d * (k - 1) + 1 - 2 * p
            for n, k, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return h, w


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """(N, C, H, W) → (N, C, KH, KW, OH, OW): what each kernel entry sees at each place. A view."""
    n, c, height, width = x.shape
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    oh, ow = Geometry(stride, (0, 0), dilation).size_after((height, width), kernel)
    at_n, at_c, at_h, at_w = x.strides
    return xp_of(x).lib.stride_tricks.as_strided(
        x, (n, c, kh, kw, oh, ow), (at_n, at_c, at_h * dh, at_w * dw, at_h * sh, at_w * sw)
    )


def add_windows(columns: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """(N, C, KH, KW, OH, OW) → (N, C, H, W): the adjoint of `windows`. Each value goes back to the
    pixel it was seen at, and what meets there is added."""
    n, c, kh, kw, oh, ow = columns.shape
    (sh, sw), (dh, dw) = stride, dilation
    image = xp_of(columns).zeros((n, c, *size), columns.dtype)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dh, j * dw
            image[:, :, top : top + sh * oh : sh, left : left + sw * ow : sw] += columns[:, :, i, j]
    return image


def conv2d(x: Array, weight: Array, how: Geometry) -> Array:
    """y[n, o, p] = Σ over c, k of weight[o, c, k] · x[n, c, where kernel entry k is at place p]

    With groups, c runs over the channels of o's own group.
    """
    n, c, height, width = x.shape
    o, _, kh, kw = weight.shape
    g, (oh, ow) = how.groups, how.size_after((height, width), (kh, kw))
    seen = windows(_padded(x, how.padding), (kh, kw), how.stride, how.dilation)
    columns = seen.reshape(n, g, c // g * kh * kw, oh * ow)
    return (weight.reshape(g, o // g, c // g * kh * kw) @ columns).reshape(n, o, oh, ow)


def conv_transpose2d(y: Array, weight: Array, how: Geometry, size: Pair) -> Array:
    """The adjoint of conv2d in x: a transposed convolution. size: H, W of the image to make."""
    n, o, oh, ow = y.shape
    _, c_of_group, kh, kw = weight.shape
    g, (ph, pw) = how.groups, how.padding
    matrix = weight.reshape(g, o // g, c_of_group * kh * kw).swapaxes(1, 2)
    columns = matrix @ y.reshape(n, g, o // g, oh * ow)
    columns = columns.reshape(n, g * c_of_group, kh, kw, oh, ow)
    height, width = size
    image = add_windows(columns, (height + 2 * ph, width + 2 * pw), how.stride, how.dilation)
    return image[:, :, ph : ph + height, pw : pw + width]


def conv2d_weight(x: Array, y: Array, how: Geometry, kernel: Pair) -> Array:
    """The adjoint of conv2d in the weight: what each kernel entry saw, times what came out there."""
    n, c = x.shape[:2]
    o, oh, ow = y.shape[1:]
    g, (kh, kw) = how.groups, kernel
    seen = windows(_padded(x, how.padding), kernel, how.stride, how.dilation)
    columns = seen.transpose(1, 2, 3, 0, 4, 5).reshape(g, c // g * kh * kw, n * oh * ow)
    rows = y.transpose(1, 0, 2, 3).reshape(g, o // g, n * oh * ow)
    return (rows @ columns.swapaxes(1, 2)).reshape(o, c // g, kh, kw)


def _padded(x: Array, padding: Pair) -> Array:
    """x with a border of zeros."""
    if padding == (0, 0):
        return x
    (n, c, height, width), (ph, pw) = x.shape, padding
    wide = xp_of(x).zeros((n, c, height + 2 * ph, width + 2 * pw), x.dtype)
    wide[:, :, ph : ph + height, pw : pw + width] = x
    return wide
