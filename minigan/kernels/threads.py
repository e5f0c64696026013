"""Splitting the work of a kernel over threads.

NumPy lets other Python threads run while it computes, so two threads on two halves of a batch are twice
as fast, as long as the BLAS uses one thread each. Nobody is forced into this: kernels work on the
caller's thread alone, unless a Team was hired (minigan.performance does that).

The process has one team, as it has one BLAS. Several threads may give it work at a time: helpers wait for
nobody, so all of it gets done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..backend import Array

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

# Held while work is given to helpers, and while they are dismissed. Never while the process forks: the child
# would wait for a thread that it does not have.
_giving = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_giving.acquire, after_in_parent=_giving.release, after_in_child=_giving.release
    )


class Team:
    """`size` threads: whoever has work, and helpers that wait for it."""

    def __init__(self, size: int):
        self.size = size
        self._helpers: ThreadPoolExecutor | None = None
        self._process = 0

    def run(self, tasks: list[Callable[[], T]]) -> list[T]:
        """The results of all tasks, in order. The caller does the first one itself.

        A helper works in a copy of the caller's context, so that np.errstate holds there, too.
        """
        with _giving:
            helpers = self._hired()
            others = [helpers.submit(copy_context().run, _help, task) for task in tasks[1:]]
        try:
            first = tasks[0]()
        finally:  # whatever happens here, nobody may still be writing into our arrays afterwards
            for other in others:
                other.exception()
        return [first, *(other.result() for other in others)]

    def _hired(self) -> ThreadPoolExecutor:
        if self._helpers is None or self._process != os.getpid():  # threads do not survive a fork
            from concurrent.futures import ThreadPoolExecutor  # loaded only where it is needed

            self._helpers, self._process = ThreadPoolExecutor(self.size - 1, "minigan"), os.getpid()
        return self._helpers

    def dismiss(self) -> None:
        """Let the helpers go, when they have done what they were given."""
        with _giving:
            helpers, process = self._helpers, self._process
            self._helpers, self._process = None, 0
        if helpers is not None and process == os.getpid():
            helpers.shutdown()


_team: Team | None = None
_helping: ContextVar[bool] = ContextVar("helping", default=False)


def _help(task: Callable[[], T]) -> T:
    _helping.set(True)
    return task()


def hire(team: Team | None) -> None:
    """From now on kernels share their work with this team, whichever thread they are called from."""
    global _team
    _team = team


def team() -> Team | None:
    """Who shares the work of the kernel that is running. A helper has nobody: it could wait for itself."""
    return None if _helping.get() else _team


def split(work: Callable[[int, int], T], n: int, like: Array, least: int = 1) -> list[T]:
    """[work(0, a), work(a, b) ... work(z, n)]: one part for each thread of the team, of `least` or more.

    like: an array of the library that `work` uses. Only NumPy's work is split; a GPU has threads of its own.
    """
    hired = team() if type(like) is np.ndarray else None
    parts = 1 if hired is None else min(hired.size, n // max(least, 1))
    if hired is None or parts < 2:
        return [work(0, n)]
    edges = [n * i // parts for i in range(parts + 1)]
    return hired.run([partial(work, lo, hi) for lo, hi in pairwise(edges)])
