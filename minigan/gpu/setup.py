"""CuPy, and what may stand in its way.

Where CuPy's own words are clear they are passed on, in one line. Where they are not, or where the cure is
hard to find, there is a sentence here; docs/gpu.md lists them all.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from ..errors import BackendError

__all__ = ["bytes_in_words", "cuda_of_driver", "cuda_version", "cupy_wheels", "load", "shortage"]

# CuPy comes in one package for each CUDA. All of them bring the same module `cupy`.
PACKAGES = ("cupy", *(f"cupy-cuda{major}x" for major in range(11, 20)))
MAJORS = (12, 13)  # the CUDAs that there is a package for; newer drivers run them, too
ELSE = "see docs/gpu.md, or use --backend numpy"


def load() -> Any:
    """The module cupy, when it has shown that it can compute. A BackendError if anything is missing."""
    wheels = cupy_wheels()
    if len(wheels) > 1:  # looked up before CuPy is imported: what then happens, nobody knows
        raise _unusable(
            f"{len(wheels)} packages of CuPy are installed ({', '.join(wheels)}) and overwrite each other's "
            f"files; pip uninstall -y {' '.join(wheels)}, then {_install()}"
        )
    try:
        cupy = importlib.import_module("cupy")
        runtime, _ = cupy.cuda.runtime, cupy.ndarray
    except Exception as error:  # a broken CuPy may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not wheels:
            raise _unusable(f"CuPy is not installed; {_install()}") from None
        raise _unusable(f"CuPy does not load ({_one_line(error)}); {ELSE}") from None
    try:
        devices = runtime.getDeviceCount()
        if devices:
            _try(cupy)
    except Exception as error:
        raise _unusable(_why(error, runtime, wheels)) from None
    if devices == 0:
        raise _unusable(_hidden())
    return cupy


def _try(cupy: Any) -> None:
    """One small computation: what is missing shows here, and not in the middle of somebody's training."""
    x = cupy.ones((2, 2), dtype="float32")  # CuPy compiles this: with NVRTC, and with CUDA's header files
    y = cupy.asnumpy(x @ x)  # cuBLAS
    if y.tolist() != [[2, 2], [2, 2]]:
        raise ArithmeticError(f"1 + 1 came out as {y.ravel()[0]:g}")


def _unusable(why: str) -> BackendError:
    return BackendError(f"backend 'cupy': {why}")


def _why(error: Exception, runtime: Any, wheels: list[str]) -> str:
    """What keeps a CuPy that loads from computing."""
    if "cudaErrorNoDevice" in str(error):
        return _hidden()
    if "cudaErrorInsufficientDriver" in str(error):
        return _driver_too_old(runtime.runtimeGetVersion(), runtime.driverGetVersion(), wheels)
    if lacks_memory(error):
        return (
            f"the GPU has no memory left to begin with ({_one_line(error)}); close other programs that use "
            "it (nvidia-smi lists them), or choose another GPU with CUDA_VISIBLE_DEVICES"
        )
    return f"CuPy does not work ({type(error).__name__}: {_one_line(error)}); {ELSE}"


def _driver_too_old(wanted: int, driver: int, wheels: list[str]) -> str:
    if driver == 0:  # CUDA says "insufficient" where there is none, too
        return (
            "there is no NVIDIA driver; install one, version 580 or later for CUDA 13, or 525 or later for "
            "CUDA 12 (nvidia-smi shows it; a container needs --gpus all), or use --backend numpy"
        )
    cure = "update the NVIDIA driver"
    if driver // 1000 < wanted // 1000 and (wheel := _wheel_for(driver)):
        cure += f', or pip uninstall -y {" ".join(wheels)}, then pip install "{wheel}[ctk]"'
    return (
        f"this CuPy wants CUDA {cuda_version(wanted)}, the NVIDIA driver offers CUDA {cuda_version(driver)}; "
        f"{cure}"
    )


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        cure = f"CUDA_VISIBLE_DEVICES is {visible!r}: unset it, or give it the number of a GPU"
    else:
        cure = "does nvidia-smi list one? A container needs --gpus all"
    return f"there is a driver, but no GPU that this process may see; {cure}; or use --backend numpy"


def cupy_wheels() -> list[str]:
    """The packages of CuPy that are installed, by name. CuPy is not imported for that.

    There should be one. Its name says for which CUDA it was built: cupy-cuda12x, cupy-cuda13x.
    """
    found = []
    for name in PACKAGES:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def cuda_of_driver() -> int:
    """The newest CUDA that the NVIDIA driver runs: 12040 is CUDA 12.4; 0 if there is no driver.

    The driver's own library is asked, so that the answer is there before CuPy is.
    """
    import ctypes

    number = ctypes.c_int(0)
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        failed = library.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else number.value


def cuda_version(number: int) -> str:
    """CUDA's way to write a version, in the usual one.

    >>> cuda_version(12040)
    '12.4'
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def _wheel_for(driver: int) -> str | None:
    """The package of CuPy that fits a driver; None if it is too old for all of them, or not there."""
    major = min(driver // 1000, MAJORS[-1])
    return f"cupy-cuda{major}x" if major in MAJORS else None


def _install() -> str:
    """The command that brings CuPy, with CUDA's libraries: for this machine's driver if there is one."""
    driver = cuda_of_driver()
    if wheel := _wheel_for(driver):
        return f'pip install "{wheel}[ctk]" (the NVIDIA driver offers CUDA {cuda_version(driver)})'
    return ", ".join(f'for CUDA {major}: pip install "cupy-cuda{major}x[ctk]"' for major in MAJORS)


def _one_line(error: BaseException) -> str:
    """CuPy's own words, without the frame that it draws around some of them."""
    return " ".join(re.sub("={4,}", " ", str(error)).split()) or type(error).__name__


# ------------------------------------------------------------------------------- when a device has no room


def lacks_memory(error: BaseException) -> bool:
    """Is this a device that has run out of memory? Told by its name, so that nobody has to import CuPy."""
    kind = type(error)
    if kind.__module__.split(".")[0] not in ("cupy", "cupy_backends"):
        return False
    causes = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")
    return kind.__name__ == "OutOfMemoryError" or any(cause in str(error) for cause in causes)


def shortage(error: BaseException, memory: Callable[[], tuple[int, int] | None]) -> str | None:
    """What a device that has run out of memory was asked for, and what it has; None for other errors.

    memory: tells free memory and all memory of the device, in bytes; None if it cannot.
    """
    if not lacks_memory(error):
        return None
    facts = ["the GPU has run out of memory"]
    asked, held, limit = (
        _bytes(rf"{words} ([\d,]+) bytes", error) for words in ("allocating", "so far:", "limit set to:")
    )
    if asked is not None:
        facts.append(f"{bytes_in_words(asked)} more were asked for")
    if held is not None:
        facts.append(f"this program has {bytes_in_words(held)}")
    if limit:
        facts.append(f"it may have {bytes_in_words(limit)} (CUPY_GPU_MEMORY_LIMIT)")
    try:
        free, total = memory() or (None, None)
    except Exception:  # the device does not answer any more
        free, total = None, None
    if free is not None and total is not None:
        facts.append(f"the GPU has {bytes_in_words(total)} in all, {bytes_in_words(free)} of them free")
    return f"{facts[0]}: {', '.join(facts[1:])}" if facts[1:] else facts[0]


def _bytes(pattern: str, error: BaseException) -> int | None:
    found = re.search(pattern, str(error))
    return int(found[1].replace(",", "")) if found else None


def bytes_in_words(count: int) -> str:
    """So many bytes, to be read.

    >>> bytes_in_words(640), bytes_in_words(3 * 2**20), bytes_in_words(85 * 10**9)
    ('640 bytes', '3.0 MiB', '79.2 GiB')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
