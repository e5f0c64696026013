"""Files that are either written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

__all__ = ["remove_unfinished", "unfinished", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on the disk.

    It is written beside its place, under a name of its own, and then renamed. Whatever happens meanwhile, a
    full disk or a power cut, what was there before stays as it was; and two processes that write the same
    file do not meet. Where the path is a symbolic link, what it points to is written. A file that is there
    keeps its permissions, and one that may not be written is left alone. An OSError names the file that was
    asked for.
    """
    real = Path(os.path.realpath(path))
    temporary = unfinished(real)
    try:
        mode = _mode(real)
        with open(temporary, "xb") as file:
            if mode is not None:
                with suppress(OSError):  # a file system without permissions
                    os.chmod(temporary, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, real)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary), str(real)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def _mode(path: Path) -> int | None:
    """The permissions of the file at `path`, if there is one and it may be written."""
    try:
        found = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):  # a device would be replaced by a file
        code = errno.EISDIR if stat.S_ISDIR(found) else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return stat.S_IMODE(found)


def unfinished(path: Path) -> Path:
    """A name for `path` while it is being written, one that nobody else would give: .name.minigan-1a2b3c4d"""
    return path.with_name(f".{path.name}.minigan-{uuid4().hex[:8]}")


def remove_unfinished(folder: Path, name: str) -> None:
    """Remove what a process that was killed while it wrote `name` (a name or a pattern) has left behind."""
    for path in folder.glob(f".{name}.minigan-" + 8 * "[0-9a-f]"):
        path.unlink(missing_ok=True)
