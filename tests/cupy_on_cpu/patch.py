"""Overwrite the CUDA runtime that CuPy's modules have linked in statically, by jumps into libfakecuda.

    python patch.py slots SITE_PACKAGES > slots.inc     the functions, one line each
    python patch.py patch SITE_PACKAGES slots.inc       overwrite them (a copy *.orig is kept)

NVIDIA's static library keeps its names as local symbols. Each function becomes 12 bytes:
    mov  TABLE + 8 i, %rax;  jmp *%rax
"""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

TABLE = 0x100000000000  # as in fake/table.cpp
MODULES = [
    "cupy_backends/cuda/api/runtime.*.so",
    "cupy/cuda/thrust.*.so",
    "cupy/cuda/cub.*.so",
    "cupy/random/_generator_api.*.so",
]
# CuPy's own C++ that starts kernels compiled by nvcc. libfakecuda has them, or says that it has not.
OWN = (
    "thrust_sort", "thrust_argsort", "thrust_lexsort", "cub_device_", "init_curand_generator",
    "random_uniform", "random_uniform_float", "raw", "interval_32", "interval_64", "beta", "exponential",
    "geometric", "hypergeometric", "logseries", "standard_normal", "standard_normal_float",
    "standard_gamma", "poisson", "binomial",
)  # fmt: skip


def modules(site):
    for pattern in MODULES:
        (path,) = Path(site).glob(pattern)
        original = path.with_name(path.name + ".orig")
        if not original.exists():
            shutil.copy2(path, original)
        yield path, original


def functions(original):
    """name -> address, size"""
    text = subprocess.run(["nm", "-S", str(original)], capture_output=True, text=True, check=True).stdout
    plain = {}
    for line in text.splitlines():
        parts = line.split()
        if len(parts) != 4 or parts[2] not in "tTwW" or ".cold" in parts[3]:
            continue
        address, size, _, name = parts
        plain[name] = int(address, 16), int(size, 16)
    own = {name for name in plain if name.startswith("_Z") and not name.startswith("_ZL") and is_own(name)}
    wanted = {name for name in plain if name.startswith(("cuda", "__cuda"))} | own
    return {name: plain[name] for name in wanted}


def is_own(mangled):
    digits = mangled[2:].lstrip("0123456789")
    length = mangled[2 : len(mangled) - len(digits)]
    if not length:
        return False
    name = digits[: int(length)]
    return name in OWN or name.startswith("cub_device_")


def offset_of(data, address):
    """Where in the file the code at an address lies."""
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for i in range(count):
        kind, _, offset, virtual, _, length = struct.unpack_from("<IIQQQQ", data, start + i * size)
        if kind == 1 and virtual <= address < virtual + length:
            return offset + address - virtual
    raise ValueError(hex(address))


def main(what, site, *rest):
    if what == "slots":
        print("\n".join(f'"{name}",' for name in sorted({n for _, o in modules(site) for n in functions(o)})))
        return
    slots = [line.strip(' ",\n') for line in Path(rest[0]).read_text().splitlines()]
    for path, original in modules(site):
        data = bytearray(original.read_bytes())
        for name, (address, size) in functions(original).items():
            if size < 12:
                if name.startswith("cuda"):
                    print(f"{path.name}: {name} has no room ({size} bytes)", file=sys.stderr)
                continue
            at = offset_of(data, address)
            data[at : at + 12] = b"\x48\xa1" + struct.pack("<Q", TABLE + 8 * slots.index(name)) + b"\xff\xe0"
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o755)


main(*sys.argv[1:])
