"""Digits drawn by a pen: images like MNIST's that need no download.

Each begins as a digit of one of matplotlib's own fonts, so the result does not depend on which fonts a
machine has. Thinning takes from the glyph everything but the middle line of its strokes. The line is bent,
turned, slanted and stretched by random waves, fitted into a box of 20 x 20 pixels and moved so that its
centre of mass is in the middle, as MNIST's were. A pen of random width and pressure then follows the line.

N images, S x S points of a glyph, H = W = 28 pixels. A place on a glyph is (x, y) with the glyph's longer
side from -1 to 1; y points down, as in an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..files import whole_file
from ..streams import stream
from .cache import user_cache
from .glyphs import FACES, RADIUS, S, middle_lines
from .images import Images

__all__ = ["rendered_digits"]

RECIPE = 1  # part of a cached file's name; another number whenever other images come out
CHUNK = 1000  # images drawn at a time. Each chunk has its own stream: more images begin with the same ones
SIDE, BOX = 28, 20  # pixels: the image, and the square that a digit fills
CENTRE = 14  # the pixel of the centre of mass, as in MNIST


def rendered_digits(
    count: int = 60_000,
    test: int = 10_000,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
    log: Callable[[str], None] = warnings.warn,
) -> Images:
    """`count` images for training and `test` others, 28 x 28, white on black, with their labels.

    The same seed gives the same images. cache: keep them in the user's cache folder, and take them from
    there the next time. If that does not work they are drawn again, and `log` is called with the reason.
    """
    if count < 1 or test < 0:
        raise ValueError(f"rendered_digits: count={count} and test={test}; it takes 1 or more, and 0 or more")
    path = None
    if cache:
        try:
            path = user_cache() / "digits" / f"recipe{RECIPE}-seed{seed}-{count}-{test}.npz"
            if path.exists():
                return _read(path, count, test)
        except Exception as error:  # whatever is wrong with the file: there is nothing in it to be lost
            log(f"{path or 'the cache'}: cannot be used ({_one_line(error)}); the digits are drawn again")
    drawn = Images(*_draw(count, seed, "train", progress), *_draw(test, seed, "test", progress))
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                np.savez(file, *drawn)
        except OSError as error:
            log(f"{path}: cannot be written ({_one_line(error)}); the digits will be drawn again next time")
    return drawn


def _read(path: Path, count: int, test: int) -> Images:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
        arrays = [saved[f"arr_{i}"] for i in range(4)]
    shapes = [(count, SIDE, SIDE), (count,), (test, SIDE, SIDE), (test,)]
    if [a.shape for a in arrays] != shapes or any(a.dtype != np.uint8 for a in arrays):
        raise ValueError("it holds something else")
    return Images(*arrays)


def _one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _draw(count: int, seed: int, part: str, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of one part, "train" or "test"."""
    from tqdm import trange

    images = np.empty((count, SIDE, SIDE), np.uint8)
    labels = np.empty(count, np.uint8)
    for start in trange(0, count, CHUNK, desc=f"drawing digits ({part})", disable=None if progress else True):
        rng = stream(seed, f"digits {part}", start // CHUNK)
        digits = rng.integers(10, size=CHUNK)
        n = min(CHUNK, count - start)
        images[start : start + n] = _chunk(digits, rng)[:n]
        labels[start : start + n] = digits[:n]
    return images, labels


def _chunk(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One image (28, 28) for each of `digits`.

    The bent line is given backwards: the place on the glyph that belongs to a place v of the digit,

        place = A v + q(v)        A turns, slants and stretches, q is a sum of long waves

    because then every pixel can ask how far it is from the line.
    """
    n = len(digits)
    lines = middle_lines()
    which = rng.integers(len(FACES), size=n) * 10 + digits
    bend = _bends(n, rng)

    # Where the bent line lies: solve place(v) = point for v.
    points = lines.points[which]
    v = points
    for _ in range(6):
        v = v + 0.7 * (points - _places(bend, v))
    low, high = v.min(axis=2), v.max(axis=2)
    pen = rng.gamma(16.0, 0.15, n).clip(1.5, 5.0)  # pixels across
    box = BOX - pen + rng.normal(0, 0.4, n)
    pixel = (high - low).max(axis=1) / box  # the size of a pixel, in units of v
    middle = v.mean(axis=2)

    # v at each pixel: x (N, 28) depends on the column only, y on the row, so their waves are cheap.
    centre = CENTRE + rng.uniform(-0.5, 0.5, (n, 2))
    x, y = ((np.arange(SIDE) - centre[:, i, None]) * pixel[:, None] + middle[:, i, None] for i in (0, 1))
    place = _grid(bend, x, y)

    # From the distance in points of the field to pixels: A may have made the glyph larger.
    stretch = np.sqrt(np.abs(np.linalg.det(bend[:, :, [0, 1], [1, 0]])))
    per_pixel = (RADIUS * stretch * pixel).astype("f4")[:, None, None]
    distance = _between(lines.distance, which, place * np.float32(RADIUS) + np.float32((S - 1) / 2))
    distance /= per_pixel
    distance += rng.standard_normal(distance.shape, "f4") * np.float32(0.1)  # paper is rough
    pressure = np.zeros((n, 1, 4, 4))  # 1 + a x + b y
    pressure[:, 0, [0, 0, 1], [0, 1, 0]] = rng.normal([1, 0, 0], [0, 0.15, 0.15], (n, 3))
    half = _grid(pressure, x, y)[:, 0].clip(0.5, 1.5) * (pen / 2).astype("f4")[:, None, None]
    softness = rng.uniform(0.9, 1.6, n).astype("f4")[:, None, None]  # pixels from black to white
    ink = ((half - distance) / softness + np.float32(0.5)).clip(0, 1)
    return _centred((255 * ink + np.float32(0.5)).astype(np.uint8))


def _centred(images: np.ndarray) -> np.ndarray:
    """Images moved by whole pixels, 4 at most, so that their centre of mass is nearest to CENTRE."""
    at = np.arange(SIDE)
    ink = images.sum(axis=(1, 2))
    wide = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    x, y = ((images.sum(axis=axis) @ at / ink).round().astype(int) - CENTRE for axis in (1, 2))
    columns, rows = (at + 4 + shift.clip(-4, 4)[:, None] for shift in (x, y))
    return wide[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None]]


def _bends(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random coefficients of place(v), (N, 2, 4, 4): entry [:, :, i, j] belongs to wave i of y, j of x."""
    turn, slant = rng.normal(0, 0.12, n), rng.normal(0.12, 0.22, n)
    wide, high = np.exp(rng.normal(0, 0.18, n)), np.exp(rng.normal(0, 0.08, n))
    bend = np.zeros((n, 2, 4, 4))
    for waves in (np.s_[:, :, 0, 2:], np.s_[:, :, 2:, 0], np.s_[:, :, 2:, 2:]):
        bend[waves] = rng.normal(0, 0.05, bend[waves].shape)  # steeper ones would fold the digit over
    bend[:, 0, 0, 1], bend[:, 0, 1, 0] = np.cos(turn) / wide, (np.sin(turn) + slant) / wide
    bend[:, 1, 0, 1], bend[:, 1, 1, 0] = -np.sin(turn) / high, np.cos(turn) / high
    return bend


def _waves(x: np.ndarray) -> np.ndarray:
    """1, x, sin 2x and cos 2x, of x (N, P): (N, 4, P)."""
    return np.stack([np.ones_like(x), x, np.sin(2 * x), np.cos(2 * x)], axis=1)


def _places(bend: np.ndarray, v: np.ndarray) -> np.ndarray:
    """place(v) for some places: v (N, 2, P) to (N, 2, P)."""
    x, y = _waves(v[:, 0])[:, None], _waves(v[:, 1])[:, None]
    return (y * (bend @ x)).sum(axis=2)


def _grid(bend: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """place(v) for columns x (N, W) and rows y (N, H): (N, 2, H, W)."""
    x, y = _waves(x).astype("f4")[:, None], _waves(y).astype("f4")[:, None]
    return y.swapaxes(-1, -2) @ (bend.astype("f4") @ x)


def _between(fields: np.ndarray, which: np.ndarray, place: np.ndarray) -> np.ndarray:
    """fields[which] at places (N, 2, H, W) between its points: bilinear interpolation, (N, H, W)."""
    place = place.clip(0, S - 1.001)
    x, y = place[:, 0], place[:, 1]
    column, row = x.astype(np.int32), y.astype(np.int32)
    x, y = x - column, y - row
    index = (which.astype(np.int32)[:, None, None] * S + row) * S + column
    flat = fields.ravel()
    above = flat[index] * (1 - x) + flat[index + 1] * x
    below = flat[index + S] * (1 - x) + flat[index + S + 1] * x
    return above * (1 - y) + below * y
