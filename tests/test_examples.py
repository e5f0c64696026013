"""The examples run as a user would run them, in a small size."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, folder):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "MPLCONFIGDIR": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def mnist_folder(tmp_path):
    """200 blots in MNIST's file format."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(np.array([2051, 200, 28, 28], ">i4").tobytes() + pixels.tobytes())
    return tmp_path


def test_mnist_mlp_gan(mnist_folder, tmp_path):
    done = run("mnist_mlp_gan.py", "--data-dir", mnist_folder, "--epochs", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "digits.png: 100 digits after 2 epochs\n"
    assert imread(tmp_path / "digits.png").shape[:2] == (280, 280)


def test_the_same_seed_draws_the_same_picture(mnist_folder, tmp_path):
    pictures = []
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        arguments = ["--data-dir", mnist_folder, "--epochs", 1, "--seed", seed, "--out", name]
        assert run("mnist_mlp_gan.py", *arguments, folder=tmp_path).returncode == 0
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "nowhere"], "No such file or directory: 'nowhere"),
        (["--backend", "cupy"], "backend 'cupy': "),
        (["--out", "no/such/folder.png", "--epochs", "1"], "No such file or directory: 'no/such/folder.png'"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, message, mnist_folder, tmp_path):
    if arguments[0] != "--data-dir":
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
