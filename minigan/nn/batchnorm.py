"""Batch normalisation: every channel gets mean 0 and variance 1 over the whole batch. See norm.py first."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..kernels.norm import running_averages
from ..ops.norm import batch_norm
from ..ops.operands import number, whole
from ..ops.shape import reshape
from ..tensor import Tensor, constant
from .linear import rows
from .norm import Normaliser

__all__ = ["BatchNorm1d", "BatchNorm2d", "ConditionalBatchNorm"]


class _BatchNorm(Normaliser):
    """What the batch normalisations share: statistics of the batch, and running averages of them

        running ← (1 - momentum) · running + momentum · that of the batch

    after every forward pass in training, under no_grad too. momentum=None: the mean of all batches so far.
    As in PyTorch, the batch is divided by the root of Σ (x - μ)² / n, but running_var is an average of
    Σ (x - μ)² / (n - 1), which estimates the variance of the data. Evaluation uses the running averages,
    so that no image depends on another. With track_running_stats=False there are none, and evaluation
    uses the statistics of its own batch.
    """

    mixes_images = property(lambda self: self.training or not self.track_running_stats)
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, dtype: Any = "float32",
    ):  # fmt: skip
        who = type(self).__name__
        self.num_features = whole(who, "num_features", num_features, least=1)
        self.momentum = None if momentum is None else number(who, "momentum", momentum)
        self.track_running_stats = track_running_stats
        self._begin((self.num_features,), affine, affine, eps, dtype)
        track, shape = track_running_stats, (self.num_features,)
        self.running_mean = Tensor(np.zeros(shape), dtype=dtype) if track else None
        self.running_var = Tensor(np.ones(shape), dtype=dtype) if track else None
        self.num_batches_tracked = Tensor(0, dtype="int64") if track else None

    def forward(self, x: Any) -> Tensor:
        return self._normalised(self._checked(x, self.num_features), self.weight, self.bias)

    def _normalised(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        if self.track_running_stats and not self.training:
            known = (self.running_mean, self.running_var)
            return batch_norm(x, weight, bias, self.eps, running=known)
        n = x.size // self.num_features
        if n < 2:
            raise ValueError(
                f"{type(self).__name__}: input of shape {x.shape} has {n} values per channel, and no "
                "variance; give a larger batch" + ", or call eval() first" * self.track_running_stats
            )
        track = (lambda mu, var: self._track(mu, var, n)) if self.track_running_stats else None
        return batch_norm(x, weight, bias, self.eps, on_statistics=track)

    def _track(self, mu: Array, variance: Array, n: int) -> None:
        """Mix the statistics of a batch, n values per channel, into the running averages."""
        count, mean, var = self.num_batches_tracked, self.running_mean, self.running_var
        assert count is not None and mean is not None and var is not None
        self.num_batches_tracked = count = constant(count.data + 1)
        share = 1 / count.data if self.momentum is None else self.momentum
        made = running_averages(mean.data, var.data, mu, variance, share, n)
        self.running_mean, self.running_var = map(constant, made)

    def extra_repr(self) -> str:
        words = [str(self.num_features), f"eps={self.eps}", f"momentum={self.momentum}"]
        words += ["affine=False"] * (self.weight is None)
        return ", ".join([*words, *["track_running_stats=False"] * (not self.track_running_stats)])


class BatchNorm2d(_BatchNorm):
    """y = γ (x - μ) / √(σ² + ε) + β, with μ and σ² of each channel over all images and pixels

    Shapes: x and y (N, C, H, W); weight γ, bias β and the running averages (C,), C = num_features
    (Ioffe & Szegedy 2015).

    >>> BatchNorm2d(64)
    BatchNorm2d(64, eps=1e-05, momentum=0.1)
    """

    ranks, axes = (4,), "(N, C, H, W)"


class BatchNorm1d(_BatchNorm):
    """BatchNorm2d for features and signals. Shapes: x and y (N, C) or (N, C, L)"""

    ranks, axes = (2, 3), "(N, C) or (N, C, L)"


class ConditionalBatchNorm(_BatchNorm):
    """Batch normalisation with a γ and a β for every class: y[n] = γ[label n] x̂[n] + β[label n]

    Shapes: x and y (N, C, ...), labels (N,), whole numbers; weight γ and bias β (num_classes, C).
    The statistics are those of the whole batch, whatever the labels (Dumoulin et al. 2017).
    """

    def __init__(
        self, num_features: int, num_classes: int, eps: float = 1e-5, momentum: float | None = 0.1,
        track_running_stats: bool = True, *, dtype: Any = "float32",
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, False, track_running_stats, dtype=dtype)
        self.num_classes = whole("ConditionalBatchNorm", "num_classes", num_classes, least=1)
        self._begin((self.num_classes, self.num_features), True, True, eps, dtype)

    def forward(self, x: Any, labels: Any) -> Tensor:  # type: ignore[override]
        x = self._checked(x, self.num_features)
        assert self.weight is not None and self.bias is not None
        gamma, beta = (rows("ConditionalBatchNorm", "labels", t, labels) for t in (self.weight, self.bias))
        if gamma.shape != x.shape[:2]:
            raise ValueError(
                f"ConditionalBatchNorm: labels of shape {gamma.shape[:-1]} for input of shape {x.shape}; "
                f"there must be one for each of the {x.shape[0]} examples"
            )
        shape = (*x.shape[:2], *[1] * (x.ndim - 2))
        return self._normalised(x) * reshape(gamma, shape) + reshape(beta, shape)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, num_classes={self.num_classes}, eps={self.eps}, momentum={self.momentum}"
        )
