"""Layers that normalise: shift to mean 0 and scale to variance 1, then multiply by a weight, add a bias.

They differ in which values share a mean μ and a variance σ². Of an image batch (N, C, H, W):

    BatchNorm       all values of one channel: one μ for each C, so it mixes the images of a batch
    LayerNorm       all values of one image, if normalized_shape is (C, H, W): one μ for each N
    GroupNorm       a group of channels of one image
    InstanceNorm    one channel of one image
    PixelNorm       the channels of one pixel; no μ, only the length

BatchNorm is in batchnorm.py. The arithmetic, and why its derivative needs care, is in ops/norm.py.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import numpy as np

from ..ops.norm import batch_norm
from ..ops.operands import number, tensor, whole
from ..ops.reduce import mean
from ..ops.shape import reshape
from ..tensor import Tensor
from .module import Layer, parameter

__all__ = ["GroupNorm", "InstanceNorm", "LayerNorm", "PixelNorm"]


class Normaliser(Layer):
    """What these layers share: a weight γ that begins at 1 and a bias β that begins at 0, or neither."""

    normalises = True  # tells init.py that each entry of the weight multiplies one channel or value
    ranks: Container[int] = range(2, 65)  # how many axes an input may have
    axes = "(N, C, ...)"  # the same for messages
    eps: float
    weight: Tensor | None
    bias: Tensor | None

    def _begin(self, shape: tuple[int, ...], weight: bool, bias: bool, eps: float, dtype: Any) -> None:
        self.eps = number(type(self).__name__, "eps", eps)
        if self.eps < 0:
            raise ValueError(f"{type(self).__name__}: eps={eps} must not be negative")
        self.weight = parameter(np.ones(shape), "weight", dtype) if weight else None
        self.bias = parameter(np.zeros(shape), "bias", dtype) if bias else None

    def _checked(self, x: Any, channels: int | None = None) -> Tensor:
        """x as a Tensor, if it has the axes and the channels that this layer works on."""
        who = type(self).__name__
        x = tensor(x, who, like=self.weight)
        if x.ndim not in self.ranks:
            raise ValueError(f"{who}: input of shape {x.shape}; it must have axes {self.axes}")
        if channels is not None and x.shape[1] != channels:
            raise ValueError(f"{who}: input of shape {x.shape} has {x.shape[1]} channels, not {channels}")
        return x

    def _each(self, x: Tensor, parts: int) -> Tensor:
        """x cut into this many parts, in the order of its entries, each with mean 0 and variance 1."""
        if x.size == 0:
            return x * 1.0
        n = x.size // parts
        if n < 2:
            raise ValueError(
                f"{type(self).__name__}: input of shape {x.shape} leaves {n} values for a mean and a "
                "variance; there must be two or more"
            )
        return reshape(batch_norm(reshape(x, 1, parts, n), eps=self.eps), x.shape)

    def _affine(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """γ x + β, with γ and β in this shape"""
        gamma, beta = (
            t if t is None or t.shape == shape else reshape(t, shape) for t in (self.weight, self.bias)
        )
        y = x if gamma is None else x * gamma
        return y if beta is None else y + beta


class LayerNorm(Normaliser):
    """y = γ (x - μ) / √(σ² + ε) + β, with μ and σ² over the last axes, those of normalized_shape

    Shapes: x and y (..., *normalized_shape), weight γ and bias β normalized_shape (Ba et al. 2016).

    >>> LayerNorm(64)
    LayerNorm((64,), eps=1e-05)
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, *, dtype: Any = "float32",
    ):  # fmt: skip
        several = isinstance(normalized_shape, (tuple, list))
        lengths: Any = normalized_shape if several else (normalized_shape,)
        self.normalized_shape = tuple(whole("LayerNorm", "a length", n, least=1) for n in lengths)
        self._begin(self.normalized_shape, elementwise_affine, elementwise_affine and bias, eps, dtype)

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "LayerNorm", like=self.weight)
        last = len(self.normalized_shape)
        if x.shape[x.ndim - last :] != self.normalized_shape:
            raise ValueError(
                f"LayerNorm: input of shape {x.shape} does not end in {self.normalized_shape}, "
                "the normalized_shape"
            )
        return self._affine(self._each(x, math.prod(x.shape[: x.ndim - last])), self.normalized_shape)

    def extra_repr(self) -> str:
        without = ["elementwise_affine=False"] * (self.weight is None)
        without += ["bias=False"] * (self.weight is not None and self.bias is None)
        return ", ".join([str(self.normalized_shape), f"eps={self.eps}", *without])


class GroupNorm(Normaliser):
    """y = γ (x - μ) / √(σ² + ε) + β, with μ and σ² over a group of neighbouring channels of one image

    Shapes: x and y (N, C, ...), weight γ and bias β (C,), C = num_channels (Wu & He 2018).
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        *, dtype: Any = "float32",
    ):  # fmt: skip
        self.num_groups = whole("GroupNorm", "num_groups", num_groups, least=1)
        self.num_channels = whole("GroupNorm", "num_channels", num_channels, least=1)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: {num_channels} channels do not divide into {num_groups} groups")
        self._begin((num_channels,), affine, affine, eps, dtype)

    def forward(self, x: Any) -> Tensor:
        x = self._checked(x, self.num_channels)
        shape = (1, self.num_channels, *[1] * (x.ndim - 2))
        return self._affine(self._each(x, x.shape[0] * self.num_groups), shape)

    def extra_repr(self) -> str:
        words = [str(self.num_groups), str(self.num_channels), f"eps={self.eps}"]
        return ", ".join([*words, *["affine=False"] * (self.weight is None)])


class InstanceNorm(GroupNorm):
    """GroupNorm in which every channel is its own group; as in PyTorch, without γ and β unless affine=True

    Shapes: x and y (N, C, ...), C = num_features (Ulyanov et al. 2016). No running averages are kept.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = False, *, dtype: Any = "float32"):
        self.num_features = whole("InstanceNorm", "num_features", num_features, least=1)
        super().__init__(num_features, num_features, eps, affine, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}" + ", affine=True" * (self.weight is not None)


class PixelNorm(Normaliser):
    """y = x / √(mean over channels of x² + ε): every pixel a vector of length √C (Karras et al. 2018)

    Shapes: x and y (N, C, ...)
    """

    def __init__(self, eps: float = 1e-8):
        self._begin((), False, False, eps, None)

    def forward(self, x: Any) -> Tensor:
        x = self._checked(x)
        return x * (mean(x * x, axis=1, keepdims=True) + self.eps) ** -0.5

    def extra_repr(self) -> str:
        return f"eps={self.eps}"
