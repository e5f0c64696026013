"""Trials side by side, each in a process of its own; and how they end when somebody says so.

Fork copies the whole process, so a trial may be any function. A process sends back what was found, or the
error that came instead. Ctrl-C in a terminal is heard by all of them; where only this process is told to end,
it tells the others.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from threadpoolctl import threadpool_limits

from minigan.data import DataError
from minigan.finite import NonFiniteError
from minigan.training.checkpoint import RunError

__all__ = ["Terminated", "possible", "side_by_side", "terminated"]

Trial = Callable[[], dict[str, Any]]
STOPS = {signal.SIGINT, signal.SIGTERM}


def possible() -> bool:
    """Whether this system can fork and say which cores a process may use: Linux can."""
    return hasattr(os, "sched_setaffinity")


def side_by_side(
    trials: Mapping[str, Trial],
    jobs: int,
    lock: int | None,
    keep: Callable[[str, dict[str, Any]], None],
    tell: Callable[[list[str], int], None],
) -> None:
    """Each trial in a process of its own, on its own share of the cores; `jobs` of them at a time.

    lock: the file descriptor of a lock that is to end with this process. keep(name, found): told of each
    trial that is done. tell(running, waiting): told which trials run, whenever others do, and how many wait.
    """
    cores = sorted(os.sched_getaffinity(0))
    shares = [set(cores[i::jobs]) or {cores[i % len(cores)]} for i in range(jobs)]
    fork = multiprocessing.get_context("fork")  # so that a trial may be any function
    waiting = list(trials.items())
    running: dict[Any, tuple[str, Any, set[int]]] = {}  # by the end of the pipe that hears of it
    try:
        while waiting or running:
            more = bool(waiting and shares)
            while waiting and shares:
                (name, trial), share = waiting.pop(0), shares.pop()
                ours, theirs = fork.Pipe(duplex=False)
                child = fork.Process(target=_work, args=(trial, share, theirs, (ours, lock)), daemon=True)
                with _without_ctrl_c():  # half-way through a fork there is nobody to handle it
                    child.start()
                theirs.close()
                running[ours] = name, child, share
            if more:
                tell([name for name, _, _ in running.values()], len(waiting))
            done = wait(list(running))
            for ours in [pipe for pipe in running if pipe in done]:
                name, child, share = running.pop(ours)
                shares.append(share)
                keep(name, _received(ours, name))
                child.join()
    finally:
        heard = type(sys.exc_info()[1]) is KeyboardInterrupt  # so have they: they save what they have
        for _, child, _ in running.values():
            child.join(timeout=20 if heard else 0)
        for _, child, _ in running.values():
            child.terminate()
            child.join()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a study as Ctrl-C does."""

    signal = signal.SIGTERM


def terminated(signum: int, frame: Any) -> None:
    """What signal.signal is given for SIGTERM."""
    raise Terminated


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait. A process born inside is deaf to them until it changes that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _work(trial: Trial, share: set[int], answer: Connection, inherited: tuple[Any, int | None]) -> None:
    """What the process of a trial does: it sends what was found, or the error that came instead.

    inherited: the other end of the pipe, and the lock. They are the parent's, and have to end with it.
    """
    inherited[0].close()
    if inherited[1] is not None:
        os.close(inherited[1])
    found: Any = KeyboardInterrupt()
    with suppress(KeyboardInterrupt):  # a second one, while the first is being dealt with
        found = _found(trial, share)
    with suppress(BrokenPipeError, KeyboardInterrupt):  # nobody listens any more
        # from here to its end this process has nothing to save: no interrupt is worth a word
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        answer.send(found)


def _found(trial: Trial, share: set[int]) -> Any:
    """What the trial finds, on these cores; or the error that came instead."""
    try:
        signal.signal(signal.SIGTERM, terminated)
        _end_with_the_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.sched_setaffinity(0, share)
        with threadpool_limits(len(share)):
            return trial()
    except KeyboardInterrupt:
        return KeyboardInterrupt()
    except (RunError, DataError, NonFiniteError, OSError, MemoryError) as error:
        return error
    except Exception:
        traceback.print_exc()  # a mistake in the program: where it is cannot be sent
        return RunError("a trial failed; see above")


def _end_with_the_parent() -> None:
    """Ask Linux for a SIGTERM when the parent dies, in whatever way."""
    parent, wish = multiprocessing.parent_process(), 1  # PR_SET_PDEATHSIG, see prctl(2)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(wish, signal.SIGTERM)
    if parent is not None and os.getppid() != parent.pid:  # it has died already
        raise Terminated


def _received(answer: Connection, name: str) -> dict[str, Any]:
    try:
        found = answer.recv()
    except EOFError:
        raise RunError(f"{name}: its process ended without a word; was the memory too small?") from None
    if isinstance(found, BaseException):
        raise found
    return found
