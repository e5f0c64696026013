"""Where downloaded and drawn data are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["user_cache"]


def user_cache() -> Path:
    """The folder for things that can be had again, where the system has such folders.

    Linux: $XDG_CACHE_HOME or ~/.cache. macOS: ~/Library/Caches. Windows: %LOCALAPPDATA%.
    An OSError where a user has no home.
    """
    if sys.platform == "darwin":
        base, inside_home = None, "Library/Caches"
    elif sys.platform == "win32":
        base, inside_home = os.environ.get("LOCALAPPDATA"), "AppData/Local"
    else:
        base, inside_home = os.environ.get("XDG_CACHE_HOME"), ".cache"
    if base and os.path.isabs(base):  # XDG's rule: a relative path is to be ignored
        return Path(base) / "minigan"
    try:
        return Path.home() / inside_home / "minigan"
    except RuntimeError as error:
        raise FileNotFoundError(f"no folder for a cache: {error}") from None
