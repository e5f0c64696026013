"""Term: something that is added to the losses of a GAN, or done to D's weights after its step.

A gradient penalty is one (penalties.py), feature matching another (feature_matching.py). A subclass defines
those of the methods that it needs; the steps (steps.py) call them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..nn import Module
from ..tensor import Tensor

if TYPE_CHECKING:
    from .steps import Game

__all__ = ["Term", "check_weight"]


class Term:
    """By itself it adds nothing. real: the batch x. fake: G(z). rng: a generator of random numbers."""

    simultaneous: ClassVar[bool] = False  # does it define `both`, and need both players to move at once?

    def check(self, game: Game) -> None:
        """Raise a ValueError if this term makes no sense in that game."""

    def discriminator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor | None:
        """What is added to L_D, one number, or None. In an alternating step `fake` has no history."""
        return None

    def generator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor | None:
        """What is added to L_G. Here `fake` has its history, and D is frozen."""
        return None

    def both(self, game: Game, loss_d: Tensor, loss_g: Tensor) -> Tensor | None:
        """What is added to both losses when both players move at once."""
        return None

    def constrain(self, d: Module) -> None:
        """Change D's weights after its step."""

    def state_dict(self) -> dict[str, Any]:
        """What the term remembers between the steps: mostly nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""

    def settings(self) -> dict[str, Any]:
        """Name and options, for config.json."""
        return {"name": type(self).__name__, **vars(self)}


def check_weight(term: Any) -> None:
    """A ValueError unless the term's weight is a finite number, 0 or more."""
    if not 0 <= term.weight < math.inf:
        raise ValueError(f"{type(term).__name__}: weight={term.weight} must be 0 or more, and finite")
