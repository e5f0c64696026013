"""Self-attention: every pixel looks at all the others."""

from __future__ import annotations

from typing import Any

from ..ops.linear import matmul
from ..ops.operands import tensor, whole
from ..ops.pool import max_pool
from ..ops.reduce import softmax
from ..tensor import Tensor
from . import init
from .conv import Conv2d
from .module import Layer, parameter

__all__ = ["SelfAttention"]


class SelfAttention(Layer):
    """y = γ · out(o) + x, where o is a mixture of all places of the image (SAGAN, Zhang et al. 2019)

        q, k, v = query(x), key(x), value(x)        # three 1×1 convolutions
        β[i, j] = softmax over j of Σ_c q[c, i] k[c, j]        # how much place i looks at place j
        o[c, i] = Σ_j β[i, j] v[c, j]

    Shapes: x and y (N, C, H, W); q and k have C/8 channels, v and o C/2, always at least one. P = H · W
    is the number of places i. With pool=True k and v are max-pooled 2×2, which leaves a quarter of the
    places j to look at; a last row or column that makes no pair is left out.

    γ is a parameter that begins at 0: at first the layer does nothing, and it learns to look around later.

    Paper and code of the authors differ. The paper has no pooling, and C/8 channels in v. The code has
    pooling, and C/2 channels in v. This is the code; pool=False comes closer to the paper. The convolutions
    have no bias, as in the code. There they are spectrally normalised, in G and in D; here you do that:

        for conv in layer.children():
            spectral_norm(conv, rng=rng)

    >>> SelfAttention(64, rng=0)
    SelfAttention(
      64
      (query): Conv2d(64, 8, kernel_size=(1, 1), bias=False)
      (key): Conv2d(64, 8, kernel_size=(1, 1), bias=False)
      (value): Conv2d(64, 32, kernel_size=(1, 1), bias=False)
      (out): Conv2d(32, 64, kernel_size=(1, 1), bias=False)
    )
    """

    def __init__(self, channels: int, pool: bool = True, *, rng: Any, dtype: Any = "float32"):
        rng = init.generator(rng, "SelfAttention")
        self.channels = channels = whole("SelfAttention", "channels", channels, least=1)
        self.pool = pool
        eighth, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query = Conv2d(channels, eighth, 1, bias=False, rng=rng, dtype=dtype)
        self.key = Conv2d(channels, eighth, 1, bias=False, rng=rng, dtype=dtype)
        self.value = Conv2d(channels, half, 1, bias=False, rng=rng, dtype=dtype)
        self.out = Conv2d(half, channels, 1, bias=False, rng=rng, dtype=dtype)
        self.gamma = parameter(0.0, "gamma", dtype)

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "SelfAttention", like=self.gamma)
        self._check(x)
        n, _, height, width = x.shape
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.pool:
            key, value = max_pool(key, 2), max_pool(value, 2)
        query, key, value = _flat(query), _flat(key), _flat(value)  # (N, C/8, P), (N, C/8, P'), (N, C/2, P')
        beta = softmax(matmul(query.mT, key))  # (N, P, P')
        o = matmul(value, beta.mT)  # (N, C/2, P)
        return self.gamma * self.out(o.reshape(n, o.shape[1], height, width)) + x

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"SelfAttention: input of shape {x.shape}; this layer works on (N, {self.channels}, H, W)"
            )
        least = 2 if self.pool else 1
        if min(x.shape[2:]) < least:
            raise ValueError(
                f"SelfAttention: images of size {x.shape[2:]} are too small; with pool={self.pool} both "
                f"sides must be {least} or more"
            )

    def extra_repr(self) -> str:
        return f"{self.channels}" + ("" if self.pool else ", pool=False")


def _flat(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, C, P): the places of the image in one row"""
    n, c, height, width = x.shape
    return x.reshape(n, c, height * width)
