"""A GAN of two small networks learns to draw digits.

    python examples/mnist_mlp_gan.py                            about three minutes on two cores
    python examples/mnist_mlp_gan.py --recipe plain             what most tutorials do
    python examples/mnist_mlp_gan.py --resume runs/mnist_mlp_gan-1

G makes 784 pixels of 32 random numbers, D gives 784 pixels a logit: high where it takes them for a real
digit. How they are trained in turn stands in minigan/gan/steps.py. The folder of the run then holds pictures,
curves, a film, and a checkpoint from which examples/sample.py draws more.
"""

import argparse
from itertools import pairwise

import numpy as np

from minigan import nn
from minigan.data import load, scaled
from minigan.streams import stream
from minigan.training import command_line

# Learning rate and β of both Adams; the size of z; the decay of the moving average of G, which draws.
RECIPES = {
    "default": {"lr": 1e-3, "betas": (0.5, 0.999), "noise": 32, "ema": 0.998},
    "plain": {"lr": 2e-4, "betas": (0.5, 0.999), "noise": 100, "ema": 0},
    "wide": {"lr": 2e-4, "betas": (0.5, 0.999), "noise": 100, "ema": 0},
    "tutorial": {"lr": 2e-4, "betas": (0.9, 0.999), "noise": 100, "ema": 0},
}

parser = command_line.arguments(__doc__, "mnist_mlp_gan", epochs=48)
parser.add_argument(
    "--recipe",
    choices=RECIPES,
    default="default",
    help="plain: no normalisation, no dropout, no averaging; wide: the same with up to 1024 units; "
    "tutorial: with ReLU in both networks and Adam's usual β",
)


def networks(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """G and D: noise (N, 32 or 100) → images (N, 784) → logits (N, 1)."""
    rng = stream(options.seed, "weights")
    if options.recipe != "default" or options.loss == "began":
        return other_networks(options, rng)
    g = nn.Sequential(
        nn.Linear(32, 256, rng=rng),
        nn.BatchNorm1d(256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 256, rng=rng),
        nn.BatchNorm1d(256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 784, rng=rng),
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Linear(784, 256, rng=rng),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.2, rng=rng),
        nn.Linear(256, 256, rng=rng),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.2, rng=rng),
        nn.MinibatchStdDev(),  # how much the images of the batch differ, as one more feature
        nn.Linear(257, 1, rng=rng),
    )
    if command_line.has_gradient_penalty(options):  # its slope is that of one image, so D must not mix them
        d = nn.Sequential(*d[:-2], nn.Linear(256, 1, rng=rng))
    return g, d


def other_networks(options: argparse.Namespace, rng: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """G and D of the other recipes: Linear layers with one activation between them."""
    hidden = [256, 512, 1024] if options.recipe == "wide" else [256, 256]
    activation = nn.ReLU() if options.recipe == "tutorial" else nn.LeakyReLU(0.2)
    outputs = 784 if options.loss == "began" else 1  # BEGAN's D is an autoencoder: it draws what it sees

    def stack(*sizes: int) -> list[nn.Module]:
        pairs = ((nn.Linear(n_in, n_out, rng=rng), activation) for n_in, n_out in pairwise(sizes))
        return [layer for pair in pairs for layer in pair][:-1]  # no activation at the end

    g = nn.Sequential(*stack(RECIPES[options.recipe]["noise"], *hidden, 784), nn.Tanh())
    d = nn.Sequential(*stack(784, *hidden[::-1], outputs))
    return g, d


def main(options: argparse.Namespace) -> None:
    """Load the images, make the game, train."""
    images = load(options.dataset, options.data_dir, log=command_line.printer(options))
    recipe = RECIPES[options.recipe]
    game = command_line.game(options, *networks(options), recipe["lr"], recipe["betas"])
    data = scaled(images.images).reshape(-1, 784)
    trainer = command_line.trainer(options, game, data, noise=recipe["noise"], ema=recipe["ema"])
    trainer.run(options.epochs)


if __name__ == "__main__":
    command_line.run(main, parser)
