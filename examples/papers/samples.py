"""What goes into a GAN and comes out of it: digits to learn from, samples of G, images kept as text.

    images = digit_images(options, 600, 100)       # rendered ones for --quick, MNIST otherwise
    made = drawn(g, z)                             # G(z), in evaluation mode
    found["images"] = packed(made)                 # for results.json, and unpacked(...) for a picture

Noise is the study's own affair: each has a stream of its own for the samples that are judged.
"""

from __future__ import annotations

import argparse
import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigan import Tensor, nn, no_grad
from minigan.data import Mixture, load, rendered_digits
from minigan.metrics import DigitClassifier, ModeReport, judge_modes

__all__ = ["digit_images", "drawn", "known_by", "near_centres", "packed", "unpacked"]


def digit_images(options: argparse.Namespace, train: int, test: int) -> Any:
    """So many rendered digits for --quick, which needs no MNIST then, and all of MNIST otherwise."""
    if options.size == "quick":
        return rendered_digits(train, test, progress=False, log=print)
    return load("mnist", options.data_dir)


def known_by(classifier: DigitClassifier, images: np.ndarray) -> dict[str, float]:
    """By what one can tell this classifier from others: for the settings of a study that it judges.

    Two of them may be right on as many test images, but they hardly see the same in them.
    """
    mean = float(classifier.features(images).mean(dtype=np.float64))
    return {"accuracy": round(classifier.accuracy, 4), "mean feature": float(f"{mean:.4g}")}


def drawn(g: nn.Module, z: np.ndarray, at_once: int | None = None) -> np.ndarray:
    """G(z) of noise z (N, ...), in evaluation mode: BatchNorm uses its running averages.

    at_once: rows that G gets at a time; None: all of them. G is in the mode afterwards that it was in before.
    """
    training, backend, at_once = g.training, g.parameters()[0].backend, at_once or len(z)
    blocks = [z[i : i + at_once] for i in range(0, len(z), at_once)]
    g.eval()
    try:
        with no_grad(), np.errstate(all="ignore"):  # a G that has diverged is no reason for a warning
            return np.concatenate([g(Tensor(block, backend=backend)).numpy() for block in blocks])
    finally:
        g.train(training)


def near_centres(samples: np.ndarray, mixture: Mixture, within: float = 3.0) -> ModeReport:
    """judge_modes for samples that may be infinite or NaN, after a GAN diverged: these find nothing."""
    if np.isfinite(samples).all():
        return judge_modes(samples, mixture, within)
    return ModeReport(0, 0.0, float("inf"), (0,) * len(mixture.centres))


def packed(images: np.ndarray) -> dict[str, Any]:
    """Numbers from -1 to 1 as one byte each, compressed, as text. A NaN becomes 0, which is grey."""
    pixels = np.rint((np.clip(np.nan_to_num(images), -1, 1) + 1) * 127.5).astype(np.uint8)
    text = base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode("ascii")
    return {"shape": list(images.shape), "base64, zlib, uint8": text}


def unpacked(kept: Mapping[str, Any]) -> np.ndarray:
    """What `packed` has kept, as uint8: 0 is black, 255 is white."""
    content = zlib.decompress(base64.b64decode(kept["base64, zlib, uint8"]))
    return np.frombuffer(content, np.uint8).reshape(kept["shape"])
