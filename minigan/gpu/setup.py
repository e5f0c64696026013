"""CuPy, and what may stand in its way: no package or two, no driver, no libraries, no memory.

Each thing that may be missing has a sentence of its own, with its cure; docs/gpu.md lists them all. What CuPy
13 and 14 say themselves was looked up on a machine without a driver.
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
# The first NVIDIA driver for each CUDA; later ones run it, too (docs.nvidia.com/deploy/cuda-compatibility).
DRIVERS = {12: 525, 13: 580}
OLDEST_GPU = 75  # CUDA 13 has no code for a compute capability below 7.5


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
        if why := _no_place_for_kernels(error):  # CuPy 14 makes that folder when it is imported
            raise _unusable(why) from None
        # A package whose files another one has taken along when it was uninstalled looks like this, too.
        cure = f'pip install --force-reinstall "{_with_cuda(wheels[0])}"' if wheels else _install()
        raise _unusable(f"CuPy does not load ({_one_line(error)}); {cure}") from None
    try:
        devices = runtime.getDeviceCount()
    except Exception as error:
        raise _unusable(_why_no_device(error, runtime)) from None
    if devices == 0:
        raise _unusable(_hidden())
    try:
        _try(cupy)
    except Exception as error:
        raise _unusable(_why_no_result(error, cupy, wheels)) from None
    return cupy


def _try(cupy: Any) -> None:
    """One small computation: what is missing shows here, and not in the middle of somebody's training."""
    x = cupy.ones((2, 2), dtype="float32")  # CuPy compiles this: with NVRTC, and with CUDA's header files
    y = cupy.asnumpy(x @ x)  # cuBLAS
    if y.tolist() != [[2, 2], [2, 2]]:
        raise ArithmeticError(f"1 + 1 came out as {y.ravel()[0]:g}")


def _unusable(why: str) -> BackendError:
    return BackendError(f"backend 'cupy': {why}")


def _why_no_device(error: Exception, runtime: Any) -> str:
    """What CUDA means when it cannot even count its devices."""
    if "cudaErrorNoDevice" in str(error):
        return _hidden()
    try:
        wanted, driver = runtime.runtimeGetVersion(), runtime.driverGetVersion()
    except Exception:
        wanted, driver = None, None
    if "cudaErrorInsufficientDriver" not in str(error) or wanted is None or driver is None:
        return (
            f"CUDA does not count its devices ({_one_line(error)}); if nvidia-smi fails as well, install the "
            "NVIDIA driver anew, or restart the machine after an update; or use --backend numpy"
        )
    if driver == 0:  # CUDA says "insufficient" where there is none, too
        return (
            "there is no NVIDIA driver; install one, version 580 or later for CUDA 13, or 525 or later for "
            "CUDA 12 (nvidia-smi shows it; a container needs --gpus all), or use --backend numpy"
        )
    cure, first = "update the NVIDIA driver", DRIVERS.get(wanted // 1000)
    if first and driver // 1000 < wanted // 1000:
        cure += f" to {first} or later"
        if wheel := _wheel_for(driver):
            cure += f', or pip uninstall -y {" ".join(cupy_wheels())}, then pip install "{_with_cuda(wheel)}"'
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


def _why_no_result(error: Exception, cupy: Any, wheels: list[str]) -> str:
    """What stands in the way of computing, on a device that is there."""
    if lacks_memory(error):
        return (
            f"the GPU has no memory left to begin with ({_one_line(error)}); close other programs that use "
            "it (nvidia-smi lists them), or choose another GPU with CUDA_VISIBLE_DEVICES"
        )
    if why := _no_place_for_kernels(error):
        return why
    missing = _missing_library(error) or _missing_header(error)
    if missing:
        if wheels and wheels[0] != "cupy":
            cure = f'pip install -U "{_with_cuda(wheels[0])}"'
        else:
            cure = "install the CUDA Toolkit, and set CUDA_PATH to its folder"
        return f"CuPy does not find {missing}; {cure}"
    try:
        wanted, capability = cupy.cuda.runtime.runtimeGetVersion(), cupy.cuda.Device().compute_capability
        if wanted >= 13000 and int(capability) < OLDEST_GPU:
            packages = " ".join(wheels or ["cupy"])
            return (
                f"this GPU has compute capability {capability[:-1]}.{capability[-1]}, and CUDA 13 needs 7.5 "
                f'or more; pip uninstall -y {packages}, then pip install "{_with_cuda("cupy-cuda12x")}"'
            )
    except Exception:
        pass  # then the cause must do
    return (
        f"the GPU is there, but CuPy cannot compute on it ({type(error).__name__}: {_one_line(error)}); see "
        "what python -m minigan info says, or use --backend numpy"
    )


def _missing_library(error: Exception) -> str | None:
    """CUDA's library that was not found, in CuPy's words or in those of the system."""
    patterns = (
        r'Failure finding "([^"]+)"',  # CuPy 14
        r"failed to load (\S+?):",  # CuPy 13, NVRTC
        r"(\S+\.so[.\d]*): cannot open shared object file",  # Linux
        r"failed to open (nvrtc-builtins\S+?\.(?:dll|so[.\d]*))",  # NVRTC's own
    )
    found = next(filter(None, (re.search(pattern, str(error)) for pattern in patterns)), None)
    return f"CUDA's library {found[1]}" if found else None


def _missing_header(error: Exception) -> str | None:
    found = re.search(r'cannot open source file "([^"]+)"', str(error))  # NVRTC
    if found:
        return f"CUDA's header file {found[1]}"
    return "CUDA's header files" if "Failed to find CUDA headers" in str(error) else None  # CuPy 14


def _no_place_for_kernels(error: Exception) -> str | None:
    """CuPy keeps what it compiles in files, and cannot do without."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return (
        f"CuPy cannot keep its compiled kernels ({error.filename}: {error.strerror}); set CUPY_CACHE_DIR to "
        "a folder that can be written"
    )


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
    """The package of CuPy that fits a driver; None if it is too old for all of them."""
    major = min(driver // 1000, max(DRIVERS))
    return f"cupy-cuda{major}x" if major in DRIVERS else None


def _with_cuda(package: str) -> str:
    """With CUDA's libraries and header files, which CuPy from version 14 on can bring along."""
    return package if package == "cupy" else f"{package}[ctk]"


def _install() -> str:
    """The command that brings CuPy: the one for this machine's driver if there is one."""
    driver = cuda_of_driver()
    if wheel := _wheel_for(driver):
        return f'pip install "{_with_cuda(wheel)}" (the NVIDIA driver offers CUDA {cuda_version(driver)})'
    if driver:
        return (
            f"first update the NVIDIA driver, which offers CUDA {cuda_version(driver)} only, to 525 or later "
            f'for CUDA 12, then pip install "{_with_cuda("cupy-cuda12x")}"'
        )
    wheels = (f'for CUDA {major}: pip install "{_with_cuda(f"cupy-cuda{major}x")}"' for major in DRIVERS)
    return ", ".join(wheels)


def _one_line(error: BaseException) -> str:
    """The last line that says anything: where CuPy and CUDA put the cause."""
    lines = [line.strip(" =") for line in str(error).splitlines() if line.strip(" =")]
    return lines[-1] if lines else type(error).__name__


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
