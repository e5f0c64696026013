"""The matrix product of a linear layer, on bare arrays."""

from __future__ import annotations

import numpy as np

from ..backend import Array, xp_of
from .threads import split


def product(a: Array, b: Array) -> Array:
    """A B, for two matrices, the quicker way round

    NumPy's OpenBLAS is quicker at a tall result than at a wide one (docs/speed.md has figures). So where
    the result is wider than tall, this is (Bᵀ Aᵀ)ᵀ: the same numbers, column by column in memory.
    Elementwise ops keep that order, so a whole network computes in it.
    """
    xp = xp_of(a)
    if a.shape[1] == 1:
        return a * b  # each pair once, nothing to add up
    wide = a.shape[0] < b.shape[1] and isinstance(a, np.ndarray)
    dtype = np.result_type(a.dtype, b.dtype)
    out = xp.empty((a.shape[0], b.shape[1]), dtype, order="F" if wide else "C")
    if wide:
        _multiply(b.T, a.T, out.T)
    else:
        _multiply(a, b, out)
    return out


def _multiply(a: Array, b: Array, out: Array) -> None:
    """out = A B, the rows of A divided among the threads of a team."""
    xp = xp_of(a)
    least = max(1, 2**20 // max(1, b.size))  # rows that are worth a thread: a million multiply-adds
    split(lambda lo, hi: xp.matmul(a[lo:hi], b, out=out[lo:hi]), len(a), a, least)
