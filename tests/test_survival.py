"""Runs that are stopped in every way a computer knows, as programs of their own, and then go on."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from small_runs import all_bytes, differences, images, small_trainer, what_is_left

from minigan import io, viz

pytest.importorskip("fcntl", reason="signals as on Linux and macOS")

MANY = settings().max_examples > 20  # the profiles of Hypothesis that try more of everything (conftest.py)

# A training program as those in examples/, of 40 small steps: 8 epochs.
PROGRAM = """
import time

import numpy as np
from small_runs import BATCH, NOISE, images, mlp

from minigan import viz
from minigan.training import command_line

viz.curves = lambda path, *args, **options: path.write_bytes(b"")  # they take most of the time
parser = command_line.arguments("A small run.", "small", epochs=8, images=False)
parser.add_argument("--pause", type=float, default=0.0, help="seconds before each step")
parser.add_argument("--spoil", type=int, default=-1, help="the step before which a weight becomes NaN")


def main(options):
    game = command_line.game(options, *mlp(seed=options.seed), lr=1e-2, betas=(0.5, 0.999))

    def before_step(step):
        time.sleep(options.pause)
        if step == options.spoil:
            game.g[3].bias.data = np.full(4, np.nan)

    settings = {"noise": NOISE, "batch": BATCH, "samples": 4, "before_step": before_step}
    command_line.trainer(options, game, images(), **settings).run(options.epochs)


if __name__ == "__main__":
    command_line.run(main, parser)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Starts the program with these arguments."""
    path = tmp_path_factory.mktemp("program") / "small run.py"
    path.write_text(PROGRAM)
    tests = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(tests), "OPENBLAS_NUM_THREADS": "1"}
    started = []

    def start(*arguments, **options):
        command = [sys.executable, "-W", "error", str(path), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(command, env=environment, text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(process, *paths, text=""):
    """Until these files are there, and the first one has this text in it."""
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths) or text not in paths[0].read_text(errors="replace"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """What the program leaves behind if nothing stops it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = program("--out", folder, "--quiet")
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    return what_is_left(folder)


# ---------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(signum, code, program, whole, tmp_path):
    folder = tmp_path / "my run"
    process = program("--out", folder, "--pause", 0.04, cwd=tmp_path)
    wait_for(process, folder / "metrics.jsonl", text="}")
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out.startswith("epoch   1  step      5  L_D ")
    stopped, command = err.strip().splitlines()
    told = re.fullmatch(r"stopped by (\w+) after step (\d+); saved in (.*)", stopped)
    assert told[1] == signum.name and told[3] == str(folder)
    assert 5 <= int(told[2]) < 40
    assert io.load(folder / "checkpoint.npz")["trainer.step"] == int(told[2])

    python, *arguments = shlex.split(command.removeprefix("go on with: "))
    assert python == "python" and Path(arguments[0]).name == "small run.py"
    config = json.loads((folder / "config.json").read_text())
    config["options"]["pause"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    process = program(*arguments[1:], cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith("epoch   8  step     40  L_D ")
    assert differences(what_is_left(folder), whole) == []


def test_a_second_ctrl_c_does_not_wait_for_the_step(program, tmp_path):
    folder = tmp_path / "run"
    process = program("--out", folder, "--quiet", "--pause", 30)
    wait_for(process, folder / "samples" / "epoch_0000.png")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the end of the step
        process.wait(timeout=0.3)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 130
    assert io.load(folder / "checkpoint.npz")["trainer.step"] == 0


def test_a_bar_and_ctrl_c_on_a_terminal(program, whole, tmp_path):
    import fcntl
    import termios

    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    folder = tmp_path / "run"
    keyboard, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    process = program("--out", folder, "--pause", 0.04, preexec_fn=own_terminal, **pipes)
    os.close(terminal)
    screen = b""
    while screen.count(b"epoch ") < 3:
        screen += os.read(keyboard, 10_000)
    os.write(keyboard, b"\x03")
    try:
        while more := os.read(keyboard, 10_000):
            screen += more
    except OSError as error:  # the terminal is gone: the program has ended
        assert error.errno == errno.EIO
    os.close(keyboard)
    assert process.wait() == 130
    looks = re.split(r"[\r\n]+", screen.decode().replace("^C", ""))  # the terminal shows what is typed
    number, share = r"\d+\.\d{3}", r"\d\.\d\d"
    bar = rf"L_D {number}  L_G {number}  D\(x\) {share}  D\(G\(z\)\) {share}→{share}: +\d+%\|.*\| \d+/40 "
    bars = [look for look in looks if re.match(bar, look)]
    assert bars, looks
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +\d+\.\d+(step/s|s/step)\]", bars[-1])
    lines = [look for look in looks if look.startswith("epoch ")]
    assert all(re.search(r"  D\(x\) .* ms/step  0:\d\d left *$", line) for line in lines)
    assert any(look.startswith("stopped by SIGINT after step") for look in looks)

    process = program("--resume", folder, "--quiet")
    process.communicate()
    assert differences(what_is_left(folder), whole) == []


# ---------------------------------------------------------------------------------------- kill -9


def test_kill_9_at_any_moment(program, whole, tmp_path):
    """Its checkpoints follow each other without a pause, so many kills hit one that is being written."""
    folder, rng = tmp_path / "run", np.random.default_rng()
    kills = 20 if MANY else 5
    steps = []
    for _ in range(kills):
        how = ["--resume", folder] if (folder / "config.json").exists() else ["--out", folder]
        process = program(*how, "--quiet", "--save-every", 0, "--pause", 0.01)
        wait_for(process, folder / ".minigan.lock", text=str(process.pid))
        time.sleep(rng.uniform(0, 0.8 / kills))
        process.kill()
        assert process.communicate() == ("", "")
        checkpoint = folder / "checkpoint.npz"
        steps.append(int(io.load(checkpoint)["trainer.step"]) if checkpoint.exists() else 0)
    assert steps == sorted(steps)
    process = program("--resume", folder, "--quiet")
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    assert differences(what_is_left(folder), whole) == []
    assert [path.name for path in folder.rglob("*") if re.match(r"\.(?!minigan\.lock$)", path.name)] == []


FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate")


def killed_before(event, folder, make):
    """In a copy of this process: train, but be killed just before file operation number `event`. Was it?"""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    try:
        left = event

        def watch(name, arguments):
            nonlocal left
            if name in FILE_EVENTS and any(str(folder) in str(each) for each in arguments):
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(watch)
        make(folder).run(2)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not safe to copy a process")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("begun", [False, True])
def test_killed_between_any_two_file_operations(begun, tmp_path, monkeypatch):
    """Checkpoints, pictures, curves, metrics, the film: wherever it is killed, it can go on."""
    blank = np.zeros((1, 1), "uint8")
    monkeypatch.setattr(viz, "curves", lambda path, *args, **options: viz.save_png(path, blank))
    monkeypatch.setattr(os, "fsync", lambda file: None)

    def make(folder):
        resume = (folder / "config.json").exists()
        return small_trainer(folder, data=images(8), resume=resume, save_every=0)

    make(tmp_path / "whole").run(2)
    make(tmp_path / "begun").run(1)
    whole = what_is_left(tmp_path / "whole")
    every = 1 if MANY else 3
    for event in range(np.random.default_rng().integers(every), 500, every):
        folder = tmp_path / str(event)
        if begun:
            shutil.copytree(tmp_path / "begun", folder)
        if not killed_before(event, folder, make):
            break
        # Without a description the run is begun anew, and a new run removes nothing from its folder.
        new = not (folder / "config.json").exists()
        beginnings = {path.name for path in folder.glob(".config.json.minigan-*")} if new else set()
        make(folder).run(2)
        assert differences(what_is_left(folder), whole) == [], f"killed before file operation {event}"
        assert all_bytes(folder).keys() - beginnings == all_bytes(tmp_path / "whole").keys()
    assert 30 < event < 400


# ------------------------------------------------------------------------- what else may happen


def test_a_number_that_is_not_finite_ends_the_program_and_is_not_saved(program, tmp_path):
    folder = tmp_path / "run"
    process = program("--out", folder, "--quiet", "--save-every", 0, "--spoil", 7)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert out == ""
    assert re.fullmatch(r"step 8: L_D is nan; the parameter 3.bias of G is not finite any more\n", err)
    for name, step in (("checkpoint.npz", 7), ("checkpoint.previous.npz", 6)):
        state = io.load(folder / name)
        assert state["trainer.step"] == step
        assert all(np.isfinite(value).all() for value in state.values() if value.dtype.kind == "f")


def test_two_programs_in_one_folder(program, whole, tmp_path):
    folder = tmp_path / "run"
    first = program("--out", folder, "--quiet", "--pause", 0.04)
    wait_for(first, folder / "metrics.jsonl")
    first.send_signal(signal.SIGSTOP)  # so that it is still there when they look
    before = {name: content for name, content in all_bytes(folder).items() if name == "config.json"}
    others = [program("--resume", folder), program("--out", folder)]
    (out, err), (new_out, new_err) = (other.communicate(timeout=60) for other in others)
    assert [other.returncode for other in others] == [2, 2]
    assert out == new_out == ""
    assert err == f"small run.py: {folder}: another run is writing here (process {first.pid})\n"
    assert re.fullmatch(r"small run.py: .*: holds a run already; go on with it \(--resume .*\n", new_err)
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=60) == ("", "")
    assert (folder / "config.json").read_bytes() == before["config.json"]
    assert differences(what_is_left(folder), whole) == []


def test_lines_for_a_log_file(program, tmp_path):
    """Without a terminal there is a line for each epoch, at once, and no bar that is drawn over itself."""
    log = tmp_path / "log"
    with open(log, "w") as file:
        process = program("--out", tmp_path / "run", "--pause", 0.01, stdout=file, stderr=subprocess.STDOUT)
        wait_for(process, log, text="epoch   1  step")
        assert process.poll() is None
        process.wait(timeout=60)
    text = log.read_text()
    assert "\r" not in text and "\x1b" not in text
    assert [line[:9] for line in text.splitlines()] == [f"epoch   {epoch}" for epoch in range(1, 9)]
