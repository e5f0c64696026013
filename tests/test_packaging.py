"""What is said about the package, and that a wheel, outside the checkout, has all that the examples need."""

import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from test_examples import EXAMPLES, mnist_folder  # noqa: F401  (a fixture)

import minigan

ROOT = Path(__file__).parent.parent
PROGRAMS = [
    "gradcheck_your_own_op.py",
    "toy_2d.py --epochs 1",
    "mnist_mlp_gan.py --epochs 1 --data-dir files",
    "mnist_dcgan.py --epochs 1 --data-dir files --filters 4 --out dcgan",
    "sample.py dcgan --count 12",
    "papers/dirac_gan.py --quick",
]


def test_the_version_is_the_same_everywhere():
    version = minigan.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == version


def test_only_our_own_warnings_are_errors():
    """Those of other packages come and go with their versions, without a change here."""

    def warn(module):
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)

    with warnings.catch_warnings(record=True) as caught:
        warn("matplotlib._mathtext")
        warn("threadpoolctl")
        for ours in ("minigan", "minigan.ops.conv", "test_ops"):
            with pytest.raises(DeprecationWarning):
                warn(ours)
        with pytest.raises(UserWarning, match="from here"):
            warnings.warn("from here", stacklevel=1)
    assert len(caught) == 2


# -------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the source, so that nothing is left in it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "minigan", source / "minigan", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", built, source], capture_output=True, text=True, timeout=300
    )
    if "No module named pip" in done.stderr:
        pytest.skip("there is no pip in this environment")
    if "No matching distribution found for setuptools" in done.stderr + done.stdout:
        pytest.skip("building a wheel needs setuptools, which cannot be downloaded here")
    assert done.returncode == 0, done.stderr
    (path,) = built.iterdir()
    return path


@pytest.fixture
def elsewhere(wheel, tmp_path, mnist_folder):  # noqa: F811
    """Runs a program with what is in the wheel, in a folder that has the examples and no checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "MPLCONFIGDIR": str(tmp_path)}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.mark.slow
def test_what_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        facts = archive.read(f"minigan-{minigan.__version__}.dist-info/METADATA").decode()
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "minigan").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == here | {
        "minigan/py.typed",
        "minigan/gpu/kernels.cu",
    }
    assert f"\nVersion: {minigan.__version__}\n" in facts and "\nAuthor: the minigan authors\n" in facts


@pytest.mark.slow
def test_the_examples_run_outside_the_checkout(elsewhere, tmp_path):
    done = elsewhere("-c", "import minigan; print(minigan.__file__)")
    assert Path(done.stdout.strip()).parent.parent == tmp_path / "installed", done.stderr
    for program in PROGRAMS:
        name, *arguments = program.split()
        done = elsewhere(f"examples/{name}", *arguments)
        assert done.returncode == 0, (program, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (EXAMPLES / "papers").glob("*_*.py")))
def test_the_studies_begin_outside_the_checkout(name, elsewhere):
    done = elsewhere(f"examples/papers/{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name}")
