"""PacGAN's Table 1: does a D that judges several samples at once keep G from dropping modes?

    python examples/papers/pacgan_2d.py              15 to 35 minutes on two cores, fast or slow
    python examples/papers/pacgan_2d.py --full       400 epochs, as in the paper

Eight Gaussians on a ring, or twenty-five on a grid, are to be imitated (Lin et al. 2018). A plain GAN often
leaves some of them out: D sees one sample at a time, and cannot know which others G never makes. PacGAN's D
sees m samples at once, all real or all fake. Rows of this library's other objectives are added, with the same
networks. All seeds are trained side by side, see trials.py. Where a number of one of them becomes infinite or
NaN, all end there, and are judged as they are.

Where this follows the authors' code: the kinds of layers and how many, Adam with betas (0.8, 0.999), both
players' gradients taken at the same point, batches of 100 packs of m samples, 100,000 training samples drawn
once, BatchNorm in G whose running averages move by 1/20 a step, and 2,500 samples to be judged. With --full
also the sizes of the layers, N(0, 0.02²) for all weights, the learning rate and the number of steps. Their
code also logs a likelihood, with σ² where σ belongs; that is left out.
"""

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import study
import tables
from samples import drawn, near_centres
from trials import BatchNorm, Draws, Linear, Maxout, Trials, adam, apart, together

from minigan import Tensor, nn
from minigan.data import Mixture, grid, ring
from minigan.finite import NonFiniteError
from minigan.gan import Game, by_name, simultaneous_step
from minigan.optim.schedules import linear
from minigan.streams import stream

# name: (loss, penalty, its weight, m). The weights are small: between modes so narrow D has to be steep.
ROWS: dict[str, tuple[str, str, float | None, int]] = {
    "GAN": ("non-saturating", "none", None, 1),
    "PacGAN2": ("non-saturating", "none", None, 2),
    "PacGAN3": ("non-saturating", "none", None, 3),
    "PacGAN4": ("non-saturating", "none", None, 4),
    "GAN + R1": ("non-saturating", "r1", 0.01, 1),
    "WGAN-GP": ("wasserstein", "gp", 0.1, 1),
    "RpGAN + R1 + R2": ("rpgan", "r1-r2", 0.01, 1),
}
DATA = {"ring": ring(), "grid": grid()}

# Table 1 of the paper: modes, share of high-quality samples in %, reverse KL; mean ± s.e. over 10 trials
PAPER = {
    ("GAN", "ring"): ("6.3 ± 0.5", "98.2 ± 0.2", "0.45 ± 0.09"),
    ("PacGAN2", "ring"): ("7.9 ± 0.1", "95.6 ± 2.0", "0.07 ± 0.03"),
    ("PacGAN3", "ring"): ("7.8 ± 0.1", "97.7 ± 0.3", "0.10 ± 0.02"),
    ("PacGAN4", "ring"): ("7.8 ± 0.1", "95.9 ± 1.4", "0.07 ± 0.02"),
    ("GAN", "grid"): ("17.3 ± 0.8", "94.8 ± 0.7", "0.70 ± 0.07"),
    ("PacGAN2", "grid"): ("23.8 ± 0.7", "91.3 ± 0.8", "0.13 ± 0.04"),
    ("PacGAN3", "grid"): ("24.6 ± 0.4", "94.2 ± 0.4", "0.06 ± 0.02"),
    ("PacGAN4", "grid"): ("24.8 ± 0.2", "93.6 ± 0.6", "0.04 ± 0.01"),
}

# extra: where the rows that are not the paper's are trained, too. wide: units in G's and D's layers. std: of
# their first weights. lr: of both players. falling: it falls to 0 in a straight line; few steps at so high a
# rate would end in a blur.
SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "steps": {"ring": 4, "grid": 4}, "extra": ["ring"], "wide": [16, 8], "std": 0.1, "lr": 3e-3,
        "falling": True, "batch": 20, "points": 1000, "looks": 2,
    },
    "default": {
        "steps": {"ring": 12_000, "grid": 10_000}, "extra": ["ring"], "wide": [64, 32], "std": 0.1,
        "lr": 3e-3, "falling": True, "batch": 100, "points": 100_000, "looks": 24,
    },
    "full": {
        "steps": {"ring": 400_000, "grid": 400_000}, "extra": ["ring", "grid"], "wide": [400, 200],
        "std": 0.02, "lr": 1e-4, "falling": False, "batch": 100, "points": 100_000, "looks": 400,
    },
}  # fmt: skip
PIECES, JUDGED = 5, 2500


def networks(seeds: Sequence[int], m: int, wide: Sequence[int], std: float) -> tuple[nn.Module, nn.Module]:
    """T of each: G, (N, 2) → 4 hidden layers → (N, 2), and D, (N, 2 m) → 3 layers of maxout → (N, 1)."""
    trials, (g_wide, d_wide) = len(seeds), wide

    def layer(kind: Any, n_in: int, *sizes: int, **options: Any) -> nn.Module:
        return kind(n_in, *sizes, lambda shape, rng: nn.init.normal(shape, std, rng), rngs, **options)

    rngs = [stream(seed, "weights of G") for seed in seeds]
    hidden = [
        nn.Sequential(layer(Linear, n, g_wide, bias=False), BatchNorm(g_wide, trials, 0.05), nn.ReLU())
        for n in (2, g_wide, g_wide, g_wide)
    ]
    g = nn.Sequential(*hidden, layer(Linear, g_wide, 2))
    rngs = [stream(seed, "weights of D") for seed in seeds]
    d = nn.Sequential(
        *[layer(Maxout, n, d_wide, PIECES) for n in (2 * m, d_wide, d_wide)], layer(Linear, d_wide, 1)
    )
    return Trials(trials, g), Trials(trials, d, pack=m)


def cell(
    row: str, data: str, seeds: Sequence[int], size: dict[str, Any], backend: str, unfinished: Path
) -> dict:
    """Train one row of the table on one data set, and judge each seed's samples."""
    loss, penalty, weight, m = ROWS[row]
    mixture, trials, steps = DATA[data], len(seeds), size["steps"][data]
    points = [mixture.sample(size["points"], stream(seed, "points")) for seed in seeds]
    g, d = (network.to(backend) for network in networks(seeds, m, size["wide"], size["std"]))
    rate = linear(size["lr"], steps) if size["falling"] else size["lr"]
    optimizers = [adam(network, trials, rate, (0.8, 0.999)) for network in (g, d)]
    terms = by_name.penalty(penalty, **({} if weight is None else {"weight": weight}))
    game = Game(g, d, by_name.loss(loss), *optimizers, terms, separate=m > 1)
    looks: list[dict[str, Any]] = []
    found: dict[str, Any] = {"looks": looks}
    noted = study.Notes(looks)
    parts = {"g": g, "d": d, "adam_g": optimizers[0], "adam_d": optimizers[1], "looks": noted}
    for step in study.steps(unfinished, parts, steps, threads=1):
        rows, noise = [], []
        for seed, mine in zip(seeds, points, strict=True):
            rng = stream(seed, "step", step)
            rows.append(mine[rng.integers(len(mine), size=size["batch"] * m)])
            noise.append(rng.standard_normal((size["batch"] * m, 2), dtype="float32"))
        real, z = (Tensor(together(part), backend=backend) for part in (rows, noise))
        try:
            with np.errstate(all="ignore"):  # the step looks for infinite numbers itself
                simultaneous_step(game, real, z, Draws([stream(seed, "penalty", step) for seed in seeds]))
        except NonFiniteError:
            found["diverged"] = step
            break
        if study.due(step, size["looks"], steps):
            looks.append({"step": step + 1, **judged(made(g, seeds), mixture)})
    samples = made(g, seeds)
    if "diverged" in found:
        looks.append({"step": found["diverged"], **judged(samples, mixture)})
    return {**looks[-1], **found, "samples": samples[0][:1000].round(3)}


def made(g: nn.Module, seeds: Sequence[int]) -> list[np.ndarray]:
    """G's samples of each trial's fixed noise."""
    z = [stream(seed, "judged").standard_normal((JUDGED, 2), dtype="float32") for seed in seeds]
    return apart(drawn(g, together(z)), len(seeds))


# measure: (how a reader knows it, decimals). The paper has the first three.
MEASURES = {
    "modes": ("modes", 1),
    "high_quality": ("high quality %", 1),
    "reverse_kl": ("reverse KL", 2),
    "reverse_kl_all": ("reverse KL of all samples, by nearest centre", 2),
}


def judged(samples: Sequence[np.ndarray], mixture: Mixture) -> dict[str, list[float]]:
    """Each measure for each seed."""
    reports = [near_centres(x, mixture) for x in samples]
    return {
        "modes": [report.modes for report in reports],
        "high_quality": [100 * report.high_quality for report in reports],
        "reverse_kl": [report.reverse_kl for report in reports],
        "reverse_kl_all": [near_centres(x, mixture, within=np.inf).reverse_kl for x in samples],
    }


# --------------------------------------------------------------------------------- what came of it


def trained(found: dict[str, dict[str, Any]], data: str) -> list[str]:
    """The rows that there are for this data set."""
    return [row for row in ROWS if f"{row}, {data}" in found]


def as_table(found: dict[str, dict[str, Any]], data: str) -> str:
    """The rows for one data set, the paper's beside ours."""
    lines = []
    for row in trained(found, data):
        cell = found[f"{row}, {data}"]
        *ours, of_all = (tables.plus_minus(cell[name], digits) for name, (_, digits) in MEASURES.items())
        theirs = PAPER.get((row, data), ("",) * 3)
        pairs = (x for pair in zip(theirs, ours, strict=True) for x in pair)
        lines.append([row + tables.ended(cell), *pairs, of_all])
    *names, last = (name for name, _ in MEASURES.values())
    names[0] += f" of {len(DATA[data].centres)}"
    header = [data, *(f"{name}, {whose}" for name in names for whose in ("paper", "here")), f"{last}, here"]
    return tables.table(header, lines)


COMPARED = {"modes": "modes", "reverse_kl": "reverse KL", "reverse_kl_all": "reverse KL of all"}


def verdict(found: dict[str, dict[str, Any]]) -> str:
    """PacGAN's claim: which rows keep clearly more modes than the GAN, and spread samples more evenly?"""

    def compared(row: str, data: str, name: str) -> str:
        """The order of row and GAN, and how many times as much the row has."""
        if row not in trained(found, data):
            return ""
        ours, plain = (tables.summary(found[f"{which}, {data}"][name]) for which in (row, "GAN"))
        told = tables.order(ours, plain)
        return f"{told}, {ours[0] / plain[0]:.2f}" if 0 < plain[0] < math.inf else told

    header = ["than the GAN's", *(f"{data}: {title}" for data in DATA for title in COMPARED.values())]
    lines = [[row, *(compared(row, data, name) for data in DATA for name in COMPARED)] for row in ROWS]
    return f"{tables.table(header, lines[1:])}\n\n{SIGNS}"  # the first row is the GAN itself


SIGNS = """\
Here < means that the row's mean is clearly smaller than the GAN's, > that it is clearly larger, and ? that
one cannot tell: Welch's 95 % interval of the difference has 0 inside. The number beside it is the row's mean
divided by the GAN's."""


def figure(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Samples of the first seed, and the reverse KL over the steps."""
    from matplotlib.figure import Figure

    columns = len(ROWS) + 2
    sheet = Figure(figsize=(2.0 * columns, 4.6), layout="constrained")
    places = sheet.add_gridspec(2, columns)
    for i, (data, mixture) in enumerate(DATA.items()):
        edge = 1.35 * float(np.abs(mixture.centres).max())
        curves = sheet.add_subplot(places[i, :2])
        for j, row in enumerate(trained(found, data)):
            cell = found[f"{row}, {data}"]
            axes = sheet.add_subplot(places[i, j + 2])
            axes.plot(*mixture.centres.T, "o", color="0.8", markersize=9, zorder=0)
            axes.plot(*np.array(cell["samples"]).T, ".", color="C0", markersize=1.5)
            axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
            axes.set_title(row, fontsize=9)
            looks = cell["looks"]
            means = [np.nanmean(look["reverse_kl"]) for look in looks]
            curves.plot([look["step"] for look in looks], means, label=row, linewidth=1.2)
        curves.set(xlabel="steps", ylabel="reverse KL", title=data, ylim=(0, 1.45 * curves.get_ylim()[1]))
        curves.legend(fontsize=6, ncols=2, loc="upper right")
    sheet.savefig(path, dpi=100)


def main(options: argparse.Namespace) -> None:
    """Every row on both data sets."""
    size = SIZES[options.size]
    settings = {"pieces": PIECES, "seeds": options.seeds, "rows": ROWS, "measures": list(MEASURES)}
    results = study.Results(options, {**size, **settings})
    seeds = range(options.seeds)
    cells = {
        f"{row}, {data}": (row, data)
        for data in DATA
        for row in ROWS
        if (row, data) in PAPER or data in size["extra"]
    }
    results.measure(
        {
            name: partial(cell, *which, seeds, size, options.backend, results.unfinished(name))
            for name, which in cells.items()
        }
    )
    figure(results.trials, results.folder / "figure.png")
    results.write_up(
        "Modes of a ring and a grid (PacGAN, Table 1)",
        reduced=reduced(size) if options.size != "full" else "nothing.",
        body="\n\n".join(
            [*(as_table(results.trials, data) for data in DATA), CAPTION, verdict(results.trials)]
        ),
    )


def reduced(size: dict[str, Any]) -> str:
    """What is smaller than in the paper."""
    (ring_steps, grid_steps), (g_wide, d_wide) = size["steps"].values(), size["wide"]
    return (
        f"{ring_steps:,} steps on the ring and {grid_steps:,} on the grid, for 400,000. G's layers have "
        f"{g_wide} units and D's {d_wide}, for 400 and 200. The learning rate falls from {size['lr']} to 0, "
        f"where the paper has 1e-4. The first weights have a standard deviation of {size['std']}, for 0.02."
    )


CAPTION = """\
Mean ± standard error; there are 10 trials behind the paper's numbers. The paper: Lin, Khetan, Fanti and Oh,
*PacGAN: The power of two samples in generative adversarial networks*, 2018. Rows without numbers of the paper
have the same networks, steps and rates. Modes and reverse KL count samples of high quality only. Where these
are few, some modes are missed by chance, and numbers of different rows cannot be compared. The last column
can: it counts all samples, each for the centre it is nearest to."""


if __name__ == "__main__":
    study.run(main, study.arguments(__doc__, "pacgan_2d", seeds=10))
