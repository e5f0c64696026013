"""Choices for speed that concern the whole process: made here, by name, and undone at the end.

    with minigan.performance():
        train(...)

Nothing else in minigan touches the process. What is chosen holds in all of its threads, whichever chose it.
Threads and memory change no result by more than the rounding of sums that are added up in another order. TF32
does change them, and is off unless it is asked for.

- threads: kernels (convolution, batch normalisation, activations) split their batch over so many Python
  threads, and the BLAS, which multiplies matrices, works with one thread in each. For networks with
  convolutions. Without it (threads=1) the BLAS keeps its own threads, which suits networks made of
  Linear layers.
- keep_memory: the C library keeps freed memory for the next array, instead of giving it back and getting
  it, page by page, from the operating system again. In return the process stays as large as it once was.
  Only glibc (Linux) knows how; elsewhere nothing happens.
- tf32: CuPy multiplies float32 matrices in TF32, and with them all convolutions. A GPU from 2020 on (Ampere)
  does so several times faster. It rounds each factor to 11 significant bits, of 24, and adds up in float32: a
  product is right to about three decimal digits. Without it the products are as exact as NumPy's.
"""

from __future__ import annotations

import os
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar

from .gpu import tf32 as tf32_products
from .kernels import threads as _threads
from .ops.operands import whole

__all__ = ["performance"]

# From glibc's malloc.h. Both thresholds adapt while a program runs, up to the numbers below; once set, they
# no longer do. Older versions of glibc accept no M_MMAP_THRESHOLD above 32 MiB.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
ADAPTED = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20}
LARGEST_INT = 2**31 - 1


class performance:
    """Make the choices now; `undo()`, or the end of a `with` block, takes them back.

    threads: how many Python threads share the kernels' work; by default one for each core this process may
    use. 1 leaves the BLAS its own threads. keep_memory, tf32: see above. tf32=True needs a GPU; without one
    there is a BackendError. Where several are in force, the number of threads is that of the latest; memory
    is kept, and TF32 used, as long as one of them says so.

    >>> with performance(threads=2, keep_memory=False):
    ...     pass  # train
    """

    # The process has one BLAS and one malloc: what is in force is known once, for all.
    _in_force: ClassVar[list[performance]] = []
    _changing: ClassVar[Lock] = Lock()  # held by the thread that is changing it
    _blas: ClassVar[Any] = None  # the BLAS, and how many threads it had of its own
    _kept: ClassVar[bool] = False  # malloc has been told to keep memory
    _computed: ClassVar[Any] = None  # in what CuPy computed products before it was told to use TF32

    def __init__(self, threads: int | None = None, keep_memory: bool = True, tf32: bool = False):
        if tf32:
            tf32_products.switch()  # can it be done? If not, nothing has been changed yet
        self.threads = cores() if threads is None else whole("performance", "threads", threads, least=1)
        self.keep_memory, self.tf32 = keep_memory, tf32
        self._team = _threads.Team(self.threads) if self.threads > 1 else None
        with performance._changing:
            performance._in_force.append(self)
            self._enforce()

    def undo(self) -> None:
        """Take the choices back. A second call does nothing."""
        with performance._changing:
            if self not in performance._in_force:
                return
            performance._in_force.remove(self)
            self._enforce()
        if self._team is not None:
            self._team.dismiss()

    @staticmethod
    def _enforce() -> None:
        """Make the process what the choices in force say."""
        chosen = performance._in_force
        team = chosen[-1]._team if chosen else None
        _threads.hire(team)
        if team is not None and performance._blas is None:
            from threadpoolctl import ThreadpoolController

            libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            performance._blas = [(library, library.num_threads) for library in libraries]
            for library in libraries:
                _set_threads(library, 1)
        elif team is None and performance._blas is not None:
            for library, before in performance._blas:
                _set_threads(library, before)
            performance._blas = None
        keep = any(choice.keep_memory for choice in chosen)
        if keep and not performance._kept:
            performance._kept = _keep_memory()
        elif performance._kept and not keep:
            _give_memory_back()
            performance._kept = False
        tf32 = any(choice.tf32 for choice in chosen)
        if tf32 and performance._computed is None:
            performance._computed = tf32_products.use()
        elif performance._computed is not None and not tf32:
            tf32_products.restore(performance._computed)
            performance._computed = None

    def __enter__(self) -> performance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"performance(threads={self.threads}, keep_memory={self.keep_memory}, tf32={self.tf32})"


def blas() -> str:
    """What multiplies NumPy's matrices, and how: "openblas 0.3.31 (SkylakeX, 2 threads)"."""
    from threadpoolctl import threadpool_info

    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return ", ".join(
        f"{info['internal_api']} {info['version']} ({info.get('architecture', 'unknown')}, "
        f"{info['num_threads']} thread{'s' * (info['num_threads'] != 1)})"
        for info in found
    )


def _set_threads(library: Any, number: int) -> None:
    """How many threads a BLAS uses, set from any thread.

    From version 3.7 on, threadpoolctl lets one thread decide for OpenBLAS, the first that does, and ignores
    the others. Here they take turns.
    """
    give_way = getattr(library, "clear_controlling_thread", lambda force: None)
    give_way(force=True)
    library.set_num_threads(number)
    give_way(force=True)


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def _glibc() -> Any:
    """The C library, if it is glibc."""
    import ctypes
    import platform

    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _keep_memory() -> bool:
    """Have malloc keep what is freed. False where it cannot be told to."""
    libc = _glibc()
    if libc is None or not any(libc.mallopt(M_MMAP_THRESHOLD, most) for most in (1 << 30, 32 << 20)):
        return False
    libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
    return True


def _give_memory_back() -> None:
    """Leave malloc where its own adaptation leads to, and give back what it has kept."""
    libc = _glibc()
    for threshold, value in ADAPTED.items():
        libc.mallopt(threshold, value)
    libc.malloc_trim(0)
