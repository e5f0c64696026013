"""f-GANs (Nowozin, Cseke & Tomioka 2016): pick a divergence between distributions, get a game.

p is the density of real images, q that of fakes. An f-divergence is D_f = ∫ q f(p/q) with f convex and
f(1) = 0. For every function T of an image it is at least

    mean over real images of T  -  mean over fakes of f*(T)

where f* is the convex conjugate of f; and it is equal to that for the best T, which is f'(p/q). So D raises
this bound, and what it reaches is the divergence that G lowers. T must stay where f* is finite; that is why
D's raw output v goes through an activation g first, T = g(v):

    L_D = -mean g(r) + mean f*(g(f))        L_G = -mean f*(g(f))        or L_G = -mean g(f)

with r and f the raw outputs for real images and fakes. The last is the form that does not saturate
(non_saturating=True; section 3.2 of the paper): it wants more of what D takes for real.

Each class below has two curves, g and f*∘g, each a value and a slope in v. The composition is simplified by
hand: f* of g computed step by step would be log 0 or 0/0 for large v, though the result is finite. Where an
exponential is left, it is in the mathematics. A raw output of 1000 then means a loss of e¹⁰⁰⁰, which no
floating point number holds: the loss is infinite, NumPy warns of the overflow, and training has to stop. In
float32 that happens beyond v = 88 or so. Such losses need a well-behaved D; no clipping here hides it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ..ops.elementwise import exp, expm1, sigmoid, softplus
from ..tensor import Tensor
from .losses import Curve, Loss, objective

__all__ = ["KL", "FDivergence", "JensenShannon", "Pearson", "ReverseKL", "SquaredHellinger"]

LOG2 = math.log(2)


class Pair(NamedTuple):
    """A function of a logit, and its derivative."""

    value: Curve
    slope: Curve


@dataclass
class FDivergence(Loss):
    """What the five have in common: L_D and L_G from g and f*∘g."""

    activation: ClassVar[Pair]  # g
    conjugate: ClassVar[Pair]  # f*∘g
    non_saturating: bool = False
    zero_sum = property(lambda self: not self.non_saturating)

    @property
    def _op(self) -> str:
        return self.name.replace("-", "_")

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = -mean g(r) + mean f*(g(f))        dL/dr = -g'(r) / n        dL/df = (f*∘g)'(f) / n"""
        g, conjugate = self.activation, self.conjugate
        return objective(
            self._op + "_d",
            (real_logits, lambda r: -g.value(r), lambda r: -g.slope(r)),
            (fake_logits, conjugate.value, conjugate.slope),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = -mean f*(g(f)), or -mean g(f)        dL/df = -(f*∘g)'(f) / n, or -g'(f) / n"""
        curve = self.activation if self.non_saturating else self.conjugate
        return objective(self._op + "_g", (fake_logits, lambda f: -curve.value(f), lambda f: -curve.slope(f)))


@dataclass
class KL(FDivergence):
    """∫ p log(p/q): fakes must be everywhere where real images are

        f(u) = u log u        f*(t) = e^(t-1)        g(v) = v        f*(g(v)) = e^(v-1)

    The best v is 1 + log(p/q). For fakes the loss is exponential in v, and overflows.
    """

    name: ClassVar[str] = "kl"
    activation = Pair(lambda v: v, lambda v: 1.0)
    conjugate = Pair(lambda v: exp(v - 1), lambda v: exp(v - 1))


@dataclass
class ReverseKL(FDivergence):
    """∫ q log(q/p): fakes must be nowhere where real images are not

        f(u) = -log u        f*(t) = -1 - log(-t)        g(v) = -e⁻ᵛ        f*(g(v)) = v - 1

    The best v is log(p/q). For real images the loss is exponential in -v, and overflows.
    """

    name: ClassVar[str] = "reverse-kl"
    activation = Pair(lambda v: -exp(-v), lambda v: exp(-v))
    conjugate = Pair(lambda v: v - 1, lambda v: 1.0)


@dataclass
class Pearson(FDivergence):
    """Pearson's χ², ∫ (p - q)² / q

        f(u) = (u - 1)²        f*(t) = t²/4 + t        g(v) = v        f*(g(v)) = v²/4 + v

    The best v is 2 (p/q - 1), never below -2. Where D's output for a fake is less all the same, f*(g(v))
    falls as v rises, and the gradient of L_G = -mean f*(g(v)) makes the fake worse still. That of L_G =
    -mean v (non_saturating=True) does not.
    """

    name: ClassVar[str] = "pearson"
    activation = Pair(lambda v: v, lambda v: 1.0)
    conjugate = Pair(lambda v: v * (v * 0.25 + 1), lambda v: v * 0.5 + 1)


@dataclass
class SquaredHellinger(FDivergence):
    """∫ (√p - √q)²

        f(u) = (√u - 1)²        f*(t) = t / (1 - t)        g(v) = 1 - e⁻ᵛ        f*(g(v)) = eᵛ - 1

    The best v is ½ log(p/q). Exponential on both sides: in -v for real images, in v for fakes.
    """

    name: ClassVar[str] = "hellinger"
    activation = Pair(lambda v: -expm1(-v), lambda v: exp(-v))
    conjugate = Pair(expm1, exp)


@dataclass
class JensenShannon(FDivergence):
    """∫ p log(2p / (p+q)) + ∫ q log(2q / (p+q)): twice the Jensen-Shannon divergence, as in the paper's f

        f(u) = u log u - (u+1) log((u+1)/2)           f*(t) = -log(2 - eᵗ)
        g(v) = log 2 - softplus(-v)                   f*(g(v)) = softplus(v) - log 2

    The best v is log(p/q). This is the original game: L_D is Minimax's, less 2 log 2.
    """

    name: ClassVar[str] = "jensen-shannon"
    activation = Pair(lambda v: LOG2 - softplus(-v), lambda v: sigmoid(-v))
    conjugate = Pair(lambda v: softplus(v) - LOG2, sigmoid)
    equilibrium_logit = 0.0  # log 1

    def mean_output(self, logits: Tensor) -> Tensor:
        """mean σ(v): the probability that D gives these images of being real."""
        return sigmoid(logits.detach()).mean()
