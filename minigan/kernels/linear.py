"""The matrix product of a linear layer, on bare arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import numpy as np

from ..backend import Array, xp_of
from .threads import split

# Who multiplies the matrices of a GPU in place of its array library: see graphs.py.
stand_in: ContextVar[Callable[..., Array] | None] = ContextVar("stand_in", default=None)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """A B, by the array library or by who stands in for it."""
    other = None if type(a) is np.ndarray else stand_in.get()
    return xp_of(a).matmul(a, b, out=out) if other is None else other(a, b, out)


def product(a: Array, b: Array) -> Array:
    """A B, for two matrices, the quicker way round

    NumPy's OpenBLAS is quicker at a tall result than at a wide one (docs/speed.md has figures). So where
    the result is wider than tall, this is (Bᵀ Aᵀ)ᵀ: the same numbers, column by column in memory.
    Elementwise ops keep that order, so a whole network computes in it. On a GPU it makes no difference, and
    all lies row by row; but W̄ = Ȳᵀ X (Ȳᵀ does not) lies like W, whose order was chosen for NumPy.
    """
    xp = xp_of(a)
    if a.shape[1] == 1:
        return a * b  # each pair once, nothing to add up
    wide = a.shape[0] < b.shape[1] and (type(a) is np.ndarray or not a.flags.c_contiguous)
    dtype = np.result_type(a.dtype, b.dtype)
    out = xp.empty((a.shape[0], b.shape[1]), dtype, order="F" if wide else "C")
    if wide:
        _multiply(b.T, a.T, out.T)
    else:
        _multiply(a, b, out)
    return out


def add_bias(y: Array, bias: Array) -> Array:
    """y + bias, in the memory of y unless that is too coarse for the sum. y has just been made."""
    if bias.dtype != y.dtype:
        return y + bias
    y += bias
    return y


def _multiply(a: Array, b: Array, out: Array) -> None:
    """out = A B, the rows of A divided among the threads of a team."""
    least = max(1, 2**20 // max(1, b.size))  # rows that are worth a thread: a million multiply-adds
    split(lambda lo, hi: matmul(a[lo:hi], b, out[lo:hi]), len(a), a, least)
