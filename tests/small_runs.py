"""Training runs that take a fraction of a second: what the tests of the trainer train."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np

from minigan import io, nn
from minigan.gan import GMMN, Game, loss
from minigan.gan.by_name import penalty
from minigan.optim import Adam
from minigan.training import Interrupted, Trainer

PIXELS, NOISE = 4, 3
COUNT, BATCH = 18, 4  # five batches an epoch, of 4, 4, 4, 3 and 3 images


def images(count=COUNT, shape=(PIXELS,), dtype="float32"):
    """Images from -1 to 1: (N, 4), which a picture shows as 2 x 2 pixels."""
    return np.random.default_rng(7).uniform(-0.9, 0.9, (count, *shape)).astype(dtype)


def mlp(outputs=1, seed=0, dtype="float32"):
    """G with batch normalisation, D with dropout."""
    rng = np.random.default_rng(seed)
    g = nn.Sequential(
        nn.Linear(NOISE, 6, rng=rng, dtype=dtype),
        nn.BatchNorm1d(6, dtype=dtype),
        nn.ReLU(),
        nn.Linear(6, PIXELS, rng=rng, dtype=dtype),
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Linear(PIXELS, 6, rng=rng, dtype=dtype),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3, rng=rng),
        nn.Linear(6, outputs, rng=rng, dtype=dtype),
    )
    return g, d


def convolutions(spectral=False):
    """G and D for images of 2 x 2 pixels. Statistics in both, dropout in D."""
    rng = np.random.default_rng(0)
    g = nn.Sequential(
        nn.Linear(NOISE, 12, rng=rng), nn.Reshape(3, 2, 2), nn.BatchNorm2d(3), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(3, 2, 3, 1, 1, rng=rng), nn.BatchNorm2d(2, momentum=None), nn.ReLU(),
        nn.Conv2d(2, 1, 3, 1, 1, rng=rng), nn.Tanh(), nn.Flatten(),
    )  # fmt: skip
    d = nn.Sequential(
        nn.Reshape(1, 2, 2), nn.Conv2d(1, 4, 3, 1, 1, rng=rng), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 3, 2, rng=rng), nn.Dropout(0.2, rng=rng), nn.Flatten(), nn.Linear(3, 1, rng=rng),
    )  # fmt: skip
    if spectral:
        penalty("spectral", d, 1)
    return g, d


def small_game(loss_name="non-saturating", penalty_name="none", networks=None, optimizer=None, **rules):
    """A Game; `optimizer` makes one of parameters."""
    optimizer = optimizer or (lambda params: Adam(params, 1e-2, (0.5, 0.999)))
    g, d = networks or mlp(PIXELS if loss_name == "began" else 1)
    if loss_name == "gmmn":  # G plays alone
        return GMMN(g, optimizer(g.parameters()), **rules)
    chosen = loss(loss_name) if isinstance(loss_name, str) else loss_name
    terms = [*penalty(penalty_name, d, 0), *rules.pop("terms", ())]
    return Game(g, d, chosen, optimizer(g.parameters()), optimizer(d.parameters()), terms, **rules)


def small_trainer(folder=None, game=None, data=None, **settings):
    """A Trainer of small_game() that says nothing."""
    chosen = {"noise": NOISE, "batch": BATCH, "seed": 3, "samples": 4, "quiet": True, **settings}
    return Trainer(game or small_game(), images() if data is None else data, folder=folder, **chosen)


def networks(trainer):
    """{name: network} of what it trains."""
    return {who: part for who, part in trainer.play.parts().items() if isinstance(part, nn.Module)}


def press(trainer, step, signum=signal.SIGINT):
    """Have a key pressed while the trainer is at this step: Ctrl-C."""
    train_step = trainer.train_step

    def pressed():
        if trainer.step + 1 == step:
            signal.raise_signal(signum)
        return train_step()

    trainer.train_step = pressed


def run_with_stops(make, folder, stops, **until):
    """Train in `folder`, interrupted in each of these steps, each time going on with a new Trainer."""
    resume = False
    for step in stops:
        trainer = make(folder, resume=resume)
        press(trainer, step)
        try:
            trainer.run(**until)
        except Interrupted:
            assert trainer.step == step
        else:
            raise AssertionError(f"the run was not interrupted in step {step}")
        resume = True
    trainer = make(folder, resume=resume)
    trainer.run(**until)
    return trainer


def what_is_left(folder):
    """All that a run leaves behind which does not depend on the time it took: {name: comparable value}."""
    folder = Path(folder)
    found = {path.name: path.read_bytes() for path in folder.glob("samples/*.png")}
    found |= {name: (folder / name).read_bytes() for name in ("progress.gif", "curves.png")}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    for name, array in io.load(folder / "checkpoint.npz").items():
        if name != "trainer.seconds":
            found[name] = (array.dtype.str, array.shape, array.tobytes())
    return found


def differences(a, b):
    """Names of what is not the same in two results of what_is_left."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def all_bytes(folder):
    """{path: content} of a folder, without the mark of who uses it."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".minigan.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
