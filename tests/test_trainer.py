"""Trainer: a run that was stopped and went on is the run that was not; what is wrong is said."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import (
    BATCH,
    COUNT,
    NOISE,
    PIXELS,
    all_bytes,
    differences,
    images,
    mlp,
    press,
    run_with_stops,
    small_game,
    small_trainer,
    what_is_left,
)
from small_runs import networks as networks_of

import minigan as mg
from minigan import Tensor, io, nn, viz
from minigan.data.batches import Batches
from minigan.gan import (
    LOSSES,
    PENALTIES,
    FeatureMatching,
    InstanceNoise,
    NonFiniteError,
    Unrolled,
    alternating_step,
)
from minigan.optim import SGD, Adam, AdamW, RMSprop, schedules
from minigan.streams import stream
from minigan.training import Draws, Interrupted, RunError, load_generator
from minigan.training.progress import Progress


@pytest.fixture
def in_haste(monkeypatch):
    leave_out(monkeypatch)


def leave_out(monkeypatch):
    """What takes long in a short run: curves that nobody looks at, and waiting for the disk."""
    monkeypatch.setattr(viz, "curves", lambda path, *args, **options: Path(path).write_bytes(b""))
    monkeypatch.setattr(os, "fsync", lambda file: None)


# ----------------------------------------------------------------- stopped, and as if it never had been


def convolutional():
    rng = np.random.default_rng(0)
    g = nn.Sequential(
        nn.Linear(NOISE, 4 * 2 * 2, bias=False, rng=rng),
        nn.Reshape(4, 2, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1, rng=rng),
        nn.Tanh(),
    )
    d = nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=2, padding=1, rng=rng),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 1, bias=False, rng=rng),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 1, rng=rng),
    )
    return g, d


def noisy():
    g, d = mlp()
    return g, InstanceNoise(d, 0.1, rng=1)


def drawing_generator():
    """A G that draws random numbers of its own, beside a D that does."""
    rng = np.random.default_rng(0)
    g = nn.Sequential(nn.Linear(NOISE, 8, rng=rng), nn.Dropout(0.5, rng=rng), nn.Linear(8, PIXELS, rng=rng))
    return g, mlp()[1]


def many_in_a_batch():
    rng = np.random.default_rng(0)
    d = nn.Sequential(
        nn.Linear(PIXELS, 6, rng=rng), nn.MinibatchDiscrimination(6, 2, 2, rng=rng), nn.Linear(8, 1, rng=rng)
    )
    return mlp()[0], d


def matching():
    g, d = mlp()
    return small_game(networks=(g, d), terms=[FeatureMatching(d[:2])])


def clipped_critic():
    rmsprop = lambda params: RMSprop(params, 1e-3, centered=True, momentum=0.5)
    return small_game("wasserstein", "clip", optimizer=rmsprop)


def scheduled(schedule):
    return lambda: small_game(optimizer=lambda params: Adam(params, schedule))


SQUARES = {"data": images(shape=(1, 4, 4))}

# name: (makes a Game, settings of the Trainer)
GAMES = {
    **{f"loss {name}": (lambda name=name: small_game(name), {}) for name in LOSSES},
    **{
        f"penalty {name}": (
            lambda name=name: small_game("non-saturating", name),
            {"simultaneous": name == "consensus"},
        )
        for name in PENALTIES
    },
    "began with gp": (lambda: small_game("began", "gp"), {}),
    "wgan": (clipped_critic, {"d_steps": 3}),
    "wgan-gp": (lambda: small_game("wasserstein", "gp"), {"d_steps": 3}),
    "sgd": (lambda: small_game(optimizer=lambda p: SGD(p, 0.1)), {}),
    "momentum": (lambda: small_game(optimizer=lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True)), {}),
    "rmsprop": (lambda: small_game(optimizer=lambda p: RMSprop(p, 1e-2)), {}),
    "adamw": (lambda: small_game(optimizer=lambda p: AdamW(p, 1e-2)), {}),
    "linear": (scheduled(schedules.linear(1e-2, 12)), {}),
    "cosine": (scheduled(schedules.warm_up(schedules.cosine(1e-2, 10), 4)), {}),
    "own schedule": (scheduled(lambda step: 1e-2 / (1 + step)), {}),
    "d_steps 3": (small_game, {"d_steps": 3}),
    "new fakes": (lambda: small_game(reuse_fakes=False), {"d_steps": 2}),
    "simultaneous": (small_game, {"simultaneous": True}),
    "unrolled sgd": (lambda: small_game(unrolled=Unrolled(2, optimizer="sgd", lr=0.1)), {}),
    "unrolled adam": (lambda: small_game(unrolled=Unrolled(2)), {"d_steps": 2}),
    "unrolled at once": (lambda: small_game(unrolled=Unrolled(2)), {"simultaneous": True}),
    "feature matching": (matching, {}),
    "instance noise": (lambda: small_game(networks=noisy()), {"d_steps": 2}),
    "dropout in G": (lambda: small_game(networks=drawing_generator()), {}),
    "minibatches": (lambda: small_game(networks=many_in_a_batch()), {}),
    "convolutions": (lambda: small_game(networks=convolutional()), {"threads": 1, **SQUARES}),
    "two threads": (lambda: small_game("hinge", "spectral", convolutional()), {"threads": 2, **SQUARES}),
    "separate": (lambda: small_game(separate=True), {}),
    "uniform": (small_game, {"noise_kind": "uniform"}),
    "no average": (small_game, {"ema": 0}),
    "float64": (lambda: small_game(networks=mlp(dtype="float64")), {"data": images(dtype="float64")}),
    "one batch": (small_game, {"batch": COUNT}),
    "larger batch": (small_game, {"batch": 10 * COUNT}),
}


@pytest.mark.parametrize("name", GAMES)
def test_a_run_that_was_interrupted_ends_like_one_that_was_not(name, tmp_path, in_haste):
    make_game, settings = GAMES[name]

    def make(folder, resume=False):
        return small_trainer(folder, make_game(), resume=resume, **settings)

    untrained = networks_of(make(None))
    before = {who: network.state_dict() for who, network in untrained.items()}
    make(tmp_path / "whole").run(steps=7)
    trainer = run_with_stops(make, tmp_path / "parts", [3], steps=7)
    assert trainer.step == 7
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []
    for who, network in networks_of(trainer).items():  # somebody who never moved would pass, too
        moved = [not np.array_equal(value, before[who][name]) for name, value in network.state_dict().items()]
        assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("d_steps", [1, 3])
def test_it_may_be_interrupted_in_any_step(d_steps, tmp_path, in_haste):
    def make(folder, resume=False):
        return small_trainer(folder, small_game("began"), d_steps=d_steps, resume=resume)

    make(tmp_path / "whole").run(2)
    whole = what_is_left(tmp_path / "whole")
    last = math.ceil(10 / d_steps)
    assert [line["step"] for line in whole["metrics"]] == [math.ceil(5 / d_steps), last]
    for step in range(1, last + 1):
        run_with_stops(make, tmp_path / str(step), [step], epochs=2)
        assert differences(whole, what_is_left(tmp_path / str(step))) == [], f"interrupted in step {step}"


@given(st.data())
def test_it_may_be_interrupted_often(data):
    images_of, batch = data.draw(st.integers(4, 20), "images"), data.draw(st.integers(3, 12), "batch")
    d_steps, epochs = data.draw(st.integers(1, 4), "d_steps"), data.draw(st.integers(1, 3), "epochs")
    reuse, ema = data.draw(st.booleans(), "reuse_fakes"), data.draw(st.sampled_from([0, 0.5, 0.998]), "ema")
    loss_name = data.draw(st.sampled_from(sorted(LOSSES)), "loss")
    penalty_name = data.draw(st.sampled_from(["none", "gp", "dragan", "r1", "clip", "spectral"]), "penalty")
    last = math.ceil(epochs * math.ceil(images_of / batch) / d_steps)
    stops = data.draw(st.lists(st.integers(1, last), max_size=3, unique=True).map(sorted), "stops")

    def make(folder, resume=False):
        game = small_game(loss_name, penalty_name, reuse_fakes=reuse)
        settings = {"batch": batch, "d_steps": d_steps, "ema": ema, "resume": resume}
        return small_trainer(folder, game, images(images_of), **settings)

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        leave_out(patch)
        make(Path(folder, "whole")).run(epochs)
        run_with_stops(make, Path(folder, "parts"), stops, epochs=epochs)
        assert differences(what_is_left(Path(folder, "whole")), what_is_left(Path(folder, "parts"))) == []


def test_something_that_changes_from_step_to_step(tmp_path, in_haste):
    """It is told the number of the step, and a run that goes on tells it the right one."""
    seen = []

    def make(folder, resume=False):
        game = small_game(networks=noisy())

        def fade(step):
            seen.append(step)
            game.d.sigma = 1 / (1 + step)

        return small_trainer(folder, game, before_step=fade, resume=resume)

    make(tmp_path / "whole").run(2)
    assert seen == list(range(10))
    run_with_stops(make, tmp_path / "parts", [3, 6], epochs=2)
    assert seen == [*range(10), *range(10)]
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []


def test_layers_of_the_usual_size(tmp_path, in_haste):
    """The matrix products of larger layers are split up in other ways than those of small ones."""

    def make(folder, resume=False):
        rng = np.random.default_rng(0)
        g = nn.Sequential(nn.Linear(100, 256, rng=rng), nn.ReLU(), nn.Linear(256, 784, rng=rng), nn.Tanh())
        d = nn.Sequential(nn.Linear(784, 256, rng=rng), nn.LeakyReLU(0.2), nn.Linear(256, 1, rng=rng))
        data = images(256, (784,))
        return small_trainer(folder, small_game(networks=(g, d)), data, noise=100, batch=64, resume=resume)

    make(tmp_path / "whole").run(2)
    run_with_stops(make, tmp_path / "parts", [3], epochs=2)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []


@pytest.mark.parametrize("networks", [mlp, convolutional])
def test_on_every_backend(networks, backend, tmp_path, in_haste):
    def make(folder, resume=False):
        g, d = networks()
        game = small_game(networks=(g.to(backend), d.to(backend)))
        data = images(shape=(PIXELS,) if networks is mlp else (1, 4, 4))
        return small_trainer(folder, game, data, resume=resume)

    make(tmp_path / "whole").run(2)
    run_with_stops(make, tmp_path / "parts", [3], epochs=2)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []


def test_with_its_curves(tmp_path):
    small_trainer(tmp_path / "whole").run(2)
    run_with_stops(
        lambda folder, resume: small_trainer(folder, resume=resume), tmp_path / "parts", [7], epochs=2
    )
    whole = what_is_left(tmp_path / "whole")
    assert len(whole["curves.png"]) > 1000
    assert differences(whole, what_is_left(tmp_path / "parts")) == []


@pytest.mark.parametrize("d_steps", [1, 3])
@pytest.mark.parametrize("first", [{"epochs": 1}, {"epochs": 2}, {"steps": 1}, {"steps": 4}])
def test_a_run_may_be_prolonged(first, d_steps, tmp_path, in_haste):
    """That it ended at first, in the middle of an epoch perhaps, makes no difference later."""
    small_trainer(tmp_path / "whole", d_steps=d_steps).run(3)
    small_trainer(tmp_path / "parts", d_steps=d_steps).run(**first)
    small_trainer(tmp_path / "parts", d_steps=d_steps, resume=True).run(3)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []


def test_the_same_trainer_may_go_on(tmp_path, in_haste):
    small_trainer(tmp_path / "whole").run(3)
    trainer = small_trainer(tmp_path / "parts")
    trainer.run(1)
    press(trainer, 8)
    with pytest.raises(Interrupted):
        trainer.run(3)
    trainer.run(3)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []


def test_a_run_that_is_done_stays_as_it_is(tmp_path, in_haste):
    small_trainer(tmp_path).run(2)
    before = what_is_left(tmp_path)
    for epochs in (2, 1):
        small_trainer(tmp_path, resume=True).run(epochs)
        assert differences(before, what_is_left(tmp_path)) == []


def test_another_seed_is_another_run(tmp_path, in_haste):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        small_trainer(tmp_path / name, seed=seed).run(1)
    a, b, c = (what_is_left(tmp_path / name) for name in "abc")
    assert differences(a, b) == []
    assert {"metrics", "epoch_0000.png", "epoch_0001.png", "g.0.weight", "d.0.weight"} <= set(
        differences(a, c)
    )


# -------------------------------------------------------------------------------- what it does


@pytest.mark.parametrize("reuse", [True, False])
def test_it_is_the_loop_that_one_would_write(reuse):
    """Batches, noise and dropout made from their numbers, and alternating_step: there is no more to it."""
    trainer = small_trainer(game=small_game("wasserstein", "gp", reuse_fakes=reuse), d_steps=2, seed=5)
    trainer.run(steps=7)

    game = small_game("wasserstein", "gp", reuse_fakes=reuse)
    batches, draws, players = Batches(images(), BATCH, 5), Draws(5), 2 + (not reuse)
    for step in range(7):
        game.d[2].rng = stream(5, "d.2", step)
        reals = [mg.tensor.constant(batches.at(2 * step + i)) for i in range(2)]
        sizes = [len(real) for real in reals] + [len(reals[-1])] * (not reuse)
        zs = [draws.at(step).noise((BATCH, NOISE), i=i, of=players) for i in range(players)]
        noises = [z[:size] for z, size in zip(zs, sizes, strict=True)]
        alternating_step(game, reals, noises, stream(5, "terms", step))
    for mine, theirs in ((game.g, trainer.play.game.g), (game.d, trainer.play.game.d)):
        for name, value in mine.state_dict().items():
            assert np.array_equal(value, theirs.state_dict()[name]), name


@pytest.mark.parametrize("when", ["film", "draw"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_moments_is_heard(when, signum, tmp_path, in_haste, monkeypatch):
    """While the last picture or the film is made: all is saved, but whoever called has to know."""
    trainer = small_trainer(tmp_path)
    make = getattr(trainer.folder, when)

    def interrupted(*args):
        if trainer.step == 5:
            signal.raise_signal(signum)
        make(*args)

    monkeypatch.setattr(trainer.folder, when, interrupted)
    with pytest.raises(Interrupted, match="after step 5") as stop:
        trainer.run(epochs=1)
    assert stop.value.signal == signum
    assert io.load(tmp_path / "checkpoint.npz")["trainer.step"] == 5


def test_an_epoch_shows_every_image_once(monkeypatch):
    brightness = np.linspace(-0.5, 0.5, COUNT, dtype="float32")
    trainer = small_trainer(data=np.repeat(brightness[:, None], PIXELS, axis=1))
    seen, at = [], trainer.play.images.at
    monkeypatch.setattr(trainer.play.images, "at", lambda step: seen.append(at(step)) or at(step))
    trainer.run(2)
    assert [len(batch) for batch in seen] == [4, 4, 4, 3, 3] * 2
    first, second = (np.concatenate(part)[:, 0] for part in (seen[:5], seen[5:]))
    assert sorted(first) == sorted(second) == brightness.tolist()
    assert first.tolist() != second.tolist()


def test_the_records_are_means_over_the_epoch(tmp_path, in_haste):
    trainer = small_trainer(tmp_path)
    reports, train_step = [], trainer.train_step
    trainer.train_step = lambda: reports.append(train_step()) or reports[-1]
    trainer.run(2)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 5), (2, 10)]
    for record, part in zip(records, (reports[:5], reports[5:]), strict=True):
        for name in ("loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after"):
            assert record[name] == pytest.approx(np.mean([float(report[name]) for report in part]), rel=1e-12)
    assert 0 < records[0]["seconds"] < records[1]["seconds"]


def test_what_is_drawn_is_the_average_of_g(tmp_path, in_haste):
    """After t steps the average keeps min(decay, (1 + t) / (10 + t)) of itself."""
    trainer = small_trainer(ema=0.15)
    average = {name: value.astype(float) for name, value in trainer.play.game.g.state_dict().items()}
    train_step = trainer.train_step

    def followed():
        decay = min(0.15, (1 + trainer.step) / (10 + trainer.step))
        report = train_step()
        for name, value in trainer.play.game.g.state_dict().items():
            whole = value.dtype.kind == "i"
            average[name] = value if whole else decay * average[name] + (1 - decay) * value
        return report

    trainer.train_step = followed
    trainer.run(2)
    twin, z = mlp()[0].eval(), Draws(3).at(0).noise((4, NOISE), purpose="samples")
    twin.load_state_dict(average)
    np.testing.assert_allclose(trainer.play.sample(z), twin(z).numpy(), rtol=0, atol=1e-6)
    assert not np.allclose(
        trainer.play.sample(z), copy.deepcopy(trainer.play.game.g).eval()(z).numpy(), atol=1e-6
    )


def test_drawing_leaves_the_run_alone():
    quiet, drawn = small_trainer(), small_trainer()
    for _ in range(4):
        quiet.train_step()
        before = drawn.play.sample(Draws(0).at(0).noise((7, NOISE)))
        assert np.array_equal(before, drawn.play.sample(Draws(0).at(0).noise((7, NOISE))))
        drawn.train_step()
    for who in "gd":
        a, b = (networks_of(trainer)[who].state_dict() for trainer in (quiet, drawn))
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert all(module.training for module in drawn.play.game.g.modules())


def test_a_layer_in_two_places_of_g(tmp_path, in_haste):
    def make(folder, resume=False):
        rng = np.random.default_rng(0)
        twice = nn.Linear(6, 6, rng=rng)
        g = nn.Sequential(
            nn.Linear(NOISE, 6, rng=rng), twice, nn.ReLU(), twice, nn.Linear(6, PIXELS, rng=rng)
        )
        return small_trainer(folder, small_game(networks=(g, mlp()[1])), resume=resume)

    make(tmp_path / "whole").run(2)
    trainer = run_with_stops(make, tmp_path / "parts", [3], epochs=2)
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(tmp_path / "parts")) == []
    z = Draws(0).at(0).noise((4, NOISE))
    assert np.array_equal(
        load_generator(tmp_path / "parts", make(None).play.game.g)(z).numpy(), trainer.play.sample(z)
    )


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_generator_of_a_run(ema, tmp_path, in_haste):
    trainer = small_trainer(tmp_path, ema=ema)
    trainer.run(1)
    z = Draws(0).at(0).noise((5, NOISE))
    g = load_generator(tmp_path, mlp(seed=9)[0])
    assert not g.training
    assert np.array_equal(g(z).numpy(), trainer.play.sample(z))


@pytest.mark.parametrize("g", [nn.Linear(NOISE, PIXELS, rng=0), mlp()[1]])
def test_a_generator_of_another_kind_is_refused(g, tmp_path, in_haste):
    small_trainer(tmp_path).run(1)
    before = g.state_dict()
    with pytest.raises(RunError, match=r"checkpoint\.npz: does not fit this network: ") as error:
        load_generator(tmp_path, g)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(value, before[name]) for name, value in g.state_dict().items())


def test_networks_are_trained_in_training_mode():
    """G may have been looked at before, and left in evaluation mode."""
    game = small_game()
    game.g.eval()
    game.d.eval()
    trainer, usual = small_trainer(game=game), small_trainer()
    trainer.run(1)
    usual.run(1)
    assert not np.array_equal(game.g[1].running_mean.numpy(), mlp()[0][1].running_mean.numpy())
    assert np.array_equal(game.g[1].running_mean.numpy(), usual.play.game.g[1].running_mean.numpy())


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    trainer = small_trainer()
    trainer.save()
    press(trainer, 7)
    with pytest.raises(Interrupted, match="after step 7; nothing saved, since the run has no folder"):
        trainer.run(2)
    trainer.run(2)
    assert trainer.step == 10
    assert not any(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", [{}, {"epochs": 1, "steps": 1}])
def test_epochs_or_steps(wrong):
    with pytest.raises(ValueError, match="either epochs or steps"):
        small_trainer().run(**wrong)


# ------------------------------------------------------------------------- what it is told, and says


def test_signals_are_as_before_when_a_run_ends(tmp_path, in_haste):
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    small_trainer(tmp_path / "a").run(1)
    trainer = small_trainer(tmp_path / "b")
    press(trainer, 3, signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        trainer.run(1)
    assert (stop.value.signal, stop.value.folder) == (signal.SIGTERM, tmp_path / "b")
    assert str(stop.value) == f"stopped by SIGTERM after step 3; saved in {tmp_path / 'b'}"
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, in_haste):
    """As under nohup, or where a shell script starts a program in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = small_trainer(tmp_path)
        press(trainer, 3)
        trainer.run(1)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert trainer.step == 5


def test_a_second_ctrl_c_is_obeyed_at_once(tmp_path, in_haste):
    trainer = small_trainer(tmp_path)
    press(trainer, 3)
    press(trainer, 3)
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.run(1)
    assert not isinstance(stop.value, Interrupted)
    assert trainer.step == 2


def test_in_another_thread(tmp_path, in_haste):
    """Only the main thread may say what a signal does."""
    small_trainer(tmp_path / "main").run(1)
    thread = threading.Thread(target=lambda: small_trainer(tmp_path / "other").run(1))
    thread.start()
    thread.join()
    assert differences(what_is_left(tmp_path / "main"), what_is_left(tmp_path / "other")) == []


def test_a_line_for_each_epoch_where_there_is_no_terminal(capfd):
    small_trainer(quiet=False).run(2)
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    number = r"\d+\.\d{2,3}"
    for line, epoch in zip(lines, (1, 2), strict=True):
        assert re.fullmatch(
            rf"epoch   {epoch}  step +{5 * epoch}  L_D {number}  L_G {number}  D\(x\) {number}  "
            rf"D\(G\(z\)\) {number}→{number}  {number} ms/step  \d+:\d\d left",
            line,
        )
    assert lines[-1].endswith(" 0:00 left")


def test_without_a_discriminator_only_g_is_reported(tmp_path, in_haste, capfd):
    small_trainer(tmp_path, small_game("gmmn"), quiet=False).run(1)
    line = capfd.readouterr().out
    assert re.fullmatch(r"epoch   1  step      5  L_G \d+\.\d{3}  \d+\.\d\d ms/step  0:00 left\n", line)
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record["loss_g"] > 0
    assert record.keys() == {"epoch", "step", "seconds", "loss_g"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (90061, "25:01:01")],
)
def test_time_left(seconds, text, capsys):
    zeros = dict.fromkeys(("loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after"), 0.0)
    Progress(0, 11).epoch({"epoch": 1, "step": 10, **zeros}, seconds)
    assert capsys.readouterr().out.endswith(f" {text} left\n")


# ------------------------------------------------------------------ numbers that are no longer finite


class Trap(nn.Module):
    """x, but from some moment on it is computed in a way that goes wrong."""

    def __init__(self, how):
        self.how, self.armed = how, False

    def forward(self, x):
        zero = x * 0
        wrong = {
            "forward": lambda: mg.log(zero),  # -inf
            "backward": lambda: mg.sqrt(zero),  # with slope inf
            "second": lambda: zero**1.5,  # with a slope that has slope inf
        }
        return x + wrong[self.how]() if self.armed else x


def trainer_with_a_trap(who, how, folder=None, penalty_name="none", **settings):
    """It goes wrong in step 4."""
    g, d = mlp()
    trap = Trap(how)
    if who == "g":
        g = nn.Sequential(*g.children(), trap)
    else:
        first, *others = d.children()
        d = nn.Sequential(first, trap, *others)
    trainer = small_trainer(folder, small_game("hinge", penalty_name, (g, d)), **settings)
    train_step = trainer.train_step

    def armed():
        trap.armed = trainer.step == 3
        return train_step()

    trainer.train_step = armed
    return trainer


@pytest.mark.parametrize(
    ("who", "how", "penalty_name", "message"),
    [
        ("d", "forward", "none", "L_D is nan; the first to go wrong: op 'log' made -inf, at [0, 0]"),
        ("g", "forward", "none", "L_D is nan; the first to go wrong: op 'log' made -inf, at [0, 0]"),
        ("d", "backward", "none", "gradient is not finite; the first to go wrong: the gradient of op 'sqrt'"),
        ("g", "backward", "none", "gradient is not finite; the first to go wrong: the gradient of op 'sqrt'"),
        ("d", "second", "gp", "gradient is not finite; the first to go wrong: the gradient of op 'sqrt'"),
        (
            "d",
            "second",
            "consensus",
            "gradient is not finite; the first to go wrong: the gradient of op 'sqrt'",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_first_number_that_is_not_finite_is_named(who, how, penalty_name, message, tmp_path, in_haste):
    trainer = trainer_with_a_trap(
        who, how, tmp_path, penalty_name, simultaneous=penalty_name == "consensus", save_every=0
    )
    with pytest.raises(NonFiniteError) as error:
        trainer.run(2)
    assert str(error.value).startswith("step 4: L_")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert trainer.step == 3
    saved = io.load(tmp_path / "checkpoint.npz")
    assert saved["trainer.step"] == 3
    mine = "d" if "L_D" in str(error.value) else "g"  # this player has not moved
    for name, value in networks_of(trainer)[mine].named_parameters():
        assert np.array_equal(value.numpy(), saved[f"{mine}.{name}"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("who", "gd")
def test_a_weight_that_was_infinite_is_named(who):
    trainer = small_trainer()
    networks_of(trainer)[who][0].bias.data = np.full(6, np.inf)
    with pytest.raises(
        NonFiniteError, match=rf"step 1: .*the parameter 0.bias of {who.upper()} is not finite"
    ):
        trainer.run(1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "what", ["g.0.weight", "d.3.bias", "g.1.running_var", "d_optimizer.v.0", "ema.0.weight"]
)
def test_what_is_not_finite_is_never_saved(what, tmp_path, in_haste):
    """Not even where losses and gradients were: a square overflows sooner than the number itself."""
    trainer = small_trainer(tmp_path)
    trainer.run(1)
    before = all_bytes(tmp_path)
    part, _, name = what.partition(".")
    state = trainer.play.parts()[part].state_dict()
    state[name] = np.full_like(state[name], np.inf)
    trainer.play.parts()[part].load_state_dict(state)
    with pytest.raises(NonFiniteError, match=f"after step 5 .*{name}"):
        trainer.save()
    assert all_bytes(tmp_path) == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("save_every", [0, 1e9])
def test_a_learning_rate_that_is_far_too_high(save_every, tmp_path, in_haste):
    trainer = small_trainer(tmp_path, small_game(optimizer=lambda p: SGD(p, 1e25)), save_every=save_every)
    with pytest.raises(NonFiniteError, match="step"):
        trainer.run(20)
    for path in tmp_path.glob("*.npz"):
        for name, array in io.load(path).items():
            assert array.dtype.kind != "f" or np.isfinite(array).all(), (path, name)


# --------------------------------------------------------------------------------- what cannot be


WRONG = {
    "shape": ({"data": images(shape=(2, 2))}, r"G makes images of shape \(4,\), .* \(2, 2\); reshape"),
    "pixels": ({"data": (images() * 100).astype("uint8")}, "data are uint8, the networks float32; .*scaled"),
    "precision": ({"data": images(dtype="float64")}, r"the data are float64, .*astype\('float32'\)"),
    "range": ({"data": abs(images())}, r"lie between 0\.\d+ and 0\.\d+, but G ends with Tanh, .* -1 to 1"),
    "twice the range": ({"data": 2 * images()}, "but G ends with Tanh"),
    "nan": ({"data": images() * np.float32("nan")}, "lie between nan and nan, but G ends with Tanh"),
    "empty": ({"data": images()[:0]}, "0 rows in batches of 4"),
    "number": ({"data": np.float32(1)}, r"a single number; data has the shape \(N, ...\)"),
    "list": ({"data": images().tolist()}, r"data is a list; give an array of images \(N, ...\)"),
    "tensor": ({"data": Tensor(images())}, r"data is a Tensor; give an array of images"),
    "batch 0": ({"batch": 0}, "batch"),
    "batch 2.5": ({"batch": 2.5}, "batch must be a whole number, not 2.5"),
    "d_steps 0": ({"d_steps": 0}, "d_steps"),
    "d_steps 1.5": ({"d_steps": 1.5}, "d_steps must be a whole number, not 1.5"),
    "seed -1": ({"seed": -1}, "seed"),
    "seed 0.5": ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
    "noise 0": ({"noise": 0}, r"noise: shape \(4, 0\)"),
    "noise 5": ({"noise": 5}, r"linear: input of shape \(4, 5\) and weight of shape \(6, 3\)"),
    "kind": ({"noise_kind": "pink"}, "kind='pink'; there are 'normal' and 'uniform'"),
    "ema": ({"ema": 1.0}, "decay=1.0 must be 0 or more and less than 1"),
    "no samples": ({"samples": 0}, "samples must be 1 or more, not 0"),
    "both at once": ({"simultaneous": True, "d_steps": 2}, "d_steps=2 must be 1"),
    "one player at once": ({"simultaneous": True, "game": small_game("gmmn")}, "D"),
    "consensus": ({"game": small_game("hinge", "consensus")}, "simultaneous"),
    "resume": ({"resume": True, "folder": None}, "resume=True .*need the folder of the run"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_said_before_the_run_has_a_folder(what, tmp_path):
    settings, message = WRONG[what]
    with pytest.raises((ValueError, TypeError), match=message):
        small_trainer(**{"folder": tmp_path / "run", **settings})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("last", "low", "high"), [(nn.Sigmoid(), 0, 1), (nn.Tanh(), -1, 1), (nn.ReLU(), 5, 9)]
)
def test_data_in_the_range_of_g(last, low, high):
    rng = np.random.default_rng(0)
    g = nn.Sequential(nn.Linear(NOISE, PIXELS, rng=rng), last)
    data = np.linspace(low, high, COUNT * PIXELS, dtype="float32").reshape(COUNT, PIXELS)
    small_trainer(game=small_game(networks=(g, mlp()[1])), data=data).run(1)
    if not isinstance(last, nn.ReLU):
        with pytest.raises(ValueError, match=f"but G ends with {type(last).__name__}, whose range is {low}"):
            small_trainer(game=small_game(networks=(g, mlp()[1])), data=data + (high - low))


def test_the_beginning_is_saved_at_once(tmp_path, in_haste):
    """From then on a run can go on, however it ends, and however far the next checkpoint is."""
    trainer = small_trainer(tmp_path, save_every=1e9)
    press(trainer, 3)
    press(trainer, 3)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(3)
    assert io.load(tmp_path / "checkpoint.npz")["trainer.step"] == 0
    small_trainer(tmp_path, resume=True).run(3)
    small_trainer(tmp_path / "whole").run(3)
    assert differences(what_is_left(tmp_path), what_is_left(tmp_path / "whole")) == []
