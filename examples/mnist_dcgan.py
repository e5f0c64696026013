"""A convolutional GAN by the DCGAN rules (Radford et al. 2016) learns to draw digits.

    python examples/mnist_dcgan.py                     five minutes on two cores
    python examples/mnist_dcgan.py --backend cupy      on a GPU
    python examples/mnist_dcgan.py --conv-d            G of Linear layers, D with convolutions

The rules: no pooling, but strided and transposed convolutions; batch normalisation in both networks, not at
G's output and D's input; ReLU in G with Tanh at the end, LeakyReLU in D; weights from N(0, 0.02²); Adam with
learning rate 0.0002 and β₁ = 0.5. --conv-d is the mixed pair of many tutorials.
"""

import argparse

import numpy as np

from minigan import nn
from minigan.data import load, scaled
from minigan.streams import stream
from minigan.training import RunError, command_line

parser = command_line.arguments(__doc__, "mnist_dcgan", epochs=5)
parser.add_argument(
    "--filters", type=command_line.positive_int, default=64, help="channels of the 14 × 14 maps (64)"
)
parser.add_argument(
    "--conv-d", action="store_true", help="G of Linear layers, D with convolutions (of 64 and 128 channels)"
)


def networks(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """G and D: noise (N, 100) → images (N, 1, 28, 28) → logits (N, 1)."""
    rng, few = stream(options.seed, "weights"), options.filters
    many = 2 * few
    if options.loss == "began":
        raise RunError(
            "--loss began needs a D that draws images, which this one does not; see mnist_mlp_gan.py"
        )
    if options.conv_d:
        return networks_conv_d(rng)
    # A penalty on D's slope at each image wants images that are not mixed: then normalise each by itself.
    norm = nn.GroupNorm(1, many) if command_line.has_gradient_penalty(options) else nn.BatchNorm2d(many)
    g = nn.Sequential(
        nn.Linear(100, many * 7 * 7, bias=False, rng=rng),
        nn.Reshape(many, 7, 7),
        nn.BatchNorm2d(many),
        nn.ReLU(),
        nn.ConvTranspose2d(many, few, 4, stride=2, padding=1, bias=False, rng=rng),  # 14 × 14
        nn.BatchNorm2d(few),
        nn.ReLU(),
        nn.ConvTranspose2d(few, 1, 4, stride=2, padding=1, rng=rng),  # 28 × 28
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Conv2d(1, few, 4, stride=2, padding=1, rng=rng),  # 14 × 14
        nn.LeakyReLU(0.2),
        nn.Conv2d(few, many, 4, stride=2, padding=1, bias=False, rng=rng),  # 7 × 7
        norm,
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(many * 7 * 7, 1, rng=rng),
    )
    nn.init.dcgan(g, rng=rng)
    nn.init.dcgan(d, rng=rng)
    return g, d


def networks_conv_d(rng: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """A G of Linear layers, a D of two convolutions."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((100, 256), (256, 512), (512, 1024)):
        layers += [nn.Linear(n_in, n_out, rng=rng), nn.LeakyReLU(0.2)]
    g = nn.Sequential(*layers, nn.Linear(1024, 784, rng=rng), nn.Tanh(), nn.Reshape(1, 28, 28))
    d = nn.Sequential(
        nn.Conv2d(1, 64, 5, stride=2, padding=2, rng=rng),  # 14 × 14
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 5, stride=2, padding=2, rng=rng),  # 7 × 7
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(128 * 7 * 7, 1, rng=rng),
    )
    return g, d


def main(options: argparse.Namespace) -> None:
    """Load the images, make the game, train."""
    images = load(options.dataset, options.data_dir, log=command_line.printer(options))
    game = command_line.game(options, *networks(options), lr=2e-4, betas=(0.5, 0.999))
    trainer = command_line.trainer(options, game, scaled(images.images[:, None]), ema=0.998)
    trainer.run(options.epochs)


if __name__ == "__main__":
    command_line.run(main, parser)
