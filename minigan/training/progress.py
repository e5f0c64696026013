"""What a run prints while it goes on, and the signals that stop it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any, TextIO

__all__ = ["Interrupted", "Progress", "Signals"]

REFRESH = 0.2  # seconds between two updates of the bar
KNOWN = (("loss_d", "L_D", 3), ("loss_g", "L_G", 3), ("d_real", "D(x)", 2))  # what a game reports


class Progress:
    """A bar with the losses on a terminal; elsewhere, as in a log file, a line for each epoch; or nothing.

    done, total: steps of G. quiet: nothing at all.
    """

    def __init__(self, done: int, total: int, quiet: bool = False):
        self._bar: Any = None
        self._quiet = quiet
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                mininterval=REFRESH,
                dynamic_ncols=True,
                unit="step",
                smoothing=0.05,
            )
        self._total = total

    def step(self, report: Mapping[str, Any]) -> None:
        """A step is done."""
        if self._bar is not None and self._bar.update(1):
            self._bar.set_description_str(_shown(_numbers(report), sys.stderr), refresh=False)

    def epoch(self, record: Mapping[str, Any], seconds_a_step: float) -> None:
        """An epoch is done; `record` is its line in metrics.jsonl."""
        left = (self._total - record["step"]) * seconds_a_step
        self.log(
            f"epoch {record['epoch']:3d}  step {record['step']:6d}  {_numbers(record)}  "
            f"{1000 * seconds_a_step:.2f} ms/step  {_clock(left)} left"
        )

    def log(self, text: str) -> None:
        """Print a line of text, above the bar if there is one."""
        if self._quiet:
            return
        text = _shown(text, sys.stdout)
        try:
            if self._bar is not None:
                self._bar.write(text)
            else:
                print(text, flush=True)
        except (OSError, ValueError):  # nobody reads it any more, as after `| head`: train on
            self._quiet = True

    def close(self) -> None:
        """Leave the terminal as it should be."""
        if self._bar is not None:
            self._bar.close()


def _shown(text: str, stream: TextIO | None) -> str:
    """The text as the stream can encode it: an arrow may become "->", and anything else "?"."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.replace("→", "->").encode(encoding, "replace").decode(encoding)


def _numbers(found: Mapping[str, Any]) -> str:
    """What a step or an epoch reports: of a Game the losses and D's mean outputs, of others what there is."""
    rest = {name: float(value) for name, value in found.items() if name not in ("epoch", "step", "seconds")}
    words = [f"{word} {rest.pop(name):.{digits}f}" for name, word, digits in KNOWN if name in rest]
    if "d_fake_before" in rest and "d_fake_after" in rest:
        words.append(f"D(G(z)) {rest.pop('d_fake_before'):.2f}→{rest.pop('d_fake_after'):.2f}")
    return "  ".join([*words, *(f"{name} {value:.3f}" for name, value in rest.items())])


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, and has stopped after a step. signal: which; folder: where it is saved."""

    def __init__(self, signum: int, step: int, folder: Any):
        where = f"saved in {folder}" if folder is not None else "nothing saved, since the run has no folder"
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; {where}")
        self.signal, self.folder = signum, folder


class Signals:
    """Inside, Ctrl-C (SIGINT) and SIGTERM are only noted, in `received`, for the loop to finish its step.

    The second one does what it always does. Only the main thread receives signals; elsewhere this does
    nothing.
    """

    def __enter__(self) -> Signals:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(signum) != signal.SIG_IGN:  # somebody wants it ignored: nohup, or `run &`
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
