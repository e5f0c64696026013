"""Files that are either written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on the disk.

    It is written beside its place, under a name of its own (".name.1a2b3c4d"), and then renamed. Whatever
    happens meanwhile, a full disk or a power cut, what was there before stays as it was; and two processes
    that write the same file do not meet. An OSError names the file that was asked for.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
