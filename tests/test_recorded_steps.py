"""Recorded steps, with CuPy: replayed or eager, a run is the same to the last bit, and what it may ask of a GPU."""

import gc

import numpy as np
import pytest
from cupy_on_cpu import steps as measured
from small_runs import BATCH, differences, images, mlp, small_game, small_trainer

from minigan import backend, nn, optim
from minigan.data import Batches
from minigan.gan import LOSSES, PENALTIES, InstanceNoise, Unrolled, gradients, move
from minigan.gan.by_name import penalty
from minigan.gpu import graphs
from minigan.ops import square
from minigan.training import Play, Trainer

pytestmark = pytest.mark.usefixtures("cupy")


def on_gpu(networks=None, loss="non-saturating", penalty="none", game=None, **settings):
    """A Trainer of small networks, with whole batches only: five an epoch."""
    g, d = networks or mlp(4 if loss == "began" else 1)
    made = small_game(loss, penalty, (g.to("cupy"), d.to("cupy")), **(game or {}))
    return small_trainer(None, made, images(5 * BATCH), **settings)


def trace(run, steps, meddle=None):
    """{what: numbers} of a run: each step's report, and in the end all that a checkpoint would keep."""
    found = {}
    for _ in range(steps):
        if meddle is not None and run.step % 10 == 9:
            meddle(run)
        report = run.train_step()
        found |= {f"step {run.step}, {name}": float(value) for name, value in report.items()}
    for part, owner in run.play.parts().items():
        found |= {f"{part}.{name}": np.array(value).tobytes() for name, value in owner.state_dict().items()}
    return found


def both(make=on_gpu, steps=16, meddle=None, **settings):
    """What an eager run and a recorded one come to, and the second run."""
    eager, recorded = (make(capture=flag, **settings) for flag in (False, True))
    return trace(eager, steps, meddle), trace(recorded, steps, meddle), recorded


def check(make=on_gpu, steps=16, **settings):
    """The two are the same, and nearly all steps were replayed."""
    eager, recorded, run = both(make, steps, **settings)
    assert run.recorded.why is None
    assert run.recorded.replays >= steps - 5
    assert differences(eager, recorded) == []


# -------------------------------------------------------------------------- the same, to the last bit


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss(loss):
    check(loss=loss)


@pytest.mark.parametrize("penalty", sorted(PENALTIES))
def test_every_penalty(penalty):
    check(loss="wasserstein", penalty=penalty, simultaneous=penalty == "consensus")


OPTIMISERS = {
    "SGD": lambda params: optim.SGD(params, 1e-2, momentum=0.9),
    "SGD, damped": lambda params: optim.SGD(params, 1e-2, momentum=0.9, dampening=0.5),
    "RMSprop": lambda params: optim.RMSprop(params, 1e-3, centered=True),
    "AdamW": lambda params: optim.AdamW(params, 1e-3, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser(name):
    check(game={"optimizer": OPTIMISERS[name]})


@pytest.mark.parametrize(
    "rule",
    [
        {"reuse_fakes": False},
        {"separate": True},
        {"unrolled": Unrolled(2)},
        {"unrolled": Unrolled(2, optimizer="sgd")},
    ],
)
def test_every_rule(rule):
    check(game=rule)


def test_uniform_noise_and_no_moving_average():
    check(noise_kind="uniform", ema=0)


@pytest.mark.parametrize("spectral", [False, True])
def test_convolutions(spectral):
    def make(**settings):
        rng = np.random.default_rng(0)
        g = nn.Sequential(
            nn.Linear(3, 12, rng=rng), nn.Reshape(3, 2, 2), nn.BatchNorm2d(3), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(3, 2, 3, 1, 1, rng=rng), nn.BatchNorm2d(2, momentum=None), nn.ReLU(),
            nn.Conv2d(2, 1, 3, 1, 1, rng=rng), nn.Tanh(), nn.Flatten(),
        )  # fmt: skip
        d = nn.Sequential(
            nn.Reshape(1, 2, 2), nn.Conv2d(1, 4, 3, 1, 1, rng=rng), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
            nn.Conv2d(4, 3, 2, rng=rng), nn.Dropout(0.2, rng=rng), nn.Flatten(), nn.Linear(3, 1, rng=rng),
        )  # fmt: skip
        if spectral:
            penalty("spectral", d, 1)
        return on_gpu((g, InstanceNoise(d, 0.1, rng=2)), **settings)

    check(make)


def test_steps_of_d_that_belong_to_two_epochs_are_eager():
    eager, recorded, run = both(steps=30, d_steps=3)
    assert run.recorded.why is None
    assert 10 < run.recorded.replays < 20  # 3 of 5 steps have their three batches in one epoch
    assert differences(eager, recorded) == []


class Copying(Play):
    """A Play that is no Game: one network learns to repeat its input, and a second one, half frozen, too."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.networks = [nn.Sequential(nn.Linear(4, 4, rng=rng), nn.BatchNorm1d(4)).to("cupy") for _ in "ab"]
        self.optimizers = [optim.Adam(network.parameters(), 1e-2) for network in self.networks]
        self.networks[1].parameters()[1].requires_grad_(False)
        self.images = Batches(images(20), 5, 0, "cupy")

    def parts(self):
        both = zip(("network", "optimizer"), (self.networks, self.optimizers), strict=True)
        return {f"{name}{i}": part for name, parts in both for i, part in enumerate(parts)}

    def data(self):
        return {"images": self.images}

    def step(self, draws):
        x, report = draws.batch(self.images), {}
        for i, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            noisy = x + draws.noise(x.shape, purpose=f"noise {i}") * 0.1
            loss = square(network(noisy) - x).mean()
            move(optimizer, gradients(optimizer, loss, "loss"))
            report[f"loss {i}"] = loss.detach()
        return report


def test_a_play_that_is_no_game():
    check(lambda capture: Trainer(Copying(), quiet=True, capture=capture))


# ------------------------------------------------------------------------------------- meddled with


def halve_the_rate(run):
    run.play.game.g_optimizer.lr = run.play.game.g_optimizer.lr / 2


def other_weights(run):
    weights = run.play.game.g.state_dict()
    run.play.game.g.load_state_dict({name: value * 2 for name, value in weights.items()})


def one_weight(run):
    p = run.play.game.d.parameters()[0]
    p.data = p.data * 0.5


def other_memory_of_adam(run):
    state = run.play.game.d_optimizer.state_dict()
    run.play.game.d_optimizer.load_state_dict({**state, "counts": state["counts"] + 7})


def freeze(run):
    run.play.game.g.parameters()[0].requires_grad_(False)
    run.play.game.g.parameters()[0].requires_grad_(True)


def hold(run):
    run.held = [p.data for p in run.play.game.g.parameters()]


def jump(run):
    run.step += 16


@pytest.mark.parametrize(
    "meddle", [halve_the_rate, other_weights, one_weight, other_memory_of_adam, freeze, hold, jump]
)
def test_what_is_changed_between_two_steps_counts(meddle):
    eager, recorded, run = both(steps=25, meddle=meddle)
    assert run.recorded.why is None
    assert run.recorded.replays > 8
    assert differences(eager, recorded) == []


# -------------------------------------------------------------------------- what it asks of a GPU

BARS = {"mlp": 100, "dcgan": 190}  # launches of an eager step


@pytest.mark.parametrize("kind", BARS)
def test_launches_of_a_step(kind, counting):
    """Few, and Python neither waits nor sends or reads anything. A recorded step is two: its number, itself."""
    found = []
    for recorded, most in ((False, BARS[kind]), (True, 2)):
        run = measured.trainer(kind, capture=recorded)
        for _ in range(2):
            with counting() as counts:
                run.train_step()
            assert counts.launches <= most, counts.launched
            assert counts.to_device == counts.to_host == counts.waits == 0
        found.append(measured.weights(run))
    assert run.recorded.replays >= 3
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("loss", "penalty"), [(loss, "none") for loss in LOSSES] + [("wasserstein", name) for name in PENALTIES]
)
def test_a_step_neither_waits_nor_reads_nor_sends(loss, penalty, counting):
    run = on_gpu(loss=loss, penalty=penalty, simultaneous=penalty == "consensus")
    run.run(steps=2)
    with counting() as counts:
        for _ in range(2):  # in the middle of an epoch
            run.train_step()
    assert counts.launches > 50
    assert counts.to_device == counts.to_host == counts.waits == 0, counts.asked


def test_channels_stay_last_in_memory(counting):
    """Activations and dropout keep the order of images, so that convolutions need not copy them."""
    rng = np.random.default_rng(0)
    layers = [nn.Tanh(), nn.LeakyReLU(0.2), nn.ReLU(), nn.Sigmoid(), nn.Softplus(), nn.Dropout(0.5, rng=rng)]
    convolution = nn.Conv2d(3, 4, 3, rng=rng).to("cupy")
    x = backend.get("cupy").from_numpy(rng.standard_normal((2, 3, 6, 6), dtype="float32"))
    y = convolution(nn.Tensor(x, requires_grad=True)) if hasattr(nn, "Tensor") else convolution(x)
    for layer in layers:
        assert layer(y).data.strides == y.data.strides, layer


def test_a_cublas_handle_goes_with_its_owner():
    destroyed = []

    class Library:
        def __init__(self):
            self._library = graphs._cublas()

        def __getattr__(self, name):
            function = getattr(self._library, name)
            return (
                function if name != "cublasDestroy_v2" else lambda handle: destroyed.append(function(handle))
            )

    blas = graphs.Blas(Library())
    assert destroyed == []
    del blas
    gc.collect()
    assert destroyed == [0]
