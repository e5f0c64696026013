"""Consensus optimisation: both players also minimise the gradients of both losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..ops.elementwise import square
from ..tensor import Tensor, grad
from .term import Term, check_weight

if TYPE_CHECKING:
    from .steps import Game

__all__ = ["Consensus"]


@dataclass
class Consensus(Term):
    """L_D and L_G both get + weight · ½ (‖∂L_D/∂θ_D‖² + ‖∂L_G/∂θ_G‖²) (Mescheder et al. 2017)

    Without it the two circle around the point where both losses are stationary. This term is smallest there,
    so its gradient leads there. It belongs to both losses at once and needs `simultaneous_step`. The losses
    in it are those with all other terms."""

    simultaneous: ClassVar[bool] = True
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self)

    def both(self, game: Game, loss_d: Tensor, loss_g: Tensor) -> Tensor:
        theta_d, theta_g = (
            [p for p in optimizer.params if p.requires_grad]
            for optimizer in (game.d_optimizer, game.g_optimizer)
        )
        found = [
            *grad(loss_d, theta_d, create_graph=True),
            *grad(loss_g, theta_g, create_graph=True),
        ]
        squares = [square(g).sum() for g in found if g is not None]
        return self.weight / 2 * sum(squares[1:], start=squares[0])
