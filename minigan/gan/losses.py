"""What D and G want: each objective is a function of D's raw logits, and its derivative stands beside it.

r are the logits of real images, f those of fakes. Their shape is (N, 1) or (N,), or (N, 1, H, W) if D gives
one to each patch of an image; n is how many numbers that is. σ(l) = 1 / (1 + e⁻ˡ) makes a probability of a
logit.

Nearly every loss is a sum of means, so it can be written as a table. A row has some logits, a function of one
logit, and that function's slope:

    (real_logits, lambda r: softplus(-r), lambda r: -sigmoid(-r))

`objective` makes one op of such a table.

No loss computes a probability first and its logarithm then. -log(σ(l) + 1e-8) looks harmless, but at l = -25
its slope is -0.0014, and it should be -1. The same quantity is softplus(-l), which is exact for every l.

Losses that compare real images with fakes are in relativistic.py, f-divergences in divergences.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, fields
from functools import reduce
from math import log
from operator import add
from typing import Any, ClassVar

import numpy as np

from ..ops.elementwise import masked, relu, sigmoid, softplus
from ..ops.operands import tensor
from ..ops.shape import broadcast_to
from ..tensor import Tensor, constant, no_grad, record

__all__ = ["Hinge", "LeastSquares", "Loss", "Minimax", "NonSaturating", "Wasserstein"]

Curve = Callable[[Tensor], Any]  # a function of each logit by itself: its value there, or its slope


def objective(name: str, *rows: tuple[Tensor, Curve, Curve]) -> Tensor:
    """L = Σ over the rows of mean value(l)        l̄ = L̄ slope(l) / n

    Each row is (logits l, value, slope). To the tape this is one op called `name`: the values leave no
    history. The slopes are made of Tensor ops, so the gradient can be differentiated as often as you like.
    A slope that is the same everywhere may be a plain number; one that is 1 or 0, a Tensor of booleans.
    """
    rows = tuple((tensor(logits, name), value, slope) for logits, value, slope in rows)
    with no_grad():
        loss = reduce(add, [value(logits).mean() for logits, value, _ in rows]).data

    def edge(logits: Tensor, slope: Curve) -> Any:
        def vjp(g: Tensor) -> Tensor:
            g, s = g * (1 / logits.size), slope(logits)
            part = masked(g, s.data) if isinstance(s, Tensor) and s.dtype == bool else g * s
            return broadcast_to(part, logits.shape)

        return logits, vjp

    return record(name, loss, *[edge(logits, slope) for logits, _, slope in rows])


def positive(x: Tensor) -> Tensor:
    """Where relu has slope 1, as booleans; elsewhere it is 0. It is flat, so to the tape it is a constant."""
    return constant(~(x.data <= 0))


@dataclass
class Loss:
    """What all losses have in common. A subclass defines `discriminator` and `generator`, to be minimised."""

    name: ClassVar[str] = ""  # on the command line
    needs_real: ClassVar[bool] = False  # does G's loss look at the logits of real images, too?
    takes_logits: ClassVar[bool] = True  # is D's output what the loss takes? (BEGAN's D makes images)
    # is L_G = -L_D, but for the part about real images? (G leaves that out, as it cannot change it)
    zero_sum: ClassVar[bool] = False
    # the logit that the best D gives every image when fakes are like real ones; None: no single one
    equilibrium_logit: ClassVar[float | None] = None

    @property
    def equilibrium(self) -> tuple[float, float] | None:
        """L_D and L_G when fakes are like real images: where training would end if all went well."""
        if self.equilibrium_logit is None:
            return None
        logits = Tensor([self.equilibrium_logit])
        return float(self.discriminator(logits, logits)), float(self.generator(logits, logits))

    def logits(self, d: Any, x: Tensor) -> Tensor:
        """What the losses are given for images x: D's logits."""
        return d(x)

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D, a single number."""
        raise NotImplementedError(
            f"{type(self).__name__} must define discriminator(real_logits, fake_logits)"
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G, a single number."""
        raise NotImplementedError(f"{type(self).__name__} must define generator(fake_logits, real_logits)")

    def mean_output(self, logits: Tensor) -> Tensor:
        """What is reported as D(x): the mean logit, or the mean probability where the loss knows one."""
        return logits.detach().mean()

    def after_discriminator_step(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Called between the steps of D and G: BEGAN adjusts its k here."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """What the loss remembers between the steps: mostly nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        mine = self.state_dict()
        if set(state) != set(mine):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: the state has {sorted(state)}, but this loss "
                f"remembers {sorted(mine)}; was it saved with another loss?"
            )

    def settings(self) -> dict[str, Any]:
        """The name and the options, as JSON can hold them. `loss(**settings)` makes the same loss again."""
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}


# --------------------------------------------------------------------- cross-entropy, as in 2014


@dataclass
class Minimax(Loss):
    """The original game (Goodfellow et al. 2014): what one wins, the other loses

        L_D = mean softplus(-r) + mean softplus(f)        that is -mean log σ(r) - mean log(1 - σ(f))
        L_G = -mean softplus(f)                           that is mean log(1 - σ(f))

    G's slope -σ(f) vanishes where D is sure of a fake (f → -∞), which is how G begins: it saturates.
    If fakes are like real images, the best D gives all of them the logit 0, and L_D = 2 log 2 = 1.386.

    real_target: one-sided label smoothing (Salimans et al. 2016). With t = 0.9, the target for σ(r) is 0.9:
    t softplus(-r) + (1-t) softplus(r). Two-sided smoothing, fake_target > 0, is an error.
    """

    name: ClassVar[str] = "minimax"
    zero_sum = True
    equilibrium_logit = property(lambda self: log(self.real_target / (2 - self.real_target)))  # σ(l) = t / 2
    real_target: float = 1.0
    fake_target: InitVar[float] = 0.0

    def __post_init__(self, fake_target: float) -> None:
        if fake_target != 0:
            raise ValueError(
                f"{type(self).__name__}: fake_target={fake_target} would smooth the labels on both sides. "
                "With targets a for real images and b for fakes, the best D is D* = (a p + b q) / (p + q), "
                "where p and q are the densities of real images and fakes. Where there are only fakes "
                "(p = 0), that is b and not 0: D calls even the worst fakes partly real, and nothing drives "
                "them away. Leave fake_target at 0, and smooth one side only, with real_target=0.9"
            )
        if not 0 < self.real_target <= 1:
            raise ValueError(
                f"{type(self).__name__}: real_target={self.real_target} is the target of D's probability "
                "for real images, above 0 and at most 1; 0.9 is customary, 1 is no smoothing"
            )

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean [softplus(-r) + (1-t) r] + mean softplus(f)

        dL/dr = (1-t - σ(-r)) / n        dL/df = σ(f) / n

        (softplus(r) = softplus(-r) + r, so t softplus(-r) + (1-t) softplus(r) is softplus(-r) + (1-t) r.)
        """
        rest = 1 - self.real_target

        def value(r: Tensor) -> Tensor:  # with two softplus there is no ∞ - ∞, and without a rest no 0 · ∞
            return softplus(-r) * self.real_target + softplus(r) * rest if rest else softplus(-r)

        return objective(
            "cross_entropy_d",
            (real_logits, value, lambda r: rest - sigmoid(-r)),
            (fake_logits, softplus, sigmoid),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = -mean softplus(f)        dL/df = -σ(f) / n"""
        row = (fake_logits, lambda f: -softplus(f), lambda f: -sigmoid(f))
        return objective("minimax_g", row)

    def mean_output(self, logits: Tensor) -> Tensor:
        """mean σ(l): the probability that D gives these images of being real."""
        return sigmoid(logits.detach()).mean()


@dataclass
class NonSaturating(Minimax):
    """What everybody plays instead (Goodfellow et al. 2014, section 3): D as before, but G minimises

        L_G = mean softplus(-f)        that is -mean log σ(f)

    It wants the same as in Minimax. But its slope is -σ(-f), nearly -1 where D is sure of a fake.
    """

    name: ClassVar[str] = "non-saturating"
    zero_sum = False

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean softplus(-f)        dL/df = -σ(-f) / n"""
        row = (fake_logits, lambda f: softplus(-f), lambda f: -sigmoid(-f))
        return objective("non_saturating_g", row)


# ----------------------------------------------------------------------------------- other shapes


@dataclass
class LeastSquares(Loss):
    """LSGAN: logits are to hit targets (Mao et al. 2017), here with the paper's factor ½

    a: D's target for fakes. b: D's target for real images. c: G's target for fakes.
    """

    name: ClassVar[str] = "least-squares"
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0
    equilibrium_logit = property(lambda self: (self.a + self.b) / 2)

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = ½ mean (r - b)² + ½ mean (f - a)²        dL/dr = (r - b) / n        dL/df = (f - a) / n"""
        a, b = self.a, self.b
        return objective(
            "least_squares_d",
            (real_logits, lambda r: (r - b) * ((r - b) * 0.5), lambda r: r - b),
            (fake_logits, lambda f: (f - a) * ((f - a) * 0.5), lambda f: f - a),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = ½ mean (f - c)²        dL/df = (f - c) / n"""
        c = self.c
        row = (fake_logits, lambda f: (f - c) * ((f - c) * 0.5), lambda f: f - c)
        return objective("least_squares_g", row)


@dataclass
class Hinge(Loss):
    """The hinge (Lim & Ye 2017): logits beyond ±1, on the right side, cost D nothing."""

    name: ClassVar[str] = "hinge"

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean max(0, 1 - r) + mean max(0, 1 + f)

        dL/dr = -1/n where r < 1, else 0        dL/df = 1/n where f > -1, else 0
        """
        return objective(
            "hinge_d",
            (1 - real_logits, relu, positive),
            (1 + fake_logits, relu, positive),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = -mean f        dL/df = -1 / n"""
        return objective("hinge_g", (fake_logits, lambda f: -f, lambda f: -1.0))


@dataclass
class Wasserstein(Loss):
    """WGAN (Arjovsky et al. 2017): D is a critic, and -L_D approaches the distance between real and fake

    This holds only while D is no steeper than 1. Add a gradient penalty, weight clipping or spectral
    norms; without one of them L_D falls for ever.
    """

    name: ClassVar[str] = "wasserstein"
    zero_sum = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean f - mean r        dL/dr = -1 / n        dL/df = 1 / n"""
        return objective(
            "wasserstein_d",
            (real_logits, lambda r: -r, lambda r: -1.0),
            (fake_logits, lambda f: f, lambda f: 1.0),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = -mean f        dL/df = -1 / n"""
        return objective("wasserstein_g", (fake_logits, lambda f: -f, lambda f: -1.0))
