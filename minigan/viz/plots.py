"""What matplotlib draws: the curves of a training run, and D's output at the points of a plane.

Figures are made without pyplot, which would open windows, and keep each figure until it is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .images import Path, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves", "landscape"]

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"  # the colour-blind can distinguish them
PALE_ORANGE, PALE_BLUE = "#f3b58b", "#8cc0e0"
LARGEST = float(np.finfo(np.float32).max)  # losses are float32: beyond, there is only infinity
DPI = 100

# What `curves` shows: key of a record, words for it, colour, kind of line.
LOSSES = [("loss_d", "D's loss", BLUE, "-"), ("loss_g", "G's loss", ORANGE, "-")]
OUTPUTS = [
    ("d_real", "D(x)", BLUE, "-"),
    ("d_fake_before", "D(G(z)) before D's step", ORANGE, "-"),
    ("d_fake_after", "D(G(z)) after D's step", GREEN, "--"),
]


# ----------------------------------------------------------------------------------------- curves


def curves(
    path: Path, records: Iterable[Mapping[str, Any]], equilibrium: tuple[float, float] | None = None
) -> None:
    """Draw how training went: above the losses, below D's mean outputs for real and for fake images.

    records: the lines of metrics.jsonl, in order. Each has what it has of: epoch, step, loss_d, loss_g,
    d_real, d_fake_before, d_fake_after. What is missing is not drawn; where a number is NaN or infinite,
    there is a cross at the upper edge. equilibrium: the losses of D and of G when fakes are like real
    images, such as (2 ln 2, ln 2) = (1.386, 0.693) in the original game; drawn as dotted lines.
    """
    from matplotlib.ticker import MaxNLocator

    lines = list(records)
    label, xs = _positions(lines)
    figure = _figure(7.5, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, panel in ((upper, LOSSES), (lower, OUTPUTS)):
        for key, words, colour, style in panel:
            _curve(axes, xs, [_number(line.get(key)) for line in lines], words, colour, style)
        axes.grid(color="#e5e5e5")
        axes.spines[["top", "right"]].set_visible(False)
    for value, name, colour in zip(equilibrium or (), "DG", (BLUE, ORANGE), strict=False):
        upper.axhline(value, color=colour, linestyle=":", label=f"{name}'s in equilibrium")
    upper.set_ylabel("loss")
    lower.set_ylabel("D's mean output")
    lower.set_xlabel(label)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    if len(xs) == 1:
        lower.set_xlim(xs[0] - 1, xs[0] + 1)
    if lower.dataLim.ymin >= 0 and lower.dataLim.ymax <= 1:  # they look like probabilities
        lower.set_ylim(-0.03, 1.03)
    for axes in (upper, lower):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
        else:
            axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)
    save_png(path, _drawn(figure))


def _positions(lines: Sequence[Mapping[str, Any]]) -> tuple[str, list[float]]:
    """Where the records stand on the x axis: at their epochs, or at their steps if epochs repeat."""
    for key in ("epoch", "step"):
        numbers = [_number(line.get(key)) for line in lines]
        xs = [x for x in numbers if x is not None and math.isfinite(x)]
        if len(xs) == len(lines) and all(a < b for a, b in pairwise(xs)):
            return key, xs
    return "record", [float(i + 1) for i in range(len(lines))]


def _number(value: Any) -> float | None:
    """NaN for what is not finite, None for what is no number at all."""
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer with too many digits
        return math.nan
    return number if abs(number) <= LARGEST else math.nan


def _curve(
    axes: Axes, xs: Sequence[float], ys: Sequence[float | None], words: str, colour: str, style: str
) -> None:
    known = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
    if not known:
        return
    marker = "." if len(known) <= 60 else ""  # a single point is no line
    axes.plot(*zip(*known, strict=True), color=colour, linestyle=style, marker=marker, label=words)
    lost = [x for x, y in known if math.isnan(y)]
    axes.plot(lost, [0.97] * len(lost), "x", color=colour, transform=axes.get_xaxis_transform())


# -------------------------------------------------------------------------------------- landscape


def landscape(
    real: ArrayLike,
    fake: ArrayLike,
    values: ArrayLike,
    extent: tuple[float, float, float, float],
    arrows: ArrayLike | None = None,
    title: str = "",
    low: float = 0.0,
    high: float = 1.0,
) -> np.ndarray:
    """A picture of a GAN whose data are points in a plane: the points, and D's output everywhere.

    real: (N, 2), fake: (M, 2). values: (rows, columns), D at places that cover extent = (left, right,
    bottom, top) evenly; values[0, 0] belongs to the corner left, bottom. Colours run from low to high, and
    a line marks the middle, D's decision boundary; what lies beyond is clipped. arrows: (M, 2), one from
    each fake, in units of the axes. A gradient is short: multiply it until it can be seen.
    """
    from matplotlib.colors import LinearSegmentedColormap

    real, fake = _points("real", real), _points("fake", fake)
    heights = np.ma.masked_invalid(np.asarray(values, np.float64))
    left, right, bottom, top = extent
    if heights.ndim != 2 or min(heights.shape) < 2:
        raise ValueError(
            f"landscape: values of shape {heights.shape}; they must be (rows, columns) of a grid"
        )
    if not (left < right and bottom < top and low < high):
        raise ValueError(
            f"landscape: extent={extent} must be (left, right, bottom, top), and low={low} must be less than "
            f"high={high}"
        )
    inch = 5 / max(right - left, top - bottom)
    figure = _figure(1.6 + inch * (right - left), 1.0 + inch * (top - bottom))
    figure.set_layout_engine("compressed")  # the bar of colours as high as the picture
    axes = figure.subplots()
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", title=title, facecolor="#cccccc")
    xs, ys = np.linspace(left, right, heights.shape[1]), np.linspace(bottom, top, heights.shape[0])
    colours = LinearSegmentedColormap.from_list("D", [PALE_ORANGE, "white", PALE_BLUE])
    filled = axes.contourf(xs, ys, heights.clip(low, high), np.linspace(low, high, 21), cmap=colours)
    figure.colorbar(filled, ax=axes, label="D", ticks=np.linspace(low, high, 5))
    middle = (low + high) / 2
    if heights.min() < middle < heights.max():
        axes.contour(xs, ys, heights, [middle], colors="#555555", linewidths=1)
    for points, name, colour in ((real, "real", BLUE), (fake, "fake", ORANGE)):
        axes.scatter(points[:, 0], points[:, 1], s=9, color=colour, linewidths=0, label=name)
    if arrows is not None:
        steps = _points("arrows", arrows)
        if steps.shape != fake.shape:
            raise ValueError(f"landscape: arrows of shape {steps.shape} for fakes of shape {fake.shape}")
        known = np.isfinite(fake + steps).all(axis=1)
        starts, steps = fake[known], steps[known]
        axes.quiver(*starts.T, *steps.T, angles="xy", scale_units="xy", scale=1, width=0.003, color="#222222")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=2.5)
    return _drawn(figure)


def _points(name: str, points: ArrayLike) -> np.ndarray:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"landscape: {name} of shape {array.shape}; points in a plane are (N, 2)")
    return array


# ---------------------------------------------------------------------------------------- figures


def _figure(width: float, height: float) -> Figure:
    """An empty figure, so many inches large."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _drawn(figure: Figure) -> np.ndarray:
    """The figure as a picture: (H, W, 3) bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
