"""Unrolled GANs on a ring of eight Gaussians: what if G saw D's answer coming?

    python examples/papers/unrolled_ring.py          three quarters of an hour on one busy core
    python examples/papers/unrolled_ring.py --full   25,000 steps, as in the authors' demo

Where D learns ten times more slowly than G, G can run away from it: it puts its samples where D expects data
just now, D follows, G moves on. Metz et al. (2017) let G go down the loss that it would have after K more
steps of D, and through these steps back (minigan/gan/unrolled.py). Figure 2 of their paper shows the ring
with and without. Here it is measured, many times on the way: modes that are there now may be gone soon.

The setting is that of the demo which the authors published (poolio/unrolled_gan), not the paper's own. Both
play one game: D minimises L = mean softplus(-D(x)) + mean softplus(D(G(z))), and G minimises -L, taken K
steps ahead. Both move at the same time, and the first of the K steps is the one that D really takes. The
steps ahead are Adam's, and go on from what D's own Adam remembers: m, v and the number of steps.

One thing differs from the demo. Its eight angles begin at 0 and end at 2π, which is 0 again: seven modes, one
with twice the weight. Here there are eight.

One row is not in the demo: G and D move in turn, as in most programs. That alone helps a good deal, for the
reason that dirac_gan.py shows: steps at the same time spiral outwards, where steps in turn go in circles.

All seeds are trained side by side, see trials.py. Where a number of one of them becomes infinite or NaN, all
end there, and are judged as they are.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import study
import tables
from samples import drawn, near_centres
from trials import Linear, Trials, adam, apart, together

from minigan import Tensor, nn
from minigan.data import ring
from minigan.finite import NonFiniteError
from minigan.gan import Game, Unrolled, alternating_step, losses, simultaneous_step
from minigan.streams import stream

RING = ring()
BETAS = (0.5, 0.999)
JUDGED = 2500
NEAR = 0.2 * 2 * np.sin(np.pi / 8)  # a fifth of the way from a centre to the next one
SNAPSHOTS, SHOWN = 6, 500  # pictures of a row in the figure, and points in each

# name: K, and whether G and D move at the same time
ROWS = {"K = 0": (0, True), "K = 1": (1, True), "K = 5": (5, True), "K = 0, in turn": (0, False)}

SIZES: dict[str, dict[str, Any]] = {
    "quick": {"steps": 6, "wide": 8, "noise": 4, "batch": 16, "lr_d": 1e-4, "lr_g": 1e-3, "looks": 6},
    "default": {
        "steps": 8000,
        "wide": 64,
        "noise": 256,
        "batch": 128,
        "lr_d": 5e-4,
        "lr_g": 5e-3,
        "looks": 48,
    },
    "full": {
        "steps": 25_000,
        "wide": 128,
        "noise": 256,
        "batch": 512,
        "lr_d": 1e-4,
        "lr_g": 1e-3,
        "looks": 48,
    },
}


# -------------------------------------------------------------------------------------- the game


def network(n_in: int, wide: int, n_out: int, rngs: Sequence[np.random.Generator]) -> nn.Module:
    """T networks, (N, n_in) → two hidden layers → (N, n_out); orthogonal weights times 1.4, biases 0."""

    def layer(a: int, b: int) -> nn.Module:
        return Linear(a, b, lambda shape, rng: nn.init.orthogonal(shape, rng, gain=1.4), rngs)

    layers = [layer(n_in, wide), nn.Tanh(), layer(wide, wide), nn.Tanh(), layer(wide, n_out)]
    return Trials(len(rngs), nn.Sequential(*layers))


def row(
    name: str, seeds: Sequence[int], size: dict[str, Any], where: str, unfinished: Path
) -> dict[str, Any]:
    """Train one row of the table, all seeds at once, and judge each seed's samples again and again."""
    (k, at_once), trials, noise = ROWS[name], len(seeds), size["noise"]
    g = network(noise, size["wide"], 2, [stream(seed, "weights of G") for seed in seeds]).to(where)
    d = network(2, size["wide"], 1, [stream(seed, "weights of D") for seed in seeds]).to(where)
    adam_g, adam_d = adam(g, trials, size["lr_g"], BETAS), adam(d, trials, size["lr_d"], BETAS)
    unrolled = Unrolled(k, remember=True) if k else None  # the K steps have the settings of D's Adam
    game = Game(g, d, losses.Minimax(), adam_g, adam_d, unrolled=unrolled, separate=False)
    looks: list[dict[str, Any]] = []
    snapshots: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    parts = {"g": g, "d": d, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"looks": study.Notes(looks), "snapshots": study.Notes(snapshots)}
    for step in study.steps(unfinished, parts, size["steps"], threads=1):
        rngs = [stream(seed, "step", step) for seed in seeds]
        points = together([RING.sample(size["batch"], rng) for rng in rngs])
        normal = together([rng.standard_normal((size["batch"], noise), dtype="float32") for rng in rngs])
        real, z = (Tensor(array, backend=where) for array in (points, normal))
        try:
            with np.errstate(all="ignore"):  # the step looks for infinite numbers itself
                if at_once:
                    simultaneous_step(game, real, z)
                else:
                    alternating_step(game, [real], [z])
        except NonFiniteError:
            found["diverged"] = step
            break
        if study.due(step, size["looks"], size["steps"]):
            numbers, points = look(g, noise, seeds)
            looks.append({"step": step + 1, **numbers})
            if study.due(len(looks) - 1, SNAPSHOTS, size["looks"]):
                snapshots.append({"step": step + 1, "samples": points})
    if found:
        numbers, points = look(g, noise, seeds)
        looks.append({"step": found["diverged"], **numbers})
        snapshots.append({"step": found["diverged"], "samples": points})
    return {"looks": looks, "snapshots": snapshots, **found}


def look(g: nn.Module, noise: int, seeds: Sequence[int]) -> tuple[dict[str, Any], np.ndarray]:
    """What G makes of always the same noise: numbers for each seed, and points of the first one."""
    z = [stream(seed, "judged").standard_normal((JUDGED, noise), dtype="float32") for seed in seeds]
    samples = apart(drawn(g, together(z)), len(seeds))
    close = [near_centres(x, RING) for x in samples]
    loose = [near_centres(x, RING, within=NEAR / RING.sigma) for x in samples]
    found = {
        "modes": [report.modes for report in close],
        "high quality": [100 * report.high_quality for report in close],
        "near modes": [int((np.array(report.counts) >= JUDGED / 100).sum()) for report in loose],
        "near": [100 * report.high_quality for report in loose],
        "reverse KL": [report.reverse_kl for report in loose],
    }
    with np.errstate(all="ignore"):  # they may be huge, if the GAN diverged
        return found, samples[0][:SHOWN].round(3)


# --------------------------------------------------------------------------------- what came of it

# measure: (how a reader knows it, decimals, which of several is the worst)
MEASURES: dict[str, tuple[str, int, Any]] = {
    "modes": ("modes within 3σ", 1, min),
    "high quality": ("samples within 3σ, %", 1, min),
    "near modes": ("modes, near", 1, min),
    "near": ("samples near, %", 1, min),
    "reverse KL": ("reverse KL, near", 2, max),
}


def as_table(found: dict[str, dict[str, Any]]) -> str:
    """A row for each K: the end, and the worst of the last quarter of the looks."""
    lines = []
    for name in ROWS:
        looks, cells = found[name]["looks"], []
        for measure, (_, digits, worse) in MEASURES.items():
            late = zip(*(here[measure] for here in looks[-max(1, len(looks) // 4) :]), strict=True)
            end, worst = looks[-1][measure], [worse(of_seed) for of_seed in late]
            cells.append(f"{tables.plus_minus(end, digits)} ({tables.plus_minus(worst, digits)})")
        lines.append([name + tables.ended(found[name]), *cells])
    return tables.table(["", *(title for title, _, _ in MEASURES.values())], lines)


def in_words(size: dict[str, Any]) -> str:
    """What is smaller than in the demo."""
    return (
        f"{size['steps']:,} steps for 25,000; layers {size['wide']} wide for 128; batches of {size['batch']} "
        f"for 512; learning rates of D and G {size['lr_d']:g} and {size['lr_g']:g} for 0.0001 and 0.001: D's "
        "is a tenth of G's, as it is there."
    )


EXPLANATION = f"""\
Mean ± standard error over the seeds, at the end; in brackets, the worst of the last quarter of the looks. A
look is at {JUDGED:,} samples. Within 3σ: of the nearest centre; a mode counts if one sample is, and a cloud
that covers everything has some, too. Near: within a fifth of the distance between two centres, {NEAR:.2f}; a
mode counts if 1 % of all samples are. The reverse KL says how unevenly these are spread: 0 is even, 2.08 one
mode.

Metz, Poole, Pfau and Sohl-Dickstein, *Unrolled Generative Adversarial Networks*, 2017, show pictures of this
ring and no numbers: without unrolling G goes from mode to mode, with it G finds all. Srivastava et al.
(*VEEGAN*, 2017, Table 1) counted with other networks, within 3σ: 1 mode and 99.3 % of the samples without
unrolling, 7.6 modes and 35.6 % with K = 5."""


def figure(found: dict[str, dict[str, Any]], seeds: int, path: Path) -> None:
    """Like the paper's Figure 2: snapshots of the first seed. Beside them: how the numbers went."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(14, 1.85 * len(ROWS)), layout="constrained")
    left, right = sheet.subfigures(1, 2, width_ratios=[2, 1])
    pictures = left.subplots(len(ROWS), SNAPSHOTS)
    curves = dict(zip(("near modes", "near"), right.subplots(2, 1, sharex=True), strict=True))
    for i, name in enumerate(ROWS):
        looks = found[name]["looks"]
        for j, here in enumerate(found[name]["snapshots"]):
            axes = pictures[i, j]
            axes.plot(*RING.centres.T, "o", color="0.8", markersize=9, zorder=0)
            axes.plot(*np.array(here["samples"]).T, ".", color="C0", markersize=1.5)
            axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
            if i == 0 or "diverged" in found[name]:
                axes.set_title(f"step {here['step']:,}", fontsize=9)
            if j == 0:
                axes.set_ylabel(name)
        for measure, axes in curves.items():
            means = [np.mean(here[measure]) for here in looks]
            axes.plot([here["step"] for here in looks], means, label=name, linewidth=1.2)
    curves["near modes"].set(ylabel="modes with 1 % of the samples near", ylim=(0, 8.3))
    curves["near modes"].set_title(f"mean over {seeds} seeds", fontsize=9)
    curves["near modes"].legend(fontsize=8)
    curves["near"].set(xlabel="steps", ylabel="samples near a centre, %", ylim=(0, 102))
    sheet.savefig(path, dpi=100)


def main(options: argparse.Namespace) -> None:
    """Every row, then the table and the figure."""
    size = SIZES[options.size]
    results = study.Results(options, {**size, "seeds": options.seeds, "rows": ROWS})
    seeds = range(options.seeds)
    rows = {
        name: partial(row, name, seeds, size, options.backend, results.unfinished(name))
        for name in reversed(ROWS)  # the long ones first
    }
    results.measure(rows)
    figure(results.trials, options.seeds, results.folder / "figure.png")
    results.write_up(
        "Unrolled GANs on a ring of eight Gaussians",
        reduced="nothing" if options.size == "full" else in_words(size),
        body=f"{as_table(results.trials)}\n\n{EXPLANATION}",
    )


if __name__ == "__main__":
    study.run(main, study.arguments(__doc__, "unrolled_ring", seeds=5))
