"""Trainer: the loop around the steps, for runs that have to survive.

    trainer = Trainer(game, images, noise=100, seed=0, folder="runs/first")
    trainer.run(epochs=20)

It knows what a run needs besides mathematics: which random numbers belong to which step, reports, pictures,
checkpoints, and what to do when somebody presses Ctrl-C, or when a number becomes infinite. A run that was
stopped, in whatever way, and goes on from its checkpoint (resume=True) ends with the same weights, to the
last bit, as one that was not. For that, nothing random has a hidden state: all that differs from step to step
comes out of one object made for the seed and the number of the step (draws.py).

What is trained is a Play (play.py). `Trainer(game, images, ...)` makes one of a Game.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend as _backend
from .. import nn
from ..finite import NonFiniteError, all_finite
from ..gan.gmmn import GMMN
from ..gan.steps import Game
from ..gpu.recorded_steps import RecordedSteps
from ..io import section
from ..ops.operands import whole
from ..process import performance
from ..tensor import Tensor
from .checkpoint import NAME, RunError, read_checkpoint, write_checkpoint
from .draws import Draws
from .ema import EMA
from .first_cause import first_cause
from .play import GamePlay, Play
from .progress import Interrupted, Progress, Signals
from .run_folder import RunFolder, description
from .tensorboard import Events

__all__ = ["Trainer", "load_generator"]


class Trainer:
    """A training run.

    play: what is trained. Or a Game (or GMMN); then data are the images, and settings those of GamePlay:
    noise, noise_kind, batch, d_steps, simultaneous, ema, samples, picture. folder: where the run is kept
    (run_folder.py); None: nowhere. resume: go on with the run in that folder. options: what config.json
    should remember of the caller. save_every: seconds between checkpoints. threads: None chooses: networks
    with convolutions share the work between threads, others leave it to the BLAS (process.py). before_step:
    called with the number of each step, from 0, to change something from step to step, such as the sigma of
    InstanceNoise. tensorboard: write events for TensorBoard, too. quiet: print nothing. capture: on a GPU,
    record a step and replay it, which is faster (gpu/recorded_steps.py); what a step reports, and the arrays
    of weights, are then written to again by the next step."""

    def __init__(
        self, play: Play | Game | GMMN, data: Any = None, *, seed: int = 0,
        folder: str | os.PathLike[str] | None = None, resume: bool = False,
        options: Mapping[str, Any] | None = None, save_every: float = 30.0, threads: int | None = None,
        before_step: Callable[[int], object] | None = None, tensorboard: bool = False, quiet: bool = False,
        capture: bool = False, **settings: Any,
    ):  # fmt: skip
        self.seed = whole("Trainer", "seed", seed, least=0)
        if (resume or tensorboard) and folder is None:
            raise ValueError("Trainer: resume=True and tensorboard=True need the folder of the run")
        if isinstance(play, Game | GMMN):
            play = GamePlay(play, data, seed=self.seed, **settings)
        elif data is not None or settings:
            raise TypeError(
                f"Trainer: data and {', '.join(settings) or 'settings'} go with a Game, not a Play"
            )
        self.play = play
        self.save_every, self.quiet, self.before_step = save_every, quiet, before_step
        networks = {who: part for who, part in play.parts().items() if isinstance(part, nn.Module)}
        layers = [layer for network in networks.values() for layer in network.modules()]
        # Convolutions share their work between threads; products of matrices are left to the BLAS.
        has_windows = any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in layers)
        self.threads = threads if threads is not None or has_windows else 1
        self._random_layers = [  # dropout and its kind
            (f"{who}.{name}", layer)
            for who, network in networks.items()
            for name, layer in network.named_modules()
            if layer.rng is not None
        ]
        trained = [p for network in networks.values() for p in network.parameters()]
        self.backend = trained[0].backend if trained else "numpy"
        self.draws = Draws(self.seed, self.backend)
        self.recorded = RecordedSteps(play, self.draws, before_step) if capture else None
        self.step = 0  # steps done
        self.seconds = 0.0  # spent in them
        self._sums: dict[str, Any] = {}  # of what the steps since the epoch began reported
        self._count = 0  # of these steps
        self.folder: RunFolder | None = None
        self._events = Events(folder) if tensorboard and folder is not None else None
        if folder is not None:
            self.folder = RunFolder(folder, description(play, self.seed, self.backend, options or {}), resume)
        try:
            if self.folder is not None and resume:
                self._load()
            if self._events is not None:
                self._events.step = self.step
        except BaseException:
            if self.folder is not None:
                self.folder.close()
            raise

    # ---------------------------------------------------------------------------- the loop

    @property
    def epoch(self) -> int:
        """Epochs completed: how often D has seen each image."""
        return int(self.step // self.play.steps_per_epoch)

    def run(self, epochs: int | None = None, *, steps: int | None = None) -> None:
        """Train until so many epochs, or steps, are done in all, those before a resume included."""
        if (epochs is None) == (steps is None):
            raise ValueError("Trainer.run: give either epochs or steps")
        last = math.ceil((epochs or 0) * self.play.steps_per_epoch) if steps is None else steps
        if self.folder is not None:
            self.folder.open()
        try:
            # Infinite numbers and NaN are looked for here; NumPy's warnings would come first, and say less.
            with Signals() as signals, performance(self.threads), np.errstate(all="ignore"):
                self._loop(last, signals)
        finally:
            if self.folder is not None:
                self.folder.close()

    def _loop(self, last: int, signals: Signals) -> None:
        progress = Progress(self.step, last, self.quiet)
        saved = time.monotonic()
        if self.recorded is not None:
            self.recorded.log = progress.log
            if self.recorded.why is not None:
                progress.log(f"capture: {self.recorded.why}; running eagerly")
        try:
            if self.step == 0:
                self._save_pictures()
                self.save()  # so that there is something to go on from, whatever happens
            while self.step < last:
                epoch = self.epoch
                report = self.train_step()
                self._accumulate(report)
                progress.step(report)
                if self.epoch > epoch:
                    self._end_epoch(progress)
                if signals.received is None and time.monotonic() - saved > self.save_every:
                    self.save()
                    saved = time.monotonic()
                self._stop_if_asked(signals)
            self.save()
            if self.folder is not None:
                self.folder.film()
            self._stop_if_asked(signals)
        finally:
            progress.close()
            if self._events is not None:
                self._events.close()

    def _stop_if_asked(self, signals: Signals) -> None:
        if signals.received is not None:
            self.save()
            raise Interrupted(signals.received, self.step, self.folder and self.folder.path)

    def train_step(self) -> Mapping[str, Any]:
        """One step; what it reports. On a NonFiniteError, the player concerned has not moved."""
        start = time.perf_counter()
        if self.before_step is not None:
            self.before_step(self.step)
        draws = self.draws.at(self.step)
        try:
            report = self.recorded.step(draws, self._play) if self.recorded else self._play(draws)
            self._check(report)
        except NonFiniteError as error:
            cause = first_cause(self.play.parts(), lambda: self._play(draws))
            raise NonFiniteError(f"step {self.step + 1}: {error}; {cause}") from None
        self.step += 1
        self.seconds += time.perf_counter() - start
        return report

    def _play(self, draws: Draws) -> Mapping[str, Any]:
        """One step, with these draws."""
        for name, layer in self._random_layers:
            layer.rng = draws.rng(name)
        return self.play.step(draws)

    # ------------------------------------------------------------------- reports and pictures

    def _check(self, report: Mapping[str, Any]) -> None:
        """What a step reports must be finite. (On a GPU that is checked once an epoch: see `_means`.)"""
        if self.backend == "numpy":
            for name, value in report.items():
                if not math.isfinite(value):
                    raise NonFiniteError(f"{name} is {float(value)}")

    def _accumulate(self, report: Mapping[str, Any]) -> None:
        """Add a step's report to the sums of the epoch."""
        for name, value in report.items():
            if isinstance(value, Tensor):
                value = float(value) if self.backend == "numpy" else value.data.astype(float)
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def _means(self) -> dict[str, float]:
        """The means since the epoch began. On a GPU this is the first time that the losses are read."""
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise NonFiniteError(
                    f"steps {self.step - self._count + 1} to {self.step}: {name} became infinite or NaN. On "
                    "a GPU this is noticed only where losses are read; the same run with --backend numpy "
                    "names the step and the op"
                )
        return means

    def _end_epoch(self, progress: Progress) -> None:
        start = time.perf_counter()
        means = self._means()  # a GPU does now what it was asked for in these steps: that is their time, too
        self.seconds += time.perf_counter() - start
        record = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 3), **means}
        self._sums, self._count = {}, 0
        if self.folder is not None:
            self.folder.log(record)
        if self._events is not None:
            self._events.write(record)
        self._save_pictures()
        progress.epoch(record, self.seconds / self.step)

    def _save_pictures(self) -> None:
        """The picture of this epoch, and the curves so far."""
        if self.folder is not None:
            picture = self.play.picture(self.draws.at(0))
            self.folder.draw(self.epoch, picture, self.play.equilibrium)

    # ---------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint, if the run has a folder. Weights that are not finite are never saved."""
        if self.folder is None:
            return
        state = {name: part.state_dict() for name, part in self.play.parts().items()}
        for part, values in state.items():
            for name, value in values.items():
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not all_finite([value]):
                    raise NonFiniteError(f"after step {self.step} {part}.{name} is not finite")
        mine = {"seed": self.seed, "step": self.step, "seconds": self.seconds, "count": self._count}
        sums = {name: float(total) for name, total in self._sums.items()}
        write_checkpoint(self.folder.path, {**state, "trainer": {**mine, "sums": sums}})

    def _load(self) -> None:
        """Restore everything from the checkpoint in the folder."""
        assert self.folder is not None
        if self.folder.is_untouched():
            return  # stopped before its first checkpoint: it begins at the beginning
        state = read_checkpoint(self.folder.path)
        try:
            mine = section(state, "trainer")
            if int(mine["seed"]) != self.seed:
                raise ValueError(f"its seed is {int(mine['seed'])}, not {self.seed}")
            for name, part in self.play.parts().items():
                if part.state_dict():
                    part.load_state_dict(section(state, name))
            self.step, self.seconds = int(mine["step"]), float(mine["seconds"])
            self._count = int(mine["count"])
            here = _backend.get(self.backend)
            for name, total in section(mine, "sums").items() if self._count else ():
                total = np.array(total, dtype=float).reshape(())
                self._sums[name] = float(total) if here.name == "numpy" else here.from_numpy(total)
            if self.step < 0 or self._count < 0 or not 0 <= self.seconds < math.inf:
                raise ValueError(f"step {self.step}, {self._count} steps in this epoch, {self.seconds} s")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            reason = "; ".join(line.strip() for line in str(error).splitlines())
            raise RunError(f"{self.folder.path / NAME}: does not belong to this run: {reason}") from error
        self.folder.forget_after(self.step)
        self.folder.describe()


def load_generator(folder: str | os.PathLike[str], g: nn.Module) -> nn.Module:
    """G with the weights of the run in this folder: those of the moving average if there is one.

    g: a network like the one that was trained. It is returned with these weights, in evaluation mode.
    """
    state = read_checkpoint(Path(folder), oldest=1)  # weights have been called the same ever since
    try:
        averaged = any(name.startswith("ema.") for name in state)
        weights = section(state, "ema" if averaged else "g")
        if averaged:
            EMA(g).load_state_dict(weights)  # does it fit? A layer in two places is in there once
            g.load_state_dict(weights, strict=False)
        else:
            g.load_state_dict(weights)
    except ValueError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines())
        raise RunError(f"{Path(folder) / NAME}: does not fit this network: {reason}") from error
    return g.eval()
