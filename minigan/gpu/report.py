"""What there is of CUDA and of GPUs on this machine, for info.py."""

from __future__ import annotations

from typing import Any

from ..backend import get
from . import setup

__all__ = ["in_words", "report"]


def report(works: bool) -> dict[str, Any]:
    """What the driver offers, what CuPy was built for, and the GPUs. Versions as in "12.4", memory in bytes.

    Only the GPU in use is asked for its free memory: for that, CUDA has to start on it.
    """
    driver = setup.cuda_of_driver()
    found: dict[str, Any] = {
        "driver": setup.cuda_version(driver) if driver else None, "runtime": None, "devices": []
    }  # fmt: skip
    if not works:
        return found
    runtime = get("cupy").xp.cuda.runtime
    found["driver"] = setup.cuda_version(runtime.driverGetVersion())
    found["runtime"] = setup.cuda_version(runtime.runtimeGetVersion())
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


def in_words(name: str, value: Any) -> str:
    """A line or two of the report."""
    if name != "devices":
        return f"CUDA {value}" if value else "none"
    return "\n".join(map(_device_in_words, value)) or "none"


def _device_in_words(gpu: dict[str, Any]) -> str:
    memory = setup.bytes_in_words(gpu["memory"])
    if gpu["free"] is not None:
        memory = f"{setup.bytes_in_words(gpu['free'])} of {memory} free"
    capability = f"compute capability {gpu['compute capability']}"
    return f"{gpu['number']}: {gpu['name']}, {capability}, {memory}{', in use' * gpu['in use']}"
