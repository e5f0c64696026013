"""Reading and writing IDX files, the format of MNIST, plain or packed with gzip.

    2 bytes    0 0
    1 byte     the kind of numbers, see KINDS
    1 byte     the number of axes
    4 bytes    the length of each axis, the most significant byte first
    the rest   the numbers, row-major, the most significant byte first

A header is a claim, and the file may come from a stranger: the memory taken grows with what is really there,
and stops one byte behind what the header says.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from ..files import whole_file

__all__ = ["DataError", "read_idx", "write_idx"]

KINDS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CODES = {np.dtype(kind).newbyteorder("="): code for code, kind in KINDS.items()}
MOST_AXES = 32
AT_ONCE = 1 << 18  # bytes read at a time
GZIP_MAGIC = b"\x1f\x8b"
GZIP_RATIO = 1032  # gzip's format cannot pack more bytes than that into one


class DataError(ValueError):
    """A data set that cannot be had. The message is one line that names the file and the cause."""


def read_idx(path: str | os.PathLike[str], limit: int = 1 << 30) -> np.ndarray:
    """The array in an IDX file. Whether it is packed is seen from its first bytes.

    limit: bytes that the array may take at most. Whatever is wrong with the file is a DataError.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: is a {'directory' if os.path.isdir(path) else 'device'}, not an IDX file")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if not packed:
                if path.suffix == ".gz":
                    raise DataError(f"{path}: is not a gzip file" if size else f"{path}: is empty")
                return _read(path, file, size, limit)
            with gzip.open(file) as unpacked:
                return _read(path, cast(IO[bytes], unpacked), size * GZIP_RATIO, limit)
    except EOFError:
        raise DataError(f"{path}: is cut off: its gzip data do not come to an end") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: its gzip data are damaged ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _read(path: Path, file: IO[bytes], possible: int, limit: int) -> np.ndarray:
    """The array. possible: how many bytes a file of this size can hold at most."""
    magic = file.read(4)
    if not magic:
        raise DataError(f"{path}: is empty")
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in KINDS or not 1 <= magic[3] <= MOST_AXES:
        raise DataError(f"{path}: is not an IDX file: it begins with the bytes {magic.hex(' ')}")
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(f"{path}: is cut off inside its header")
    shape = struct.unpack(f">{magic[3]}I", lengths)
    dtype = np.dtype(KINDS[magic[2]])
    size = math.prod(shape) * dtype.itemsize
    header = f"its header says {dtype.name} of shape {shape}"
    if not all(0 < n < 2**31 for n in shape):
        raise DataError(f"{path}: {header}, and each length must be from 1 to {2**31 - 1}")
    if size > possible:
        raise DataError(f"{path}: {header}, more than a file of this size can hold; is it cut off?")
    if size > limit:
        raise DataError(f"{path}: {header}, more than the limit of {limit} bytes")
    data = bytearray()
    while len(data) <= size:  # once more when all is there: only the end shows that there is no more
        piece = file.read(min(AT_ONCE, size + 1 - len(data)))
        if not piece:
            break
        data += piece
    if len(data) != size:
        what = "is longer than its header says" if len(data) > size else f"is cut off after {len(data)} bytes"
        raise DataError(f"{path}: {what}: {header}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array to an IDX file, packed if the name ends in .gz. The same array gives the same bytes."""
    path, array = Path(path), np.asarray(array)
    code = CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        known = ", ".join(str(dtype) for dtype in CODES)
        raise ValueError(f"write_idx: dtype {array.dtype}; an IDX file holds one of: {known}")
    if not array.size or not 1 <= array.ndim <= MOST_AXES or max(array.shape) >= 2**31:
        raise ValueError(
            f"write_idx: shape {array.shape}; an IDX file has 1 to {MOST_AXES} axes, none of length 0"
        )
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    content = header + array.astype(KINDS[code]).tobytes()
    with whole_file(path) as file:  # gzip would write its time: mtime=0
        file.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
