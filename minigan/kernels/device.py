"""Which kernels there are for the arrays of a GPU, beside those of its array library.

    fused = of(x)            None for NumPy, whose kernels are the other files of this folder
    if fused is not None:
        return fused.leaky_relu(x, slope)

What they compute is in fused.py, in a few lines each; how, in cuda.cu.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..backend import Array, backend_of

_known: dict[type, Any] = {np.ndarray: None}


def register(array_type: type, kernels: Any) -> None:
    """Say which kernels there are for arrays of this type: something with the functions of fused.py."""
    _known[array_type] = kernels


def of(x: Array) -> Any:
    """The fused kernels for arrays like x; None where there are none."""
    kind = type(x)
    if kind not in _known:
        on_gpu = backend_of(x).name == "cupy"
        _known[kind] = importlib.import_module("minigan.gpu.kernels") if on_gpu else None
    return _known[kind]
