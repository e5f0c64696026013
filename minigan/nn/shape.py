"""Layers without parameters: other shapes, other sizes, and dropout.

Shapes: N batch, C channels, H W height and width of an image.
"""

from __future__ import annotations

import math
from typing import Any

from ..ops import pool
from ..ops.norm import dropout
from ..ops.operands import axis_of, number, tensor
from ..ops.shape import itself, reshape
from ..tensor import Tensor
from . import init
from .module import Layer

__all__ = ["AvgPool", "Dropout", "Flatten", "MaxPool", "Reshape", "Upsample"]

Size = int | tuple[int, int]


class Flatten(Layer):
    """y = x with the axes from start_dim to end_dim made one: (N, C, H, W) → (N, C · H · W)"""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "Flatten")
        first, last = (axis_of("Flatten", axis, x.ndim) for axis in (self.start_dim, self.end_dim))
        if first > last:
            raise ValueError(
                f"Flatten: start_dim={self.start_dim} comes after end_dim={self.end_dim} in shape {x.shape}"
            )
        # not -1, which is anybody's guess for an empty batch
        return reshape(x, *x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])

    def extra_repr(self) -> str:
        usual = (self.start_dim, self.end_dim) == (1, -1)
        return "" if usual else f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Reshape(Layer):
    """y = x in the shape (N, *shape): one length may be -1, for whatever is left

    >>> Reshape(1, 28, 28)([[0.0] * 784]).shape
    (1, 1, 28, 28)
    """

    def __init__(self, *shape: int):
        self.shape = shape

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "Reshape")
        if x.ndim == 0:
            raise ValueError("Reshape: a single number has no batch axis to keep")
        return reshape(x, x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.shape))


class Upsample(Layer):
    """y = each pixel repeated scale_factor × scale_factor times. Shapes: (N, C, H, W) → (N, C, s H, s W)"""

    def __init__(self, scale_factor: Size):
        self.scale_factor = scale_factor

    def forward(self, x: Any) -> Tensor:
        return pool.upsample(x, self.scale_factor)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"


class _Pool(Layer):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0):
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool(_Pool):
    """y = the mean of each window, the border's zeros counted. Shapes: (N, C, H, W) → (N, C, OH, OW)

    stride: as large as the window unless given, so that windows do not overlap.
    """

    def forward(self, x: Any) -> Tensor:
        return pool.avg_pool(x, self.kernel_size, self.stride, self.padding)


class MaxPool(_Pool):
    """y = the largest entry of each window. Shapes and stride as for AvgPool."""

    def forward(self, x: Any) -> Tensor:
        return pool.max_pool(x, self.kernel_size, self.stride, self.padding)


class Dropout(Layer):
    """In training, each entry becomes 0 with probability p, and the others are multiplied by 1 / (1 - p)

    So the expected value stays x. In evaluation mode y = x.
    """

    def __init__(self, p: float = 0.5, *, rng: Any):
        self.p = number("Dropout", "p", p)
        if not 0 <= self.p < 1:
            raise ValueError(f"Dropout: p={p} must be 0 or more and less than 1")
        self.rng = init.generator(rng, "Dropout")

    def forward(self, x: Any) -> Tensor:
        return dropout(x, self.p, self.rng) if self.training else itself(tensor(x, "Dropout"))

    def extra_repr(self) -> str:
        return f"p={self.p}"
