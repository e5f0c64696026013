"""Measuring libraries against each other: each in a process of its own, taking turns.

The threads of two BLAS libraries disturb each other inside one process, so every library gets its own
worker. They take turns (A B A B ...), so that a slow moment of the machine hits all; only one works at a
time. Compare ratios within one run: differences under 8 % mean nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_info

WARM_UP = 0.15  # seconds
Seconds = dict[str, list[float]]


def work(cases: dict[str, Callable[[], Any]]) -> None:
    """Be a worker: read a case a line, answer with the seconds of one run of it."""
    print("ready", flush=True)
    for line in sys.stdin:
        case, runs = json.loads(line)
        run = cases[case]
        start = time.perf_counter()
        while True:  # warm up: caches, and threads that fell asleep, until they run on different cores again
            run()
            if time.perf_counter() - start > WARM_UP:
                break
        start = time.perf_counter()
        for _ in range(runs):
            run()
        print((time.perf_counter() - start) / runs, flush=True)


class Workers:
    """One process for each library: `script --worker name *arguments`."""

    def __init__(self, script: str, names: list[str], *arguments: str):
        self._processes: dict[str, Any] = {}
        for name in names:
            command = [sys.executable, script, "--worker", name, *arguments]
            pipe = subprocess.PIPE
            self._processes[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
            if self._processes[name].stdout.readline() != "ready\n":
                raise SystemExit(f"{name} did not start (is the extra `bench` installed?)")

    def times(self, case: str, runs: int, rounds: int) -> Seconds:
        """{library: seconds of one run, for each round}."""
        seconds: Seconds = {name: [] for name in self._processes}
        for _ in range(rounds):
            for name, worker in self._processes.items():
                time.sleep(0.2)  # until the threads of the one before have gone to sleep
                worker.stdin.write(json.dumps([case, runs]) + "\n")
                seconds[name].append(float(worker.stdout.readline()))
        return seconds

    def close(self) -> None:
        for worker in self._processes.values():
            worker.stdin.close()
            worker.wait()


def ratio(seconds: Seconds, ours: str = "minigan", theirs: str = "torch") -> float:
    """The median of ours/theirs over the rounds."""
    return statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True))


def versions(*libraries: str) -> str:
    """What was measured, in one line: versions, and what NumPy multiplies with."""
    named = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*libraries, "numpy"))
    blas = [
        f"{info['internal_api']} {info['version']} ({info.get('architecture', '')}, "
        f"{info['num_threads']} threads)"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]
    return f"Python {sys.version.split()[0]}, {named}; BLAS of NumPy: {', '.join(blas)}"
