"""Hypothesis strategies for checking ops: it draws the structure, a seeded generator draws the values.

Hypothesis is good at structure. It finds the shape, the axis or the memory layout that breaks an op, and
then looks for the smallest one that does. Values are another matter: a gradient can be checked only at
points inside the op's domain and away from its kinks, and there any point does as well as any other. So
Hypothesis draws one number, a seed, and NumPy's generator makes an array from it, within a `Domain`.

>>> from hypothesis import given
>>> from minigan import gradcheck, log
>>> @given(arrays(shapes(max_dims=2), POSITIVE))
... def check_log(x):
...     gradcheck(log, x)
>>> check_log()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

__all__ = [
    "ANY", "NONZERO", "POSITIVE", "ConvSettings", "Domain", "arrays", "axes", "broadcastable_shapes",
    "conv_settings", "indices", "layouts", "permutations", "shapes",
]  # fmt: skip

Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# ------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class Domain:
    """Where an op may be checked: from low to high, but not nearer than `margin` to a point of `avoid`.

    `avoid` is for kinks and poles: Domain(-2, 2, avoid=(0.0,)) suits relu and 1/x.
    """

    low: float = -2.0
    high: float = 2.0
    avoid: tuple[float, ...] = ()
    margin: float = 0.1

    def pieces(self) -> list[tuple[float, float]]:
        """The intervals that are left when the surroundings of `avoid` are cut out."""
        pieces, start = [], self.low
        for point in sorted(self.avoid):
            pieces.append((start, min(point - self.margin, self.high)))
            start = max(start, point + self.margin)
        pieces.append((start, self.high))
        return [(a, b) for a, b in pieces if a < b]

    def sample(self, rng: np.random.Generator, shape: Shape, distinct: bool = False) -> np.ndarray:
        """Random values of the domain. distinct: no two of them close together, for max, min and sort.

        Think of the pieces as laid end to end, from 0 to their total length; draw there, and look up
        which piece that is. For distinct values, each draws from its own short stretch.
        """
        pieces = self.pieces()
        if not pieces:
            raise ValueError(f"{self} is empty")
        n = math.prod(shape)
        if distinct:
            at = (rng.permutation(n) + rng.uniform(0.25, 0.75, n)) / max(n, 1)
        else:
            at = rng.uniform(size=n)
        ends = np.cumsum([b - a for a, b in pieces])
        at = at * ends[-1]
        which = np.searchsorted(ends[:-1], at, side="right")
        shift = np.array([b for _, b in pieces]) - ends  # from the place on the ruler to the value
        return (at + shift[which]).reshape(shape)


ANY = Domain()
POSITIVE = Domain(0.1, 3.0)
NONZERO = Domain(avoid=(0.0,))


@st.composite
def arrays(
    draw: Draw,
    shape: Shape | st.SearchStrategy[Shape],
    domain: Domain = ANY,
    dtype: Any = "float64",
    distinct: bool = False,
) -> np.ndarray:
    """An array of the shape (or of a shape drawn from a strategy), its values drawn from the domain.

    distinct: no two values close together.
    """
    drawn = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return domain.sample(rng, drawn, distinct).astype(dtype)


# ------------------------------------------------------------------------------- shapes and axes


def shapes(
    min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
) -> st.SearchStrategy[Shape]:
    """Shapes. By default of 0 to 3 axes, some of length 0 or 1."""
    side = st.integers(min_side, max_side)
    return st.lists(side, min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def broadcastable_shapes(
    draw: Draw, n: int = 2, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
) -> tuple[Shape, ...]:
    """n shapes that broadcast together: axes of length 1 and missing leading axes included.

    min_dims=1 leaves out 0-d shapes, min_side=1 empty ones.
    """
    full = draw(shapes(min_dims, max_dims, min_side, max_side))
    result = []
    for _ in range(n):
        missing = draw(st.integers(0, len(full) - min_dims))
        result.append(tuple(1 if draw(st.booleans()) else side for side in full[missing:]))
    return tuple(result)


def axes(ndim: int, *, allow_none: bool = True) -> st.SearchStrategy[Any]:
    """What reductions take as `axis`: None, an int from either end, or a tuple without repetitions."""
    choices: list[st.SearchStrategy[Any]] = [st.none()] if allow_none else []
    if ndim:
        choices.append(st.integers(-ndim, ndim - 1))
    choices.append(st.permutations(range(ndim)).flatmap(_some_of).flatmap(_from_either_end(ndim)))
    return st.one_of(choices)


def _some_of(order: Sequence[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.integers(min(1, len(order)), len(order)).map(lambda n: tuple(order[:n]))


def _from_either_end(ndim: int) -> Callable[[tuple[int, ...]], st.SearchStrategy[tuple[int, ...]]]:
    return lambda chosen: st.tuples(*(st.sampled_from([axis, axis - ndim]) for axis in chosen))


def permutations(ndim: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Orders of all axes, as `transpose` takes them; some counted from the end."""
    return st.permutations(range(ndim)).map(tuple).flatmap(_from_either_end(ndim))


# ------------------------------------------------------------------------------- memory layouts


def contiguous(x: np.ndarray) -> np.ndarray:
    """Row after row, NumPy's usual layout."""
    return np.ascontiguousarray(x).reshape(x.shape)


def fortran(x: np.ndarray) -> np.ndarray:
    """Column after column."""
    return np.asfortranarray(x).reshape(x.shape, order="F")


def backwards(x: np.ndarray) -> np.ndarray:
    """Every axis runs backwards through memory: negative strides."""
    flip = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[flip]).reshape(x.shape)[flip]


def with_gaps(x: np.ndarray) -> np.ndarray:
    """Every second entry, along each axis, of a larger array (with nan in between)."""
    larger = np.full([2 * n + 1 for n in x.shape], np.nan if x.dtype.kind == "f" else 1, x.dtype)
    inside: Any = (..., *(slice(1, 2 * n, 2) for n in x.shape))
    view = larger[inside]
    view[...] = x
    return view


def axes_swapped(x: np.ndarray) -> np.ndarray:
    """The first axis runs fastest in memory, the others in their usual order."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0) if x.ndim else x.copy()


def stretched(x: np.ndarray) -> np.ndarray:
    """Axes of length 1 have stride 0, as after broadcasting: they say nothing about memory."""
    x = x.copy()
    strides = tuple(0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True))
    return np.lib.stride_tricks.as_strided(x, x.shape, strides)


def read_only(x: np.ndarray) -> np.ndarray:
    """NumPy refuses to write to it."""
    x = x.copy()
    x.setflags(write=False)
    return x


LAYOUTS = (contiguous, fortran, backwards, with_gaps, axes_swapped, stretched, read_only)


def layouts() -> st.SearchStrategy[Callable[[np.ndarray], np.ndarray]]:
    """A function that gives an array of the same values with another layout in memory."""
    return st.sampled_from(LAYOUTS)


# ------------------------------------------------------------------------------------- indices


@st.composite
def indices(draw: Draw, shape: Shape) -> Any:
    """Whatever NumPy takes in x[...], valid for an x of this shape.

    Integers, slices with steps, None, Ellipsis, arrays of integers (with repetitions, and broadcast
    against each other), an array of booleans over one or two axes, and all of these together.
    """
    ndim = len(shape)
    left = draw(st.integers(0, ndim))  # how many axes are indexed, counted from the left
    right = draw(st.integers(0, ndim - left))  # and from the right, after an Ellipsis
    sides = range(left), range(ndim - right, ndim)

    masked: range = range(0)  # the axes that a mask is for
    if left + right and draw(st.booleans()):
        first = draw(st.sampled_from([*sides[0], *sides[1]]))
        wide = first + 1 in sides[first >= left] and draw(st.booleans())
        masked = range(first, first + 1 + wide)
    mask = draw(_mask(tuple(shape[axis] for axis in masked)))
    # All arrays in an index broadcast together; a mask counts as the list of its True entries.
    common = (int(mask.sum()),) if masked else draw(shapes(0, 2, 0, 3))

    parts: list[Any] = []
    for side in sides:
        if side is sides[1] and (right or draw(st.booleans())):
            parts.append(Ellipsis)
        for axis in side:
            if axis not in masked:
                parts.append(draw(_one_axis(shape[axis], common)))
            elif axis == masked[0]:
                parts.append(mask)
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@st.composite
def _mask(draw: Draw, shape: Shape) -> np.ndarray:
    n = math.prod(shape)
    return np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool).reshape(shape)


def _one_axis(side: int, common: Shape) -> st.SearchStrategy[Any]:
    """An index for one axis: a slice, an integer, or an array of integers that broadcasts to `common`."""
    if side == 0:
        # (The steps of st.slices(0) have more bits than CuPy takes.)
        return st.sampled_from([slice(None), slice(None, None, -1), slice(0, 0, 2)])
    return st.one_of(st.slices(side), st.integers(-side, side - 1), _integers(side, common))


@st.composite
def _integers(draw: Draw, side: int, common: Shape) -> np.ndarray:
    missing = draw(st.integers(0, len(common)))
    shape = tuple(1 if draw(st.booleans()) else n for n in common[missing:])
    n = math.prod(shape)
    values = draw(st.lists(st.integers(-side, side - 1), min_size=n, max_size=n))
    return np.array(values, dtype=np.intp).reshape(shape)


# --------------------------------------------------------------------------------- convolutions


@dataclass(frozen=True)
class ConvSettings:
    """The shapes and options of a convolution. Those of pooling are in it, too.

    >>> s = ConvSettings(2, 4, 6, size=(5, 5), kernel=(3, 3), stride=(2, 2), padding=(1, 1), groups=2)
    >>> s.x_shape, s.weight_shape, s.y_shape
    ((2, 4, 5, 5), (6, 2, 3, 3), (2, 6, 3, 3))
    """

    batch: int  # N
    channels: int  # C
    filters: int  # O
    size: tuple[int, int]  # H, W
    kernel: tuple[int, int]  # KH, KW
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def x_shape(self) -> Shape:
        return (self.batch, self.channels, *self.size)

    @property
    def weight_shape(self) -> Shape:
        return (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def y_shape(self) -> Shape:
        return (self.batch, self.filters, *(n for n, _ in self._positions()))

    @property
    def output_padding(self) -> tuple[int, int]:
        """What conv_transpose2d must be told to get from y_shape back to x_shape."""
        (_, height), (_, width) = self._positions()
        return height, width

    @property
    def options(self) -> dict[str, Any]:
        """For calling: conv2d(x, weight, **settings.options)."""
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}

    def _positions(self) -> list[tuple[int, int]]:
        """For H and W: how many places the kernel takes, and how many entries it leaves over."""
        result = []
        for n, k, s, p, d in zip(
            self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            steps, rest = divmod(n + 2 * p - d * (k - 1) - 1, s)
            result.append((steps + 1, rest))
        return result


@st.composite
def conv_settings(
    draw: Draw, max_batch: int = 2, max_kernel: int = 3, max_stride: int = 3, max_padding: int = 2,
    max_dilation: int = 2, max_groups: int = 2,
) -> ConvSettings:  # fmt: skip
    """Settings of a convolution that fit together: the kernel has a place in the padded image."""

    def pair(least: int, most: int) -> tuple[int, int]:
        return draw(st.integers(least, most)), draw(st.integers(least, most))

    kernel, stride, padding = pair(1, max_kernel), pair(1, max_stride), pair(0, max_padding)
    dilation, places, rest = pair(1, max_dilation), pair(1, 3), pair(0, max_stride - 1)
    height, width = (
        max(1, (places[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 + rest[i] - 2 * padding[i])
        for i in range(2)
    )
    groups = draw(st.integers(1, max_groups))
    per_group = pair(1, 2)
    return ConvSettings(
        draw(st.integers(1, max_batch)),
        channels=groups * per_group[0],
        filters=groups * per_group[1],
        size=(height, width),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
