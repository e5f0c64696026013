"""Pooling: something of each window of an image. And making images larger or smaller by whole factors."""

from __future__ import annotations

from typing import Any

from ..backend import xp_of
from ..kernels.geometry import Geometry, Pair, add_windows, windows
from ..tensor import Tensor, record
from . import reduce
from .images import Size, check_fit, check_rank, geometry, pair
from .operands import tensor
from .shape import pad

__all__ = ["avg_pool", "fold", "max_pool", "sum_pool", "unfold", "upsample"]


def unfold(x: Any, kernel: Size, stride: Size = 1, dilation: Size = 1) -> Tensor:
    """(N, C, H, W) → (N, C, KH, KW, OH, OW): all the windows of an image        x̄ = fold(ȳ)"""
    x = tensor(x, "unfold")
    check_rank("unfold", x)
    how, kernel = geometry("unfold", stride, 0, dilation, 1), pair("unfold", "kernel", kernel, least=1)
    check_fit("unfold", x.shape[2:], kernel, how)
    return _unfold(x, kernel, how)


def fold(columns: Any, size: Size, stride: Size = 1, dilation: Size = 1) -> Tensor:
    """(N, C, KH, KW, OH, OW) → (N, C, H, W): add the windows up into an image of `size` (H, W)"""
    columns = tensor(columns, "fold")
    how, size = geometry("fold", stride, 0, dilation, 1), pair("fold", "size", size, least=1)
    if columns.ndim != 6 or how.size_after(size, columns.shape[2:4]) != columns.shape[4:]:
        raise ValueError(
            f"fold: windows of shape {columns.shape} are not those of an image of size {size} with "
            f"stride {how.stride} and dilation {how.dilation}; they must be (N, C, KH, KW, OH, OW)"
        )
    return _fold(columns, size, how)


def _unfold(x: Tensor, kernel: Pair, how: Geometry) -> Tensor:
    size = x.shape[2:]
    data = windows(x._data, kernel, how.stride, how.dilation)
    return record("unfold", data, (x, lambda g: _fold(g, size, how)))


def _fold(columns: Tensor, size: Pair, how: Geometry) -> Tensor:
    kernel = columns.shape[2:4]
    data = xp_of(columns._data).zeros((*columns.shape[:2], *size), columns.dtype)
    add_windows(columns._data, data, how.stride, how.dilation)
    return record("fold", data, (columns, lambda g: _unfold(g, kernel, how)))


def max_pool(x: Any, kernel: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """y = the largest entry of each window        ȳ goes to it; equal ones share it

    In PyTorch the first of equal ones takes all.
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
    check_rank(op, x)
    kernel = pair(op, "kernel", kernel, least=1)
    how = geometry(op, kernel if stride is None else stride, padding, 1, 1)
    ph, pw = how.padding
    if 2 * ph > kernel[0] or 2 * pw > kernel[1]:
        raise ValueError(
            f"{op}: padding {how.padding} is more than half the kernel {kernel}, so that some windows "
            "would see nothing but border"
        )
    check_fit(op, x.shape[2:], kernel, how)
    if how.padding != (0, 0):
        x = pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), border)
    return _unfold(x, kernel, how)


def upsample(x: Any, factor: Size) -> Tensor:
    """y = each pixel repeated factor × factor times        x̄ = sum_pool(ȳ)"""
    x = tensor(x, "upsample")
    check_rank("upsample", x)
    fh, fw = pair("upsample", "factor", factor, least=1)
    n, c, h, w = x.shape
    xp = xp_of(x._data)
    data = xp.broadcast_to(x._data[:, :, :, None, :, None], (n, c, h, fh, w, fw))
    return record("upsample", data.reshape(n, c, h * fh, w * fw), (x, lambda g: sum_pool(g, (fh, fw))))


def sum_pool(x: Any, factor: Size) -> Tensor:
    """y = the sum of each factor × factor block        x̄ = upsample(ȳ)"""
    x = tensor(x, "sum_pool")
    check_rank("sum_pool", x)
    fh, fw = pair("sum_pool", "factor", factor, least=1)
    n, c, h, w = x.shape
    if h % fh or w % fw:
        raise ValueError(f"sum_pool: an image of size {(h, w)} does not divide into blocks of {(fh, fw)}")
    data = x._data.reshape(n, c, h // fh, fh, w // fw, fw).sum(axis=(3, 5))
    return record("sum_pool", data, (x, lambda g: upsample(g, (fh, fw))))
