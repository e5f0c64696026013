"""Images of one's own: a folder of PNG and JPEG files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from .idx import DataError

__all__ = ["image_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 50_000_000  # of one image. A file of some kB can claim far more, and would fill the memory


def image_folder(
    path: str | os.PathLike[str], size: int | tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """All images in a folder and the folders inside, in the order of their paths: (N, C, H, W) uint8.

    size: (H, W), or one number for both; each image is cut to that shape around its middle and resized.
    Without it all must have the same size. channels: 3 for red, green, blue, or 1 for grey; transparency
    is ignored. DataError: no image, a damaged or an oversized one.
    """
    if channels not in (1, 3):
        raise ValueError(f"image_folder: channels={channels}; 1 is grey, 3 is colour")
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise ValueError(f"image_folder: size={size}; it is a height and a width of 1 or more")
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise DataError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    first = _image(files[0], shape, channels)
    images = np.empty((len(files), *first.shape), np.uint8)
    for i, file in enumerate(files):
        image = _image(file, shape, channels) if i else first
        if image.shape != first.shape:
            (_, h, w), (_, h0, w0) = image.shape, first.shape
            raise DataError(f"{file}: is {h} x {w} and {files[0].name} {h0} x {w0}; give a size for all")
        images[i] = image
    return images


def _image(file: Path, shape: tuple[int, int] | None, channels: int) -> np.ndarray:
    """One image, (C, H, W) uint8."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Pillow warns, too many pixels is an error below
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise DataError(
                        f"{file}: has {image.width} x {image.height} pixels, more than {MOST_PIXELS}"
                    )
                if image.mode.startswith(("I", "F")):  # Pillow would cut off what is above 255
                    raise DataError(f"{file}: has 16 bits per pixel; save it with 8")
                upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
                if shape:
                    upright = ImageOps.fit(upright, (shape[1], shape[0]), Image.Resampling.LANCZOS)
                pixels = np.asarray(upright)
    except DataError:
        raise
    except Exception as error:  # a parser may stumble over damaged bytes in any way
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: cannot be read as an image ({cause})") from None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
