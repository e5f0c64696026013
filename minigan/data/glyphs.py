"""From the digits of a font to lines: the glyphs of matplotlib's own fonts, thinned to their middle line.

A glyph is a field of S x S points. It lies in the middle, its longer side 2 RADIUS points long.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["FACES", "RADIUS", "Lines", "S", "middle_lines"]

S, RADIUS = 72, 22.0
POINTS = 48  # how many places along a line are kept
FACES = (  # those that matplotlib has had for many years: newer ones would not be everywhere
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmmi10",
    "cmss10",
    "cmtt10",
)


class Lines(NamedTuple):
    """distance (faces * 10, S, S): how far each point is from the middle line, in points of the field.
    points (faces * 10, 2, POINTS): places on the line, x and y from -1 to 1."""

    distance: np.ndarray
    points: np.ndarray


@cache
def middle_lines() -> Lines:
    """The middle lines of all digits of all faces: 0 to 9 of the first face, then of the second ..."""
    from scipy import ndimage

    glyphs = np.array([_glyph(face, digit) for face in FACES for digit in "0123456789"])
    smooth = ndimage.gaussian_filter(glyphs.astype("f4"), (0, 1, 1)) > 0.35  # or each corner grows a spur
    thin = _thinned(smooth)
    distance = np.array([ndimage.distance_transform_edt(~line) for line in thin], "f4")
    points = np.empty((len(thin), 2, POINTS))
    for i, line in enumerate(thin):
        y, x = np.nonzero(line)
        some = np.linspace(0, len(x) - 1, POINTS).round().astype(int)  # from the top point to the lowest
        points[i] = (np.stack([x[some], y[some]]) - (S - 1) / 2) / RADIUS
    return Lines(distance, points)


def _glyph(face: str, digit: str) -> np.ndarray:
    """Which of the S x S points are inside the digit: bool (S, S)."""
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    outline = TextPath((0, 0), digit, size=100, prop=FontProperties(fname=str(file)))
    loops = [np.asarray(loop) for loop in outline.to_polygons()]
    if digit == "0":  # without the dot or bar that tells it from the letter O
        loops = sorted(loops, key=lambda loop: -np.ptp(loop[:, 1]))[:2]
    corners = np.concatenate(loops)
    low, high = corners.min(axis=0), corners.max(axis=0)
    line = np.linspace(-1, 1, S) * (S - 1) / 2 / RADIUS * (high - low).max() / 2
    x, y = np.meshgrid(line, -line)
    at = np.stack([x.ravel(), y.ravel()], axis=1) + (low + high) / 2
    inside = [Outline(loop).contains_points(at) for loop in loops]
    return np.logical_xor.reduce(inside).reshape(S, S)  # inside a hole is inside two loops


def _thinned(shapes: np.ndarray) -> np.ndarray:
    """Shapes, bool (N, S, S), peeled to lines one point wide (Zhang and Suen, 1984).

    A point is peeled off if that makes no hole, no gap and no shorter end: of its 8 neighbours, taken in a
    circle, 2 to 6 are set and they hang together. South-east and north-west sides take turns.
    """
    shapes = shapes.copy()
    before = None
    while before is None or before.sum() > shapes.sum():
        before = shapes.copy()
        for south_east in (True, False):
            wide = np.pad(shapes, ((0, 0), (1, 1), (1, 1)))
            circle = [
                wide[:, 1 + dy : 1 + dy + S, 1 + dx : 1 + dx + S]
                for dy, dx in [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
            ]
            north, east, south, west = circle[::2]
            count = sum(one.astype("i1") for one in circle)
            starts = sum((~a & b).astype("i1") for a, b in zip(circle, circle[1:] + circle[:1], strict=True))
            if south_east:
                side = ~(north & east & south) & ~(east & south & west)
            else:
                side = ~(north & east & west) & ~(north & south & west)
            shapes &= ~((count >= 2) & (count <= 6) & (starts == 1) & side)
    return shapes
