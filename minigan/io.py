"""Saving arrays to files, and reading them back: weights, checkpoints, exchange with PyTorch.

    io.save("run.npz", {"generator": g.state_dict(), "adam": adam.state_dict(), "epoch": 12})

    state = io.load("run.npz")                            # {"generator.0.weight": array, ...}
    g.load_state_dict(io.section(state, "generator"))
    epoch = int(state["epoch"])

The suffix says which format. `.npz` is NumPy's: arrays, numbers and strings. `.safetensors` is what most
programs exchange weights in (numbers only; needs the package safetensors). What nn.Module.state_dict gives
has PyTorch's names and shapes, so a file goes both ways:

    torch_model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))

Neither format can carry code: a file from a stranger gives arrays or an error, and runs nothing. What it says
about itself is believed only as far as its bytes go.
A file is either written whole or not at all (files.py).
"""

from __future__ import annotations

import importlib
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from .backend import to_numpy
from .files import whole_file

__all__ = ["load", "save", "section"]

State = dict[str, np.ndarray]


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write {name: array} to a file that ends in .npz or .safetensors.

    A value may be an array of any backend, a number, a string (.npz only), or another such mapping, whose
    names are joined to its own by a dot: {"adam": {"m.0": a}} is saved as "adam.m.0".
    """
    path = Path(path)
    write, _ = _format_of(path, "save")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {path.parent} for {path.name}; make it first")
    arrays = _flattened(state)
    with whole_file(path) as file:
        write(file, arrays)


def load(path: str | os.PathLike[str]) -> State:
    """{name: array}, as it was saved; a number or a string comes back as an array without axes.

    ValueError where the file is damaged, or is not what its suffix says.
    """
    path = Path(path)
    _, read = _format_of(path, "load")
    if path.exists() and not path.is_file():  # a pipe or a device may have no end
        raise ValueError(f"load: {path} is no file, but a {'folder' if path.is_dir() else 'device'}")
    with open(path, "rb") as file:
        try:
            return read(file)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # a parser may stumble over wrong bytes in any way
            reason = str(error).splitlines() or [type(error).__name__]
            raise ValueError(f"load: {path} is not a {path.suffix} file of arrays: {reason[0]}") from error


def section(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The entries that begin with "name.", without that.

    >>> section({"adam.m.0": 1.0, "adam.v.0": 2.0, "epoch": 3}, "adam")
    {'m.0': 1.0, 'v.0': 2.0}
    """
    found = {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(name + ".")}
    if not found:
        known = ", ".join(sorted({key.partition(".")[0] for key in state}))
        raise ValueError(f"section: nothing in this state begins with {name!r}; there are: {known}")
    return found


def _flattened(state: Mapping[str, Any], prefix: str = "") -> State:
    """All values as NumPy arrays, row-major in this machine's byte order, under one name each."""
    arrays: State = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise TypeError(f"save: the name {key!r} is a {type(key).__name__}, not a string")
        name = prefix + key
        part = _flattened(value, name + ".") if isinstance(value, Mapping) else {name: _array(value, name)}
        if twice := arrays.keys() & part.keys():
            raise ValueError(f"save: two values are called {min(twice)!r}")
        arrays.update(part)
    return arrays


def _array(value: Any, name: str) -> np.ndarray:
    array = to_numpy(value)
    if array.dtype.kind not in "biufcU":
        raise TypeError(
            f"save: {name!r} is a {type(value).__name__} of dtype {array.dtype}; only arrays of numbers, "
            "numbers, and strings can be saved"
        )
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


# ------------------------------------------------------------------------------------------ .npz


UNPACKED = 1 << 30  # bytes that a small file may unpack to
RATIOS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # how many bytes can come of one, at most


def write_npz(file: BinaryIO, state: Mapping[str, Any]) -> None:
    """What `save` writes to a .npz file, for somebody who has opened it."""
    _write_npz(file, _flattened(state))


def _write_npz(file: BinaryIO, arrays: State) -> None:
    """As numpy.savez does, which cannot take every name, and puts a suffix of its own to a file's."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            undated = zipfile.ZipInfo(f"{name}.npy")  # so that the same state makes the same file
            with archive.open(undated, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read_npz(file: BinaryIO) -> State:
    arrays: State = {}
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > max(UNPACKED, 100 * size):
            raise ValueError(f"it has {size} bytes and would unpack to {total}")
        for entry in entries:
            what, name = f"its entry {entry.filename!r}", entry.filename.removesuffix(".npy")
            if name == entry.filename or name in arrays:
                raise ValueError(f"{what} is " + ("there twice" if name in arrays else "no array"))
            if entry.file_size > min(entry.compress_size, size) * RATIOS.get(entry.compress_type, 0):
                raise ValueError(f"{what} cannot have the {entry.file_size} bytes that it is said to have")
            with archive.open(entry) as content:
                _check_header(content, entry.file_size, what)
            with archive.open(entry) as content:
                array = np.lib.format.read_array(content, allow_pickle=False)
                content.read(1)  # at the end the checksum is compared
            arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return arrays


def _check_header(content: IO[bytes], size: int, what: str) -> None:
    """Before memory is taken: does the array's header say what `size` bytes, all in all, can hold?"""
    version = np.lib.format.read_magic(content)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    if dtype.kind not in "biufcU":
        raise ValueError(f"{what} is no array of numbers, but of dtype {dtype}")
    there = size - content.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) != there:
        raise ValueError(f"{what} says {dtype} of shape {shape}, but its numbers take {there} bytes")


# ---------------------------------------------------------------------------------- .safetensors

# The names that the format has for kinds of numbers. bfloat16 is float32 without its lower half.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def _safetensors(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(
            'a .safetensors file needs the package safetensors: pip install "minigan[safetensors]"'
        ) from None


def _write_safetensors(file: BinaryIO, arrays: State) -> None:
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in map(np.dtype, DTYPES.values()):
            raise TypeError(
                f"save: {name!r} has dtype {array.dtype}, which a .safetensors file cannot hold; .npz can"
            )
    file.write(_safetensors("safetensors.numpy").save(arrays))


def _read_safetensors(file: BinaryIO) -> State:
    arrays: State = {}
    for name, entry in _safetensors("safetensors").deserialize(file.read()):
        kind = entry["dtype"]
        if kind not in DTYPES:
            raise ValueError(f"{name!r} has dtype {kind}, which NumPy has not")
        array = np.frombuffer(entry["data"], DTYPES[kind]).reshape(entry["shape"])
        if kind == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays


# ---------------------------------------------------------------------------------- which of them

Writer = Callable[[BinaryIO, State], None]
Reader = Callable[[BinaryIO], State]
FORMATS: dict[str, tuple[Writer, Reader]] = {
    ".npz": (_write_npz, _read_npz),
    ".safetensors": (_write_safetensors, _read_safetensors),
}


def _format_of(path: Path, caller: str) -> tuple[Writer, Reader]:
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{caller}: {str(path)!r} should end in {' or '.join(FORMATS)}, which says the format"
        )
    return FORMATS[path.suffix]
