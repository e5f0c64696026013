"""python -m minigan: what it says about this machine, and that nothing keeps it from saying it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minigan
from minigan import info
from minigan.backend import BackendError

ROOT = Path(__file__).parent.parent

# Modules `cupy` for the programs that these tests start. The first is not there, as far as Python can tell.
NOT_THERE = "raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')"
BROKEN = "raise OSError('libcudart.so.13: wrong ELF class')"
NO_DRIVER = """
from types import SimpleNamespace

class ndarray: pass

def count():
    raise RuntimeError('cudaErrorInsufficientDriver: CUDA driver version is insufficient')

runtime = SimpleNamespace(
    getDeviceCount=count, runtimeGetVersion=lambda: 13020, driverGetVersion=lambda: 0
)
cuda = SimpleNamespace(runtime=runtime)
"""
TWO_GPUS = """
from types import SimpleNamespace
import numpy as np

class ndarray(np.ndarray): pass

def ones(shape, dtype):
    return np.ones(shape, dtype).view(ndarray)

def asarray(array):
    return np.asarray(array).view(ndarray)

asnumpy = np.asarray
runtime = SimpleNamespace(
    getDeviceCount=lambda: 2,
    getDevice=lambda: 0,
    getDeviceProperties=lambda i: {
        "name": [b"GPU of a test", b"Another"][i], "major": 9, "minor": i, "totalGlobalMem": 80 * 2**30
    },
    memGetInfo=lambda: (79 * 2**30, 80 * 2**30),
    runtimeGetVersion=lambda: 12090,
    driverGetVersion=lambda: 13010,
)
cuda = SimpleNamespace(runtime=runtime)
"""


def surroundings(folder, cupy=NOT_THERE, **variables):
    """The environment of a program that finds this text as its module cupy."""
    (folder / "modules" / "cupy").mkdir(parents=True, exist_ok=True)
    (folder / "modules" / "cupy" / "__init__.py").write_text(cupy)
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MINIGAN_DATA", "CUPY_CACHE_DIR")
    }
    mine = {
        "PYTHONPATH": os.pathsep.join([str(folder / "modules"), str(ROOT)]),
        "PYTHONIOENCODING": "utf-8",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    return {**kept, **mine, **variables}


@pytest.fixture
def ask(tmp_path):
    """Run python -m minigan with these arguments, in these surroundings."""

    def run(*arguments, **changes):
        command = [sys.executable, "-W", "error", "-m", "minigan", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=surroundings(tmp_path, **changes), capture_output=True,
            encoding="utf-8", timeout=120,
        )  # fmt: skip

    return run


def test_alone_it_says_what_there_is(ask):
    for arguments in ([], ["--help"]):
        done = ask(*arguments)
        assert done.returncode == 0, done.stderr
        assert "info: what works on this machine, and what is missing" in done.stdout
        assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inform"], "there is no command 'inform'; there is: info"),
        (["info", "--yaml"], "--yaml"),
        (["info", "more"], "more"),
        (["--json"], "--json goes with info"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(ask, arguments, words):
    done = ask(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("python -m minigan: ")
    assert words in line
    assert not done.stdout


def test_info_without_cupy(ask, tmp_path):
    done = ask("info")
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout
    assert f"minigan {minigan.__version__}, Python {sys.version.split()[0]}" in words
    for name in ("numpy", "scipy", "matplotlib"):
        assert f"  {name}" in words
    assert "multiplied by " in words
    cupy = words[words.index("  numpy  works\n  cupy   CuPy ") :].splitlines()[1]
    assert "pip install " in cupy or "docs/gpu.md" in cupy  # not installed, or its package is broken
    assert f"  cache  {tmp_path / 'cache' / 'minigan'}: not there\n" in words
    assert not (tmp_path / "cache").exists()  # it was only asked whether it could be made


def test_info_for_machines(ask, tmp_path):
    (tmp_path / "cache" / "minigan").mkdir(parents=True)
    done = ask("info", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["minigan"] == minigan.__version__
    assert found["packages"]["numpy"] == minigan.backend.np.__version__
    assert found["backends"]["numpy"] is None
    assert "CuPy" in found["backends"]["cupy"]
    assert found["cuda"]["devices"] == []
    assert found["cores"] == minigan.process.cores()
    cache = tmp_path / "cache" / "minigan"
    assert found["folders"]["cache"] == {"folder": str(cache), "exists": True, "writable": True}
    assert list(cache.iterdir()) == []


def test_info_with_gpus(ask):
    done = ask("info", cupy=TWO_GPUS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  cupy   works\n" in done.stdout
    assert "  driver   CUDA 13.1\n  runtime  CUDA 12.9\n" in done.stdout
    one = "0: GPU of a test, compute capability 9.0, 79.0 GiB of 80.0 GiB free, in use"
    assert f"  devices  {one}\n  devices  1: Another, compute capability 9.1, 80.0 GiB\n" in done.stdout
    found = json.loads(ask("info", "--json", cupy=TWO_GPUS).stdout)
    assert found["backends"]["cupy"] is None
    assert [gpu["free"] for gpu in found["cuda"]["devices"]] == [79 * 2**30, None]


@pytest.mark.parametrize(
    ("cupy", "words"),
    [
        (BROKEN, "CuPy does not load (libcudart.so.13: wrong ELF class)"),
        ("1 +", "CuPy does not load (invalid syntax"),
        ("", "CuPy does not load (module 'cupy' has no attribute 'cuda')"),
        (NO_DRIVER, "there is no NVIDIA driver"),
    ],
    ids=["broken", "no Python", "empty", "no driver"],
)
def test_info_with_a_cupy_that_does_not_work(ask, cupy, words):
    done = ask("info", cupy=cupy)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  cupy   {words}" in done.stdout


def test_info_where_nothing_can_be_kept(ask, tmp_path):
    (tmp_path / "file").touch()  # where a folder would have to be; root, too, is kept from writing there
    done = ask("info", XDG_CACHE_HOME=str(tmp_path / "file" / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"  cache  {tmp_path / 'file' / 'cache' / 'minigan'}: not there, and CANNOT be written" in done.stdout
    )
    assert "XDG_CACHE_HOME" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems find their caches in other ways")
@pytest.mark.parametrize("home", ["", "/does/not/exist", "\udcff"])
def test_info_for_a_home_that_is_none(ask, home):
    for arguments in (["info"], ["info", "--json"]):
        done = ask(*arguments, HOME=home, XDG_CACHE_HOME="")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "minigan" in done.stdout


def test_a_data_folder_that_is_none_is_told(ask, tmp_path):
    done = ask("info", MINIGAN_DATA=str(tmp_path / "nowhere"))
    assert f"  $MINIGAN_DATA  {tmp_path / 'nowhere'}: not there\n" in done.stdout


def test_what_cannot_be_found_out_is_said_to_be_so(monkeypatch):
    def fails(*arguments):
        raise RuntimeError("not\ntoday")

    monkeypatch.setattr(info.process, "blas", fails)
    monkeypatch.setattr(info.process, "cores", fails)
    monkeypatch.setattr(info.platform, "platform", fails)
    monkeypatch.setattr(info.cuda, "cupy_wheels", fails)
    monkeypatch.setattr(info.cuda, "cuda_of_driver", fails)
    monkeypatch.setattr(info.backend, "get", fails)
    monkeypatch.setattr(info, "user_cache", fails)
    found = info.report()
    why = "cannot be found out (RuntimeError: not today)"
    for key in ("system", "cores", "blas", "packages", "cuda", "folders"):
        assert found[key] == why, key
    assert found["backends"] == {"numpy": "not today", "cupy": "not today"}
    words = "\n".join(info.lines(json.loads(json.dumps(found))))
    assert words.count(why) == 6


def test_a_user_without_a_home(monkeypatch):
    def no_home():
        raise FileNotFoundError("no folder for a cache: Could not determine home directory.")

    monkeypatch.setattr(info, "user_cache", no_home)
    found = info.report()
    assert "no folder for a cache: Could not determine home directory." in found["folders"]["cache"]
    assert any("no folder for a cache" in line for line in info.lines(found))


def test_a_package_that_is_not_there_is_missing(monkeypatch):
    real = info.metadata.version

    def version(name):
        if name in ("safetensors", "scipy"):
            raise info.metadata.PackageNotFoundError(name)
        return "1.0" if name == "tensorboardX" else real(name)

    monkeypatch.setattr(info.metadata, "version", version)
    found = info.report()
    assert (found["packages"]["safetensors"], found["packages"]["tensorboardX"]) == (None, "1.0")
    words = "\n".join(info.lines(found))
    assert "  scipy          not installed (minigan needs it)\n" in words
    assert "  safetensors    not installed (for weights in .safetensors files)\n" in words
    assert "  tensorboardX   1.0\n" in words


@pytest.mark.parametrize(("driver", "said"), [(0, None), (13000, "13.0")])
def test_the_driver_is_shown_without_cupy_too(monkeypatch, driver, said):
    def get(name):
        raise BackendError(f"backend {name!r}: CuPy is not installed; pip install it")

    monkeypatch.setattr(info.backend, "get", get)
    monkeypatch.setattr(info.cuda, "cuda_of_driver", lambda: driver)
    found = info.report()
    assert found["backends"]["cupy"] == "CuPy is not installed; pip install it"
    assert found["cuda"]["driver"] == said
    assert f"  driver   {f'CUDA {said}' if said else 'none'}" in info.lines(found)


def test_info_is_quick_for_it_loads_little(tmp_path):
    code = "import sys; from minigan.__main__ import main; main(['info']); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=surroundings(tmp_path), capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "minigan" in loaded
    assert not {"matplotlib", "scipy", "PIL", "tqdm", "hypothesis", "torch"} & loaded


def test_nobody_has_to_read_to_the_end(tmp_path):
    command = [sys.executable, "-m", "minigan", "info"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=surroundings(tmp_path), **pipes) as process:
        process.stdout.close()  # before it says anything
        assert process.stderr.read() == b""
    assert process.returncode == 0
