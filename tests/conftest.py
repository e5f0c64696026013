"""The backends that tests run on, Hypothesis's profiles, and how many processes share the tests.

A test that takes the fixture `backend` runs on `numpy` and `strict`, and on `cupy` where there is a
device. `pytest --backend cupy` runs on that one only, and fails if it is not there.

Whole folders of tests are shared between as many processes as there are cores, single files are not:
starting the processes would take longer. `pytest -n 3` says how many, and `pytest -n 0` has only one.
"""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from cupy_on_cpu import fake_gpu
from hypothesis import HealthCheck, settings

import minigan as mg
import minigan.testing.strict  # makes the backend "strict" known
from minigan.errors import BackendError

# A shell that runs us in the background has us ignore Ctrl-C, and a run leaves an ignored signal alone. The
# tests that press it want it heard, here and in the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["cupy_on_cpu"]
NAMES = ("numpy", "strict", "cupy")

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=20, **common)
settings.register_profile("ci", max_examples=100, derandomize=True, print_blob=True, **common)
settings.register_profile("long", max_examples=500, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

MOST_WORKERS = 8  # each of them needs a second or two to find all tests


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Choose a number of processes where the command line does not."""
    option = config.option
    if "PYTEST_XDIST_WORKER" in os.environ or hasattr(config, "workerinput"):
        return  # this is one of them
    if getattr(option, "numprocesses", 0) is not None:
        return  # chosen already, or there is no pytest-xdist
    if option.usepdb or option.collectonly or option.backend == "cupy":
        return  # there is one keyboard, and one GPU
    workers = min(mg.process.cores(), MOST_WORKERS)
    if workers > 1 and any(Path(name.split("::")[0]).is_dir() for name in config.args):
        option.numprocesses = workers
        if option.dist == "no":
            option.dist = "worksteal"  # neighbours share fixtures, so they stay together while they can
        # They read it before NumPy does. With as many threads in each as there are cores, all would wait.
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def pytest_addoption(parser):
    parser.addoption("--backend", choices=NAMES, help="run the tests that take a backend on this one only")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", [chosen] if chosen else NAMES, indirect=True)


@pytest.fixture
def backend(request):
    """The name of an array library that works here."""
    try:
        mg.backend.get(request.param)
    except BackendError as error:
        if request.config.getoption("--backend"):
            raise
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def cupy(request):
    """The module cupy, for a test of what only a GPU has; see tests/cupy_on_cpu where there is none."""
    chosen = request.config.getoption("--backend")
    if chosen not in (None, "cupy"):
        pytest.skip("a test of CuPy")
    try:
        return mg.backend.get("cupy").xp
    except BackendError as error:
        if chosen:
            raise
        pytest.skip(str(error))


@pytest.fixture
def counting(cupy):
    """Counts what is asked of the GPU that is not there (cupy_on_cpu/fake_gpu.py)."""
    if not fake_gpu.there():
        pytest.skip("launches are counted by tests/cupy_on_cpu only")
    return fake_gpu.counting


@pytest.fixture
def rng():
    return np.random.default_rng(20141210)


def pytest_terminal_summary(terminalreporter):
    """Say how many mutants there were: wrong ops and wrong gradients, which the checks must notice."""
    caught, missed = (
        sum("mutant" in report.keywords for report in terminalreporter.getreports(outcome))
        for outcome in ("passed", "failed")
    )
    if caught or missed:
        terminalreporter.write_line(f"{caught} of {caught + missed} mutants caught")
