"""Images side by side in one picture; pictures in PNG files; files as the frames of an animation.

A file appears under its name when it is complete (files.py), and the same picture makes the same file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..files import whole_file

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Path", "gif", "grid", "save_png"]

Path = str | os.PathLike[str]

GAP = 96  # dark grey: seen beside black pixels and beside white ones
NOT_FINITE = (255, 0, 255)  # magenta


# ------------------------------------------------------------------------------- grids of images


def grid(
    images: ArrayLike, columns: int | None = None, low: float = -1.0, high: float = 1.0, gap: int = 2
) -> np.ndarray:
    """N images side by side in one picture, row by row.

    images: (N, H, W) or (N, 1, H, W) grey, (N, 3, H, W) in colour, or (N, F) where F pixels are a square.
    low becomes black and high white; what lies beyond is clipped. A pixel that is NaN or infinite becomes
    magenta, and a grey picture then one in colour. columns: if not given, as many as make a square.
    gap: grey pixels between two images; places without an image are grey, too.

    >>> grid([[[-1.0, 1.0]], [[0.0, 5.0]]], columns=1, gap=1)
    array([[  0, 255],
           [ 96,  96],
           [128, 255]], dtype=uint8)
    """
    pixels = _pixels(images)
    count, height, width, channels = pixels.shape
    columns = math.isqrt(count - 1) + 1 if columns is None else columns
    if columns < 1 or gap < 0:
        raise ValueError(f"grid: columns={columns} must be 1 or more, gap={gap} must be 0 or more")
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"grid: low={low}, which becomes black, must be less than high={high}")

    lost = ~np.isfinite(pixels).all(axis=-1)
    tiles = np.rint((np.clip(np.nan_to_num(pixels), low, high) - low) / (high - low) * 255)
    if lost.any():
        channels = 3
        tiles = np.where(lost[..., None], NOT_FINITE, tiles)

    rows = -(-count // columns)  # rounded up
    picture = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), GAP, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture[..., 0] if channels == 1 else picture


def _pixels(images: ArrayLike) -> np.ndarray:
    """Any of the shapes that `grid` takes as (N, H, W, 1) or (N, H, W, 3), in float64."""
    given = np.asarray(images)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"grid: images of dtype {given.dtype}; pixels are real numbers")
    if given.size == 0:
        raise ValueError(f"grid: images of shape {given.shape} have no pixels")
    pixels = given
    if given.ndim == 2 and (side := math.isqrt(given.shape[1])) ** 2 == given.shape[1]:
        pixels = given.reshape(-1, side, side)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(
            f"grid: images of shape {given.shape}; they must be (N, H, W), (N, 1, H, W), (N, 3, H, W), or "
            "(N, F) with F a square such as 784; of a single image, give image[None]"
        )
    return np.moveaxis(pixels, 1, -1).astype(np.float64)


# ------------------------------------------------------------------------------------------ files


def save_png(path: Path, picture: ArrayLike) -> None:
    """Write a picture, (H, W) or (H, W, 3) bytes, to a PNG file."""
    _write(path, _encoded(_image("save_png", picture), format="PNG"))


def gif(
    path: Path,
    frames: Iterable[Path | np.ndarray],
    milliseconds: int = 150,
    hold_last: int = 2000,
    most: int = 100,
) -> None:
    """Write an animation that runs over and over.

    frames: PNG files, or pictures as `save_png` takes them, all of one size. Each is shown for so many
    milliseconds, the last for `hold_last`. If there are more than `most`, some are left out evenly; the
    first and the last stay. A grey frame keeps its greys, one in colour is reduced to 256 colours.
    """
    given = list(frames)
    if not given:
        raise ValueError("gif: there are no frames")
    if min(milliseconds, hold_last) < 20 or most < 2:
        raise ValueError(
            f"gif: milliseconds={milliseconds} and hold_last={hold_last} must be 20 or more (viewers are not "
            f"faster), and most={most} must be 2 or more"
        )
    chosen = np.linspace(0, len(given) - 1, min(len(given), most), dtype=int)
    images = [_frame(given[i]) for i in chosen]
    for i, image in zip(chosen, images, strict=True):
        if image.size != images[0].size:
            sizes = " and ".join(f"{width} x {height}" for width, height in (images[0].size, image.size))
            raise ValueError(f"gif: frames 0 and {i} differ in size: {sizes} pixels")
    durations = [milliseconds] * (len(images) - 1) + [hold_last]
    first, *others = images
    _write(
        path, _encoded(first, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
    )


def _frame(frame: Path | np.ndarray) -> Image.Image:
    from PIL import Image

    if not isinstance(frame, (str, os.PathLike)):
        return _image("gif", frame)
    with Image.open(frame) as image:
        return image.convert("L" if image.mode == "L" else "RGB")


def _image(caller: str, picture: ArrayLike) -> Image.Image:
    from PIL import Image

    array = np.ascontiguousarray(picture)
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not shaped or array.dtype != np.uint8 or array.size == 0:
        raise ValueError(
            f"{caller}: an array of shape {array.shape} and dtype {array.dtype}; a picture is (H, W) or "
            "(H, W, 3) of uint8, such as grid() makes of images"
        )
    return Image.fromarray(array)


def _encoded(image: Image.Image, **how: Any) -> bytes:
    file = BytesIO()
    image.save(file, **how)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)
