"""What CuPy asked of the GPU that is not there.

    with counting() as counts:
        step()
    counts.launches, counts.to_host, counts.waits

And who comes first there: kernels may not depend on it.

    with order(7): ...

Both only where `there()`: in a program that tests/cupy_on_cpu/run has started.
"""

import ctypes
import functools
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

LAUNCHES = ("launch", "gemm", "memset", "copy_on_device", "library", "graph_launch")
WAITS = ("stream_sync", "device_sync", "event_sync", "sync_copy")


def there():
    """Whether this process was started by `run`."""
    return "CUPY_ON_CPU" in os.environ


@functools.cache
def _library():
    library = ctypes.CDLL("libcuda.so.1")
    library.fakecuda_names.restype = ctypes.c_char_p
    library.fakecuda_get.restype = ctypes.c_long
    return library


@dataclass
class Counts:
    """asked: {kind: {name: how often}}. The kinds are those of fake/counts.cpp."""

    asked: dict[str, Counter] = field(default_factory=dict)

    def of(self, *kinds):
        """How many of these kinds there were, by their names."""
        return sum((self.asked.get(kind, Counter()) for kind in kinds), Counter())

    @property
    def launched(self):
        """Kernels, products and the like, by their names."""
        return self.of(*LAUNCHES)

    @property
    def launches(self):
        """How many there were of them. (A recorded step is one.)"""
        return self.launched.total()

    @property
    def to_device(self):
        """Arrays that were sent there."""
        return self.of("copy_to_device").total()

    @property
    def to_host(self):
        """Arrays and numbers that were read from there."""
        return self.of("copy_to_host").total()

    @property
    def waits(self):
        """How often Python waited for the device."""
        return self.of(*WAITS).total()


@contextmanager
def counting():
    """Counts what is asked for inside; the numbers are there afterwards."""
    counts = Counts()
    before = _names()
    try:
        yield counts
    finally:
        for (kind, name), n in (_names() - before).items():
            counts.asked.setdefault(kind, Counter())[name] = n


def launches():
    """How many kernels, products and the like there have been until now."""
    return sum(_library().fakecuda_get(kind.encode()) for kind in LAUNCHES)


def _names():
    found = Counter()
    for line in _library().fakecuda_names().decode().splitlines():
        what, n = line.rsplit("\t", 1)
        kind, _, name = what.partition(":")
        found[kind, name] = int(n)
    return found


@contextmanager
def order(number):
    """Inside, threads and blocks take their turns in this order; see fake/threads.cpp. 0 is the usual one.

    And a kernel must have a __threadfence before and after each atomicInc.
    """
    _library().fakecuda_order(number)
    try:
        yield
    finally:
        _library().fakecuda_order(-1)
