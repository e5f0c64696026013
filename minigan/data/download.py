"""Getting a file from the first of several mirrors that delivers it whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from ..files import whole_file
from .idx import DataError

__all__ = ["download"]

PIECE = 1 << 16  # bytes received at a time
SLOWEST = 10_000  # bytes per second: a mirror slower than that, after half a minute, is given up
LARGEST = 1 << 26  # bytes: no file that minigan downloads is larger


def download(
    path: Path,
    mirrors: Sequence[str],
    check: Callable[[Path], None],
    progress: bool = True,
    seconds: float = 5.0,
) -> None:
    """Put the file `path.name` of the first good mirror at `path`. There is no half of it at any time.

    check(file): raises a DataError if the content is wrong. seconds: within which a mirror must answer.
    DataError: no mirror has it, or it cannot be written.
    """
    failures = []
    for mirror in mirrors:
        url = mirror + path.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                for piece in _pieces(url, seconds, progress):
                    file.write(piece)
                file.flush()
                check(Path(file.name))
            return
        except DataError as error:
            failures.append(f"{urlsplit(url).hostname}: {error}")
        except OSError as error:  # another mirror would not help
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    raise DataError(f"{path.name}: cannot be downloaded ({'; '.join(failures)})")


def _pieces(url: str, seconds: float, progress: bool) -> Iterator[bytes]:
    """The content of `url`, a piece at a time. Whatever the network does is a DataError."""
    from tqdm import tqdm

    try:
        with _opened(url, seconds) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            started, got = monotonic(), 0
            name = os.path.basename(urlsplit(url).path)
            quiet = None if progress else True  # None: where nobody looks, in a file or a pipe
            with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=quiet, leave=False) as bar:
                while piece := response.read1(PIECE):
                    got += len(piece)
                    bar.update(len(piece))
                    if got > LARGEST:
                        raise DataError(f"does not stop after {LARGEST} bytes")
                    if monotonic() - started > 30 + got / SLOWEST:
                        raise DataError(f"is too slow: {got} bytes in {monotonic() - started:.0f} s")
                    yield piece
            if total is not None and got != total:
                raise DataError(f"breaks off after {got} of {total} bytes")
    except DataError:
        raise
    except HTTPError as error:
        error.close()
        raise DataError(f"answers {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise DataError(" ".join(text.split())) from None


def _opened(url: str, seconds: float) -> Any:
    """urlopen, but no longer than `seconds` until the answer begins.

    Its own time-out, for each silence of the line, does not count the search for the name's address, and
    begins anew for each address that a name may have. So it works in a thread, left alone when time is up.
    """
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(urlopen(url, timeout=3 * seconds))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, daemon=True).start()
    if not wait([answer], timeout=seconds).done:
        raise DataError(f"does not answer within {seconds:g} s")
    return answer.result()
