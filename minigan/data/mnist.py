"""MNIST and Fashion-MNIST: found on this machine, or downloaded once into the user's cache."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .cache import user_cache
from .download import download as fetch
from .idx import GZIP_MAGIC, DataError, read_idx
from .images import Images

__all__ = ["NotFound", "mnist"]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
LARGEST = 16 + 60_000 * 784  # bytes: the training images without gzip

MIRRORS: Mapping[str, Sequence[str]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # without https: comes last
    ),
}

# MD5 of the content without gzip, in the order of FILES: packed again, it is still the same set.
SUMS: Mapping[str, Sequence[str]] = {
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}

ADVICE = (
    "put its four files, such as train-images-idx3-ubyte.gz, into a folder and name it: --data-dir FOLDER, "
    "folder=... or $MINIGAN_DATA"
)


class NotFound(DataError):
    """The data set is not on this machine, and could not be downloaded."""


def mnist(
    folder: str | os.PathLike[str] | None = None,
    name: str = "mnist",
    download: bool = True,
    progress: bool = True,
    mirrors: Sequence[str] | None = None,
) -> Images:
    """The set `name`, "mnist" or "fashion-mnist": 60,000 images (28, 28) and 10,000 for testing.

    Looked for in `folder`, then in $MINIGAN_DATA, both times also in a folder `name` inside, then in the
    user's cache. Else it is downloaded into the cache, from `mirrors` or those known for this set.

    In a folder of yours, the four files may hold any number of images, packed or not. If one of them is
    missing or damaged, or a folder is not there, that is a DataError; also if all are missing in `folder`.
    """
    if name not in SUMS:
        raise ValueError(f"mnist: there is no set {name!r}; choose one of: {', '.join(SUMS)}")
    for given in (folder, os.environ.get("MINIGAN_DATA")):
        files = _found(Path(given), name) if given else None
        if files:
            _check_set(files[-1], name)
            return _images(files)
        if given and given is folder:
            raise DataError(f"{folder}: has none of {name}'s four files, such as {FILES[0]}.gz")
    try:
        cache = user_cache() / name
    except OSError as error:
        raise NotFound(f"{name}: {error}; {ADVICE}") from None
    packed = [cache / f"{file}.gz" for file in FILES]
    try:
        return _images(packed)
    except DataError:  # not there, or damaged meanwhile
        if not download:
            raise NotFound(f"{name}: is not (or not whole) in {cache}; {ADVICE}") from None
    for path, md5 in zip(packed, SUMS[name], strict=True):
        if _md5(path) != md5:
            try:
                fetch(path, mirrors or MIRRORS[name], lambda file: _check(file, md5), progress)
            except DataError as error:
                raise NotFound(f"{name}: {error}; {ADVICE}") from None
    return _images(packed)


def _found(folder: Path, name: str) -> list[Path] | None:
    """The four files in `folder`, or in a folder `name` inside; None if there is none of them."""
    try:
        os.listdir(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror}); it should hold {name}'s files"
        ) from None
    for place in (folder / name, folder):
        both = [[place / f"{file}.gz", place / file] for file in FILES]
        found = [next(filter(os.path.isfile, paths), None) for paths in both]
        files = [path for path in found if path]
        if len(files) == len(FILES):
            return files
        if files:
            missing = [file for file, path in zip(FILES, found, strict=True) if not path]
            raise DataError(f"{place}: {' and '.join(missing)} (with or without .gz) not there")
    return None


def _images(files: Sequence[Path]) -> Images:
    arrays: list[np.ndarray] = []
    for images, labels in (files[:2], files[2:]):
        x, y = read_idx(images), read_idx(labels)
        if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
            raise DataError(f"{images}: holds {x.dtype} of shape {x.shape}, not uint8 images (N, 28, 28)")
        if y.dtype != np.uint8 or y.shape != x.shape[:1] or y.max() > 9:
            raise DataError(f"{labels}: does not hold one label from 0 to 9 for each of the {len(x)} images")
        arrays += [x, y]
    return Images(*arrays)


def _check_set(test_labels: Path, name: str) -> None:
    """All sets have the same file names: a DataError where these are of another one."""
    md5 = _md5(test_labels)
    for other, sums in SUMS.items():
        if other != name and md5 == sums[-1]:
            raise DataError(f"{test_labels.parent}: holds {other}, not {name}")


def _check(file: Path, md5: str) -> None:
    if (got := _md5(file)) != md5:
        raise DataError(f"sends another file (MD5 of the content {got or 'none'}, not {md5})")


def _md5(path: Path) -> str:
    """MD5 of the content without gzip; "" if there is none that can be read, or far too much."""
    md5, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            with gzip.open(raw) if packed else raw as file:
                while piece := file.read(1 << 18):
                    size += len(piece)
                    md5.update(piece)
                    if size > LARGEST:
                        return ""
    except (OSError, EOFError, ValueError, zlib.error):
        return ""
    return md5.hexdigest()
