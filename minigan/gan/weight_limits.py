"""Limits on the weights of D. Small weights make a D that is nowhere steep.

    WeightClipping    each weight within ±limit                                       WGAN
    L2                weight/2 · Σ w² in D's loss
    spectral(d)       each weight matrix divided by its largest singular value        SN-GAN

The first two are Terms, to be added to a Game; the third changes D itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .. import nn
from ..backend import xp_of
from ..ops.elementwise import square
from ..tensor import Tensor
from .term import Term, check_weight

if TYPE_CHECKING:
    from .steps import Game

__all__ = ["L2", "WeightClipping", "spectral"]

M = TypeVar("M", bound=nn.Module)


@dataclass
class WeightClipping(Term):
    """After each of D's steps: w ← min(max(w, -limit), limit), for all of D's parameters

    (Arjovsky et al. 2017.) Biases, and the factors of normalising layers, are clipped as well, as in the
    authors' code.
    """

    limit: float = 0.01

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"WeightClipping: limit={self.limit} must be above 0, or all weights would be 0")

    def constrain(self, d: nn.Module) -> None:
        for p in d.parameters():
            p.data = xp_of(p.data).clip(p.data, -self.limit, self.limit)


@dataclass
class L2(Term):
    """L_D gets + weight/2 · Σ w², over D's weights; biases and normalising layers are left out

    Its gradient is weight · w, as that of an optimiser's weight_decay.
    """

    weight: float = 1e-4

    def __post_init__(self) -> None:
        check_weight(self)

    def discriminator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor | None:
        squares = [square(w).sum() for _, _, w in weights(game.d)]
        return self.weight / 2 * sum(squares[1:], start=squares[0]) if squares else None


def spectral(d: M, rng: Any) -> M:
    """Apply nn.spectral_norm to every layer of D that has a weight (Miyato et al. 2018). Returns D.

    Do it when the weights have been chosen. An optimiser that was made before keeps its parameters. Layers
    whose weight is computed already (spectral_norm, equalized) stay as they are.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> spectral(nn.Sequential(nn.Linear(2, 8, rng=rng), nn.ReLU(), nn.Linear(8, 1, rng=rng)), rng)
    Sequential(
      (0): Linear(2, 8) with spectral_norm
      (1): ReLU()
      (2): Linear(8, 1) with spectral_norm
    )
    """
    rng = nn.init.generator(rng, "spectral")
    layers = [layer for layer, name, _ in weights(d) if name == "weight"]
    for layer in layers:
        nn.spectral_norm(layer, rng=rng)
    return d


def weights(d: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """(layer, name, parameter) of what D multiplies by: parameters with two axes or more, as in nn/init.py"""
    for layer in d.modules():
        if not getattr(layer, "normalises", False):
            for name, p in layer.named_parameters():
                if "." not in name and p.ndim >= 2:
                    yield layer, name, p
