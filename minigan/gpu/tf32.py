"""In what CuPy multiplies matrices of float32: as NumPy does, or in TF32 (process.py says what that is).

The documented way is to set CUPY_TF32=1, but CuPy reads that once, before the first product. This is what it
then calls itself, in CuPy 13 and 14. It holds for the whole process.
"""

from __future__ import annotations

from typing import Any

from ..backend import BackendError, get

__all__ = ["is_used", "restore", "switch", "use"]


def switch() -> tuple[Any, Any]:
    """The module where CuPy is told, and what TF32 is called there. A BackendError where there is none."""
    cupy = get("cupy").xp
    try:
        return cupy._core, cupy._core._routines_linalg.COMPUTE_TYPE_TF32
    except AttributeError:
        raise BackendError(
            "performance: this CuPy cannot be told to use TF32 while it runs; start Python with CUPY_TF32=1"
        ) from None


def use() -> Any:
    """From now on products are computed in TF32. What they were computed in before, for `restore`."""
    core, tf32 = switch()
    before = core.get_compute_type("float32")  # CuPy warns if the GPU has no TF32
    core.set_compute_type("float32", tf32)
    return before


def restore(before: Any) -> None:
    """Products are computed in what `use` said again."""
    switch()[0].set_compute_type("float32", before)


def is_used() -> bool:
    """Whether CuPy has been told to use TF32."""
    core, tf32 = switch()
    return core.get_compute_type("float32") == tf32
