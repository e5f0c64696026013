"""Who may know whom: imports point downwards only, and `import minigan` stays light."""

import ast
import builtins
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import minigan

PACKAGE = Path(__file__).parent.parent / "minigan"

# From the bottom up. A module may import from its own room and from those listed behind it.
ROOMS = {
    "version": [],
    "errors": [],
    "gpu.setup": ["errors"],
    "backend": ["gpu.setup", "errors"],
    "arraylike": ["backend"],
    "tape": ["backend"],
    "tensor": ["tape", "arraylike", "backend", "errors"],
    "kernels": ["backend"],
    "gpu": ["gpu.setup", "kernels", "backend"],
    "ops": ["kernels", "tape", "tensor", "backend", "errors"],
    "differences": ["tensor", "backend"],
    "compare": ["differences"],
    "gradcheck": ["compare", "differences", "tensor", "backend", "errors"],
    "draw": ["tape", "tensor", "backend", "errors"],
    "nn": ["kernels", "ops", "tape", "tensor", "backend"],
    "optim": ["kernels", "ops", "tensor", "backend"],
    "process": ["gpu", "ops", "kernels", "backend"],
    "files": [],
    "io": ["files", "backend"],
    "streams": [],
    "finite": ["tape", "tensor", "backend"],
    "data": ["streams", "files", "kernels", "backend"],
    "viz": ["files"],
    "gan": ["finite", "nn", "optim", "kernels", "ops", "tensor", "backend"],
    "gpu.recorded_steps": ["gpu", "data", "nn", "optim", "kernels", "tensor", "backend"],
    "training": [
        "gpu",
        "version",
        "gpu.recorded_steps",
        "gan",
        "data",
        "viz",
        "finite",
        "files",
        "io",
        "streams",
        "process",
        "nn",
        "optim",
        "kernels",
        "ops",
        "tensor",
        "backend",
    ],
    "metrics": ["data", "io", "streams", "process", "nn", "optim", "ops", "tensor", "backend"],
    "testing": ["gpu", "kernels", "backend"],
    "info": ["gpu", "__init__", "process", "data", "backend", "gpu.setup"],
    "__main__": ["info"],
    "__init__": [
        "version",
        "backend",
        "draw",
        "errors",
        "gradcheck",
        "ops",
        "tensor",
        "nn",
        "optim",
        "io",
        "process",
    ],
}
THIRD_PARTY = {
    "gpu": {"numpy", "cupy"},
    "testing": {"numpy", "hypothesis"},
    "process": {"threadpoolctl"},
    "io": {"numpy", "safetensors"},
    "data": {"numpy", "scipy", "matplotlib", "PIL", "tqdm"},
    "viz": {"numpy", "matplotlib", "PIL"},
    "training": {"numpy", "tqdm", "tensorboardX"},
    "metrics": {"numpy", "scipy"},
}


def room_of(module: str) -> str:
    """The room of "training.draws" is "training"; a file may be a room of its own, as gpu/setup.py is."""
    return module if module in ROOMS else module.split(".")[0]


def imports(path: Path):
    """(absolute name, line) of everything a file imports, at whatever depth."""
    package = ["minigan", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # what only type checkers see does not count
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            if module in ("minigan", "minigan.gpu"):
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    assert room in ROOMS, f"{room} has no place in the house yet: add it to ROOMS"
    allowed = {room, *ROOMS[room]}
    for name, line in imports(path):
        top, _, rest = name.partition(".")
        if top == "minigan":
            target = room_of(rest or "__init__")
            assert target in allowed, f"{path.name}:{line}: {room} may not know {target}"
        elif top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY.get(room, {"numpy"}), f"{path.name}:{line}: {room} may not use {top}"


def names_from(module: str) -> set[str]:
    """What `from module import *` brings."""
    space: dict = {}
    exec(f"from {module} import *", space)
    return space.keys() - {"__builtins__"}


@pytest.mark.parametrize("room", ["", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))])
def test_a_star_import_overwrites_no_builtin(room):
    assert not names_from(f"minigan.{room}".rstrip(".")) & set(dir(builtins))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_file_says_that_it_has_is_there(path):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    assert [each for each in getattr(module, "__all__", ()) if not hasattr(module, each)] == []


def test_a_star_import_brings_all_other_ops():
    assert {"Tensor", "grad", "nn", "optim", "gradcheck", "exp", "conv2d", "concat", "mean"} <= names_from(
        "minigan"
    )
    ours = {name for name in vars(minigan.ops) if callable(getattr(minigan, name, None))}
    assert {name for name in ours - names_from("minigan") if name[0] != "_"} == {
        "abs",
        "max",
        "min",
        "pow",
        "sum",
    }


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_that_it_does_not_need():
    heavy = ("matplotlib", "hypothesis", "torch", "cupy", "scipy", "pytest", "tqdm")
    loaded = run("import sys, minigan; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert not set(heavy) & set(loaded)


def test_strategies_are_what_needs_hypothesis():
    loaded = run("import sys, minigan.testing.strategies; print(*sys.modules)").split()
    assert "hypothesis" in loaded
    assert "pytest" not in loaded
