"""What the studies in this folder have in common: arguments, results that survive, steps that go on.

    parser = study.arguments(__doc__, "dirac_gan", seeds=1)

    def main(options):
        results = study.Results(options, {"steps": 500})
        results.measure({f"gan, seed {s}": partial(trial, s) for s in range(options.seeds)})
        results.trials["gan, seed 0"]                                # {"modes": 8, "seconds": 1.2}
        results.write_up("Dirac-GAN", reduced="nothing", body=tables.table(header, rows))

    if __name__ == "__main__":
        study.run(main, parser)

A study is made of trials. What a trial measured goes to results.json as soon as it is done. When a study was
stopped, the same command goes on with the trials that are missing, and long trials go on from a checkpoint.
Trials know nothing of each other, so each core can work on one of its own: see --jobs. In the end the folder
holds results.json, README.md with the table, and figure.png. A terminal is shown which trials run meanwhile.

Beside this file: jobs.py (processes), tables.py (numbers in words), samples.py (digits, and what G draws),
trials.py (many small networks at once), players.py (those that draw digits).
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import jobs
import numpy as np
from tqdm import tqdm

import minigan
from minigan import io, process
from minigan.files import whole_file
from minigan.training import command_line
from minigan.training.checkpoint import RunError
from minigan.training.progress import Interrupted, Signals

Trial = Callable[[], Mapping[str, Any]]

__all__ = ["Notes", "Results", "arguments", "due", "file_name", "run", "steps"]


def arguments(doc: str | None, name: str, seeds: int, mnist: bool = False) -> argparse.ArgumentParser:
    """A parser with the arguments of all studies. seeds: how many, if nobody says. mnist: it needs MNIST."""
    parser = argparse.ArgumentParser(description=(doc or "").strip().partition("\n")[0])
    parser.set_defaults(study=name, size="default")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--quick", dest="size", action="store_const", const="quick", help="seconds: does it run at all?")
    add("--full", dest="size", action="store_const", const="full", help="as in the paper: hours")
    add = parser.add_argument
    add("--backend", choices=["numpy", "cupy"], default="numpy", help="cupy: on a GPU")
    add(
        "--jobs",
        type=command_line.positive_int,
        metavar="N",
        help="trials at a time (one for each core)",
    )
    add(
        "--seeds",
        type=command_line.positive_int,
        default=seeds,
        metavar="N",
        help=f"trials of each row ({seeds})",
    )
    add("--out", type=Path, help=f"folder of the results (results/{name}, results/{name}-quick ...)")
    if mnist:
        add("--data-dir", type=Path, help="folder with the files of MNIST (or $MINIGAN_DATA)")
    return parser


def run(main: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, call main(options), and end as the other examples do (command_line.py)."""

    def guarded(options: argparse.Namespace) -> None:
        signal.signal(signal.SIGTERM, jobs.terminated)
        try:
            main(options)
        except KeyboardInterrupt as stop:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            sys.exit(128 + (stop.signal if isinstance(stop, Interrupted | jobs.Terminated) else 2))

    command_line.run(guarded, parser)


class Results:
    """The folder of a study: what its trials measured, and what came of it.

    options: from `arguments`. settings: all that the numbers depend on besides seed and trial, such as steps
    and layer sizes. Trials of other settings are not mixed in: a folder that has some is refused.
    """

    def __init__(self, options: argparse.Namespace, settings: Mapping[str, Any]):
        suffix = "" if options.size == "default" else f"-{options.size}"
        self.options = options
        self.folder: Path = options.out or Path("results") / f"{options.study}{suffix}"
        self.path = self.folder / "results.json"
        self.settings = {"size": options.size, "backend": options.backend, **settings}
        self.settings = json.loads(json.dumps(self.settings))  # as they come back from the file
        self.trials: dict[str, dict[str, Any]] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder}: {error.strerror}; choose another folder with --out") from error
        if self.path.exists():
            self._read()
        else:
            self._save()  # from now on the folder belongs to these settings

    def _read(self) -> None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            settings, self.trials = dict(found["settings"]), dict(found["trials"])
            for trial in self.trials.values():
                float(trial["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path}: is no file of results ({type(error).__name__}: {error}); remove it, or choose "
                "another folder with --out"
            ) from error
        different = [k for k in {**settings, **self.settings} if settings.get(k) != self.settings.get(k)]
        if different:
            raise RunError(
                f"{self.path}: has results of other settings ({', '.join(different)}); choose another folder "
                "with --out"
            )

    def measure(self, trials: Mapping[str, Trial]) -> list[dict[str, Any]]:
        """What these trials found, each a dict of numbers, strings, lists. They run only if they have to."""
        missing = {
            name: partial(_timed, trial, self.unfinished(name))
            for name, trial in trials.items()
            if name not in self.trials
        }
        count = min(self.options.jobs or process.cores(), len(missing))
        with _lock(self.folder) as lock:
            if count > 1 and self.options.backend == "numpy" and jobs.possible():
                jobs.side_by_side(missing, count, lock, self._keep, _tell)
            else:
                for i, (name, trial) in enumerate(missing.items(), start=1):
                    _tell([name], len(missing) - i)
                    self._keep(name, trial())
        return [self.trials[name] for name in trials]

    def _keep(self, name: str, found: Mapping[str, Any]) -> None:
        self.trials[name] = _plain(found)
        self._save()
        shutil.rmtree(self.unfinished(name), ignore_errors=True)
        print(f"{name}: {_brief(self.trials[name])}", flush=True)

    def unfinished(self, name: str) -> Path:
        """A folder for the checkpoints of this trial. It is removed when the trial is done.

        Its name has a hash of the settings, so that no trial goes on from a checkpoint of other settings.
        """
        settings = json.dumps([name, self.settings], sort_keys=True)
        mark = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return self.folder / "unfinished" / f"{file_name(name)}-{mark}"

    def _save(self) -> None:
        versions = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "minigan": minigan.__version__,
            "blas": process.blas(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        }
        content = {
            "study": self.options.study,
            "command": self.command(),
            "date": datetime.date.today().isoformat(),
            "versions": versions,
            "seconds": round(sum(trial["seconds"] for trial in self.trials.values()), 1),
            "jobs": self.options.jobs or versions["cores"],
            "settings": self.settings,
            "trials": self.trials,
        }
        with whole_file(self.path) as file:
            file.write(_text(content).encode())

    def command(self) -> str:
        """What to type for these results."""
        words = [f"python examples/papers/{self.options.study}.py"]
        words += [f"--{self.options.size}"] * (self.options.size != "default")
        words += [f"--backend {self.options.backend}"] * (self.options.backend != "numpy")
        return " ".join([*words, f"--seeds {self.options.seeds}"])

    def write_up(self, title: str, reduced: str, body: str) -> None:
        """Put the table into README.md, with what one has to know about it, and print it.

        reduced: what is smaller or shorter than in the paper. figure.png, if the study has made one, is shown
        below the text.
        """
        found = json.loads(self.path.read_text(encoding="utf-8"))
        versions = found["versions"]
        text = (
            f"# {title}\n\n"
            f"`{self.command()}`, {found['date']}. The trials took {_duration(found['seconds'])} in all, "
            f"{_count(found['jobs'], 'trial')} at a time, on {_count(versions['cores'], 'core')}: Python "
            f"{versions['python']}, NumPy {versions['numpy']}, {versions['blas']}.\n\n"
            f"Reduced: {reduced.rstrip('.')}.\n\n{body.strip()}\n"
        )
        if (self.folder / "figure.png").exists():
            text += "\n![What the table says, as a picture](figure.png)\n"
        with whole_file(self.folder / "README.md") as file:
            file.write(text.encode())
        print(f"\n{body.strip()}\n\nwritten to {self.folder}")


def steps(
    folder: Path, parts: Mapping[str, Any], total: int, every: float = 30.0, threads: int | None = None
) -> Iterator[int]:
    """0, 1 ... total - 1: the numbers of the steps of a trial, from where it was stopped the last time.

    parts: all that changes from step to step and has a state_dict: networks, optimisers. What is random in a
    step should come from stream(seed, purpose, step), so that nothing else needs to be kept. The state is
    saved in `folder` every so many seconds, and on Ctrl-C. On a terminal a bar shows how far it is.
    """
    path, done, seconds = folder / "checkpoint.npz", 0, 0.0
    if path.exists():
        with _usable(path):
            state = io.load(path)
            for name, part in parts.items():
                if part.state_dict():  # a loss without a state of its own has nothing to load
                    part.load_state_dict(io.section(state, name))
            done, seconds = int(state["step"]), float(state["seconds"])
    start = saved = time.monotonic()
    bar = tqdm(
        total=total, initial=done, disable=not _watched(), leave=False, dynamic_ncols=True, unit="step"
    )
    with bar, Signals() as signals, process.performance(threads):
        for step in range(done, total):
            yield step
            bar.update()
            now = time.monotonic()
            if signals.received is not None or now - saved > every:
                folder.mkdir(parents=True, exist_ok=True)
                counts = {"step": step + 1, "seconds": seconds + now - start}
                io.save(path, {**counts, **{name: part.state_dict() for name, part in parts.items()}})
                saved = time.monotonic()
            if signals.received is not None:
                raise Interrupted(signals.received, step + 1, folder)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Inside, a checkpoint is read. If it is none, or that of something else, this says so."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines())
        raise RunError(
            f"{path}: cannot go on from it: {reason}; remove it, and the trial begins anew"
        ) from error


def due(step: int, looks: int, steps: int) -> bool:
    """Whether one of so many looks at G is due after this step: they are spread evenly, the last at the end.

    >>> [step for step in range(10) if due(step, 3, 10)]
    [3, 6, 9]
    """
    return (step + 1) * looks % steps < looks


class Notes:
    """A list of what was measured on the way, kept in a trial's checkpoint: one of the `parts` of steps()."""

    def __init__(self, notes: list[Any]):
        self.notes = notes

    def state_dict(self) -> dict[str, str]:
        return {"json": json.dumps(_plain(self.notes))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.notes[:] = json.loads(str(state["json"]))


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """Inside, no other study measures anything for this folder. Gives the file descriptor of the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"{folder}: another study is writing here; choose another folder with --out"
            raise RunError(problem) from None
        yield handle
    finally:
        os.close(handle)


# -------------------------------------------------------------------------------- one trial, one process


def _timed(trial: Trial, folder: Path) -> dict[str, Any]:
    """What the trial found, and the seconds it took: those up to its checkpoint, if it has one, and since."""
    path, before = folder / "checkpoint.npz", 0.0
    if path.exists():
        with _usable(path):
            before = float(io.load(path)["seconds"])
    start = time.perf_counter()
    found = dict(trial())
    return {**found, "seconds": round(before + time.perf_counter() - start, 2)}


def _watched() -> bool:
    """Whether this process is the one that talks to a terminal. Those of trials side by side keep quiet."""
    return parent_process() is None and sys.stderr is not None and sys.stderr.isatty()


def _tell(running: Sequence[str], waiting: int) -> None:
    """Say which trials run, and how many come after them, if somebody watches."""
    if _watched():
        print(f"running: {'; '.join(running)} ({waiting} waiting)", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------ results as text


def file_name(name: str) -> str:
    """The name of a trial with letters and digits only: for files.

    >>> file_name("GAN + R1, ring")
    'GAN---R1--ring'
    """
    return "".join(c if c.isalnum() else "-" for c in name)


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype(str).astype(float).tolist()  # 0.1, not 0.10000000149011612
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _text(content: Mapping[str, Any]) -> str:
    """JSON for people: a line for each trial."""
    head = json.dumps({key: value for key, value in content.items() if key != "trials"}, indent=1)
    trials = [f"  {json.dumps(name)}: {json.dumps(trial)}" for name, trial in content["trials"].items()]
    return head.removesuffix("\n}") + ',\n "trials": {\n' + ",\n".join(trials) + "\n }\n}\n"


def _brief(trial: Mapping[str, Any]) -> str:
    """The numbers of a trial in one line; lists are left out."""
    words = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.items()]
    return ", ".join(word for word, value in zip(words, trial.values(), strict=True) if np.isscalar(value))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
