"""Events for TensorBoard, written with tensorboardX where it is installed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import RunError

__all__ = ["Events", "summary_writer"]


def summary_writer() -> Any:
    """What tensorboardX writes events with; a RunError where it is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise RunError(
            'events for TensorBoard need the package tensorboardX: pip install "minigan[tensorboard]"'
        ) from None
    return SummaryWriter


class Events:
    """The losses of each epoch as events in RUN/tensorboard; `tensorboard --logdir RUN` shows them.

    step: where the run goes on; what was written for later steps is hidden.
    """

    def __init__(self, folder: Path, step: int = 0):
        summary_writer()  # is it there?
        self._folder, self._step = str(folder / "tensorboard"), step
        self._writer: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl, at its step."""
        if self._writer is None:  # a file of its own, even if another one was begun in the same second
            self._writer = summary_writer()(
                self._folder,
                purge_step=self._step + 1 if self._step else None,
                filename_suffix=f".{os.getpid()}.{self._step}",
            )
        for name, value in record.items():
            if name not in ("step", "epoch") and math.isfinite(value):
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()
        self._step = record["step"]

    def close(self) -> None:
        """Finish the file. What is written afterwards goes into another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
