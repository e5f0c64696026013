"""What a run says is never lost, whatever the terminal or file can show."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import small_trainer

EXAMPLES = Path(__file__).parent.parent / "examples"


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def streams(monkeypatch):
    """Replaces stdout and stderr by files, or a terminal, of this encoding; gives what is read there."""

    def replace(encoding, kind=io.TextIOWrapper):
        written = {}
        for name in ("stdout", "stderr"):
            written[name] = io.BytesIO()
            monkeypatch.setattr(sys, name, kind(written[name], encoding=encoding, write_through=True))
        return lambda name: written[name].getvalue().decode(encoding)

    return replace


ARROWS = [("utf-8", "→"), ("utf-16-le", "→"), ("cp1252", "->"), ("cp866", "->"), ("ascii", "->")]


@pytest.mark.parametrize(("encoding", "arrow"), ARROWS)
def test_lines_in_every_encoding(encoding, arrow, streams):
    read = streams(encoding)
    small_trainer(quiet=False).run(2)
    lines = read("stdout").splitlines()
    assert [line[:9] for line in lines] == ["epoch   1", "epoch   2"]
    assert all(arrow in line for line in lines)
    assert read("stderr") == ""


@pytest.mark.parametrize(("encoding", "arrow"), ARROWS)
def test_a_bar_in_every_encoding(encoding, arrow, streams, monkeypatch):
    monkeypatch.setattr("minigan.training.progress.REFRESH", 0.0)
    read = streams(encoding, Terminal)
    small_trainer(quiet=False).run(2)
    assert read("stdout").count("epoch ") == 2 and arrow in read("stdout")
    assert "L_D " in read("stderr") and arrow in read("stderr") and "10/10" in read("stderr")


def test_other_letters_become_a_question_mark(streams):
    from minigan.training.progress import Progress

    read = streams("cp1252")
    Progress(0, 1).log("é → θ \udcff")
    assert read("stdout").splitlines() == ["é -> ? ?"]


def test_where_nobody_listens_the_run_goes_on(streams):
    streams("utf-8")
    sys.stdout.close()
    trainer = small_trainer(quiet=False)
    trainer.run(2)
    assert trainer.epoch == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["gradcheck_your_own_op.py"],
        ["toy_2d.py", "--epochs", "1"],
        ["toy_2d.py", "--help"],
        ["mnist_dcgan.py", "--help"],
        ["-m", "minigan", "info"],
    ],
    ids=" ".join,
)
def test_programs_in_a_terminal_of_few_letters(arguments, encoding, tmp_path):
    program = arguments if arguments[0] == "-m" else [EXAMPLES / arguments[0], *arguments[1:]]
    done = subprocess.run(
        [sys.executable, *program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "MPLCONFIGDIR": str(tmp_path.parent / "matplotlib")},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding)
