"""What minigan finds on this machine, and what is missing: `python -m minigan info`.

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
from .gpu import setup as cuda

__all__ = ["lines", "report"]

# Packages that minigan needs, and that come with it.
NEEDED = ("numpy", "scipy", "matplotlib", "tqdm", "threadpoolctl")
# Packages that some parts use where they are there: what for.
EXTRAS = {"safetensors": "for weights in .safetensors files", "tensorboardX": "for --tensorboard"}
# What is kept in the cache, and where in it.
KEPT = {
    "MNIST": "mnist",
    "Fashion-MNIST": "fashion-mnist",
    "digits drawn from fonts": "digits",
    "digit classifier": ".",
}
ANOTHER_CACHE = "export XDG_CACHE_HOME=/a/folder/of/yours (Linux; elsewhere, give this user a home)"


def report() -> dict[str, Any]:
    """All that can be found out about this machine, as what JSON knows: dicts, lists, words, numbers.

    >>> report()["minigan"] == minigan.__version__
    True
    """
    missing: list[dict[str, str]] = []
    packages = _or_why(lambda: _packages(missing))
    backends = _or_why(lambda: _backends(missing))
    return {
        "minigan": minigan.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": _or_why(platform.platform),
        "packages": packages,
        "backends": backends,
        "cuda": _or_why(lambda: _cuda(backends, missing)),
        "blas": _or_why(process.blas),
        "cores": _or_why(process.cores),
        "caches": _or_why(lambda: _caches(missing)),
        "missing": missing,
    }


def _or_why(find: Callable[[], Any]) -> Any:
    """What `find` finds; else a sentence that says why it does not."""
    try:
        return find()
    except Exception as error:
        return f"cannot be found out ({type(error).__name__}: {' '.join(str(error).split())})"


def _packages(missing: list[dict[str, str]]) -> dict[str, str | None]:
    """Their versions; None where one is not installed. None of them is imported for that."""
    found: dict[str, str | None] = {}
    for name in (*NEEDED, *EXTRAS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            why = EXTRAS.get(name, "minigan needs it")
            missing.append({"what": name, "why": why, "cure": f"pip install {name}"})
    for name in cuda.cupy_wheels():
        found[name] = metadata.version(name)
    return found


def _backends(missing: list[dict[str, str]]) -> dict[str, str | None]:
    """Each backend: None if it works, else the sentence that says what stands in its way."""
    found: dict[str, str | None] = {}
    for name in ("numpy", "cupy"):
        try:
            backend.get(name)
            found[name] = None
        except Exception as error:
            prefix = f"backend {name!r}: "
            found[name] = " ".join(str(error).split()).removeprefix(prefix) or type(error).__name__
            why, _, cure = str(found[name]).partition("; ")
            missing.append({"what": f"backend {name}", "why": why, "cure": cure})
    return found


def _cuda(backends: Any, missing: list[dict[str, str]]) -> dict[str, Any]:
    """What the driver offers, what CuPy was built for, and the GPUs. Versions as in "12.4", memory in bytes.

    Only the GPU in use is asked for its free memory: for that, CUDA has to start on it.
    """
    driver = cuda.cuda_of_driver()
    found: dict[str, Any] = {"driver": cuda.cuda_version(driver) if driver else None, "runtime": None}
    found["devices"] = []
    why = backends["cupy"] if isinstance(backends, dict) else str(backends)
    if why is not None:
        if not driver and "NVIDIA driver" not in why:  # else that has been said
            why, cure = "nothing computes on a GPU without one", "https://www.nvidia.com/drivers"
            missing.append({"what": "NVIDIA driver", "why": why, "cure": cure})
        return found
    runtime = backend.get("cupy").xp.cuda.runtime
    found["driver"] = cuda.cuda_version(runtime.driverGetVersion())
    found["runtime"] = cuda.cuda_version(runtime.runtimeGetVersion())
    used = runtime.getDevice()
    for number in range(runtime.getDeviceCount()):
        properties = runtime.getDeviceProperties(number)
        name = properties["name"]
        found["devices"].append(
            {
                "number": number,
                "name": name.decode(errors="replace") if isinstance(name, bytes) else str(name),
                "compute capability": f"{properties['major']}.{properties['minor']}",
                "memory": int(properties["totalGlobalMem"]),
                "free": int(runtime.memGetInfo()[0]) if number == used else None,
                "in use": number == used,
            }
        )
    return found


def _caches(missing: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """The folders where things are kept that can be had again."""
    found = {}
    try:
        base = user_cache()
        found = {what: _folder(base / name) for what, name in KEPT.items()}
        classifier = found["digit classifier"]
        classifier["exists"] = classifier["exists"] and any(base.glob("digit-classifier-*.npz"))
        if not classifier["writable"]:
            why = f"{base} cannot be written, so data are downloaded or made anew each time"
            missing.append({"what": "a cache", "why": why, "cure": ANOTHER_CACHE})
    except OSError as error:  # no home
        missing.append({"what": "a cache", "why": str(error), "cure": ANOTHER_CACHE})
    if given := os.environ.get("MINIGAN_DATA"):
        found["$MINIGAN_DATA"] = _folder(Path(given))
        if not found["$MINIGAN_DATA"]["exists"]:
            cure = "unset MINIGAN_DATA, or give it the folder with MNIST's files"
            missing.append({"what": "$MINIGAN_DATA", "why": f"{given} is no folder", "cure": cure})
    if cuda.cupy_wheels():  # CuPy keeps what it has compiled, or compiles it anew each time
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
    yield f"on {found['system']}, {_count(found['cores'], 'core')} for this process"
    yield ""
    yield from _section("packages", found["packages"], lambda version: version or "not installed")
    yield from _section("backends", found["backends"], _works_or_not)
    yield from _cuda_lines(found["cuda"])
    yield "matrices on the CPU"
    yield f"  multiplied by {found['blas'] or 'a BLAS that threadpoolctl does not know'}"
    yield ""
    yield from _section("kept on disk", found["caches"], _in_words)
    if found["missing"]:
        yield "missing, if you want it"
        for thing in found["missing"]:
            yield f"  {thing['what']}: {thing['why']}"
            yield f"    {thing['cure']}"
    else:
        yield "nothing is missing"


def _section(title: str, found: Any, say: Callable[[Any], str]) -> Iterator[str]:
    yield title
    if isinstance(found, dict):
        wide = max(map(len, found), default=0)
        yield from (f"  {name:{wide}}  {say(value)}" for name, value in found.items())
    else:
        yield f"  {found}"
    yield ""


def _cuda_lines(found: Any) -> Iterator[str]:
    yield "GPU"
    if not isinstance(found, dict):
        yield f"  {found}"
        yield ""
        return
    driver, runtime = found["driver"], found["runtime"]
    yield "  no NVIDIA driver" if driver is None else f"  the NVIDIA driver offers CUDA {driver}"
    if runtime is not None:
        yield f"  CuPy was built for CUDA {runtime}"
    for gpu in found["devices"]:
        memory = cuda.bytes_in_words(gpu["memory"])
        free = "" if gpu["free"] is None else f", {cuda.bytes_in_words(gpu['free'])} of it free"
        used = " (the one in use)" if gpu["in use"] and len(found["devices"]) > 1 else ""
        yield (
            f"  {gpu['number']}: {gpu['name']}, compute capability {gpu['compute capability']}, "
            f"{memory} of memory{free}{used}"
        )
    yield ""


def _works_or_not(why: str | None) -> str:
    """In short: the cure stands under what is missing."""
    return "works" if why is None else f"does not work: {why.partition('; ')[0]}"


def _in_words(folder: dict[str, Any]) -> str:
    there = "there" if folder["exists"] else "nothing yet"
    return f"{folder['folder']}: {there}, {'can' if folder['writable'] else 'CANNOT'} be written"


def _count(number: Any, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
