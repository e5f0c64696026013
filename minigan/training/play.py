"""Play: what a Trainer can train. And GamePlay: a Game, with images to learn from.

The Trainer knows steps, states, pictures and files. It has never heard of G and D. Whoever has something else
to train writes a Play: which parts it has, what one step does, what there is to look at.

    class Copying(Play):
        steps_per_epoch = 100

        def __init__(self, network, optimizer, images):
            self.network, self.optimizer, self.images = network, optimizer, images

        def parts(self): return {"network": self.network, "optimizer": self.optimizer}
        def data(self): return {"images": self.images}

        def step(self, draws):
            x = draws.batch(self.images)
            loss = square(self.network(x) - x).mean()
            move(self.optimizer, gradients(self.optimizer, loss, "loss"))
            return {"loss": loss.detach()}

    Trainer(Copying(...), folder="runs/copying").run(epochs=10)

A step must not depend on anything but the parts and what it draws. Then a run can be stopped at any step and
go on, to the last bit, and on a GPU a step can be recorded and replayed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from .. import nn, viz
from ..backend import Array
from ..data.batches import Batches
from ..gan.gmmn import GMMN
from ..gan.steps import Game, alternating_step, simultaneous_step
from ..ops.operands import whole
from ..tensor import Tensor, constant, no_grad
from .draws import Draws
from .ema import EMA

__all__ = ["GamePlay", "HasState", "Play"]


class HasState(Protocol):
    """A part of a Play: a network, an optimiser, a loss, a moving average."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any) -> None: ...


class Play:
    """What a Trainer trains. A subclass must define `parts` and `step`."""

    steps_per_epoch: int | Fraction = 1000  # how often there is a line in the log, and a picture
    equilibrium: tuple[float, float] | None = None  # L_D and L_G when training is done, for the curves

    def parts(self) -> Mapping[str, Any]:
        """Networks, optimisers, losses: whatever has a state (state_dict, load_state_dict), by name."""
        raise NotImplementedError(f"{type(self).__name__} must define parts()")

    def step(self, draws: Draws) -> Mapping[str, Any]:
        """One step of all players. The numbers to report: floats, or Tensors of one number without
        history."""
        raise NotImplementedError(f"{type(self).__name__} must define step(draws)")

    def picture(self, draws: Draws) -> np.ndarray | None:
        """What to look at, pixels (H, W) or (H, W, 3), uint8; None: nothing. draws: always the same ones."""
        return None

    def data(self) -> dict[str, Batches]:
        """The data sets, by name. A run that goes on must have the same ones."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Whatever else must be the same when a run goes on, as JSON can hold it."""
        return {}


class GamePlay(Play):
    """A Game, or a GMMN, that learns to make images.

    game: who plays, by which rules. data: the images, an array (N, ...) on the backend of the networks or in
    NumPy; their shape and range are those of G's output. noise: the size of z; noise_kind "normal" or
    "uniform". batch: images in a batch. d_steps: steps of D for each of G. simultaneous: both move at once.
    ema: decay of the moving average of G that draws the samples; 0: G draws them itself. samples: how many
    images a picture shows; picture: how they become one, array (N, ...) → array (H, W) or (H, W, 3) of uint8.
    """

    def __init__(
        self, game: Game | GMMN, data: Any, *, noise: int = 100, noise_kind: str = "normal", batch: int = 100,
        seed: int = 0, d_steps: int = 1, simultaneous: bool = False, ema: float = 0.998, samples: int = 100,
        picture: Callable[[np.ndarray], np.ndarray] | None = None,
    ):  # fmt: skip
        if isinstance(data, Tensor) or not hasattr(data, "dtype"):
            raise TypeError(f"Trainer: data is a {type(data).__name__}; give an array of images (N, ...)")
        self.game, self.noise, self.noise_kind = game, noise, noise_kind
        self.d_steps = whole("Trainer", "d_steps", d_steps, least=1)
        self.batch = whole("Trainer", "batch", batch, least=1)
        self.samples = whole("Trainer", "samples", samples, least=1)
        self.simultaneous = simultaneous
        self._check_rules()
        for part in game.parts().values():
            if isinstance(part, nn.Module):
                part.train()
        self.images = Batches(data, self.batch, seed, game.g.parameters()[0].backend)
        self.steps_per_epoch = Fraction(len(self.images), self.d_steps)
        self.ema = EMA(game.g, ema) if ema else None
        self._picture_of = picture or viz.grid
        if isinstance(game, Game):
            self.equilibrium = game.loss.equilibrium
        self._check_fit(data, Draws(seed, self.images.backend.name))

    def parts(self) -> dict[str, Any]:
        parts = self.game.parts()
        return parts if self.ema is None else {**parts, "ema": self.ema}

    def data(self) -> dict[str, Batches]:
        return {"images": self.images}

    def settings(self) -> dict[str, Any]:
        return {
            "batch": self.batch, "noise": self.noise, "noise_kind": self.noise_kind, "d_steps": self.d_steps,
            "simultaneous": self.simultaneous, "ema": self.ema.decay if self.ema else 0,
            "samples": self.samples, **self.game.settings(),
        }  # fmt: skip

    def step(self, draws: Draws) -> dict[str, Any]:
        """One step of G, with its steps of D."""
        game, n = self.game, self.d_steps
        reals = [draws.batch(self.images, i, n) for i in range(n)]
        if isinstance(game, GMMN):
            report = game.step(reals[0], self._z(draws, reals[0]))
        elif self.simultaneous:
            report = simultaneous_step(game, reals[0], self._z(draws, reals[0]), draws.rng("terms"))
        else:
            players = reals if game.reuse_fakes else [*reals, reals[-1]]
            zs = [self._z(draws, real, i, len(players)) for i, real in enumerate(players)]
            report = alternating_step(game, reals, zs, draws.rng("terms"))
        if self.ema is not None:
            self.ema.update(game.g)
        return {name: value for name, value in vars(report).items() if isinstance(value, Tensor)}

    def _z(self, draws: Draws, real: Tensor, i: int = 0, of: int = 1) -> Tensor:
        """Noise for as many fakes as there are real images, in the precision of G."""
        rows = min(self.batch, self.images.count)
        z = draws.noise((rows, self.noise), self.noise_kind, i, of).data[: len(real)]
        return constant(z.astype(real.dtype, copy=False))

    def picture(self, draws: Draws) -> np.ndarray:
        return self._picture_of(self.sample(self.fixed_noise(draws)))

    def fixed_noise(self, draws: Draws) -> Tensor:
        """The noise of the pictures, always the same."""
        z = draws.at(0).noise((self.samples, self.noise), self.noise_kind, purpose="samples")
        return z.astype(self.game.g.parameters()[0].dtype)

    def sampler(self) -> nn.Module:
        """A copy of G for drawing: the moving average if there is one, in evaluation mode."""
        g = self.game.g
        return self.ema.module(g) if self.ema is not None else copy.deepcopy(g).eval()

    def sample(self, z: Tensor) -> np.ndarray:
        """Images made of the noise z, in NumPy."""
        with no_grad():
            return self.sampler()(z).numpy()

    # ------------------------------------------------------------------- does it fit together?

    def _check_rules(self) -> None:
        game, alone = self.game, isinstance(self.game, GMMN)
        if self.simultaneous and self.d_steps != 1:
            raise ValueError(f"Trainer: d_steps={self.d_steps} must be 1 if both players move at once")
        if alone and (self.simultaneous or self.d_steps != 1):
            raise ValueError("Trainer: a GMMN has no D: d_steps must be 1, and simultaneous False")
        if isinstance(game, Game):
            game.check_order(self.simultaneous)

    def _check_fit(self, data: Array, draws: Draws) -> None:
        """Are G's images and the real ones of one kind: shape, precision, range?"""
        made, precision = self.sample(self.fixed_noise(draws)), self.game.g.parameters()[0].dtype
        if made.shape[1:] != data.shape[1:]:
            raise ValueError(
                f"Trainer: G makes images of shape {made.shape[1:]}, the data have {data.shape[1:]}; "
                f"{_same_shape(made.shape[1:], data.shape[1:])}"
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


def _same_shape(made: tuple[int, ...], given: tuple[int, ...]) -> str:
    """What to do about images of another shape than those that G makes."""
    if len(given) == 3 and made == (given[2], *given[:2]):
        return (
            "their channels come last: numpy.moveaxis(data, -1, 1) puts them first (reshape would scramble)"
        )
    return "reshape one of them (data.reshape(len(data), -1), or nn.Reshape at the end of G)"
