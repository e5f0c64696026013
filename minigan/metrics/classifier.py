"""A small classifier of digits. Its features of an image say how good a generated one is.

    classifier = digit_classifier(data.load("mnist"))
    classifier.features(samples)      # (N, 64): what the Fréchet distance compares
    classifier.labels(samples)        # (N,): which digits they are
    classifier.accuracy               # how often it is right on the test images: 0.99 on MNIST

It is trained when it is first needed, for twenty seconds on two cores, and kept in a file. The same images
and the same seed give the same network, so that scores can be compared from run to run. The scores of two
different classifiers cannot be compared: the size of features is whatever training made it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from ..backend import xp_of
from ..data.cache import user_cache
from ..data.images import scaled
from ..nn import Conv2d, Flatten, Linear, Module, ReLU, Sequential
from ..ops.reduce import logsumexp
from ..optim import Adam
from ..optim.schedules import linear
from ..process import performance
from ..streams import stream
from ..tensor import Tensor, no_grad
from .checks import on_host

__all__ = ["DigitClassifier", "cross_entropy", "digit_classifier"]

Labelled = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # such as data.Images
Log = Callable[[str], object]

RECIPE = 1  # part of the cached file's name; to be raised when anything changes that changes the network
EPOCHS, BATCH, RATE = 4, 100, 2e-3
FEATURES = 64


class DigitClassifier(Module):
    """Two convolutions that halve the image, one layer of features, one logit for each digit.

    Shapes: (N, 1, 28, 28) → features (N, 64) → logits (N, 10). Features are what comes out of the last ReLU,
    as it is: 0 or more, and not scaled to any common size.
    accuracy: the share of the test images that it labels rightly; NaN before it was trained.
    """

    def __init__(self, seed: int = 0):
        rng = stream(seed, "digit classifier: weights")
        self.body = Sequential(
            Conv2d(1, 32, 4, stride=2, padding=1, rng=rng), ReLU(),
            Conv2d(32, 64, 4, stride=2, padding=1, rng=rng), ReLU(),
            Flatten(), Linear(64 * 7 * 7, FEATURES, rng=rng), ReLU(),
        )  # fmt: skip
        self.head = Linear(FEATURES, 10, rng=rng)
        self.accuracy = float("nan")

    def forward(self, x: Any) -> Tensor:
        return self.head(self.body(x))

    def features(self, images: Any) -> np.ndarray:
        """The features of each image, (N, 64). Images: see `pixels`."""
        return _in_batches(self.body, images)

    def labels(self, images: Any) -> np.ndarray:
        """The digit, 0 to 9, that each image is most likely to be: (N,). Images: see `pixels`."""
        return _in_batches(self, images).argmax(axis=1)


def pixels(images: Any) -> np.ndarray:
    """(N, 784), (N, 28, 28) or (N, 1, 28, 28), as (N, 1, 28, 28) in float32 from -1, black, to 1, white.

    Numbers of dtype uint8 are taken for pixels from 0 to 255; all others must be in [-1, 1] already.
    """
    x = _as_images(images)
    if x.dtype == np.uint8:
        return scaled(x)
    low, high = x.min(initial=0), x.max(initial=0)
    if not (low >= -1.001 and high <= 1.001):  # written so that NaN is an error, too
        raise ValueError(
            f"digit classifier: images of dtype {x.dtype} with numbers from {low:.4g} to {high:.4g}; they "
            "must be uint8 pixels, or numbers from -1 (black) to 1 (white)"
        )
    return x.astype(np.float32)


def _as_images(images: Any) -> np.ndarray:
    x = on_host(images)
    if x.ndim == 0 or x.shape[1:] not in ((784,), (28, 28), (1, 28, 28)):
        raise ValueError(
            f"digit classifier: images of shape {x.shape}; they must be (N, 784), (N, 28, 28) or "
            "(N, 1, 28, 28)"
        )
    return x.reshape(len(x), 1, 28, 28)


def cross_entropy(logits: Tensor, labels: Any) -> Tensor:
    """L = mean of log Σⱼ eˡʲ - l, where l is the logit of the right class: -log of its softmax

    Shapes: logits (N, classes), before any softmax; labels (N,), whole numbers from 0 to classes - 1.
    """
    xp = xp_of(logits.data)
    right = logits[xp.arange(len(labels)), xp.asarray(labels)]
    return (logsumexp(logits, axis=1) - right).mean()


def digit_classifier(
    images: Labelled, cache: bool = True, seed: int = 0, log: Log = print
) -> DigitClassifier:
    """A classifier trained on `images`: (train images, train labels, test images, test labels).

    That is what data.load gives. Images are uint8 (N, 28, 28), labels whole numbers from 0 to 9.
    cache: keep the network in a file, or read it from there if one was trained on the same images with the
    same seed before. (Another number of threads adds sums up in another order, and changes the network a
    little. The file makes up for that, too.)
    log: called with lines of text that say what happens.
    """
    train_images, train_labels, test_images, test_labels = images
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    _check("train", train_images, train_labels, least=BATCH)
    _check("test", test_images, test_labels, least=1)
    key = _key(train_images, train_labels, seed)
    classifier = DigitClassifier(seed)
    found = cache and _read(key, classifier, log)
    if not found:
        _train(classifier, train_images, train_labels, seed, log)
    classifier.accuracy = float((classifier.labels(test_images) == test_labels).mean())
    log(f"digit classifier: {classifier.accuracy:.2%} of {len(test_images)} test images right")
    if cache and not found:
        _keep(key, classifier, log)
    return classifier.eval()


def _train(classifier: DigitClassifier, images: np.ndarray, labels: np.ndarray, seed: int, log: Log) -> None:
    """Adam, with a rate that falls to zero, on batches in a new order each epoch."""
    batches = len(images) // BATCH
    adam = Adam(classifier.parameters(), lr=linear(RATE, EPOCHS * batches))
    start = time.perf_counter()
    with performance():
        for epoch in range(EPOCHS):
            order = stream(seed, "digit classifier: order", epoch).permutation(len(images))
            total = 0.0
            for rows in order[: batches * BATCH].reshape(batches, BATCH):
                loss = cross_entropy(classifier(pixels(images[rows])), labels[rows])
                adam.zero_grad()
                loss.backward()
                adam.step()
                total += float(loss)
            mean, seconds = total / batches, time.perf_counter() - start
            log(f"digit classifier: epoch {epoch + 1} of {EPOCHS}, loss {mean:.4f}, {seconds:.0f} s")


def _in_batches(network: Module, images: Any) -> np.ndarray:
    """network(images), 500 at a time: what all would need at once does not fit in a processor's cache."""
    x = _as_images(images)
    starts = range(0, max(len(x), 1), 500)  # no images give no features, but of the right shape
    # without performance() the BLAS's own threads took up to ten times as long on a busy machine
    with performance(), no_grad():
        return np.concatenate([network(pixels(x[i : i + 500])).numpy() for i in starts])


def _check(which: str, images: Any, labels: np.ndarray, least: int) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(
            f"digit_classifier: {which} images are {what}; they must be a NumPy array, uint8 (N, 28, 28)"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"digit_classifier: {which} labels are {labels.dtype} {labels.shape} for {len(images)} images; "
            "they must be whole numbers, one for each image"
        )
    if len(images) < least:
        raise ValueError(f"digit_classifier: {len(images)} {which} images; it needs {least} or more")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(
            f"digit_classifier: {which} labels from {labels.min()} to {labels.max()}; they must be digits, "
            "0 to 9"
        )


# ------------------------------------------------------------------------------ the file it is kept in


def _key(images: np.ndarray, labels: np.ndarray, seed: int) -> str:
    """A hash of all that the network depends on."""
    digest = hashlib.sha256(f"recipe {RECIPE}, seed {seed}, {len(images)} images".encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype(np.uint8).tobytes())
    return digest.hexdigest()


def _path(key: str) -> Path:
    return user_cache() / f"digit-classifier-{key[:16]}.npz"


def _read(key: str, classifier: DigitClassifier, log: Log) -> bool:
    """Take the weights over from the file, if there is one that holds what its name says."""
    try:
        state = io.load(_path(key))
        if str(state.get("key")) != key:
            raise ValueError(f"{_path(key)} was not made from these images")
        classifier.load_state_dict(io.section(state, "weights"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        log(f"digit classifier: cannot be read from its file, and is trained again: {error}")
        return False
    return True


def _keep(key: str, classifier: DigitClassifier, log: Log) -> None:
    try:
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        io.save(path, {"key": key, "weights": classifier.state_dict()})
    except OSError as error:
        log(f"digit classifier: cannot be kept for the next time: {error}")
