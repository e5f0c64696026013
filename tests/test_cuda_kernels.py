"""gpu/kernels.cu and kernels.py against the formulas in formulas.py, with CuPy.

Without a GPU they run by tests/cupy_on_cpu/run. There, launches are counted, threads take turns in any order,
and wrong kernels (mutants) must be noticed. What only a GPU can show is how fast they are, and that the
driver takes them.
"""

import functools
import inspect
import math
import re
import shutil
import subprocess
from concurrent import futures
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from cupy_on_cpu import fake_gpu

import minigan.gpu
from minigan import Tensor, backend, nn
from minigan.gan import Game, NonSaturating, alternating_step
from minigan.gpu import formulas as fused
from minigan.gpu import kernels as gpu
from minigan.kernels.geometry import Geometry
from minigan.optim import Adam

SOURCE = Path(minigan.gpu.__file__).with_name("kernels.cu")
KERNELS = set(
    re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\(', SOURCE.read_text())
)

DTYPES = ("float32", "float64")
SHAPES = [(1, 1), (1, 130), (5, 3), (700, 3), (33, 64), (4100, 1), (600, 130), (2, 3, 5, 7), (9, 64, 6, 5)]
ORDERS = ("C", "F", "channels last")


def needs_cupy(test):
    return pytest.mark.usefixtures("cupy")(test)


# ------------------------------------------------------------------------------------------ the two sides


def on_device(array, order="C"):
    """The array, on the device, its axes lying in memory in this order."""
    xp = gpu.cupy
    if order == "channels last":
        return xp.moveaxis(xp.array(np.moveaxis(array, 1, -1), order="C"), -1, 1)
    return xp.array(array, order=order)


def compare(found, wanted, scale=1.0):
    """Arrays, or tuples and lists of them: the same shapes, dtypes, and numbers but for rounding."""
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            compare(f, w, scale)
        return
    assert isinstance(found, gpu.cupy.ndarray)
    found, wanted = backend.to_numpy(found), backend.to_numpy(wanted)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    tolerance = scale * (4e-6 if wanted.dtype == np.float32 else 1e-13)
    size = max(1.0, np.abs(wanted).max()) if wanted.size else 1.0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * size)


def check_launches(count, function, *args):
    """So many kernels and copies are launched, and Python does not wait. A real GPU does not count."""
    function(*args)  # what is made once is made now
    if not fake_gpu.there():
        return
    with fake_gpu.counting() as counts:
        function(*args)
    assert counts.launches == count, counts.launched
    assert counts.to_host == counts.to_device == counts.waits == 0


def kernels_of(function):
    """Which kernels of ours it starts; None on a GPU, which does not tell."""
    if not fake_gpu.there():
        return function() and None
    with fake_gpu.counting() as counts:
        function()
    return KERNELS & counts.launched.keys()


def arrays(rng, shape, dtype, order, count):
    return [on_device(rng.standard_normal(shape).astype(dtype), order) for _ in range(count)]


def channels_are_last(x):
    return x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous


# ------------------------------------------------------------------------------- activations and biases


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_activations(rng, dtype, order):
    for shape in SHAPES:
        g, y = arrays(rng, shape, dtype, order, 2)
        compare(gpu.leaky_relu(y, 0.2), fused.leaky_relu(y, 0.2))
        compare(gpu.leaky_relu_backward(g, y, 0.2), fused.leaky_relu_backward(g, y, 0.2))
        compare(gpu.tanh_backward(g, y), fused.tanh_backward(g, y))
        compare(gpu.leaky_relu(y, 0), fused.leaky_relu(y, 0))
        compare(gpu.leaky_relu_backward(g, y, 0), fused.leaky_relu_backward(g, y, 0))
        for function, args in (
            (gpu.leaky_relu, (y, 0)), (gpu.leaky_relu_backward, (g, y, 0.2)), (gpu.tanh_backward, (g, y))
        ):  # fmt: skip
            assert gpu._same_steps(function(*args), y)
            check_launches(1, function, *args)


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_where_numbers_end(dtype):
    """NaN stays NaN. Slope 0 makes 0 of everything below, of infinity, too: where NumPy's 0 · ∞ is NaN."""
    inf, nan = math.inf, math.nan
    x = on_device(np.array([[-inf, -2, -0.0, 0, 2, inf, nan]], dtype))
    column = x.reshape(-1, 1)  # one channel
    zeros, one = (on_device(np.array([value], dtype)) for value in (0, 1))
    for slope, wanted in ((0, [0, 0, 0, 0, 2, inf, nan]), (0.5, [-inf, -1, 0, 0, 2, inf, nan])):
        np.testing.assert_array_equal(backend.to_numpy(gpu.leaky_relu(x, slope))[0], wanted)
        biased = column.copy()
        gpu.add_bias(biased, zeros, slope)
        np.testing.assert_array_equal(backend.to_numpy(biased)[:, 0], wanted)
    np.testing.assert_array_equal(
        backend.to_numpy(gpu.leaky_relu(x, 0.5)), backend.to_numpy(fused.leaky_relu(x, 0.5))
    )
    np.testing.assert_array_equal(backend.to_numpy(gpu.leaky_relu(x, 0)), np.maximum(backend.to_numpy(x), 0))
    unchanged = column.copy()
    gpu.add_bias(unchanged, zeros)
    np.testing.assert_array_equal(backend.to_numpy(unchanged), backend.to_numpy(column))

    y = on_device(np.array([[-1, -1, -1, 0, nan, 1, 1]], dtype))
    g = on_device(np.array([[inf, nan, 3, -inf, inf, nan, inf]], dtype))
    found = backend.to_numpy(gpu.leaky_relu_backward(g, y, 0))
    np.testing.assert_array_equal(found[0], [0, 0, 0, 0, 0, nan, inf])
    found = backend.to_numpy(gpu.leaky_relu_backward(g, y, 0.5))
    np.testing.assert_array_equal(found[0], [inf, nan, 1.5, -inf, inf, nan, inf])
    np.testing.assert_array_equal(found, backend.to_numpy(fused.leaky_relu_backward(g, y, 0.5)))
    lost = gpu.batch_norm(on_device(np.array([[1, 2], [3, nan]], dtype)), None, one.repeat(2), 0, 0)[0]
    assert np.isnan(backend.to_numpy(lost)).tolist() == [[False, True], [False, True]]


@needs_cupy
def test_activations_of_arrays_that_lie_differently(rng):
    shape = (4, 3, 6, 5)
    last, first = (
        arrays(rng, shape, "float32", "channels last", 1)[0],
        arrays(rng, shape, "float32", "C", 1)[0],
    )
    gaps = on_device(rng.standard_normal((4, 3, 6, 10)).astype("float32"))[..., ::2]
    thin = on_device(rng.standard_normal((4, 3, 1, 1)).astype("float32"))
    for g in (last, first, gaps):
        for y in (last, first, gaps):
            found = gpu.leaky_relu_backward(g, y, 0.1)
            compare(found, fused.leaky_relu_backward(g, y, 0.1))
            if y is not gaps:
                assert found.strides == y.strides
    compare(gpu.leaky_relu(gaps, 0.1), fused.leaky_relu(gaps, 0.1))
    wide = thin.transpose(0, 2, 3, 1)
    compare(gpu.tanh_backward(wide, wide), fused.tanh_backward(wide, wide))
    compare(gpu.leaky_relu(thin.reshape(-1)[:1].reshape(()), 0.1), fused.leaky_relu(thin[0, 0, 0, 0], 0.1))


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_biases(rng, dtype, order):
    for shape in SHAPES:
        bias = on_device(rng.standard_normal(shape[1]).astype(dtype))
        for slope in (None, 0, 0.2):
            y = arrays(rng, shape, dtype, order, 1)[0]
            wanted = y.copy()
            fused.add_bias(wanted, bias, slope)
            gpu.add_bias(y, bias, slope)
            compare(y, wanted)
            if channels_are_last(y):
                check_launches(1, gpu.add_bias, y, bias, slope)
        g = arrays(rng, shape, dtype, order, 1)[0]
        compare(gpu.channel_sums(g), fused.channel_sums(g), 4)
        check_launches(1 + (not channels_are_last(g)), gpu.channel_sums, g)


# ----------------------------------------------------------------------------------- batch normalisation


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_batch_norm(rng, dtype, order):
    for shape in SHAPES:
        g, x = arrays(rng, shape, dtype, order, 2)
        gamma, beta = arrays(rng, shape[1], dtype, "C", 2)
        for scale, shift, leaky in ((gamma, beta, None), (None, None, 0), (gamma, beta, 0.2)):
            wanted = fused.batch_norm(x, scale, shift, 1e-2, leaky)
            found = gpu.batch_norm(x, scale, shift, 1e-2, leaky=leaky)
            compare(found, wanted, 4)
            assert channels_are_last(found[0])
            mu, s = wanted[1], wanted[3]
            found = gpu.batch_norm_backward(g, x, mu, s, scale)
            compare(found, fused.batch_norm_backward(g, x, mu, s, scale), 20)
            assert channels_are_last(found[0])
        copies = not channels_are_last(x)
        check_launches(2 + copies, gpu.batch_norm, x, gamma, beta, 1e-5, 0.2)
        check_launches(2 + 2 * copies, gpu.batch_norm_backward, g, x, mu, s, gamma)


@needs_cupy
def test_batch_norm_far_from_zero(rng):
    """A mean a thousand times the spread: Chan's formula loses no more digits than the numbers have."""
    x = on_device((1000 + rng.standard_normal((500, 7))).astype("float32"))
    exact = backend.to_numpy(x).astype(float).var(axis=0)
    assert abs(backend.to_numpy(gpu.batch_norm(x, None, None, 0)[2]) / exact - 1).max() < 1e-4


@needs_cupy
@pytest.mark.parametrize("channels", [8192, 8200])
def test_as_many_channels_as_there_are_counters_for(rng, channels):
    """256 groups of 32 channels: two shares, and a counter for each group. One group more: one share each."""
    g = arrays(rng, (130, channels), "float32", "C", 1)[0]
    grid, _, _ = gpu._shares(130, channels, gpu.SUMMED)
    assert grid == ((256, 2) if channels == 8192 else (257, 1))
    compare(gpu.channel_sums(g), fused.channel_sums(g), 4)


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_running_averages(rng, dtype):
    for c in (1, 64, 300):
        mean, var, mu, variance = arrays(rng, c, dtype, "C", 4)
        count = on_device(np.array(2**40 + c))
        args = (mean, var, count, mu, variance, 0.1, 32)
        found, wanted = gpu.running(*args), fused.running(*args)
        compare(found[:2], wanted[:2])
        assert found[2].shape == ()
        assert found[2] == wanted[2]
        check_launches(1, gpu.running, *args)


# ------------------------------------------------------------------------------------------------ losses


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses(rng, dtype):
    shapes = [(64, 1), (3,), (2, 1, 30, 30), (1,)]
    rows = [
        (on_device(30 * rng.standard_normal(shape).astype(dtype)), a, b, c)
        for shape, (a, b, c) in zip(
            shapes, [(-1, 0, 1), (1.0, -0.9, 1.0), (-2, 0.5, 3), (1, 0, -1)], strict=True
        )
    ]
    for count in range(1, 5):
        found, wanted = gpu.softplus_means(rows[:count]), fused.softplus_means(rows[:count])
        compare(found[0], wanted[0])
        compare(found[1], wanted[1])
        check_launches(1, gpu.softplus_means, rows[:count])
        several = [row[0] for row in rows[:count]]
        compare(gpu.sigmoid_means(several), fused.sigmoid_means(several))
        check_launches(1, gpu.sigmoid_means, several)
    gaps = (on_device(rng.standard_normal((8, 2)).astype(dtype))[:, :1], 1, 0, 1)
    compare(gpu.softplus_means([gaps])[1], fused.softplus_means([gaps])[1])
    several = [on_device(rng.standard_normal((500 + i, 2)).astype(dtype))[:, :1] for i in range(4)]
    compare(gpu.sigmoid_means(several), fused.sigmoid_means(several))
    check_launches(1 + 4, gpu.sigmoid_means, several)  # with the copies


@needs_cupy
def test_sums_of_measures(rng):
    single = [on_device(np.array(rng.standard_normal(), "float32")) for _ in range(6)]
    double = [on_device(np.array(rng.standard_normal())) for _ in range(7)]
    for values in ([*single, 3, 0.5, *double, math.nan], double[:1], []):
        found, wanted = (on_device(np.arange(16.0)) for _ in "ab")
        gpu.add_up(found, values)
        fused.add_up(wanted, values)
        compare(found, wanted, 0)
        check_launches(len(values) > 0, gpu.add_up, wanted, values)
    half = on_device(np.array(0.5, "float16"))
    gpu.add_up(found, [half, 1.0])
    assert found.tolist()[:3] == [0.5, 2.0, 2.0]


# ------------------------------------------------------------------------------------------- convolution

GEOMETRIES = [  # N, C, H, W; kernel; how
    ((2, 3, 5, 7), (3, 3), Geometry()),
    ((1, 1, 4, 4), (4, 4), Geometry()),
    ((3, 130, 4, 5), (3, 2), Geometry((1, 1), (1, 1))),
    ((2, 64, 8, 8), (4, 4), Geometry((2, 2), (1, 1))),
    ((5, 2, 9, 11), (3, 2), Geometry((2, 3), (2, 1), (3, 2))),
    ((2, 3, 7, 6), (1, 1), Geometry((3, 2))),
    ((1, 5, 6, 6), (5, 5), Geometry((1, 2), (4, 3))),
]


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, kernel, how", GEOMETRIES)
def test_convolution(rng, dtype, shape, kernel, how):
    bias = on_device(rng.standard_normal(shape[1]).astype(dtype))
    for order in ORDERS:
        x = arrays(rng, shape, dtype, order, 1)[0]
        columns = gpu.im2col(x, kernel, how)
        compare(columns, fused.im2col(x, kernel, how), 0)
        assert columns.flags.c_contiguous
    check_launches(1, gpu.im2col, x, kernel, how)
    for order in ("C", "F"):
        columns = arrays(rng, columns.shape, dtype, order, 1)[0]
        for b in (None, bias):
            image = gpu.col2im(columns, shape, kernel, how, b)
            compare(image, fused.col2im(columns, shape, kernel, how, b), 0)  # the same order of the sum
            assert channels_are_last(image)
    copies = not columns.flags.c_contiguous
    check_launches(1 + copies, gpu.col2im, columns, shape, kernel, how, bias)


@needs_cupy
def test_convolution_of_any_geometry(rng):
    for _ in range(40):
        n, c = rng.integers(1, 4), rng.integers(1, 8)
        kernel, stride, padding, dilation = (tuple(rng.integers(low, 4, 2).tolist()) for low in (1, 1, 0, 1))
        how = Geometry(stride, padding, dilation)
        size = [
            max(1, d * (k - 1) + 1 - 2 * p) + rng.integers(0, 6)
            for k, p, d in zip(kernel, padding, dilation, strict=True)
        ]
        shape = (int(n), int(c), *map(int, size))
        test_convolution(rng, "float32", shape, kernel, how)


# -------------------------------------------------------------------------- optimisers, moving averages


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay, decoupled", [(0, False), (0.1, False), (0.1, True)])
def test_adam(rng, dtype, decay, decoupled):
    sizes = [1, 3000, 0, 1024, 7, *[5] * 13, 1025]  # 18 that are not empty: two launches
    starts = np.cumsum([3, *sizes])
    total = int(starts[-1]) + 50
    pieces = [
        (int(start), on_device(rng.standard_normal(size).astype(dtype)))
        for start, size in zip(starts, sizes, strict=False)
    ]
    for step in (1, 7, 100_000):
        found, wanted = (
            [arrays(np.random.default_rng(i), total, dtype, "C", 1)[0] for i in range(3)] for _ in "ab"
        )
        for three in (found, wanted):
            np.abs(three[2], out=three[2])
        where = on_device(np.array(step, np.int64)) if step == 7 else step
        numbers = (2e-1, 0.5, 0.999, 1e-2, decay, decoupled)
        gpu.adam(*found, pieces, where, *numbers)
        fused.adam(*wanted, pieces, step, *numbers)
        compare(found, wanted, 4)
        check_launches(2, gpu.adam, *found, pieces, where, *numbers)
    check_launches(0, gpu.adam, *found, [], 1, 1, 0, 0, 0)


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_moving_averages(rng, dtype):
    sizes = [2500, 1, *[30] * 14, 1024, 0, 1025]
    kept, new = ([arrays(rng, size, dtype, "C", 1)[0] for size in sizes] for _ in "ab")
    wanted = [a.copy() for a in kept]
    fused.averages(wanted, new, 0.9)
    gpu.averages(kept, new, 0.9)
    compare(kept, wanted)
    check_launches(2, gpu.averages, kept, new, 0.9)
    gpu.averages([], [], 0.9)


# ---------------------------------------------------------------------------------------- random numbers


@needs_cupy
def test_random_numbers():
    xp = gpu.cupy
    for shape in ((1,), (7,), (2, 3, 4), (5001,), (0, 3), ()):
        for key in ((0, 0), (3, 12345678901), (2**64 - 1, 2**63 + 5), (1, on_device(np.array(77, np.int64)))):
            compare(gpu.uniform(shape, key, xp), fused.uniform(shape, key, xp), 0)
            compare(gpu.normal(shape, key, xp), fused.normal(shape, key, xp))
    check_launches(1, gpu.normal, (64, 100), (1, 2), xp)


@needs_cupy
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
def test_batches(rng, dtype):
    for shape in ((50, 3), (50,), (50, 28, 10), (50, 1, 4, 4), (50, 1200)):
        data = on_device((100 * rng.standard_normal(shape)).astype(dtype))
        order = on_device(rng.permutation(50))
        for turn in (0, 2, 6):  # of the last batch of 8 only two rows are left
            compare(gpu.batch(data, order, turn, 8), fused.batch(data, order, turn, 8), 0)
        where = on_device(np.array(3, np.int64))
        compare(gpu.batch(data, order, where, 8), fused.batch(data, order, 3, 8), 0)
        check_launches(1, gpu.batch, data, order, where, 8)
        beyond = gpu.batch(data, order, on_device(np.array(6, np.int64)), 8)
        compare(beyond[:2], fused.batch(data, order, 6, 8), 0)
        assert not beyond[2:].any()
        assert gpu.batch(data, order, 7, 8).shape == (0, *shape[1:])
    images = on_device((100 * rng.standard_normal((50, 3, 4, 5))).astype(dtype), "channels last")
    found = gpu.batch(images, order, 1, 16)
    compare(found, fused.batch(images, order, 1, 16), 0)
    assert channels_are_last(found)
    for odd in (
        images[..., 1:],
        on_device(np.asfortranarray(np.arange(100.0).reshape(50, 2)).astype(dtype), "F"),
    ):
        compare(gpu.batch(odd, order, 1, 16), fused.batch(odd, order, 1, 16), 0)
        assert not kernels_of(lambda: gpu.batch(odd, order, 1, 16))  # by the formula


# --------------------------------------------------------------------------------------- what holds for all


@needs_cupy
def test_the_formula_computes_for_other_dtypes_and_for_empty_arrays(rng):
    def everything():
        half = on_device(rng.standard_normal((4, 3, 5, 5)).astype("float16"))
        vector = half[0, :, 0, 0].copy()
        compare(gpu.leaky_relu(half, 0.2), fused.leaky_relu(half, 0.2), 0)
        compare(gpu.channel_sums(half), fused.channel_sums(half), 0)
        compare(gpu.batch_norm(half, vector, None, 1e-3), fused.batch_norm(half, vector, None, 1e-3), 0)
        compare(gpu.im2col(half, (2, 2), Geometry()), fused.im2col(half, (2, 2), Geometry()), 0)
        single, double = (on_device(rng.standard_normal((4, 3)).astype(dtype)) for dtype in DTYPES)
        compare(
            gpu.leaky_relu_backward(double, single, 0.2), fused.leaky_relu_backward(double, single, 0.2), 0
        )
        compare(gpu.softplus_means([(half, 1, 0, 1)]), fused.softplus_means([(half, 1, 0, 1)]), 0)
        compare(gpu.sigmoid_means([half]), fused.sigmoid_means([half]), 0)
        compare(gpu.sigmoid_means([single, double]), fused.sigmoid_means([single, double]), 0)
        whole = on_device(np.arange(6).reshape(2, 3))
        compare(gpu.channel_sums(whole), fused.channel_sums(whole), 0)
        kept = [vector.copy()]
        gpu.averages(kept, [half[1, :, 0, 0].copy()], 0.5)
        none = on_device(np.zeros((0, 3), "float32"))
        three = on_device(np.zeros(3, "float32"))
        compare(gpu.leaky_relu(none, 0.2), fused.leaky_relu(none, 0.2), 0)
        compare(gpu.channel_sums(none), fused.channel_sums(none), 0)
        gpu.add_bias(none, three)
        empty = on_device(np.zeros((0, 2, 5, 5), "float32"))
        compare(gpu.im2col(empty, (2, 2), Geometry()), fused.im2col(empty, (2, 2), Geometry()), 0)

    assert not kernels_of(everything)


ORDERS_OF_TURNS = range(5)  # see cupy_on_cpu/fake/threads.cpp


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_whoever_comes_first(rng, dtype):
    """Threads and blocks take their turns in several orders: nothing may change."""
    g, x = arrays(rng, (7, 33, 9, 8), dtype, "channels last", 2)
    gamma, s = arrays(rng, 33, dtype, "C", 2)
    p, m, slope = arrays(rng, 3000, dtype, "C", 3)
    columns = gpu.im2col(x, (3, 3), Geometry((2, 2), (1, 1)))

    def everything():
        flat = [a.copy() for a in (p, m, np.abs(m))]
        gpu.adam(*flat, [(10, slope[:2900])], 3, 0.1, 0.5, 0.9, 1e-8)
        kept = [p.copy()]
        gpu.averages(kept, [m], 0.9)
        loss, slopes = gpu.softplus_means([(g, 1, 0, 1), (x, -1, 0, 1)])
        return [
            *flat, *kept, loss, *slopes, gpu.leaky_relu_backward(g, x, 0.1), *gpu.sigmoid_means([g, x]),
            gpu.im2col(x, (3, 3), Geometry((2, 2), (1, 1))), gpu.normal((99,), (1, 2), gpu.cupy),
            gpu.col2im(columns, x.shape, (3, 3), Geometry((2, 2), (1, 1)), gamma),
            *gpu.batch_norm(x, gamma, s, 1e-5, 0.1), *gpu.batch_norm_backward(g, x, s, s, gamma),
        ]  # fmt: skip

    the_same_in_every_order(everything)


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_sums_whichever_block_is_last(rng, dtype):
    for shape in ((4100, 3), (700, 70), (5000, 1)):  # 5 shares; 6 shares of 3 groups; 2 shares
        g, x = arrays(rng, shape, dtype, "C", 2)
        mu, s, gamma = arrays(rng, shape[1], dtype, "C", 3)
        assert gpu._shares(*shape, gpu.SUMMED)[0][1] > 1
        the_same_in_every_order(
            lambda: [
                gpu.channel_sums(g), *gpu.batch_norm(x, gamma, mu, 1e-5),
                *gpu.batch_norm_backward(g, x, mu, s, gamma), gpu.channel_sums(x),
            ],
        )  # fmt: skip
        assert not gpu._between(2, 1, dtype)[1].any()  # the counters, ready for the next launch


def the_same_in_every_order(function):
    found = []
    for number in ORDERS_OF_TURNS:
        with fake_gpu.order(number) if fake_gpu.there() else nullcontext():
            found.append([backend.to_numpy(made) for made in function()])
    assert all(np.isfinite(made).all() for made in found[0])
    for other in found[1:]:
        for made, first in zip(other, found[0], strict=True):
            same = made.tobytes() == first.tobytes()
            assert same  # (pytest would take minutes to write out how the bytes differ)


@needs_cupy
def test_streams_do_not_share_counters(rng):
    """Kernels of two streams may run at once. Each has its own counters; they are zeroed once, elsewhere."""
    g = arrays(rng, (5000, 1), "float32", "C", 1)[0]
    other, seen = gpu.cupy.cuda.Stream(non_blocking=True), []
    for stream in (gpu.cupy.cuda.Stream.null, other, gpu.cupy.cuda.Stream.null):
        with stream:
            compare(gpu.channel_sums(g), fused.channel_sums(g), 4)
            seen.append(gpu._between(2, 1, np.float32)[1])
    assert seen[0] is seen[2] and seen[0] is not seen[1]
    with futures.ThreadPoolExecutor(1) as other_thread:
        counters = other_thread.submit(gpu._between, 2, 1, np.float32).result()[1]
    assert all(counters is not known for known in seen)
    assert not any(some.any() for some in (*seen, counters))


@needs_cupy
def test_a_game_played_with_them():
    """Three steps of two convolutional networks: ops call the kernels, and come to the same as NumPy."""

    def play(where, dtype):
        g = nn.Sequential(
            nn.Linear(5, 24, rng=0), nn.BatchNorm1d(24), nn.ReLU(), nn.Reshape(6, 2, 2),
            nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, rng=0), nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1, rng=0), nn.Tanh(),
        )  # fmt: skip
        d = nn.Sequential(
            nn.Conv2d(3, 5, 4, stride=2, padding=1, rng=0), nn.LeakyReLU(0.2),
            nn.Conv2d(5, 8, 4, stride=2, padding=1, bias=False, rng=0), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(32, 1, rng=0),
        )  # fmt: skip
        g, d = g.to(where, dtype), d.to(where, dtype)
        game = Game(g, d, NonSaturating(), Adam(g.parameters(), 1e-2), Adam(d.parameters(), 1e-2))
        seeds = np.random.default_rng(0)
        for _ in range(3):
            x, z = np.tanh(seeds.standard_normal((7, 3, 8, 8))), seeds.standard_normal((7, 5))
            alternating_step(
                game, [Tensor(x, backend=where, dtype=dtype)], [Tensor(z, backend=where, dtype=dtype)]
            )
        return [backend.to_numpy(p.data) for p in (*g.state_dict().values(), *d.state_dict().values())]

    wanted = play("numpy", "float64")
    found = []
    started = kernels_of(lambda: found.extend(play("cupy", "float64")))
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-7, atol=1e-9)
    assert started is None or started >= {
        "leaky_relu", "leaky_relu_backward", "tanh_backward", "add_bias", "channel_sums",
        "batch_norm_statistics", "batch_norm_apply", "batch_norm_backward_sums", "batch_norm_backward_apply",
        "running", "im2col", "col2im", "adam", "softplus_means", "sigmoid_means",
    }  # fmt: skip


def test_every_function_of_fused_is_there():
    """The same names, with the same parameters."""
    for name, function in vars(fused).items():
        if inspect.isfunction(function) and function.__module__ == fused.__name__ and name[0] != "_":
            assert inspect.signature(getattr(gpu, name)) == inspect.signature(function), name


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("device", ["sm_75", "sm_90"])
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc to compile the kernels for a GPU")
def test_nvcc_compiles_the_kernels_without_a_warning(tmp_path, real, device):
    known = subprocess.run(
        ["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True
    ).stdout.split()
    if device not in known:
        pytest.skip(f"this nvcc does not know {device}")
    out = tmp_path / "kernels.cubin"
    command = ["nvcc", "--cubin", f"-arch={device}", f"-DREAL={real}", "-Werror", "all-warnings", "-o", out]
    done = subprocess.run([*command, SOURCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    assert out.stat().st_size > 10_000


# ------------------------------------------------------------------------------------------------ mutants

MUTANTS = {  # a piece of kernels.cu, what it is replaced by, and the test that must notice
    "tanh: a sign": ("(1 - y[i] * y[i])", "(1 + y[i] * y[i])", "activations"),
    "relu: 0 times infinity": ("slope == 0 ? 0 : slope * x;", "slope * x;", "ends"),
    "relu: no NaN": ("x <= 0 ? times_slope(x, slope) : x;", "x > 0 ? x : times_slope(x, slope);", "ends"),
    "fold: no waiting": (
        "        __syncthreads();\n        if (threadIdx.y < half) room[here] += ",
        "        if (threadIdx.y < half) room[here] += ",
        "biases",
    ),
    "channel_sums: a row too few": ("end < rows ? end : rows;", "end < rows ? end : rows - 1;", "biases"),
    "channel_sums: without the last share": (
        "total = column_sum(parts, channels, 0, shares, room);\n    }\n    if (writes) out",
        "total = column_sum(parts, channels, 0, shares - 1, room);\n    }\n    if (writes) out",
        "biases",
    ),
    "is_last: the counter stays": ("[blockIdx.x], gridDim.y - 1)", "[blockIdx.x], gridDim.y)", "biases"),
    "is_last: a counter for all groups": ("&done[blockIdx.x]", "&done[0]", "biases"),
    "is_last: the first": ("gridDim.y - 1) == gridDim.y - 1;", "gridDim.y - 1) == 0;", "biases"),
    "is_last: always the same block": (
        "== gridDim.y - 1;", "!= gridDim.y && blockIdx.y == gridDim.y - 1;", "whichever",
    ),
    "is_last: no waiting before": ("    __syncthreads();\n    if (own_pl", "    if (own_pl", "whichever"),
    "is_last: no fence before": ("        __threadfence();\n        last", "        last", "biases"),
    "is_last: no fence behind": ("        __threadfence();\n    }", "    }", "biases"),
    "batch_norm: no d squared": ("d * d * a.n * part", "d * a.n * part", "batch_norm"),
    "batch_norm: eps outside": ("sqrt(variance[c] + (REAL)eps)", "(sqrt(variance[c]) + eps)", "batch_norm"),
    "batch_norm: without the last share": ("b < shares;", "b < shares - 1;", "batch_norm"),
    "batch_norm: the last share twice": ("        mine = {0, 0, 0};\n", "", "batch_norm"),
    "batch_norm: no slope": ("* scale + shift, slope)", "* scale + shift, 1)", "batch_norm"),
    "batch_norm_backward: a sign": ("= -factor * total / rows", "= factor * total / rows", "batch_norm"),
    "batch_norm_backward: without the last share": (
        "0, shares, other_room", "0, shares - 1, other_room", "batch_norm",
    ),
    "running: does not count": ("*new_count = *count + 1", "*new_count = *count", "running"),
    "im2col: the border one too wide": ("x >= 0 && x < w.width", "x >= 0 && x <= w.width", "convolution"),
    "im2col: no dilation": ("k / w.kernel_w * w.dilation_h", "k / w.kernel_w", "convolution"),
    "col2im: no bias": ("bias ? total + bias[c] : total", "bias ? total : total", "convolution"),
    "col2im: a place too many": ("ox >= w.places_w", "ox > w.places_w", "convolution"),
    "adam: eps not corrected": ("tiny = eps * c;", "tiny = eps;", "adam"),
    "adam: no decay": ("p[i] * (REAL)shrink", "p[i]", "adam"),
    "softplus: not stable": ("exp(-fabs(u))", "exp(-u)", "losses"),
    "sigmoid: always the first array": ("const int k = blockIdx.x;", "const int k = 0;", "losses"),
    "philox: nine rounds": ("round < 10", "round < 9", "random_numbers"),
    "philox: from block 0": ("c0 = block + 1", "c0 = block", "random_numbers"),
    "normal: sine and cosine": ("far * cospif(2 * v)", "far * sinpif(2 * v)", "random_numbers"),
}  # fmt: skip


CHECKS = {  # on float32
    "activations": lambda rng: test_activations(rng, "float32", "C"),
    "ends": lambda rng: test_activations_where_numbers_end("float32"),
    "whichever": lambda rng: test_the_same_sums_whichever_block_is_last(rng, "float32"),
    "running": lambda rng: test_running_averages(rng, "float32"),
    "biases": lambda rng: test_biases(rng, "float32", "C"),
    "batch_norm": lambda rng: test_batch_norm(rng, "float32", "C"),
    "losses": lambda rng: test_losses(rng, "float32"),
    "convolution": lambda rng: [test_convolution(rng, "float32", *case) for case in GEOMETRIES],
    "adam": lambda rng: test_adam(rng, "float32", 0.1, True),
    "random_numbers": lambda rng: test_random_numbers(),
}


@needs_cupy
@pytest.mark.mutant
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name, rng, monkeypatch):
    """Only where threads take turns: on a GPU, what a mutant does is left to chance."""
    if not fake_gpu.there():
        pytest.skip("needs tests/cupy_on_cpu")
    old, new, noticed_by = MUTANTS[name]
    code = SOURCE.read_text(encoding="utf-8")
    assert code.count(old) == 1
    changed = lambda real: gpu.cupy.RawModule(code=code.replace(old, new), options=(f"-DREAL={real}",))
    monkeypatch.setattr(gpu, "_module", functools.cache(changed))
    for name in ("_kernel", "_counters"):  # what is kept, and a mutant may spoil
        monkeypatch.setattr(gpu, name, functools.cache(getattr(gpu, name).__wrapped__))
    with fake_gpu.order(0), pytest.raises((AssertionError, gpu.cupy.cuda.driver.CUDADriverError)):
        CHECKS[noticed_by](rng)
