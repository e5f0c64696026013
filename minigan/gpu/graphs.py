"""CUDA graphs by way of CuPy: what recorded_steps.py needs of a GPU. Loaded only to record one.

    recorder = Recorder()
    with recorder.products():
        graph, result = recorder.record(work)      work() launches kernels; they are noted, not done
        graph.replay()                             now they are done, and the arrays of `result` are filled

**This file has not run on a GPU yet**, but with the real CuPy on a CPU (tests/cupy_on_cpu).

CUDA records what is launched on a stream between begin_capture and end_capture. Addresses and plain numbers
are recorded as they are. Two things have to be seen to.

    memory      A graph writes to the addresses of its recording. So arrays made meanwhile come from a pool of
                their own. It lives as long as the graph, and nobody else takes memory from it.
    products    CuPy (up to 14 at least) refuses to multiply matrices during a recording. cuBLAS itself can be
                recorded, if it has a workspace that was there before. So products go through a cuBLAS handle
                of our own, which is called by ctypes. Eager steps take it, too, since another way to multiply
                might round differently.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ..backend import Array
from ..kernels import linear
from . import tf32

try:
    import cupy
except ImportError:  # nobody has CuPy arrays, then; but tools that look at every file may look at this one
    cupy = None

WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for its newer GPUs, the others need 4 MiB
NORMAL, TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
DEFAULT_MATH, TF32_MATH = 0, 3  # CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH
LARGEST_INT = 2**31 - 1


class Recorder:
    """Records steps. An exception here says that this CuPy or this machine cannot."""

    def __init__(self) -> None:
        self._blas = Blas(_cublas())
        self._stream = cupy.cuda.Stream(non_blocking=True)  # the usual one cannot be recorded

    @contextmanager
    def products(self) -> Iterator[None]:
        """Inside, matrices are multiplied by our own handle."""
        self._blas.choose_precision(tf32.is_used())
        token = linear.stand_in.set(self._blas.matmul)
        try:
            yield
        finally:
            linear.stand_in.reset(token)

    def record(self, work: Callable[[], Any]) -> tuple[Graph, Any]:
        """Record what work() launches. Its arrays come out, too; a replay fills them."""
        gc.collect()  # so that Python does not do it in the middle
        pool, stream = cupy.cuda.MemoryPool(), self._stream
        with cupy.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()
            try:
                result = work()
            except BaseException:
                _abandon(stream)
                raise
            graph = stream.end_capture()
        return Graph(graph, pool), result


class Graph:
    """A recorded piece of work, and the memory that it writes to."""

    def __init__(self, graph: Any, pool: Any):
        self._graph, self._pool = graph, pool

    def replay(self) -> None:
        """Do it, after all that was launched before: it goes to the stream that everything else goes to."""
        self._graph.launch(cupy.cuda.get_current_stream())


def _abandon(stream: Any) -> None:
    """End a recording of which nothing will come. CUDA may say that it is broken: so it is."""
    with suppress(Exception):
        stream.end_capture()


# ---------------------------------------------------------------------------------- matrix products


class Blas:
    """A cuBLAS handle of our own. library: cuBLAS, as ctypes has it."""

    def __init__(self, library: Any):
        pointer, number = ctypes.c_void_p, ctypes.c_int
        matrix = [pointer, number]  # its address, and its leading dimension
        product = [pointer, *[number] * 5, pointer, *matrix, *matrix, pointer, *matrix]
        for name, types in (
            ("cublasCreate_v2", [pointer]),
            ("cublasDestroy_v2", [pointer]),
            ("cublasSetStream_v2", [pointer, pointer]),
            ("cublasSetWorkspace_v2", [pointer, pointer, ctypes.c_size_t]),
            ("cublasSetMathMode", [pointer, number]),
            ("cublasSgemm_v2", product),
            ("cublasDgemm_v2", product),
        ):
            getattr(library, name).argtypes = types
        self._library, self._handle = library, ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        weakref.finalize(self, library.cublasDestroy_v2, self._handle)
        self._workspace = cupy.empty(WORKSPACE, np.uint8)
        self._stream: int | None = None
        self._tf32 = False

    def choose_precision(self, tf32: bool) -> None:
        """Whether float32 products may be computed in TF32."""
        if tf32 != self._tf32:
            self._call("cublasSetMathMode", self._handle, TF32_MATH if tf32 else DEFAULT_MATH)
            self._tf32 = tf32

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """A B, for matrices of float32 or float64; B may be a vector, one column. The rest is left to CuPy.

        cuBLAS thinks in columns. A matrix that lies row by row (C order) is to it the transposed one, and
        what lies there in the end is to be Cᵀ = Bᵀ Aᵀ. So B comes first, and "transposed" means that a matrix
        lies column by column.
        """
        if b.ndim == 1 and a.ndim == 2 and out is None:
            return self.matmul(a, b.reshape(-1, 1)).reshape(-1)
        dtypes = {x.dtype.char for x in (a, b, *([] if out is None else [out]))}
        sizes = (*a.shape, *b.shape)
        if a.ndim != 2 or b.ndim != 2 or dtypes not in ({"f"}, {"d"}) or max(sizes) > LARGEST_INT:
            return cupy.matmul(a, b, out=out)
        if out is None:
            out = cupy.empty((a.shape[0], b.shape[1]), a.dtype)
        if a.shape[1] == 0:
            out[...] = 0
        elif out.size > 0:
            self._multiply(a, b, out)
        return out

    def _multiply(self, a: Array, b: Array, out: Array) -> None:
        if (by_rows := _leading(out)) is None:
            if _leading(out.T) is None:  # it has gaps: compute elsewhere
                out[...] = self.matmul(a, b)
            else:
                self._multiply(b.T, a.T, out.T)
            return
        (a, how_a, lead_a), (b, how_b, lead_b) = _operand(a), _operand(b)
        (m, k), n = a.shape, b.shape[1]
        single = out.dtype.char == "f"
        one, zero = ((ctypes.c_float if single else ctypes.c_double)(number) for number in (1, 0))
        self._follow(cupy.cuda.get_current_stream().ptr)
        self._call(
            "cublasSgemm_v2" if single else "cublasDgemm_v2",
            self._handle, how_b, how_a, n, m, k, ctypes.addressof(one), _address(b), lead_b,
            _address(a), lead_a, ctypes.addressof(zero), _address(out), by_rows,
        )  # fmt: skip

    def _follow(self, stream: int) -> None:
        """Launch on this stream. (To change the stream takes the workspace away from cuBLAS.)"""
        if stream != self._stream:
            self._call("cublasSetStream_v2", self._handle, stream)
            self._call("cublasSetWorkspace_v2", self._handle, _address(self._workspace), WORKSPACE)
            self._stream = stream

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status != 0:
            raise RuntimeError(f"{name} failed with status {status}")


def _operand(x: Array) -> tuple[Array, int, int]:
    """A matrix as cuBLAS can take it, how it lies there, and its leading dimension. Copied if need be."""
    for how, seen in ((NORMAL, x), (TRANSPOSED, x.T)):
        if (leading := _leading(seen)) is not None:
            return x, how, leading
    copy = cupy.ascontiguousarray(x)
    return copy, NORMAL, copy.shape[1]


def _leading(x: Array) -> int | None:
    """From one row to the next in memory, in entries, if x lies there row by row; else None.

    There may be a gap between two rows. An axis of length 1 takes no steps, and its stride says nothing.
    """
    (rows, columns), (down, across) = x.shape, x.strides
    if columns > 1 and across != x.itemsize:
        return None
    if rows == 1:
        return columns
    step, rest = divmod(down, x.itemsize)
    return step if rest == 0 and columns <= step <= LARGEST_INT else None


def _address(array: Array) -> int:
    """Where an array begins in the memory of the device."""
    return array.data.ptr


def _cublas() -> Any:
    """The library that CuPy multiplies with. CuPy knows where it is, and loads it for its own handle."""
    cupy.cuda.get_cublas_handle()
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return ctypes.CDLL(f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}")
