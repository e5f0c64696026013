"""The loop trains anything: four networks, a recurrent G, and whatever else has a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from plays import PLAYS, Sequences, Translation, number, same
from small_runs import differences, press, run_with_stops, small_game, small_trainer, what_is_left

import minigan as mg
from minigan import Tensor, io, nn, viz
from minigan.data.batches import Batches
from minigan.gan.steps import gradients, move
from minigan.optim import SGD
from minigan.training import Draws, Interrupted, NonFiniteError, Play, RunError, Trainer


@pytest.fixture
def in_haste(monkeypatch):
    """Curves take longer than all else here."""
    monkeypatch.setattr(viz, "curves", lambda path, *args, **options: path.write_bytes(b""))


def make(name, folder=None, **settings):
    backend = settings.pop("backend", "numpy")
    return Trainer(PLAYS[name](backend), seed=3, folder=folder, quiet=True, **settings)


# ----------------------------------------------------------------------------- stop and go on


@pytest.mark.parametrize("name", PLAYS)
def test_ctrl_c_in_any_step(name, tmp_path, in_haste):
    whole = make(name, tmp_path / "whole")
    whole.run(steps=9)
    before = PLAYS[name]().parts()
    for who, part in whole.play.parts().items():  # somebody who never moved would pass, too
        if isinstance(part, nn.Module):
            pairs = zip(part.parameters(), before[who].parameters(), strict=True)
            assert all(not np.array_equal(a.numpy(), b.numpy()) for a, b in pairs), who
    for step in range(1, 10):
        folder = tmp_path / str(step)
        run_with_stops(lambda f, resume=False: make(name, f, resume=resume), folder, [step], steps=9)
        assert differences(what_is_left(tmp_path / "whole"), what_is_left(folder)) == [], step


@pytest.mark.parametrize("name", PLAYS)
def test_kill_9(name, tmp_path):
    """Each step is saved, so many kills hit a file that is being written."""
    pytest.importorskip("fcntl", reason="signals as on Linux and macOS")
    here = Path(__file__).parent
    paths = [str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}

    def start(folder, *flags):
        command = [sys.executable, str(here / "plays.py"), name, str(folder), *flags]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    assert whole.communicate()[1] == "" and whole.returncode == 0
    folder, rng, steps = tmp_path / "parts", np.random.default_rng(), []
    for _ in range(3):
        process = start(folder, *["--resume"] * (folder / "config.json").exists())
        deadline = time.monotonic() + 60
        while not (folder / "checkpoint.npz").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.uniform(0.1, 0.5))
        process.kill()
        process.communicate()
        steps.append(int(io.load(folder / "checkpoint.npz")["trainer.step"]))
    assert steps == sorted(steps)
    last = start(folder, "--resume")
    assert last.communicate()[1] == "" and last.returncode == 0
    assert differences(what_is_left(tmp_path / "whole"), what_is_left(folder)) == []


def test_another_data_set_is_another_run(tmp_path, in_haste):
    make("translation", tmp_path).run(steps=2)
    play = Translation()
    play.ys = Batches(np.ones((10, 4), "float32"), 5, 1)
    with pytest.raises(RunError, match="the run began with other data, y, range"):
        Trainer(play, seed=3, folder=tmp_path, resume=True)
    with pytest.raises(RunError, match="the run began with other"):
        Trainer(Sequences(), seed=3, folder=tmp_path, resume=True)


# ----------------------------------------------------------------------- what is left of a run


@pytest.mark.parametrize("name", PLAYS)
def test_numbers_pictures_curves_and_a_film(name, tmp_path):
    trainer, reports = make(name, tmp_path), []
    train_step = trainer.train_step
    trainer.train_step = lambda: reports.append(train_step()) or reports[-1]
    trainer.run(epochs=2)
    length = trainer.play.steps_per_epoch
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["step"]) for record in records] == [(1, length), (2, 2 * length)]
    for i, record in enumerate(records):
        part = reports[i * length : (i + 1) * length]
        assert record.keys() == {"epoch", "step", "seconds", *part[0]}
        for key in part[0]:
            assert record[key] == pytest.approx(np.mean([number(report[key]) for report in part]), rel=1e-12)
    names = {"checkpoint.npz", "config.json", "curves.png", "metrics.jsonl", "progress.gif"}
    assert names < {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.glob("samples/*.png"))) == 3
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["networks"].keys() == {who for who, p in trainer.play.parts().items() if hasattr(p, "eval")}


def test_what_it_says(tmp_path, in_haste, capfd):
    Trainer(Translation(), seed=3, folder=tmp_path).run(epochs=1)
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("epoch   1  step      3  d_x ")
    assert all(f"  {name} " in line for name in ("d_y", "adversarial", "cycle"))


def test_a_play_without_pictures_or_data(tmp_path):
    class Falling(Play):
        """Half a square, down which one number rolls."""

        steps_per_epoch = 2

        def __init__(self):
            self.hill = nn.Linear(1, 1, bias=False, rng=0)
            self.sgd = SGD(self.hill.parameters(), 0.5)

        def parts(self):
            return {"hill": self.hill, "sgd": self.sgd}

        def step(self, draws):
            height = (self.hill.weight * self.hill.weight).sum() / 2
            move(self.sgd, gradients(self.sgd, height, "height"))
            return {"height": height.detach(), "step number": float(draws.step)}

    play, trainer = Falling(), None
    start = float(play.hill.weight)
    trainer = Trainer(play, folder=tmp_path, quiet=True)
    trainer.run(epochs=2)
    assert float(play.hill.weight) == pytest.approx(start / 16)
    assert not list(tmp_path.glob("samples/*")) and not (tmp_path / "progress.gif").exists()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step number"] for record in records] == [0.5, 2.5]


# ----------------------------------------------------------------------------- infinity and NaN


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "part"), [("translation", "f"), ("sequences", "d")])
def test_the_first_cause_is_named(name, part, tmp_path, in_haste):
    """What is finite in one step and infinite in the next: the op that made it so."""
    trainer = make(name, tmp_path, save_every=0)
    trainer.run(steps=3)
    for p in trainer.play.parts()[part].parameters():
        p.data = np.full(p.shape, 3e38, "float32")
    with pytest.raises(NonFiniteError) as error:
        trainer.run(steps=9)
    assert str(error.value).startswith("step 4: ")
    assert "; the first to go wrong: op 'linear' made " in str(error.value)
    assert trainer.step == 3
    assert io.load(tmp_path / "checkpoint.npz")["trainer.step"] == 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_number_that_is_reported_must_be_finite():
    class Loud(Sequences):
        def step(self, draws):
            report = super().step(draws)
            return {**report, "volume": float("inf") if draws.step == 2 else 1.0}

    trainer = Trainer(Loud(), quiet=True)
    with pytest.raises(NonFiniteError, match="step 3: volume is inf; no single op is to blame"):
        trainer.run(steps=5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_parameter_that_is_not_finite_is_named_with_its_part():
    trainer = make("translation")
    trainer.play.d_x[0].bias.data = np.full(6, np.nan)
    with pytest.raises(NonFiniteError, match=r"the parameter 0\.bias of d_x is not finite any more"):
        trainer.run(1)


# ------------------------------------------------------------------------- on a GPU, recorded


@pytest.mark.parametrize("name", PLAYS)
def test_on_every_backend(name, backend):
    """A GPU draws its own noise; the networks begin with the same weights."""
    trainer, usual = make(name, backend=backend), make(name)
    for run in (trainer, usual):
        run.run(steps=3)
    here, there = ([number(v) for v in run.train_step().values()] for run in (trainer, usual))
    np.testing.assert_allclose(here, there, rtol=1e-3 if backend == "strict" else 0.5)


@pytest.mark.parametrize("name", PLAYS)
def test_recorded_steps_are_the_eager_ones(name, backend, tmp_path, in_haste):
    if backend != "cupy":
        pytest.skip("only CuPy can record")
    eager, recorded = (make(name, backend=backend, capture=True) for _ in range(2))
    eager.recorded.why = "it is not to"  # it multiplies like the other one, but never records
    for trainer in (eager, recorded):
        trainer.run(steps=20)
    assert recorded.recorded.why is None
    assert recorded.recorded.replays > 4
    assert same(eager.play, recorded.play)
    stopped = make(name, tmp_path, backend=backend, capture=True)
    press(stopped, 9)
    with pytest.raises(Interrupted):
        stopped.run(steps=20)
    again = make(name, tmp_path, backend=backend, capture=True, resume=True)
    again.run(steps=20)
    assert same(again.play, recorded.play)


# ------------------------------------------------------------------------------------- wrong use


def test_what_a_play_must_have():
    for name in ("parts", "step"):
        with pytest.raises(NotImplementedError, match=rf"Play must define {name}\("):
            getattr(Play(), name)(*[None] * (name == "step"))
    with pytest.raises(TypeError, match=r"data and noise go with a Game, not a Play"):
        Trainer(Sequences(), np.zeros((3, 4), "float32"), noise=3)


def test_draws_depend_on_the_step_and_the_purpose_alone():
    draws, again = Draws(1), Draws(1)
    for step in (5, 0, 130, 5):
        z, twin = draws.at(step).noise((3, 2)), again.at(step).noise((3, 2))
        assert np.array_equal(z.numpy(), twin.numpy())
    z = Draws(1).at(5).noise((3, 2)).numpy()
    others = [
        Draws(2).at(5).noise((3, 2)),
        draws.at(6).noise((3, 2)),
        draws.at(5).noise((3, 2), purpose="other"),
        draws.at(5).noise((3, 2), "uniform"),
        draws.at(5).noise((3, 2), i=1, of=2),
    ]
    assert all(not np.array_equal(z, other.numpy()) for other in others)
    assert draws.at(5).rng("a").random() == Draws(1).at(5).rng("a").random()
    assert draws.at(5).rng("a").random() != draws.at(5).rng("b").random()
    assert draws.at(5).step == 5
    uniform = Draws(0).noise((100, 100), "uniform").numpy()
    assert -1 <= uniform.min() < -0.99 and 0.99 < uniform.max() < 1


def test_draws_of_several_batches_a_step():
    """With three a step, step 2 has the numbers 6, 7 and 8; and all of a tuple comes along."""
    images = Batches((np.arange(40.0), np.arange(40)), 2, 0)
    for i in range(3):
        x, label = Draws(0).at(2).batch(images, i, 3)
        assert isinstance(x, Tensor) and np.array_equal(x.numpy(), images.at(6 + i)[0])
        assert np.array_equal(x.numpy(), label.numpy())


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0)])
def test_noise_of_no_size(shape):
    with pytest.raises(ValueError, match="noise: shape"):
        Draws(0).noise(shape)


def test_the_short_form_is_a_play_like_any_other():
    trainer = small_trainer(game=small_game("hinge"))
    trainer.run(steps=3)
    twin = Trainer(small_trainer(game=small_game("hinge")).play, seed=3, quiet=True)
    twin.run(steps=3)
    assert same(trainer.play, twin.play)
    assert trainer.play.settings()["loss"]["name"] == "hinge"
    assert mg.backend.get("numpy") is trainer.play.images.backend
