"""Events for TensorBoard, written with tensorboardX where it is installed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import RunError

__all__ = ["Events"]


class Events:
    """The losses of each epoch as events in RUN/tensorboard; `tensorboard --logdir RUN` shows them.

    step: where the run goes on; what was written for later steps is hidden.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise RunError(
                'events for TensorBoard need the package tensorboardX: pip install "minigan[tensorboard]"'
            ) from None
        self.step = 0
        self._make, self._folder = SummaryWriter, str(Path(folder) / "tensorboard")
        self._writer: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl, at its step."""
        if self._writer is None:  # a file of its own, even if another one was begun in the same second
            self._writer = self._make(
                self._folder,
                purge_step=self.step + 1 if self.step else None,
                filename_suffix=f".{os.getpid()}.{self.step}",
            )
        for name, value in record.items():
            if name not in ("step", "epoch") and math.isfinite(value):
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()
        self.step = record["step"]

    def close(self) -> None:
        """Finish the file. What is written afterwards goes into another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
