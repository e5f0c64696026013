"""What a critic learns with clipped weights, and with a gradient penalty: the pictures of WGAN-GP.

    python examples/papers/wgan_gp_toys.py --quick       does it run at all?
    python examples/papers/wgan_gp_toys.py               a narrower critic that learns faster
    python examples/papers/wgan_gp_toys.py --full        512 units, 100,000 steps

A Wasserstein critic must be nowhere steeper than 1, or at least than some constant. WGAN clips its weights
for that; WGAN-GP pulls its slopes to 1 (Gulrajani et al. 2017, "Improved Training of Wasserstein GANs").
Figure 1 of the paper compares what comes of it. G stands still: its fakes are the real points, each with
noise from N(0, 1) added. Only the critic learns.

    clipping    L_D = mean D(fake) - mean D(real), then each weight within ±0.01       RMSProp
    penalty     L_D + λ · mean (‖∇D(x̂)‖ - 1)², x̂ between a real point and its fake      Adam

The published code (gan_toy.py) has λ = 0.1 for these toys, the paper otherwise 10; both are tried here. How
steep to expect the critic: let u have slope 1 everywhere, and real points be g higher than fakes, on average.
Then s · u has L_D = -s g + λ (s - 1)², which is least for s = 1 + g / 2λ. With g = 0.5 that is 3.5 for
λ = 0.1, and 1.025 for λ = 10. So with λ = 0.1 hardly any slope can be near 1.

So that critics of any slope can be compared, the table has the distance that each of them sees: by how much
it sets real points above fakes, divided by its largest slope. No critic sees more than the Wasserstein
distance, and the best one sees all of it. (The largest slope is that at 10,000 points, so the number is an
estimate, and a single steep place makes it small.)

Where this differs from the code: TensorFlow's RMSProp adds 1e-10 below the root, and starts its mean of
squares at 1; ours adds 1e-8 beside the root, and starts at 0. The code draws 100,000 points of the 25
Gaussians once; here points are always new.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import study
import tables

from minigan import Tensor, io, nn, no_grad
from minigan.data import wgan_gp_grid, wgan_gp_ring, wgan_gp_swiss_roll
from minigan.gan import Game, GradientPenalty, Report, Term, WeightClipping, losses
from minigan.gan.penalties import between, input_gradients
from minigan.gan.steps import discriminator_step
from minigan.optim import SGD, Adam, Optimizer, RMSprop
from minigan.streams import stream

DATA = {"8 Gaussians": wgan_gp_ring(), "25 Gaussians": wgan_gp_grid(), "swiss roll": wgan_gp_swiss_roll()}
# The Wasserstein distance between real points and fakes: the mean over 2,000 pairs of a real
# point and a fake, paired so that it is least (scipy.optimize.linear_sum_assignment). It is an estimate.
DISTANCE = {"8 Gaussians": 0.82, "25 Gaussians": 0.57, "swiss roll": 0.6}

LIMIT = 0.01  # of clipped weights
METHODS: dict[str, Term] = {
    "clipping": WeightClipping(LIMIT),
    "penalty 0.1": GradientPenalty(0.1),
    "penalty 10": GradientPenalty(10.0),
}
BATCH, FRESH = 256, 10_000  # points in a step, and in the measurement at the end
EDGE, PLACES = 3.0, 128  # the pictures show D at 128 × 128 places of [-3, 3]²

# rate: Adam's, for the penalties. RMSProp's is always 5e-5: clipped weights have not far to go.
SIZES = {
    "quick": {"width": 16, "steps": 10, "rate": 1e-3},
    "default": {"width": 256, "steps": 4000, "rate": 1e-3},
    "full": {"width": 512, "steps": 100_000, "rate": 1e-4},
}
REDUCED = {
    "quick": "everything; the numbers mean nothing.",
    "default": "the critics are 256 wide in place of 512, and make 4,000 steps; the published code would "
    "make 500,000. To get somewhere in so few, Adam's rate is 1e-3 in place of 1e-4.",
    "full": "100,000 steps of the critic; the published code would make 500,000.",
}

parser = study.arguments(__doc__, "wgan_gp_toys", seeds=2)


# -------------------------------------------------------------------------------------- the game


class RealPlusNoise(nn.Module):
    """The generator that stands still: G(x, ε) = x + ε, with x real and ε from N(0, 1)."""

    def forward(self, real: Tensor, rng: np.random.Generator) -> Tensor:
        return real + Tensor(rng.standard_normal(real.shape), dtype=real.dtype, backend=real.backend)


def critic(width: int, rng: np.random.Generator) -> nn.Module:
    """Points (N, 2) → values (N, 1). Weights as He has them, biases 0."""
    d = nn.Sequential(
        nn.Linear(2, width, rng=rng),
        nn.ReLU(),
        nn.Linear(width, width, rng=rng),
        nn.ReLU(),
        nn.Linear(width, width, rng=rng),
        nn.ReLU(),
        nn.Linear(width, 1, rng=rng),
    )
    nn.init.fill(d, lambda shape: nn.init.kaiming_uniform(shape, rng))
    for parameter in d.parameters():
        if parameter.ndim == 1:
            parameter.data = nn.init.zeros(parameter.shape)
    return d


@dataclass
class Trial:
    """One critic, trained by one method on one data set."""

    data: str
    method: str
    seed: int
    width: int
    steps: int
    rate: float
    backend: str

    def game(self) -> Game:
        d = critic(self.width, stream(self.seed, "weights")).to(self.backend)
        optimizer: Optimizer = (
            RMSprop(d.parameters(), 5e-5, alpha=0.9)
            if self.method == "clipping"
            else Adam(d.parameters(), self.rate, (0.5, 0.9))
        )
        idle = SGD([Tensor(0.0, requires_grad=True)], 0.0)  # G stands still
        return Game(RealPlusNoise(), d, losses.Wasserstein(), idle, optimizer, terms=[METHODS[self.method]])

    def points(self, game: Game, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Real points and their fakes, (count, 2) both."""
        real = Tensor(DATA[self.data].sample(count, rng), backend=self.backend)
        return real, game.g(real, rng)

    def run(self, unfinished: Path, picture: Path) -> dict[str, float]:
        """Train the critic, and measure it. What the figure shows of it goes to the file `picture`."""
        game = self.game()
        parts = {"d": game.d, "optimizer": game.d_optimizer}
        for step in study.steps(unfinished, parts, self.steps, threads=1):
            rng = stream(self.seed, "batch", step)  # the same for all methods
            discriminator_step(game, *self.points(game, BATCH, rng), Report(), rng)
        if self.seed == 0:
            picture.parent.mkdir(exist_ok=True)
            io.save(picture, self.look(game.d))
        return self.measured(game)

    def measured(self, game: Game) -> dict[str, float]:
        """The slopes at fresh points between real ones and fakes, what D sees, and where its weights are."""
        rng = stream(self.seed, "fresh")
        real, fake = self.points(game, FRESH, rng)
        gradients = input_gradients(game.d, between(real, fake, rng)).numpy()
        slopes = np.linalg.norm(gradients.astype(float), axis=1)
        with no_grad():
            gap = float(game.d(real).mean()) - float(game.d(fake).mean())
        return {
            "near one": float(np.mean(np.abs(slopes - 1) < 0.1)),
            "mean slope": float(slopes.mean()),
            "near mean": float(np.mean(np.abs(slopes / slopes.mean() - 1) < 0.1)),
            "distance": gap / float(slopes.max()),
            "at limit": float(np.mean(np.abs(weights(game.d)) > 0.99 * LIMIT)),
        }

    def look(self, d: nn.Module) -> dict[str, np.ndarray]:
        """The values of D on the square, row by row from below, and a histogram of its weights."""
        line = np.linspace(-EDGE, EDGE, PLACES, dtype="f4")
        places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        with no_grad():
            values = d(Tensor(places, backend=self.backend)).numpy().reshape(PLACES, PLACES)
        counts, edges = np.histogram(weights(d), bins=60)
        return {"values": values, "shares": counts / counts.sum(), "edges": edges}


def weights(d: nn.Module) -> np.ndarray:
    """All entries of D's matrices; biases are left out."""
    return np.concatenate([p.numpy().ravel() for p in d.parameters() if p.ndim == 2])


# ------------------------------------------------------------------------------ table and figure

TEXT = """
The paper has pictures and no numbers. In its Figure 1, level sets of clipped critics are too simple, and
with the penalty they follow the data. Clipped weights crowd at the two limits, the others do not.

The number after "penalty" is λ. Slopes: ‖∇D(x̂)‖ at {fresh:,} new points between real ones and fakes. Distance
seen: (mean D(real) - mean D(fake)) / largest slope; what there is to see is about
{true}. Weights at the limits: |w| > 0.99 · 0.01.
Mean ± standard error, seeds: {seeds}. The figure shows seed 0.
"""


def row(data: str, method: str, found: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""

    def percent(key: str) -> str:
        return tables.plus_minus([100 * trial[key] for trial in found], 1) + " %"

    mean, seen = (tables.plus_minus([trial[key] for trial in found], 3) for key in ("mean slope", "distance"))
    clipped = percent("at limit") if method == "clipping" else "-"
    return [data, method, percent("near one"), mean, percent("near mean"), seen, clipped]


def draw(pictures: Mapping[tuple[str, str], Path], path: Path) -> None:
    """Level sets of the critics, a row for each method, and at its end where the weights are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 9.8), dpi=90, layout="constrained")
    line = np.linspace(-EDGE, EDGE, PLACES)
    for axes_row, method in zip(figure.subplots(len(METHODS), len(DATA) + 1), METHODS, strict=True):
        for axes, data in zip(axes_row, DATA, strict=False):
            found = io.load(pictures[data, method])
            axes.contour(line, line, found["values"], 14, cmap="viridis", linewidths=1)
            real = DATA[data].sample(500, stream(0, "picture"))
            axes.scatter(*real.T, s=4, color="#d55e00", linewidths=0, zorder=3)
            axes.set(aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2], title=f"{data}, {method}")
        last = axes_row[-1]
        last.stairs(100 * found["shares"], found["edges"], fill=True, color="#0072b2")
        last.set(xlabel="weight", ylabel="% of the weights", title=f"weights: {data}, {method}")
        last.locator_params(axis="x", nbins=4)
        last.set_box_aspect(1)
    figure.suptitle("Level sets of critics, real points (dots), and weights; the number after penalty is λ")
    figure.savefig(path)


def main(options: argparse.Namespace) -> None:
    """Train and measure what is missing, then write the table and draw the figure."""
    sizes = SIZES[options.size]
    results = study.Results(options, sizes)
    trials, pictures = {}, {}
    for pair in product(DATA, METHODS):
        pictures[pair] = results.folder / "critics" / f"{study.file_name(', '.join(pair))}.npz"
        for seed in range(options.seeds):
            name = ", ".join([*pair, f"seed {seed}"])
            trial = Trial(*pair, seed, **sizes, backend=options.backend)
            trials[name] = partial(trial.run, results.unfinished(name), pictures[pair])
    found = results.measure(trials)
    rows = [row(*pair, found[i * options.seeds : (i + 1) * options.seeds]) for i, pair in enumerate(pictures)]
    draw(pictures, results.folder / "figure.png")
    header = ["data", "method", "slopes within 0.1 of 1", "mean slope", "slopes within 10 % of their mean"]
    header += ["distance seen", "weights at the limits"]
    true = ", ".join(f"{distance} ({data})" for data, distance in DISTANCE.items())
    body = tables.table(header, rows) + "\n" + TEXT.format(fresh=FRESH, true=true, seeds=options.seeds)
    results.write_up("Level sets of critics", REDUCED[options.size], body)


if __name__ == "__main__":
    study.run(main, parser)
