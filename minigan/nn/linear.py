"""Layers that multiply by a matrix, or look up its rows."""

from __future__ import annotations

import math
from typing import Any

from ..ops.linear import linear
from ..tensor import Tensor
from . import init
from .module import Module, parameter

__all__ = ["Linear"]


class Linear(Module):
    """y = x Wᵀ + b. Shapes: x (..., in), weight (out, in), bias (out,), y (..., out)

    >>> Linear(100, 256, rng=0)
    Linear(100, 256)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: Any, dtype: Any = "float32"
    ):
        rng = init.generator(rng, "Linear")
        self.in_features, self.out_features = in_features, out_features
        self.weight = parameter(init.torch_default((out_features, in_features), rng), "weight", dtype)
        self.bias = (
            parameter(init.uniform((out_features,), 1 / math.sqrt(in_features), rng), "bias", dtype)
            if bias
            else None
        )

    def forward(self, x: Any) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")
