"""Where a GPU has kernels of its own for what the other files of this folder compute.

    gpu = gpu_kernels(x)               None: go on, with the array library of x
    if gpu is not None:
        return gpu.leaky_relu(x, slope)

They are in gpu/kernels.py. Nobody above this folder knows of them.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from ..backend import Array, backend_of


def gpu_kernels(*arrays: Array | None) -> Any:
    """The kernels for these arrays, those of a GPU; None where there are none.

    They are for arrays that are all of float32 or all of float64, and not empty. (None does not count.)
    """
    first = arrays[0]
    if type(first) is np.ndarray or first is None or not first.size or first.dtype.char not in "fd":
        return None
    if any(a is not None and a.dtype != first.dtype for a in arrays):
        return None
    return _kernels() if backend_of(first).name == "cupy" else None


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("minigan.gpu.kernels")
