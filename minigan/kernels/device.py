"""Which kernels there are for the arrays of a GPU, beside those of its array library.

    fused = of(x)            None for NumPy, whose kernels are the other files of this folder
    if fused is not None:
        return fused.leaky_relu(x, slope)

What they compute is in gpu/formulas.py, in a few lines each. For CuPy they are gpu/kernels.py; for any other
array library, the formulas.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from ..backend import Array, backend_of


def of(x: Array) -> Any:
    """The fused kernels for arrays like x; None where there are none."""
    return None if type(x) is np.ndarray else _of(backend_of(x).name)


@functools.cache
def _of(backend: str) -> Any:
    if backend == "numpy":  # a subclass of its arrays
        return None
    return importlib.import_module("minigan.gpu." + ("kernels" if backend == "cupy" else "formulas"))
