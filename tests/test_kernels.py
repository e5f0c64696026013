"""The fast kernels beside their slow twins in kernels/simple.py, and how the threads share the work.

A twin computes the same from the same numbers, in float64. What a kernel may differ by is rounding: for each
entry a few units of the precision of its result, times the sum of the absolute values of all terms. So an
entry to which nothing is added must be exactly right. All arrays that go in are read-only.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import Tensor, grad, gradcheck, nn
from minigan.kernels import conv, conv_transpose, elementwise, linear, norm, short, simple, threads
from minigan.kernels.geometry import Geometry
from minigan.ops.elementwise import leaky_relu, relu, tanh
from minigan.ops.norm import batch_norm
from minigan.testing.strategies import ConvSettings, conv_settings, layouts, shapes
from minigan.testing.strict import StrictArray

FLOATS = ("float32", "float64")
seeds = st.integers(0, 2**32 - 1)
team_sizes = st.integers(1, 3)
many = settings(max_examples=10 * settings.default.max_examples)  # a case takes two milliseconds


@contextmanager
def hired(size):
    """A team of so many threads, or this team, works for the kernels."""
    team, before = threads.Team(size) if isinstance(size, int) else size, threads.team()
    threads.hire(team)
    try:
        yield team
    finally:
        threads.hire(before)
        team.dismiss()


@contextmanager
def pinned(module, **values):
    """A module's constants have other values."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(module, name, value)
        yield


@pytest.fixture
def worth_it():
    """Even small arrays are worth a second thread."""
    with pinned(norm, WORTH=1), pinned(elementwise, WORTH=1):
        yield


@pytest.fixture
def two_threads():
    with hired(2) as team:
        yield team


def channels_last(x):
    """Memory as convolution makes it: the channels of a pixel side by side. (Of a weight: its filters.)"""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim == 4 else x


def constant(x):
    """One number in memory, seen everywhere: the gradient of a sum looks like this."""
    return np.broadcast_to(x.dtype.type(0.75), x.shape)


memory = st.one_of(layouts(), st.sampled_from([channels_last, constant]))


def sealed(x, backend):
    """An array of the backend, laid out in memory like x; read-only, where there is such a thing."""
    x = np.asarray(x)  # a 0-d layout may have come out as a scalar
    home = mg.backend.get(backend)
    return mg.backend.seal(StrictArray(x) if backend == "strict" else home.from_numpy(x))


def exactly(x):
    """The same numbers as a NumPy array of float64; None stays None."""
    return None if x is None else mg.backend.to_numpy(x).astype(float)


def assert_rounded(got, want, terms, dtype, units=32):
    """got is `want`, up to rounding in `dtype`. terms: what the absolute values of all terms add up to."""
    assert got.dtype == dtype
    assert got.shape == want.shape
    error = np.abs(exactly(got) - want)
    assert (error <= units * np.finfo(dtype).eps * terms).all(), f"off by {error.max()}"


# ------------------------------------------------------------------------------- convolution


@dataclass(frozen=True)
class Problem:
    """A convolution, and how it is to be computed."""

    settings: ConvSettings
    bias: bool = False
    dtypes: tuple[str, str, str] = ("float64", "float64", "float64")  # of x, weight, y
    orders: tuple[Any, Any, Any] = (channels_last, channels_last, channels_last)
    block: int = conv.BLOCK
    few: int = conv.FEW
    threads: int = 1
    seed: int = 0

    @property
    def how(self) -> Geometry:
        return Geometry(**self.settings.options)

    def arrays(self, backend):
        """x, weight, y."""
        rng, s = np.random.default_rng(self.seed), self.settings
        all_shapes = (s.x_shape, s.weight_shape, s.y_shape)
        return [
            sealed(order(rng.normal(size=shape).astype(dtype)), backend)
            for shape, dtype, order in zip(all_shapes, self.dtypes, self.orders, strict=True)
        ]

    def operands(self, kernel, backend):
        """The arrays that a kernel takes, and what it is told besides."""
        x, weight, y = self.arrays(backend)
        rng, how, s = np.random.default_rng(self.seed), self.how, self.settings
        if kernel == "conv2d_weight":
            return [x, y], [how, s.kernel]
        image = x if kernel == "conv2d" else y
        out = s.filters if kernel == "conv2d" else s.channels
        dtype = np.result_type(image.dtype, weight.dtype)
        bias = sealed(rng.normal(size=out).astype(dtype), backend) if self.bias else None
        told = [how] if kernel == "conv2d" else [how, s.size]
        return [image, weight, bias], told


def computed(module, kernel, arrays, told):
    """kernel(arrays, told); a bias comes last."""
    first, second, *bias = arrays
    return getattr(module, kernel)(first, second, *told, *bias)


@st.composite
def problems(draw):
    """Larger than what strategies.py draws by itself: more channels than FEW, more places, no images."""
    s = draw(conv_settings(1, max_kernel=5, max_stride=4, max_padding=3, max_dilation=3, max_groups=3))
    several, wider = st.integers(1, 4), st.integers(0, 6)
    s = replace(
        s,
        batch=draw(st.integers(0, 7)),
        channels=s.channels * draw(several),
        filters=s.filters * draw(several),
        size=(s.size[0] + draw(wider), s.size[1] + draw(wider)),
    )
    three = lambda one: st.tuples(one, one, one)
    row = math.prod(s.kernel) * s.channels // s.groups  # X has one for each place
    one_image = 8 * row * math.prod(s.y_shape[2:])  # bytes of it, in float64
    return Problem(
        s,
        bias=draw(st.booleans()),
        dtypes=draw(three(st.sampled_from(FLOATS))),
        orders=draw(three(memory)),
        block=draw(st.sampled_from([1, 2 * one_image, 3 * one_image, conv.BLOCK])),
        few=draw(st.sampled_from([0, conv.FEW, 100])),
        threads=draw(team_sizes),
        seed=draw(seeds),
    )


def check_twin(kernel, problem, backend):
    arrays, told = problem.operands(kernel, backend)
    before = [exactly(a) for a in arrays]
    with hired(problem.threads), pinned(conv, BLOCK=problem.block, FEW=problem.few):
        got = computed(FAST, kernel, arrays, told)
    want = computed(simple, kernel, before, told)
    terms = computed(simple, kernel, [a if a is None else np.abs(a) for a in before], told)
    assert mg.backend.backend_of(got).name == backend
    assert_rounded(got, want, terms, np.result_type(arrays[0].dtype, arrays[1].dtype))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(exactly(a), b)
    return got


KERNELS = ("conv2d", "conv_transpose2d", "conv2d_weight")
FAST = SimpleNamespace(
    conv2d=conv.conv2d,
    conv_transpose2d=conv_transpose.conv_transpose2d,
    conv2d_weight=conv.conv2d_weight,
)
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


@each_kernel
def test_a_kernel_computes_what_its_twin_does(kernel, backend):
    @many
    @given(problems())
    def body(problem):
        check_twin(kernel, problem, backend)

    body()


S = ConvSettings
NAMED = {
    "kernel as large as the image": S(3, 6, 5, (4, 4), (4, 4)),
    "1x1 image into 4x4": S(3, 8, 20, (4, 4), (4, 4)),
    "1x1 image into 4x4, few channels": S(3, 3, 20, (4, 4), (4, 4)),
    "DCGAN, half the size": S(2, 6, 8, (16, 16), (4, 4), (2, 2), (1, 1)),
    "stride larger than the kernel": S(3, 6, 5, (10, 11), (2, 1), (3, 4)),
    "stride larger than the kernel, a border": S(3, 6, 5, (10, 9), (2, 1), (3, 4), (1, 1)),
    "stride and dilation share a factor": S(2, 6, 5, (13, 12), (3, 3), (2, 4), (1, 0), (2, 2)),
    "stride and dilation share none": S(2, 6, 5, (15, 13), (3, 4), (3, 4), (2, 1), (2, 3)),
    "rows left over": S(2, 6, 5, (11, 12), (3, 3), (4, 4), (1, 1)),
    "rows left over, more than there are places": S(2, 6, 5, (5, 5), (2, 2), (4, 4)),
    "more padding than the kernel needs": S(2, 6, 5, (3, 2), (2, 2), (1, 1), (3, 3)),
    "more padding than image": S(2, 6, 5, (1, 1), (2, 3), (2, 3), (3, 3)),
    "kernel 1x1": S(3, 6, 5, (4, 3), (1, 1)),
    "kernel 1x1 with a stride": S(3, 6, 5, (6, 5), (1, 1), (2, 3)),
    "kernel 1x1 with a border": S(3, 6, 5, (3, 4), (1, 1), (1, 1), (1, 2)),
    "one channel": S(3, 1, 6, (7, 6), (3, 3), (2, 2), (1, 1)),
    "one filter": S(3, 6, 1, (7, 6), (3, 3), (2, 2), (1, 1)),
    "one of everything": S(1, 1, 1, (1, 1), (1, 1)),
    "one channel in each group": S(3, 6, 6, (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 6),
    "one row": S(2, 6, 5, (1, 9), (1, 5), (1, 2), (0, 2)),
    "no images": S(0, 6, 5, (5, 5), (3, 3)),
    "no images, kernel 1x1": S(0, 6, 5, (5, 5), (1, 1)),
    "no images, few channels, groups": S(0, 2, 4, (5, 5), (3, 3), (2, 2), (1, 1), (1, 1), 2),
}


@each_kernel
@pytest.mark.parametrize("name", NAMED)
def test_named_cases(name, kernel, backend, two_threads):
    for bias in (False, True)[: 1 + (kernel != "conv2d_weight")]:
        for dtype in FLOATS:
            for block in (1, conv.BLOCK):
                problem = Problem(NAMED[name], bias, (dtype,) * 3, block=block, threads=2)
                check_twin(kernel, problem, backend)


@each_kernel
@pytest.mark.parametrize("few", [0, conv.FEW])
@pytest.mark.parametrize("how", [{}, {"stride": (2, 2)}, {"stride": (3, 2), "padding": (1, 1)}])
def test_blocks_that_do_not_divide_the_part_of_a_thread(how, few, kernel, backend):
    """Seven images for two threads, two at a time: 2 and 1; 2 and 2."""
    problem = Problem(S(7, 3, 5, (6, 7), (3, 2), **how), few=few, threads=2)
    two = {"images_at_a_time": lambda *_: 2}
    with pinned(conv, **two), pinned(conv_transpose, **two):
        check_twin(kernel, problem, backend)


def test_pixels_that_no_kernel_reaches_get_the_bias_alone(backend):
    problem = Problem(NAMED["stride larger than the kernel"], bias=True)
    (y, weight, bias), told = problem.operands("conv_transpose2d", backend)
    image = exactly(conv_transpose.conv_transpose2d(y, weight, *told, bias))
    unreached = image[:, :, 2::3]  # rows 2, 5, 8: the kernel has two rows, and the stride is three
    assert unreached.shape[2] == 3
    np.testing.assert_array_equal(unreached, np.broadcast_to(exactly(bias)[:, None, None], unreached.shape))


def test_the_three_kernels_are_adjoint(backend):
    """⟨conv2d(x, w), y⟩ = ⟨x, conv_transpose2d(y, w)⟩ = ⟨w, conv2d_weight(x, y)⟩"""

    @many
    @given(problems())
    def body(problem):
        problem = replace(problem, dtypes=("float64",) * 3)
        x, weight, y = problem.arrays(backend)
        s, how = problem.settings, problem.how
        with hired(problem.threads), pinned(conv, BLOCK=problem.block, FEW=problem.few):
            made, seen = conv.conv2d(x, weight, how), conv_transpose.conv_transpose2d(y, weight, how, s.size)
            owed = conv.conv2d_weight(x, y, how, s.kernel)
        pairs = [(exactly(a), exactly(b)) for a, b in ((made, y), (x, seen), (weight, owed))]
        products = [np.vdot(a, b) for a, b in pairs]
        size = max(np.vdot(np.abs(a), np.abs(b)) for a, b in pairs)
        np.testing.assert_allclose(products, products[0], rtol=0, atol=1e-13 * size)

    body()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("channels", [3, 6, 18])
def test_weight_gradients_lie_as_the_next_product_wants_them(channels, groups, two_threads):
    """Then matrix_of, for the weights that an optimiser makes of them, is a view. The memory is their own."""
    few = channels // groups <= conv.FEW
    s = ConvSettings(4, channels, 6, (8, 8), (4, 4), (2, 2), (1, 1), groups=groups)
    arrays, told = Problem(s, dtypes=("float32",) * 3).operands("conv2d_weight", "numpy")
    weight = conv.conv2d_weight(*arrays, *told)
    assert weight.base is None
    for part in np.split(weight, groups):
        matrix = conv.matrix_of(part, few)
        assert np.shares_memory(matrix, weight)
        assert matrix.strides[1] == weight.itemsize, "the filters side by side"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels, filters, size", [(6, 8, 8), (6, 1, 4), (5, 5, 4), (7, 3, 1)])
def test_results_have_the_channels_last_in_memory_of_their_own(batch, channels, filters, size):
    s = ConvSettings(batch, channels, filters, (size, size), (4, 4), (2, 2), (2, 2))
    for kernel in ("conv2d", "conv_transpose2d"):
        arrays, told = Problem(s, bias=True).operands(kernel, "numpy")
        result = computed(FAST, kernel, arrays, told)
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous
        assert result.base is None, "the tape would copy it"
    x = arrays[0]
    vector = np.ones(x.shape[1])
    for made in (norm.affine(x, vector, vector, None), norm.combine(x, x, *[vector] * 4)):
        assert made.transpose(0, 2, 3, 1).flags.c_contiguous
        assert made.base is None


# ------------------------------------------------------------------------ batch normalisation


@dataclass(frozen=True)
class Images:
    """Images x and gradients g of one shape, and how they are to be worked on."""

    shape: tuple[int, int, int, int]
    dtype: str
    orders: tuple[Any, Any]
    piece: int
    threads: int
    seed: int

    def arrays(self, backend, vectors):
        """x, g, and so many vectors of one number per channel."""
        if backend != "numpy":
            pytest.skip("on a GPU, batch normalisation is what kernels/simple.py says")
        rng = np.random.default_rng(self.seed)
        orders = [*self.orders, *[np.ascontiguousarray] * vectors]
        all_shapes = [self.shape] * 2 + [self.shape[1:2]] * vectors
        return [
            sealed(order(rng.normal(0.5, size=shape).astype(self.dtype)), backend)
            for order, shape in zip(orders, all_shapes, strict=True)
        ]

    @contextmanager
    def settled(self):
        with hired(self.threads), pinned(norm, PIECE=self.piece, WORTH=1):
            yield


images = st.builds(
    Images,
    shape=st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(1, 12), st.integers(1, 6)),
    dtype=st.sampled_from(FLOATS),
    orders=st.tuples(memory, memory),
    piece=st.sampled_from([1, 100, norm.PIECE]),  # one row, a few with a remainder, all
    threads=team_sizes,
    seed=seeds,
)


def test_statistics(backend):
    @given(images)
    def body(case):
        x, _ = case.arrays(backend, 0)
        with case.settled():
            mu, variance = norm.statistics(x)
        exact = exactly(x)
        want_mu, want_variance = simple.statistics(exact)
        assert_rounded(mu, want_mu, np.abs(exact).mean(axis=(0, 2, 3)), x.dtype)
        assert_rounded(variance, want_variance, (exact**2).mean(axis=(0, 2, 3)), x.dtype)

    body()


def test_affine(backend):
    @given(images, st.booleans())
    def body(case, shifted):
        x, _, mu, scale, shift = case.arrays(backend, 3)
        shift = shift if shifted else None
        with case.settled():
            y = norm.affine(x, mu, scale, shift)
        exact = [exactly(a) for a in (x, mu, scale, shift)]
        x, mu, scale, shift = (None if a is None else np.abs(a) for a in exact)
        assert_rounded(y, simple.affine(*exact), simple.affine(x, -mu, scale, shift), case.dtype)

    body()


def test_sums_of_gradients(backend):
    @given(images)
    def body(case):
        x, g, mu = case.arrays(backend, 1)
        with case.settled():
            total, along = norm.gradient_sums(g, x, mu)
            alone = norm.channel_sums(g)
        g, x, mu = exactly(g), exactly(x), exactly(mu)
        want, want_along = simple.gradient_sums(g, x, mu)
        terms, terms_along = simple.gradient_sums(np.abs(g), np.abs(x), -np.abs(mu))
        assert_rounded(total, want, terms, case.dtype)
        assert_rounded(along, want_along, terms_along, case.dtype)
        assert_rounded(alone, want, terms, case.dtype)

    body()


def test_sums_of_no_images_are_zero(backend, two_threads):
    nothing = sealed(np.ones((0, 3, 4, 5), "float32"), backend)
    for s in (norm.channel_sums(nothing), simple.channel_sums(nothing)):
        assert_rounded(s, np.zeros(3), np.zeros(3), "float32")


def test_combine(backend):
    @given(images)
    def body(case):
        x, g, *vectors = case.arrays(backend, 4)
        with case.settled():
            y = norm.combine(g, x, *vectors)
        exact = [exactly(v) for v in (g, x, *vectors)]
        g, x, mu, a, b, c = (np.abs(v) for v in exact)
        assert_rounded(y, simple.combine(*exact), simple.combine(g, x, -mu, a, b, c), case.dtype)

    body()


def test_channels_last_is_the_same_images_in_another_order(backend):
    @given(images)
    def body(case):
        x, _ = case.arrays(backend, 0)
        with case.settled():
            y = norm.channels_last(x)
        np.testing.assert_array_equal(exactly(y), exactly(x))
        if x.shape[1] > 1:  # the stride of a single channel says nothing
            assert y.strides[1] == y.itemsize
            assert (y is x) == (x.strides[1] == x.itemsize)

    body()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(16, 8, 16, 16), (64, 2, 8, 8), (3, 70, 7, 5)])
def test_the_variance_is_precise_far_from_zero(shape, size, rng, worth_it):
    """One pass, the mean of x² minus the square of the mean of x, would lose every digit here."""
    x = (1e4 + rng.normal(size=shape)).astype("float32")
    axes = (0, 2, 3)
    exact = x.astype(float).var(axis=axes)
    in_one_pass = (x * x).mean(axis=axes) - x.mean(axis=axes) ** 2
    assert (np.abs(in_one_pass - exact) > 0.5 * exact).any()
    with hired(size):
        mu, variance = norm.statistics(channels_last(x))
    np.testing.assert_allclose(variance, exact, rtol=1e-5)
    np.testing.assert_allclose(
        mu, x.astype(float).mean(axis=axes), rtol=3e-7
    )  # a few units in the last place


def test_whom_the_fast_functions_suit():
    large = np.zeros((4, 8, 32, 32), "float32")
    assert norm.suits(large)
    assert not norm.suits(large[:1]), "8192 numbers: quicker in one go"
    assert not norm.suits(large.reshape(4, 8, 1024)), "not images"


# -------------------------------------------------------------------------------- activations

SLOPES = st.sampled_from([-1.5, -0.2, 0.0, 0.01, 0.2, 1.0, 1.7])


@dataclass(frozen=True)
class Entries:
    """Two arrays of one shape: half the entries of the first are exactly 0, or ±1/2."""

    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    orders: tuple[Any, Any]
    piece: int
    threads: int
    seed: int

    def arrays(self, backend):
        rng = np.random.default_rng(self.seed)
        x, g = rng.normal(size=self.shape), rng.normal(size=self.shape)
        x = np.where(rng.random(self.shape) < 0.5, np.round(x) / 2, x)
        both = zip((x, g), self.orders, self.dtypes, strict=True)
        return [sealed(order(np.asarray(a, dtype)), backend) for a, order, dtype in both]

    @contextmanager
    def settled(self):
        with hired(self.threads), pinned(elementwise, PIECE=self.piece, WORTH=1):
            yield


entries = st.builds(
    Entries,
    shape=shapes(max_dims=4, max_side=5),
    dtypes=st.tuples(st.sampled_from(FLOATS), st.sampled_from(FLOATS)),
    orders=st.tuples(memory, memory),
    piece=st.sampled_from([1, 7, 20, elementwise.PIECE]),
    threads=team_sizes,
    seed=seeds,
)


def test_activations(backend):
    @given(entries, SLOPES)
    @example(Entries((), FLOATS, (constant, constant), 1, 2, 0), 0.2)
    def body(case, slope):
        x, _ = case.arrays(backend)
        with case.settled():
            leaky, positive, curve = (
                elementwise.leaky_relu(x, slope),
                elementwise.relu(x),
                elementwise.tanh(x),
            )
        x = exactly(x)
        want = simple.leaky_relu(x, float(np.dtype(case.dtypes[0]).type(slope)))
        assert_rounded(leaky, want, np.abs(want), case.dtypes[0], units=1)
        assert_rounded(positive, simple.relu(x), 0, case.dtypes[0])
        assert_rounded(curve, simple.tanh(x), np.abs(x), case.dtypes[0], units=4)

    body()


def test_gradients_of_activations(backend):
    @given(entries, SLOPES)
    def body(case, slope):
        y, g = case.arrays(backend)
        with case.settled():
            leaky = elementwise.leaky_relu_backward(g, y, slope)
        want = simple.leaky_relu_backward(exactly(g), exactly(y), slope)
        terms = np.abs(exactly(g)) * (1 + 2 * abs(slope))
        assert_rounded(leaky, want, terms, case.dtypes[1], units=1)
        y = sealed(mg.backend.to_numpy(y).astype(case.dtypes[1]), backend)  # as the tape has it
        with case.settled():
            curve = elementwise.tanh_backward(g, y)
        g, y = exactly(g), exactly(y)
        assert_rounded(curve, simple.tanh_backward(g, y), np.abs(g) * (1 + y * y), case.dtypes[1], units=2)

    body()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("size", [7, elementwise.PIECE + 7])
def test_what_is_masked_is_chosen(size, dtype, backend):
    """Not even ∞ and NaN come through; what comes through keeps every bit."""
    if backend == "cupy" and dtype == "longdouble":
        pytest.skip("a GPU has no such numbers")
    g = np.resize(np.array([1.5, -0.0, np.inf, -np.inf, np.nan, 1e-7, -3.0], dtype), size)
    keep = np.resize([True, False, False, True], size)
    got = elementwise.masked(*(sealed(v, backend) for v in (g, keep)))
    assert got.dtype == dtype
    np.testing.assert_array_equal(mg.backend.to_numpy(got), simple.masked(g, keep))
    for y in (keep.astype(dtype), np.where(keep, np.array(np.nan, dtype), 0)):
        found = elementwise.leaky_relu_backward(*(sealed(v, backend) for v in (g, y)), 0.0)
        np.testing.assert_array_equal(mg.backend.to_numpy(found), np.where(keep, g, 0))


@pytest.mark.parametrize("slope", [-0.5, 0.2, 3.0])
def test_leaky_relu_at_zero_and_beyond(slope, backend):
    """At 0 the gradient is that of the left side. What is not finite stays what it is."""
    x = sealed(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324]), backend)
    y = exactly(elementwise.leaky_relu(x, slope))
    np.testing.assert_array_equal(y, [0, 0, np.inf, -np.inf * slope, np.nan, 5e-324, slope * -5e-324])
    g = sealed(np.full(7, 2.0), backend)
    back = exactly(elementwise.leaky_relu_backward(g, x, slope))
    np.testing.assert_allclose(back, [2 * slope] * 2 + [2, 2 * slope, 2 * slope, 2, 2 * slope], rtol=1e-15)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_become_floats_where_the_result_is_one(dtype, backend):
    x = sealed(np.array([[-3, 0], [1, 2]], dtype), backend)
    for f, twin in (
        (elementwise.tanh, simple.tanh),
        (lambda x: elementwise.leaky_relu(x, 0.2), lambda x: simple.leaky_relu(x, 0.2)),
    ):
        got, want = f(x), twin(x)
        assert got.dtype == want.dtype == "float64"
        np.testing.assert_allclose(exactly(got), exactly(want), rtol=1e-15)
    assert elementwise.relu(x).dtype == dtype
    np.testing.assert_array_equal(exactly(elementwise.relu(x)), [[0, 0], [1, 2]])


@pytest.mark.parametrize("piece", [10, elementwise.PIECE])
def test_activations_keep_the_memory_order(piece, rng):
    x, g = channels_last(rng.normal(size=(2, 3, 4, 5))), rng.normal(size=(2, 3, 4, 5))
    with pinned(elementwise, PIECE=piece):
        for y in (elementwise.relu(x), elementwise.leaky_relu(x, 0.2), elementwise.tanh(x)):
            assert y.strides == x.strides
            assert y.base is None
        assert elementwise.tanh_backward(g, x).strides == x.strides, "that of the result, not of ȳ"
        assert elementwise.leaky_relu_backward(g, x, 0.2).strides == x.strides


# ----------------------------------------------------------------------------- matrix products


@many
@given(
    sides=st.tuples(*[st.integers(0, 9)] * 3),
    dtypes=st.tuples(*[st.sampled_from(FLOATS)] * 2),
    orders=st.tuples(memory, memory),
    size=team_sizes,
    seed=seeds,
)
@example((160, 70, 300), FLOATS, (channels_last, channels_last), 2, 0)  # wide: computed the other way round
@example((300, 70, 160), FLOATS, (channels_last, channels_last), 3, 0)  # enough for three threads
def check_product(backend, sides, dtypes, orders, size, seed):
    rng, (n, k, m) = np.random.default_rng(seed), sides
    a, b = (
        sealed(order(rng.normal(size=shape).astype(dtype)), backend)
        for shape, order, dtype in zip([(n, k), (k, m)], orders, dtypes, strict=True)
    )
    with hired(size):
        c = linear.product(a, b)
    dtype = np.result_type(a.dtype, b.dtype)
    a, b = exactly(a), exactly(b)
    assert_rounded(c, a @ b, np.abs(a) @ np.abs(b), dtype)


def test_product(backend):
    check_product(backend)


def test_a_wide_product_lies_column_by_column(rng):
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    assert linear.product(a, b).flags.f_contiguous
    assert linear.product(b.T, a.T).flags.c_contiguous


# ---------------------------------------------------------------------------------- sharing work


class Watched(threads.Team):
    """Counts what it was asked to do."""

    def __init__(self, size):
        super().__init__(size)
        self.parts = []

    def run(self, tasks):
        self.parts.append(len(tasks))
        return super().run(tasks)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: conv.conv2d(x, np.ones((5, 12, 3, 3)), Geometry()),
        lambda x: conv.conv2d_weight(x, x, Geometry(), (1, 1)),
        lambda x: conv_transpose.conv_transpose2d(x, np.ones((12, 5, 3, 3)), Geometry(), (34, 34)),
        lambda x: conv_transpose.conv_transpose2d(x, np.ones((12, 1, 3, 3)), Geometry(), (34, 34)),
        norm.channels_last,
        norm.statistics,
        lambda x: norm.affine(x, np.ones(12), np.ones(12), None),
        norm.channel_sums,
        lambda x: norm.gradient_sums(x, x, np.ones(12)),
        lambda x: norm.combine(x, x, *np.ones((4, 12))),
        elementwise.tanh,
        lambda x: elementwise.leaky_relu_backward(x, x, 0.2),
        lambda x: linear.product(x.reshape(384, 1024), np.ones((1024, 100))),
    ],
)
def test_every_kernel_gives_work_to_the_team(work, worth_it):
    with hired(Watched(2)) as team:
        work(np.ones((32, 12, 32, 32)))
    assert set(team.parts) == {2}


@given(n=st.integers(0, 40), size=st.integers(1, 5), least=st.integers(0, 12))
def test_the_parts_cover_everything_once_and_in_order(n, size, least):
    with hired(size):
        parts = threads.split(lambda lo, hi: (lo, hi), n, np.empty(0), least)
    assert [i for lo, hi in parts for i in range(lo, hi)] == list(range(n))
    assert [lo for lo, _ in parts] == [0, *(hi for _, hi in parts[:-1])]
    assert len(parts) == max(1, min(size, n // max(least, 1)))
    if len(parts) > 1:
        assert min(hi - lo for lo, hi in parts) >= max(least, 1)


def test_the_parts_run_at_the_same_time(two_threads):
    """Each waits for the other to come: one after the other, they would wait in vain."""
    both = threading.Barrier(2)
    who = threads.split(lambda lo, hi: both.wait(timeout=30) >= 0 and threading.get_ident(), 2, np.empty(0))
    assert who[0] == threading.get_ident() != who[1], "the caller does the first part itself"


def test_without_a_team_and_on_a_gpu_the_caller_works_alone(two_threads):
    alone = [(0, 10)]
    assert threads.split(lambda lo, hi: (lo, hi), 10, object()) == alone
    threads.hire(None)
    assert threads.split(lambda lo, hi: (lo, hi), 10, np.empty(0)) == alone


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_exception_comes_out_after_every_part_has_ended(failing):
    """Otherwise a helper might still be writing into arrays that are used for something else by now."""
    ended = []

    def work(lo, hi):
        if lo == failing:
            raise ArithmeticError(f"part {lo}")
        time.sleep(0.05)
        ended.append(lo)

    with hired(3) as team:
        with pytest.raises(ArithmeticError, match=f"part {failing}"):
            threads.split(work, 3, np.empty(0))
        assert sorted(ended) == sorted({0, 1, 2} - {failing})
        assert team.run([lambda: 1, lambda: 2]) == [1, 2], "the team works on"


def test_dismissed_helpers_are_gone():
    with hired(3) as team:
        threads.split(lambda lo, hi: None, 3, np.empty(0))
        helpers = [t for t in threading.enumerate() if t.name.startswith("minigan")]
        assert helpers
        team.dismiss()
        assert not any(t.is_alive() for t in helpers)
        team.dismiss()


def run(code, **options):
    """The output of a Python process of its own, which may hang or fork."""
    done = subprocess.run(
        [sys.executable, *options.get("flags", ()), "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_work_inside_work_does_not_wait_for_itself():
    """A helper has no team of its own; the caller, which has one, finds its helper busy only for a while."""
    code = """
import numpy as np
from minigan.kernels import threads

team = threads.Team(2)
threads.hire(team)
inner = lambda lo, hi: (lo, hi, threads.team() is team)
outer = lambda lo, hi: threads.split(inner, 4, np.empty(0))
print(threads.split(outer, 2, np.empty(0)))
"""
    assert eval(run(code)) == [[(0, 2, True), (2, 4, False)], [(0, 4, False)]]


def test_a_helper_heeds_the_callers_errstate(two_threads):
    """The second half is a helper's, where 1e300² overflows."""
    square = lambda lo, hi: np.full(hi - lo, 1e300) ** (lo + 1)
    with pytest.warns(RuntimeWarning, match="overflow"):
        threads.split(square, 2, np.empty(0))
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert threads.split(square, 2, np.empty(0)) == [1e300, np.inf]
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.split(square, 2, np.empty(0))


def test_several_threads_share_one_team(two_threads):
    """Each gives it work, and work inside work, all the time: none waits for ever, nothing is mixed up."""
    split = lambda work, n: threads.split(work, n, np.empty(0))
    inner = lambda lo, hi: split(lambda i, j: list(range(lo + i, lo + j)), hi - lo)
    right = []

    def caller(n):
        for _ in range(200):
            parts = [part for half in split(inner, n) for part in half]
            right.append([i for part in parts for i in part] == list(range(n)))

    callers = [threading.Thread(target=caller, args=(n,), daemon=True) for n in (7, 10, 13)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in callers)
    assert right == [True] * 600


def test_a_team_may_be_dismissed_while_another_thread_uses_it():
    with hired(3) as team:
        failed = []

        def caller():
            try:
                for _ in range(300):
                    assert threads.split(lambda lo, hi: hi - lo, 9, np.empty(0)) == [3, 3, 3]
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=caller, daemon=True)
        thread.start()
        while thread.is_alive():
            team.dismiss()
        assert not failed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_hires_helpers_of_its_own():
    code = """
import os, threading
import numpy as np
from minigan.kernels import threads

team = threads.Team(3)
threads.hire(team)

def works():
    everyone = threading.Barrier(3)
    parts = threads.split(lambda lo, hi: (lo, hi, everyone.wait(20) < 3), 6, np.empty(0))
    return parts == [(0, 2, True), (2, 4, True), (4, 6, True)]

assert works()
child = os.fork()
if child == 0:
    right = works()
    team.dismiss()
    os._exit(0 if right else 1)
_, status = os.waitpid(child, 0)
assert works()
print(os.waitstatus_to_exitcode(status))
"""
    # Python 3.12 warns of a fork while threads run; here nothing is under way when it happens
    assert run(code, flags=["-W", "ignore::DeprecationWarning"]).split() == ["0"]


# -------------------------------------------------------------------------------- on the tape


@pytest.fixture
def everything_is_large():
    """Even small arrays go through the fast kernels, in several pieces."""
    with (
        pinned(norm, SMALL=0, PIECE=200, WORTH=1),
        pinned(elementwise, PIECE=100, WORTH=1),
        pinned(conv, BLOCK=5000),
    ):
        yield


def network(backend, *layers):
    """A function of an image and of the parameters, for gradcheck, which wants to vary all of them."""
    model = nn.Sequential(*layers).to(backend)
    names = [name for name, _ in model.named_parameters()]

    def function(x, *values):
        for name, value in zip(names, values, strict=True):
            index, last = name.split(".")
            setattr(model[int(index)], last, value)
        return model(x)

    return function, [p.data for p in model.parameters()]


def test_derivatives_through_the_fast_kernels(backend, rng, everything_is_large, two_threads):
    function, parameters = network(
        backend,
        nn.Conv2d(2, 5, 3, padding=1, rng=1, dtype="float64"),
        nn.BatchNorm2d(5, dtype="float64"),
        nn.Tanh(),
        nn.ConvTranspose2d(5, 2, 4, stride=2, padding=1, rng=2, dtype="float64"),
    )
    x = rng.normal(size=(4, 2, 8, 8))  # 32 rows of an image: 16 for each thread
    gradcheck(function, Tensor(x, backend=backend), *parameters)


@pytest.mark.parametrize("order", [channels_last, np.ascontiguousarray])
def test_derivatives_of_batch_norm_through_the_fast_kernels(
    order, backend, rng, everything_is_large, two_threads
):
    x, weight, bias = rng.normal(size=(4, 3, 8, 3)), rng.uniform(0.5, 2, 3), rng.normal(size=3)
    gradcheck(batch_norm, *(Tensor(a, backend=backend) for a in (order(x), weight, bias)))


def conv_bias(x, bias):
    """A convolution as a function of its bias."""
    return mg.conv2d(x, constant_weight(x), bias, padding=1)


def constant_weight(x):
    weight = np.random.default_rng(5).normal(size=(x.shape[1], x.shape[1], 3, 3))
    return Tensor(weight, backend=x.backend)


@pytest.mark.parametrize("order", [channels_last, np.ascontiguousarray], ids=["channels last", "rows"])
@pytest.mark.parametrize(
    "f, vectors",
    [
        (batch_norm, 0),
        (batch_norm, 2),
        (lambda x, bias: batch_norm(x, None, bias), 1),
        (tanh, 0),
        (relu, 0),
        (leaky_relu, 0),
        (lambda x: leaky_relu(x, -0.3), 0),
        (conv_bias, 1),
        (lambda x, bias: mg.conv_transpose2d(x, constant_weight(x), bias, padding=1), 1),
    ],
    ids=[
        *("batch_norm", "batch_norm, weight and bias", "batch_norm, bias", "tanh", "relu", "leaky_relu"),
        *("leaky_relu, slope below 0", "conv2d", "conv_transpose2d"),
    ],
)
def test_a_recorded_walk_gives_the_same_gradients(f, vectors, order, backend, two_threads, worth_it):
    """Rule 3: a fast formula for the first derivative may stand beside the one that can be derived again."""
    shape, rng = (32, 9, 32, 32), np.random.default_rng(3)
    x, g, per_channel = rng.normal(1, size=shape), rng.normal(size=shape), rng.normal(1, size=(vectors, 9))
    assert x.size > max(elementwise.PIECE, norm.SMALL), "large enough for the fast kernels"
    leaves = [Tensor(sealed(a, backend), True, copy=False) for a in (order(x), *per_channel)]
    y = f(*leaves)
    seed = Tensor(g, backend=backend)
    plain, recorded = (grad(y, leaves, seed, create_graph=again) for again in (False, True))
    for a, b in zip(plain, recorded, strict=True):
        a, b = exactly(a.data), exactly(b.data)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def test_each_gradient_has_sums_of_its_own(rng, two_threads):
    """batch_norm's vjps share sums over ȳ. Two gradients that are alive at once must not share theirs."""
    x, weight, bias = (Tensor(rng.normal(size=n), True) for n in ((8, 16, 16, 16), 16, 16))
    y = batch_norm(x, weight, bias)
    g = Tensor(rng.normal(size=y.shape))
    doubled = g * 2.0
    assert norm.suits(y.data)
    for once, twice in zip(*(grad(y, [x, weight, bias], v) for v in (g, doubled)), strict=True):
        np.testing.assert_allclose(twice.data, 2 * once.data, rtol=1e-12)


# ------------------------------------------------------------------------------- extremes of a few entries


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    entries=st.integers(2, 16),
    place=st.integers(0, 3),
    ties=st.booleans(),
    name=st.sampled_from(["max", "min"]),
    order=memory,
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 9),
)
def test_extremes_slice_by_slice_are_those_of_numpy(shape, entries, place, ties, name, order, dtype, seed):
    axis = min(place, len(shape))
    x = np.random.default_rng(seed).normal(size=(*shape[:axis], entries, *shape[axis:])).astype(dtype)
    x = order(np.round(x) if ties else x)
    with pinned(short, WORTH=1):
        assert short.suits(x, (axis,))
        y = short.reduced(name, x, (axis,))
        count = short.reduced("sum", best := x == y, (axis,))
    assert y.dtype == dtype
    assert np.array_equal(y, getattr(x, name)(axis=axis, keepdims=True))
    assert np.array_equal(count, best.sum(axis=axis, keepdims=True))


def test_an_extreme_that_is_nan_is_nan_slice_by_slice_too():
    x = np.ones((400, 5))
    x[3, 2] = np.nan
    assert short.suits(x, (1,))
    assert np.array_equal(np.isnan(short.reduced("max", x, (1,))[:, 0]), np.arange(400) == 3)


def test_the_gradient_of_a_large_maxout_shares_among_equals():
    x = mg.Tensor(np.zeros((300, 4)), requires_grad=True)
    y = mg.max(x, axis=1)
    assert np.array_equal(mg.grad(y.sum(), x).numpy(), np.full((300, 4), 0.25))
