"""Stacked MNIST: how many of a thousand kinds of images does G find?

    python examples/papers/stacked_mnist.py --quick       does it run? A few seconds, without MNIST
    python examples/papers/stacked_mnist.py               about 45 minutes on one core
    python examples/papers/stacked_mnist.py --full        50,000 steps each: a day or more, or a GPU

An image has three channels, and in each of them there is a digit of MNIST, drawn independently of the others.
So there are 10³ kinds of images, all about equally likely. A classifier reads the digits in the samples.
What counts is how many kinds there are, the modes, and how unevenly they come: KL(p̂ || uniform), which is 0
where all come alike. Two published tables are set beside ours. Each has networks of its own, so only rows of
the same table can be compared.

Tiny networks (Metz et al. 2017; the numbers are from table 3 of PacGAN, Lin et al. 2018). D is far too small
for its task: its layers have 2, 4 and 8 filters, a quarter of G's. What helps such a D to see that G drops
modes: several images at once (Packed), or a look ahead (Unrolled)?

Slopes (table 1 of R3GAN, Huang et al. 2024). Two losses, and a penalty on D's slope at real images alone (R1)
or at fakes, too (R2). The networks are small residual ones without normalisation. The paper does not say what
its own are like, so what can be compared is the pattern of the four rows, and not the numbers.

- PacGAN's code for its other experiment on Stacked MNIST trains on pixels from 0 to 1, while G's go from -1
  to 1, and samples are judged unscaled. Here all images go from -1 to 1.
- Packed with m = 3 has batches of 129 images, not 128: batches are made of whole packs.
- G is judged in evaluation mode: BatchNorm uses its running averages.
- Unrolled looks ahead with an Adam like D's that begins anew at each step of G.
- Where a number becomes infinite or NaN, training ends there, and G is judged as it is.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import players
import study
import tables
from players import NOISE, TINY_NOISE
from samples import digit_images, drawn, known_by, packed, unpacked

from minigan import Tensor, backend, nn, viz
from minigan.data import scaled
from minigan.finite import NonFiniteError
from minigan.gan import Game, Unrolled, alternating_step, by_name
from minigan.metrics import DigitClassifier, digit_classifier, judge_stacked
from minigan.optim import Adam
from minigan.streams import stream

# Images that D judges at once, steps that G looks ahead.
TINY = {
    "GAN": (1, 0), "packed, m = 2": (2, 0), "packed, m = 3": (3, 0), "packed, m = 4": (4, 0),
    "unrolled, 5 steps": (1, 5),
}  # fmt: skip
SLOPES = {
    "GAN + R1": ("non-saturating", "r1"), "RpGAN + R1": ("rpgan", "r1"),
    "GAN + R1 + R2": ("non-saturating", "r1-r2"), "RpGAN + R1 + R2": ("rpgan", "r1-r2"),
}  # fmt: skip

# Modes and KL in the papers: mean ± standard error. 4 and 2: D has a quarter, or half, of G's filters. The
# unrolled rows are those of Metz et al., as PacGAN's table quotes them; there the plain GAN has 30.6 and 628.
PAPER = {
    ("GAN", 4): ("78.5 ± 17.6", "5.21 ± 0.19"),
    ("packed, m = 2", 4): ("484.5 ± 33.0", "2.61 ± 0.22"),
    ("packed, m = 3", 4): ("601.3 ± 32.2", "2.00 ± 0.17"),
    ("packed, m = 4", 4): ("667.4 ± 29.0", "1.81 ± 0.15"),
    ("unrolled, 5 steps", 4): ("236.4 ± 63.3", "4.67 ± 0.43"),
    ("GAN", 2): ("487.7 ± 34.6", "2.24 ± 0.15"),
    ("packed, m = 2", 2): ("840.7 ± 15.9", "1.00 ± 0.05"),
    ("packed, m = 3", 2): ("866.6 ± 12.1", "0.90 ± 0.04"),
    ("packed, m = 4", 2): ("820.2 ± 25.5", "1.15 ± 0.14"),
    ("unrolled, 5 steps", 2): ("732.0 ± 45.0", "1.66 ± 0.09"),
    ("GAN + R1", 0): ("fails", "fails"),
    ("RpGAN + R1", 0): ("fails", "fails"),
    ("GAN + R1 + R2", 0): ("693", "0.927"),
    ("RpGAN + R1 + R2", 0): ("1000", "0.078"),
}

# parts: D's filters are G's divided by these. rate: how many times as high as the paper's. looks: how often
# G is judged, by `few` samples; in the end it is judged by `samples`. slopes_*: of the residual networks.
SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "steps": 4, "rate": 5, "batch": 12, "filters": 4, "parts": [4], "tiny": list(TINY), "looks": 2,
        "few": 60, "samples": 120, "slopes_steps": 4, "slopes_batch": 8, "slopes_filters": 4,
    },
    "default": {
        "steps": 2000, "rate": 1, "batch": 128, "filters": 8, "parts": [4],
        "tiny": [row for row in TINY if row != "packed, m = 3"], "looks": 4, "few": 5120, "samples": 25_600,
        "slopes_steps": 1000, "slopes_batch": 64, "slopes_filters": 16,
    },
    "full": {
        "steps": 50_000, "rate": 1, "batch": 128, "filters": 8, "parts": [4, 2], "tiny": list(TINY),
        "looks": 25, "few": 25_600, "samples": 25_600,
        "slopes_steps": 50_000, "slopes_batch": 128, "slopes_filters": 64,
    },
}  # fmt: skip
# γ is high: two images are 20 or 30 apart, and their logits must not be. With γ = 1 and a rate of 5e-4, D won
# at once, and G made three kinds of images.
SLOPES_RATE, GAMMA = 1e-3, 30.0
BLOCK = 128  # samples made at a time
SHOWN = 36  # of seed 0 in the figure


# ---------------------------------------------------------------------------------------- the trials


def tiny_game(size: dict[str, Any], row: str, part: int, seed: int, where: str) -> Game:
    """A row of PacGAN's table 3."""
    m, ahead = TINY[row]
    g, d = (x.to(where) for x in players.tiny(size["filters"], part, m, stream(seed, "weights")))
    betas = (0.5, 0.99)
    adams = Adam(g.parameters(), 1e-4 * size["rate"], betas), Adam(d.parameters(), 2e-4 * size["rate"], betas)
    unrolled = Unrolled(ahead) if ahead else None
    return Game(g, d, by_name.loss("non-saturating"), *adams, unrolled=unrolled)


def slopes_game(size: dict[str, Any], row: str, seed: int, where: str) -> Game:
    """A row of R3GAN's table 1."""
    loss, penalty = SLOPES[row]
    g, d = (x.to(where) for x in players.residual(size["slopes_filters"], stream(seed, "weights")))
    adams = (Adam(network.parameters(), SLOPES_RATE, (0.0, 0.99)) for network in (g, d))
    return Game(g, d, by_name.loss(loss), *adams, terms=by_name.penalty(penalty, weight=GAMMA))


def trial(
    size: dict[str, Any], row: str, part: int, seed: int, digits: np.ndarray, classifier: DigitClassifier,
    results: study.Results, name: str,
) -> dict[str, Any]:  # fmt: skip
    """Train, look at the samples now and then, and judge them in the end."""
    where = results.options.backend
    if part:
        game = tiny_game(size, row, part, seed, where)
        steps, batch, noise = size["steps"], size["batch"], TINY_NOISE
        batch += -batch % TINY[row][0]  # whole packs
    else:
        game = slopes_game(size, row, seed, where)
        steps, batch, noise = size["slopes_steps"], size["slopes_batch"], NOISE
    pixels, found, looks = backend.get(where).from_numpy(digits), {}, []
    parts = {"g": game.g, "d": game.d, "adam_g": game.g_optimizer, "adam_d": game.d_optimizer}
    for step in study.steps(results.unfinished(name), {**parts, "looks": study.Notes(looks)}, steps):
        z = Tensor(stream(seed, "noise", step).standard_normal((batch, noise), dtype="f4"), backend=where)
        try:
            with np.errstate(all="ignore"):  # the step looks for infinite numbers itself
                alternating_step(game, [stacked(pixels, batch, stream(seed, "stacked", step))], [z])
        except NonFiniteError:
            found["diverged"] = step
            break
        if study.due(step, size["looks"], steps) and step + 1 < steps:
            looks.append([step + 1, *judged(labels(game.g, noise, seed, size["few"], classifier))])
    read = labels(game.g, noise, seed, size["samples"], classifier)
    looks.append([found.get("diverged", steps), *judged(read[: size["few"]])])  # by as many as before
    modes, kl = judged(read)
    if seed == 0:  # for the figure
        found["images"] = packed(drawn(game.g, fresh(noise, seed))[:SHOWN])
    return {"modes": modes, "reverse_kl": kl, "looks": looks, **found}


def stacked(digits: Any, count: int, rng: np.random.Generator) -> Tensor:
    """Images (N, 3, 28, 28) from -1 to 1, three random digits each. Shapes: digits (M, 28, 28), uint8"""
    chosen = backend.backend_of(digits).from_numpy(rng.integers(len(digits), size=(count, 3)))
    return Tensor(scaled(digits[chosen]), copy=False)


def fresh(noise: int, seed: int, block: int = 0) -> np.ndarray:
    """Noise for a block of samples, which G has not seen in training."""
    return stream(seed, "judged", block).standard_normal((BLOCK, noise), dtype="f4")


def labels(g: nn.Module, noise: int, seed: int, count: int, classifier: DigitClassifier) -> np.ndarray:
    """The digits (N, 3) in the channels of N samples. Fewer samples are the first of more."""
    blocks = (fresh(noise, seed, block) for block in range(-(-count // BLOCK)))
    return np.concatenate([digits_in(drawn(g, z), classifier) for z in blocks])[:count]


def digits_in(images: np.ndarray, classifier: DigitClassifier) -> np.ndarray:
    """The classifier sees each channel by itself: images (N, 3, 28, 28) → (N, 3). A NaN becomes 0, grey."""
    return classifier.labels(np.nan_to_num(images).reshape(-1, 28, 28)).reshape(-1, 3)


def judged(read: np.ndarray) -> tuple[int, float]:
    """Modes and KL of labels (N, 3)."""
    report = judge_stacked(read)
    return report.modes, report.reverse_kl


def real_images(size: dict[str, Any], digits: np.ndarray, classifier: DigitClassifier) -> dict[str, Any]:
    """What real images are worth: the best that a generator can be."""
    images = stacked(digits, size["samples"], stream(0, "real images")).numpy()
    modes, kl = judged(digits_in(images, classifier))
    return {"modes": modes, "reverse_kl": kl, "accuracy": classifier.accuracy}


# ----------------------------------------------------------------------------------------- the study


def main(options: argparse.Namespace) -> None:
    """Train all rows with all seeds."""
    size = SIZES[options.size]
    found = digit_images(options, 600, 100)
    classifier = digit_classifier(found, cache=options.size != "quick")
    settings = {**size, "slopes_rate": SLOPES_RATE, "gamma": GAMMA}
    results = study.Results(options, {**settings, "classifier": known_by(classifier, found.test_images)})
    rows = [(row, part) for part in size["parts"] for row in size["tiny"]] + [(row, 0) for row in SLOPES]
    trials: dict[str, study.Trial] = {"real images": partial(real_images, size, found.images, classifier)}
    for seed in range(options.seeds):
        for row, part in rows:
            name = trial_name(row, part, seed)
            trials[name] = partial(trial, size, row, part, seed, found.images, classifier, results, name)
    results.measure(trials)
    draw(results, size, rows)
    results.write_up("Stacked MNIST", reduced(options, size), as_tables(results, size, rows))


def trial_name(row: str, part: int, seed: int) -> str:
    return f"{row}, D = 1/{part} of G, seed {seed}" if part else f"{row}, residual, seed {seed}"


def of_seeds(results: study.Results, row: str, part: int) -> list[dict[str, Any]]:
    """What the trials of a row found."""
    return [results.trials[trial_name(row, part, seed)] for seed in range(results.options.seeds)]


def as_tables(results: study.Results, size: dict[str, Any], rows: list[tuple[str, int]]) -> str:
    """A table for each of the papers' tables."""
    real, text = results.trials["real images"], []
    header = ["", "modes of 1000, paper", "modes, ours", "KL, paper", "KL, ours"]
    titles = {
        4: "D has a quarter of G's filters (PacGAN, table 3)",
        2: "D has half of G's filters (PacGAN, table 3)",
        0: "Slopes (R3GAN, table 1; other networks than there)",
    }
    for part in [*size["parts"], 0]:
        lines = []
        for row in [row for row, p in rows if p == part]:
            found = of_seeds(results, row, part)
            modes = tables.plus_minus([trial["modes"] for trial in found], 1)
            ended = sum("diverged" in trial for trial in found)
            modes += f" ({ended} of {len(found)} diverged)" * (ended > 0)
            kl = tables.plus_minus([trial["reverse_kl"] for trial in found])
            paper_modes, paper_kl = PAPER[row, part]
            lines.append([row, paper_modes, modes, paper_kl, kl])
        lines.append(["real images", "", real["modes"], "", f"{real['reverse_kl']:.2f}"])
        text.append(f"## {titles[part]}\n\n{tables.table(header, lines)}")
    return (
        f"Mean ± standard error over {results.options.seeds} seeds; {size['samples']:,} samples each. The "
        f"classifier is right on {real['accuracy']:.1%} of the test images. KL: of p̂, the "
        "shares of the 1000 kinds among the samples, from the uniform distribution.\n\n" + "\n\n".join(text)
    )


def reduced(options: argparse.Namespace, size: dict[str, Any]) -> str:
    """What differs from the papers."""
    if options.size == "quick":
        return "everything. The numbers mean nothing."
    faster = size["rate"]
    rate = f" at {faster} times the learning rates (G {1e-4 * faster:g}, D {2e-4 * faster:g})" * (faster != 1)
    return (
        f"{size['steps']:,} steps of the tiny networks{rate} for up to 500,000; {options.seeds} seeds, "
        "50 for PacGAN's packed rows; without m = 3 and without the larger D, unless this is --full. The "
        "residual networks are not R3GAN's, which are unknown: they have "
        f"{size['slopes_filters']} and {2 * size['slopes_filters']} filters and are trained for "
        f"{size['slopes_steps']:,} steps with batches of {size['slopes_batch']}, γ = {GAMMA:g} and Adam's "
        f"learning rate {SLOPES_RATE:g}."
    )


def draw(results: study.Results, size: dict[str, Any], rows: list[tuple[str, int]]) -> None:
    """Modes over the steps, and samples of seed 0 of each row."""
    from matplotlib.figure import Figure

    parts = [*size["parts"], 0]
    columns = max(sum(p == part for _, p in rows) for part in parts)
    figure = Figure(figsize=(3.6 + 2.5 * columns, 2.9 * len(parts)), layout="constrained")
    places = figure.add_gridspec(len(parts), columns + 1, width_ratios=[1.6] + [1.0] * columns)
    for i, part in enumerate(parts):
        curves = figure.add_subplot(places[i, 0])
        for j, row in enumerate([row for row, p in rows if p == part]):
            found = of_seeds(results, row, part)
            whole = [trial["looks"] for trial in found if "diverged" not in trial]
            if whole:
                steps = [look[0] for look in whole[0]]
                means, errors = zip(
                    *(tables.mean_se([look[k][1] for look in whole]) for k in range(len(steps))), strict=True
                )
                curves.errorbar(
                    steps, means, np.nan_to_num(errors), capsize=2, lw=1.2, label=row, color=f"C{j}"
                )
            axes = figure.add_subplot(places[i, j + 1])
            axes.imshow(viz.grid(unpacked(found[0]["images"]), low=0, high=255), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(row, fontsize=9)
        curves.set(xlabel="steps", ylabel=f"modes in {size['few']} samples", ylim=(0, None))
        curves.set_title(f"tiny networks, D = 1/{part} of G" if part else "residual networks", fontsize=9)
        curves.legend(fontsize=7, loc="best")
    figure.savefig(results.folder / "figure.png", dpi=110)


if __name__ == "__main__":
    study.run(main, study.arguments(__doc__, "stacked_mnist", seeds=3, mnist=True))
