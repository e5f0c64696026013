"""When a number has become infinite or NaN: compute the step again, with an eye on every op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..finite import NonFiniteError, all_finite, checked
from ..gan.steps import Game, discriminator_loss, generator_loss, joint_losses, opponent
from ..tensor import Tensor, grad

__all__ = ["first_cause"]


def first_cause(
    game: Game, reals: Sequence[Tensor], noises: Sequence[Tensor], rng: Any, simultaneous: bool = False
) -> str:
    """The first parameter or op of this step that is not finite, in words.

    A player moves only if its gradient is finite. So its parameters are still those the step began with.
    """
    for who, network in (("G", game.g), ("D", game.d)):
        for name, parameter in network.named_parameters() if network is not None else ():
            if not all_finite([parameter.data]):
                return f"the parameter {name} of {who} is not finite any more"
    try:
        with checked():
            if simultaneous:
                _replay_both(game, reals[0], noises[0], rng)
            else:
                _replay_in_turn(game, reals, noises, rng)
    except NonFiniteError as error:
        return f"the first to go wrong: {error}"
    return "no single op is to blame"


def _replay_in_turn(game: Game, reals: Sequence[Tensor], noises: Sequence[Tensor], rng: Any) -> None:
    for real, z in zip(reals, noises, strict=False):
        fake = game.g(z)
        if game.d_optimizer is not None:
            loss_d, _, _ = discriminator_loss(game, real, fake, rng)
            grad(loss_d, game.d_optimizer.params)
    fake = fake if game.reuse_fakes else game.g(noises[-1])
    with opponent(game, reals[-1], fake, rng):
        loss_g, _ = generator_loss(game, reals[-1], fake, rng)
        grad(loss_g, game.g_optimizer.params)


def _replay_both(game: Game, real: Tensor, z: Tensor, rng: Any) -> None:
    assert game.d_optimizer is not None
    fake = game.g(z)
    if game.unrolled:
        loss_d, _, _ = discriminator_loss(game, real, fake, rng)
        with opponent(game, real, fake, rng):
            grad(generator_loss(game, real, fake, rng)[0], game.g_optimizer.params)
    else:
        loss_d, loss_g, _, _ = joint_losses(game, real, fake, rng)
        grad(loss_g, game.g_optimizer.params)
    grad(loss_d, game.d_optimizer.params)
