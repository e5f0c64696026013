"""Where a kernel is put on an image, and what it sees there.

Shapes: image (N, C, H, W), kernel (KH, KW). The kernel is put at OH · OW places. Pairs are (vertical,
horizontal).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import Array, xp_of

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a kernel moves over an image."""

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


def empty(xp: Any, shape: tuple[int, ...], dtype: Any, memory: tuple[int, ...]) -> Array:
    """An array whose axes lie in memory in the order `memory`, slowest first: (0, 2, 3, 1) is channels last.

    It owns its memory, as `empty_like` makes it. (The tape copies a gradient that is a view, to be safe.)
    """
    back = sorted(range(len(shape)), key=lambda axis: memory[axis])
    return xp.empty_like(xp.empty([shape[axis] for axis in memory], dtype).transpose(back))


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """(N, C, H, W) → (N, C, KH, KW, OH, OW): what each kernel entry sees at each place. A view.

    `[...]` gives it a base: CuPy's as_strided has none, and would pass for an array with memory of its own.
    """
    n, c, height, width = x.shape
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    oh, ow = Geometry(stride, (0, 0), dilation).size_after((height, width), kernel)
    at_n, at_c, at_h, at_w = x.strides
    return xp_of(x).lib.stride_tricks.as_strided(
        x, (n, c, kh, kw, oh, ow), (at_n, at_c, at_h * dh, at_w * dw, at_h * sh, at_w * sw)
    )[...]


def add_windows(columns: Array, image: Array, stride: Pair, dilation: Pair) -> None:
    """The adjoint of `windows`: each value of (N, C, KH, KW, OH, OW) is added to the pixel it was seen at."""
    _, _, kh, kw, oh, ow = columns.shape
    (sh, sw), (dh, dw) = stride, dilation
    for i in range(kh):
        for j in range(kw):
            top, left = i * dh, j * dw
            image[:, :, top : top + sh * oh : sh, left : left + sw * ow : sw] += columns[:, :, i, j]
