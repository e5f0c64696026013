"""What the README and CONTRIBUTING show is true: their code runs, their commands and files exist."""

import re
from pathlib import Path

import pytest

import minigan as mg

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / page).read_text("utf-8"), re.M | re.S)


def test_the_readme_gives_the_two_commands_of_a_fresh_machine():
    lines = "\n".join(blocks("README.md", "sh")).splitlines()
    assert lines[:2] == [
        "pip install -e . && python examples/mnist_mlp_gan.py",
        'pip install -e ".[test]" && python -m pytest',
    ]
    assert any(line.startswith("uv run") and "mnist_mlp_gan.py" in line for line in lines)
    assert any(line.startswith("uv run") and "pytest" in line for line in lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_commands_exist(page):
    for block in blocks(page, "sh"):
        for name in re.findall(r"[\w/]+/[\w/]+\.(?:py|md|sh)", block):
            assert (ROOT / name).exists(), name


def test_the_op_that_contributing_adds_passes_its_own_check():
    code = "\n".join(line.strip("\n") for line in blocks("CONTRIBUTING.md", "python"))
    indent = re.match(" *", code).group()
    code = re.sub(f"^{indent}", "", code, flags=re.M)
    scope = dict(vars(mg.ops.elementwise))
    source = "from __future__ import annotations\n" + code
    exec(compile(source, "CONTRIBUTING.md", "exec"), scope)
    mg.gradcheck(scope["hypot"], [3.0, -1.0], [4.0, 2.0])
    mg.gradcheck(scope["hypot"], [[3.0, -1.0]], [[4.0], [2.0]])


def test_the_op_in_the_readme_passes_its_own_check():
    (code,) = [block for block in blocks("README.md", "python") if "def cube" in block]
    exec(compile(code, "README.md", "exec"), {})


def test_the_trace_in_the_readme_runs(capsys):
    (code,) = [block for block in blocks("README.md", "python") if "with trace()" in block]
    x = mg.Tensor([1.0, 2.0], requires_grad=True)
    exec(compile(code, "README.md", "exec"), {"network": lambda t: mg.tanh(t).sum(), "x": x})
    printed = capsys.readouterr().out
    assert "tanh" in printed
    assert "digraph" in printed
