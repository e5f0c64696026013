"""The networks that are measured, and one training step of the DCGAN.

MLP, for images of 784 numbers, with leaky ReLU between the layers (here `hidden` = (256, 256)):

    G: 100 → 256 → 256 → 784, tanh        D: 784 → 256 → 256 → 1

DCGAN, for 28 × 28 images:

    G: 100 → Linear → 128 × 7 × 7 → ConvTranspose 64 × 14 × 14 → ConvTranspose 1 × 28 × 28, tanh
    D: 1 × 28 × 28 → Conv 64 × 14 × 14 → Conv 128 × 7 × 7 → Linear → 1

with 4 × 4 kernels, stride 2, batch normalisation as in the paper (not at G's output and D's input).

The step of the DCGAN here is what ops.py adds up: one of D and one of G with the non-saturating loss, each
with Adam; the real images are always the same, the fakes are made once and serve both. D is frozen in G's
step: nobody needs the gradient of its weights there. gan_step.py measures what a training loop runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Z, PIXELS, CHANNELS = 100, 784, (64, 128)
SLOPE = 0.2  # of the leaky ReLU
ADAM = (2e-4, (0.5, 0.999))  # learning rate, betas


# -------------------------------------------------------------------------------- the networks

# nn is minigan's or PyTorch's: the layers have the same names and arguments in both. minigan's also want to
# know what draws their first weights: draw = {"rng": a generator}.


def mlp(nn: Any, hidden: Sequence[int], **draw: Any) -> tuple[Any, Any]:
    """(G, D)"""

    def layers(sizes: Sequence[int]) -> list[Any]:
        pairs = [(nn.Linear(i, o, **draw), nn.LeakyReLU(SLOPE)) for i, o in pairwise(sizes)]
        return [layer for pair in pairs for layer in pair][:-1]  # the last one has no activation

    g = nn.Sequential(*layers([Z, *hidden, PIXELS]), nn.Tanh())
    return g, nn.Sequential(*layers([PIXELS, *reversed(hidden), 1]))


def dcgan(nn: Any, **draw: Any) -> tuple[Any, Any]:
    """(G, D)"""
    few, many = CHANNELS
    g = nn.Sequential(
        nn.Linear(Z, many * 49, **draw),
        nn.Reshape(many, 7, 7) if hasattr(nn, "Reshape") else nn.Unflatten(1, (many, 7, 7)),
        nn.BatchNorm2d(many),
        nn.ReLU(),
        nn.ConvTranspose2d(many, few, 4, 2, 1, **draw),
        nn.BatchNorm2d(few),
        nn.ReLU(),
        nn.ConvTranspose2d(few, 1, 4, 2, 1, **draw),
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Conv2d(1, few, 4, 2, 1, **draw),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(few, many, 4, 2, 1, **draw),
        nn.BatchNorm2d(many),
        nn.LeakyReLU(SLOPE),
        nn.Flatten(),
        nn.Linear(many * 49, 1, **draw),
    )
    return g, d


# ---------------------------------------------------------------------- the step that ops.py adds up


def minigan_dcgan(batch: int) -> Callable[[], object]:
    import minigan as mg
    from minigan import nn, optim

    rng = np.random.default_rng(0)
    g, d = dcgan(nn, rng=rng)
    g_adam = optim.Adam(g.parameters(), *ADAM)
    d_adam = optim.Adam(d.parameters(), *ADAM)
    real = mg.Tensor(rng.uniform(-1, 1, (batch, 1, 28, 28)), dtype="float32")

    def step() -> object:
        fake = g(mg.Tensor(rng.standard_normal((batch, Z), dtype="float32"), copy=False))
        d_adam.zero_grad()
        (mg.softplus(-d(real)).mean() + mg.softplus(d(fake.detach())).mean()).backward()
        d_adam.step()
        g_adam.zero_grad()
        with nn.frozen(d):
            loss = mg.softplus(-d(fake)).mean()
        loss.backward()
        g_adam.step()
        return float(loss)

    return step


def torch_dcgan(batch: int) -> Callable[[], object]:
    import torch
    import torch.nn.functional as F
    from torch import nn

    g, d = dcgan(nn)
    g_adam = torch.optim.Adam(g.parameters(), *ADAM)
    d_adam = torch.optim.Adam(d.parameters(), *ADAM)
    real = torch.rand(batch, 1, 28, 28) * 2 - 1

    def step() -> object:
        fake = g(torch.randn(batch, Z))
        d_adam.zero_grad()
        (F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()).backward()
        d_adam.step()
        g_adam.zero_grad()
        d.requires_grad_(False)
        loss = F.softplus(-d(fake)).mean()
        loss.backward()
        d.requires_grad_(True)
        g_adam.step()
        return loss.item()

    return step
