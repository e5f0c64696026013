"""The folder of a training run: what is in it, and that only one run at a time writes there.

RUN/config.json        everything needed to repeat the run: options, settings, networks, versions
RUN/metrics.jsonl      a line of JSON for each epoch
RUN/samples/           epoch_0001.png ...: what G draws from always the same noise
RUN/curves.png         the losses, and D's mean outputs, over the epochs
RUN/checkpoint.npz     see checkpoint.py
RUN/progress.gif       the samples as a film, at the end
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import viz
from ..files import remove_unfinished, whole_file
from ..nn import Module
from ..optim import Optimizer
from ..process import blas
from ..version import __version__
from .checkpoint import NAME, PREVIOUS, RunError
from .play import Play

__all__ = ["RunFolder", "description", "free_folder", "read_config"]

SAME = ("settings", "networks", "data", "backend")  # what must not change when a run goes on
TRACES = ("config.json", "metrics.jsonl", NAME, PREVIOUS)  # where one of these is, there is a run
RESULTS = ("curves.png", "progress.gif")  # what it writes besides, with the pictures in samples/


class RunFolder:
    """The folder at `path`. It belongs to this process until `close`.

    config: what goes into config.json. resume: go on with the run that is there; otherwise there must be
    none. Where that is not so, a RunError says it.
    """

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any], resume: bool):
        self.path = Path(path)
        self._lock: IO[bytes] | None = None
        self._config = _plain(config)
        if resume:
            there = read_config(self.path)
            _compare(self.path, there, self._config)
            self._config = {**there, "options": {**there.get("options", {}), **self._config["options"]}}
        elif any((self.path / name).exists() for name in TRACES):
            raise RunError(
                f"{self.path}: holds a run already; go on with it (--resume {self.path}), or take another"
            )
        else:
            for found in (*(self.path / name for name in RESULTS), *self._pictures()):
                if found.exists():
                    raise RunError(
                        f"{found}: is there already, and would be overwritten; take another folder"
                    )
        try:
            with _writing(self.path):
                (self.path / "samples").mkdir(parents=True, exist_ok=True)
                self.open()
                if not resume and any((self.path / name).exists() for name in TRACES):
                    raise RunError(f"{self.path}: another run has just begun here; take another folder")
                if resume:
                    self._tidy()
                else:
                    self.describe()
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Keep others from using the folder; a RunError if one does."""
        if self._lock is None:
            self._lock = _locked(self.path)

    def close(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _pictures(self) -> list[Path]:
        """What `draw` has saved, in the order of the epochs."""
        found = (self.path / "samples").glob("epoch_*.png")
        return sorted((path for path in found if _epoch_of(path) >= 0), key=_epoch_of)

    def _tidy(self) -> None:
        """Remove what the run has left half written if it was killed."""
        for name in (*TRACES, *RESULTS):
            remove_unfinished(self.path, name)
        remove_unfinished(self.path / "samples", "epoch_*.png")

    def is_untouched(self) -> bool:
        """Whether the run was stopped before anything was kept of it: there is a description, and no more."""
        return not any((self.path / name).exists() for name in TRACES if name != "config.json")

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        line, path = json.dumps(_plain(record)) + "\n", self.path / "metrics.jsonl"
        with _writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(line)

    def records(self, until_step: float = math.inf) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, up to a step, without one that was cut off when the run was killed."""
        path = self.path / "metrics.jsonl"
        records = []
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                record = json.loads(line)
                if record["step"] <= until_step:
                    records.append(record)
            except (ValueError, KeyError, TypeError):
                continue
        return records

    def forget_after(self, step: int) -> None:
        """Remove what was logged after this step: a run that goes on from there will log it again."""
        path = self.path / "metrics.jsonl"
        with _writing(path):
            records = self.records(step)
            _write(path, "".join(json.dumps(record) + "\n" for record in records))
            last = max((record.get("epoch", 0) for record in records), default=0)
            for picture in self._pictures():
                if _epoch_of(picture) > last:
                    picture.unlink()

    def describe(self) -> None:
        """Write config.json. Where a run goes on, its options may be others: more epochs, say."""
        path = self.path / "config.json"
        with _writing(path):
            _write(path, json.dumps(self._config, indent=2) + "\n")

    def draw(self, epoch: int, picture: np.ndarray | None, equilibrium: tuple[float, float] | None) -> None:
        """Save the picture of an epoch, if there is one, and the curves so far."""
        with _writing(self.path):
            if picture is not None:
                viz.save_png(self.path / "samples" / f"epoch_{epoch:04d}.png", picture)
            if records := self.records():
                viz.curves(self.path / "curves.png", records, equilibrium=equilibrium)

    def film(self) -> None:
        """Make progress.gif of the pictures."""
        path = self.path / "progress.gif"
        if frames := self._pictures():
            with _writing(path):
                viz.gif(path, frames)


def _epoch_of(path: Path) -> int:
    """The number in samples/epoch_0012.png; -1 in a name that `draw` would not give."""
    number = path.stem.partition("_")[2]
    return int(number) if number.isdecimal() and path.stem == f"epoch_{int(number):04d}" else -1


def free_folder(name: str, parent: str | os.PathLike[str] = "runs") -> Path:
    """The first of runs/name-1, runs/name-2 ... that does not exist yet."""
    number = 1
    while (Path(parent) / f"{name}-{number}").exists():
        number += 1
    return Path(parent) / f"{name}-{number}"


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The config.json of a run."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read: {error.strerror}; is {folder} the folder of a run?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("options", {}), dict):
        raise RunError(f"{path}: is no description of a run")
    return config


def description(play: Play, seed: int, backend: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says: everything needed to repeat the run."""
    parts = play.parts()
    optimizers = {who: part.settings() for who, part in parts.items() if isinstance(part, Optimizer)}
    return {
        "minigan": __version__,
        "options": dict(options),
        "settings": {"seed": seed, **play.settings(), "optimizers": optimizers},
        "networks": {who: repr(part) for who, part in parts.items() if isinstance(part, Module)},
        "data": {name: data.fingerprint() for name, data in play.data().items()},
        "backend": backend,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What the numbers depend on besides: other versions may round otherwise."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in ("numpy", "scipy", "cupy"):
        if name in sys.modules:
            found[name] = sys.modules[name].__version__
    return {**found, "blas": blas()}


def _compare(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """A run goes on only with the networks, data and settings that it began with."""
    for part in SAME:
        old, new = there.get(part), here.get(part)
        if old == new:
            continue
        for _ in range(2 if part == "data" else 1):  # a dict of data sets, each of them a dict
            if not (isinstance(old, dict) and isinstance(new, dict)):
                break
            key = next(key for key in {**old, **new} if old.get(key, "unknown") != new.get(key, "unknown"))
            old, new, part = old.get(key, "unknown"), new.get(key, "unknown"), f"{part}, {key}"
        was, now = (" ".join(str(value).split()) for value in (old, new))
        hint = "; is --data-dir right?" if part.startswith("data") else ""
        raise RunError(f"{folder}: the run began with other {part}: {was} then, {now} now{hint}")


def _locked(folder: Path) -> IO[bytes] | None:
    """An open file that marks the folder as in use, for as long as this process lives."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file = open(folder / ".minigan.lock", "a+b", buffering=0)  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    except BlockingIOError:
        file.seek(0)
        owner = file.read().decode(errors="replace") or "unknown"
        file.close()
        raise RunError(f"{folder}: another run is writing here (process {owner})") from None
    except OSError:  # a file system without locks, or without room for the number
        pass
    return file


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Inside, an OSError becomes a RunError that names the file, `path` where the error does not know it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{error.filename or path}: cannot be written: {reason}") from error


def _plain(value: Any) -> Any:
    """As JSON can hold it: paths and anything unknown as text, NumPy numbers as numbers, nan as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
