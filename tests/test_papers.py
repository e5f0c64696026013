"""The studies of examples/papers in their smallest size, and what they share."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import study
import trials
from matplotlib.image import imread

from minigan import Tensor, io, nn
from minigan.gan import Game, RunError, names, simultaneous_step
from minigan.optim import Adam
from minigan.streams import stream

PAPERS = Path(__file__).parent.parent / "examples" / "papers"
STUDIES = sorted(path.stem for path in PAPERS.glob("*.py") if path.stem not in ("jobs", "study", "trials"))


def run(name, *arguments, folder, **options):
    environment = {**os.environ, "MPLCONFIGDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, str(PAPERS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, **options
    )


# ------------------------------------------------------------------------------------- the studies


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_writes_numbers_a_table_and_a_picture(name, tmp_path):
    done = run(name, "--quick", "--seeds", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    folder = tmp_path / "results" / f"{name}-quick"
    assert {path.name for path in folder.iterdir()} >= {"README.md", "figure.png", "results.json"}
    found = json.loads((folder / "results.json").read_text())
    assert found["trials"]
    assert found["command"] == f"python examples/papers/{name}.py --quick --seeds 2"
    text = (folder / "README.md").read_text()
    assert text.startswith("# ")
    assert "\n|---|" in text
    assert min(imread(folder / "figure.png").shape[:2]) > 200

    started = time.monotonic()  # once more: nothing is left to do but the table
    assert run(name, "--quick", "--seeds", 2, folder=tmp_path).returncode == 0
    assert json.loads((folder / "results.json").read_text())["trials"] == found["trials"]
    assert time.monotonic() - started < 30


# ------------------------------------------------------------------------------------- the harness


def options(folder, **more):
    fields = {"study": "test", "size": "quick", "backend": "numpy", "seeds": 2, "jobs": 1, "out": folder}
    return SimpleNamespace(**{**fields, **more})


def never():
    raise AssertionError("this trial was done before")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_trial_runs_once(jobs, tmp_path):
    results = study.Results(options(tmp_path, jobs=jobs), {"steps": 3})
    measured = results.measure({f"trial {i}": lambda i=i: {"modes": np.int64(i)} for i in range(3)})
    assert [trial["modes"] for trial in measured] == [0, 1, 2]
    again = study.Results(options(tmp_path, jobs=jobs), {"steps": 3})
    assert again.measure({"trial 2": never, "trial 0": never}) == [measured[2], measured[0]]


def test_results_of_other_settings_are_not_mixed(tmp_path):
    study.Results(options(tmp_path), {"steps": 3})
    with pytest.raises(RunError, match=r"other settings \(steps\)"):
        study.Results(options(tmp_path), {"steps": 4})


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"settings": 3}', '{"settings": {}, "trials": {"a": 5}}'])
def test_a_file_that_is_none_of_results(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunError, match=r"results\.json"):
        study.Results(options(tmp_path), {})


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_trial_ends_the_study(jobs, tmp_path):
    results = study.Results(options(tmp_path, jobs=jobs), {})

    def fails():
        raise RunError("no data")

    with pytest.raises(RunError, match="no data"):
        results.measure({"good": lambda: {"x": 1}, "bad": fails})


def test_two_studies_do_not_share_a_folder(tmp_path):
    results = study.Results(options(tmp_path), {})
    other = study.Results(options(tmp_path), {})
    with pytest.raises(RunError, match="another study is writing here"):
        results.measure({"a": lambda: other.measure({"b": dict})[0]})


def walk(folder, total, stop_at=None):
    """A random walk, one step at a time, that presses Ctrl-C at some step."""
    place = nn.Linear(1, 1, rng=0)
    for step in study.steps(folder, {"place": place}, total):
        place.weight = Tensor(
            place.weight.data + stream(0, "walk", step).standard_normal((1, 1), "f4"), requires_grad=True
        )
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
    return place.weight.numpy()


def test_steps_go_on_where_they_were_stopped(tmp_path):
    whole = walk(tmp_path / "a", 20)
    with pytest.raises(KeyboardInterrupt):
        walk(tmp_path / "b", 20, stop_at=11)
    assert np.array_equal(walk(tmp_path / "b", 20), whole)


def test_ctrl_c_and_the_same_command_again(tmp_path):
    """In the middle of a study with two trials at a time."""
    arguments = ["--quick", "--seeds", 2, "--jobs", 2]
    assert run("pacgan_2d", *arguments, "--out", "whole", folder=tmp_path).returncode == 0
    command = [sys.executable, str(PAPERS / "pacgan_2d.py"), *map(str, arguments), "--out", "parts"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    file = tmp_path / "parts" / "results.json"
    while child.poll() is None and not (file.exists() and '"modes"' in file.read_text()):
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: all of its processes hear it
    _, said = child.communicate()
    assert child.returncode in (0, 130)  # 0: it was done just then
    assert "Traceback" not in said
    assert run("pacgan_2d", *arguments, "--out", "parts", folder=tmp_path).returncode == 0
    whole, parts = (
        json.loads((tmp_path / n / "results.json").read_text())["trials"] for n in ("whole", "parts")
    )
    for found in (*whole.values(), *parts.values()):
        del found["seconds"]
    assert parts == whole


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_kills_a_study_ends_its_trials_too(how, tmp_path):
    """Otherwise they would work on, and keep the folder to themselves."""
    program = (
        "import study, time\n"
        "from types import SimpleNamespace as Options\n"
        "def main(options):\n"
        "    results = study.Results(options, {})\n"
        "    def trial(name):\n"
        "        (results.folder / name).touch()\n"
        "        time.sleep(600)\n"
        "        return {'x': 1}\n"
        "    results.measure({name: lambda name=name: trial(name) for name in 'ab'})\n"
        "parser = study.arguments('A test.', 'test', seeds=1)\n"
        "study.run(main, parser)\n"
    )
    command = [sys.executable, "-c", program, "--out", str(tmp_path), "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(PAPERS)}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not all((tmp_path / name).exists() for name in "ab"):
        time.sleep(0.01)
    child.send_signal(how)
    _, said = child.communicate(
        timeout=60
    )  # the trials have the other end of its stderr: they have ended, too
    assert "Traceback" not in said
    assert child.returncode == (-how if how == signal.SIGKILL else 128 + how)
    study.Results(options(tmp_path, size="default"), {}).measure({"c": dict})  # nobody holds the folder


@pytest.mark.parametrize("content", [b"", b"PK no archive", None])
def test_a_checkpoint_that_is_none(content, tmp_path):
    if content is None:  # that of another network
        io.save(tmp_path / "checkpoint.npz", {"step": 3, "place": {"weight": np.ones((2, 2))}})
    else:
        (tmp_path / "checkpoint.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint.npz: cannot go on from it: .*remove it") as caught:
        walk(tmp_path, 5)
    assert "\n" not in str(caught.value)


def test_mean_and_standard_error():
    mean, error = study.mean_se([1.0, 2.0, 3.0, 6.0])
    assert (mean, error) == (3.0, pytest.approx(np.sqrt(14 / 3 / 4)))
    assert study.plus_minus([1.0, 2.0, 3.0, 6.0], 1) == "3.0 ± 1.1"
    assert study.plus_minus([1.0], 1) == "1.0"
    assert study.table(["", "modes"], [["GAN", 6.3]]).splitlines() == [
        "|  | modes |",
        "|---|---|",
        "| GAN | 6.3 |",
    ]


# ------------------------------------------------------------------------------- many trials at once

WIDE, BATCH = 6, 8


def pile(seeds, pack=1):
    """G and D of these trials, as one pile each."""

    def init(shape, rng):
        return nn.init.normal(shape, 0.5, rng)

    rngs = [stream(seed, "g") for seed in seeds]
    g = nn.Sequential(
        trials.Linear(2, WIDE, init, rngs, bias=False),
        trials.BatchNorm(WIDE, len(seeds), 0.05),
        nn.ReLU(),
        trials.Linear(WIDE, 2, init, rngs),
    )
    rngs = [stream(seed, "d") for seed in seeds]
    d = nn.Sequential(trials.Maxout(2 * pack, WIDE, 3, init, rngs), trials.Linear(WIDE, 1, init, rngs))
    return trials.Trials(len(seeds), g).to(dtype="float64"), trials.Trials(len(seeds), d, pack).to(
        dtype="float64"
    )


def trained(seeds, loss, penalty, pack=1, steps=5):
    """What G of each trial makes of the same noise after some steps."""
    g, d = pile(seeds, pack)
    optimizers = [trials.adam(network, len(seeds), 0.05, (0.5, 0.9)) for network in (g, d)]
    game = Game(g, d, names.loss(loss), *optimizers, names.penalty(penalty), separate=pack > 1)
    for step in range(steps):
        rng = trials.Draws([stream(seed, "penalty", step) for seed in seeds])
        draws = [stream(seed, "step", step).normal(size=(2, BATCH, 2)) for seed in seeds]
        real, z = (Tensor(trials.together([draw[i] for draw in draws])) for i in (0, 1))
        simultaneous_step(game, real, z, rng)
    g.eval()
    z = stream(0, "judged").normal(size=(BATCH, 2))
    return trials.apart(g(Tensor(trials.together([z] * len(seeds)))).numpy(), len(seeds))


@pytest.mark.parametrize(
    ("loss", "penalty", "pack"),
    [
        ("non-saturating", "none", 1),
        ("non-saturating", "none", 4),
        ("rpgan", "r1-r2", 1),
        ("wasserstein", "gp", 1),
    ],
)
def test_a_trial_does_in_a_pile_what_it_does_alone(loss, penalty, pack):
    together = trained([3, 4, 5], loss, penalty, pack)
    for seed, made in zip([3, 4, 5], together, strict=True):
        np.testing.assert_allclose(made, trained([seed], loss, penalty, pack)[0], rtol=1e-9, atol=1e-12)


def test_a_pile_of_one_is_the_usual_network():
    """The layers with an axis of trials, against those of minigan.nn, through training steps."""
    g, d = pile([7])

    def usual(linear):
        layer = nn.Linear(*linear.weight.shape[1:], bias=linear.bias is not None, rng=0, dtype="float64")
        state = {"weight": linear.weight.numpy()[0].T}
        layer.load_state_dict(state if linear.bias is None else {**state, "bias": linear.bias.numpy()[0, 0]})
        return layer

    norm = nn.BatchNorm1d(WIDE, momentum=0.05, dtype="float64")
    plain_g = nn.Sequential(usual(g.body[0]), norm, nn.ReLU(), usual(g.body[3]))
    maxout = nn.Maxout(2, WIDE, 3, rng=0, dtype="float64")
    weight = d.body[0].linear.weight.numpy()[0].T
    maxout.load_state_dict({"weight": weight, "bias": np.zeros(3 * WIDE)})
    plain_d = nn.Sequential(maxout, usual(d.body[1]))
    for networks, adams in (
        ((g, d), [trials.adam(network, 1, 0.05, (0.5, 0.9)) for network in (g, d)]),
        ((plain_g, plain_d), [Adam(n.parameters(), 0.05, (0.5, 0.9)) for n in (plain_g, plain_d)]),
    ):
        game = Game(*networks, names.loss("non-saturating"), *adams, separate=False)
        for step in range(5):
            real, z = (Tensor(part) for part in stream(7, "step", step).normal(size=(2, BATCH, 2)))
            simultaneous_step(game, real, z)
    z = Tensor(stream(0, "judged").normal(size=(BATCH, 2)))
    np.testing.assert_allclose(g.eval()(z).numpy(), plain_g.eval()(z).numpy(), rtol=1e-9)
