"""What D and G want: each objective is a function of D's raw logits, and its derivative stands beside it.

r are the logits of real images, f those of fakes. Their shape is (N, 1) or (N,), or (N, 1, H, W) if D judges
patches of an image; n is how many numbers that is. σ(l) = 1 / (1 + e⁻ˡ) makes a probability of a logit.

Nearly every loss is a sum of means, so it can be written as a table. A row has some logits, a function of one
logit, and that function's slope:

    (real_logits, lambda r: softplus(-r), lambda r: -sigmoid(-r))

`objective` (objective.py) makes one op of such a table. Functions of the form c softplus(a l) + b l are said
once more as the three numbers a, b, c, for a GPU (soft=...).

No loss computes a probability first and its logarithm then. -log(σ(l) + 1e-8) looks harmless, but at l = -25
its slope is -0.0014, and it should be -1. The same quantity is softplus(-l), which is exact for every l.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from math import log
from typing import ClassVar

from ..backend import Array
from ..kernels import device
from ..ops.elementwise import relu, sigmoid, softplus
from ..tensor import Tensor
from .objective import Loss, objective, positive

__all__ = [
    "Hinge",
    "LeastSquares",
    "Loss",
    "Minimax",
    "NonSaturating",
    "RelativisticAverage",
    "RelativisticPairing",
    "Wasserstein",
]

# ------------------------------------------------------------------- the original game, and its cure


@dataclass
class Minimax(Loss):
    """The original game (Goodfellow et al. 2014): what one wins, the other loses

        L_D = mean softplus(-r) + mean softplus(f)        that is -mean log σ(r) - mean log(1 - σ(f))
        L_G = -mean softplus(f)                           that is mean log(1 - σ(f))

    G's slope -σ(f) vanishes where D is sure of a fake (f → -∞), which is how G begins: it saturates.
    If fakes are like real images, the best D gives all of them the logit 0, and L_D = 2 log 2 = 1.386.

    real_target: one-sided label smoothing (Salimans et al. 2016). With t = 0.9, D is to say 0.9 for real
    images: t softplus(-r) + (1-t) softplus(r). Two-sided smoothing, fake_target > 0, is refused.
    """

    name: ClassVar[str] = "minimax"
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
                f"{type(self).__name__}: real_target={self.real_target} is what D shall say of real images, "
                "a probability above 0 and at most 1; 0.9 is customary, 1 is no smoothing"
            )

    @property
    def zero_sum(self) -> bool:
        """Yes here, but not for what is made of it."""
        return type(self) is Minimax

    @property
    def undecided(self) -> float:
        """σ(l) = t / 2"""
        return log(self.real_target / (2 - self.real_target))

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
            soft=[(-1, rest, 1), (1, 0, 1)],
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = -mean softplus(f)        dL/df = -σ(f) / n"""
        row = (fake_logits, lambda f: -softplus(f), lambda f: -sigmoid(f))
        return objective("minimax_g", row, soft=[(1, 0, -1)])

    def belief(self, logits: Tensor) -> Array:
        """mean σ(l): the probability that D gives these images of being real."""
        return sigmoid(logits.detach()).mean().data

    def beliefs(self, *several: Tensor) -> list[Array]:
        """`belief` of each; on a GPU in one launch."""
        if (fused := device.of(several[0].data)) is not None:
            return fused.sigmoid_means([logits.data for logits in several])
        return super().beliefs(*several)


@dataclass
class NonSaturating(Minimax):
    """What everybody plays instead (Goodfellow et al. 2014, section 3): D as before, but G minimises

        L_G = mean softplus(-f)        that is -mean log σ(f)

    It wants the same as in Minimax. But its slope is -σ(-f), nearly -1 where D is sure of a fake.
    """

    name: ClassVar[str] = "non-saturating"

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean softplus(-f)        dL/df = -σ(-f) / n"""
        row = (fake_logits, lambda f: softplus(-f), lambda f: -sigmoid(-f))
        return objective("non_saturating_g", row, soft=[(-1, 0, 1)])


# ----------------------------------------------------------------------------------- other shapes


@dataclass
class LeastSquares(Loss):
    """LSGAN: logits are to hit targets (Mao et al. 2017), here with the paper's factor ½

    a: D's target for fakes. b: D's target for real images. c: what G wants D to say of fakes.
    """

    name: ClassVar[str] = "least-squares"
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0

    @property
    def undecided(self) -> float:
        """Halfway between the targets."""
        return (self.a + self.b) / 2

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
    """The hinge (Lim & Ye 2017): D stops caring about images that it has on the right side of ±1."""

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

    @property
    def zero_sum(self) -> bool:
        """Yes."""
        return True

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


# ------------------------------------------------------------------------------------ relativistic


@dataclass
class RelativisticPairing(Loss):
    """RpGAN (Jolicoeur-Martineau 2019; Huang et al. 2024): is a real image more real than a fake?

    Only differences of logits count: each real image is paired with the fake in the same row.
    """

    name: ClassVar[str] = "rpgan"
    needs_real: ClassVar[bool] = True

    @property
    def undecided(self) -> float:
        """Any number would do: only differences count."""
        return 0.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean softplus(-e), e = r - f        dL/dr = -σ(-e) / n        dL/df = σ(-e) / n"""
        ahead = self._difference(real_logits, fake_logits)
        row = (ahead, lambda e: softplus(-e), lambda e: -sigmoid(-e))
        return objective("rpgan_d", row, soft=[(-1, 0, 1)])

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean softplus(e), e = r - f        dL/df = -σ(e) / n        dL/dr = σ(e) / n"""
        ahead = self._difference(self._real(real_logits), fake_logits)
        return objective("rpgan_g", (ahead, softplus, sigmoid), soft=[(1, 0, 1)])

    @staticmethod
    def _difference(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        if real_logits.shape != fake_logits.shape:
            raise ValueError(
                f"RelativisticPairing: real logits of shape {real_logits.shape} and fake logits of shape "
                f"{fake_logits.shape}; each real image is paired with one fake, so the shapes must be equal"
            )
        return real_logits - fake_logits


@dataclass
class RelativisticAverage(Loss):
    """RaGAN (Jolicoeur-Martineau 2019): is a real image more real than the average fake, and vice versa?

    With a = r - mean f, by how much a real image beats the fakes, and b = f - mean r:

        dL_D/dr = -(σ(-a) + mean σ(b)) / n        dL_D/df =  (σ(b) + mean σ(-a)) / n
        dL_G/dr =  (σ(a) + mean σ(-b)) / n        dL_G/df = -(σ(-b) + mean σ(a)) / n

    The second summand of each is there because every logit moves its own set's mean a little.
    """

    name: ClassVar[str] = "ragan"
    needs_real: ClassVar[bool] = True

    @property
    def undecided(self) -> float:
        """Any number would do: only differences count."""
        return 0.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean softplus(-a) + mean softplus(b)        dL/da = -σ(-a) / n        dL/db = σ(b) / n"""
        return objective(
            "ragan_d",
            (real_logits - fake_logits.mean(), lambda a: softplus(-a), lambda a: -sigmoid(-a)),
            (fake_logits - real_logits.mean(), softplus, sigmoid),
            soft=[(-1, 0, 1), (1, 0, 1)],
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean softplus(a) + mean softplus(-b)        dL/da = σ(a) / n        dL/db = -σ(-b) / n"""
        real_logits = self._real(real_logits)
        return objective(
            "ragan_g",
            (real_logits - fake_logits.mean(), softplus, sigmoid),
            (fake_logits - real_logits.mean(), lambda b: softplus(-b), lambda b: -sigmoid(-b)),
            soft=[(1, 0, 1), (-1, 0, 1)],
        )
