"""Images with labels, and their range."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..backend import Array

__all__ = ["Images", "scaled"]


class Images(NamedTuple):
    """Images for training, and others for testing.

    Images (N, H, W) are uint8, black 0 and white 255; labels (N,) are uint8, too.
    """

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def scaled(images: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """uint8 images as float32 numbers from low (black, 0) to high (white, 255):

        y = low + x (high - low) / 255

    -1 to 1 suits a generator that ends in tanh, 0 to 1 one that ends in a sigmoid.

    >>> scaled(np.array([0, 51, 255], np.uint8)).tolist()
    [-1.0, -0.6000000238418579, 1.0]
    """
    if str(getattr(images, "dtype", None)) != "uint8":
        kind = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"scaled: images of {kind}; it takes uint8 from 0 to 255, and each image only once")
    if not low < high:
        raise ValueError(f"scaled: low={low} and high={high}; low must be less")
    y = images.astype("float32")
    y /= 255 / (high - low)  # for -1 and 1 that is 127.5, so white is 1 without rounding
    y += low
    return y
