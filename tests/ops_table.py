"""The table of ops: for each one, which calls are legal, what comes out, and where it bends.

Hypothesis draws the *structure* of a call (shapes, axes, strides ...): a `Case`, in which an `X` stands
for each Tensor. A seeded generator then draws the *values*, from the X's domain, so that a failure shows
a short case and a seed. What the result should be is said by NumPy, SciPy or plain loops, never by
minigan. The tests over the table are in test_ops.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.special
from hypothesis import strategies as st

from minigan import ops
from minigan.testing import strategies as mst

# ------------------------------------------------------------------------------------ domains
#
# Where values are drawn from: (generator, shape) -> float64 array. Finite differences take small steps
# to both sides, so every domain keeps its distance from the places where an op bends or ends.


def anywhere(rng, shape):
    return rng.uniform(-2, 2, shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


def between(rng, shape):
    """Between whole numbers, and so away from 0 and from whatever bends at a whole number."""
    return rng.integers(-3, 3, shape) + rng.uniform(0.3, 0.7, shape)


def whole(rng, shape):
    """Close to whole numbers: never equal to what comes from `between`."""
    return rng.integers(-3, 4, shape) + rng.uniform(-0.1, 0.1, shape)


def distinct(rng, shape):
    """No two entries are equal."""
    n = math.prod(shape)
    return 0.3 * (rng.permutation(n).reshape(shape) - n // 2) + rng.uniform(-0.1, 0.1, shape)


def spread(rng, shape):
    """Not all alike along the first axis, so that the variance is well away from 0."""
    return rng.uniform(-0.5, 0.5, shape) + np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))


def mask(rng, shape):
    return rng.random(shape) < 0.5


# -------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class X:
    """In a case: a Tensor of this shape. grad=False: an array to which no gradient flows."""

    shape: tuple[int, ...]
    domain: Callable[..., np.ndarray] = anywhere
    grad: bool = True

    def __repr__(self) -> str:
        return f"X({self.shape}, {self.domain.__name__}{'' if self.grad else ', grad=False'})"


@dataclass(frozen=True)
class Rng:
    """In a case: a random generator, started anew for each call."""

    seed: int


@dataclass(frozen=True)
class Case:
    """One call of an op. The arguments are given as they are, except for each X and Rng."""

    args: tuple
    kwargs: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"({', '.join([*map(repr, self.args), *(f'{k}={v!r}' for k, v in self.kwargs.items())])})"

    def _repr_pretty_(self, printer, cycle) -> None:  # how Hypothesis shows it
        printer.text(repr(self))

    @property
    def inputs(self) -> list[X]:
        """Every X, in the order of the arguments."""
        found: list[X] = []
        self._replaced(lambda x: found.append(x))
        return found

    def values(self, seed: int) -> list[np.ndarray]:
        """An array for every X."""
        rng = np.random.default_rng(seed)
        return [np.asarray(x.domain(rng, x.shape)) for x in self.inputs]

    def call(self, f: Callable, arrays: Any) -> Any:
        """f with `arrays` (or Tensors) in the place of the Xs."""
        remaining = iter(arrays)
        args, kwargs = self._replaced(lambda x: next(remaining))
        return f(*args, **kwargs)

    def _replaced(self, by: Callable[[X], Any]) -> tuple[list, dict]:
        def put(value: Any) -> Any:
            if isinstance(value, X):
                return by(value)
            if isinstance(value, Rng):
                return np.random.default_rng(value.seed)
            if isinstance(value, list):
                return [put(v) for v in value]
            if isinstance(value, tuple):
                return tuple(put(v) for v in value)
            return value

        return [put(a) for a in self.args], {k: put(v) for k, v in self.kwargs.items()}


def call(*args: Any, **kwargs: Any) -> Case:
    return Case(args, kwargs)


@dataclass(frozen=True)
class Point:
    """A point where what to do is a matter of convention, or where a naive formula overflows."""

    args: tuple
    value: Any
    gradients: tuple  # one for each float array or list in args; the incoming gradient is all ones
    kwargs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Op:
    """A line of the table.

    cases: draws a Case. edges: cases that are always tried: 0-d, size 0, what is easily forgotten.
    linear: the inputs (counting the Xs) in which the op is linear, for a given case.
    smooth: a tiny case in which derivatives are checked up to order 4. points: see Point.
    """

    f: Callable
    reference: Callable
    cases: st.SearchStrategy[Case]
    edges: tuple[Case, ...] = ()
    linear: Callable[[Case], tuple[int, ...]] | None = None
    smooth: Case | None = None
    points: tuple[Point, ...] = ()

    @property
    def name(self) -> str:
        return self.f.__name__


first = lambda case: (0,)
both = lambda case: (0, 1)
without_bias = lambda case: (0, 1) if len(case.inputs) == 2 else ()

# --------------------------------------------------------------- drawing the structure of a call

sides = st.integers(0, 3)
shapes = mst.shapes(max_side=3)
longer_shapes = mst.shapes(max_dims=4, max_side=3)
with_axes = mst.shapes(min_dims=1, max_side=3)
numbers = st.sampled_from([2, -1, 0.5, -1.5])


def broadcastable(n=2):
    return mst.broadcastable_shapes(n, max_side=3)


def unary(domain=anywhere, **kwargs):
    """f(x, **kwargs)"""
    return st.builds(lambda shape, **k: Case((X(shape, domain),), k), shapes, **kwargs)


def scalars(domain=anywhere, **kwargs):
    """f(x) for a single number, and for no numbers at all."""
    return call(X((), domain), **kwargs), call(X((0, 2), domain), **kwargs)


def binary(left=anywhere, right=anywhere, number=numbers):
    """f(a, b) with shapes that broadcast, or with a Python number on either side."""
    two = broadcastable().map(lambda s: call(X(s[0], left), X(s[1], right)))
    return (
        two
        | two
        | st.builds(lambda s, n: call(X(s, left), n), shapes, number)
        | st.builds(lambda s, n: call(n, X(s, right)), shapes, number)
    )


def pairs(left=anywhere, right=anywhere):
    """f(a, b) at the edges: numbers, nothing at all, and a broadcast that fills nothing."""
    return (
        call(X((), left), X((), right)),
        call(X((2, 0), left), X((1,), right)),
        call(X((2, 1), left), X((3,), right)),
        call(2, X((2,), right)),
        call(X((2,), left), 2),
    )


@st.composite
def powers(draw):
    kind = draw(st.sampled_from(["tensors", "whole", "real", "base"]))
    if kind == "tensors":
        a, b = draw(broadcastable())
        return call(X(a, positive), X(b))
    shape = draw(shapes)
    if kind == "whole":
        return call(X(shape, between), draw(st.sampled_from([0, 1, 2, 3, -1, -2, 2.0])))
    if kind == "real":
        return call(X(shape, positive), draw(st.sampled_from([0.5, -0.5, 1.5, 0.0])))
    return call(draw(st.sampled_from([2, 0.5, 1])), X(shape))


@st.composite
def choices(draw):
    shapes_ = draw(broadcastable(3))
    a, b = X(shapes_[1]), X(shapes_[2])
    kind = draw(st.sampled_from(["tensors", "number left", "number right"]))
    a, b = (2.5 if kind == "number left" else a), (-1 if kind == "number right" else b)
    return call(X(shapes_[0], mask, grad=False), a, b)


@st.composite
def reductions(draw, domain=anywhere, least=0, **kwargs):
    """f(x, axis, keepdims). least: how many entries each result must come from."""
    shape = draw(shapes)
    axis = draw(mst.axes(len(shape)))
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    if math.prod(shape[a] for a in axes) < least:  # make it fit, rather than reject and draw again
        axis, shape = None, (max(least, 1), *(n or 1 for n in shape))
    keepdims = draw(st.booleans())
    extra = {name: draw(strategy) for name, strategy in kwargs.items()}
    if draw(st.booleans()):
        return Case((X(shape, domain), axis, keepdims), extra)
    return Case((X(shape, domain),), {"axis": axis, "keepdims": keepdims, **extra})


@st.composite
def with_axis(draw):
    """f(x, axis) with one axis, possibly of length 0."""
    shape = draw(with_axes)
    return call(X(shape), draw(st.integers(-len(shape), len(shape) - 1)))


@st.composite
def reshapes(draw):
    shape = draw(shapes)
    n = math.prod(shape)
    new = [shape[::-1], (n,), (1, *shape, 1), (*shape[:1], -1) if n else (0, 5)]
    new = draw(st.sampled_from(new + ([(2, n // 2), (-1, 2)] if n and n % 2 == 0 else [])))
    return call(X(shape), *(new if draw(st.booleans()) and new else [new]))


@st.composite
def transposes(draw):
    shape = draw(longer_shapes)
    order = draw(mst.permutations(len(shape)))
    return call(X(shape), *draw(st.sampled_from([(), (None,), (order,), order])))


@st.composite
def moves(draw):
    shape = draw(longer_shapes.filter(len))
    n = len(shape)
    k = draw(st.integers(1, n))
    source, target = (draw(st.permutations(range(n)))[:k] for _ in range(2))
    if k == 1 and draw(st.booleans()):
        return call(X(shape), source[0] - n, target[0])
    return call(X(shape), source, target)


@st.composite
def matrices(draw):
    return call(X(draw(mst.shapes(min_dims=2, max_dims=4, max_side=3))))


@st.composite
def broadcasts(draw, back=False):
    """broadcast_to(x, larger); with back=True, sum_to(x, smaller)."""
    small, common = draw(broadcastable())
    large = np.broadcast_shapes(small, common)
    return call(X(large), small) if back else call(X(small), large)


@st.composite
def joins(draw, new_axis=False):
    """concat, or stack if they get a new axis. One of them may be a constant."""
    shape = draw(shapes if new_axis else with_axes)
    axis = draw(st.integers(-len(shape) - new_axis, len(shape) - 1 + new_axis))
    found = []
    for i in range(draw(st.integers(1, 3))):
        one = list(shape)
        if not new_axis:
            one[axis] = draw(sides)
        found.append(X(tuple(one), grad=i == 0 or draw(st.booleans())))
    return call(found, axis)


@st.composite
def cuts(draw):
    shape = list(draw(with_axes))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    if draw(st.booleans()):
        parts = draw(st.integers(1, 3))
        shape[axis] *= parts
    else:
        parts = sorted(draw(st.lists(st.integers(0, shape[axis]), max_size=3)))
    return call(X(tuple(shape)), parts, axis)


@st.composite
def borders(draw, crop=False):
    shape = draw(shapes)
    width = st.integers(0, 2)
    if draw(st.booleans()):
        n = draw(width)
        widths, total = n, [(n, n)] * len(shape)
    else:
        widths = total = [(draw(width), draw(width)) for _ in shape]
    if crop:
        return call(X(tuple(n + a + b for n, (a, b) in zip(shape, total, strict=True))), widths)
    value = draw(st.sampled_from([0.0, 0.0, 1.5, -2]))
    return call(X(shape), widths) if value == 0 else call(X(shape), widths, value)


@st.composite
def flips(draw):
    shape = draw(shapes)
    return call(X(shape), draw(mst.axes(len(shape))))


@st.composite
def lookups(draw):
    shape = draw(shapes)
    return call(X(shape), draw(mst.indices(shape)))


@st.composite
def scatters(draw):
    shape = draw(shapes)
    index = draw(mst.indices(shape))
    return call(X(np.zeros(shape)[index].shape), index, shape)


@st.composite
def takes(draw):
    shape = draw(mst.shapes(min_dims=1, min_side=1, max_side=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    some = st.lists(st.integers(-n, n - 1), max_size=4)
    positions = some | some.map(lambda p: np.array(p, int)) | st.just([[0, n - 1], [0, -1]])
    return call(X(shape), draw(positions), axis)


@st.composite
def products(draw):
    n, k, m = draw(sides), draw(sides), draw(sides)
    vectors = draw(st.sampled_from(["", "", "left", "right", "both"]))
    left, right = draw(broadcastable())
    a = (k,) if vectors in ("left", "both") else (*left[-2:], n, k)
    b = (k,) if vectors in ("right", "both") else (*right[-2:], k, m)
    return call(X(a), X(b))


@st.composite
def layers(draw):
    lead, n, m = draw(shapes), draw(sides), draw(sides)
    rest = [] if draw(st.booleans()) else [X((m,))]
    return call(X((*lead, n)), X((m, n)), *rest)


@st.composite
def einsums(draw):
    """Any two words of different letters; any of these letters may be summed away, on either side."""
    sizes = {letter: draw(sides) for letter in "abcd"}
    left, right = ("".join(draw(st.permutations("abcd")))[: draw(st.integers(0, 3))] for _ in range(2))
    letters = sorted({*left, *right})
    out = "".join(letter for letter in draw(st.permutations(letters)) if draw(st.booleans()))
    a, b = (X(tuple(sizes[letter] for letter in word)) for word in (left, right))
    return call(draw(st.sampled_from([f"{left},{right}->{out}", f"{left}, {right} -> {out}"])), a, b)


def short(draw, pair):
    """A pair for both directions of an image, now and then as the one number that it repeats."""
    return pair[0] if pair[0] == pair[1] and draw(st.booleans()) else pair


@st.composite
def convolutions(draw, kind="conv2d"):
    """Kernels that fit into the image; strides that do not divide it; groups; with and without bias."""
    how = draw(mst.conv_settings())
    x, w, y = X(how.x_shape), X(how.weight_shape), X(how.y_shape)
    options = {k: v if k == "groups" else short(draw, v) for k, v in how.options.items()}
    if kind == "conv2d_weight":
        return Case((x, y, short(draw, how.kernel)), options)
    if kind == "conv_transpose2d":
        options["output_padding"] = short(draw, how.output_padding)
    start, bias = (y, X((how.channels,))) if kind == "conv_transpose2d" else (x, X((how.filters,)))
    return Case((start, w, bias) if draw(st.booleans()) else (start, w), options)


def flat(case):
    """conv2d's case for conv1d: the last axis alone."""
    args = [
        X((*x.shape[:2], x.shape[-1])) if isinstance(x, X) and len(x.shape) == 4 else x for x in case.args
    ]
    args = [x[1] if isinstance(x, tuple) else x for x in args]
    return Case(tuple(args), {k: v[1] if isinstance(v, tuple) else v for k, v in case.kwargs.items()})


@st.composite
def windowings(draw, back=False):
    """unfold(x, kernel, ...); with back=True fold(windows, size, ...)."""
    how = draw(mst.conv_settings(max_padding=0, max_groups=1))
    options = {"stride": short(draw, how.stride), "dilation": short(draw, how.dilation)}
    if back:
        return Case((X((*how.x_shape[:2], *how.kernel, *how.y_shape[2:])), how.size), options)
    return Case((X(how.x_shape), how.kernel), options)


@st.composite
def poolings(draw, domain=anywhere):
    how = draw(mst.conv_settings(max_padding=0, max_dilation=1, max_groups=1))
    options = {"padding": draw(st.sampled_from([0, tuple(k // 2 for k in how.kernel)]))}
    if draw(st.booleans()):
        options["stride"] = short(draw, how.stride)
    return Case((X(how.x_shape, domain), short(draw, how.kernel)), options)


@st.composite
def zooms(draw, back=False):
    factor = short(draw, draw(st.tuples(st.integers(1, 3), st.integers(1, 3))))
    f = np.broadcast_to(factor, 2) if back else (1, 1)
    shape = draw(st.tuples(sides, st.integers(1, 2), sides, sides))
    return call(X((*shape[:2], shape[2] * int(f[0]), shape[3] * int(f[1]))), factor)


@st.composite
def normalisations(draw):
    rest = draw(st.lists(st.integers(1, 2), max_size=2))
    n, c = draw(st.integers(1 if math.prod(rest) > 2 else 3, 4)), draw(st.integers(1, 3))
    kwargs: dict[str, Any] = {name: X((c,)) for name in ("weight", "bias") if draw(st.booleans())}
    if draw(st.booleans()):
        kwargs["eps"] = 0.1
    if draw(st.integers(0, 2)) == 0:
        kwargs["running"] = (X((c,), grad=False), X((c,), positive, grad=False))
    return Case((X((n, c, *rest), spread if n > 1 else distinct),), kwargs)


@st.composite
def dropouts(draw):
    return call(X(draw(shapes)), draw(st.sampled_from([0.0, 0.3, 0.9])), Rng(draw(st.integers(0, 99))))


# --------------------------------------------------------------------------------- references

inf = math.inf


def sum_to(x, shape):
    """Each entry of x belongs to the entry of the result that was broadcast to its place."""
    y = np.zeros(shape)
    owner = np.broadcast_to(np.arange(y.size).reshape(shape), x.shape)
    np.add.at(y.reshape(-1), owner, x)
    return y


def pow_(a, b):
    return np.asarray(a, float) ** b


def clip(x, low=None, high=None):
    return np.minimum(np.maximum(x, -inf if low is None else low), inf if high is None else high)


def scatter_add(values, index, shape):
    y = np.zeros(shape)
    np.add.at(y, index, values)
    return y


def pad(x, widths, value=0.0):
    return np.pad(x, widths, constant_values=value) if x.ndim else x


def crop(x, widths):
    if x.ndim == 0:
        return x
    for axis, (before, after) in enumerate(np.broadcast_to(widths, (x.ndim, 2))):
        x = np.take(x, np.arange(before, x.shape[axis] - after), axis)
    return x


def take(x, indices, axis=0):
    return np.take(x, np.array(indices, int), axis)


def split(x, parts, axis):
    return np.concatenate([part.reshape(-1) for part in np.split(x, parts, axis)])


def reshape(x, *shape):
    return np.reshape(x, shape[0] if isinstance(shape[0], tuple) else shape)


def transpose(x, *axes):
    return np.transpose(x, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)


def linear(x, weight, bias=0.0):
    return np.tensordot(x, weight, ([-1], [1])) + bias


def by_name(f):
    """NumPy's own signature has other arguments between axis and keepdims."""
    return lambda x, axis=None, keepdims=False: f(x, axis=axis, keepdims=keepdims)


def logsumexp(x, axis=None, keepdims=False):
    return np.log(np.sum(np.exp(x), axis, keepdims=keepdims))


def softmax(x, axis=-1):
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def log_softmax(x, axis=-1):
    return np.log(softmax(x, axis))


def norm(x, axis=None, keepdims=False):
    return np.sum(np.abs(x) ** 2.0, axis, keepdims=keepdims) ** 0.5


def mean(x, axis=None, keepdims=False):
    total = np.sum(x, axis, keepdims=keepdims)
    return total / (x.size / total.size) if x.size else total


def var(x, axis=None, keepdims=False, ddof=0):
    deviation = x - np.mean(x, axis, keepdims=True)
    total = np.sum(deviation**2, axis, keepdims=keepdims)
    return total / (x.size / total.size - ddof) if x.size else total


def places(n, k, stride, padding, dilation):
    """In how many places a kernel of k fits into n, counted one by one."""
    end = n + 2 * padding
    return sum(start + dilation * (k - 1) < end for start in range(0, end, stride))


def seen(at, kernel, stride, dilation):
    """The slices of the (padded) image that a kernel covers in a place."""
    starts = [a * s for a, s in zip(at, stride, strict=True)]
    ends = [t + d * (k - 1) + 1 for t, k, d in zip(starts, kernel, dilation, strict=True)]
    return tuple(slice(*each) for each in zip(starts, ends, dilation, strict=True))


def channels(j, o, groups, per_group):
    """The input channels of output channel j of o."""
    group = j // (o // groups)
    return slice(group * per_group, (group + 1) * per_group)


def around(padding):
    ph, pw = pair(padding)
    return (0, 0), (0, 0), (ph, ph), (pw, pw)


def pair(value):
    return tuple(int(n) for n in np.broadcast_to(value, 2))


def conv2d(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    (o, per_group, *kernel), s, p, d = w.shape, *map(pair, (stride, padding, dilation))
    y = np.zeros((len(x), o, *(places(x.shape[2 + i], kernel[i], s[i], p[i], d[i]) for i in range(2))))
    x = np.pad(x, around(padding))
    for n, j, *at in np.ndindex(y.shape):
        y[(n, j, *at)] = (x[(n, channels(j, o, groups, per_group), *seen(at, kernel, s, d))] * w[j]).sum()
    return y if bias is None else y + bias[:, None, None]


def conv_transpose2d(y, w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    (o, per_group, *kernel), s, p, d = w.shape, *map(pair, (stride, padding, dilation))
    extra = pair(output_padding)
    reach = [(y.shape[2 + i] - 1) * s[i] + d[i] * (kernel[i] - 1) + 1 for i in range(2)]
    x = np.zeros((len(y), per_group * groups, *(reach[i] + extra[i] for i in range(2))))
    for n, j, *at in np.ndindex(y.shape):
        x[(n, channels(j, o, groups, per_group), *seen(at, kernel, s, d))] += y[(n, j, *at)] * w[j]
    x = x[:, :, p[0] : x.shape[2] - p[0], p[1] : x.shape[3] - p[1]]
    return x if bias is None else x + bias[:, None, None]


def conv2d_weight(x, y, kernel, stride=1, padding=0, dilation=1, groups=1):
    s, d, o, per_group = pair(stride), pair(dilation), y.shape[1], x.shape[1] // groups
    w, x = np.zeros((o, per_group, *pair(kernel))), np.pad(x, around(padding))
    for n, j, *at in np.ndindex(y.shape):
        w[j] += y[(n, j, *at)] * x[(n, channels(j, o, groups, per_group), *seen(at, pair(kernel), s, d))]
    return w


def conv1d(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    y = conv2d(x[:, :, None], w[:, :, None], bias, (1, stride), (0, padding), (1, dilation), groups)
    return y[:, :, 0]


def conv1d_weight(x, y, kernel, stride=1, padding=0, dilation=1, groups=1):
    options = ((1, stride), (0, padding), (1, dilation), groups)
    return conv2d_weight(x[:, :, None], y[:, :, None], (1, kernel), *options)[:, :, 0]


def conv_transpose1d(y, w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    settings = (1, stride), (0, padding), (0, output_padding), groups, (1, dilation)
    return conv_transpose2d(y[:, :, None], w[:, :, None], bias, *settings)[:, :, 0]


def windows(x, kernel, stride, dilation):
    s, d = pair(stride), pair(dilation)
    size = [places(x.shape[2 + i], kernel[i], s[i], 0, d[i]) for i in range(2)]
    for at in np.ndindex(*size):
        yield at, (slice(None), slice(None), *seen(at, kernel, s, d))


def unfold(x, kernel, stride=1, dilation=1):
    found = dict(windows(x, kernel, stride, dilation))
    y = np.zeros((*x.shape[:2], *kernel, *(n + 1 for n in max(found))))
    for at, window in found.items():
        y[(..., *at)] = x[window]
    return y


def fold(y, size, stride=1, dilation=1):
    x = np.zeros((*y.shape[:2], *size))
    for at, window in windows(x, y.shape[2:4], stride, dilation):
        x[window] += y[(..., *at)]
    return x


def max_pool(x, kernel, stride=None, padding=0):
    x = np.pad(x, around(padding), constant_values=-np.inf)
    return unfold(x, pair(kernel), kernel if stride is None else stride).max(axis=(2, 3))


def avg_pool(x, kernel, stride=None, padding=0):
    x = np.pad(x, around(padding))
    return unfold(x, pair(kernel), kernel if stride is None else stride).mean(axis=(2, 3))


def upsample(x, factor):
    return x.repeat(pair(factor)[0], axis=2).repeat(pair(factor)[1], axis=3)


def sum_pool(x, factor):
    fh, fw = pair(factor)
    return sum(x[:, :, i::fh, j::fw] for i in range(fh) for j in range(fw))


def batch_norm(x, weight=None, bias=None, eps=1e-5, running=None):
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        mu, variance = (x[:, c].mean(), x[:, c].var()) if running is None else (s[c] for s in running)
        y[:, c] = (x[:, c] - mu) / (variance + eps) ** 0.5
        y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return y


def dropout(x, rate, rng):
    return x * (rng.random(x.shape, dtype="float32") >= rate) / (1 - rate)


# ---------------------------------------------------------------------------------- the table

SMALL, IMAGE, KERNEL = X((2,)), X((1, 1, 3, 3)), X((1, 1, 2, 2))


def joined(f):
    """split gives a list; to the checks it is one long vector."""

    def pieces(x, parts, axis):
        return ops.concat([ops.reshape(part, -1) for part in f(x, parts, axis)])

    pieces.__name__ = f.__name__
    return pieces


# fmt: off
OPS = [
    # two operands
    Op(ops.add, np.add, binary(), pairs()),
    Op(ops.sub, np.subtract, binary(), pairs()),
    Op(ops.mul, np.multiply, binary(number=numbers | st.just(0)), pairs(),
       linear=lambda case: tuple(range(len(case.inputs))), smooth=call(X((2, 1)), X((2,)))),
    Op(ops.div, np.divide, binary(right=between), pairs(right=between),
       linear=lambda case: (0,) if isinstance(case.args[0], X) else (),
       smooth=call(X((2, 1)), X((2,), between))),
    Op(ops.pow, pow_, powers(), (call(X((), positive), X(())), call(X((0,), positive), X((2, 1)))),
       smooth=call(X((2, 1), positive), X((2,))),
       points=(Point(([0.0, -1.0, 2.0], 0), [1, 1, 1], ([0, 0, 0],)),
               Point(([0.0, -1.0], 1), [0, -1], ([1, 1],)),
               Point(([0.0, -3.0], 2), [0, 9], ([0, -6],)),
               Point(([0.0, 0.0, 0.0], [2.0, 1.0, 0.0]), [0, 0, 1], ([0, 1, 0], [0, 0, 0])),
               Point((0, [1.0, 2.0]), [0, 0], ([0, 0],)))),
    Op(ops.maximum, np.maximum, binary(between, whole, st.integers(-2, 2)), pairs(between, whole),
       points=(Point(([1.0, 2.0, 3.0], [1.0, 0.0, 5.0]), [1, 2, 5], ([0.5, 1, 0], [0.5, 0, 1])),
               Point(([0.0, 2.0, -1.0], 0), [0, 2, 0], ([0.5, 1, 0],)))),
    Op(ops.minimum, np.minimum, binary(between, whole, st.integers(-2, 2)), pairs(between, whole),
       points=(Point(([1.0, 2.0, 3.0], [1.0, 0.0, 5.0]), [1, 0, 3], ([0.5, 0, 1], [0.5, 1, 0])),
               Point((0, [0.0, 2.0, -1.0]), [0, 0, -1], ([0.5, 0, 1],)))),
    Op(ops.where, np.where, choices(),
       (call(X((), mask, False), X(()), X(())), call(X((2, 1), mask, False), X((0,)), 1),
        call(X((2, 1), mask, False), X((3,)), X(())))),

    # one operand
    Op(ops.neg, np.negative, unary(), scalars(), first),
    Op(ops.abs, np.abs, unary(between), scalars(between),
       points=(Point(([0.0, -0.0, -2.0, 3.0],), [0, 0, 2, 3], ([0, 0, -1, 1],)),)),
    Op(ops.exp, np.exp, unary(), scalars(), smooth=call(SMALL)),
    Op(ops.expm1, np.expm1, unary(), scalars(), points=(Point(([1e-20, 0.0],), [1e-20, 0], ([1, 1],)),)),
    Op(ops.log, np.log, unary(positive), scalars(positive), smooth=call(X((2,), positive))),
    Op(ops.log1p, np.log1p, unary(positive), scalars(positive),
       points=(Point(([1e-20, 0.0],), [1e-20, 0], ([1, 1],)),)),
    Op(ops.sqrt, np.sqrt, unary(positive), scalars(positive)),
    Op(ops.square, np.square, unary(), scalars()),
    Op(ops.sin, np.sin, unary(), scalars(), smooth=call(SMALL)),
    Op(ops.cos, np.cos, unary(), scalars()),
    Op(ops.tanh, np.tanh, unary(), scalars(), smooth=call(SMALL),
       points=(Point(([-1e3, 1e3],), [-1, 1], ([0, 0],)),)),
    Op(ops.sigmoid, scipy.special.expit, unary(), scalars(), smooth=call(SMALL),
       points=(Point(([-1e3, 0.0, 1e3],), [0, 0.5, 1], ([0, 0.25, 0],)),
               Point(([-700.0],), [np.exp(-700.0)], ([np.exp(-700.0)],)))),
    Op(ops.softplus, lambda x: np.logaddexp(0, x), unary(), scalars(), smooth=call(SMALL),
       points=(Point(([-1e3, 0.0, 1e3],), [0, np.log(2), 1e3], ([0, 0.5, 1],)),)),
    Op(ops.relu, lambda x: np.where(x > 0, x, 0), unary(between), scalars(between),
       points=(Point(([0.0, -0.0, 1.0, -1.0],), [0, 0, 1, 0], ([0, 0, 1, 0],)),)),
    Op(ops.leaky_relu, lambda x, slope=0.2: np.where(x > 0, x, slope * x),
       unary(between, slope=st.sampled_from([0.2, 0, 0.0, -0.5, 1, 1.5])),
       (*scalars(between), call(X((9,), between), 0), *(call(X((9,), between), s) for s in (-0.5, 1.5))),
       points=tuple(Point(([0.0, -2.0, 3.0],), [0, -2 * s, 3], ([s, s, 1],), {"slope": s})
                    for s in (0.2, 0, -0.5, 1.5))),
    Op(ops.elu, lambda x, alpha=1.0: np.where(x > 0, x, alpha * (np.exp(x) - 1)),
       unary(between, alpha=st.sampled_from([1.0, 0.5, 2])), scalars(between),
       points=(Point(([0.0, -1e3, 1e3],), [0, -2, 1e3], ([2, 0, 1],), {"alpha": 2.0}),)),
    Op(ops.silu, lambda x: x * scipy.special.expit(x), unary(), scalars(),
       points=(Point(([-1e3, 0.0, 1e3],), [0, 0, 1e3], ([0, 0.5, 1],)),)),
    Op(ops.clip, clip, unary(between, low=st.sampled_from([None, -1, 0]), high=st.sampled_from([None, 0, 2])),
       (*scalars(between, low=0), call(X((9,), between), -1, 1)),
       points=(Point(([-1.0, 2.0, -1.5, 2.5, 0.0],), [-1, 2, -1, 2, 0], ([1, 1, 0, 0, 1],),
                     {"low": -1, "high": 2}),)),
    Op(ops.astype, np.ndarray.astype, unary(dtype=st.just("float64")), scalars(dtype="float64"), first),
    Op(ops.copy, np.copy, unary(), scalars(), first),

    # reductions
    Op(ops.sum, by_name(np.sum), reductions(), (call(X((2, 0)), 1), call(X(()))), first),
    Op(ops.mean, mean, reductions(least=1), (call(X((0, 2)), 1), call(X(()), ())), first),
    Op(ops.var, var, reductions(least=2, ddof=st.sampled_from([0, 1])),
       (call(X((0, 2)), 1, ddof=1), call(X((3, 2)), axis=-2, ddof=1))),
    Op(ops.max, by_name(np.max), reductions(distinct, 1), (call(X(())), call(X((0, 2)), 1)),
       points=(Point(([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], 1), [3, 2], ([[0, 0.5, 0.5], [1 / 3] * 3],)),
               Point(([[1.0, 3.0], [3.0, 3.0]],), 3, ([[0, 1 / 3], [1 / 3, 1 / 3]],)))),
    Op(ops.min, by_name(np.min), reductions(distinct, 1), (call(X(())), call(X((0, 2)), 1)),
       points=(Point(([[1.0, 3.0, 1.0], [2.0, 2.0, 2.0]], 1), [1, 2], ([[0.5, 0, 0.5], [1 / 3] * 3],)),)),
    Op(ops.logsumexp, logsumexp, reductions(least=1), (call(X(())), call(X((0, 2)), 1)),
       smooth=call(X((2,)), 0),
       points=(Point(([1e3, 1e3],), 1e3 + np.log(2), ([0.5, 0.5],)),
               Point(([-1e3, -inf],), -1e3, ([1, 0],)),
               Point(([-inf, -inf],), -inf, ([0, 0],)))),
    Op(ops.softmax, softmax, with_axis(), (call(X((0, 2))), call(X((2, 0)))), smooth=call(X((2,))),
       points=(Point(([1e3, 0.0, 1e3],), [0.5, 0, 0.5], ([0, 0, 0],)),)),
    Op(ops.log_softmax, log_softmax, with_axis(), (call(X((0, 2))), call(X((2, 0)))),
       points=(Point(([1e3, 0.0],), [0, -1e3], ([-1, 1],)),)),
    Op(ops.norm, norm, reductions(between), (call(X((), between)), call(X((2, 0)), 1), call(X((0,)))),
       smooth=call(X((2,), between)),
       points=(Point(([[0.0, 0.0], [3.0, 4.0]], 1), [0, 5], ([[0, 0], [0.6, 0.8]],)),
               Point(([0.0, 0.0],), 0, ([0, 0],)))),

    # shapes
    Op(ops.reshape, reshape, reshapes(), (call(X(()), ()), call(X((0, 2)), -1, 2)), first),
    Op(ops.transpose, transpose, transposes(), (call(X(())), call(X((2, 3, 1)), 2, 0, 1)), first),
    Op(ops.moveaxis, np.moveaxis, moves(),
       (call(X((2, 3, 1)), 0, -1), call(X((2, 3, 1)), (0, 1), (1, 2))), first),
    Op(ops.matrix_transpose, lambda x: np.swapaxes(x, -1, -2), matrices(), (call(X((0, 2))),), first),
    Op(ops.broadcast_to, np.broadcast_to, broadcasts(), (call(X(()), (2, 0)), call(X((1,)), (0,))), first),
    Op(ops.sum_to, sum_to, broadcasts(back=True), (call(X((2, 0)), ()), call(X((2, 0)), (1, 1))), first),
    Op(ops.concat, np.concatenate, joins(), (call([X((2,)), X((0,)), X((1,))]), call([X((0, 2))] * 2, 1))),
    Op(ops.stack, np.stack, joins(new_axis=True), (call([X(()), X(())]), call([X((0, 2))] * 2, -1))),
    Op(joined(ops.split), split, cuts(), (call(X((0, 2)), 2, 0), call(X((3,)), [1, 1, 3], 0)), first),
    Op(ops.pad, pad, borders(), (call(X(()), ()), call(X((0, 2)), 1), call(X((1, 2)), ((1, 2), (0, 3)))),
       lambda case: (0,) if len(case.args) == 2 else (),
       points=(Point(([1.0], ((1, 2),), -inf), [-inf, 1, -inf, -inf], ([1],)),)),
    Op(ops.crop, crop, borders(crop=True), (call(X(()), ()), call(X((3, 6)), ((1, 2), (0, 3)))), first),
    Op(ops.flip, np.flip, flips(), (call(X(())), call(X((0, 2)))), first),
    Op(ops.getitem, lambda x, index: x[index], lookups(),
       (call(X(()), ...), call(X(()), ()), call(X((3,)), []), call(X((3,)), [1, 1, -2]),
        call(X((2, 3)), ([0, 0, 1], [1, 1, 2])), call(X((2, 2)), np.array([[True, False], [True, True]]))),
       first),
    Op(ops.scatter_add, scatter_add, scatters(),
       (call(X(()), (), ()), call(X((4,)), [1, 1, 1, -3], (3,)), call(X((0,)), [], (3,))), first),
    Op(ops.take, take, takes(), (call(X((3,)), 1), call(X((3, 2)), [[0, 2], [2, 2]])), first),

    # products
    Op(ops.matmul, np.matmul, products(), (call(X((0,)), X((0,))), call(X((2, 1, 1, 0)), X((3, 0, 2)))), both,
       smooth=call(X((1, 2)), X((2, 1)))),
    Op(ops.linear, linear, layers(),
       (call(X((2,)), X((0, 2)), X((0,))), call(X((2, 0)), X((1, 0)), X((1,)))), without_bias,
       smooth=call(X((1, 2)), X((1, 2)), X((1,)))),
    Op(ops.einsum, np.einsum, einsums(),
       (call(",->", X(()), X(())), call("ab,bc", X((2, 3)), X((3, 1))), call("ab,c->c", X((2, 3)), X((2,)))),
       both),

    # convolutions
    Op(ops.conv2d, conv2d, convolutions(),
       (call(X((0, 1, 2, 2)), KERNEL), call(X((1, 1, 6, 4)), X((2, 1, 3, 2)), X((2,)), 2, (0, 1)),
        call(X((1, 1, 6, 4)), X((2, 1, 3, 2)), stride=2)),
       without_bias, smooth=call(IMAGE, KERNEL, stride=2, padding=1)),
    Op(ops.conv_transpose2d, conv_transpose2d, convolutions("conv_transpose2d"),
       (call(X((0, 1, 2, 2)), KERNEL), call(X((1, 2, 2, 2)), X((2, 1, 3, 2)), X((1,)), 3, 1, (2, 1))),
       without_bias),
    Op(ops.conv2d_weight, conv2d_weight, convolutions("conv2d_weight"),
       (call(X((0, 1, 2, 2)), X((0, 1, 1, 1)), 2), call(X((1, 2, 5, 4)), X((1, 1, 2, 1)), 2, (2, 3), 0)),
       both),
    Op(ops.conv1d, conv1d, convolutions().map(flat), (call(X((0, 1, 2)), X((1, 1, 2)), X((1,))),),
       without_bias),
    Op(ops.conv1d_weight, conv1d_weight, convolutions("conv2d_weight").map(flat),
       (call(X((0, 1, 2)), X((0, 1, 1)), 2),),
       both),
    Op(ops.conv_transpose1d, conv_transpose1d, convolutions("conv_transpose2d").map(flat),
       (call(X((0, 1, 2)), X((1, 1, 2)), X((1,))),),
       without_bias),
    Op(ops.unfold, unfold, windowings(), (call(X((0, 1, 2, 2)), (2, 1)),), first),
    Op(ops.fold, fold, windowings(back=True), (call(X((0, 1, 2, 1, 1, 2)), (2, 2)),), first),
    Op(ops.max_pool, max_pool, poolings(distinct), (call(X((0, 1, 2, 2)), 2),),
       points=(Point(([[[[1.0, 1.0], [0.0, 1.0]]]], 2), [[[[1]]]], ([[[[1 / 3, 1 / 3], [0, 1 / 3]]]],)),)),
    Op(ops.avg_pool, avg_pool, poolings(), (call(X((0, 1, 2, 2)), 2),), first),
    Op(ops.upsample, upsample, zooms(), (call(X((0, 1, 2, 2)), 2),), first),
    Op(ops.sum_pool, sum_pool, zooms(back=True), (call(X((0, 1, 2, 2)), 2),), first),

    # normalisation
    Op(ops.batch_norm, batch_norm, normalisations(),
       (call(X((0, 2)), running=(X((2,), grad=False), X((2,), positive, False))),
        call(X((1, 1, 3), distinct))),
       smooth=call(X((3, 1), spread), X((1,)))),
    Op(ops.dropout, dropout, dropouts(), (call(X(()), 0.5, Rng(1)), call(X((0, 2)), 0.5, Rng(1))), first),
]
# fmt: on
