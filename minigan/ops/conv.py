"""Convolutions. Shapes: N batch, C channels in, O channels out, H height, W width, K kernel.

Convolution is linear in the image and linear in the weight, so its two gradients are linear maps of
ȳ. They form a triangle; the derivatives of each corner are the other two, and differentiating again
never leaves it:

    y = conv2d(x, w)            x̄ = conv_transpose2d(ȳ, w)      w̄ = conv2d_weight(x, ȳ)
    x = conv_transpose2d(y, w)  ȳ = conv2d(x̄, w)                w̄ = conv2d_weight(x̄, y)
    w = conv2d_weight(x, y)     x̄ = conv_transpose2d(y, w̄)      ȳ = conv2d(x, w̄)

The array code is in kernels/conv.py, that of conv_transpose2d (so the gradient of the image, too) in
kernels/conv_transpose.py, and all of it in a few lines each in kernels/simple.py. Weights have PyTorch's
layout: (O, C/groups, KH, KW) for conv2d; for conv_transpose2d the same array, so that C/groups are the
channels that come out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import conv as kernels
from ..kernels import conv_transpose
from ..kernels.geometry import Geometry, Pair
from ..kernels.norm import channel_sums
from ..tensor import Tensor, record, shortcut
from .elementwise import astype
from .images import Size, check_fit, check_rank, geometry, pair
from .operands import tensor, tensors
from .reduce import sum
from .shape import reshape

__all__ = [
    "conv1d", "conv1d_weight", "conv2d", "conv2d_weight", "conv_transpose1d", "conv_transpose2d",
]  # fmt: skip

# ------------------------------------------------------------------------------- the triangle


def _conv(x: Tensor, w: Tensor, how: Geometry, bias: Tensor | None = None) -> Tensor:
    size, kernel = x.shape[2:], w.shape[2:]
    return record(
        "conv2d",
        kernels.conv2d(x._data, w._data, how, None if bias is None else bias._data),
        (x, lambda g: _conv_transpose(g, w, how, size)),
        (w, lambda g: _conv_weight(x, g, how, kernel)),
        *_bias_edge(bias),
    )


def _conv_transpose(y: Tensor, w: Tensor, how: Geometry, size: Pair, bias: Tensor | None = None) -> Tensor:
    kernel = w.shape[2:]
    return record(
        "conv_transpose2d",
        conv_transpose.conv_transpose2d(y._data, w._data, how, size, None if bias is None else bias._data),
        (y, lambda g: _conv(g, w, how)),
        (w, lambda g: _conv_weight(g, y, how, kernel)),
        *_bias_edge(bias),
    )


def _bias_edge(bias: Tensor | None) -> list[Any]:
    """b̄ = Σ ȳ over images and places."""
    if bias is None:
        return []
    return [(bias, lambda g: shortcut(lambda: sum(g, (0, 2, 3)), lambda: channel_sums(g._data)))]


def _conv_weight(x: Tensor, y: Tensor, how: Geometry, kernel: Pair) -> Tensor:
    size = x.shape[2:]
    return record(
        "conv2d_weight",
        kernels.conv2d_weight(x._data, y._data, how, kernel),
        (x, lambda g: _conv_transpose(y, g, how, size)),
        (y, lambda g: _conv(x, g, how)),
    )


# ------------------------------------------------------------------------------ what users call


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """y[n, o, p] = Σ over c, k of weight[o, c, k] · x[n, c, p · stride - padding + k · dilation]

    With groups, channels and outputs are divided into groups, and c runs over those of o's own group.
    Shapes: x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,), y (N, O, OH, OW) with
    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1.
    """
    return _conv_checked("conv2d", x, weight, bias, stride, padding, dilation, groups)


def _conv_checked(
    op: str, x: Any, weight: Any, bias: Any, stride: Size, padding: Size, dilation: Size, groups: int
) -> Tensor:
    x, w, how = _prepare(op, x, weight, stride, padding, dilation, groups)
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(
            f"{op}: input of shape {x.shape} has {x.shape[1]} channels, but weight of shape {w.shape} "
            f"with groups={groups} works on {w.shape[1] * groups}"
        )
    check_fit(op, x.shape[2:], w.shape[2:], how)
    x, bias = _checked_bias(op, x, w, bias, w.shape[0])
    return _conv(x, w, how, bias)


def conv_transpose2d(
    y: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The adjoint of conv2d: each entry of y paints weight · entry into a larger image

    Shapes: y (N, O, OH, OW), weight (O, C/groups, KH, KW), bias (C,), result (N, C, H, W) with
    H = (OH - 1) stride - 2 padding + dilation (KH - 1) + 1 + output_padding. A strided convolution
    maps several H to one OH; output_padding says which of them is meant. (The arguments come in
    PyTorch's order, which is not that of conv2d.)
    """
    return _conv_transpose_checked(
        "conv_transpose2d", y, weight, bias, stride, padding, output_padding, groups, dilation
    )


def _conv_transpose_checked(
    op: str,
    y: Any,
    weight: Any,
    bias: Any,
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> Tensor:
    y, w, how = _prepare(op, y, weight, stride, padding, dilation, groups)
    if y.shape[1] != w.shape[0]:
        raise ValueError(
            f"{op}: input of shape {y.shape} has {y.shape[1]} channels, but weight of shape {w.shape} "
            f"works on {w.shape[0]} (its first axis)"
        )
    extra = pair(op, "output_padding", output_padding, least=0)
    if any(e >= s for e, s in zip(extra, how.stride, strict=True)):
        raise ValueError(
            f"{op}: output_padding {extra} must be smaller than the stride {how.stride}; "
            "conv2d would map an image with more rows to a larger output (use pad)"
        )
    height, width = how.size_before(y.shape[2:], w.shape[2:])
    size = (height + extra[0], width + extra[1])
    if size[0] < 1 or size[1] < 1:
        raise ValueError(
            f"{op}: padding {how.padding} leaves nothing of the image: size {size} from input of shape "
            f"{y.shape} and weight of shape {w.shape}"
        )
    y, bias = _checked_bias(op, y, w, bias, w.shape[1] * groups)
    return _conv_transpose(y, w, how, size, bias)


def conv2d_weight(
    x: Any,
    y: Any,
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """The adjoint of conv2d in its weight: w[o, c, k] = Σ over n, p of y[n, o, p] · x[n, c, k at p]

    Shapes: x (N, C, H, W), y (N, O, OH, OW) as conv2d makes it from x, result (O, C/groups, KH, KW).
    """
    return _conv_weight_checked("conv2d_weight", x, y, kernel, stride, padding, dilation, groups)


def _conv_weight_checked(
    op: str, x: Any, y: Any, kernel: Size, stride: Size, padding: Size, dilation: Size, groups: int
) -> Tensor:
    x, y = tensors(op, x, y)
    check_rank(op, x, y)
    how, size = geometry(op, stride, padding, dilation, groups), pair(op, "kernel", kernel, least=1)
    if x.shape[1] % groups or y.shape[1] % groups:
        raise ValueError(f"{op}: groups={groups} must divide the channels of {x.shape} and {y.shape}")
    check_fit(op, x.shape[2:], size, how)
    expected = (x.shape[0], y.shape[1], *how.size_after(x.shape[2:], size))
    if y.shape != expected:
        raise ValueError(
            f"{op}: from x of shape {x.shape} a {size} kernel makes shape {expected}, not {y.shape}"
        )
    return _conv_weight(x, y, how, size)


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """conv2d on images one pixel high. Shapes: x (N, C, L), weight (O, C/groups, K), y (N, O, OL)."""
    x, w = _flat("conv1d", x, weight)
    y = _conv_checked("conv1d", x, w, bias, (1, stride), (0, padding), (1, dilation), groups)
    return reshape(y, y.shape[0], y.shape[1], y.shape[3])


def conv_transpose1d(
    y: Any,
    weight: Any,
    bias: Any = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Tensor:
    """conv_transpose2d on images one pixel high. Shapes: y (N, O, OL), weight (O, C/groups, K)."""
    y, w = _flat("conv_transpose1d", y, weight)
    x = _conv_transpose_checked(
        "conv_transpose1d", y, w, bias, (1, stride), (0, padding), (0, output_padding), groups, (1, dilation)
    )
    return reshape(x, x.shape[0], x.shape[1], x.shape[3])


def conv1d_weight(
    x: Any,
    y: Any,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """conv2d_weight on images one pixel high. Shapes: x (N, C, L), y (N, O, OL)."""
    x, y = _flat("conv1d_weight", x, y)
    w = _conv_weight_checked(
        "conv1d_weight", x, y, (1, kernel), (1, stride), (0, padding), (1, dilation), groups
    )
    return reshape(w, w.shape[0], w.shape[1], w.shape[3])


# ------------------------------------------------------------------------- checks on the way in


def _prepare(op: str, x: Any, w: Any, stride: Size, padding: Size, dilation: Size, groups: int) -> Any:
    x, w = tensors(op, x, w)
    check_rank(op, x, w)
    how = geometry(op, stride, padding, dilation, groups)
    if w.shape[0] % groups:
        raise ValueError(f"{op}: groups={groups} must divide the first axis of weight {w.shape}")
    return x, w, how


def _flat(op: str, x: Any, w: Any) -> tuple[Tensor, Tensor]:
    x, w = tensors(op, x, w)
    if x.ndim != 3 or w.ndim != 3:
        raise ValueError(
            f"{op}: shapes {x.shape} and {w.shape}; both must have three axes: (N, C, L) for images, "
            "(O, C/groups, K) for a weight"
        )
    return tuple(reshape(t, t.shape[0], t.shape[1], 1, t.shape[2]) for t in (x, w))  # type: ignore[return-value]


def _checked_bias(op: str, x: Tensor, w: Tensor, bias: Any, channels: int) -> tuple[Tensor, Any]:
    """x and bias in the precision of the result."""
    if bias is None:
        return x, None
    bias = tensor(bias, op, like=x)
    if bias.shape != (channels,):
        raise ValueError(f"{op}: bias of shape {bias.shape} for {channels} output channels")
    dtype = np.result_type(x.dtype, w.dtype, bias.dtype)
    x, bias = (t if t.dtype == dtype else astype(t, dtype) for t in (x, bias))
    return x, bias
