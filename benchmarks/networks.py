"""One whole training step of a DCGAN for 28 × 28 images, in each library's own idiom.

G: 100 → Linear → 128 × 7 × 7 → ConvTranspose 64 × 14 × 14 → ConvTranspose 1 × 28 × 28
D: 1 × 28 × 28 → Conv 64 × 14 × 14 → Conv 128 × 7 × 7 → Linear → 1

with 4 × 4 kernels, stride 2, batch normalisation as in the paper (not at G's output and D's input), and the
non-saturating loss. A step is one of D and one of G, each with Adam; the fakes are made once and serve both.
D is frozen in G's step: nobody needs the gradient of its weights there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Z, CHANNELS = 100, (64, 128)


def minigan_dcgan(batch: int) -> Callable[[], object]:
    import minigan as mg
    from minigan import nn, optim

    rng = np.random.default_rng(0)
    few, many = CHANNELS
    g = nn.Sequential(
        nn.Linear(Z, many * 49, rng=rng),
        nn.Reshape(many, 7, 7),
        nn.BatchNorm2d(many),
        nn.ReLU(),
        nn.ConvTranspose2d(many, few, 4, 2, 1, rng=rng),
        nn.BatchNorm2d(few),
        nn.ReLU(),
        nn.ConvTranspose2d(few, 1, 4, 2, 1, rng=rng),
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Conv2d(1, few, 4, 2, 1, rng=rng),
        nn.LeakyReLU(0.2),
        nn.Conv2d(few, many, 4, 2, 1, rng=rng),
        nn.BatchNorm2d(many),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(many * 49, 1, rng=rng),
    )
    g_adam = optim.Adam(g.parameters(), 2e-4, (0.5, 0.999))
    d_adam = optim.Adam(d.parameters(), 2e-4, (0.5, 0.999))
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

    few, many = CHANNELS
    g = nn.Sequential(
        nn.Linear(Z, many * 49),
        nn.Unflatten(1, (many, 7, 7)),
        nn.BatchNorm2d(many),
        nn.ReLU(),
        nn.ConvTranspose2d(many, few, 4, 2, 1),
        nn.BatchNorm2d(few),
        nn.ReLU(),
        nn.ConvTranspose2d(few, 1, 4, 2, 1),
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Conv2d(1, few, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(few, many, 4, 2, 1),
        nn.BatchNorm2d(many),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(many * 49, 1),
    )
    g_adam = torch.optim.Adam(g.parameters(), 2e-4, (0.5, 0.999))
    d_adam = torch.optim.Adam(d.parameters(), 2e-4, (0.5, 0.999))
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
