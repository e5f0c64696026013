"""What makes a GAN of Linear layers good? `python benchmarks/recipes.py --data-dir mnist/ plain default`

Trains variants of the networks of examples/mnist_mlp_gan.py for 20,000 steps of 100 images, and judges each
by minigan.metrics. Variants: plain, and then each is the one before it with one change (CHANGES below).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minigan import Tensor, nn, no_grad, performance
from minigan.data import load, scaled
from minigan.gan import Game, NonSaturating
from minigan.metrics import digit_classifier, judge_digits
from minigan.optim import Adam
from minigan.streams import stream
from minigan.training import Trainer

SAMPLES, AT_ONCE = 10_000, 500


@dataclass(frozen=True)
class Recipe:
    """noise: the size of z. spread: MinibatchStdDev before D's last layer."""

    noise: int = 100
    batch_norm: bool = False
    dropout: float = 0.0
    ema: float = 0.0
    lr: float = 2e-4
    spread: bool = False

    def networks(self, seed: int) -> tuple[nn.Module, nn.Module]:
        """G and D."""
        rng, g, d = stream(seed, "weights"), [], []
        for n_in in (self.noise, 256):
            g += [nn.Linear(n_in, 256, rng=rng)]
            g += [nn.BatchNorm1d(256)] if self.batch_norm else []
            g += [nn.LeakyReLU(0.2)]
        g += [nn.Linear(256, 784, rng=rng), nn.Tanh()]
        for n_in in (784, 256):
            d += [nn.Linear(n_in, 256, rng=rng), nn.LeakyReLU(0.2)]
            d += [nn.Dropout(self.dropout, rng=rng)] if self.dropout else []
        d += (
            [nn.MinibatchStdDev(), nn.Linear(257, 1, rng=rng)]
            if self.spread
            else [nn.Linear(256, 1, rng=rng)]
        )
        return nn.Sequential(*g), nn.Sequential(*d)


VARIANTS = {"plain": Recipe()}
CHANGES = {
    "batch-norm": {"batch_norm": True},
    "dropout": {"dropout": 0.2},
    "average": {"ema": 0.998},
    "faster": {"lr": 1e-3},
    "spread": {"spread": True},
    "default": {"noise": 32},
}
for _name, _change in CHANGES.items():
    VARIANTS[_name] = replace(list(VARIANTS.values())[-1], **_change)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--data-dir", type=Path, help="folder with the files of MNIST")
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = load(options.dataset, options.data_dir)
    classifier = digit_classifier(images)
    data = scaled(images.images).reshape(-1, 784)
    for name in options.variants:
        recipe = VARIANTS[name]
        g, d = recipe.networks(options.seed)
        adams = [Adam(network.parameters(), recipe.lr, (0.5, 0.999)) for network in (g, d)]
        game = Game(g, d, NonSaturating(), *adams)
        trainer = Trainer(game, data, noise=recipe.noise, ema=recipe.ema, seed=options.seed, quiet=True)
        with performance(threads=1):
            for _ in range(options.steps):
                trainer.train_step()
        z = stream(options.seed, "judged").standard_normal((SAMPLES, recipe.noise), dtype="float32")
        sampler = trainer.play.sampler()
        with no_grad():
            parts = [sampler(Tensor(z[i : i + AT_ONCE])).numpy() for i in range(0, SAMPLES, AT_ONCE)]
        report = judge_digits(np.concatenate(parts), classifier, images.test_images)
        print(f"\n{name}: {recipe}, {trainer.seconds:.0f} s\n{report}", flush=True)


if __name__ == "__main__":
    main()
