"""BEGAN (Berthelot, Schumm & Metz 2017): D is an autoencoder. Its error on an image stands for a logit.

Write L(x) for that error. D learns to copy real images well and fakes badly; G makes fakes that D copies
well. A number k between 0 and 1 says how much the fakes matter to D. It is moved after each of D's steps so
that the errors keep a ratio: mean L(G(z)) = γ mean L(x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..ops.elementwise import clip
from ..tensor import Tensor
from .losses import Loss, objective

__all__ = ["BEGAN"]


@dataclass
class BEGAN(Loss):
    """L_D = mean L(x) - k mean L(G(z))        L_G = mean L(G(z))

    gamma: the ratio γ; low for good single images, high for many different ones. lambda_k: how fast k moves.
    Here the "logits" of an image are its error L, one number per image, and low for real images.
    """

    name: ClassVar[str] = "began"
    takes_logits: ClassVar[bool] = False
    gamma: float = 0.5
    lambda_k: float = 0.001
    k: Tensor | float = field(default=0.0, init=False)  # one number

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1 or self.lambda_k < 0:
            raise ValueError(
                f"BEGAN: gamma={self.gamma} must be between 0 and 1, lambda_k={self.lambda_k} 0 or more"
            )

    def logits(self, d: Any, x: Tensor) -> Tensor:
        """L(x) = mean |x - D(x)| over the pixels of each image        Shapes: x (N, ...), L (N,)"""
        copy = d(x)
        if copy.shape != x.shape:
            raise ValueError(
                f"BEGAN: D makes shape {copy.shape} of images of shape {x.shape}; here D is an autoencoder, "
                "whose output is an image like its input"
            )
        return abs(x - copy).mean(axis=tuple(range(1, x.ndim)))

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D = mean r - k mean f        dL/dr = 1 / n        dL/df = -k / n"""
        k = self.k  # as it is now: it may have moved before the gradient is asked for
        return objective(
            "began_d",
            (real_logits, lambda r: r, lambda r: 1.0),
            (fake_logits, lambda f: f * -k, lambda f: -k),
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G = mean f        dL/df = 1 / n"""
        return objective("began_g", (fake_logits, lambda f: f, lambda f: 1.0))

    def after_discriminator_step(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """k ← k + λ (γ mean r - mean f), kept between 0 and 1

        Where D copies the fakes too well, mean f < γ mean r, k grows: D is to care more about the fakes.
        """
        r, f = self.mean_output(real_logits), self.mean_output(fake_logits)
        self.k = clip(self.k + self.lambda_k * (self.gamma * r - f), 0.0, 1.0)

    def state_dict(self) -> dict[str, np.ndarray]:
        """k, which training has moved."""
        return {"k": np.array(float(self.k))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over k."""
        super().load_state_dict(state)
        self.k = float(state["k"])
