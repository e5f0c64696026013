"""The examples run as a user would run them, in a small size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from minigan.data import write_idx

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, folder):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    fonts = folder.parent / "matplotlib"  # all tests share what Matplotlib finds out about the fonts
    environment = {**os.environ, "MPLCONFIGDIR": str(fonts), "XDG_CACHE_HOME": str(folder / "cache")}
    environment["PYTHONIOENCODING"] = "utf-8"
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120
    )


@pytest.fixture
def mnist_folder(tmp_path):
    """Some blots in MNIST's file format."""
    rng, folder = np.random.default_rng(0), tmp_path / "files"
    folder.mkdir()
    for part, count in (("train", 200), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count).astype(np.uint8))
    return folder


def checkpoint(folder):
    with np.load(folder / "checkpoint.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name != "trainer.seconds"}


@pytest.mark.parametrize("flags", [[], ["--capture"]], ids=["eager", "capture"])
def test_mnist_mlp_gan_on_cupy(flags, cupy, mnist_folder, tmp_path):
    arguments = ["--backend", "cupy", "--data-dir", mnist_folder, "--epochs", 5, *flags]
    done = run("mnist_mlp_gan.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("epoch   5  step     10  L_D ")
    assert "eagerly" not in done.stdout


@pytest.mark.parametrize("recipe", ["default", "plain", "wide", "tutorial"])
def test_mnist_mlp_gan(recipe, mnist_folder, tmp_path):
    arguments = ["--data-dir", mnist_folder, "--epochs", 2, "--recipe", recipe]
    done = run("mnist_mlp_gan.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("epoch   2  step      4  L_D ")
    folder = tmp_path / "runs" / "mnist_mlp_gan-1"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    pictures = {f"samples/epoch_000{i}.png" for i in range(3)}
    assert (
        there >= {"config.json", "metrics.jsonl", "curves.png", "checkpoint.npz", "progress.gif"} | pictures
    )
    assert imread(folder / "samples/epoch_0002.png").shape[:2] == (298, 298)
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["recipe"] == recipe
    assert config["settings"]["loss"]["name"] == "non-saturating"


def test_a_second_run_gets_a_folder_of_its_own(mnist_folder, tmp_path):
    for _ in range(2):
        done = run("mnist_mlp_gan.py", "--data-dir", mnist_folder, "--epochs", 1, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "mnist_mlp_gan-1",
        "mnist_mlp_gan-2",
    ]
    assert checkpoint(tmp_path / "runs/mnist_mlp_gan-1") == checkpoint(tmp_path / "runs/mnist_mlp_gan-2")


def test_a_run_goes_on_where_it_ended(mnist_folder, tmp_path):
    for name, epochs in (("whole", 3), ("parts", 1)):
        run(
            "mnist_mlp_gan.py", "--data-dir", mnist_folder, "--epochs", epochs, "--out", name, folder=tmp_path
        )
    done = run("mnist_mlp_gan.py", "--resume", "parts", "--epochs", 3, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert checkpoint(tmp_path / "parts") == checkpoint(tmp_path / "whole")


@pytest.mark.parametrize("loss", ["began", "gmmn", "rpgan", "kl"])
@pytest.mark.filterwarnings("ignore")
def test_losses_by_name(loss, mnist_folder, tmp_path):
    arguments = ["--data-dir", mnist_folder, "--epochs", 1, "--loss", loss, "--quiet"]
    done = run("mnist_mlp_gan.py", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("penalty", ["gp", "r1-r2", "clip", "spectral", "consensus"])
def test_penalties_by_name(penalty, mnist_folder, tmp_path):
    arguments = ["--data-dir", mnist_folder, "--epochs", 1, "--penalty", penalty]
    done = run("mnist_mlp_gan.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("penalty", ["none", "gp", "clip", "spectral", "dragan"])
def test_penalties_in_the_plane(penalty, tmp_path):
    done = run("toy_2d.py", "--penalty", penalty, "--epochs", 1, "--d-steps", 5, folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist_mlp_gan.py", "--loss", "gmmn", "--penalty", "r1"], "gmmn has no discriminator"),
        (["mnist_mlp_gan.py", "--penalty", "clip", "--penalty-weight", "2"], "'clip' has no option weight"),
        (["mnist_dcgan.py", "--loss", "began"], "a D that draws images"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(arguments, message, mnist_folder, tmp_path):
    done = run(*arguments, "--data-dir", mnist_folder, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "nowhere"], "nowhere"),
        (["--backend", "cupy"], "backend 'cupy': "),
        (["--out", "files/train-images-idx3-ubyte.gz/run"], "Not a directory"),
        (["--resume", "nowhere"], "nowhere/config.json"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, message, mnist_folder, tmp_path):
    if arguments[0] not in ("--data-dir", "--resume"):
        arguments = [*arguments, "--data-dir", str(mnist_folder)]
    if "cupy" in arguments:
        from minigan.backend import available

        if "cupy" in available():
            pytest.skip("CuPy works here")
    done = run("mnist_mlp_gan.py", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--filters", 4], ["--conv-d"]])
def test_mnist_dcgan_and_sample(arguments, mnist_folder, tmp_path):
    done = run("mnist_dcgan.py", "--data-dir", mnist_folder, "--epochs", 1, *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "mnist_dcgan-1"
    done = run("sample.py", folder, "--count", 12, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shapes = [imread(folder / f"{name}.png").shape[:2] for name in ("grid", "interpolation", "nearest")]
    assert [(height + 2) // 30 for height, _ in shapes] == [3, 8, 10]


@pytest.mark.parametrize("data", ["ring", "grid", "swiss-roll"])
def test_toy_2d(data, tmp_path):
    done = run("toy_2d.py", "--data", data, "--epochs", 1, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert imread(tmp_path / "runs/toy_2d-1/samples/epoch_0001.png").ndim == 3


def test_gradcheck_your_own_op(tmp_path):
    done = run("gradcheck_your_own_op.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [part.splitlines() for part in done.stdout.strip().split("\n\n")]
    assert [answer[1].strip() == "all right" for answer in answers] == [True, False] * 4
    for i, words in ((1, "order 1"), (3, "order 2"), (5, "broadcasts=True"), (7, "not the adjoint")):
        assert words in answers[i][1]
