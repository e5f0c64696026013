"""The images to train on, whatever a machine has."""

from __future__ import annotations

import os
from collections.abc import Callable

from .drawn_digits import rendered_digits
from .images import Images
from .mnist import NotFound, mnist

__all__ = ["load"]

NAMES = ("auto", "mnist", "fashion-mnist", "digits")


def load(
    dataset: str = "auto",
    folder: str | os.PathLike[str] | None = None,
    log: Callable[[str], None] = print,
) -> Images:
    """60,000 images for training and 10,000 for testing, by name.

    "mnist" and "fashion-mnist" look in `folder` and the places that mnist() knows, and download what is not
    there. "digits" draws digits from fonts. "auto" is MNIST if it can be had, else drawn digits; then `log`
    is called with one line that says so. A folder that is given but not right is always a DataError.
    """
    if dataset not in NAMES:
        raise ValueError(f"load: there is no data set {dataset!r}; choose one of: {', '.join(NAMES)}")
    if dataset == "digits":
        return rendered_digits(log=log)
    if dataset != "auto":
        return mnist(folder, dataset)
    try:
        return mnist(folder)
    except NotFound:
        log("MNIST is not here and cannot be fetched: digits are drawn from fonts (--dataset mnist says why)")
        return rendered_digits(log=log)
