"""Many trials at once: layers with a leading axis of trials, each trial with weights of its own.

    weights (T, in, out)     x (T, N, in)     y = x W (T, N, out)         T products of matrices in one call

A small network leaves a computer idle between its many small calls. T networks side by side need no more
calls than one, so that ten seeds cost little more than one where calls are what takes time, as on a GPU. The
trials know nothing of each other: what each of them does, it would also do alone.

To the rest of the library such a pile of networks looks like one. `Trials` takes and gives rows (N T, F) in
which the trials alternate: row n T + t is sample n of trial t. So batches can be joined, losses take means
over rows, and penalties look at the slope of each row, as always. One thing has to be remembered: a mean over
the rows of all trials makes the gradient of each trial T times smaller. Adam does not mind, if its eps is
divided by T as well: see `adam`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minigan as mg
from minigan import Tensor, nn
from minigan.nn.module import parameter
from minigan.optim import Adam

__all__ = ["BatchNorm", "Draws", "Linear", "Maxout", "Trials", "adam", "apart", "together"]

Rate = float | Callable[[int], float]  # as of minigan.optim: a number or a schedule
Init = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


class Linear(nn.Module):
    """y = x W + b for each trial. Shapes: x (T, N, in), W (T, in, out), b (T, 1, out), y (T, N, out)

    init: makes the (in, out) weights of one trial with its generator, one of `rngs`. b begins as 0.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        init: Init,
        rngs: Sequence[np.random.Generator],
        bias: bool = True,
    ):
        self.weight = parameter(np.stack([init((n_in, n_out), rng) for rng in rngs]), "weight")
        self.bias = parameter(np.zeros((len(rngs), 1, n_out)), "bias") if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Maxout(nn.Module):
    """y = max over j of x Wⱼ + bⱼ, for each trial. Shapes: x (T, N, in), y (T, N, out)

    As in minigan.nn.Maxout, the pieces of one output are neighbours.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        pieces: int,
        init: Init,
        rngs: Sequence[np.random.Generator],
    ):
        self.linear, self.pieces = Linear(n_in, n_out * pieces, init, rngs), pieces

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return mg.max(y.reshape(*y.shape[:2], -1, self.pieces), axis=-1)


class BatchNorm(nn.Module):
    """Batch normalisation of each trial over its own N samples. Shapes: x and y (T, N, F)"""

    def __init__(self, features: int, trials: int, momentum: float):
        self.norm = nn.BatchNorm1d(trials * features, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        trials, n, features = x.shape
        y = self.norm(x.transpose(1, 0, 2).reshape(n, trials * features))
        return y.reshape(n, trials, features).transpose(1, 0, 2)


class Trials(nn.Module):
    """A pile of networks that looks like one network: rows (N T, F) → body: (T, N/m, m F) → rows (N/m T, out)

    pack: each network gets m samples of its trial at once, joined to one row (PacGAN).
    """

    def __init__(self, trials: int, body: nn.Module, pack: int = 1):
        self.trials, self.pack, self.body = trials, pack, body

    def forward(self, x: Any) -> Tensor:
        x = mg.Tensor(x) if not isinstance(x, Tensor) else x
        n, features = len(x) // self.trials, x.shape[1]
        x = x.reshape(n, self.trials, features).transpose(1, 0, 2)
        y = self.body(x.reshape(self.trials, n // self.pack, self.pack * features))
        return y.transpose(1, 0, 2).reshape(-1, y.shape[2])


def adam(network: nn.Module, trials: int, lr: Rate, betas: tuple[float, float]) -> Adam:
    """Adam whose steps are, for each trial, those of Adam with eps = 1e-8 on a gradient T times as large."""
    return Adam(network.parameters(), lr, betas, eps=1e-8 / trials)


class Draws:
    """Random numbers for rows (N T, ...), each trial's from a generator of its own: an rng for penalties."""

    def __init__(self, rngs: Sequence[np.random.Generator]):
        self.rngs = rngs

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform between 0 and 1."""
        return together([rng.random((shape[0] // len(self.rngs), *shape[1:])) for rng in self.rngs])


def together(samples: Sequence[np.ndarray]) -> np.ndarray:
    """(N, F) of each of T trials → the rows (N T, F) that Trials takes."""
    return np.stack(samples, axis=1).reshape(-1, samples[0].shape[1])


def apart(rows: np.ndarray, trials: int) -> list[np.ndarray]:
    """Rows (N T, F) → (N, F) of each trial."""
    return [rows[t::trials] for t in range(trials)]
