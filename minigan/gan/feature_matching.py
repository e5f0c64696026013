"""Two things that can be added to G's loss: feature matching, and cycle consistency.

Gradient penalties, which are added to D's, are in penalties.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ops.elementwise import square
from ..tensor import Tensor, no_grad
from .term import Term

if TYPE_CHECKING:
    from .steps import Game

__all__ = ["FeatureMatching", "cycle_consistency", "feature_matching"]


def feature_matching(real_features: Tensor, fake_features: Tensor) -> Tensor:
    """L = |mean φ(x) - mean φ(G(z))|², means over the batch        dL/dφ(G(z)) = -2 (difference) / n

    φ are the features of images, shapes (N, ...) (Salimans et al. 2016).
    """
    if real_features.shape[1:] != fake_features.shape[1:]:
        raise ValueError(
            f"feature_matching: features of shape {real_features.shape} for real images and "
            f"{fake_features.shape} for fakes; they may differ in the first axis only"
        )
    return square(real_features.mean(axis=0) - fake_features.mean(axis=0)).sum()


@dataclass
class FeatureMatching(Term):
    """L_G gets + weight · |mean φ(x) - mean φ(G(z))|²: fakes shall have the features of real images

    features: φ, a function or a Module; the first layers of the discriminator, d[:4], are the usual choice.
    """

    features: Callable[[Tensor], Tensor]
    weight: float = 1.0

    def generator(self, game: Game, real: Tensor, fake: Tensor, rng: Any = None) -> Tensor:
        with no_grad():
            wanted = self.features(real)
        return feature_matching(wanted, self.features(fake)) * self.weight

    def settings(self) -> dict[str, Any]:
        features = getattr(self.features, "__name__", repr(self.features))
        return {"name": type(self).__name__, "features": features, "weight": self.weight}


def cycle_consistency(x: Tensor, back: Tensor) -> Tensor:
    """L = mean |x - F(G(x))|, there and back again        dL/dback = -sign(x - back) / n

    G translates images of one kind into another, F translates them back (Zhu et al. 2017, CycleGAN).
    """
    if x.shape != back.shape:
        raise ValueError(f"cycle_consistency: images of shape {x.shape} came back with shape {back.shape}")
    return abs(x - back).mean()
