"""Splitting the work of a kernel over threads.

NumPy lets other Python threads run while it computes, so two threads on two halves of a batch are twice
as fast, as long as the BLAS uses one thread each. Nobody is forced into this: kernels work on the
caller's thread alone, unless a Team was hired (minigan.performance does that).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..backend import Array

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")


class Team:
    """`size` threads: the caller, and helpers that wait for work."""

    def __init__(self, size: int):
        self.size = size
        self._helpers: ThreadPoolExecutor | None = None
        self._process = 0

    def run(self, tasks: list[Callable[[], T]]) -> list[T]:
        """The results of all tasks, in order. The caller does the first one itself."""
        if self._process != os.getpid():  # threads do not survive a fork
            from concurrent.futures import ThreadPoolExecutor  # loaded only where it is needed

            no_team = partial(team.set, None)  # a helper hires nobody itself
            self._helpers = ThreadPoolExecutor(self.size - 1, "minigan", no_team)
            self._process = os.getpid()
        assert self._helpers is not None
        others = [self._helpers.submit(task) for task in tasks[1:]]
        try:
            first = tasks[0]()
        finally:  # whatever happens here, nobody may still be writing into our arrays afterwards
            for other in others:
                other.exception()
        return [first, *(other.result() for other in others)]

    def dismiss(self) -> None:
        """Let the helpers go."""
        if self._helpers is not None and self._process == os.getpid():
            self._helpers.shutdown()
        self._helpers, self._process = None, 0


team: ContextVar[Team | None] = ContextVar("team", default=None)


def split(work: Callable[[int, int], T], n: int, like: Array, least: int = 1) -> list[T]:
    """[work(0, a), work(a, b) ... work(z, n)]: one part for each thread of the team, of `least` or more.

    like: an array of the library that `work` uses. Only NumPy's work is split; a GPU has threads of its own.
    """
    hired = team.get()
    parts = 1 if hired is None or type(like) is not np.ndarray else min(hired.size, n // max(least, 1))
    if hired is None or parts < 2:
        return [work(0, n)]
    edges = [n * i // parts for i in range(parts + 1)]
    return hired.run([partial(work, lo, hi) for lo, hi in pairwise(edges)])
