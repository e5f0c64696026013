"""Networks that draw digits and judge them: those of stacked_mnist.py, then those of which_loss.py.

All functions give a pair, G and D. Convolutions are 4 or 3 wide, and those with stride 2 halve an image or
double it: 28 x 28, 14 x 14, 7 x 7, and 4 x 4 with 3.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from minigan import nn
from minigan.gan import Packed
from minigan.nn import init

__all__ = ["NOISE", "TINY_NOISE", "convolutions", "linear", "residual", "tiny"]

TINY_NOISE, NOISE = 256, 64  # numbers of noise that G is given: the tiny one, and all others


# ------------------------------------------------------------------------------------ Stacked MNIST


def tiny(filters: int, part: int, m: int, rng: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """G: noise (N, 256) → images (N, 3, 28, 28). D: images → logits (N/m, 1). filters: of G's last."""
    f, d_f = filters, filters // part

    def up(c: int, o: int, extra: int) -> list[nn.Module]:
        convolution = nn.ConvTranspose2d(c, o, 3, stride=2, padding=1, output_padding=extra, rng=rng)
        return [convolution, nn.BatchNorm2d(o), nn.ReLU()]

    def down(c: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(c, o, 3, stride=2, padding=1, rng=rng), nn.BatchNorm2d(o), nn.LeakyReLU(0.3)]

    g = nn.Sequential(
        nn.Linear(TINY_NOISE, 4 * 4 * 8 * f, rng=rng),
        nn.Reshape(8 * f, 4, 4),
        nn.BatchNorm2d(8 * f),
        nn.ReLU(),
        *up(8 * f, 4 * f, 0),  # 7 x 7
        *up(4 * f, 2 * f, 1),  # 14 x 14
        *up(2 * f, f, 1),  # 28 x 28
        nn.Conv2d(f, 3, 3, padding=1, rng=rng),
        nn.Tanh(),
    )
    d = nn.Sequential(
        *down(3 * m, d_f),  # 14 x 14
        *down(d_f, 2 * d_f),  # 7 x 7
        *down(2 * d_f, 4 * d_f),  # 4 x 4
        nn.Flatten(),
        nn.Linear(4 * 4 * 4 * d_f, 1, rng=rng),
    )
    return g, Packed(d, m)


def residual(filters: int, rng: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """G: noise (N, 64) → images (N, 3, 28, 28). D: images → logits (N, 1). Nothing is normalised.

    The second convolution of each block begins at zero, so each block begins as the identity, and signals
    keep their size from layer to layer.
    """
    f = filters
    last = []  # convolutions of the blocks

    def block(c: int) -> nn.Module:
        first, second = (nn.Conv2d(c, c, 3, padding=1, rng=rng) for _ in range(2))
        last.append(second)
        return nn.Residual(nn.Sequential(nn.LeakyReLU(0.2), first, nn.LeakyReLU(0.2), second))

    g = nn.Sequential(
        nn.Linear(NOISE, 7 * 7 * 2 * f, rng=rng),
        nn.Reshape(2 * f, 7, 7),
        block(2 * f),
        nn.Upsample(2),
        nn.Conv2d(2 * f, f, 1, rng=rng),
        block(f),  # 14 x 14
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(f, 3, 4, stride=2, padding=1, rng=rng),  # 28 x 28
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Conv2d(3, f, 4, stride=2, padding=1, rng=rng),  # 14 x 14
        block(f),
        nn.AvgPool(2),
        nn.Conv2d(f, 2 * f, 1, rng=rng),
        block(2 * f),  # 7 x 7
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 2 * f, 1, rng=rng),
    )
    for network in (g, d):
        init.fill(network, partial(init.kaiming_normal, rng=rng, slope=0.2))
    for convolution in last:
        init.fill(convolution, init.zeros)
    return g, d


# ----------------------------------------------------------------------------- ten objectives


def linear(wide: int, autoencoder: bool, rng: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """G: noise (N, 64) → images (N, 784) and D: images → logits (N, 1), or copies of the images for BEGAN."""

    def layers(*sizes: int, norm: bool = False) -> list[nn.Module]:
        found: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            found += [nn.Linear(n_in, n_out, rng=rng)]
            found += [nn.BatchNorm1d(n_out)] if norm else []
            found += [nn.LeakyReLU(0.2)]
        return found

    g = [*layers(NOISE, wide, wide, norm=True), nn.Linear(wide, 784, rng=rng), nn.Tanh()]
    if autoencoder:
        d = [*layers(784, wide, 64, wide), nn.Linear(wide, 784, rng=rng), nn.Tanh()]
    else:
        d = [*layers(784, wide, wide), nn.Linear(wide, 1, rng=rng)]
    return nn.Sequential(*g), nn.Sequential(*d)


def convolutions(wide: int, autoencoder: bool, rng: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """The paper's, which are InfoGAN's: images are (N, 1, 28, 28). D has no BatchNorm."""
    leaky = nn.LeakyReLU(0.2)

    def down(n_in: int, n_out: int) -> nn.Module:
        return nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, rng=rng)

    def up(n_in: int, n_out: int) -> nn.Module:
        return nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, rng=rng)

    flat, square = 128 * 7 * 7, nn.Reshape(128, 7, 7)
    g = nn.Sequential(
        nn.Linear(NOISE, wide, rng=rng), nn.BatchNorm1d(wide), leaky,
        nn.Linear(wide, flat, rng=rng), nn.BatchNorm1d(flat), leaky, square,
        up(128, 64), nn.BatchNorm2d(64), leaky, up(64, 1), nn.Tanh(),
    )  # fmt: skip
    see = [down(1, 64), leaky, down(64, 128), leaky, nn.Flatten()]
    if autoencoder:
        code = [nn.Linear(flat, 64, rng=rng), leaky, nn.Linear(64, flat, rng=rng), leaky]
        d = nn.Sequential(*see, *code, square, up(128, 64), leaky, up(64, 1), nn.Tanh())
    else:
        d = nn.Sequential(*see, nn.Linear(flat, wide, rng=rng), leaky, nn.Linear(wide, 1, rng=rng))
    return g, d
