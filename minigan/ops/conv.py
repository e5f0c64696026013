"""Convolutions and pooling. Shapes: N batch, C channels in, O out, H height, W width, K kernel.

Convolution is linear in the image and linear in the weight, so its two gradients are linear maps of
ȳ. They form a triangle; the derivatives of each corner are the other two, and differentiating again
never leaves it:

    y = conv2d(x, w)            x̄ = conv_transpose2d(ȳ, w)      w̄ = conv2d_weight(x, ȳ)
    x = conv_transpose2d(y, w)  ȳ = conv2d(x̄, w)                w̄ = conv2d_weight(x̄, y)
    w = conv2d_weight(x, y)     x̄ = conv_transpose2d(y, w̄)      ȳ = conv2d(x, w̄)

The array code is in kernels/conv.py. Weights have PyTorch's layout: (O, C/groups, KH, KW) for conv2d;
for conv_transpose2d the same array, so that C/groups are the channels that come out.
"""

from __future__ import annotations

from typing import Any

from ..backend import xp_of
from ..kernels import conv as kernels
from ..kernels.conv import Geometry, Pair
from ..tensor import Tensor, record
from . import reduce
from .operands import tensor, tensors, whole
from .shape import pad, reshape

__all__ = [
    "avg_pool",
    "conv1d",
    "conv1d_weight",
    "conv2d",
    "conv2d_weight",
    "conv_transpose1d",
    "conv_transpose2d",
    "fold",
    "max_pool",
    "sum_pool",
    "unfold",
    "upsample",
]

Size = int | tuple[int, int]

# ------------------------------------------------------------------------------- the triangle


def _conv(x: Tensor, w: Tensor, how: Geometry) -> Tensor:
    size, kernel = x.shape[2:], w.shape[2:]
    return record(
        "conv2d",
        kernels.conv2d(x._data, w._data, how),
        (x, lambda g: _conv_transpose(g, w, how, size)),
        (w, lambda g: _conv_weight(x, g, how, kernel)),
    )


def _conv_transpose(y: Tensor, w: Tensor, how: Geometry, size: Pair) -> Tensor:
    kernel = w.shape[2:]
    return record(
        "conv_transpose2d",
        kernels.conv_transpose2d(y._data, w._data, how, size),
        (y, lambda g: _conv(g, w, how)),
        (w, lambda g: _conv_weight(g, y, how, kernel)),
    )


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
    _check_fit(op, x.shape[2:], w.shape[2:], how)
    return _with_bias(_conv(x, w, how), bias, op)


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
    extra = _pair(op, "output_padding", output_padding, least=0)
    if any(e >= s for e, s in zip(extra, how.stride, strict=True)):
        raise ValueError(
            f"{op}: output_padding {extra} must be smaller than the stride {how.stride}; "
            "more would only add rows that no kernel reaches (use pad)"
        )
    height, width = how.size_before(y.shape[2:], w.shape[2:])
    size = (height + extra[0], width + extra[1])
    if size[0] < 1 or size[1] < 1:
        raise ValueError(
            f"{op}: padding {how.padding} leaves nothing of the image: size {size} from input of shape "
            f"{y.shape} and weight of shape {w.shape}"
        )
    return _with_bias(_conv_transpose(y, w, how, size), bias, op)


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
    _check_rank(op, x, y)
    how, size = _geometry(op, stride, padding, dilation, groups), _pair(op, "kernel", kernel, least=1)
    if x.shape[1] % groups or y.shape[1] % groups:
        raise ValueError(f"{op}: groups={groups} must divide the channels of {x.shape} and {y.shape}")
    _check_fit(op, x.shape[2:], size, how)
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


# ------------------------------------------------------------------------------------ pooling


def unfold(x: Any, kernel: Size, stride: Size = 1, dilation: Size = 1) -> Tensor:
    """(N, C, H, W) → (N, C, KH, KW, OH, OW): all the windows of an image        x̄ = fold(ȳ)"""
    x = tensor(x, "unfold")
    _check_rank("unfold", x)
    how, kernel = _geometry("unfold", stride, 0, dilation, 1), _pair("unfold", "kernel", kernel, least=1)
    _check_fit("unfold", x.shape[2:], kernel, how)
    return _unfold(x, kernel, how)


def fold(windows: Any, size: Size, stride: Size = 1, dilation: Size = 1) -> Tensor:
    """(N, C, KH, KW, OH, OW) → (N, C, H, W): add the windows up into an image of `size` (H, W)"""
    windows = tensor(windows, "fold")
    how, size = _geometry("fold", stride, 0, dilation, 1), _pair("fold", "size", size, least=1)
    if windows.ndim != 6 or how.size_after(size, windows.shape[2:4]) != windows.shape[4:]:
        raise ValueError(
            f"fold: windows of shape {windows.shape} are not those of an image of size {size} with "
            f"stride {how.stride} and dilation {how.dilation}; they must be (N, C, KH, KW, OH, OW)"
        )
    return _fold(windows, size, how)


def _unfold(x: Tensor, kernel: Pair, how: Geometry) -> Tensor:
    size = x.shape[2:]
    data = kernels.windows(x._data, kernel, how.stride, how.dilation)
    return record("unfold", data, (x, lambda g: _fold(g, size, how)))


def _fold(windows: Tensor, size: Pair, how: Geometry) -> Tensor:
    kernel = windows.shape[2:4]
    data = kernels.add_windows(windows._data, size, how.stride, how.dilation)
    return record("fold", data, (windows, lambda g: _unfold(g, kernel, how)))


def max_pool(x: Any, kernel: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """y = the largest entry of each window        ȳ goes to it; equal ones share it

    Shapes: (N, C, H, W) → (N, C, OH, OW). stride: the kernel's size unless given.
    """
    return reduce.max(_pool_windows("max_pool", x, kernel, stride, padding, -float("inf")), axis=(2, 3))


def avg_pool(x: Any, kernel: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """y = the mean of each window, the border's zeros counted

    Shapes: (N, C, H, W) → (N, C, OH, OW). stride: the kernel's size unless given.
    """
    return reduce.mean(_pool_windows("avg_pool", x, kernel, stride, padding, 0.0), axis=(2, 3))


def _pool_windows(op: str, x: Any, kernel: Size, stride: Any, padding: Size, border: float) -> Tensor:
    x = tensor(x, op)
    _check_rank(op, x)
    kernel = _pair(op, "kernel", kernel, least=1)
    how = _geometry(op, kernel if stride is None else stride, padding, 1, 1)
    ph, pw = how.padding
    if 2 * ph > kernel[0] or 2 * pw > kernel[1]:
        raise ValueError(
            f"{op}: padding {how.padding} is more than half the kernel {kernel}, so that some windows "
            "would see nothing but border"
        )
    _check_fit(op, x.shape[2:], kernel, how)
    if how.padding != (0, 0):
        x = pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), border)
    return _unfold(x, kernel, how)


def upsample(x: Any, factor: Size) -> Tensor:
    """y = each pixel repeated factor × factor times        x̄ = sum_pool(ȳ)"""
    x = tensor(x, "upsample")
    _check_rank("upsample", x)
    fh, fw = _pair("upsample", "factor", factor, least=1)
    n, c, h, w = x.shape
    xp = xp_of(x._data)
    data = xp.broadcast_to(x._data[:, :, :, None, :, None], (n, c, h, fh, w, fw))
    return record("upsample", data.reshape(n, c, h * fh, w * fw), (x, lambda g: sum_pool(g, (fh, fw))))


def sum_pool(x: Any, factor: Size) -> Tensor:
    """y = the sum of each factor × factor block        x̄ = upsample(ȳ)"""
    x = tensor(x, "sum_pool")
    _check_rank("sum_pool", x)
    fh, fw = _pair("sum_pool", "factor", factor, least=1)
    n, c, h, w = x.shape
    if h % fh or w % fw:
        raise ValueError(f"sum_pool: an image of size {(h, w)} does not divide into blocks of {(fh, fw)}")
    data = x._data.reshape(n, c, h // fh, fh, w // fw, fw).sum(axis=(3, 5))
    return record("sum_pool", data, (x, lambda g: upsample(g, (fh, fw))))


# ------------------------------------------------------------------------- checks on the way in


def _prepare(op: str, x: Any, w: Any, stride: Size, padding: Size, dilation: Size, groups: int) -> Any:
    x, w = tensors(op, x, w)
    _check_rank(op, x, w)
    how = _geometry(op, stride, padding, dilation, groups)
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


def _check_rank(op: str, *xs: Tensor) -> None:
    for x in xs:
        if x.ndim != 4:
            raise ValueError(
                f"{op}: a Tensor of shape {x.shape}; images and weights have four axes: (N, C, H, W)"
            )


def _check_fit(op: str, size: Pair, kernel: Pair, how: Geometry) -> None:
    after = how.size_after(size, kernel)
    if after[0] < 1 or after[1] < 1 or kernel[0] < 1 or kernel[1] < 1:
        raise ValueError(
            f"{op}: a kernel of size {kernel} with dilation {how.dilation} does not fit into an image of "
            f"size {size} with padding {how.padding}"
        )


def _geometry(op: str, stride: Size, padding: Size, dilation: Size, groups: int) -> Geometry:
    return Geometry(
        _pair(op, "stride", stride, least=1),
        _pair(op, "padding", padding, least=0),
        _pair(op, "dilation", dilation, least=1),
        whole(op, "groups", groups, least=1),
    )


def _pair(op: str, what: str, value: Size, least: int) -> Pair:
    two = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(two) != 2:
        raise ValueError(f"{op}: {what}={value!r} must be one number, or two (vertical, horizontal)")
    return whole(op, what, two[0], least), whole(op, what, two[1], least)


def _with_bias(y: Tensor, bias: Any, op: str) -> Tensor:
    if bias is None:
        return y
    bias = tensor(bias, op, like=y)
    if bias.shape != y.shape[1:2]:
        raise ValueError(f"{op}: bias of shape {bias.shape} for {y.shape[1]} output channels")
    return y + reshape(bias, -1, 1, 1)
