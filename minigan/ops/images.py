"""What ops on images have in common: how sizes are written, and what is checked.

An image has four axes, (N, C, H, W): N batch, C channels, H height, W width. K is the kernel's.
"""

from __future__ import annotations

from ..kernels.geometry import Geometry, Pair
from ..tensor import Tensor
from .operands import whole

Size = int | tuple[int, int]


def check_rank(op: str, *xs: Tensor) -> None:
    for x in xs:
        if x.ndim != 4:
            raise ValueError(
                f"{op}: a Tensor of shape {x.shape}; images and weights have four axes: (N, C, H, W)"
            )


def check_fit(op: str, size: Pair, kernel: Pair, how: Geometry) -> None:
    after = how.size_after(size, kernel)
    if after[0] < 1 or after[1] < 1 or kernel[0] < 1 or kernel[1] < 1:
        raise ValueError(
            f"{op}: a kernel of size {kernel} with dilation {how.dilation} does not fit into an image of "
            f"size {size} with padding {how.padding}"
        )


def geometry(op: str, stride: Size, padding: Size, dilation: Size, groups: int) -> Geometry:
    return Geometry(
        pair(op, "stride", stride, least=1),
        pair(op, "padding", padding, least=0),
        pair(op, "dilation", dilation, least=1),
        whole(op, "groups", groups, least=1),
    )


def pair(op: str, what: str, value: Size, least: int) -> Pair:
    two = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(two) != 2:
        raise ValueError(f"{op}: {what}={value!r} must be one number, or two (vertical, horizontal)")
    return whole(op, what, two[0], least), whole(op, what, two[1], least)
