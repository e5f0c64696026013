"""minigan.performance: what it chooses for the process, and how that is taken back.

What the C library's malloc is told outlasts a test, so it is tried in a process of its own. In this one
keep_memory is False, or there is a C library that only listens.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

import minigan
from minigan import Tensor, nn, process
from minigan.errors import BackendError
from minigan.kernels import elementwise, norm, threads
from minigan.training import command_line

MIB = 1 << 20
TRIM, MMAP = -1, -3  # malloc's parameters, in glibc's numbering


def performance(size=None):
    return minigan.performance(size, keep_memory=False)


def blas_threads():
    return [info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]


def helpers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minigan")]


@pytest.fixture
def blas():
    """A function that says how many threads the BLAS uses: three, on however many cores, unless told."""
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        if not blas_threads() or set(blas_threads()) != {3}:
            pytest.skip("NumPy has no BLAS here whose threads can be set")
        yield lambda: set(blas_threads())


# -------------------------------------------------------------------------------- the threads


def test_inside_there_is_a_team_and_the_blas_uses_one_thread(blas):
    with performance(2) as choices:
        assert threads.team().size == 2
        assert blas() == {1}
        assert repr(choices) == "performance(threads=2, keep_memory=False, tf32=False)"
    assert threads.team() is None
    assert blas() == {3}


def test_undo_is_the_end_of_the_block(blas):
    choices = performance(2)
    assert (threads.team().size, blas()) == (2, {1})
    choices.undo()
    assert (threads.team(), blas()) == (None, {3})


def test_a_second_undo_does_nothing(blas):
    with performance(2) as choices:
        choices.undo()
        assert blas() == {3}
        with performance(4):
            choices.undo()
            assert (threads.team().size, blas()) == (4, {1})
    assert (threads.team(), blas()) == (None, {3})


def test_blocks_inside_blocks(blas):
    with performance(2):
        outer = threads.team()
        with performance(3):
            assert (threads.team().size, blas()) == (3, {1})
            with performance(1):
                assert (threads.team(), blas()) == (None, {3}), "the BLAS has its own threads"
            assert (threads.team().size, blas()) == (3, {1})
        assert threads.team() is outer
        assert blas() == {1}
    assert (threads.team(), blas()) == (None, {3})


def test_undone_in_the_order_they_were_made(blas):
    earlier, later = performance(2), performance(3)
    try:
        earlier.undo()
        assert (threads.team().size, blas()) == (3, {1}), "the later one still counts"
        later.undo()
        assert (threads.team(), blas()) == (None, {3})
    finally:
        later.undo()


def test_an_exception_takes_everything_back(blas):
    with pytest.raises(ZeroDivisionError), performance(2):
        _ = 1 / 0
    assert (threads.team(), blas()) == (None, {3})


def test_one_thread_leaves_the_blas_alone_and_hires_nobody(blas):
    with performance(1):
        assert (threads.team(), blas()) == (None, {3})
        step()
        assert not helpers()


def test_helpers_come_when_there_is_work_and_leave_at_the_end():
    assert not helpers()
    with performance(3):
        assert not helpers()
        step()
        found = helpers()
        assert 1 <= len(found) <= 2, "the caller is the third"
    assert not any(thread.is_alive() for thread in found)


def elsewhere(look):
    """What `look` returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(look()))
    thread.start()
    thread.join(timeout=60)
    return found[0]


def test_what_is_chosen_holds_in_every_thread(blas):
    with performance(2):
        assert elsewhere(lambda: (threads.team().size, blas())) == (2, {1})
        later = elsewhere(lambda: performance(3))
        assert (threads.team().size, blas()) == (3, {1}), "whichever of them chose"
        later.undo()
        assert (threads.team().size, blas()) == (2, {1})
    assert elsewhere(lambda: (threads.team(), blas())) == (None, {3})


def test_threads_that_choose_at_the_same_time(blas):
    """Each takes back its own: at the end everything is as it was."""
    together, results = threading.Barrier(3), []

    def train():
        for _ in range(10):
            together.wait(timeout=30)
            with performance(2):
                results.append((threads.team().size, blas()))

    workers = [threading.Thread(target=train) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert results == [(2, {1})] * 30
    assert (threads.team(), blas()) == (None, {3})


def test_two_threads_train_at_the_same_time():
    alone = step()
    with performance(2):
        found = []
        workers = [threading.Thread(target=lambda: found.append(step()), daemon=True) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=60)
    assert len(found) == 2
    for result in found:
        for a, b in zip(alone, result, strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=2e-5 * np.abs(a).max())


def test_numbers_too_large_are_no_warning_where_the_caller_expects_them():
    """As in a run that diverges: it is to end with a sentence of its own, not with one from a helper."""
    layer = nn.Conv2d(2, 3, 3, rng=0)
    layer.weight.data = layer.weight.data * np.float32(1e30)
    images = np.full((4, 2, 8, 8), 1e30, "float32")
    with performance(2):
        with np.errstate(all="ignore"):
            y = layer(images)
            y.sum().backward()
        assert not np.isfinite(y.data).all()
        with pytest.raises(RuntimeWarning, match=r"overflow|invalid"):
            layer(images)


def test_by_default_there_is_a_thread_for_each_core(monkeypatch):
    monkeypatch.setattr(process, "cores", lambda: 5)
    with performance() as choices:
        assert choices.threads == threads.team().size == 5


def test_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 4}, raising=False)
    assert process.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert process.cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert process.cores() == 1


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "2", (2,)])
def test_wrong_arguments_change_nothing(wrong, blas):
    says = r"^performance: threads must be (a whole number|1 or more), not"
    with pytest.raises((TypeError, ValueError), match=says):
        performance(wrong)
    assert (threads.team(), blas()) == (None, {3})


# ------------------------------------------------------------------------------------ results


def dcgan():
    generator = nn.Sequential(
        nn.Reshape(12, 1, 1),
        nn.ConvTranspose2d(12, 16, 7, bias=False, rng=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False, rng=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, rng=3), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, rng=4), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1, bias=False, rng=5), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 7, rng=6), nn.Flatten(),
    )  # fmt: skip
    return generator, discriminator


def step():
    """The loss of a generator on a batch of 7, and its gradients."""
    generator, discriminator = dcgan()
    z = Tensor(np.random.default_rng(0).normal(size=(7, 12)).astype("float32"))
    loss = minigan.softplus(-discriminator(generator(z))).mean()
    loss.backward()
    parameters = [*generator.parameters(), *discriminator.parameters()]
    return [loss.data, *(p.grad.data for p in parameters)]


@pytest.mark.parametrize("size", [2, 3])
def test_results_differ_by_rounding_only(size, monkeypatch):
    for module in (norm, elementwise):  # so that every kernel divides its work
        monkeypatch.setattr(module, "WORTH", 1)
        monkeypatch.setattr(module, "PIECE", 1000)
    before = step()
    with performance(size):
        inside = step()
    after = step()
    for a, b, c in zip(before, inside, after, strict=True):
        for other in (b, c):
            np.testing.assert_allclose(other, a, rtol=0, atol=2e-5 * np.abs(a).max())


# ------------------------------------------------------------------------------------- memory


@pytest.fixture
def libc(monkeypatch):
    """A C library that writes down what it is told. It refuses thresholds for mmap above `libc.most`."""
    told = []

    def mallopt(name, value):
        if name == MMAP and value > library.most:
            return 0
        told.append((name, value))
        return 1

    library = SimpleNamespace(
        told=told, most=2**31, mallopt=mallopt, malloc_trim=lambda pad: told.append(("given back", pad))
    )
    real = ctypes.CDLL  # of other libraries, which threadpoolctl looks at
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **how: real(name, **how) if name else library)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return library


def test_what_malloc_is_told(libc):
    with minigan.performance(1) as choices:
        inside = dict(libc.told)
        assert inside[MMAP] > 64 * MIB, "large arrays come from the heap"
        assert inside[TRIM] > 1024 * MIB, "which never shrinks"
        libc.told.clear()
    end = dict(libc.told)
    assert end[MMAP] < inside[MMAP]
    assert end[TRIM] < inside[TRIM]
    assert libc.told[-1] == ("given back", 0)
    libc.told.clear()
    choices.undo()
    assert libc.told == []


def test_an_exception_gives_the_memory_back(libc):
    with pytest.raises(ZeroDivisionError), minigan.performance(1):
        _ = 1 / 0
    assert libc.told[-1] == ("given back", 0)


def test_malloc_is_told_nothing_unless_asked(libc):
    with performance(2):
        pass
    assert libc.told == []


def test_without_glibc_keep_memory_does_nothing(libc, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with minigan.performance(2):
        assert threads.team().size == 2
    assert libc.told == []


def test_an_older_glibc_takes_no_more_than_32_mib(libc):
    """A trim threshold alone would only turn glibc's own adaptation off."""
    libc.most = 32 * MIB
    with minigan.performance(1):
        inside = dict(libc.told)
    assert inside == {} or MMAP in inside
    assert inside == {} or libc.told[-1] == ("given back", 0)


glibc_only = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="the C library is not glibc, which alone is told to keep memory",
)

MEASURE = """
import json, os, resource
import numpy as np
import minigan

def resident():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def arrays(n):
    '''n arrays of 8 MiB, all of it touched.'''
    found = [np.empty(1 << 20) for _ in range(n)]
    for array in found:
        array.fill(1.0)
    return found

def faults():
    '''Page faults while ten times eight such arrays come and go.'''
    arrays(8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        arrays(8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""


def measured(code):
    """What `code` prints, as a value, in a process of its own, with the C library's malloc as it comes."""
    mine = ("LD_PRELOAD", "GLIBC_TUNABLES")
    env = {k: v for k, v in os.environ.items() if k not in mine and not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + code], capture_output=True, text=True, timeout=120, env=env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@glibc_only
def test_memory_that_is_kept_causes_no_page_faults():
    before, inside, after = measured("""
before = faults()
with minigan.performance(threads=1):
    inside = faults()
print(json.dumps([before, inside, faults()]))
""")
    assert before > 10 * inside
    assert after > 10 * inside, "and afterwards it is as it was"


@glibc_only
def test_memory_is_kept_until_the_outermost_block_ends():
    before, inside = measured("""
before = faults()
with minigan.performance(threads=1):
    with minigan.performance(threads=1):
        pass
    inside = faults()
print(json.dumps([before, inside]))
""")
    assert before > 10 * inside


@glibc_only
def test_memory_is_given_back_at_the_end():
    start, kept, end = measured("""
start = resident()
with minigan.performance(threads=1):
    many = arrays(25)
    del many
    kept = resident()
print(json.dumps([start, kept, resident()]))
""")
    assert kept - start > 150  # of 200 MiB
    assert end - start < 50


# --------------------------------------------------------------------------------------- TF32

# The names are those of CuPy 13.6 and 14.2, where they were looked up.


class Products:
    """What CuPy calls `_core`: it knows in what to compute products of each type, and writes down changes."""

    def __init__(self):
        self.types, self.told = {"float32": "as it was"}, []
        self._routines_linalg = SimpleNamespace(COMPUTE_TYPE_TF32="TF32")

    def get_compute_type(self, dtype):
        return self.types[dtype]

    def set_compute_type(self, dtype, kind):
        self.told.append(kind)
        self.types[dtype] = kind


@pytest.fixture
def products(monkeypatch):
    """A CuPy that is in use already."""
    core = Products()
    cupy = SimpleNamespace(xp=SimpleNamespace(_core=core))
    monkeypatch.setitem(minigan.backend._by_name, "cupy", cupy)
    return core


def exactly(**choices):
    return minigan.performance(1, keep_memory=False, **choices)


def test_tf32_inside_and_no_more_afterwards(products):
    with exactly(tf32=True) as choices:
        assert products.types == {"float32": "TF32"}
        assert choices.tf32
    assert products.types == {"float32": "as it was"}
    choices.undo()
    assert products.told == ["TF32", "as it was"]


def test_no_tf32_unless_asked(products):
    with exactly(), exactly(tf32=False) as choices:
        assert not choices.tf32
    assert products.told == []


def test_tf32_as_long_as_one_says_so(products):
    """A Trainer makes choices of its own inside those of a program with --tf32."""
    with exactly(tf32=True):
        with exactly():
            assert products.types == {"float32": "TF32"}
        with exactly(tf32=True):
            pass
        assert products.types == {"float32": "TF32"}
    assert products.told == ["TF32", "as it was"]


def test_an_exception_takes_tf32_back(products):
    with pytest.raises(ZeroDivisionError), exactly(tf32=True):
        _ = 1 / 0
    assert products.types == {"float32": "as it was"}


def test_tf32_where_there_is_no_cupy_changes_nothing(monkeypatch, blas):
    monkeypatch.setattr(minigan.backend, "_by_name", {"numpy": minigan.backend.get("numpy")})
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"^backend 'cupy': CuPy "):
        minigan.performance(2, keep_memory=False, tf32=True)
    assert (threads.team(), blas()) == (None, {3})
    assert not process.performance._in_force


def test_a_cupy_that_cannot_be_told(products):
    del products._routines_linalg.COMPUTE_TYPE_TF32
    with pytest.raises(BackendError, match=r"^performance: .* start Python with CUPY_TF32=1$"):
        exactly(tf32=True)
    assert products.told == []


def test_cupy_is_not_imported_for_the_other_choices(tmp_path):
    (tmp_path / "cupy.py").write_text("raise SystemExit('imported')")
    code = "import minigan\nwith minigan.performance(2): pass\nprint('done')"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert (done.stdout, done.stderr) == ("done\n", "")


def program(*argv):
    """In what products are computed while a training program runs with these arguments."""
    seen = []

    def train(options):
        cupy = minigan.backend._by_name.get("cupy")
        seen.append(cupy and cupy.xp._core.types["float32"])

    command_line.run(
        train, command_line.arguments("A program.", "program", epochs=1), ["--out", "run", *argv]
    )
    return seen


def test_a_program_with_tf32(products, capsys):
    assert program("--backend", "cupy", "--tf32") == ["TF32"]
    assert products.types == {"float32": "as it was"}
    assert program("--backend", "cupy") == ["as it was"]
    assert capsys.readouterr().out == ""


def test_a_program_says_that_tf32_has_no_effect_on_numpy(products, capsys):
    assert program("--tf32") == ["as it was"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith("--tf32 has no effect on the backend numpy")
    assert program("--tf32", "--quiet") == ["as it was"]
    assert program() == ["as it was"]
    assert capsys.readouterr().out == ""
    assert products.told == []


# -------------------------------------------------------------------------------- the others


def test_importing_minigan_changes_nothing_in_the_process():
    """Nor does working with it, as long as nobody asks for performance."""
    code = """
import os, signal, sys, threading, warnings
import numpy as np, threadpoolctl

def state():
    tasks = "/proc/self/task"  # Linux: the BLAS's threads, too
    return {
        "threads": threading.active_count(),
        "threads of the system": os.path.isdir(tasks) and len(os.listdir(tasks)),
        "blas": [info["num_threads"] for info in threadpoolctl.threadpool_info()],
        "environment": dict(os.environ),
        "errors": np.geterr(),
        "printing": np.get_printoptions(),
        "warnings": list(warnings.filters),
        "random": np.random.get_state()[1].tolist(),
        "interrupt": signal.getsignal(signal.SIGINT),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval()),
    }

np.ones((200, 200)) @ np.ones((200, 200))  # the BLAS starts its threads
before = state()
import minigan
from minigan import nn
layer = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
layer(np.ones((8, 3, 30, 30), "float32")).sum().backward()
after = state()
print(*(name for name in before if before[name] != after[name]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
