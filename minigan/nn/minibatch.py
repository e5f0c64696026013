"""Layers that let a discriminator compare the samples of a batch, so that it notices if all look alike.

With them the logit of one sample depends on the others. So gradient penalties, which need the gradient of
each logit for its own sample alone, raise an error unless allow_mixing=True.
"""

from __future__ import annotations

from typing import Any

from ..ops.elementwise import abs, exp, sqrt
from ..ops.linear import linear
from ..ops.operands import tensor, whole
from ..ops.shape import broadcast_to, concat
from ..tensor import Tensor
from . import init
from .module import Layer, parameter

__all__ = ["MinibatchDiscrimination", "MinibatchStdDev"]

TINY = 1e-8  # keeps the slope of √ finite where all samples of a group are equal


class MinibatchStdDev(Layer):
    """How much the samples of a group differ, as an extra channel (Karras et al. 2018, StyleGAN's form)

        σ[c, p] = √(variance of x[n, c, p] over the samples n of a group + 1e-8)
        s = the mean of σ over channels c and places p        y = x with s as a further channel

    Shapes: x (N, C, H, W) or (N, C), y the same with C + `channels` channels. There are N / group_size
    groups, M of them, and sample n is in group n mod M. Where group_size does not divide N, a group has as
    many samples as the largest divisor of N up to group_size: N = 6 and group_size = 4 give 2 groups of 3,
    N = 7 gives 7 groups of 1, and these differ by nothing (s = 1e-4).

    channels: 1 makes a single mean. Otherwise x's channels are cut into so many equal parts, one mean each.

    >>> MinibatchStdDev()([[1.0, 5.0], [3.0, 5.0]])
    Tensor([[1.     , 5.     , 0.50005],
            [3.     , 5.     , 0.50005]], dtype=float64, backend=numpy)
    """

    mixes_images = True

    def __init__(self, group_size: int = 4, channels: int = 1):
        self.group_size = whole("MinibatchStdDev", "group_size", group_size, least=1)
        self.channels = whole("MinibatchStdDev", "channels", channels, least=1)

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "MinibatchStdDev")
        parts = self.channels
        if x.ndim < 2 or x.shape[1] == 0 or x.shape[1] % parts:
            raise ValueError(
                f"MinibatchStdDev: input of shape {x.shape}; it must be (N, C, H, W) or (N, C), "
                f"and channels={parts} must divide C"
            )
        n, c, *places = x.shape
        size = max(g for g in range(1, self.group_size + 1) if n % g == 0)
        groups = n // size
        grouped = x.reshape(size, groups, parts, c // parts, *places)
        sigma = sqrt(grouped.var(axis=0) + TINY)
        s = sigma.mean(axis=tuple(range(2, sigma.ndim)))  # (groups, parts)
        ones = (1,) * len(places)
        s = broadcast_to(s.reshape(1, groups, parts, *ones), (size, groups, parts, *places))
        return concat([x, s.reshape(n, parts, *places)], axis=1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, channels={self.channels}"


class MinibatchDiscrimination(Layer):
    """How near each sample is to the others, as extra features (Salimans et al. 2016)

        M = x · weightᵀ
        o[i, b] = Σ_j exp(-‖M[i, b] - M[j, b]‖₁)        y = x with o as further features

    Shapes: x (N, in), weight (out · K, in), M (N, out, K), o (N, out), y (N, in + out).

    The sum runs over all j, i itself included, as in the paper; that adds 1 to every o. (The authors' code
    leaves j = i out, and adds a bias that is learnt.) ‖·‖₁ has a tip where two samples are equal; its
    gradient there is 0. Memory grows with N² · out · K.

    >>> MinibatchDiscrimination(256, 50, 5, rng=0)
    MinibatchDiscrimination(256, 50, 5)
    """

    mixes_images = True

    def __init__(
        self, in_features: int, out_features: int, kernel_dims: int, *, rng: Any, dtype: Any = "float32"
    ):
        who = "MinibatchDiscrimination"
        rng = init.generator(rng, who)
        self.in_features = whole(who, "in_features", in_features, least=1)
        self.out_features = whole(who, "out_features", out_features, least=1)
        self.kernel_dims = whole(who, "kernel_dims", kernel_dims, least=1)
        shape = (out_features * kernel_dims, in_features)
        self.weight = parameter(init.torch_default(shape, rng), "weight", dtype)

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "MinibatchDiscrimination", like=self.weight)
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(
                f"MinibatchDiscrimination: input of shape {x.shape}; this layer works on "
                f"(N, {self.in_features}); flatten images first"
            )
        n, out, k = x.shape[0], self.out_features, self.kernel_dims
        m = linear(x, self.weight)
        distances = abs(m.reshape(n, 1, out, k) - m.reshape(1, n, out, k)).sum(axis=3)  # (N, N, out)
        return concat([x, exp(-distances).sum(axis=1)], axis=1)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kernel_dims}"
