"""What minigan finds on this machine: `python -m minigan info`.

The report is a dict of plain values (`--json` prints it as it is). `lines` puts it into words. Nothing in
here raises: where something cannot be found out, the report says why.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import minigan

from . import backend, process
from .data.cache import user_cache
from .gpu import report as gpu_report
from .gpu import setup as cuda

__all__ = ["lines", "report"]

# The packages that minigan needs, and those that some parts use where they are there: what for.
PACKAGES = {
    **dict.fromkeys(("numpy", "scipy", "matplotlib", "tqdm", "threadpoolctl"), "minigan needs it"),
    "safetensors": "for weights in .safetensors files",
    "tensorboardX": "for --tensorboard",
}


def report() -> dict[str, Any]:
    """All that can be found out about this machine, as what JSON knows: dicts, lists, words, numbers.

    >>> report()["minigan"] == minigan.__version__
    True
    """
    backends = {name: _obstacle(name) for name in ("numpy", "cupy")}
    return {
        "minigan": minigan.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": _or_why(platform.platform),
        "cores": _or_why(process.cores),
        "blas": _or_why(process.blas),
        "packages": _or_why(_packages),
        "backends": backends,
        "cuda": _or_why(lambda: gpu_report.report(works=backends["cupy"] is None)),
        "folders": _or_why(_folders),
    }


def _or_why(find: Callable[[], Any]) -> Any:
    """What `find` finds; else a sentence that says why it does not."""
    try:
        return find()
    except Exception as error:
        return f"cannot be found out ({type(error).__name__}: {' '.join(str(error).split())})"


def _obstacle(name: str) -> str | None:
    """What stands in the way of a backend, and the cure; None if it works."""
    try:
        backend.get(name)
    except Exception as error:
        return " ".join(str(error).split()).removeprefix(f"backend {name!r}: ") or type(error).__name__
    return None


def _packages() -> dict[str, str | None]:
    """Their versions; None where one is not installed. None of them is imported for that."""
    found: dict[str, str | None] = {}
    for name in (*PACKAGES, *cuda.cupy_wheels()):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _folders() -> dict[str, Any]:
    """Where files are kept that can be had again, and where the user has put some."""
    found = {"cache": _or_why(lambda: _folder(user_cache()))}
    if given := os.environ.get("MINIGAN_DATA"):
        found["$MINIGAN_DATA"] = _folder(Path(given))
    if cuda.cupy_wheels():  # CuPy keeps what it has compiled
        kernels = os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache")
        found["CuPy's kernels"] = _folder(Path(kernels))
    return found


def _folder(path: Path) -> dict[str, Any]:
    """Whether a folder is there, and whether it can be written to, or made where it is not.

    That is tried, with a file that is gone at once: permissions alone do not say it of every file system.
    """
    nearest = path
    while not os.path.exists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            writable = True
    except OSError:
        writable = False
    return {"folder": str(path), "exists": os.path.isdir(path), "writable": writable}


# ----------------------------------------------------------------------------------------- in words


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A report in words, line by line."""
    yield f"minigan {found['minigan']}, Python {found['python']} ({found['executable']})"
    yield f"on {found['system']}; cores for this process: {found['cores']}"
    yield f"matrices on the CPU are multiplied by {found['blas'] or 'an unknown BLAS'}"
    missing = lambda name: f"not installed ({PACKAGES.get(name, '')})"
    yield from _section("packages", found["packages"], lambda name, version: version or missing(name))
    yield from _section("backends", found["backends"], lambda _, why: "works" if why is None else why)
    yield from _section("GPU", found["cuda"], gpu_report.in_words)
    yield from _section("folders", found["folders"], _folder_in_words)


def _section(title: str, found: Any, say: Callable[[str, Any], str]) -> Iterator[str]:
    yield from ("", title)
    if not isinstance(found, dict):
        yield f"  {found}"
        return
    wide = max(map(len, found), default=0)
    for name, value in found.items():
        yield from (f"  {name:{wide}}  {line}" for line in say(name, value).splitlines())


def _folder_in_words(name: str, folder: Any) -> str:
    if not isinstance(folder, dict):
        return str(folder)
    state = "there" if folder["exists"] else "not there"
    if not folder["writable"]:
        state += ", and CANNOT be written"
        if name == "cache":
            state += ": data are downloaded or made anew each time ($XDG_CACHE_HOME may name another one)"
    return f"{folder['folder']}: {state}"
