"""The backends that tests run on, and Hypothesis's profiles.

A test that takes the fixture `backend` runs on `numpy` and `strict`, and on `cupy` where there is a
device. `pytest --backend cupy` runs on that one only, and fails if it is not there.
"""

import os
import signal

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
