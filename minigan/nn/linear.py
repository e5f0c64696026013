"""Layers that multiply by a matrix, or look up its rows."""

from __future__ import annotations

import math
from typing import Any

from ..ops.linear import linear
from ..ops.operands import tensor, whole
from ..ops.reduce import max as largest
from ..ops.shape import reshape, take
from ..tensor import Tensor
from . import init
from .module import Layer, parameter

__all__ = ["Embedding", "Linear", "Maxout"]


class Linear(Layer):
    """y = x Wᵀ + b. Shapes: x (..., in), weight (out, in), bias (out,), y (..., out)

    >>> Linear(100, 256, rng=0)
    Linear(100, 256)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: Any, dtype: Any = "float32"
    ):
        rng = init.generator(rng, "Linear")
        self.in_features = whole("Linear", "in_features", in_features, least=1)
        self.out_features = whole("Linear", "out_features", out_features, least=1)
        value = init.torch_default((out_features, in_features), rng)
        # a weight that is wider than tall lies by columns, as its gradient does: see kernels/linear.py
        memory = (1, 0) if out_features < in_features else (0, 1)
        self.weight = parameter(value, "weight", dtype, memory)
        self.bias = (
            parameter(init.uniform((out_features,), 1 / math.sqrt(in_features), rng), "bias", dtype)
            if bias
            else None
        )

    def forward(self, x: Any) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Maxout(Layer):
    """y = max over j of x Wⱼᵀ + bⱼ: the largest of some affine maps (Goodfellow et al. 2013)

    Shapes: x (..., in), weight (out · pieces, in), bias (out · pieces,), y (..., out). The pieces of one
    output are neighbours in weight. ȳ goes to the piece that won; equal ones share it.

    >>> Maxout(784, 240, 5, rng=0)
    Maxout(784, 240, pieces=5)
    """

    def __init__(self, in_features: int, out_features: int, pieces: int, *, rng: Any, dtype: Any = "float32"):
        rng = init.generator(rng, "Maxout")
        self.in_features, self.out_features = in_features, out_features
        self.pieces = whole("Maxout", "pieces", pieces, least=1)
        rows = out_features * self.pieces
        self.weight = parameter(init.torch_default((rows, in_features), rng), "weight", dtype)
        self.bias = parameter(init.uniform((rows,), 1 / math.sqrt(in_features), rng), "bias", dtype)

    def forward(self, x: Any) -> Tensor:
        y = linear(x, self.weight, self.bias)
        return largest(reshape(y, *y.shape[:-1], self.out_features, self.pieces), axis=-1)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, pieces={self.pieces}"


class Embedding(Layer):
    """y = the rows of weight with these numbers: a vector to learn for every word, or every class

    Shapes: indices (...), whole numbers; weight (num_embeddings, embedding_dim); y (..., embedding_dim).
    A row's gradient is the sum over all places where it was looked up.

    >>> Embedding(10, 128, rng=0)([3, 3, 7]).shape
    (3, 128)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, rng: Any, dtype: Any = "float32"):
        rng = init.generator(rng, "Embedding")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = parameter(init.normal((num_embeddings, embedding_dim), 1.0, rng), "weight", dtype)

    def forward(self, indices: Any) -> Tensor:
        return rows("Embedding", "indices", self.weight, indices)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


def rows(who: str, what: str, table: Tensor, indices: Any) -> Tensor:
    """table[indices], where each index must be the number of a row, counted from 0.

    The check matters: NumPy would count -1 from the end, and CuPy wraps around what is too large.
    """
    indices = tensor(indices, who)
    n = table.shape[0]
    if indices.dtype.kind not in "iu":
        raise TypeError(
            f"{who}: {what} of dtype {indices.dtype}; they must be whole numbers from 0 to {n - 1}"
        )
    if indices.size and (indices.data.min() < 0 or indices.data.max() >= n):
        low, high = int(indices.data.min()), int(indices.data.max())
        raise IndexError(f"{who}: {what} from {low} to {high}; with {n} rows they must be from 0 to {n - 1}")
    return take(table, indices)
