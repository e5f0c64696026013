"""gpu/kernels.py and kernels.cu, with CuPy, against what NumPy computes.

Without a GPU they run by tests/cupy_on_cpu/run. There, launches are counted, threads take turns in any order,
and wrong kernels (mutants) must be noticed. What only a GPU can show is how fast they are, and that the
driver takes them.
"""

import functools
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
from minigan.gpu import kernels as gpu
from minigan.kernels import elementwise, norm, optim, simple
from minigan.kernels.device import gpu_kernels
from minigan.kernels.geometry import Geometry
from minigan.kernels.optim import Piece
from minigan.optim import Adam

SOURCE = Path(minigan.gpu.__file__).with_name("kernels.cu")
FORMULAS = {"leaky_relu", "leaky_relu_backward", "tanh_backward", "softplus", "sigmoid", "running_averages"}
KERNELS = FORMULAS | set(re.findall(r'extern "C" __global__ void (\w+)\(', SOURCE.read_text()))

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


def there_too(*several):
    """NumPy's arrays, and the same on the device; None stays None."""
    return several, [None if a is None else on_device(a) for a in several]


# ------------------------------------------------------------------------------- each entry by itself

CALLS = {  # what each takes behind the arrays, and how many arrays that are
    "leaky_relu": (1, [(0.2,), (0.0,), (-0.3,), (1.5,)]),
    "leaky_relu_backward": (2, [(0.2,), (0.0,), (-0.3,)]),
    "tanh_backward": (2, [()]),
    "softplus": (1, [()]),
    "sigmoid": (1, [()]),
}


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CALLS)
def test_each_entry_by_itself(rng, dtype, order, name):
    count, others = CALLS[name]
    for shape in SHAPES:
        given = arrays(rng, shape, dtype, order, count)
        for rest in others:
            if name == "leaky_relu_backward" and rest == (0.0,):
                given = [given[0], gpu.leaky_relu(given[1], 0.0)]  # it is told y, then, which is 0 or more
            found = getattr(gpu, name)(*given, *rest)
            compare(found, getattr(elementwise, name)(*map(backend.to_numpy, given), *rest))
            assert same_steps(found, given[-1])
            check_launches(1, getattr(gpu, name), *given, *rest)


def same_steps(x, y):
    return all(n == 1 or s == t for n, s, t in zip(x.shape, x.strides, y.strides, strict=True))


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_numbers_end(dtype):
    """NaN stays NaN. Slope 0 makes 0 of everything below, of infinity, too: where NumPy's 0 · ∞ is NaN."""
    inf, nan, e = math.inf, math.nan, math.e
    x = on_device(np.array([-inf, -2, -0.0, 0, 2, inf, nan], dtype))
    for function, wanted in (
        (lambda: gpu.leaky_relu(x, 0.0), [0, 0, 0, 0, 2, inf, nan]),
        (lambda: gpu.leaky_relu(x, 0.5), [-inf, -1, 0, 0, 2, inf, nan]),
        (lambda: gpu.softplus(x), [0, np.log1p(e**-2), np.log(2), np.log(2), np.log1p(e**2), inf, nan]),
        (lambda: gpu.sigmoid(x), [0, 1 / (1 + e**2), 0.5, 0.5, 1 / (1 + e**-2), 1, nan]),
    ):
        np.testing.assert_allclose(backend.to_numpy(function()), wanted, rtol=1e-6)
    far = on_device(np.array([-80, 1000], dtype))
    np.testing.assert_allclose(backend.to_numpy(gpu.softplus(far)), [e**-80, 1000], rtol=1e-5)
    np.testing.assert_allclose(backend.to_numpy(gpu.sigmoid(far)), [e**-80, 1], rtol=1e-5)
    y = on_device(np.array([0, 0, 0, 0, nan, 1, 1], dtype))
    g = on_device(np.array([inf, nan, 3, -inf, inf, nan, inf], dtype))
    found = backend.to_numpy(gpu.leaky_relu_backward(g, y, 0.0))
    np.testing.assert_array_equal(found, [0, 0, 0, 0, inf, nan, inf])
    y = on_device(np.array([-1, -1, -1, 0, nan, 1, 1], dtype))
    found = backend.to_numpy(gpu.leaky_relu_backward(g, y, 0.5))
    np.testing.assert_array_equal(found, [inf, nan, 1.5, -inf, inf, nan, inf])


@needs_cupy
def test_arrays_that_lie_differently(rng):
    shape = (4, 3, 6, 5)
    last, first = (arrays(rng, shape, "float32", order, 1)[0] for order in ("channels last", "C"))
    gaps = on_device(rng.standard_normal((4, 3, 6, 10)).astype("float32"))[..., ::2]
    for g in (last, first, gaps):
        for y in (last, first, gaps):
            found = gpu.leaky_relu_backward(g, y, 0.1)
            compare(found, simple.leaky_relu_backward(backend.to_numpy(g), backend.to_numpy(y), 0.1))
            assert y is gaps or found.strides == y.strides
    compare(gpu.leaky_relu(gpu.cupy.array(-2.0), 0.1), np.array(-0.2))


# ----------------------------------------------------------------------------------- batch normalisation


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_batch_norm(rng, dtype, order):
    for shape in SHAPES:
        g, x = arrays(rng, shape, dtype, order, 2)
        gamma, beta = arrays(rng, shape[1], dtype, "C", 2)
        plain_g, plain_x, *plain = map(backend.to_numpy, (g, x, gamma, beta))
        for (scale, shift), known in (((gamma, beta), plain), ((None, None), (None, None))):
            wanted, _, mu, variance, s = norm.batch_norm(plain_x, *known, 1e-2)
            found = gpu.batch_norm(x, scale, shift, 1e-2)
            compare(found, (wanted, mu, variance, s), 4)
            assert channels_are_last(found[0])
            wanted = norm.batch_norm_backward(plain_g, plain_x, mu, s, known[0])
            mu, s = on_device(mu), on_device(s)
            found = gpu.batch_norm_backward(g, x, mu, s, scale)
            compare(found, wanted, 20)
            assert channels_are_last(found[0])
        copies = not channels_are_last(x)
        check_launches(2 + copies, gpu.batch_norm, x, gamma, beta, 1e-5)
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
    x = arrays(rng, (130, channels), "float32", "C", 1)[0]
    grid, _, _ = gpu._shares(130, channels, gpu.SUMMED)
    assert grid == ((256, 2) if channels == 8192 else (257, 1))
    compare(gpu.batch_norm(x, None, None, 1e-5)[1:3], simple.statistics(backend.to_numpy(x)), 4)


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_running_averages(rng, dtype):
    for c in (1, 64, 300):
        plain, there = there_too(*rng.standard_normal((4, c)).astype(dtype))
        for share in (0.1, on_device(np.array(0.25))):
            found = gpu.running_averages(*there, share, 32)
            compare(found, norm.running_averages(*plain, float(share), 32))
            check_launches(1, gpu.running_averages, *there, share, 32)


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


def im2col(x, kernel, how):
    """What each entry of the kernel sees, side by side."""
    size, wide = how.size_after(x.shape[2:], kernel), simple._padded(x, how.padding)
    entries = simple._kernel_entries(kernel, size, how)
    seen = np.stack([wide[:, :, rows, columns] for *_, rows, columns in entries])  # (KH · KW, N, C, OH, OW)
    return seen.transpose(1, 3, 4, 0, 2).reshape(x.shape[0] * size[0] * size[1], -1)


def col2im(columns, shape, kernel, how, bias=None):
    """Its adjoint: what an entry sees is added to where it was seen."""
    size, wide = (
        how.size_after(shape[2:], kernel),
        simple._padded(np.zeros(shape, columns.dtype), how.padding),
    )
    parts = columns.reshape(shape[0], *size, -1, shape[1]).transpose(3, 0, 4, 1, 2)
    for part, (*_, rows, across) in zip(parts, simple._kernel_entries(kernel, size, how), strict=True):
        wide[:, :, rows, across] += part
    (ph, pw), (h, w) = how.padding, shape[2:]
    image = wide[:, :, ph : ph + h, pw : pw + w]
    return image if bias is None else image + bias.reshape(-1, 1, 1)


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, kernel, how", GEOMETRIES)
def test_convolution(rng, dtype, shape, kernel, how):
    bias = on_device(rng.standard_normal(shape[1]).astype(dtype))
    for order in ORDERS:
        x = arrays(rng, shape, dtype, order, 1)[0]
        columns = gpu.im2col(x, kernel, how)
        compare(columns, im2col(backend.to_numpy(x), kernel, how), 0)
        assert columns.flags.c_contiguous
    check_launches(1, gpu.im2col, x, kernel, how)
    for order in ("C", "F"):
        columns = arrays(rng, columns.shape, dtype, order, 1)[0]
        for b in (None, bias):
            image = gpu.col2im(columns, shape, kernel, how, b)
            known = None if b is None else backend.to_numpy(b)
            wanted = col2im(backend.to_numpy(columns), shape, kernel, how, known)
            compare(image, wanted, 0)  # the same order of the sum
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
    numbers = (2e-1, 0.5, 0.999, 1e-2, decay, decoupled)
    for step in (1, 7, 100_000):
        pieces = [some_piece(rng, size, step + i % 2, dtype) for i, size in enumerate(sizes)]
        there = [on_the_device(piece) for piece in pieces]
        optim.adam(pieces, *numbers)
        gpu.adam(there, *numbers)
        for found, wanted in zip(there, pieces, strict=True):
            compare([found.p, found.g, found.count], [wanted.p, wanted.g, wanted.count], 0)
            compare([found.new, *found.kept], [wanted.new, *wanted.kept], 4)
        check_launches(2, gpu.adam, there, *numbers)
    check_launches(0, gpu.adam, there[2:3], *numbers)


def some_piece(rng, size, step, dtype):
    p, g, new, m, v = rng.standard_normal((5, size)).astype(dtype)
    return Piece(p, g, new, np.array([step]), (m, abs(v)))


def on_the_device(piece):
    return Piece(*map(on_device, piece[:-1]), tuple(map(on_device, piece.kept)))


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_moving_averages(rng, dtype):
    sizes = [2500, 1, *[30] * 14, 1024, 0, 1025]
    plain = [tuple(rng.standard_normal((2, size)).astype(dtype)) for size in sizes]
    there = [tuple(map(on_device, pair)) for pair in plain]
    for share in (0.1, on_device(np.array(0.25))):
        optim.averages(plain, float(share))
        gpu.averages(there, share)
        compare(there, plain)
    check_launches(2, gpu.averages, there, share)


# ---------------------------------------------------------------------------------------- random numbers


@needs_cupy
def test_random_numbers():
    """Those of NumPy's Philox; normal ones are made of two."""
    for shape in ((1,), (7,), (2, 3, 4), (5001,), (0, 3), ()):
        count = math.prod(shape)
        for purpose, position in ((0, 0), (3, 12345678901), (2**64 - 1, 2**63 - 5)):
            philox = np.random.Generator(np.random.Philox(key=np.array([purpose, position], np.uint64)))
            words = philox.random(count + count % 2, "float32")
            u, v = words[::2] + np.float32(2**-24), words[1::2].astype(float)
            far = np.sqrt(-2 * np.log(u.astype(float)))
            pairs = np.stack([far * np.cos(2 * np.pi * v), far * np.sin(2 * np.pi * v)], axis=1)
            for at in (position, on_device(np.array(position))):
                compare(gpu.uniform(shape, (purpose, at)), words[:count].reshape(shape), 0)
                wanted = pairs.astype("float32").reshape(-1)[:count].reshape(shape)
                compare(gpu.normal(shape, (purpose, at)), wanted)
    check_launches(1, gpu.normal, (64, 100), (1, 2))


# --------------------------------------------------------------------------------------- what holds for all


@needs_cupy
def test_which_arrays_there_are_kernels_for():
    single, double, half, whole = (gpu.cupy.ones(3, dtype) for dtype in ("f4", "f8", "f2", "i8"))
    assert gpu_kernels(single) is gpu_kernels(double, None, double) is gpu
    others = ((half,), (whole,), (single, double), (single, None, half), (single[:0],))
    assert [gpu_kernels(*them) for them in others] == [None] * 5
    assert gpu_kernels(np.ones(3)) is None


ORDERS_OF_TURNS = range(5)  # see cupy_on_cpu/fake/threads.cpp


@needs_cupy
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_whoever_comes_first(rng, dtype):
    """Threads and blocks take their turns in several orders: nothing may change."""
    g, x = arrays(rng, (7, 33, 9, 8), dtype, "channels last", 2)
    gamma, s = arrays(rng, 33, dtype, "C", 2)
    piece = some_piece(rng, 3000, 3, dtype)
    columns = gpu.im2col(x, (3, 3), Geometry((2, 2), (1, 1)))

    def everything():
        there, kept = on_the_device(piece), on_device(piece.p)
        gpu.adam([there], 0.1, 0.5, 0.9, 1e-8, 0, False)
        gpu.averages([(kept, there.g)], 0.1)
        return [
            there.new, *there.kept, kept, gpu.leaky_relu_backward(g, x, 0.1),
            gpu.im2col(x, (3, 3), Geometry((2, 2), (1, 1))), gpu.normal((99,), (1, 2)),
            gpu.col2im(columns, x.shape, (3, 3), Geometry((2, 2), (1, 1)), gamma),
            *gpu.batch_norm(x, gamma, s, 1e-5), *gpu.batch_norm_backward(g, x, s, s, gamma),
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
            lambda: [*gpu.batch_norm(x, gamma, mu, 1e-5), *gpu.batch_norm_backward(g, x, mu, s, gamma)]
        )
        assert not gpu._between(2, 1, dtype)[1].any()  # the counters, ready for the next launch


def memory_without_numbers(size):
    """NaN, where CuPy's pool would hand out what may still hold the right numbers of the time before."""
    memory = gpu.cupy.get_default_memory_pool().malloc(size)
    if size:
        memory.memset_async(0xFF, size)
    return memory


def the_same_in_every_order(function):
    found = []
    for number in ORDERS_OF_TURNS:
        turns = fake_gpu.order(number) if fake_gpu.there() else nullcontext()
        with turns, gpu.cupy.cuda.using_allocator(memory_without_numbers):
            found.append([backend.to_numpy(made) for made in function()])
    assert all(np.isfinite(made).all() for made in found[0])
    for other in found[1:]:
        for made, first in zip(other, found[0], strict=True):
            same = made.tobytes() == first.tobytes()
            assert same  # (pytest would take minutes to write out how the bytes differ)


@needs_cupy
def test_streams_do_not_share_counters(rng):
    """Kernels of two streams may run at once. Each has its own counters; they are zeroed once, elsewhere."""
    x = arrays(rng, (5000, 1), "float32", "C", 1)[0]
    other, seen = gpu.cupy.cuda.Stream(non_blocking=True), []
    for stream in (gpu.cupy.cuda.Stream.null, other, gpu.cupy.cuda.Stream.null):
        with stream:
            compare(gpu.batch_norm(x, None, None, 1e-5)[1:3], simple.statistics(backend.to_numpy(x)), 4)
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
    assert started is None or started == KERNELS - {"averages", "uniform", "normal"}


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
    "fold: no waiting": (
        "        __syncthreads();\n        if (threadIdx.y < half) room[here] += ",
        "        if (threadIdx.y < half) room[here] += ",
        "batch_norm",
    ),
    "a row too few": ("end < rows ? end : rows;", "end < rows ? end : rows - 1;", "batch_norm"),
    "is_last: the counter stays": ("[blockIdx.x], gridDim.y - 1)", "[blockIdx.x], gridDim.y)", "batch_norm"),
    "is_last: a counter for all groups": ("&done[blockIdx.x]", "&done[0]", "batch_norm"),
    "is_last: the first": ("gridDim.y - 1) == gridDim.y - 1;", "gridDim.y - 1) == 0;", "batch_norm"),
    "is_last: always the same block": (
        "== gridDim.y - 1;", "!= gridDim.y && blockIdx.y == gridDim.y - 1;", "whichever",
    ),
    "is_last: no waiting before": ("    __syncthreads();\n    if (own_pl", "    if (own_pl", "whichever"),
    "is_last: no fence before": ("        __threadfence();\n        last", "        last", "batch_norm"),
    "is_last: no fence behind": ("        __threadfence();\n    }", "    }", "batch_norm"),
    "batch_norm: no d squared": ("d * d * a.n * part", "d * a.n * part", "batch_norm"),
    "batch_norm: eps outside": ("sqrt(variance[c] + (REAL)eps)", "(sqrt(variance[c]) + eps)", "batch_norm"),
    "batch_norm: without the last share": ("b < shares;", "b < shares - 1;", "batch_norm"),
    "batch_norm: the last share twice": ("        mine = {0, 0, 0};\n", "", "batch_norm"),
    "batch_norm: no shift": ("* scale + shift;", "* scale;", "batch_norm"),
    "batch_norm_backward: a sign": ("= -factor * total / rows", "= factor * total / rows", "batch_norm"),
    "batch_norm_backward: without the last share": (
        "0, shares, other_room", "0, shares - 1, other_room", "batch_norm",
    ),
    "im2col: the border one too wide": ("x >= 0 && x < w.width", "x >= 0 && x <= w.width", "convolution"),
    "im2col: no dilation": ("k / w.kernel_w * w.dilation_h", "k / w.kernel_w", "convolution"),
    "col2im: no bias": ("bias ? total + bias[c] : total", "bias ? total : total", "convolution"),
    "col2im: a place too many": ("ox >= w.places_w", "ox > w.places_w", "convolution"),
    "adam: eps not corrected": ("tiny = eps * c;", "tiny = eps;", "adam"),
    "adam: no decay": ("pieces.p[k][i] * (REAL)shrink", "pieces.p[k][i]", "adam"),
    "adam: the count of the first piece": ("*pieces.count[k]", "*pieces.count[0]", "adam"),
    "averages: a share by value only": ("share_at ? *share_at : share", "share", "averages"),
    "philox: nine rounds": ("round < 10", "round < 9", "random_numbers"),
    "philox: from block 0": ("c0 = block + 1", "c0 = block", "random_numbers"),
    "normal: sine and cosine": ("far * cospif(2 * v)", "far * sinpif(2 * v)", "random_numbers"),
}  # fmt: skip

WRONG_FORMULAS = {  # by whom they must be noticed: each_entry, or ends
    "tanh_backward": ("T g, T x", "g * (1 + x * x)", "each_entry"),
    "leaky_relu": ("T x, T slope", "x > 0 ? x : (slope == 0 ? 0 : slope * x)", "ends"),
    "leaky_relu_backward": ("T g, T x, T slope", "x > 0 ? g : slope * g", "ends"),
    "softplus": ("T x", "log1p(exp(x))", "ends"),
    "sigmoid": ("T x", "(x < 0 ? exp(x) : T(1)) / (1 + exp(x))", "ends"),
}

CHECKS = {  # on float32
    "each_entry": lambda rng: [test_each_entry_by_itself(rng, "float32", "C", name) for name in CALLS],
    "ends": lambda rng: test_where_numbers_end("float32"),
    "whichever": lambda rng: test_the_same_sums_whichever_block_is_last(rng, "float32"),
    "batch_norm": lambda rng: test_batch_norm(rng, "float32", "C"),
    "convolution": lambda rng: [test_convolution(rng, "float32", *case) for case in GEOMETRIES],
    "adam": lambda rng: test_adam(rng, "float32", 0.1, True),
    "averages": lambda rng: test_moving_averages(rng, "float32"),
    "random_numbers": lambda rng: test_random_numbers(),
}


@needs_cupy
@pytest.mark.mutant
@pytest.mark.parametrize("name", WRONG_FORMULAS)
def test_mutants_of_formulas(name, rng, monkeypatch):
    *wrong, noticed_by = WRONG_FORMULAS[name]
    monkeypatch.setattr(gpu, name, gpu._formula(f"wrong_{name}", *wrong))
    with pytest.raises(AssertionError):
        CHECKS[noticed_by](rng)


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
