"""The matrix product of a linear layer, on bare arrays."""

from __future__ import annotations

import numpy as np

from ..backend import Array


def product(a: Array, b: Array) -> Array:
    """A B, for two matrices, the quicker way round

    NumPy's OpenBLAS is quicker at a tall result than at a wide one (docs/speed.md has figures). So where
    the batch is shorter than the layer is wide, this is (Bᵀ Aᵀ)ᵀ: the same numbers, column by column in
    memory. Elementwise ops keep that order, so a whole network computes in it.
    """
    if a.shape[0] < b.shape[1] and isinstance(a, np.ndarray):
        return (b.T @ a.T).T
    return a @ b
