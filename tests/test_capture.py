"""Recorded steps: replayed or eager, a run is the same to the last bit; what cannot be recorded runs eagerly.

With CuPy, since only a GPU can record; where there is none, by tests/cupy_on_cpu.
"""

import ctypes
import dataclasses
import re

import numpy as np
import pytest
from small_runs import (
    BATCH,
    differences,
    images,
    mlp,
    run_with_stops,
    small_game,
    small_trainer,
    what_is_left,
)

import minigan as mg
from minigan import nn, viz
from minigan.errors import BackendError
from minigan.gan import LOSSES, PENALTIES, FeatureMatching, InstanceNoise, Unrolled, by_name
from minigan.gan.term import Term
from minigan.gpu import recorded_steps
from minigan.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from minigan.training import command_line
from minigan.training import draws as noise_module

STEPS = 100
EPOCH = 5  # batches


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    """Without curves that nobody looks at, and without waiting for the disk."""
    monkeypatch.setattr(viz, "curves", lambda path, *args, **options: path.write_bytes(b""))
    monkeypatch.setattr("os.fsync", lambda file: None)


def cupy_trainer(
    folder=None, networks=None, loss="non-saturating", penalty="none", game=None, where="cupy", **settings
):
    """A Trainer, on a GPU if nothing else is said. Without one, the test is skipped."""
    try:
        mg.backend.get(where)
    except BackendError as error:
        pytest.skip(str(error))
    g, d = networks or mlp(4 if loss == "began" else 1)
    g.to(where)
    d.to(where)
    made = small_game(loss, penalty, (g, d), **(game or {}))
    return small_trainer(folder, made, images(EPOCH * BATCH), **settings)


def trace(run, steps=STEPS):
    """{what: numbers} of a run: each step's report, and in the end all that a checkpoint would keep."""
    found = {}
    for _ in range(steps):
        report = run.train_step()
        found[f"step {run.step}"] = np.array(
            [float(value) for value in dataclasses.astuple(report)]
        ).tobytes()
    for part, owner in run._parts().items():
        found |= {f"{part}.{name}": np.array(value).tobytes() for name, value in owner.state_dict().items()}
    return found


def eagerly(run):
    """A run with capture=True that never records: it multiplies like those that do, to the last bit."""
    run.capture.why = "it is not to"
    return run


def both(make=cupy_trainer, steps=STEPS, **settings):
    """What an eager run and one with capture=True come to, and the second run."""
    eager, captured = (make(capture=True, **settings) for _ in range(2))
    captured.capture.tell = lambda line: None
    return trace(eagerly(eager), steps), trace(captured, steps), captured


def check(make=cupy_trainer, steps=25, **settings):
    """The two are the same, and nearly all steps were replayed."""
    eager, captured, run = both(make, steps, **settings)
    assert run.capture.why is None
    assert run.capture.replays >= steps - 5
    assert differences(eager, captured) == []


# -------------------------------------------------------------------------- the same, to the last bit


@pytest.mark.parametrize("penalty", ["none", "gp"])
@pytest.mark.parametrize("kind", ["mlp", "convolutions"])
def test_on_every_backend(kind, penalty, backend):
    """With --backend cupy, this is the test of gpu/graphs.py on a GPU."""

    def make(**settings):
        networks = None
        if kind == "convolutions":
            g, d = convolutions(False)
            networks = g, nn.Sequential(*[layer for layer in d if not isinstance(layer, nn.BatchNorm2d)])
        return cupy_trainer(networks=networks, penalty=penalty, where=backend, **settings)

    eager_run, run = eagerly(make(capture=True)), make(capture=True)
    steps = STEPS if backend == "cupy" else 10
    eager, captured = trace(eager_run, steps), trace(run, steps)
    assert (run.capture.why is not None) == (backend != "cupy"), run.capture.why
    assert eager_run.capture.replays == 0
    assert run.capture.replays == (STEPS - 4 if backend == "cupy" else 0)
    assert differences(eager, captured) == []


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss):
    check(loss=loss)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty(penalty):
    check(loss="wasserstein", penalty=penalty, simultaneous=penalty == "consensus")


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: SGD(params, 1e-2, momentum=0.9),
        lambda params: RMSprop(params, 1e-3, centered=True),
        lambda params: AdamW(params, 1e-3, weight_decay=0.1),
    ],
    ids=["SGD", "RMSprop", "AdamW"],
)
def test_every_optimiser(optimizer):
    check(game={"optimizer": optimizer})


RULES = {
    "new fakes": {"reuse_fakes": False},
    "separate": {"separate": True},
    "feature matching": {"terms": [FeatureMatching]},  # of D's first layers, see below
    "unrolled": {"unrolled": Unrolled(2)},
    "unrolled by SGD": {"unrolled": Unrolled(2, optimizer="sgd")},
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule):
    def make(**settings):
        g, d = mlp()
        rules = dict(RULES[rule])
        if "terms" in rules:
            rules["terms"] = [FeatureMatching(lambda x: d[1](d[0](x)))]
        return cupy_trainer(networks=(g, d), game=rules, **settings)

    check(make)


def convolutions(spectral):
    """Images of 2 x 2 pixels. Statistics and dropout in both."""
    rng = np.random.default_rng(0)
    g = nn.Sequential(
        nn.Linear(3, 12, rng=rng), nn.Reshape(3, 2, 2), nn.BatchNorm2d(3), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(3, 2, 3, 1, 1, rng=rng), nn.BatchNorm2d(2), nn.ReLU(),
        nn.Conv2d(2, 1, 3, 1, 1, rng=rng), nn.Tanh(), nn.Flatten(),
    )  # fmt: skip
    d = nn.Sequential(
        nn.Reshape(1, 2, 2), nn.Conv2d(1, 4, 3, 1, 1, rng=rng), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 3, 2, rng=rng), nn.Dropout(0.2, rng=rng), nn.Flatten(), nn.Linear(3, 1, rng=rng),
    )  # fmt: skip
    if spectral:
        by_name.penalty("spectral", d, 1)
    return g, d


@pytest.mark.parametrize("spectral", [False, True])
def test_convolutions_and_all_that_a_run_writes(spectral, tmp_path):
    for name in ("eager", "captured"):
        g, d = convolutions(spectral)
        players = g, InstanceNoise(d, 0.1, rng=2)
        run = cupy_trainer(tmp_path / name, networks=players, capture=True)
        (eagerly(run) if name == "eager" else run).run(steps=40)
    assert run.capture.why is None
    assert run.capture.replays == 36
    assert differences(what_is_left(tmp_path / "eager"), what_is_left(tmp_path / "captured")) == []


def test_steps_of_d_that_belong_to_two_epochs_are_eager():
    eager, captured, run = both(steps=40, d_steps=3)
    assert run.capture.why is None
    assert 15 < run.capture.replays < 25  # 3 of 5 steps have their three batches in one epoch
    assert differences(eager, captured) == []


def test_uniform_noise_and_no_moving_average():
    check(noise_kind="uniform", ema=0)


# ---------------------------------------------------------------- stopped, gone on with, meddled with


@pytest.mark.parametrize("flags", [(True, True), (False, True), (True, False)])
def test_a_run_that_was_stopped_and_went_on(flags, tmp_path):
    """flags: whether the run captures before the stops, and after them."""
    cupy_trainer(tmp_path / "whole").run(steps=STEPS)
    kinds = iter([flags[0], *[flags[1]] * 5])

    def make(folder, resume=False):
        return cupy_trainer(folder, capture=next(kinds), resume=resume)

    run_with_stops(make, tmp_path / "stopped", [17, 52], steps=STEPS)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "stopped")) == []


def meddled(meddle, every=10, steps=60):
    """As both(), with meddle(trainer, step) every ten steps."""

    def make(**settings):
        run = cupy_trainer(**settings)
        train_step = run.train_step

        def step():
            if run.step % every == every - 1:
                meddle(run, run.step)
            return train_step()

        run.train_step = step
        return run

    return both(make, steps)


def halve_the_rate(run, step):
    run.game.g_optimizer.lr = run.game.g_optimizer.lr / 2


def other_weights(run, step):
    weights = run.game.g.state_dict()
    run.game.g.load_state_dict({name: value * 2 for name, value in weights.items()})


def one_weight(run, step):
    p = run.game.d.parameters()[0]
    p.data = p.data * 0.5


def other_memory_of_adam(run, step):
    state = run.game.d_optimizer.state_dict()
    state["counts"] = state["counts"] + 7
    run.game.d_optimizer.load_state_dict(state)


def freeze(run, step):
    run.game.g.parameters()[0].requires_grad_(False)
    run.game.g.parameters()[0].requires_grad_(True)


def hold(run, step):
    run.held = [p.data for p in run.game.g.parameters()]


def jump(run, step):
    run.step += 3 * EPOCH + 1


@pytest.mark.parametrize(
    "meddle", [halve_the_rate, other_weights, one_weight, other_memory_of_adam, freeze, hold, jump]
)
def test_what_is_changed_between_two_steps_counts(meddle):
    eager, captured, run = meddled(meddle)
    assert run.capture.replays > 10
    assert run.capture.why is None
    assert differences(eager, captured) == []


def test_a_report_tells_of_the_step():
    runs = cupy_trainer(), cupy_trainer(capture=True)
    for _ in range(10):
        told = [[float(value) for value in dataclasses.astuple(run.train_step())] for run in runs]
        assert told[0] == told[1]
    assert runs[1].capture.replays > 5


# ------------------------------------------------------------------- what depends on the host is caught


def host_noise(monkeypatch):
    """The noise of a recorded step is that of the recording for ever."""
    real = noise_module.Noise.at
    monkeypatch.setattr(noise_module.Noise, "at", lambda self, n, count=None: real(self, host(n), count))


def host_drawing(monkeypatch):
    real = noise_module.DeviceGenerator.__init__
    monkeypatch.setattr(
        noise_module.DeviceGenerator, "__init__",
        lambda self, seed, purpose, step, backend: real(
            self, seed, purpose, host(step) if purpose[0] == "d" else step, backend
        ),
    )  # fmt: skip


def host_batches(monkeypatch):
    real = mg.data.Batches.at_turn
    monkeypatch.setattr(mg.data.Batches, "at_turn", lambda self, turn: real(self, host(turn)))


def host(number):
    """A number of the device, read when the step is recorded. A GPU would not allow that."""
    return ctypes.c_int64.from_address(number.data.ptr).value if hasattr(number, "data") else number


def host_count(monkeypatch):
    monkeypatch.setattr(Adam, "count_at", lambda self, there: None)


def host_order(monkeypatch):
    real = mg.data.Batches.turn

    def turn(self, step):
        self._recorded = False
        return real(self, step)

    monkeypatch.setattr(mg.data.Batches, "turn", turn)


def nothing_brought_back(monkeypatch):
    monkeypatch.setattr(recorded_steps, "_bring_back", lambda several: None)


def clock_stands_still(monkeypatch):
    real = recorded_steps._Recorded.make

    def make(self, recorder, play):
        to_device, self._to_device = self._to_device, lambda numbers: to_device([0] * len(numbers))
        real(self, recorder, play)
        self._to_device = to_device

    monkeypatch.setattr(recorded_steps._Recorded, "make", make)


def host_does_not_count(monkeypatch):
    monkeypatch.setattr(Adam, "has_moved", lambda self, steps, counts: None)


MUTANTS = [
    host_noise, host_drawing, host_batches, host_count, nothing_brought_back, clock_stands_still,
    host_does_not_count,
]  # fmt: skip


@pytest.mark.mutant
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch, counting):  # where the memory of the device can be read
    mutant(monkeypatch)
    eager, captured, run = both(steps=30)
    assert run.capture.replays > 20
    assert differences(eager, captured) != []


def test_memory_that_nobody_keeps_is_caught(monkeypatch):
    host_order(monkeypatch)
    eager, captured, run = both(steps=30)
    assert run.capture.replays > 10
    assert differences(eager, captured) != []


def test_numbers_that_nobody_looks_at_are_caught(monkeypatch):
    monkeypatch.setattr(recorded_steps, "_plain_numbers", lambda game: {})
    eager, captured, _ = meddled(halve_the_rate)
    assert differences(eager, captured) != []


# ------------------------------------------------------------------------ where it is not possible


def told_by(run, capsys, steps=30):
    run.quiet = False
    run.run(steps=steps)
    return [line for line in capsys.readouterr().out.splitlines() if "capture" in line]


def test_numpy_runs_eagerly(tmp_path, capsys):
    small_trainer(tmp_path / "eager").run(steps=10)
    lines = told_by(small_trainer(tmp_path / "numpy", capture=True), capsys, 10)
    assert lines == ["capture: the backend numpy launches nothing that could be recorded; running eagerly"]
    assert differences(what_is_left(tmp_path / "eager"), what_is_left(tmp_path / "numpy")) == []


def scheduled(params):
    return Adam(params, lambda step: 1e-3 / (1 + step))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"before_step": lambda step: None}, "before_step may change something in each step"),
        ({"batch": BATCH - 1}, r"\d+ images make no batches of the same size; choose one that divides \d+"),
        ({"game": {"optimizer": scheduled}}, "the learning rate of G follows a schedule"),
        ({"game": {"unrolled": Unrolled(2, remember=True)}}, r"Unrolled\(remember=True\) needs .*"),
    ],
)
def test_obstacles_that_are_known_before(settings, why, tmp_path, capsys):
    cupy_trainer(tmp_path / "eager", **settings).run(steps=20)
    run = cupy_trainer(tmp_path / "captured", capture=True, **settings)
    (line,) = told_by(run, capsys, 20)
    assert re.fullmatch(f"capture: {why}; running eagerly", line)
    assert run.capture.replays == 0
    assert differences(what_is_left(tmp_path / "eager"), what_is_left(tmp_path / "captured")) == []


class Reads(Term):
    """Asks the device for a number, after D has moved."""

    def constrain(self, d):
        float(d.parameters()[0].data.sum())


class Fails(Term):
    """Fails while it is recorded, after D has moved."""

    def constrain(self, d):
        if mg.backend.get("cupy").xp.cuda.get_current_stream().is_capturing():
            raise MemoryError("no room")


@pytest.mark.parametrize(
    ("term", "why"),
    [(Reads(), ".* is capturing, so D2H transfers are disallowed"), (Fails(), "no room")],
)
def test_a_step_that_cannot_be_recorded_leaves_no_trace(term, why, tmp_path, capsys):
    make = lambda folder, **settings: cupy_trainer(
        folder, loss="wasserstein", penalty="spectral", game={"terms": [term]}, **settings
    )
    eagerly(make(tmp_path / "eager", capture=True)).run(steps=30)
    run = make(tmp_path / "captured", capture=True)
    (line,) = told_by(run, capsys)
    assert re.fullmatch(f"capture: {why}; running eagerly", line)
    assert run.capture.replays == 0
    assert differences(what_is_left(tmp_path / "eager"), what_is_left(tmp_path / "captured")) == []


def test_a_cumulative_batch_norm_counts_on_the_host(capsys):
    g = nn.Sequential(nn.Linear(3, 4, rng=0), nn.BatchNorm1d(4, momentum=None), nn.Tanh())
    run = cupy_trainer(networks=(g, mlp()[1]), capture=True)
    (line,) = told_by(run, capsys)
    assert "capturing" in line


class Counts(Term):
    """Has a number that grows."""

    def __init__(self):
        self.number = 0

    def constrain(self, d):
        self.number += 1


class Fading(Optimizer):
    """A rule of somebody else's, whose steps become smaller."""

    def __init__(self, params):
        super().__init__(params, 1e-2, [])

    def _update(self, p, g, lr, step, *memories):
        p -= lr / step * g


def test_an_optimiser_that_counts_on_the_host(capsys):
    make = lambda **settings: cupy_trainer(game={"optimizer": Fading}, **settings)
    (line,) = told_by(make(capture=True), capsys)
    assert line == "capture: Fading: its rule looks at the count of steps, in Python; running eagerly"
    eager, captured, _ = both(make, 20)
    assert differences(eager, captured) == []


class Remembers(Term):
    """L_G gets what the mean fake was two steps before. An array goes from one attribute to another."""

    def __init__(self, *names):
        for name in names:
            setattr(self, name, mg.Tensor(np.zeros(4, "float32"), backend="cupy").data)

    def generator(self, game, real, fake, rng):
        before, self.before, self.now = self.before, self.now, fake.data.mean(axis=0)
        return (mg.tensor.constant(before) * fake).mean()


@pytest.mark.parametrize("names", [("before", "now"), ("now", "before")])
@pytest.mark.parametrize("d_steps", [1, 3])
def test_attributes_that_hand_on_their_arrays(names, d_steps, cupy):
    make = lambda **settings: cupy_trainer(game={"terms": [Remembers(*names)]}, **settings)
    eager, captured, run = both(make, 30, d_steps=d_steps)
    assert run.capture.replays > 10
    assert differences(eager, captured) == []


def test_another_rule_is_another_recording():
    def change(run, step):
        run.game.reuse_fakes = False
        if step > 20:
            run.game.loss = by_name.loss("hinge")

    eager, captured, run = meddled(change)
    assert run.capture.replays > 20
    assert differences(eager, captured) == []


def test_numbers_that_never_rest(capsys):
    run = cupy_trainer(game={"terms": [Counts()]}, capture=True)
    assert told_by(run, capsys, steps=50) == [
        "capture: terms.0.number changes from step to step; running eagerly"
    ]
    assert run.capture.replays == 0


def test_parameters_that_came_later():
    """Adam has one count on the device, so all parameters that move must have moved equally often."""
    run = cupy_trainer(capture=True)
    optimizer = run.game.g_optimizer
    optimizer._counts[0] = 5
    run.capture.tell = lambda line: None
    for _ in range(10):
        run.train_step()
    assert run.capture.why == "Adam: its parameters have not all made the same number of steps"
    assert optimizer.counts[0] == 15 and optimizer.counts[1] == 10


# ------------------------------------------------------------------------------- and it is quicker


def test_a_replayed_step_is_a_launch_and_what_is_outside(counting):
    run = cupy_trainer(capture=True)
    run.run(steps=6)
    with counting() as counts:
        for _ in range(EPOCH - 2):
            run.train_step()
    assert counts.of("graph_launch").total() == EPOCH - 2
    assert counts.launches == 2 * (EPOCH - 2) and counts.launched["averages"] == EPOCH - 2
    assert (counts.to_device, counts.to_host, counts.waits) == (0, 0, 0)


@pytest.mark.parametrize("asked", [False, True])
def test_the_option_of_the_programs(asked, tmp_path):
    parser = command_line.arguments("A program.", "program", epochs=1, images=False)
    options = command_line.parse(parser, ["--quiet", "--out", str(tmp_path / "run"), *["--capture"] * asked])
    game = command_line.game(options, *mlp(), lr=1e-3, betas=(0.5, 0.999))
    run = command_line.trainer(options, game, images(), noise=3, batch=BATCH)
    assert (run.capture is not None) == asked
    run.run(steps=2)
    later = command_line.parse(parser, ["--resume", str(tmp_path / "run"), "--capture"])  # decided then
    assert later.capture
