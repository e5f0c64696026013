"""Trainer: the loop around the steps, for runs that have to survive.

    trainer = Trainer(game, images, noise=100, seed=0, folder="runs/first")
    trainer.run(epochs=20)

It knows what a run needs besides mathematics: which batch and which noise belong to which step, a moving
average of G, reports, pictures, checkpoints, and what to do when somebody presses Ctrl-C, or when a number
becomes infinite. A run that was stopped, in whatever way, and goes on from its checkpoint (resume=True) ends
with the same weights, to the last bit, as one that was not. For that, nothing random has a hidden state:
batches, noise and dropout of a step are drawn from generators made for (seed, purpose, step).

The mathematics is in steps.py.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend as _backend
from .. import nn, viz
from ..data.batches import Batches
from ..finite import NonFiniteError, all_finite
from ..gan.steps import Game, Report, alternating_step, simultaneous_step
from ..gan.term import Term
from ..gpu.recorded_steps import Capture, Place
from ..io import section
from ..kernels import device
from ..ops.operands import whole
from ..process import performance
from ..tensor import Tensor, constant, no_grad
from .checkpoint import NAME, RunError, read_checkpoint, write_checkpoint
from .draws import Noise, generator
from .ema import EMA
from .first_cause import first_cause
from .progress import Interrupted, Progress, Signals
from .run_folder import RunFolder, description
from .tensorboard import Events, summary_writer

__all__ = ["Trainer", "load_generator"]

MEASURES = [field.name for field in fields(Report)]


class Trainer:
    """A training run.

    game: who plays, by which rules. data: the images, an array (N, ...) on the backend of the networks or in
    NumPy; their shape and range are those of G's output. noise: the size of z; noise_kind "normal" or
    "uniform". batch: images in a batch. d_steps: steps of D for each of G. simultaneous: both move at once.
    ema: decay of the moving average of G that draws the samples; 0: G draws them itself. folder: where the
    run is kept (folder.py); None: nowhere. resume: go on with the run in that folder. options: what
    config.json should remember of the caller. samples: how many images a picture shows; picture: how they
    become one, array (N, ...) → array (H, W) or (H, W, 3) of uint8. save_every: seconds between checkpoints.
    threads: None chooses: networks with convolutions share the work between threads, others leave it to the
    BLAS (process.py). before_step: called with the number of each step, from 0, to change something from
    step to step, such as the sigma of InstanceNoise. tensorboard: write events for TensorBoard, too. quiet:
    print nothing. capture: on a GPU, record a step and replay it, which is faster (capture.py); the Report of
    a step, and the arrays of weights, are then written to again by the next step.
    """

    def __init__(
        self, game: Game, data: Any, *, noise: int = 100, noise_kind: str = "normal", batch: int = 100,
        seed: int = 0, d_steps: int = 1, simultaneous: bool = False, ema: float = 0.998,
        folder: str | os.PathLike[str] | None = None, resume: bool = False,
        options: Mapping[str, Any] | None = None, samples: int = 100,
        picture: Callable[[np.ndarray], np.ndarray] | None = None, save_every: float = 30.0,
        threads: int | None = None, before_step: Callable[[int], object] | None = None,
        tensorboard: bool = False, quiet: bool = False, capture: bool = False,
    ):  # fmt: skip
        if isinstance(data, Tensor) or not hasattr(data, "dtype"):
            raise TypeError(f"Trainer: data is a {type(data).__name__}; give an array of images (N, ...)")
        d_steps = whole("Trainer", "d_steps", d_steps, least=1)
        batch = whole("Trainer", "batch", batch, least=1)
        seed = whole("Trainer", "seed", seed, least=0)
        if simultaneous and d_steps != 1:
            raise ValueError(f"Trainer: d_steps={d_steps} must be 1 if both players move at once")
        if simultaneous and game.d is None:
            raise ValueError("Trainer: without a D, both cannot move at once")
        for term in game.terms:
            if type(term).both is not Term.both and (game.unrolled or not simultaneous):
                raise ValueError(
                    f"Trainer: {type(term).__name__} needs simultaneous=True, and a D that is not unrolled"
                )
        self.game, self.seed, self.d_steps, self.simultaneous = game, seed, d_steps, simultaneous
        self.networks = {"g": game.g} if game.d is None else {"g": game.g, "d": game.d}
        for network in self.networks.values():
            network.train()
        backend = game.g.parameters()[0].backend
        self.batches = Batches(data, batch, seed, backend)
        self._noise = Noise(noise, min(batch, len(data)), seed, noise_kind, backend)
        self._fixed = Noise(noise, samples, seed, noise_kind, backend, "samples").at(0)
        self.ema = EMA(game.g, ema) if ema else None
        self.picture = picture or viz.grid
        self.save_every, self.quiet, self.before_step = save_every, quiet, before_step
        # Convolutions share their work between threads; products of matrices are left to the BLAS.
        layers = [m for net in self.networks.values() for m in net.modules()]
        has_windows = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in layers)
        self.threads = threads if threads is not None or has_windows else 1
        self._drawing = [
            (f"{who}.{name}", module)
            for who, net in self.networks.items()
            for name, module in net.named_modules()
            if module.rng is not None
        ]
        self.backend = backend
        self.capture = Capture(game, self.batches, before_step) if capture else None
        self.step = 0  # of G, done
        self.seconds = 0.0  # spent in steps
        self._sums: Any = _backend.get(backend).from_numpy(np.zeros(len(MEASURES)))
        self._count = 0  # of the reports in these sums: those since the epoch began
        self._check_fit(data)
        if (resume or tensorboard) and folder is None:
            raise ValueError("Trainer: resume=True and tensorboard=True need the folder of the run")
        self.folder: RunFolder | None = None
        if tensorboard:
            summary_writer()  # is it there?
        if folder is not None:
            settings = {
                "seed": seed, "batch": batch, "noise": noise, "noise_kind": noise_kind, "d_steps": d_steps,
                "simultaneous": simultaneous, "ema": ema, "samples": samples,
            }  # fmt: skip
            self.folder = RunFolder(folder, description(game, data, settings, options or {}), resume)
        self._events: Events | None = None
        try:
            if self.folder is not None and resume:
                self._load()
            if self.folder is not None and tensorboard:
                self._events = Events(self.folder.path, self.step)
        except BaseException:
            if self.folder is not None:
                self.folder.close()
            raise

    def _check_fit(self, data: Any) -> None:
        """Are G's images and the real ones of one kind: shape, precision, range?"""
        made, precision = self.sample(self._fixed), self.game.g.parameters()[0].dtype
        if made.shape[1:] != data.shape[1:]:
            raise ValueError(
                f"Trainer: G makes images of shape {made.shape[1:]}, the data have {data.shape[1:]}; reshape "
                "one of them (data.reshape(len(data), -1), or nn.Reshape at the end of G)"
            )
        if data.dtype != precision:
            raise ValueError(
                f"Trainer: the data are {data.dtype}, the networks {precision}; minigan.data.scaled makes "
                f"numbers between -1 and 1 of pixels, array.astype({str(precision)!r}) another precision"
            )
        last = self.game.g
        while isinstance(last, nn.Sequential):
            layers = [m for m in last if not isinstance(m, nn.Reshape | nn.Flatten)]
            last = layers[-1] if layers else nn.Flatten()
        low, high = float(data.min()), float(data.max())
        for kind, least, most in ((nn.Tanh, -1.0, 1.0), (nn.Sigmoid, 0.0, 1.0)):
            if isinstance(last, kind) and not (least <= low < (least + most) / 2 < high <= most):
                raise ValueError(
                    f"Trainer: the data lie between {low:g} and {high:g}, but G ends with {kind.__name__}, "
                    f"whose range is {least:g} to {most:g}; bring the data to that range"
                )

    # ---------------------------------------------------------------------------- the loop

    @property
    def epoch(self) -> int:
        """Epochs completed: how often D has seen each image."""
        return self.step * self.d_steps // len(self.batches)

    def run(self, epochs: int | None = None, *, steps: int | None = None) -> None:
        """Train until so many epochs, or steps of G, are done in all, those before a resume included."""
        if (epochs is None) == (steps is None):
            raise ValueError("Trainer.run: give either epochs or steps")
        last = math.ceil((epochs or 0) * len(self.batches) / self.d_steps) if steps is None else steps
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
        if self.capture is not None:
            self.capture.tell = progress.say
            if self.capture.why is not None:
                progress.say(f"capture: {self.capture.why}; running eagerly")
        try:
            if self.step == 0:
                self._draw()
                self.save()  # so that there is something to go on from, whatever happens
            while self.step < last:
                epoch = self.epoch
                self._note(self.train_step(), progress)
                if self.epoch > epoch:
                    self._end_epoch(progress)
                if signals.received is not None:
                    self.save()
                    raise Interrupted(signals.received, self.step, self.folder and self.folder.path)
                if time.monotonic() - saved > self.save_every:
                    self.save()
                    saved = time.monotonic()
            self.save()
            if self.folder is not None:
                self.folder.film()
        finally:
            progress.close()
            if self._events is not None:
                self._events.close()

    def train_step(self) -> Report:
        """One step of G with its steps of D. On a NonFiniteError, the player concerned has not moved."""
        start = time.perf_counter()
        if self.before_step is not None:
            self.before_step(self.step)
        try:
            if self.capture is not None:
                report = self.capture.step(self._place(), self._play)
            else:
                report = self._play(self._place())
        except NonFiniteError as error:
            raise NonFiniteError(f"step {self.step + 1}: {error}; {self._cause()}") from None
        if self.ema is not None:
            self.ema.update(self.game.g)
        self.step += 1
        self.seconds += time.perf_counter() - start
        return report

    def _place(self) -> Place:
        """The numbers of the step to come, of its batches and of its noise."""
        extra = 0 if self.game.reuse_fakes or self.simultaneous else 1
        numbers = lambda n: range(self.step * n, (self.step + 1) * n)
        return Place(self.step, numbers(self.d_steps), numbers(self.d_steps + extra))

    def _play(self, place: Place) -> Report:
        """One step, of both players."""
        reals, noises, rng = self._material(place)
        if self.simultaneous:
            return simultaneous_step(self.game, reals[0], noises[0], rng)
        return alternating_step(self.game, reals, noises, rng)

    def _material(self, place: Place | None = None) -> tuple[list[Tensor], list[Tensor], Any]:
        """The real batches, the noise, and the random numbers of the step to come, made from its number.

        place: where the numbers lie on a GPU, if the step is being recorded (capture.py).
        """
        place = place or self._place()
        batch = self.batches.at if isinstance(place.step, int) else self.batches.at_turn
        reals = [constant(batch(number)) for number in place.batches]
        counts = [len(real) for real in reals] + [len(reals[-1])] * (len(place.noises) - len(reals))
        noises = [self._noise.at(number, n) for number, n in zip(place.noises, counts, strict=True)]
        for name, module in self._drawing:  # dropout and its kind
            module.rng = generator(self.seed, name, place.step, self.backend)
        return reals, noises, generator(self.seed, "terms", place.step, self.backend)

    def _cause(self) -> str:
        """What went wrong in the step that has just failed: it is computed again, from the same numbers."""
        return first_cause(self.game, *self._material(), simultaneous=self.simultaneous)

    # --------------------------------------------------------------- what is told and drawn

    def _note(self, report: Report, progress: Progress) -> None:
        """Count a step's report in, for the mean over the epoch."""
        values = [getattr(report, name) for name in MEASURES]
        if (fused := device.of(self._sums)) is not None:
            fused.add_up(self._sums, values)
        else:
            self._sums += values
        self._count += 1
        progress.step(report)

    def _means(self) -> np.ndarray:
        """The means since the epoch began. On a GPU nobody has looked at the losses before."""
        means = _backend.to_numpy(self._sums) / self._count
        players = ["loss_g"] if self.game.d is None else ["loss_d", "loss_g"]
        if not np.isfinite(means[[MEASURES.index(name) for name in players]]).all():
            raise NonFiniteError(
                f"steps {self.step - self._count + 1} to {self.step}: a loss became infinite or NaN. On a "
                "GPU this is noticed only where losses are read; the same run with --backend numpy tells the "
                "step and the op"
            )
        return means

    def _end_epoch(self, progress: Progress) -> None:
        means = dict(zip(MEASURES, self._means().tolist(), strict=True))
        record = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 3), **means}
        self._sums, self._count = _backend.get(self.backend).from_numpy(np.zeros(len(MEASURES))), 0
        if self.folder is not None:
            self.folder.log(record)
        if self._events is not None:
            self._events.write(record)
        self._draw()
        progress.epoch(record, self.seconds / self.step)

    def _draw(self) -> None:
        """A picture of what G makes of the fixed noise."""
        if self.folder is not None:
            picture = self.picture(self.sample(self._fixed))
            self.folder.draw(self.epoch, picture, self.game.loss.equilibrium)

    def sampler(self) -> nn.Module:
        """A copy of G for drawing: the moving average if there is one, in evaluation mode."""
        return self.ema.module(self.game.g) if self.ema is not None else copy.deepcopy(self.game.g).eval()

    def sample(self, z: Tensor) -> np.ndarray:
        """Images made of the noise z, in NumPy."""
        with no_grad():
            return self.sampler()(z).numpy()

    # ------------------------------------------------------------------------- stop and go on

    def save(self) -> None:
        """Write a checkpoint, if the run has a folder. Weights that are not finite are never saved."""
        if self.folder is None:
            return
        state = {name: part.state_dict() for name, part in self._parts().items()}
        for part, values in state.items():
            for name, value in values.items():
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not all_finite([value]):
                    raise NonFiniteError(f"after step {self.step} {part}.{name} is not finite")
        progress = {"step": self.step, "seconds": self.seconds, "count": self._count}
        sums = np.array(_backend.to_numpy(self._sums))
        write_checkpoint(
            self.folder.path, {**state, "trainer": {"seed": self.seed, "sums": sums, **progress}}
        )

    def _load(self) -> None:
        """Go on from the checkpoint in the folder."""
        assert self.folder is not None
        if self.folder.is_untouched():
            return  # stopped before its first checkpoint: it begins at the beginning
        state = read_checkpoint(self.folder.path)
        try:
            mine = section(state, "trainer")
            if int(mine["seed"]) != self.seed:
                raise ValueError(f"its seed is {int(mine['seed'])}, not {self.seed}")
            for name, part in self._parts().items():
                if part.state_dict():
                    part.load_state_dict(section(state, name))
            self.step, self.seconds = int(mine["step"]), float(mine["seconds"])
            sums, self._count = np.array(mine["sums"], dtype=float), int(mine["count"])
            self._sums = _backend.get(self.backend).from_numpy(sums)
            if self.step < 0 or self._count < 0 or not 0 <= self.seconds < math.inf:
                raise ValueError(f"step {self.step}, {self._count} steps in this epoch, {self.seconds} s")
            if sums.shape != (len(MEASURES),):
                raise ValueError(f"sums of shape {sums.shape}, not {(len(MEASURES),)}")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            reason = "; ".join(line.strip() for line in str(error).splitlines())
            raise RunError(f"{self.folder.path / NAME}: does not belong to this run: {reason}") from error
        self.folder.forget_after(self.step)
        self.folder.describe()

    def _parts(self) -> dict[str, Any]:
        """All that has a state of its own."""
        game = self.game
        parts = {
            **self.networks,
            "g_optimizer": game.g_optimizer,
            "d_optimizer": game.d_optimizer,
            "loss": game.loss,
            "ema": self.ema,
        }
        return {name: part for name, part in parts.items() if part is not None}


def load_generator(folder: str | os.PathLike[str], g: nn.Module) -> nn.Module:
    """G as the run in this folder left it, for drawing: the moving average if there is one.

    g: a network like the one that was trained; it takes over the weights, and is returned in evaluation mode.
    """
    state = read_checkpoint(Path(folder))
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
