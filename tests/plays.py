"""Two Plays that are no Game, in the small: they show that the loop has never heard of G and D.

python tests/plays.py translation FOLDER [--resume]      run it as a program, to be stopped from outside
"""

from __future__ import annotations

import sys
import time

import numpy as np

from minigan import Tensor, nn, tanh, viz
from minigan.data.batches import Batches
from minigan.gan import LeastSquares, NonSaturating, cycle_consistency
from minigan.gan.steps import gradients, move
from minigan.ops import concat
from minigan.optim import Adam
from minigan.training import Interrupted, Play, Trainer


def adam(network):
    return Adam(network.parameters(), 1e-2, (0.5, 0.999))


class Translation(Play):
    """A CycleGAN (Zhu et al. 2017) between two kinds of points: four networks, four optimisers."""

    steps_per_epoch = 3

    def __init__(self, backend="numpy", seed=0):
        rng = np.random.default_rng(seed)

        def network(outputs, *layers):
            return nn.Sequential(
                nn.Linear(4, 6, rng=rng), nn.LeakyReLU(0.2), *layers, nn.Linear(6, outputs, rng=rng)
            ).to(backend)

        self.f, self.g = (network(4, nn.BatchNorm1d(6)) for _ in range(2))  # G: X → Y, F: Y → X
        self.d_x, self.d_y = (network(1, nn.Dropout(0.2, rng=rng)) for _ in range(2))
        networks = {"f": self.f, "g": self.g, "d_x": self.d_x, "d_y": self.d_y}
        self.optimizers = {f"{name}_optimizer": adam(each) for name, each in networks.items()}
        self.all = {**networks, **self.optimizers}
        points = rng.uniform(-1, 1, (22, 4)).astype("float32")
        self.xs = Batches(points[:12], 4, seed, backend)  # the two kinds are not equally many
        self.ys = Batches(points[12:] + 1, 5, seed + 1, backend)
        self.loss = LeastSquares()

    def parts(self):
        return self.all

    def data(self):
        return {"x": self.xs, "y": self.ys}

    def step(self, draws):
        """L_D = LSGAN's for each kind        L_G = LSGAN's for both + 10 (|F(G(x)) - x| + |G(F(y)) - y|)"""
        x, y = draws.batch(self.xs), draws.batch(self.ys)
        fake_x, fake_y = self.f(y), self.g(x)
        report = {}
        for name, real, fake in (("d_x", x, fake_x), ("d_y", y, fake_y)):
            d, optimizer = self.all[name], self.optimizers[f"{name}_optimizer"]
            loss = self.loss.discriminator(d(real), d(fake.detach()))
            move(optimizer, gradients(optimizer, loss, name))
            report[name] = loss.detach()
        with nn.frozen(self.d_x), nn.frozen(self.d_y):
            adversarial = self.loss.generator(self.d_x(fake_x)) + self.loss.generator(self.d_y(fake_y))
        cycle = cycle_consistency(x, self.f(fake_y)) + cycle_consistency(y, self.g(fake_x))
        loss = adversarial + 10 * cycle
        movers = [self.optimizers[f"{name}_optimizer"] for name in "fg"]
        found = [gradients(optimizer, loss, "L_G") for optimizer in movers]
        for optimizer, gradient in zip(movers, found, strict=True):
            move(optimizer, gradient)
        return {**report, "adversarial": adversarial.detach(), "cycle": cycle.detach()}

    def picture(self, draws):
        self.g.eval()
        made = self.g(draws.batch(self.xs)).numpy()
        self.g.train()
        return viz.grid(np.tanh(made))


class Recurrent(nn.Module):
    """h ← tanh(W x + U h), y = V h, for each x of a sequence. Shapes: x and y lists of (N, in), (N, out)"""

    def __init__(self, inputs, outputs, rng):
        self.w = nn.Linear(inputs, 5, rng=rng)
        self.u = nn.Linear(5, 5, bias=False, rng=rng)
        self.v = nn.Linear(5, outputs, rng=rng)

    def forward(self, sequence):
        h, made = None, []
        for x in sequence:
            h = tanh(self.w(x)) if h is None else tanh(self.w(x) + self.u(h))
            made.append(self.v(h))
        return made


class Sequences(Play):
    """A recurrent G makes sequences of noise, a recurrent D reads them, step after step."""

    steps_per_epoch = 4
    LENGTH = 6

    def __init__(self, backend="numpy", seed=0):
        rng = np.random.default_rng(seed)
        self.g, self.d = Recurrent(2, 1, rng).to(backend), Recurrent(1, 1, rng).to(backend)
        self.g_optimizer, self.d_optimizer = adam(self.g), adam(self.d)
        phase = rng.uniform(0, 2 * np.pi, (16, 1, 1))
        waves = np.sin(phase + np.arange(self.LENGTH)[:, None]).astype("float32")  # (16, LENGTH, 1)
        self.waves, self.loss = Batches(waves, 8, seed, backend), NonSaturating()

    def parts(self):
        names = ("g", "d", "g_optimizer", "d_optimizer")
        return {name: getattr(self, name) for name in names}

    def data(self):
        return {"waves": self.waves}

    def made(self, draws, count=8, purpose="noise"):
        z = draws.noise((count, self.LENGTH, 2), purpose=purpose)
        return self.g([z[:, t] for t in range(self.LENGTH)])

    def step(self, draws):
        """The usual game; D's logit is what it says after the last entry."""
        wave = draws.batch(self.waves)
        real, fake = [wave[:, t] for t in range(self.LENGTH)], self.made(draws)
        loss_d = self.loss.discriminator(self.d(real)[-1], self.d([x.detach() for x in fake])[-1])
        move(self.d_optimizer, gradients(self.d_optimizer, loss_d, "L_D"))
        with nn.frozen(self.d):
            loss_g = self.loss.generator(self.d(fake)[-1])
        move(self.g_optimizer, gradients(self.g_optimizer, loss_g, "L_G"))
        return {"loss_d": loss_d.detach(), "loss_g": loss_g.detach()}

    def picture(self, draws):
        return viz.grid(np.tanh(concat(self.made(draws, 9, "picture"), 1).numpy().reshape(9, 2, 3)))


PLAYS = {"translation": Translation, "sequences": Sequences}


class Slow:
    """Something to wait for before each step, so that there is time to stop it."""

    def __call__(self, step):
        time.sleep(0.005)


def main(name, folder, *flags):
    trainer = Trainer(
        PLAYS[name](), seed=3, folder=folder, resume="--resume" in flags, save_every=0, quiet=True,
        before_step=Slow(),
    )  # fmt: skip
    try:
        trainer.run(epochs=8)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)


if __name__ == "__main__":
    viz.curves = lambda path, *args, **options: path.write_bytes(b"")  # they take most of the time
    main(*sys.argv[1:])


def same(a, b):
    """Whether two Plays have the same weights, bit for bit."""
    states = [{n: p.state_dict() for n, p in play.parts().items()} for play in (a, b)]
    return all(
        np.array_equal(np.asarray(value), np.asarray(states[1][name][key]))
        for name, state in states[0].items()
        for key, value in state.items()
    )


def number(value):
    """A reported number as a float."""
    return float(value if isinstance(value, Tensor) else np.asarray(value))
