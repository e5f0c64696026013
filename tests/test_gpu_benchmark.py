"""benchmarks/gpu.py on a machine that may have no GPU: its dry run, its counts, how it takes time."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import gpu

MLP, DCGAN = (gpu.CASES[name] for name in ("mlp", "dcgan"))


def parameters(title, few=64, many=128):
    """Of G and of D: weights, then biases and the two numbers a channel of batch normalisation."""
    if title == MLP.title:
        g = 100 * 256 + 256 * 256 + 256 * 784 + (256 + 256 + 784)
        return [g, 784 * 256 + 256 * 256 + 256 + (256 + 256 + 1)]
    g = 100 * many * 49 + 16 * many * few + 16 * few + (many * 49 + 2 * many + few + 2 * few + 1)
    return [g, 16 * few + 16 * few * many + many * 49 + (few + many + 2 * many + 1)]


def run(*arguments, **env):
    command = [sys.executable, gpu.__file__, *arguments]
    env = {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """What a dry run without PyTorch prints, and what it writes."""
    file = tmp_path_factory.mktemp("gpu") / "found.json"
    done = run("--dry-run", "--without-torch", "--rounds", "2", "--steps", "2", "--json", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_a_dry_run_says_first_that_its_numbers_mean_nothing(dry):
    first = dry[0].splitlines()[0]
    assert first == first.upper()
    assert "DRY RUN" in first
    assert "MEAN NOTHING" in first


def test_a_dry_run_ends_with_its_table(dry):
    lines = dry[0].splitlines()
    start = lines.index(gpu.COLUMNS)
    table = lines[start + 2 :]
    batches = [("mlp", 2), ("mlp", 4), ("dcgan", 2)]
    expected = [
        (gpu.CASES[case].title, batch, tf32, program)
        for case, batch in batches
        for tf32 in ("off", "on")
        for program in ("minigan", "minigan captured")
    ]
    found = [
        (line[:27].strip(), int(line[27:33]), line[33:38].strip(), line[40:57].strip()) for line in table
    ]
    assert found == expected
    for line in table:
        if "not there" in line:
            assert line[40:].startswith("minigan captured   not there: ")
            assert len(line.partition("not there: ")[2]) > 10
        else:
            assert len(line) == len(gpu.COLUMNS)
            assert float(line[57:66]) >= float(line[66:75]) > 0


def test_a_dry_run_writes_all_that_it_measured(dry):
    found = dry[1]
    assert set(found) == {"options", "machine", "rates", "rows"}
    assert len(found["rows"]) == 12
    for row in found["rows"]:
        if row["missing"] is None:
            assert len(row["seconds"]) == 2
            assert row["least"] == min(row["seconds"]) > 0
            assert row["parameters"] == parameters(row["case"], *gpu.DRY_CHANNELS)
            assert all(0 < loss < 10 for loss in row["losses"])
            assert row["peak"] is None
            assert row["arithmetic"] == pytest.approx(row["flop"] / found["rates"]["flop"])
            assert row["memory"] == pytest.approx(row["bytes"] / found["rates"]["bytes"])
        else:  # the backend of a dry run may not know how to record
            assert row["program"] == "minigan captured"
    assert [row["missing"] for row in found["rows"] if row["program"] == "minigan"] == [None] * 6


def test_bars_of_the_plain_program_are_for_full_precision(dry):
    bars = {(row["case"], row["tf32"]): row["bars"] for row in dry[1]["rows"] if row["program"] == "minigan"}
    assert bars == {
        (MLP.title, False): {"torch": 1.0}, (MLP.title, True): {},
        (DCGAN.title, False): {"torch": 1.3}, (DCGAN.title, True): {},
    }  # fmt: skip


@pytest.mark.torch
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("tuned", [False, True])
def test_a_dry_run_beside_pytorch(tmp_path, tuned):
    file = tmp_path / "found.json"
    more = ["--tuned"] if tuned else []
    done = run("--dry-run", "--only", "mlp", "--rounds", "1", "--steps", "1", "--json", str(file), *more)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [row["program"] for row in rows[:4]] == list(gpu.PROGRAMS.values())
    assert [row["parameters"] for row in rows if row["program"] == "torch"] == [parameters(MLP.title)] * 4
    assert all(row["ratios"]["torch"] > 0 for row in rows if row["program"] == "minigan")
    assert {row["missing"] for row in rows if row["program"] == "torch graph"} == {
        "RuntimeError: a CUDA graph needs a GPU"
    }


def test_without_a_device_there_is_one_line_and_exit_code_2():
    done = run(CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"gpu\.py: backend 'cupy': [^\n]{10,}\n", done.stderr)


# ------------------------------------------------------------------------------------- the counts


def test_the_work_of_a_step_of_the_mlp_by_hand():
    """784 → 256 → 256 → 1 for D, 100 → 256 → 256 → 784 for G. A multiplication and an addition: 2 FLOP."""
    d = 784 * 256 + 256 * 256 + 256 * 1
    g = 100 * 256 + 256 * 256 + 256 * 784
    an_image = (
        2 * (d + d + (d - 784 * 256))  # D's step, real and fake: forward, weights, inputs but not the images'
        + (d + d)  # G's step: through D, and back to the images
        + (g + g + (g - 100 * 256))  # G: forward, weights, inputs but not the noise's
    )
    assert an_image == 2_580_480
    outputs = 4 * ((256 + 256 + 784) + 3 * (256 + 256 + 1)) + 2 * (784 + 100)
    numbers = sum(parameters(MLP.title))
    for batch in (1, 100, 1024):
        assert gpu.work_of(MLP, batch) == (2 * batch * an_image, 4 * (8 * numbers + batch * outputs))


def test_the_work_of_a_step_of_the_dcgan_by_hand():
    """Each layer: kernel · channels in · channels out · places where the kernel lies."""
    d = [16 * 1 * 64 * 14 * 14, 16 * 64 * 128 * 7 * 7, 6272]
    g = [100 * 6272, 16 * 128 * 64 * 7 * 7, 16 * 64 * 1 * 14 * 14]
    an_image = 2 * (3 * sum(d) - d[0]) + 2 * sum(d) + 3 * sum(g) - g[0]
    outputs = 4 * ((6272 + 64 * 196 + 784) + 3 * (64 * 196 + 128 * 49 + 1)) + 2 * (784 + 100)
    numbers = sum(parameters(DCGAN.title))
    assert gpu.work_of(DCGAN, 100) == (200 * an_image, 4 * (8 * numbers + 100 * outputs))


def test_there_are_as_many_images_as_in_mnist_in_whole_batches():
    counts = [gpu.count_of(batch, dry=False) for case in gpu.CASES.values() for batch in case.batches]
    assert counts == [60_000, 58 * 1024, 60_000, 117 * 512]


# ---------------------------------------------------------------------------- how time is taken


def work_with(monkeypatch, runner, requests):
    """What a worker with this runner answers."""
    answers = io.StringIO()
    monkeypatch.setattr(sys, "stdout", answers)
    monkeypatch.setattr(sys, "stdin", io.StringIO(requests))
    monkeypatch.setattr(gpu, "runner_of", lambda options: runner)
    gpu.work(SimpleNamespace(dry_run=False))
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_a_turn_warms_up_waits_and_times_so_many_steps(monkeypatch):
    did, clock = [], iter([10.0, 13.0])

    def step():
        did.append("step")
        return 0.5, 0.75

    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: did.append("clock") or next(clock)))
    runner = gpu.Runner(step, lambda: did.append("wait"), lambda: 7, (1, 2))
    ready, turn = work_with(monkeypatch, runner, "30\n")
    assert ready == {"parameters": [1, 2]}
    assert turn == {"seconds": 0.1, "peak": 7, "losses": [0.5, 0.75]}
    assert did == ["step"] * 20 + ["wait"] + ["step"] * 3 + ["wait", "clock"] + ["step"] * 30 + [
        "wait",
        "clock",
    ]


def test_a_program_whose_losses_are_not_finite_is_not_measured(monkeypatch):
    runner = gpu.Runner(lambda: (0.5, float("nan")), lambda: None, lambda: 7, (1, 2))
    _, turn = work_with(monkeypatch, runner, "3\n")
    assert turn == {"missing": "ArithmeticError: the losses of D and G are 0.5 and nan"}


def test_a_process_that_ends_is_missing():
    worker = gpu.Worker("minigan", "--no-such-option")
    worker.get_ready()
    worker.take_turn(3)
    worker.close()
    assert worker.missing == "its process ended with exit code 2"
    assert worker.seconds == []


def test_steps_that_are_not_replayed_are_found_out():
    capture = SimpleNamespace(replays=3, why=None)
    trainer = SimpleNamespace(step=9, recorded=capture)
    check = gpu.all_replayed(trainer)
    trainer.step, capture.replays = 14, 8
    check()
    trainer.step, capture.replays = 20, 13
    with pytest.raises(RuntimeError, match=r"^5 of 6 steps were replayed$"):
        check()
    capture.why = "CUDA will not"
    with pytest.raises(RuntimeError, match=r"^CUDA will not$"):
        check()


def test_a_check_that_fails_takes_a_program_out(monkeypatch):
    def check():
        raise RuntimeError("running eagerly")

    runner = gpu.Runner(lambda: (1, 1), lambda: None, lambda: 7, (1, 2), check)
    assert work_with(monkeypatch, runner, "3\n") == [{"missing": "RuntimeError: running eagerly"}]
    calls = iter([None, check])
    runner.check = lambda: (next(calls) or (lambda: None))()
    answers = work_with(monkeypatch, runner, "3\n")
    assert answers == [{"parameters": [1, 2]}, {"missing": "RuntimeError: running eagerly"}]


def test_memory_that_is_taken_from_the_device_is_added_up():
    hook = SimpleNamespace(cuda=SimpleNamespace(MemoryHook=object))
    taken = gpu.taken_memory(hook)
    taken.alloc_postprocess(device_id=0, mem_size=512, mem_ptr=1)
    taken.alloc_postprocess(device_id=0, mem_size=1024, mem_ptr=2)
    taken.alloc_postprocess(device_id=0, mem_size=4096, mem_ptr=0)  # there was no more
    assert taken.bytes == 1536


def test_a_process_that_ends_between_two_turns_is_missing():
    worker = gpu.Worker("minigan", "--only", "mlp", "--batch", "2", "--dry-run")
    worker.get_ready()
    assert worker.missing is None
    worker._process.kill()
    worker._process.wait()
    worker.take_turn(1)
    worker.close()
    assert worker.missing.startswith("its process ended with exit code ")


class Pretended:
    """A worker that only says what it was asked, and when."""

    turns: ClassVar[list] = []
    sizes: ClassVar[dict] = {name: [1, 2] for name in gpu.PROGRAMS}

    def __init__(self, program, *arguments):
        self.program, self.missing, self.parameters = program, None, []

    def get_ready(self):
        self.parameters = self.sizes[self.program]

    def take_turn(self, steps):
        self.turns.append((self.program, steps))

    def close(self):
        pass


def options(**changes):
    return SimpleNamespace(dry_run=True, tuned=False, without_torch=False, rounds=2, steps=5, **changes)


def test_programs_take_turns(monkeypatch):
    monkeypatch.setattr(gpu, "Worker", Pretended)
    monkeypatch.setattr(Pretended, "turns", [])
    gpu.measured("mlp", 2, False, options())
    assert Pretended.turns == [(name, 5) for name in ("minigan", "captured", "torch", "graph")] * 2


def test_programs_that_train_different_networks_are_not_compared(monkeypatch):
    monkeypatch.setattr(gpu, "Worker", Pretended)
    monkeypatch.setattr(Pretended, "sizes", {**Pretended.sizes, "torch": [1, 3]})
    with pytest.raises(SystemExit, match=r"mlp: the programs train different networks"):
        gpu.measured("mlp", 2, False, options())


def measured_worker(program, seconds, missing=None):
    return SimpleNamespace(
        program=program, seconds=seconds, missing=missing, peak=3 * gpu.MIB, losses=[1, 1], parameters=[1, 2]
    )


def test_a_ratio_is_taken_within_each_round():
    ours = measured_worker("captured", [0.001, 0.004, 0.003])
    theirs = measured_worker("torch", [0.002, 0.002, 0.03])
    gone = measured_worker("graph", [], missing="no reason")
    by_name = {"captured": ours, "torch": theirs, "graph": gone}
    bars = {("captured", "torch"): 0.35, ("captured", "graph"): 1.1, ("minigan", "torch"): 1.0}
    row = gpu.row_of(ours, by_name, bars)
    assert row["ratios"] == {"torch": 0.5}  # of 0.5, 2 and 0.1
    assert row["bars"] == {"torch": 0.35, "graph": 1.1}
    assert (row["median"], row["least"]) == (0.003, 0.001)
    facts = {"case": "A case", "batch": 100, "tf32": False, "arithmetic": 1e-6, "memory": 2e-6}
    line = gpu.line_of({**row, **facts})
    numbers = ["3000.0", "1000.0", "0.50!", "0.35", "1.10", "1.0", "2.0", "3"]
    assert line.split()[-8:] == numbers
    below = {**row, "ratios": {"torch": 0.35}}
    assert "!" not in gpu.line_of({**below, **facts})
    assert gpu.line_of({**gpu.row_of(gone, by_name, bars), **facts}).endswith("not there: no reason")


# ---------------------------------------------------------------------- PyTorch's graph, pretended


def test_a_graph_is_recorded_once_after_a_warm_up_and_replayed_on_new_rows(monkeypatch):
    did = []

    class Rows(str):
        """Rows that say what becomes of them."""

        def clone(self):
            return Static(self)

    class Static:
        def __init__(self, rows):
            self.rows = rows

        def copy_(self, rows):
            self.rows = rows

    class Stream:
        def __init__(self, name="side"):
            self.name = name

        def wait_stream(self, other):
            did.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def inside(what):
        did.append(f"begin {what}")
        yield
        did.append(f"end {what}")

    cuda = SimpleNamespace(
        Stream=Stream,
        current_stream=lambda: Stream("main"),
        stream=lambda stream: inside(stream.name),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: did.append(f"replay {static[0].rows}")),
        graph=lambda graph: inside("graph"),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    static = []

    def step_with(rows):
        static[:] = [rows]
        did.append(f"step {rows.rows}")
        return "losses"

    adam = SimpleNamespace(zero_grad=lambda set_to_none: did.append(f"no gradients {set_to_none}"))
    step = gpu.recorded(step_with, iter([Rows("one"), Rows("two"), Rows("three")]), adam)
    assert [step(), step()] == ["losses", "losses"]
    assert did == [
        "side waits for main", "begin side", *["step one"] * 11, "end side", "main waits for side",
        "no gradients True", "begin graph", "step one", "end graph", "replay two", "replay three",
    ]  # fmt: skip
