"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file.

    RUN/checkpoint.npz              the last one
    RUN/checkpoint.previous.npz     the one before

A file is written beside its place, flushed to the disk, and then renamed, so that at every moment there is
a whole checkpoint under one of the names. It holds arrays, numbers and strings, and nothing that is run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from ..files import unfinished, whole_file

__all__ = ["RunError", "read_checkpoint", "write_checkpoint"]

NAME, PREVIOUS = "checkpoint.npz", "checkpoint.previous.npz"
FORMAT = 2  # raised when a new version could not go on from an old file


class RunError(Exception):
    """A run that cannot begin or go on: one line that names the file and the cause."""


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Put `state` into the folder's checkpoint. The one that was there is kept as the previous one."""
    now = folder / NAME
    try:
        with whole_file(now) as file:
            io.write_npz(file, {"format": FORMAT, **state})
            file.flush()  # a full disk is noticed here, while both old ones are there
            if now.exists():
                _keep(now, folder / PREVIOUS)
    except OSError as error:
        raise RunError(f"{now}: cannot be written: {error.strerror or error}") from error


def _keep(now: Path, previous: Path) -> None:
    """Give the file `now` the name `previous` as well: at no moment is it without one."""
    spare = unfinished(previous)
    try:
        try:
            os.link(os.path.realpath(now), spare)
        except OSError:  # a file system without links
            shutil.copyfile(now, spare)
        os.replace(spare, previous)
    finally:
        spare.unlink(missing_ok=True)  # it stays where `previous` was another name of the same file


def read_checkpoint(folder: Path, oldest: int = FORMAT) -> dict[str, np.ndarray]:
    """What write_checkpoint wrote last. oldest: the oldest format that the caller understands."""
    path = folder / NAME
    hint = ""
    if (folder / PREVIOUS).is_file():
        hint = f"; the one before it is {PREVIOUS}: rename it to go on from there"
    if not path.is_file():
        raise RunError(f"{path}: there is no such file, so there is nothing to go on from{hint}")
    try:
        state = io.load(path)
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error).replace(f"load: {path}", "it")
        raise RunError(f"{path}: cannot be read: {reason}{hint}") from error
    found = state.pop("format", None)
    if found is None:
        raise RunError(f"{path}: this is no checkpoint of a training run (it has no entry 'format')")
    if found.ndim or found.dtype.kind not in "iu" or not oldest <= found <= FORMAT:
        raise RunError(
            f"{path}: its format is {found}, and this version of minigan reads format {FORMAT}; go on "
            "with the version that config.json names"
        )
    return state
