"""Relativistic losses (Jolicoeur-Martineau 2019): only differences of logits count.

r are the logits of real images, f those of fakes, as in losses.py. Here G's loss looks at both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ops.elementwise import sigmoid, softplus
from ..tensor import Tensor
from .losses import Loss, objective

__all__ = ["RelativisticAverage", "RelativisticPairing"]


@dataclass
class Relativistic(Loss):
    """What the two have in common."""

    needs_real: ClassVar[bool] = True
    equilibrium_logit = 0.0  # any number would do: only differences count

    def _given(self, real_logits: Tensor | None) -> Tensor:
        if real_logits is None:
            raise ValueError(
                f"{type(self).__name__}.generator: it compares fakes with real images; give real_logits, too"
            )
        return real_logits


@dataclass
class RelativisticPairing(Relativistic):
    """RpGAN (Jolicoeur-Martineau 2019; Huang et al. 2024): is a real image more real than a fake?

    Only differences of logits count: each real image is paired with the fake in the same row.
    """

    name: ClassVar[str] = "rpgan"

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean softplus(-e), e = r - f        dL/dr = -σ(-e) / n        dL/df = σ(-e) / n"""
        e = self._difference(real_logits, fake_logits)
        return objective("rpgan_d", (e, lambda e: softplus(-e), lambda e: -sigmoid(-e)))

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean softplus(e), e = r - f        dL/df = -σ(e) / n        dL/dr = σ(e) / n"""
        e = self._difference(self._given(real_logits), fake_logits)
        return objective("rpgan_g", (e, softplus, sigmoid))

    @staticmethod
    def _difference(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        if real_logits.shape != fake_logits.shape:
            raise ValueError(
                f"RelativisticPairing: real logits of shape {real_logits.shape} and fake logits of shape "
                f"{fake_logits.shape}; each real image is paired with one fake, so the shapes must be equal"
            )
        return real_logits - fake_logits


@dataclass
class RelativisticAverage(Relativistic):
    """RaGAN (Jolicoeur-Martineau 2019): is a real image more real than the average fake, and vice versa?

    With a = r - mean f, by how much a real image beats the fakes, and b = f - mean r:

        dL_D/dr = -(σ(-a) + mean σ(b)) / n        dL_D/df =  (σ(b) + mean σ(-a)) / n
        dL_G/dr =  (σ(a) + mean σ(-b)) / n        dL_G/df = -(σ(-b) + mean σ(a)) / n

    The second summand of each is there because every logit moves its own set's mean a little.
    """

    name: ClassVar[str] = "ragan"

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean softplus(-a) + mean softplus(b)        dL/da = -σ(-a) / n        dL/db = σ(b) / n"""
        return objective(
            "ragan_d",
            (real_logits - fake_logits.mean(), lambda a: softplus(-a), lambda a: -sigmoid(-a)),
            (fake_logits - real_logits.mean(), softplus, sigmoid),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean softplus(a) + mean softplus(-b)        dL/da = σ(a) / n        dL/db = -σ(-b) / n"""
        real_logits = self._given(real_logits)
        return objective(
            "ragan_g",
            (real_logits - fake_logits.mean(), softplus, sigmoid),
            (fake_logits - real_logits.mean(), lambda b: softplus(-b), lambda b: -sigmoid(-b)),
        )
