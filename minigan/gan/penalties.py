"""Penalties on the slope of D: how fast its logit changes with the image.

Each is a function, for any critic (a function from images to one logit each), and a Term, to be added to a
Game:

    GradientPenalty    weight · mean (‖∇D(x̂)‖ - 1)²      x̂ between real images and fakes      WGAN-GP
    DRAGAN             weight · mean (‖∇D(x̂)‖ - 1)²      x̂ around real images
    R1, R2             weight/2 · mean ‖∇D(x)‖²           x real, x fake

∇D(x) is the gradient of an image's logit for the pixels of that image, ‖·‖ its length over all of them. D's
step then needs the gradient of that gradient, for D's weights: that is what create_graph=True is for.

Limits on D's weights are in weight_limits.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import nn
from ..ops.elementwise import relu, square
from ..ops.reduce import norm
from ..tensor import Tensor, grad, record
from .discriminator_wrappers import last_layer
from .term import Term, check_weight

if TYPE_CHECKING:
    from .steps import Game

__all__ = [
    "DRAGAN", "R1", "R2", "GradientPenalty", "dragan_penalty", "gradient_penalty", "input_gradients",
    "zero_centred_penalty",
]  # fmt: skip

Critic = Callable[[Tensor], Tensor]


# ----------------------------------------------------------------------------------- as functions


def input_gradients(critic: Critic, images: Tensor) -> Tensor:
    """∇D(xₙ) for each image xₙ, one row each, as a function of D's weights

    Shapes: images (N, ...), result (N, F), F the number of entries of an image. It is the gradient of
    Σ D(xₙ): since D(xₙ) depends on xₙ alone, row n has no part of the other images. Where D gives an image
    several logits, they are added. Where D gives m images one logit (Packed), a row belongs to all m.

    Images that have a history keep it, as fakes do when D is unrolled: the result is a function of what they
    were made of. D's weights may depend on the same fakes then, but ∇D is the gradient at fixed weights. So
    it is taken for a copy x of the images, and nothing but D's input is made of x.
    """
    if images.requires_grad:
        x = record("images", images.data, (images, lambda g: g))
    else:
        x = Tensor(images, requires_grad=True, copy=False, name="images")
    logits = critic(x)
    if logits.ndim == 0 or not len(logits) or len(x) % len(logits):
        raise ValueError(
            f"input_gradients: the critic made shape {logits.shape} of images of shape {x.shape}; it must "
            "give one logit for each image"
        )
    found = grad(logits.sum(), x, create_graph=True)
    if found is None:
        raise ValueError("input_gradients: the logits do not depend on the images; are they detached?")
    return found.reshape(len(logits), -1)


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, rng: Any, weight: float = 10.0, one_sided: bool = False,
    target: float = 1.0, allow_mixing: bool = False,
) -> Tensor:  # fmt: skip
    """weight · mean (‖∇D(x̂)‖ - target)², x̂ = ε x + (1 - ε) G(z) (Gulrajani et al. 2017)

    One ε from U(0, 1) for each image. one_sided: max(0, ‖∇D(x̂)‖ - target)², so that D may be flatter.
    Shapes: real images x and fakes G(z) (N, ...). rng: a NumPy generator.

    >>> import numpy as np
    >>> w = Tensor([[3.0], [4.0]], requires_grad=True)
    >>> x, fake = Tensor(np.ones((8, 2))), Tensor(np.zeros((8, 2)))
    >>> float(gradient_penalty(lambda x: x @ w, x, fake, np.random.default_rng(0)))  # 10 · (5 - 1)²
    160.0
    """
    check_critic("gradient_penalty", critic, allow_mixing)
    return _norm_penalty(critic, between(real, fake, rng), weight, target, one_sided)


def dragan_penalty(
    critic: Critic, real: Tensor, rng: Any, weight: float = 10.0, c: float = 0.5, target: float = 1.0,
    allow_mixing: bool = False,
) -> Tensor:  # fmt: skip
    """weight · mean (‖∇D(x̂)‖ - target)², x̂ = x + α c s u (Kodali et al. 2017)

    The noise is that of the authors' code: s is the standard deviation of all entries of the batch, one
    number; u is drawn from U(0, 1) for each entry, and α from U(0, 1) for each image. (In the text of the
    paper the noise is normal.) Shapes: real images x (N, ...).
    """
    check_critic("dragan_penalty", critic, allow_mixing)
    return _norm_penalty(critic, around(real, c, rng), weight, target)


def zero_centred_penalty(critic: Critic, images: Tensor, weight: float, allow_mixing: bool = False) -> Tensor:
    """weight/2 · mean ‖∇D(x)‖²: R1 for real images, R2 for fakes. Shapes: images x (N, ...)"""
    check_critic("zero_centred_penalty", critic, allow_mixing)
    return weight / 2 * square(input_gradients(critic, images)).sum(axis=1).mean()


def _norm_penalty(
    critic: Critic, x: Tensor, weight: float, target: float, one_sided: bool = False
) -> Tensor:  # fmt: skip
    """weight · mean (‖∇D(x)‖ - target)². one_sided: only norms above the target count."""
    excess = norm(input_gradients(critic, x), axis=1) - target
    return weight * square(relu(excess) if one_sided else excess).mean()


# --------------------------------------------------------------------- the points x̂ of the penalty


def between(real: Tensor, fake: Tensor, rng: Any) -> Tensor:
    """x̂ = ε x + (1 - ε) G(z), with one ε from U(0, 1) for each image"""
    if real.shape != fake.shape:
        raise ValueError(
            f"gradient penalty: real images of shape {real.shape} and fakes of shape {fake.shape}; each real "
            "image is joined with one fake, so give as many of both"
        )
    epsilon = _uniform(_one_each(real), rng, like=real)
    return epsilon * real + (1 - epsilon) * fake


def around(real: Tensor, c: float, rng: Any) -> Tensor:
    """x̂ = x + α c s u: see dragan_penalty"""
    alpha, u = _uniform(_one_each(real), rng, like=real), _uniform(real.shape, rng, like=real)
    return real + c * Tensor(real.data.std()) * alpha * u


def _one_each(images: Tensor) -> tuple[int, ...]:
    return (len(images), *[1] * (images.ndim - 1))


def _uniform(shape: tuple[int, ...], rng: Any, like: Tensor) -> Tensor:
    if not hasattr(rng, "random"):
        raise TypeError(f"gradient penalty: rng={rng!r}; give a generator: numpy.random.default_rng(seed)")
    return Tensor(rng.random(shape), dtype=like.dtype, backend=like.backend)


# -------------------------------------------------------------------------- which D can be penalised


def check_critic(who: str, d: Any, allow_mixing: bool, gives_logits: bool = True) -> None:
    """A ValueError if D has no slope at a single image. (The layers of a plain function are not known.)"""
    if not isinstance(d, nn.Module):
        return
    for name, layer in d.named_modules():
        if layer.mixes_images and not allow_mixing:
            raise ValueError(
                f"{who}: D's layer {name!r}, {layer!r}, mixes the images of a batch. Each logit then depends "
                "on all of them, and has no slope at one image. Use LayerNorm, GroupNorm or no normalisation "
                "in D, or say allow_mixing=True"
            )
    last = last_layer(d)
    if gives_logits and isinstance(last, (nn.Sigmoid, nn.Softmax)):
        raise ValueError(
            f"{who}: D ends with {last!r}, whose slope vanishes where D is sure. The penalty is for raw "
            "logits: leave that layer out"
        )


# --------------------------------------------------------------------------------------- as terms


class SlopeTerm(Term):
    """A term with a slope in it: that of the loss's logits, which in BEGAN are not D's output."""

    weight: float
    allow_mixing: bool

    def __post_init__(self) -> None:
        check_weight(self)

    def check(self, game: Game) -> None:
        check_critic(type(self).__name__, game.d, self.allow_mixing, gives_logits=game.loss.takes_logits)

    def critic(self, game: Game) -> Critic:
        return partial(game.loss.logits, game.d)


@dataclass
class GradientPenalty(SlopeTerm):
    """L_D gets + weight · mean (‖∇D(x̂)‖ - target)², x̂ between real images and fakes: see gradient_penalty"""

    weight: float = 10.0
    one_sided: bool = False
    target: float = 1.0
    allow_mixing: bool = False

    def discriminator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor:
        x = between(real, fake, rng)
        return _norm_penalty(self.critic(game), x, self.weight, self.target, self.one_sided)


@dataclass
class DRAGAN(SlopeTerm):
    """L_D gets + weight · mean (‖∇D(x̂)‖ - target)², x̂ around real images: see dragan_penalty"""

    weight: float = 10.0
    c: float = 0.5
    target: float = 1.0
    allow_mixing: bool = False

    def discriminator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor:
        return _norm_penalty(self.critic(game), around(real, self.c, rng), self.weight, self.target)


@dataclass
class R1(SlopeTerm):
    """L_D gets + weight/2 · mean ‖∇D(x)‖² at real images x (Mescheder et al. 2018). weight is their γ."""

    weight: float = 10.0
    allow_mixing: bool = False

    def discriminator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor:
        return zero_centred_penalty(self.critic(game), real, self.weight)


@dataclass
class R2(R1):
    """L_D gets + weight/2 · mean ‖∇D(G(z))‖²: R1 at fakes."""

    def discriminator(self, game: Game, real: Tensor, fake: Tensor, rng: Any) -> Tensor:
        return zero_centred_penalty(self.critic(game), fake, self.weight)
