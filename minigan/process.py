"""Choices for speed that concern the whole process: made here, by name, and undone at the end.

    with minigan.performance():
        train(...)

Nothing else in minigan touches the process. None of these choices changes a result by more than the
rounding of sums that are added up in another order.

- threads: kernels (convolution, batch normalisation, activations) split their batch over so many Python
  threads, and the BLAS, which multiplies matrices, works with one thread in each. For networks with
  convolutions. Without it (threads=1) the BLAS keeps its own threads, which suits networks made of
  Linear layers.
- keep_memory: the C library keeps freed memory for the next array, instead of giving it back and getting
  it, page by page, from the operating system again. In return the process stays as large as it once was.
  Only glibc (Linux) knows how; elsewhere nothing happens.

A third choice can only be made before Python starts: which code OpenBLAS multiplies matrices with. It picks
it by the model of the processor, and one that it does not know, or a setting in the environment, can cost
half of the speed. `performance.advice()` says so where it is the case.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from .kernels import threads as _threads

__all__ = ["performance"]

# From glibc's malloc.h. Its defaults adapt while a program runs; once set, they no longer do.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
GIBIBYTE, LARGEST_INT, DEFAULT = 1 << 30, 2**31 - 1, 128 * 1024


class performance:
    """Make the choices now; `undo()`, or the end of a `with` block, takes them back.

    threads: how many Python threads share the kernels' work; by default one for each core this process may
    use. 1 leaves the BLAS its own threads. keep_memory: see above.

    >>> with performance(threads=2):
    ...     pass  # train
    """

    def __init__(self, threads: int | None = None, keep_memory: bool = True):
        threads = cores() if threads is None else threads
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"performance: threads={threads!r} must be a whole number, 1 or more")
        self.threads, self.keep_memory = threads, keep_memory
        self._blas: Any = None
        self._team: _threads.Team | None = None
        self._before = _threads.team.get()
        if threads > 1:
            from threadpoolctl import threadpool_limits

            self._blas = threadpool_limits(1, user_api="blas")
            self._team = _threads.Team(threads)
            _threads.team.set(self._team)
        self._kept = keep_memory and _mallopt((M_MMAP_THRESHOLD, GIBIBYTE), (M_TRIM_THRESHOLD, LARGEST_INT))

    def undo(self) -> None:
        """Take the choices back. A second call does nothing."""
        if self._team is not None:
            if _threads.team.get() is self._team:
                _threads.team.set(self._before)
            self._team.dismiss()
            self._blas.restore_original_limits()
            self._team = None
        if self._kept:
            _mallopt((M_MMAP_THRESHOLD, DEFAULT), (M_TRIM_THRESHOLD, DEFAULT))
            import ctypes

            ctypes.CDLL(None).malloc_trim(0)  # and give back what was kept
            self._kept = False

    @staticmethod
    def advice() -> str | None:
        """What to set before Python starts to get faster matrix products on this processor; None if nothing.

        Code for AVX2 ("Haswell", "Zen") on a processor that has AVX-512 takes nearly twice as long. OpenBLAS
        uses it if it is older than the processor, or if OPENBLAS_CORETYPE says so.
        """
        from threadpoolctl import threadpool_info

        picked = {info.get("architecture") for info in threadpool_info()}
        if (slow := picked & {"Haswell", "Zen"}) and _has_avx512():
            return (
                f"OpenBLAS uses its {', '.join(sorted(slow))} code on a processor with AVX-512; "
                "start Python with OPENBLAS_CORETYPE=SkylakeX for matrix products up to twice as fast"
            )
        return None

    def __enter__(self) -> performance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"performance(threads={self.threads}, keep_memory={self.keep_memory})"


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def _mallopt(*settings: tuple[int, int]) -> bool:
    """Set parameters of glibc's malloc; False where there is no glibc."""
    import ctypes
    import platform

    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return sum(mallopt(name, value) for name, value in settings) == len(settings)


def _has_avx512() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return any(line.startswith("flags") and " avx512vl " in line for line in lines)
    except OSError:
        return False
