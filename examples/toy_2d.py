"""A GAN in the plane, where everything can be seen: samples, D's landscape, and where D sends the fakes.

    python examples/toy_2d.py                          eight Gaussians on a ring, under a minute
    python examples/toy_2d.py --data grid              twenty-five on a grid
    python examples/toy_2d.py --data swiss-roll
    python examples/toy_2d.py --penalty none           what happens without R1

Each picture in RUN/samples, and progress.gif, which shows them one after the other, has real points, fakes,
D's output at every place as colours, and for some of the fakes an arrow: the direction in which they would
have to move for G's loss to fall. All that G learns about the data it learns from these arrows.
"""

import argparse
from collections.abc import Callable

import numpy as np

import minigan as mg
from minigan import Tensor, grad, nn, no_grad, viz
from minigan.data import wgan_gp_grid, wgan_gp_ring, wgan_gp_swiss_roll
from minigan.gan import GMMN, Game
from minigan.streams import stream
from minigan.training import command_line

DATA = {"ring": wgan_gp_ring, "grid": wgan_gp_grid, "swiss-roll": wgan_gp_swiss_roll}
EDGE, PLACES = 2.0, 80  # the pictures show [-2, 2]², with D computed at 80 × 80 places

parser = command_line.arguments(__doc__, "toy_2d", epochs=40, images=False)
parser.add_argument("--data", choices=DATA, default="ring", help="what the points are drawn from")
parser.set_defaults(penalty="r1")


def networks(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """G and D: noise (N, 2) → points (N, 2) → logits (N, 1)."""
    rng = stream(options.seed, "weights")

    def stack(n_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(2, 128, rng=rng),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 128, rng=rng),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 128, rng=rng),
            nn.LeakyReLU(0.2),
            nn.Linear(128, n_out, rng=rng),
        )

    return stack(2), stack(2 if options.loss == "began" else 1)


def arrows(game: Game, fake: np.ndarray, real: np.ndarray) -> np.ndarray:
    """-∂L_G/∂x for each fake x, all scaled so that the longest is seen well."""
    x = Tensor(fake, requires_grad=True, backend=game.g.parameters()[0].backend)
    logits = game.loss.logits(game.d, x)
    real_logits = game.loss.logits(game.d, Tensor(real, backend=x.backend)) if game.loss.needs_real else None
    down = -grad(game.loss.generator(logits, real_logits), x).numpy()
    return 0.4 * down / max(np.linalg.norm(down, axis=1).max(), 1e-12)


def centred(game: Game, logits: Tensor, real: np.ndarray, fake: np.ndarray) -> Tensor:
    """The logits; where 0 means nothing, as in WGAN, such that real points have 1 on average, fakes -1."""
    if game.loss.equilibrium_logit is not None:
        return logits - game.loss.equilibrium_logit
    backend = logits.backend
    with no_grad():
        on_real, on_fake = (game.loss.logits(game.d, Tensor(x, backend=backend)).mean() for x in (real, fake))
    half = (float(on_real) - float(on_fake)) / 2
    return (logits - (float(on_real) + float(on_fake)) / 2) / (half or 1.0)


def painter(game: Game | GMMN, real: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What draws the picture of an epoch from G's samples."""
    line = np.linspace(-EDGE, EDGE, PLACES, dtype="f4")
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)  # from below left, row by row

    def picture(fake: np.ndarray) -> np.ndarray:
        values, directions = np.full((PLACES, PLACES), 0.5), np.zeros_like(fake)
        few = fake[:: len(fake) // 100]
        if isinstance(game, Game):  # with GMMN there is no D
            game.d.eval()  # looking must change nothing
            with no_grad():
                logits = game.loss.logits(game.d, Tensor(places, backend=game.g.parameters()[0].backend))
            values = mg.sigmoid(centred(game, logits, real, fake)).numpy().reshape(PLACES, PLACES)
            directions[:: len(fake) // 100] = arrows(game, few, real[: len(few)])
            game.d.train()
        return viz.landscape(real, fake, values, (-EDGE, EDGE, -EDGE, EDGE), directions)

    return picture


def main(options: argparse.Namespace) -> None:
    """Draw the points, make the game, train."""
    if options.penalty_weight is None and command_line.has_gradient_penalty(options):
        options.penalty_weight = 0.1  # points this close together need a steep D
    points = DATA[options.data]().sample(25_600, stream(options.seed, "points"))
    game = command_line.game(options, *networks(options), lr=1e-3, betas=(0.5, 0.99))
    picture = painter(game, points[:1000])
    trainer = command_line.trainer(
        options, game, points, noise=2, batch=256, samples=1000, ema=0.99, picture=picture
    )
    trainer.run(options.epochs)


if __name__ == "__main__":
    command_line.run(main, parser)
