"""Convolution layers: a weight, a bias, and the op. What it computes is in ops/conv.py.

The arguments come in PyTorch's order, which is not the same for a convolution and its transpose.
"""

from __future__ import annotations

import math
from typing import Any

from ..ops import conv as ops
from ..ops.operands import whole
from ..tensor import Tensor
from . import init
from .module import Layer, parameter

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]

Size = int | tuple[int, int]


class _Conv(Layer):
    """What the four layers share: settings, a weight of one kernel for each pair of channels, a bias."""

    axes: int  # 1 or 2: a signal or an image
    transposed = False
    in_channels: int
    out_channels: int
    kernel_size: Any
    stride: Any
    padding: Any
    output_padding: Any = 0
    dilation: Any
    groups: int
    weight: Tensor
    bias: Tensor | None

    def _build(self, rng: Any, dtype: Any, bias: bool, **settings: Any) -> None:
        vars(self).update(settings)
        who = type(self).__name__
        rng = init.generator(rng, who)
        for name, value in settings.items():
            least = 0 if name in ("padding", "output_padding") else 1
            for number in value if isinstance(value, (tuple, list)) else (value,):
                whole(who, name, number, least)
        c, o, groups = self.in_channels, self.out_channels, self.groups
        if c % groups or o % groups:
            raise ValueError(f"{who}: groups={groups} must divide both {c} and {o} channels")
        k = self.kernel_size
        self.kernel_size = tuple(k) if isinstance(k, (tuple, list)) else (k,) * self.axes
        if len(self.kernel_size) != self.axes:
            raise ValueError(f"{who}: kernel_size={k} must be one number, or {self.axes}")
        shape = (c, o // groups) if self.transposed else (o, c // groups)
        shape = (*shape, *self.kernel_size)
        # in memory, the numbers that meet in one matrix product are neighbours: see kernels/conv.py
        memory = (*range(2, len(shape)), 1, 0)
        self.weight = parameter(init.torch_default(shape, rng), "weight", dtype, memory)
        bound = 1 / math.sqrt(init.fans(shape)[0])
        self.bias = parameter(init.uniform((o,), bound, rng), "bias", dtype) if bias else None

    def extra_repr(self) -> str:
        words = [str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}"]
        usual = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
        for name, value in usual.items():
            if getattr(self, name) not in (value, (value,) * self.axes):
                words.append(f"{name}={getattr(self, name)}")
        return ", ".join([*words, *["bias=False"] * (self.bias is None)])


class Conv2d(_Conv):
    """y = x ⋆ weight + bias. Shapes: x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,)

    y (N, O, OH, OW), where OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1.

    >>> Conv2d(3, 64, 4, stride=2, padding=1, rng=0)
    Conv2d(3, 64, kernel_size=(4, 4), stride=2, padding=1)
    """

    axes = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, *, rng: Any, dtype: Any = "float32",
    ):  # fmt: skip
        self._build(
            rng, dtype, bias, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size,
            stride=stride, padding=padding, dilation=dilation, groups=groups,
        )  # fmt: skip

    def forward(self, x: Any) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(Conv2d):
    """Conv2d for signals. Shapes: x (N, C, L), weight (O, C/groups, K), bias (O,), y (N, O, OL)"""

    axes = 1

    def forward(self, x: Any) -> Tensor:
        return ops.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Conv):
    """The adjoint of a convolution. Shapes: x (N, C, H, W), weight (C, O/groups, KH, KW), bias (O,)

    (C goes in and O comes out, as in Conv2d; ops/conv.py reads the same letters backwards.)
    y (N, O, H', W'), where H' = (H - 1) stride - 2 padding + dilation (KH - 1) + 1 + output_padding.

    >>> ConvTranspose2d(100, 64, 4, stride=2, padding=1, rng=0)
    ConvTranspose2d(100, 64, kernel_size=(4, 4), stride=2, padding=1)
    """

    axes = 2
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
        output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1,
        *, rng: Any, dtype: Any = "float32",
    ):  # fmt: skip
        self._build(
            rng, dtype, bias, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size,
            stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation,
        )  # fmt: skip

    def forward(self, x: Any) -> Tensor:
        return ops.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups,
            self.dilation,
        )  # fmt: skip


class ConvTranspose1d(ConvTranspose2d):
    """ConvTranspose2d for signals. Shapes: x (N, C, L), weight (C, O/groups, K), bias (O,), y (N, O, L')"""

    axes = 1

    def forward(self, x: Any) -> Tensor:
        return ops.conv_transpose1d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups,
            self.dilation,
        )  # fmt: skip
