"""Steps with CuPy: recorded or eager, a run is the same to the last bit; and what a step may ask of a GPU."""

import gc
import re

import numpy as np
import pytest
from cupy_on_cpu import steps as measured
from small_runs import (
    BATCH,
    convolutions,
    differences,
    images,
    mlp,
    run_with_stops,
    small_game,
    small_trainer,
    what_is_left,
)  # fmt: skip

from minigan import Tensor, backend, nn, optim, viz
from minigan.data import Batches
from minigan.gan import LOSSES, PENALTIES, InstanceNoise, Unrolled, gradients, move
from minigan.gan.term import Term
from minigan.gpu import graphs, recorded_steps
from minigan.ops import square
from minigan.tensor import constant
from minigan.training import Play, Trainer, command_line

pytestmark = pytest.mark.usefixtures("cupy")


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    """Without curves that nobody looks at, and without waiting for the disk."""
    monkeypatch.setattr(viz, "curves", lambda path, *args, **options: path.write_bytes(b""))
    monkeypatch.setattr("os.fsync", lambda file: None)


def on_gpu(folder=None, networks=None, loss="non-saturating", penalty="none", game=None, **settings):
    """A Trainer of small networks, with whole batches only: five an epoch."""
    g, d = networks or mlp(4 if loss == "began" else 1)
    made = small_game(loss, penalty, (g.to("cupy"), d.to("cupy")), **(game or {}))
    return small_trainer(folder, made, images(5 * BATCH), **settings)


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


def eagerly(run):
    """The Trainer, which then multiplies matrices like one that records steps, but never does."""
    run.recorded.why = "it is not to"
    return run


def both(make=on_gpu, steps=16, meddle=None, **settings):
    """What an eager run and a recorded one come to, and the second run."""
    eager, recorded = eagerly(make(capture=True, **settings)), make(capture=True, **settings)
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
        g, d = convolutions(spectral)
        return on_gpu(networks=(g, InstanceNoise(d, 0.1, rng=2)), **settings)

    check(make)


def test_steps_of_d_that_belong_to_two_epochs_are_eager():
    eager, recorded, run = both(steps=30, d_steps=3)
    assert run.recorded.why is None
    assert 10 < run.recorded.replays < 20  # 3 of 5 steps have their three batches in one epoch
    assert differences(eager, recorded) == []


def test_all_that_a_run_writes(tmp_path):
    eagerly(on_gpu(tmp_path / "eager", penalty="spectral", capture=True)).run(steps=30)
    run = on_gpu(tmp_path / "recorded", penalty="spectral", capture=True)
    run.run(steps=30)
    assert run.recorded.replays >= 26
    assert differences(what_is_left(tmp_path / "eager"), what_is_left(tmp_path / "recorded")) == []


@pytest.mark.parametrize("flags", [(True, True), (False, True), (True, False)])
def test_a_run_that_was_stopped_and_went_on(flags, tmp_path):
    """flags: whether the run records steps before the stops, and after them."""
    on_gpu(tmp_path / "whole").run(steps=40)
    kinds = iter([flags[0], *[flags[1]] * 3])
    make = lambda folder, resume=False: on_gpu(folder, capture=next(kinds), resume=resume)
    run_with_stops(make, tmp_path / "stopped", [12, 27], steps=40)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "stopped")) == []


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


class Remembers(Term):
    """L_G gets what the mean fake was two steps before: an array goes from one attribute to another."""

    def __init__(self, *names):
        for name in names:
            setattr(self, name, backend.get("cupy").xp.zeros(4, "float32"))

    def generator(self, game, real, fake, rng):
        before, self.before, self.now = self.before, self.now, fake.data.mean(axis=0)
        return (constant(before) * fake).mean()


@pytest.mark.parametrize("names", [("before", "now"), ("now", "before")])
def test_attributes_that_hand_on_their_arrays(names):
    check(lambda **settings: on_gpu(game={"terms": [Remembers(*names)]}, **settings))


class RemembersInAList(Term):
    """The same, in a list: there nobody brings arrays back."""

    def __init__(self):
        self.means = [backend.get("cupy").xp.zeros(4, "float32")]

    def generator(self, game, real, fake, rng):
        before, self.means[0] = self.means[0], fake.data.mean(axis=0)
        return (constant(before) * fake).mean()


class Counts(Term):
    """Has a number that grows."""

    number = 0

    def constrain(self, d):
        self.number += 1


class Reads(Term):
    """Looks at a number, after D has moved."""

    def constrain(self, d):
        float(d.parameters()[0].data.sum())


class Fails(Term):
    """Fails while it is recorded, after D has moved."""

    def constrain(self, d):
        if backend.get("cupy").xp.cuda.get_current_stream().is_capturing():
            raise MemoryError("no room")


@pytest.mark.parametrize(
    ("term", "why"),
    [
        (RemembersInAList, "term0.means changes from step to step"),
        (Counts, "term0.number changes from step to step"),
        (Reads, ".*capturing.*"),
        (Fails, "no room"),
    ],
)
def test_what_cannot_be_recorded_runs_eagerly(term, why):
    make = lambda: on_gpu(penalty="spectral", game={"terms": [term()]}, capture=True)
    run, lines = make(), []
    run.recorded.log = lines.append
    eager, recorded = trace(eagerly(make()), 24), trace(run, 24)
    assert [bool(re.fullmatch(f"capture: {why}; running eagerly", line)) for line in lines] == [True]
    assert run.recorded.replays == 0
    assert run.recorded.why is not None
    assert differences(eager, recorded) == []


OBSTACLES = {
    "before_step may change something in each step": {"before_step": lambda step: None},
    "20 images make no batches of the same size; choose one that divides 20": {"batch": 3},
    "the learning rate of g_optimizer follows a schedule": {
        "game": {"optimizer": lambda params: optim.Adam(params, lambda step: 1e-3 / (1 + step))}
    },
}


@pytest.mark.parametrize("why", OBSTACLES)
def test_obstacles_that_are_known_before(why, tmp_path, capsys):
    on_gpu(tmp_path / "eager", **OBSTACLES[why]).run(steps=8)
    run = on_gpu(tmp_path / "recorded", capture=True, **OBSTACLES[why])
    run.quiet = False
    run.run(steps=8)
    assert f"capture: {why}; running eagerly" in capsys.readouterr().out.splitlines()
    assert run.recorded.replays == 0
    assert differences(what_is_left(tmp_path / "eager"), what_is_left(tmp_path / "recorded")) == []


@pytest.mark.parametrize("asked", [False, True])
def test_the_option_of_the_programs(asked, tmp_path):
    parser = command_line.arguments("A program.", "program", epochs=1, images=False)
    options = command_line.parse(parser, ["--quiet", "--out", str(tmp_path / "run"), *["--capture"] * asked])
    game = command_line.game(options, *mlp(), lr=1e-3, betas=(0.5, 0.999))
    run = command_line.trainer(options, game, images(), noise=3, batch=BATCH)
    assert (run.recorded is not None) == asked
    run.run(steps=2)
    assert command_line.parse(
        parser, ["--resume", str(tmp_path / "run"), "--capture"]
    ).capture  # decided then


# ----------------------------------------------------------------------------------- and it is noticed


def nothing_brought_back(monkeypatch):
    monkeypatch.setattr(recorded_steps, "_bring_back", lambda several: None)


def clock_stands_still(monkeypatch):
    real = recorded_steps._Clock.set
    monkeypatch.setattr(recorded_steps._Clock, "set", lambda self, number: real(self, 3))


def order_stays(monkeypatch):
    real = recorded_steps._Clock.set

    def set_without_order(self, number):
        self._epochs = {data: number // len(data) for data in self._epochs}
        real(self, number)

    monkeypatch.setattr(recorded_steps._Clock, "set", set_without_order)


def host_does_not_count(monkeypatch):
    monkeypatch.setattr(recorded_steps._Home, "has_moved", lambda self: None)


@pytest.mark.mutant
@pytest.mark.parametrize(
    "mutant", [nothing_brought_back, clock_stands_still, order_stays, host_does_not_count]
)
def test_mutants_are_caught(mutant, monkeypatch):
    mutant(monkeypatch)
    eager, recorded, run = both()
    assert run.recorded.replays > 10
    assert differences(eager, recorded) != []


def test_numbers_that_nobody_looks_at_are_caught(monkeypatch):
    monkeypatch.setattr(recorded_steps, "_plain_numbers", lambda play: {})
    eager, recorded, _ = both(meddle=halve_the_rate)
    assert differences(eager, recorded) != []


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


def another_rule(run):
    run.play.game.reuse_fakes = False


def jump(run):
    run.step += 16


@pytest.mark.parametrize(
    "meddle",
    [halve_the_rate, other_weights, one_weight, other_memory_of_adam, freeze, hold, another_rule, jump],
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
    """Few, and Python neither waits, sends nor reads. A recorded step is two: its number, and all of it."""
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


def test_channels_stay_last_in_memory():
    """Activations and dropout keep the order of images, so that convolutions need not copy them."""
    rng = np.random.default_rng(0)
    layers = [nn.Tanh(), nn.LeakyReLU(0.2), nn.ReLU(), nn.Sigmoid(), nn.Softplus(), nn.Dropout(0.5, rng=rng)]
    convolution = nn.Conv2d(3, 4, 3, rng=rng).to("cupy")
    x = backend.get("cupy").from_numpy(rng.standard_normal((2, 3, 6, 6), dtype="float32"))
    y = convolution(Tensor(x))
    for layer in layers:
        assert layer(y).data.strides == y.data.strides, layer


def test_a_cublas_handle_goes_with_its_owner():
    library, destroyed = graphs._cublas(), []

    class Library:
        def __getattr__(self, name):
            return getattr(library, name)

    def destroy(handle):
        destroyed.append(library.cublasDestroy_v2(handle))

    watched = Library()
    watched.cublasDestroy_v2 = destroy
    blas = graphs.Blas(watched)
    assert destroyed == []
    del blas
    gc.collect()
    assert destroyed == [0]
