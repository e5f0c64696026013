"""Are GANs created equal? The same small network, ten objectives: which of them draws the best digits?

    python examples/papers/which_loss.py --data-dir mnist/        about an hour of one core
    python examples/papers/which_loss.py --full --backend cupy    the paper's networks and epochs

Lucic et al. (2018) trained each objective with a hundred settings, took the best, and trained it again with
fresh seeds. The objectives then lay closer together than their papers had said. Here the search is smaller:
each of some learning rates, with 1 or 5 steps of D for one of G, one seed each. The setting with the smallest
distance is trained again with other seeds, and these make the table. Nothing is left out.

All trials of a stage see the same number of real images, as in the authors' code. So five steps of D for one
of G means fewer steps of G. Adam with betas (0.5, 0.999) trains all of them. The weights of the penalties are
those of their inventors, and are not searched for. There is no moving average of G.

What is measured is Fréchet's distance in the features of a digit classifier that this library trains. The
paper has Inception's features. So the numbers have another scale, and only the order can be compared. Nothing
is said about two means unless Welch's 95 % interval of their difference leaves out zero.

Where this differs from the authors' code: their penalty of DRAGAN takes the slope of the probability σ(D),
here it is the slope of the logit. Their k of BEGAN may leave the interval from 0 to 1, here it may not.
BatchNorm in D was one of their settings. Here D has none: penalties need a D that judges each image alone.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import players
import study
import tables
from players import NOISE
from samples import digit_images, drawn, known_by
from scipy import stats

from minigan import nn
from minigan.data import Batches, scaled
from minigan.finite import NonFiniteError
from minigan.gan import Game, alternating_step, by_name
from minigan.metrics import digit_classifier, frechet_distance, moments
from minigan.optim import Adam
from minigan.streams import stream
from minigan.training import Draws

# name: (loss, penalty, options of the loss). The last three are not in the paper.
OBJECTIVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "minimax": ("minimax", "none", {}),
    "non-saturating": ("non-saturating", "none", {}),
    "least squares": ("least-squares", "none", {}),
    "WGAN": ("wasserstein", "clip", {}),
    "WGAN-GP": ("wasserstein", "gp", {}),
    "DRAGAN": ("non-saturating", "dragan", {}),
    "BEGAN": ("began", "none", {"gamma": 0.75}),
    "hinge": ("hinge", "none", {}),
    "non-saturating + R1": ("non-saturating", "r1", {}),
    "RpGAN + R1 + R2": ("rpgan", "r1-r2", {}),
}

# FID on MNIST of the best of 100 settings: mean and standard deviation over 50 seeds
PAPER = {
    "minimax": (9.8, 0.9), "non-saturating": (6.8, 0.5), "least squares": (7.8, 0.6), "WGAN": (6.7, 0.4),
    "WGAN-GP": (20.3, 5.0), "DRAGAN": (7.6, 0.4), "BEGAN": (13.1, 1.0),
}  # fmt: skip
PAPER_SEEDS = 50

# search and epochs: how often D sees each image, in the search and for the table
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"network": "linear", "wide": 16, "rates": [1e-3], "d_steps": [1, 2], "search": 1, "epochs": 1,
              "batch": 50, "images": 200, "samples": 200},
    "default": {"network": "linear", "wide": 256, "rates": [5e-4, 1e-3, 2e-3], "d_steps": [1, 5], "search": 4,
                "epochs": 10, "batch": 64, "images": 60_000, "samples": 10_000},
    "full": {"network": "convolutions", "wide": 1024, "rates": [1e-4, 2e-4, 5e-4, 1e-3], "d_steps": [1, 5],
             "search": 20, "epochs": 20, "batch": 64, "images": 60_000, "samples": 10_000},
}  # fmt: skip
SEARCH_SEED, AT_ONCE = 0, 500
Found = Mapping[str, Sequence[Mapping[str, Any]]]  # the trials of each objective


NETWORKS = {"linear": players.linear, "convolutions": players.convolutions}


class Judge:
    """The distance of images from the test images, in the features of a classifier trained on MNIST."""

    def __init__(self, images: Any, samples: int):
        self.classifier = digit_classifier(images, cache=samples == 10_000)
        self.reference = moments(self.classifier.features(images.test_images))
        self.samples = samples
        self.floor = self.distance(images.images[:samples])

    def distance(self, images: np.ndarray) -> float:
        return frechet_distance(*moments(self.classifier.features(images)), *self.reference)

    def drawn(self, g: nn.Module, seed: int) -> float:
        """The distance of what G draws."""
        images = drawn(g, stream(seed, "judged").uniform(-1, 1, (self.samples, NOISE)).astype("f4"), AT_ONCE)
        return self.distance(images) if np.isfinite(images).all() else math.nan


def trial(
    objective: str, lr: float, d_steps: int, epochs: int, seed: int, size: Mapping[str, Any], judge: Judge,
    data: np.ndarray, backend: str, unfinished: Path,
) -> dict[str, Any]:  # fmt: skip
    """Train one objective; how far are its samples? `epochs` is how often D sees each image."""
    loss_name, penalty, options = OBJECTIVES[objective]
    make, loss = NETWORKS[size["network"]], by_name.loss(loss_name, **options)
    g, d = (n.to(backend) for n in make(size["wide"], loss_name == "began", stream(seed, "weights")))
    adam_g, adam_d = (Adam(network.parameters(), lr, (0.5, 0.999)) for network in (g, d))
    game = Game(g, d, loss, adam_g, adam_d, by_name.penalty(penalty))
    batches = Batches(data, size["batch"], seed, backend)
    draws, shape = Draws(seed, backend), (size["batch"], NOISE)
    parts = {"g": g, "d": d, "adam_g": adam_g, "adam_d": adam_d, "loss": loss}  # BEGAN's has a k
    threads = 1 if size["network"] == "linear" else None
    try:
        for step in study.steps(unfinished, parts, -(-epochs * len(batches) // d_steps), threads=threads):
            turns = range(step * d_steps, (step + 1) * d_steps)
            real = [draws.at(turn).batch(batches) for turn in turns]
            z = [
                draws.at(turn).noise(shape, "uniform")[: len(x)] for turn, x in zip(turns, real, strict=True)
            ]
            with np.errstate(all="ignore"):  # alternating_step looks for infinite numbers itself
                alternating_step(game, real, z, stream(seed, "terms", step))
        distance = judge.drawn(g, seed)
    except NonFiniteError as error:
        print(f"{objective}, lr {lr:g}, seed {seed}, step {step + 1}: {error}", flush=True)
        distance = math.nan
    return {"lr": lr, "d_steps": d_steps, "distance": distance}


# ------------------------------------------------------------------------------ what can be said of it


def as_table(found: Found, floor: float) -> str:
    """The paper's numbers beside ours, and how ours were come by."""
    rows = []
    for objective, trials in found.items():
        paper = "{} ± {}".format(*PAPER[objective]) if objective in PAPER else ""
        lost = sum(math.isnan(t["distance"]) for t in trials)
        here = f"{lost} of {len(trials)} diverged" if lost else tables.plus_minus(distances(trials), 1)
        rows.append([objective, paper, here, f"{trials[0]['lr']:g}", trials[0]["d_steps"]])
    header = ["", "FID in the paper", "distance here", "learning rate", "steps of D for one of G"]
    return tables.table(header, [*rows, ["real training images", "", f"{floor:.1f}", "", ""]])


def as_matrix(found: Found) -> str:
    """Which differences are clear, for each pair."""
    told = {o: tables.summary(distances(found[o])) for o in ranked(found)}
    rows = [
        [f"{i}. {o}", *("" if o == p else tables.order(told[o], told[p]) for p in told)]
        for i, o in enumerate(told, start=1)
    ]
    return tables.table(["this row is ... than", *(f"{i}." for i in range(1, len(rows) + 1))], rows)


def verdict(found: Found, rates: Sequence[float]) -> str:
    """What the paper found, and whether it was found here, in words."""
    here = {o: tables.summary(distances(trials)) for o, trials in found.items()}
    paper = {o: (*numbers, PAPER_SEEDS) for o, numbers in PAPER.items()}
    answers = {"<": "no, it is better", ">": "yes", "?": "one cannot tell"}
    answer = answers[tables.order(here["minimax"], here["non-saturating"])]
    clear = [(a, b) for a, b in permutations(PAPER, 2) if tables.order(paper[a], paper[b]) == "<"]
    same, opposite = ([(a, b) for a, b in clear if tables.order(here[a], here[b]) == sign] for sign in "<>")
    best = ranked(found)[0]
    rivals = [o for o in found if o != best and tables.order(here[best], here[o]) == "?"]
    edge = [o for o, trials in found.items() if trials[0]["lr"] in (min(rates), max(rates))]
    return (
        f"- Is minimax worse than non-saturating, as in the paper? Here {answer}.\n"
        f"- {len(clear)} pairs have a clear order in the paper. Here {len(same)} of these have the same one, "
        f"{len(opposite)} the opposite, and of {len(clear) - len(same) - len(opposite)} one cannot tell.\n"
        f"- The opposite: {'; '.join(f'{b} is before {a}' for a, b in opposite) or 'none'}.\n"
        f"- The smallest mean is that of {best}. Not clearly worse: {', '.join(rivals) or 'none'}.\n"
        "- The best learning rate was the smallest or the largest of the search, so that another might be "
        f"better, for: {', '.join(edge) or 'none'}."
    )


def figure(found: Found, floor: float, path: Path) -> None:
    """Each trial a dot, means with their 95 % intervals, and the paper's numbers beside them."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(9, 4.4), layout="constrained")
    ours, theirs = sheet.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    for y, (objective, trials) in enumerate(found.items()):
        values = distances(trials)
        mean, sd, n = tables.summary(values)
        reach = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else 0.0
        ours.plot(values, [y] * n, ".", color="C0", alpha=0.4)
        ours.errorbar(mean, y, xerr=reach, fmt="o", color="C0", capsize=3)
        if objective in PAPER:
            mean, sd = PAPER[objective]
            theirs.errorbar(mean, y, xerr=sd, fmt="s", color="C1", capsize=3)
    ours.axvline(floor, color="0.5", linestyle="--")
    ours.set_title("dashed: real training images", loc="left", fontsize=9)
    ours.set(xscale="log", xlabel="distance here:\neach seed, mean, 95 % interval of the mean")
    ours.set_yticks(range(len(found)), list(found))
    ours.invert_yaxis()
    theirs.set(xlabel="FID in the paper (another scale):\nmean ± standard deviation", xlim=(0, None))
    for axes in (ours, theirs):
        axes.grid(axis="x", alpha=0.3, which="both")
    sheet.savefig(path, dpi=110)


def distances(trials: Sequence[Mapping[str, Any]]) -> list[float]:
    return [trial["distance"] for trial in trials]


def rank(trial: Mapping[str, Any]) -> float:
    """The distance, as a key for sorting: a trial that diverged comes last."""
    return math.inf if math.isnan(trial["distance"]) else trial["distance"]


def ranked(found: Found) -> list[str]:
    """The objectives, the smallest mean distance first."""
    return sorted(found, key=lambda o: sum(map(rank, found[o])))


NOTE = (
    "Distance: Fréchet's, in the features of this library's digit classifier, mean ± standard error. FID: "
    f"mean ± standard deviation of {PAPER_SEEDS} seeds; Inception's features, another network, best of 100 "
    "settings: another scale, only the order can be compared. "
    "Learning rate and steps of D are the best of the search.\n\nBelow, < means clearly smaller, > clearly "
    "larger, ? that one cannot tell: Welch's 95 % interval of the difference has 0 inside. Of so many pairs "
    "about one in twenty would look clear if there were no differences at all."
)


def reduced(size: Mapping[str, Any], settings: int, seeds: int) -> str:
    """What is less than in the paper."""
    network = "" if size["network"] == "convolutions" else "networks of Linear layers for its convolutions; "
    return (
        f"{network}no BatchNorm in D; {settings} settings for 100; {size['search']} epochs in the search and "
        f"{size['epochs']} for the table, for 20; {seeds} seeds for {PAPER_SEEDS}; the features of a digit "
        "classifier for Inception's."
    )


def main(options: argparse.Namespace) -> None:
    """The search, the table, and what can be said of it."""
    size = SIZES[options.size]
    images = digit_images(options, size["images"], size["samples"])
    judge = Judge(images, size["samples"])
    classifier = known_by(judge.classifier, images.test_images)
    results = study.Results(options, {**size, "objectives": OBJECTIVES, "classifier": classifier})
    data = scaled(images.images).reshape(-1, *([784] if size["network"] == "linear" else [1, 28, 28]))

    def work(objective: str, setting: Mapping[str, Any], epochs: int, seed: int) -> tuple[str, Any]:
        """The name of a trial, and the trial itself."""
        name = f"{objective}: lr {setting['lr']:g}, {setting['d_steps']} of D, seed {seed}, {epochs} epochs"
        given = (epochs, seed, size, judge, data, options.backend, results.unfinished(name))
        return name, partial(trial, objective, setting["lr"], setting["d_steps"], *given)

    grid = [{"lr": lr, "d_steps": steps} for lr, steps in product(size["rates"], size["d_steps"])]
    tried = {o: dict(work(o, s, size["search"], SEARCH_SEED) for s in grid) for o in OBJECTIVES}
    results.measure({name: run for trials in tried.values() for name, run in trials.items()})
    best = {o: min((results.trials[name] for name in tried[o]), key=rank) for o in tried}
    seeds = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + options.seeds)
    again = {o: dict(work(o, best[o], size["epochs"], seed) for seed in seeds) for o in OBJECTIVES}
    results.measure({name: run for trials in again.values() for name, run in trials.items()})
    found = {o: [results.trials[name] for name in again[o]] for o in OBJECTIVES}
    figure(found, judge.floor, results.folder / "figure.png")
    results.write_up(
        "Ten objectives, one network (Lucic et al. 2018)",
        reduced=reduced(size, len(grid), options.seeds),
        body="\n\n".join(
            [as_table(found, judge.floor), NOTE, as_matrix(found), verdict(found, size["rates"])]
        ),
    )


parser = study.arguments(__doc__, "which_loss", seeds=3, mnist=True)

if __name__ == "__main__":
    study.run(main, parser)
