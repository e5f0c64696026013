"""The first GAN (Goodfellow et al. 2014): log-likelihoods on MNIST by the Parzen window estimate, table 1.

    python examples/papers/parzen_mnist.py --quick        does it run? A few seconds, without MNIST
    python examples/papers/parzen_mnist.py                100 epochs, about 25 minutes on one core
    python examples/papers/parzen_mnist.py --full         250 epochs, when the momentum stops rising

The paper reports 225 nats. The settings are those of the authors' code (github.com/goodfeli/adversarial:
mnist.yaml, parzen_ll.py): 10,000 samples of G, sigma chosen on 1000 validation images, the mean over all
test images. What is computed stands in minigan/metrics/parzen.py. A few things are to be known:

- mnist.yaml does not say when to stop, and no source says after which epoch the 225 were found. So two of
  our networks are reported: the last one, and the one that the validation images like best.
- Both players move at once, as there. There G's gradient goes through D with the dropout masks of D's own
  gradient; here each of the two draws its own. Both are unbiased estimates of the same gradients.
- There D's loss is the mean over real images and fakes, half of the sum that NonSaturating takes. Under SGD
  that is the same as half the learning rate, and so it is done here.
- The weights are not bounded. The authors' settings for other data sets bound their norms, these do not.
- Not in the paper: a moving average of G's weights is judged beside G itself. SGD with so high a rate keeps
  the weights trembling, and the samples are speckled. The average shows how much that costs.

The table also says what samples are worth that no generator has made. Real images should be hard to beat, but
the centres of k-means beat them: a high number is no proof of good images (Theis, van den Oord, Bethge 2016).
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import study
import tables
from samples import digit_images, drawn

from minigan import Tensor, backend, nn, viz
from minigan.data import Batches, scaled
from minigan.gan import Game, NonSaturating
from minigan.gan.steps import simultaneous_step
from minigan.metrics import judge_parzen
from minigan.nn import init
from minigan.optim import SGD
from minigan.streams import stream
from minigan.training import EMA, Draws

parser = study.arguments(__doc__, "parzen_mnist", seeds=1, mnist=True)

# Units of G's hidden layers and of D's; images to train on and for choosing sigma; samples; epochs, and how
# many there are between two estimates; clusters of k-means.
SIZES = {
    "quick": {
        "g": 60, "d": 24, "train": 500, "validation": 100, "samples": 200, "epochs": 2, "every": 1, "k": 9,
    },
    "default": {
        "g": 1200, "d": 240, "train": 50_000, "validation": 1000, "samples": 10_000, "epochs": 100,
        "every": 5, "k": 1000,
    },
}  # fmt: skip
SIZES["full"] = {**SIZES["default"], "epochs": 250}
NOISE, PIXELS, BATCH = 100, 784, 100
DECAY = 0.999  # of the moving average: it remembers about 1000 steps, two epochs

# Mean log-likelihood and standard error over the test images, in table 1 of the paper.
PAPER = {
    "Deep belief network": "138 ± 2",
    "Stacked contractive autoencoder": "121 ± 1.6",
    "Deep generative stochastic network": "214 ± 1.1",
    "Adversarial nets": "225 ± 2",
}


def networks(size: dict, train: np.ndarray, seed: int) -> tuple[nn.Module, nn.Module]:
    """G: noise (N, 100) → pixels (N, 784) from 0 to 1. D: pixels → logits (N, 1), with maxout and dropout."""
    rng, g_units, d_units = stream(seed, "weights"), size["g"], size["d"]
    g = nn.Sequential(
        nn.Lambda(wider),
        nn.Linear(NOISE, g_units, rng=rng),
        nn.ReLU(),
        nn.Linear(g_units, g_units, rng=rng),
        nn.ReLU(),
        nn.Linear(g_units, PIXELS, rng=rng),
        nn.Sigmoid(),
    )
    d = nn.Sequential(
        nn.Dropout(0.2, rng=rng),
        nn.Maxout(PIXELS, d_units, pieces=5, rng=rng),
        nn.Dropout(0.5, rng=rng),
        nn.Maxout(d_units, d_units, pieces=5, rng=rng),
        nn.Dropout(0.5, rng=rng),
        nn.Linear(d_units, 1, rng=rng),
    )
    for network, bound in ((g, 0.05), (d, 0.005)):
        init.fill(network, partial(init.uniform, bound=bound, rng=rng))
        for layer in network:
            if isinstance(layer, nn.Linear | nn.Maxout):
                layer.bias.data = np.zeros(layer.bias.shape, np.float32)
    # G begins with each pixel at its mean. Some pixels are black in all images, and σ(l) = 0 has no l.
    means = np.clip(train.mean(axis=0, dtype=np.float64), 1e-7, 1 - 1e-7)
    g[-2].bias.data = np.log(means / (1 - means)).astype(np.float32)
    return g, d


def wider(z: Tensor) -> Tensor:
    """Uniform between -1 and 1 → uniform between -√3 and √3, whose variance is 1."""
    return z * 3**0.5


def gan(results: study.Results, size: dict, data: tuple, seed: int, name: str) -> dict:
    """Train a GAN, and judge it every few epochs: "curve" is what was found each time.

    "averaged" is the same for the moving average of G's weights. "images" are some of the last network's, one
    byte for each pixel, in hexadecimal digits.
    """
    where = results.options.backend
    train, validation, test = data
    g, d = (network.to(where) for network in networks(size, train, seed))

    def rate(start: float) -> Callable[[int], float]:
        return lambda step: max(start / 1.000004**step, 1e-6)

    g_sgd, d_sgd = SGD(g.parameters(), rate(0.1), momentum=0.5), SGD(d.parameters(), rate(0.05), momentum=0.5)
    game = Game(g, d, NonSaturating(), g_sgd, d_sgd)
    batches, draws = Batches(train, BATCH, seed, where), Draws(seed, where)
    ema, curves = EMA(g, DECAY), {"curve": [], "averaged": []}
    parts = {
        "g": g, "d": d, "g_sgd": g_sgd, "d_sgd": d_sgd, "ema": ema,
        **{key: study.Notes(curve) for key, curve in curves.items()},
    }  # fmt: skip
    for step in study.steps(results.unfinished(name), parts, size["epochs"] * len(batches), threads=1):
        epoch = step // len(batches)
        # the momentum rises from epoch to epoch, the first to the 250th
        g_sgd.momentum = d_sgd.momentum = 0.5 + 0.2 * min(1.0, epoch / 249)
        for i, layer in enumerate(d):
            if isinstance(layer, nn.Dropout):
                layer.rng = stream(seed, f"dropout {i}", step)
        now = draws.at(step)
        simultaneous_step(game, now.batch(batches), now.noise((BATCH, NOISE), "uniform"))
        ema.update(g)
        if (step + 1) % (size["every"] * len(batches)) == 0:
            for network, curve in zip((g, ema.module(g)), curves.values(), strict=True):
                samples = drawn(network, fresh(size["samples"], seed, epoch + 1))
                curve.append({"epoch": epoch + 1, **judge(results.options, samples, validation, test)})
    shown = np.rint(drawn(g, fresh(48, seed, size["epochs"])) * 255).astype(np.uint8)
    images = [image.tobytes().hex() for image in shown]
    return {**curves["curve"][-1], **curves, "images": images}


def fresh(count: int, seed: int, epoch: int) -> np.ndarray:
    """Noise (N, 100) that G has not seen in training."""
    return stream(seed, "parzen", epoch).random((count, NOISE), dtype=np.float32) * 2 - 1


def judge(options: argparse.Namespace, samples: np.ndarray, validation: np.ndarray, test: np.ndarray) -> dict:
    """What judge_parzen reports, as a dict. It is computed on the backend."""
    there = backend.get(options.backend).from_numpy
    return vars(judge_parzen(there(samples), there(validation), there(test)))


# ------------------------------------------------------- what samples that are no generator's are worth


def anchors(size: dict, train: np.ndarray) -> dict:
    """Functions that make samples in simple ways, by name."""
    count, k = size["samples"], size["k"]
    return {
        f"{len(train[:count])} training images": lambda: train[:count],
        f"{k} centres of k-means": lambda: k_means(train, k),
        "training images, each pixel shuffled by itself": lambda: stream(0, "pixels").permuted(
            train[:count], axis=0
        ),
    }


def k_means(x: np.ndarray, k: int, rounds: int = 20) -> np.ndarray:
    """The centres (k, F) of k clusters of points x (N, F), by Lloyd's algorithm.

    Each point belongs to the nearest centre, and each centre moves to the mean of its points, so many times.
    A centre without points stays where it is.
    """
    centres = x[stream(0, "k-means").choice(len(x), k, replace=False)]
    for _ in range(rounds):
        # |x - c|² = |x|² - 2 x·c + |c|², and |x|² is the same for all centres
        parts = np.array_split(x, -(-len(x) // 5000))
        own = np.concatenate(
            [((centres**2).sum(axis=1) - 2 * part @ centres.T).argmin(axis=1) for part in parts]
        )
        order = np.argsort(own, kind="stable")
        numbers, starts = np.unique(own[order], return_index=True)
        sums = np.add.reduceat(x[order], starts, axis=0)
        centres[numbers] = sums / np.diff(starts, append=len(x))[:, None]
    return centres


# ------------------------------------------------------------------------------------------ the study


def main(options: argparse.Namespace) -> None:
    """Train, judge, and compare."""
    size = SIZES[options.size]
    data = images(options, size)
    results = study.Results(options, size)
    judged = {
        name: lambda make=make: judge(options, make(), *data[1:])
        for name, make in anchors(size, data[0]).items()
    }
    names = [f"gan, seed {seed}" for seed in range(options.seeds)]
    trained = {name: partial(gan, results, size, data, seed, name) for seed, name in enumerate(names)}
    results.measure({**judged, **trained})
    simple = {name: results.trials[name] for name in judged}
    runs, averages = ([results.trials[name][key] for name in names] for key in ("curve", "averaged"))
    figure(results, simple, runs, averages, results.trials[names[0]]["images"])
    text = f"Mean log-likelihood of the {len(data[2])} test images by {size['samples']} samples, in nats.\n\n"
    results.write_up(
        "Parzen window log-likelihood of the first GAN",
        reduced(options, size),
        text + rows(size, simple, runs, averages),
    )


def images(options: argparse.Namespace, size: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (N, 784) from 0 to 1 for training, for choosing sigma and epoch, and for testing."""
    found = digit_images(options, 600, 100)
    x, test = (scaled(part, 0.0, 1.0).reshape(-1, PIXELS) for part in (found.images, found.test_images))
    return x[: size["train"]], x[size["train"] :][: size["validation"]], test


def rows(size: dict, simple: dict, runs: list[list[dict]], averages: list[list[dict]]) -> str:
    """The table: what the paper reports, ours, and what samples without a generator are worth."""
    last, best = [run[-1] for run in runs], [max(run, key=lambda entry: entry["validation"]) for run in runs]
    epochs = " and ".join(str(entry["epoch"]) for entry in best)
    ours = {
        f"ours, after {size['epochs']} epochs": last,
        f"ours, after {epochs} epochs, the best by the validation images": best,
        "the moving average of its weights (not in the paper)": [run[-1] for run in averages],
        **{name: [entry] for name, entry in simple.items()},
    }
    lines = [[f"{name} (Goodfellow et al. 2014)", value, "", ""] for name, value in PAPER.items()]
    for name, found in ours.items():
        mean, spread = tables.mean_se([entry["mean"] for entry in found])
        error = tables.mean_se([entry["error"] for entry in found])[0]
        sigma = " and ".join(sorted({f"{entry['sigma']:.3f}" for entry in found}))
        between = f"{spread:.1f}" if len(found) > 1 else ""
        lines.append([name, f"{mean:.1f} ± {error:.1f}", between, sigma])
    return tables.table(
        ["samples of", "log-likelihood ± s.e. over test images", "s.e. of the mean over seeds", "sigma"],
        lines,
    )


def reduced(options: argparse.Namespace, size: dict) -> str:
    """What differs from the paper."""
    if options.size == "quick":
        return "everything. The numbers mean nothing."
    momentum = 0.5 + 0.2 * min(1.0, (size["epochs"] - 1) / 249)
    return (
        f"{size['epochs']} epochs, in which the momentum gets to {momentum:.2f}, of 0.7 in the end. How many "
        "epochs the paper's were is not recorded."
    )


def figure(
    results: study.Results,
    simple: dict,
    runs: list[list[dict]],
    averages: list[list[dict]],
    images: list[str],
) -> None:
    """The log-likelihood over the epochs, and samples of the last network of seed 0."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = canvas.subplots(1, 2, width_ratios=[1.35, 1])
    for found, style, what in ((runs, "o-", "GAN"), (averages, "x--", "its moving average")):
        for seed, run in enumerate(found):
            epochs, means = [e["epoch"] for e in run], [e["mean"] for e in run]
            left.plot(epochs, means, style, ms=3, color=f"C{seed}", label=f"{what}, seed {seed}")
    left.axhline(225, color="black", lw=1, label="the paper's GAN")
    for name, style in zip(list(simple)[:2], ("--", ":"), strict=True):  # the third is far below
        left.axhline(simple[name]["mean"], color="grey", lw=1.5, ls=style, label=name)
    left.set(xlabel="epoch", ylabel="log-likelihood of test images (nats)")
    left.legend(fontsize=8, loc="lower right")
    pixels = np.array([np.frombuffer(bytes.fromhex(image), np.uint8) for image in images])
    right.imshow(viz.grid(pixels, columns=8, low=0, high=255), cmap="gray", vmin=0, vmax=255)
    right.set(xticks=[], yticks=[], title=f"samples of seed 0 after {runs[0][-1]['epoch']} epochs")
    canvas.savefig(results.folder / "figure.png", dpi=110)


if __name__ == "__main__":
    study.run(main, parser)
