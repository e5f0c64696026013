"""Wrappers that change the input of a discriminator. They go around any D.

d = Packed(Sequential(Linear(2 * 784, 256, rng=rng), ...), 2)
d = InstanceNoise(d, 0.1, rng=rng)
"""

from __future__ import annotations

from typing import Any

from .. import nn
from ..ops.operands import number, tensor, whole
from ..tensor import Tensor

__all__ = ["InstanceNoise", "Packed"]


class Wrapper(nn.Module):
    """A Module around the discriminator `d`."""

    def __init__(self, d: nn.Module):
        if not isinstance(d, nn.Module):
            raise TypeError(f"{type(self).__name__}: {d!r} is no Module; wrap a function in nn.Lambda")
        self.d = d


class Packed(Wrapper):
    """One logit for m images: either all are real or all are fake (Lin et al. 2018, PacGAN)

    A generator that makes the same image over and over is recognised: real images differ. Neighbours in the
    batch are joined along axis 1: (N, F) → (N/m, m F), (N, C, H, W) → (N/m, m C, H, W), and `d` takes that.
    It gives N/m logits, one for each pack. Only the first layer of `d` has to be m times as wide.

    >>> d = Packed(nn.Linear(2 * 3, 1, rng=0), 2)
    >>> d([[1.0, 2.0, 3.0]] * 10).shape
    (5, 1)
    """

    def __init__(self, d: nn.Module, m: int = 2):
        super().__init__(d)
        self.m = whole("Packed", "m", m, least=1)

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "Packed")
        if x.ndim < 2 or len(x) % self.m:
            raise ValueError(
                f"Packed: input of shape {x.shape}; it must be (N, F) or (N, C, H, W), and N a multiple of "
                f"m={self.m}: choose another batch size"
            )
        n, width, *places = x.shape
        return self.d(x.reshape(n // self.m, self.m * width, *places))

    def extra_repr(self) -> str:
        return f"m={self.m}"


class InstanceNoise(Wrapper):
    """In training: D(x + σ u) with u from N(0, 1) for each entry; in evaluation mode D(x)

    Noise on real images and fakes makes the two overlap, so that D cannot be sure (Sønderby et al. 2017).
    All of D's inputs get it, in the steps of D and of G.

    sigma is a plain attribute, and the training loop may lower it: `d.sigma = 0.1 * (1 - step / steps)`.
    It depends on the step alone then, and a run that is resumed goes on with the right value.

    >>> InstanceNoise(nn.Linear(2, 1, rng=0), 0.1, rng=1)
    InstanceNoise(
      sigma=0.1
      (d): Linear(2, 1)
    )
    """

    def __init__(self, d: nn.Module, sigma: float = 0.1, *, rng: Any):
        super().__init__(d)
        self.rng = nn.init.generator(rng, "InstanceNoise")
        self.sigma = number("InstanceNoise", "sigma", sigma)
        if not self.sigma >= 0:
            raise ValueError(f"InstanceNoise: sigma={sigma} is a standard deviation; it must be 0 or more")

    def forward(self, x: Any) -> Tensor:
        x = tensor(x, "InstanceNoise")
        if self.training and self.sigma:
            noise = self.sigma * self.rng.standard_normal(x.shape)
            x = x + Tensor(noise, dtype=x.dtype, backend=x.backend)
        return self.d(x)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"


def last_layer(d: nn.Module) -> nn.Module:
    """The layer that makes D's output, found through Sequentials and wrappers."""
    while isinstance(d, Wrapper) or (isinstance(d, nn.Sequential) and len(d)):
        d = d.d if isinstance(d, Wrapper) else d[-1]
    return d
