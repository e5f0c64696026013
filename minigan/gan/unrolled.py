"""Unrolled GANs: G plays against D as it will be some steps ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import nn
from ..ops.operands import whole
from ..optim import Adam, functional
from ..tensor import Tensor, constant, grad
from .steps import Game, discriminator_loss

__all__ = ["Unrolled"]


@dataclass
class Unrolled:
    """G's loss is taken at θ_K, where D would be after K steps more (Metz et al. 2017)

        θ_0 = D's weights        θ_k+1 = θ_k - η ∂L_D/∂θ_k        L_G = loss.generator(D with θ_K)

    In a game of zero sum (Minimax, Wasserstein) L_G is -L_D with θ_K, the part about real images included.
    G's gradient goes back through all K steps: each θ_k depends on the fakes, which D would learn from. So it
    has a part for D's logits of the fakes now, and a part for how D would answer to them. A G whose fakes are
    all alike is punished at once, and not only after D has learnt to recognise them.

    All K steps take the same batch, that of G's step. They change nothing: afterwards D has the weights and
    running statistics of before, and moves by ordinary steps. Weight clipping is no part of the K steps.

    steps: K; 0 is the usual game. optimizer: what D moves by in the K steps, "adam" or "sgd". lr: η; None:
    that of D's optimiser. betas, eps: of the Adam of the K steps; None: those of D's own Adam, and if D has
    another optimiser, (0.5, 0.999) and 1e-8. remember: Adam starts from the m, v and t that D's own Adam has;
    otherwise from zeros each time, and then its first step has length η whatever the gradient.
    """

    steps: int = 5
    lr: float | None = None
    optimizer: str = "adam"
    betas: tuple[float, float] | None = None
    eps: float | None = None
    remember: bool = False

    def __post_init__(self) -> None:
        whole("Unrolled", "steps", self.steps, least=0)
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"Unrolled: optimizer={self.optimizer!r}; choose 'adam' or 'sgd'")
        if self.remember and self.optimizer != "adam":
            raise ValueError(f"Unrolled: remember=True is for 'adam', not for {self.optimizer!r}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"Unrolled: lr={self.lr} must be above 0")

    @contextmanager
    def ahead(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Iterator[None]:
        """Inside, game.d computes with θ_K. fake: with its history; θ_K depends on it."""
        trained = {name: p for name, p in game.d.named_parameters() if p.requires_grad}
        theta = [Tensor(p.detach(), requires_grad=True, copy=False) for p in trained.values()]
        state = self._initial_state(game, theta, list(trained.values()))
        for _ in range(self.steps):
            with nn.substituted(game.d, dict(zip(trained, theta, strict=True))):
                loss, _, _ = discriminator_loss(game, real, fake, rng)
                found = grad(loss, theta, create_graph=True)
            theta, state = self._step(game, theta, found, state)
        with nn.substituted(game.d, dict(zip(trained, theta, strict=True))):
            yield

    def _initial_state(self, game: Game, theta: list[Tensor], parameters: list[Tensor]) -> Any:
        """The state that the optimiser of the K steps begins with."""
        if self.optimizer == "sgd":
            return functional.sgd_init(theta)
        if not self.remember:
            return functional.adam_init(theta)
        if not isinstance(game.d_optimizer, Adam):
            raise ValueError(
                f"Unrolled: remember=True, but D's optimiser is {game.d_optimizer.kind}, not Adam"
            )
        kept = [game.d_optimizer.remembered(p) for p in parameters]
        return [(steps, constant(arrays["m"]), constant(arrays["v"])) for steps, arrays in kept]

    def _step(self, game: Game, theta: list[Tensor], found: Any, state: Any) -> tuple[list[Tensor], Any]:
        """One step of D, whose result is a function of the fakes."""
        lr = game.d_optimizer.lr if self.lr is None else self.lr
        if self.optimizer == "sgd":
            return functional.sgd(theta, found, state, lr)
        own = game.d_optimizer
        betas, eps = (own.betas, own.eps) if isinstance(own, Adam) else ((0.5, 0.999), 1e-8)
        betas = betas if self.betas is None else self.betas
        eps = eps if self.eps is None else self.eps
        return functional.adam(theta, found, state, lr, betas, eps)
