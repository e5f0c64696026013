"""The studies of examples/papers in their smallest size, and what they share."""

import doctest
import io as std_io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jobs
import numpy as np
import pacgan_2d
import players
import pytest
import samples
import stacked_mnist
import study
import tables
import trials
import unrolled_ring
from matplotlib.image import imread
from scipy import stats

from minigan import Tensor, io, nn
from minigan.data import grid, ring
from minigan.gan import Game, by_name, simultaneous_step
from minigan.optim import Adam
from minigan.streams import stream
from minigan.training import RunError

PAPERS = Path(__file__).parent.parent / "examples" / "papers"
STUDIES = sorted(path.stem for path in PAPERS.glob("*.py") if "\nif __name__ ==" in path.read_text("utf-8"))
SHORT = ["pacgan_2d", "parzen_mnist"]  # those that a plain pytest runs
SHARED = [jobs, players, samples, study, tables, trials]


def run(name, *arguments, folder, **options):
    fonts = folder.parent / "matplotlib"  # all tests share what Matplotlib finds out about the fonts
    environment = {**os.environ, "MPLCONFIGDIR": str(fonts), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, str(PAPERS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, **options
    )


# ------------------------------------------------------------------------------------- the studies


def test_every_file_is_a_study_or_shared():
    assert len(STUDIES) == 7
    assert {path.stem for path in PAPERS.glob("*.py")} == {*STUDIES, *(m.__name__ for m in SHARED)}


@pytest.mark.parametrize(
    "name",
    [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in STUDIES],
)
def test_a_study_writes_numbers_a_table_and_a_picture(name, tmp_path):
    done = run(name, "--quick", "--seeds", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    folder = tmp_path / "results" / f"{name}-quick"
    assert {path.name for path in folder.iterdir()} >= {"README.md", "figure.png", "results.json"}
    found = json.loads((folder / "results.json").read_text())
    assert found["trials"]
    assert [path.name for path in folder.rglob("*.png")] == ["figure.png"]
    if name in ("stacked_mnist", "which_loss"):  # trials of two classifiers are never mixed
        assert 0.1 < found["settings"]["classifier"]["accuracy"] <= 1
    if name == "stacked_mnist":
        with_images = [trial for trial, what in found["trials"].items() if "images" in what]
        assert sorted(with_images) == sorted(trial for trial in found["trials"] if "seed 0" in trial)
        for trial in with_images:
            assert samples.unpacked(found["trials"][trial]["images"]).shape == (36, 3, 28, 28)
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


def walk(folder, total, stop_at=None, wait=0.0):
    """A random walk, one step at a time, that presses Ctrl-C at some step."""
    place = nn.Linear(1, 1, rng=0)
    for step in study.steps(folder, {"place": place}, total):
        place.weight = Tensor(
            place.weight.data + stream(0, "walk", step).standard_normal((1, 1), "f4"), requires_grad=True
        )
        time.sleep(wait)
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
    return place.weight.numpy()


def test_steps_go_on_where_they_were_stopped(tmp_path):
    whole = walk(tmp_path / "a", 20)
    with pytest.raises(KeyboardInterrupt):
        walk(tmp_path / "b", 20, stop_at=11)
    assert np.array_equal(walk(tmp_path / "b", 20), whole)


class Killed(Exception):
    """Ends a trial at once, with no time to save anything: as kill -9 does."""


def slow(folder, total, killed_at=None):
    """Steps of 0.05 s, with a checkpoint after each. Gives the numbers of those that it made."""
    made = []
    for step in study.steps(folder, {"made": study.Notes([])}, total, every=0.0):
        made.append(step)
        time.sleep(0.05)
        if step == killed_at:
            raise Killed
    return {"made": made}


def test_the_seconds_of_a_trial_that_was_killed_are_not_lost(tmp_path):
    results = study.Results(options(tmp_path), {})
    for end in (6, 12):
        with pytest.raises(Killed):
            results.measure({"a": lambda end=end: slow(results.unfinished("a"), 15, killed_at=end)})
    results.measure({"a": lambda: slow(results.unfinished("a"), 15)})
    found = results.trials["a"]
    assert found["made"] == [12, 13, 14]
    assert 15 * 0.05 <= found["seconds"] < 15
    assert not results.unfinished("a").exists()


def test_the_seconds_of_a_trial_that_heard_ctrl_c_are_not_lost(tmp_path):
    results = study.Results(options(tmp_path), {})
    with pytest.raises(KeyboardInterrupt):
        results.measure({"a": lambda: {"place": walk(results.unfinished("a"), 20, 11, wait=0.02)}})
    results.measure({"a": lambda: {"place": walk(results.unfinished("a"), 20, wait=0.02)}})
    assert np.float32(results.trials["a"]["place"]) == walk(tmp_path / "b", 20)
    assert 20 * 0.02 <= results.trials["a"]["seconds"] < 20


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path):
    first = study.Results(options(tmp_path), {"steps": 5, "rate": 1})
    with pytest.raises(Killed):
        first.measure({"a": lambda: slow(first.unfinished("a"), 5, killed_at=2)})
    (tmp_path / "results.json").unlink()
    second = study.Results(options(tmp_path), {"steps": 5, "rate": 2})
    second.measure({"a": lambda: slow(second.unfinished("a"), 5)})
    assert second.trials["a"]["made"] == [0, 1, 2, 3, 4]
    again = study.Results(options(tmp_path), {"rate": 2, "steps": 5})  # the order is none of the settings
    assert again.unfinished("a") == second.unfinished("a") != first.unfinished("a")
    assert again.unfinished("a, b") != again.unfinished("a; b")


class Screen(std_io.TextIOWrapper):
    """A file that passes for a terminal. Processes that are forked write to the same one."""

    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Screen, std_io.TextIOWrapper])
@pytest.mark.parametrize("count", [1, 2])
def test_a_terminal_is_shown_what_runs(count, kind, tmp_path, monkeypatch):
    results = study.Results(options(tmp_path, jobs=count), {})
    with open(tmp_path / "said", "wb", buffering=0) as file:
        monkeypatch.setattr(sys, "stderr", kind(file, "utf-8", write_through=True))
        results.measure({n: lambda n=n: slow(results.unfinished(n), 4) for n in ("first", "second", "third")})
    said = (tmp_path / "said").read_bytes().decode()
    if kind is not Screen:
        assert said == ""
    elif count == 1:
        assert "running: first (2 waiting)\n" in said and "running: third (0 waiting)\n" in said
        assert "/4 [" in said  # a bar
        assert said.endswith("\r")  # and it is wiped away
    else:
        assert said.startswith("running: first; second (1 waiting)\n")
        assert "third (0 waiting)\n" in said
        assert "/4 [" not in said  # two bars would be in each other's way


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


@pytest.mark.parametrize("module", SHARED, ids=lambda module: module.__name__)
def test_what_the_docstrings_say(module):
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize(("looks", "steps"), [(1, 7), (3, 10), (7, 7), (20, 7000), (4, 2001)])
def test_looks_are_spread_evenly(looks, steps):
    after = [step for step in range(steps) if study.due(step, looks, steps)]
    assert len(after) == looks
    assert after[-1] == steps - 1
    gaps = np.diff([-1, *after])
    assert gaps.max() - gaps.min() <= 1


# ------------------------------------------------------------------------------------ numbers in words


def test_mean_and_standard_error():
    mean, error = tables.mean_se([1.0, 2.0, 3.0, 6.0])
    assert (mean, error) == (3.0, pytest.approx(np.sqrt(14 / 3 / 4)))
    assert tables.plus_minus([1.0, 2.0, 3.0, 6.0], 1) == "3.0 ± 1.1"
    assert tables.plus_minus([1.0], 1) == "1.0"
    assert tables.table(["", "modes"], [["GAN", 6.3]]).splitlines() == [
        "|  | modes |",
        "|---|---|",
        "| GAN | 6.3 |",
    ]


def test_summary():
    assert tables.summary([1.0, 2.0, 3.0, 6.0]) == (3.0, pytest.approx(np.sqrt(14 / 3)), 4)
    assert np.isnan(tables.summary([2.0])[1])
    assert np.isnan(tables.summary([2.0, np.nan])[:2]).all()
    assert tables.summary([2.0, np.inf])[0] == np.inf


@pytest.mark.parametrize("shift", [0.0, 1.2, 1.6, 3.0])
def test_an_order_is_told_where_welch_is_sure(shift):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=6), rng.normal(shift, 2.0, size=9)
    sure = stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05
    assert sure == (shift > 1.5)  # p is 0.07 at 1.2, and 0.015 at 1.6
    assert tables.order(tables.summary(a), tables.summary(b)) == ("<" if sure else "?")
    assert tables.order(tables.summary(b), tables.summary(a)) == (">" if sure else "?")


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ([1.0], [9.0], "?"),
        ([1.0, 1.0, np.nan], [9.0, 9.1, 9.2], "?"),
        ([1.0, 1.1, np.inf], [9.0, 9.1, 9.2], "?"),
        ([8.0, 4.0, 0.0], [1.0, -1.0] * 15, "?"),  # Student, who has one spread for both, would be sure
        ([8, 8, 8], [8, 8, 8], "?"),
        ([8, 8, 8], [7, 7, 7], ">"),
    ],
)
def test_an_order_at_the_edges(a, b, told):
    assert tables.order(tables.summary(a), tables.summary(b)) == told


# --------------------------------------------------------------------------- digits, and what G draws


def a_generator():
    """G with BatchNorm, whose running averages are not those of a batch."""
    g = nn.Sequential(nn.Linear(3, 4, rng=0), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2, rng=1))
    g(Tensor(stream(0, "z").standard_normal((50, 3), "f4")))
    return g


@pytest.mark.parametrize("training", [True, False])
def test_samples_are_drawn_in_evaluation_mode(training):
    g, z = a_generator(), stream(1, "z").standard_normal((10, 3), "f4")
    expected = g.eval()(Tensor(z)).numpy()
    g.train(training)
    before = {name: np.array(value) for name, value in g.state_dict().items()}
    for at_once in (None, 4, 10, 99):
        np.testing.assert_allclose(samples.drawn(g, z, at_once), expected, rtol=1e-6)
    assert {m.training for m in g.modules()} == {training}
    for name, value in g.state_dict().items():
        assert np.array_equal(value, before[name])


def test_g_gets_blocks_and_no_history_and_is_put_back_after_an_error():
    seen = []

    class Fragile(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 2, rng=0)

        def forward(self, x):
            y = self.layer(x)
            seen.append((len(x), y.requires_grad, self.training))
            if np.isnan(x.numpy()).any():
                raise ZeroDivisionError
            return y

    g = Fragile()
    samples.drawn(g, np.zeros((10, 3), "f4"), 4)
    assert seen == [(4, False, False), (4, False, False), (2, False, False)]
    with pytest.raises(ZeroDivisionError):
        samples.drawn(g, np.full((10, 3), np.nan, "f4"))
    assert g.training


def test_images_as_text():
    images = stream(0, "images").uniform(-1.2, 1.2, (4, 3, 5, 5)).astype("f4")
    images[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    kept = json.loads(json.dumps(samples.packed(images)))
    found = samples.unpacked(kept)
    assert found.dtype == np.uint8
    assert found[0, 0, 0, :3].tolist() == [128, 255, 0]
    np.testing.assert_allclose(found[1:] / 127.5 - 1, np.clip(images[1:], -1, 1), atol=0.5 / 127.5 + 1e-6)
    assert len(json.dumps(samples.packed(np.zeros((36, 3, 28, 28))))) < 1000
    assert study._brief({"modes": 3, "images": kept}) == "modes 3"


def test_digits_are_rendered_for_quick_only(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "rendered_digits", lambda train, test, **_: ("rendered", train, test))
    monkeypatch.setattr(samples, "load", lambda name, folder: (name, folder))
    assert samples.digit_images(options(None, data_dir=None), 20, 10) == ("rendered", 20, 10)
    found = samples.digit_images(options(None, size="default", data_dir=tmp_path), 20, 10)
    assert found == ("mnist", tmp_path)


def test_another_classifier_makes_other_settings(tmp_path):
    images = stream(0, "images").integers(0, 256, (20, 28, 28), dtype=np.uint8)
    first, second, twin = (stacked_mnist.DigitClassifier(seed) for seed in (0, 1, 0))
    for classifier in (first, second, twin):
        classifier.accuracy = 0.99  # right on as many test images
    known = [samples.known_by(classifier, images) for classifier in (first, second, twin)]
    assert known[0] == known[2] != known[1]
    study.Results(options(tmp_path), {"classifier": known[0]})
    study.Results(options(tmp_path), {"classifier": known[2]})
    with pytest.raises(RunError, match=r"other settings \(classifier\)"):
        study.Results(options(tmp_path), {"classifier": known[1]})


def test_samples_that_are_not_finite_find_nothing():
    x = ring().centres.repeat(3, axis=0)
    assert samples.near_centres(x, ring()).modes == 8
    x[0, 0] = np.nan
    report = samples.near_centres(x, ring())
    assert (report.modes, report.high_quality, report.reverse_kl) == (0, 0.0, np.inf)


def test_stacked_digits_that_are_nan_are_read_as_grey():
    classifier = stacked_mnist.DigitClassifier(0)
    nan, grey = (stacked_mnist.digits_in(np.full((2, 3, 28, 28), v, "f4"), classifier) for v in (np.nan, 0))
    assert np.array_equal(nan, grey)


# ------------------------------------------------------------------------------ rings, grids, and the end


def test_the_reverse_kl_of_all_samples_counts_them_by_their_nearest_centre():
    square = grid()
    far = square.centres + 10 * square.sigma  # nothing is of high quality
    found = pacgan_2d.judged([far, np.concatenate([far, far[:5]]), square.centres[:1]], square)
    assert found["modes"] == [0, 0, 1]
    assert found["reverse_kl"][:2] == [np.inf, np.inf]
    p = np.array([2 / 30] * 5 + [1 / 30] * 20)
    expected = [0, np.log(25) + (p * np.log(p)).sum(), np.log(25)]
    assert found["reverse_kl_all"] == pytest.approx(expected, abs=1e-12)


def test_the_verdict_says_which_rows_differ_clearly_from_the_gan():
    def cell(modes, kl, kl_all):
        return {"modes": modes, "reverse_kl": kl, "reverse_kl_all": kl_all}

    usual = cell([6, 7, 6, 5], [0.4, 0.5, 0.6, 0.5], [np.inf, np.inf, 1.0, 1.0])
    found = {f"{row}, {data}": usual for row in pacgan_2d.ROWS for data in pacgan_2d.DATA}
    found["PacGAN2, ring"] = cell([8, 8, 8, 8], [0.1, 0.1, 0.11, 0.09], [0.1] * 4)
    found["WGAN-GP, grid"] = cell([2, 2, 3, 1], [2.1, 1.9, 2.0, 2.0], [0.1] * 4)
    lines = {line.split(" | ")[0][2:]: line for line in pacgan_2d.verdict(found).splitlines() if "|" in line}
    assert "GAN" not in lines
    assert lines["PacGAN2"] == "| PacGAN2 | >, 1.33 | <, 0.20 | ? | ?, 1.00 | ?, 1.00 | ? |"
    assert lines["WGAN-GP"] == "| WGAN-GP | ?, 1.00 | ?, 1.00 | ? | <, 0.33 | >, 4.00 | ? |"


def test_a_pile_that_diverges_is_judged_and_does_not_end_the_study(tmp_path):
    size = {**pacgan_2d.SIZES["quick"], "lr": 1e30, "falling": False, "steps": {"ring": 40, "grid": 40}}
    found = {
        f"{row}, {data}": pacgan_2d.cell(row, data, range(2), size, "numpy", tmp_path / row)
        for row in ("GAN", "WGAN-GP")
        for data in ("ring",)
    }
    sound = pacgan_2d.cell("GAN", "ring", range(2), pacgan_2d.SIZES["quick"], "numpy", tmp_path / "sound")
    assert "diverged" not in sound
    for row in pacgan_2d.ROWS:
        found.setdefault(f"{row}, ring", sound)
    for row in ("GAN", "WGAN-GP"):
        end = found[f"{row}, ring"]["diverged"]
        assert 0 <= end < 40
        assert found[f"{row}, ring"]["looks"][-1]["step"] == found[f"{row}, ring"]["step"] == end
        assert len(found[f"{row}, ring"]["modes"]) == 2
        assert f"| {row} (diverged at step {end}) |" in pacgan_2d.as_table(found, "ring")
    found |= {f"{row}, grid": found[f"{row}, ring"] for row in pacgan_2d.ROWS}
    found = json.loads(json.dumps(study._plain(found)))  # as they come back from the file
    pacgan_2d.verdict(found)
    pacgan_2d.figure(found, tmp_path / "figure.png")


def test_a_ring_that_diverges_is_judged_and_does_not_end_the_study(tmp_path):
    size = {**unrolled_ring.SIZES["quick"], "lr_d": 1e38, "lr_g": 1e38, "steps": 60}
    found = {
        name: unrolled_ring.row(name, range(2), size, "numpy", tmp_path / name) for name in unrolled_ring.ROWS
    }
    found = json.loads(json.dumps(study._plain(found)))
    for name, row in found.items():
        assert 0 <= row["diverged"] < 60, name
        assert row["looks"][-1]["step"] == row["snapshots"][-1]["step"] == row["diverged"]
        assert f"| {name} (diverged at step {row['diverged']}) |" in unrolled_ring.as_table(found)
    unrolled_ring.figure(found, 2, tmp_path / "figure.png")


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
    game = Game(g, d, by_name.loss(loss), *optimizers, by_name.penalty(penalty), separate=pack > 1)
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
    for pair, adams in (
        ((g, d), [trials.adam(network, 1, 0.05, (0.5, 0.9)) for network in (g, d)]),
        ((plain_g, plain_d), [Adam(n.parameters(), 0.05, (0.5, 0.9)) for n in (plain_g, plain_d)]),
    ):
        game = Game(*pair, by_name.loss("non-saturating"), *adams, separate=False)
        for step in range(5):
            real, z = (Tensor(part) for part in stream(7, "step", step).normal(size=(2, BATCH, 2)))
            simultaneous_step(game, real, z)
    z = Tensor(stream(0, "judged").normal(size=(BATCH, 2)))
    np.testing.assert_allclose(g.eval()(z).numpy(), plain_g.eval()(z).numpy(), rtol=1e-9)
