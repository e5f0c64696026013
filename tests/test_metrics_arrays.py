"""Scores of points, labels, features and probabilities: against numbers worked out by hand, and SciPy."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

import minigan as mg
from minigan import Tensor
from minigan.data.mixtures import Mixture, grid, ring
from minigan.metrics import (
    ModeReport,
    checks,
    class_score,
    class_shares,
    grid_js,
    grid_kl,
    judge_modes,
    judge_stacked,
    kernel,
    kernel_distance,
    modes,
    reverse_kl,
    squared_mmd,
)
from minigan.streams import stream

seeds = st.integers(0, 2**32 - 1)
LN2 = math.log(2)


def forms(values, backend):
    """The same numbers as a Tensor and as a bare array of the backend."""
    return Tensor(values, backend=backend), mg.backend.get(backend).from_numpy(np.array(values))


@pytest.fixture
def no_way_back(backend, monkeypatch):
    """An error if more than a few numbers are taken off the backend at once."""
    home = mg.backend.get(backend)

    def watched(array):
        assert array.size <= 2000, f"{array.shape} left the backend"
        return home.to_numpy(array)

    watcher = mg.backend.Backend(home.name, home.array_type, home.xp, home.from_numpy, watched)
    monkeypatch.setitem(mg.backend._by_type, home.array_type, watcher)


# ------------------------------------------------------------------------------------ checks


def test_features_keep_their_backend_and_have_enough_digits(backend):
    for dtype, wanted in [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("u1", "f4"), ("i8", "f8"), ("?", "f4")]:
        for form in forms(np.ones((3, 2), dtype), backend):
            x = checks.features("f", "x", form, least=3)
            assert type(x) is mg.backend.get(backend).array_type
            assert x.dtype == wanted
    assert checks.features("f", "x", [[1, 2]], 1).tolist() == [[1.0, 2.0]]


ONES = np.ones((3, 2))
BAD_FEATURES = {
    "one vector": (np.ones(3), r"f: x of shape \(3,\); it must be \(N, F\)"),
    "images": (np.ones((3, 1, 2)), r"shape \(3, 1, 2\)"),
    "no numbers": (np.ones((3, 0)), r"shape \(3, 0\)"),
    "none": ([], r"shape \(0,\)"),
    "too few": (np.ones((1, 2)), "f: 1 vectors in x; 2 are needed"),
    "NaN": ([[np.nan, np.inf], [0, -np.inf], [0, 1]], "2 of 3 vectors in x contain NaN or infinity"),
}


@pytest.mark.parametrize("mistake", BAD_FEATURES)
def test_features_that_are_none_are_refused(mistake):
    values, message = BAD_FEATURES[mistake]
    with pytest.raises(ValueError, match=message):
        checks.features("f", "x", values, least=2)


def test_features_that_do_not_fit_together_are_refused():
    with pytest.raises(TypeError, match="dtype complex128"):
        checks.features("f", "x", ONES * 1j, least=1)
    with pytest.raises(ValueError, match="f: vectors of 2 numbers and vectors of 3"):
        checks.same_width("f", ONES, np.ones((3, 3)))
    there = mg.backend.get("strict").from_numpy(ONES)
    with pytest.raises(TypeError, match="'numpy' and one of 'strict'"):
        checks.same_width("f", ONES, there)


# ---------------------------------------------------------------------------------- modes

PAIR = Mixture(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), sigma=2.0)


def test_modes_counted_by_hand(backend):
    """Within 3 σ = 6 of the nearest of (0, 0), (10, 0), (0, 10)."""
    samples = [
        [0.0, 0.0],
        [4.2, 4.2],  # 5.94 away from the first
        [4.3, 4.3],  # 6.08
        [4.9, 0.0],  # also within 6 of the second, but nearer to the first
        [15.9, 0.0],
        [16.1, 0.0],
        [-100.0, 3.0],
        [10.0, -5.9],
    ]
    for form in forms(samples, backend):
        report = judge_modes(form, PAIR)
        assert report.counts == (3, 2, 0)
        assert report.modes == 2
        assert report.high_quality == 5 / 8
        assert report.reverse_kl == pytest.approx(math.log(3) + 0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert judge_modes(samples, PAIR, within=2).counts == (1, 0, 0)
    assert judge_modes(samples, PAIR, within=2).modes == 1  # one sample is enough
    assert judge_modes(samples, PAIR, within=2.11).counts == (1, 0, 0)
    assert judge_modes(samples, PAIR, within=2.97).counts == (3, 2, 0)


def test_no_sample_of_high_quality():
    report = judge_modes([[50.0, 50.0], [-9.0, 0.0]], PAIR)
    assert report == ModeReport(0, 0.0, math.inf, (0, 0, 0))


def test_samples_of_the_mixture_find_all_of_it(backend):
    """Within r σ in the plane lie 1 - exp(-r²/2) of a normal distribution."""
    for mixture in (ring(), grid()):
        count = 40_000
        samples = mixture.sample(count, stream(0, "modes"))
        for within in (1.0, 3.0):
            report = judge_modes(Tensor(samples, backend=backend), mixture, within)
            p = 1 - math.exp(-(within**2) / 2)
            assert report.modes == len(mixture.centres) == len(report.counts)
            assert abs(report.high_quality - p) < 4 * math.sqrt(p * (1 - p) / count)
            assert report.high_quality == sum(report.counts) / count
            # 2 n KL has the χ² distribution with K - 1 degrees of freedom, about
            free = len(mixture.centres) - 1
            assert 0 < 2 * sum(report.counts) * report.reverse_kl < free + 5 * math.sqrt(2 * free)


def test_one_mode_of_eight():
    mixture = ring()
    samples = mixture.centres[[5]] + 0.01 * stream(0, "one").standard_normal((1000, 2))
    report = judge_modes(samples, mixture)
    assert (report.modes, report.reverse_kl) == (1, pytest.approx(math.log(8)))
    assert report.counts[5] == sum(report.counts) == round(1000 * report.high_quality)


def test_distances_keep_their_digits_far_from_zero():
    """|x|² - 2 x·c + |c|² would be wrong by more than σ² here, and float32 centres by more than σ."""
    mixture = Mixture(np.array([[1e5 + 1e-4, 1e5], [1e5 + 3e-4, 1e5]]), 2e-5)
    samples = mixture.centres[[0, 1, 1]] + [[5e-5, 0.0], [0.0, 5e-5], [0.0, 7e-5]]
    assert judge_modes(samples, mixture).counts == (1, 1)


@given(seeds, st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(1, 30))
def test_modes_as_loops_find_them(seed, count, centres, width, at_once):
    """However the samples are cut into portions, and in any number of dimensions."""
    rng = np.random.default_rng(seed)
    mixture = Mixture(rng.normal(size=(centres, width)), 0.3)
    x = rng.normal(size=(count, width))
    expected = [0] * centres
    for point in x:
        distances = [math.dist(point, c) for c in mixture.centres]
        if min(distances) <= 3 * 0.3:
            expected[distances.index(min(distances))] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "AT_ONCE", at_once)
        assert judge_modes(x, mixture).counts == tuple(expected)


def test_many_samples_need_little_memory(no_way_back, backend):
    """Their distances from 1000 centres would be 160 MB."""
    mixture = grid(side=32)
    samples = Tensor(mixture.sample(20_000, stream(0, "many")), backend=backend)
    tracemalloc.start()
    try:
        report = judge_modes(samples, mixture)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.modes == 1024
    assert peak < 64e6


def test_reverse_kl():
    assert reverse_kl([1, 1, 2]) == pytest.approx(math.log(3) + 0.5 * math.log(0.25) + 0.5 * math.log(0.5))
    assert reverse_kl([7, 7, 7, 7, 7, 7]) == 0
    assert reverse_kl([0, 3, 0]) == pytest.approx(math.log(3))
    assert reverse_kl([4]) == 0
    assert reverse_kl([0, 0, 0]) == math.inf
    assert reverse_kl([0.8] * 20) == 0  # and not a little less


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_reverse_kl_as_scipy_computes_it(counts):
    value = reverse_kl(counts)
    assert value == pytest.approx(entropy(counts, np.ones(len(counts))), abs=1e-12)
    assert 0 <= value <= math.log(len(counts)) + 1e-12
    assert value == pytest.approx(reverse_kl(np.array(counts) / sum(counts)), abs=1e-12)


MODE_MISTAKES = {
    "no samples": (lambda: judge_modes(np.ones((0, 2)), PAIR), "judge_modes: 0 vectors in samples"),
    "NaN": (lambda: judge_modes([[0, np.nan], [1, 2]], PAIR), "1 of 2 vectors in samples contain NaN"),
    "three numbers": (lambda: judge_modes(np.ones((4, 3)), PAIR), r"samples \(4, 3\) and centres \(3, 2\)"),
    "within": (lambda: judge_modes(ONES, PAIR, within=0), "within=0; it must be more"),
    "negative": (lambda: reverse_kl([1, -1]), "each 0 or more"),
    "NaN counts": (lambda: reverse_kl([1, np.nan]), "each 0 or more"),
    "no counts": (lambda: reverse_kl([]), r"shape \(0,\)"),
    "table": (lambda: reverse_kl([[1, 2]]), r"shape \(1, 2\)"),
    "no points": (lambda: grid_kl(np.ones((0, 2)), ONES), "grid_kl: 0 vectors in x"),
    "NaN points": (lambda: grid_js(ONES, ONES * np.nan), "grid_js: 3 of 3 vectors in y"),
    "a line": (lambda: grid_js(np.ones((3, 1)), np.ones((3, 1))), r"points \(3, 1\); they must be points in"),
    "mixed": (lambda: grid_js(ONES, np.ones((3, 3))), "grid_js: vectors of 2 numbers and vectors of 3"),
    "bins": (lambda: grid_kl(ONES, ONES, bins=0), "bins=0"),
    "smoothing": (lambda: grid_kl(ONES, ONES, smoothing=-1), "smoothing=-1"),
    "extent": (lambda: grid_kl(ONES, ONES, extent=((0, 1), (1, 1))), r"from \[0. 1.\] to \[1. 1.\]"),
    "endless": (lambda: grid_kl(ONES, ONES, extent=((0, np.inf), (0, 1))), "each end must be above"),
}


@pytest.mark.parametrize("mistake", MODE_MISTAKES)
def test_mode_mistakes_are_named(mistake):
    call, message = MODE_MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call()


# ----------------------------------------------------------------------------- clouds on a grid

SQUARE = ((0.0, 2.0), (0.0, 2.0))
# of 2 · 2 cells: x has a half in the lower left one, y a quarter; the other quarters differ
CLOUD_X = [[0.5, 0.5], [0.1, 0.9], [1.5, 0.5], [1.5, 1.5]]
CLOUD_Y = [[0.5, 0.2], [1.9, 0.1], [1.0, 0.0], [1.2, 1.9]]


def test_grid_divergences_by_hand(backend):
    """Shares: p = ½, 0, ¼, ¼ and q = ¼, 0, ½, ¼."""
    for x, y in zip(forms(CLOUD_X, backend), forms(CLOUD_Y, backend), strict=True):
        kl = 0.5 * math.log(2) + 0.25 * math.log(0.5)
        assert grid_kl(x, y, 2, SQUARE) == pytest.approx(kl)
        half = 0.5 * math.log(0.5 / 0.375) + 0.25 * math.log(0.25 / 0.375)
        assert grid_js(x, y, 2, SQUARE) == pytest.approx(half)


def test_grid_smoothing_by_hand():
    """One more point in each of 4 cells and in the one outside: p = 3 1 2 2 1, q = 2 1 3 2 1, of 9."""
    kl = (3 * math.log(3 / 2) + 2 * math.log(2 / 3)) / 9
    assert grid_kl(CLOUD_X, CLOUD_Y, 2, SQUARE, smoothing=1) == pytest.approx(kl)
    alone = [[0.5, 1.5]]
    assert grid_kl(CLOUD_X, alone, 2, SQUARE) == math.inf
    assert grid_kl(alone, CLOUD_X, 2, SQUARE) == math.inf
    assert grid_js(CLOUD_X, alone, 2, SQUARE) == pytest.approx(LN2)
    # p = 1 2 1 1 1 of 6, q = 3 1 2 2 1 of 9
    expected = entropy([1, 2, 1, 1, 1], [3, 1, 2, 2, 1])
    assert grid_kl(alone, CLOUD_X, 2, SQUARE, smoothing=1) == pytest.approx(expected)


def test_an_infinite_divergence_is_only_where_the_second_cloud_is_missing():
    assert grid_kl(CLOUD_X[:2], CLOUD_X, 2, SQUARE) == pytest.approx(LN2)
    assert grid_kl(CLOUD_X, CLOUD_X[:2], 2, SQUARE) == math.inf


def test_points_outside_the_grid_count_too():
    """p = ¾ inside, ¼ outside; q = ½, ½. To be outside on two sides is nothing else."""
    x = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [9.0, 0.5]]
    y = [[0.5, 0.5], [-1.0, 0.5]]
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert grid_kl(x, y, 3, ((0, 1), (0, 1))) == pytest.approx(kl)
    assert grid_js(x, [[0.5, 1e30]], 3, ((0, 1), (0, 1))) > 0.3
    assert grid_js([[7.0, 1e30]], [[-1e9, 0.5]], 3, ((0, 1), (0, 1))) == 0


def test_grid_covers_both_clouds_to_the_edge():
    """Cells of width 1 from 0 to 3, whichever of the two clouds reaches out farther.

    x is in the cells (0, 0) and (2, 2), y in (0, 0) and (1, 2): half of each has nothing of the other.
    """
    x, y = [[0.0, 0.0], [3.0, 3.0]], [[0.9, 0.9], [1.1, 2.9]]
    assert grid_js(x, y, bins=3) == pytest.approx(LN2 / 2)
    assert grid_js(y, x, bins=3) == pytest.approx(LN2 / 2)
    same = [[5.0, 5.0]] * 3
    assert grid_js(same, same) == 0
    assert grid_js([[5.0, 5.0]], [[5.0, 6.0]]) == pytest.approx(LN2)


@given(seeds, st.integers(1, 60), st.integers(1, 60), st.integers(1, 6), st.booleans())
def test_grid_divergences_as_numpy_and_scipy_compute_them(seed, n, m, bins, whole):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.normal(0.5, 1.5, size=(m, 2))
    everything = np.concatenate([x, y])
    extent = tuple(zip(everything.min(axis=0), everything.max(axis=0), strict=True))
    if not whole:
        extent = ((-0.7, 0.8), (-1.0, 0.4))
    counts = []
    for cloud in (x, y):
        inside = np.histogram2d(*cloud.T, bins=bins, range=extent)[0].ravel()
        counts.append([*inside, len(cloud) - inside.sum()])
    p, q = counts
    given_extent = None if whole else extent
    js = grid_js(x, y, bins, given_extent)
    assert js == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-7)
    assert js == grid_js(y, x, bins, given_extent)
    assert 0 <= js <= LN2 + 1e-12
    assert grid_kl(x, y, bins, given_extent) == pytest.approx(entropy(p, q), abs=1e-12)
    smooth = entropy(np.array(p) + 0.5, np.array(q) + 0.5)
    assert grid_kl(x, y, bins, given_extent, smoothing=0.5) == pytest.approx(smooth, abs=1e-12)
    assert grid_js(x, x, bins, given_extent) == grid_kl(x, x, bins, given_extent) == 0


def test_grid_divergence_is_that_of_the_densities(no_way_back, backend):
    """Uniform on [0, 1]² and on [0, 2] · [0, 1]: KL = ln 2, for cells that are full enough."""
    rng = stream(0, "clouds")
    x = rng.uniform(size=(100_000, 2))
    y = rng.uniform(size=(100_000, 2)) * [2.0, 1.0]
    x, y = Tensor(x, backend=backend), Tensor(y, backend=backend)
    assert grid_kl(x, y, 10, ((0, 2), (0, 1))) == pytest.approx(LN2, abs=0.01)
    # m = 3/4 on the left half, 1/4 on the right
    js = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    assert grid_js(x, y, 10, ((0, 2), (0, 1))) == pytest.approx(js, abs=0.01)


# --------------------------------------------------------------------------------------- labels


def test_class_shares(backend):
    for form in forms(np.array([1, 3, 3, 0, 3]), backend):
        shares = class_shares(form, classes=5)
        assert type(shares) is np.ndarray
        assert shares.tolist() == [0.2, 0.2, 0.0, 0.6, 0.0]
    assert class_shares(np.arange(10, dtype=np.uint8)).tolist() == [0.1] * 10
    assert class_shares([300, 44], classes=1000).nonzero()[0].tolist() == [44, 300]


def test_stacked_by_hand():
    """Kinds 007, 007, 070, 412: shares ½, ¼, ¼ of 1000."""
    report = judge_stacked([[0, 0, 7], [0, 0, 7], [0, 7, 0], [4, 1, 2]])
    assert (report.modes, report.samples) == (3, 4)
    assert report.reverse_kl == pytest.approx(math.log(1000) - 1.5 * LN2)


def test_stacked_tells_all_triples_apart(backend):
    every = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for form in forms(every.astype(np.uint8), backend):  # 100 · 9 does not fit in uint8
        report = judge_stacked(form)
        assert (report.modes, report.reverse_kl, report.samples) == (1000, 0, 1000)


def test_stacked_of_fair_draws_is_what_its_docstring_says():
    fair = stream(0, "stacked").integers(0, 10, (26_000, 3))
    report = judge_stacked(fair)
    assert report.modes == 1000
    assert report.reverse_kl == pytest.approx(999 / 52_000, rel=0.15)
    assert judge_stacked(fair[:1000]).modes == pytest.approx(1000 * (1 - math.exp(-1)), abs=40)


LABEL_MISTAKES = {
    "none": (lambda: class_shares(np.zeros(0, int)), r"class_shares: labels of shape \(0,\); there are none"),
    "logits": (lambda: class_shares(np.zeros((5, 10), int)), r"shape \(5, 10\); they must be \(N,\)"),
    "floats": (lambda: class_shares([0.0, 1.0]), "dtype float64; they must be whole"),
    "too large": (lambda: class_shares([0, 4], classes=4), "from 0 to 4; they must be from 0 to 3"),
    "negative": (lambda: class_shares([-1, 3], classes=4), "from -1 to 3"),
    "one digit": (lambda: judge_stacked([1, 2, 3]), r"shape \(3,\); they must be \(N, 3\)"),
    "four channels": (lambda: judge_stacked(np.ones((5, 4), int)), r"shape \(5, 4\)"),
    "ten": (lambda: judge_stacked([[1, 2, 10]]), "judge_stacked: labels from 1 to 10"),
    "no triples": (lambda: judge_stacked(np.zeros((0, 3), int)), r"shape \(0, 3\); there are none"),
}


@pytest.mark.parametrize("mistake", LABEL_MISTAKES)
def test_label_mistakes_are_named(mistake):
    call, message = LABEL_MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call()


# --------------------------------------------------------------------------------------- kernel


def slow_mmd(x, y):
    """MMD² as three loops, with one term for each pair of different vectors."""

    def k(a, b):
        return (sum(i * j for i, j in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def test_mmd_by_hand(backend):
    """F = 2. k of the two x: (2·1 + 0·4) / 2 + 1 = 2, cubed 8. k of the two y: (0 + 0) / 2 + 1 = 1.

    Between: (2, 0) with (0, 2) and (-2, 0): 1 and -1; (1, 4) with them: 5³ and 0.
    """
    first, second = [[2.0, 0.0], [1.0, 4.0]], [[0.0, 2.0], [-2.0, 0.0]]
    for x, y in zip(forms(first, backend), forms(second, backend), strict=True):
        assert squared_mmd(x, y) == 8 + 1 - 2 * (1 - 1 + 125 + 0) / 4


@given(seeds, st.integers(2, 7), st.integers(2, 7), st.integers(1, 5))
def test_mmd_as_loops_compute_it(seed, n, m, width):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, width)), rng.normal(1, 2, size=(m, width))
    value = squared_mmd(x, y)
    scale = (1 + (x**2).max() + (y**2).max()) ** 3
    assert value == pytest.approx(slow_mmd(x, y), abs=1e-12 * scale)
    assert squared_mmd(y, x) == pytest.approx(value, abs=1e-12 * scale)
    q = np.linalg.qr(rng.normal(size=(width, width)))[0]
    assert squared_mmd(x @ q, y @ q) == pytest.approx(value, abs=1e-12 * scale)


def test_kernel_distance_is_right_on_average_and_so_is_its_error():
    """x = ±1, y = ±1 with a mean of 0.5: k = (xy + 1)³ is 8 or 0, so MMD² = 4 · (0 - 0.5)², exactly.

    E k(x, x') = 8 P(x = x') = 4 (1 + μ²), so MMD² = 4 (μ - ν)². With equal means it is 0, on average.
    """
    rng = stream(0, "signs")

    def signs(mean, count):
        return np.where(rng.uniform(size=(count, 1)) < (1 + mean) / 2, 1.0, -1.0)

    for mean in (0.0, 0.5):
        reports = [kernel_distance(signs(0, 200), signs(mean, 240), block=20) for _ in range(200)]
        found = np.array([r.distance for r in reports])
        spread = found.std(ddof=1)
        assert abs(found.mean() - 4 * mean**2) < 4 * spread / 200**0.5
        # the errors that are stated are those that are made
        stated = np.mean([r.error**2 for r in reports]) ** 0.5
        assert stated == pytest.approx(spread, rel=0.15)


def test_kernel_distance_of_ten_pairs_by_loops(backend):
    """20 vectors and 25: ten blocks of two and of two or three, each vector in one."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 3)), rng.normal(0.3, 1, size=(25, 3))
    order = stream(7, "kernel distance: blocks")
    of_x, of_y = np.array_split(order.permutation(20), 10), np.array_split(order.permutation(25), 10)
    blocks = [slow_mmd(x[i], y[j]) for i, j in zip(of_x, of_y, strict=True)]
    for a, b in zip(forms(x, backend), forms(y, backend), strict=True):
        report = kernel_distance(a, b, seed=7)
        assert report.distance == pytest.approx(np.mean(blocks), rel=1e-12)
        mean_square = sum((b - np.mean(blocks)) ** 2 for b in blocks) / 9
        assert report.error == pytest.approx(math.sqrt(mean_square / 10), rel=1e-12)


def test_kernel_distance_cuts_into_blocks_of_the_size_asked_for(monkeypatch):
    sizes = []

    def measured(x, y):
        sizes.append((len(x), len(y)))
        return 0.0

    monkeypatch.setattr(kernel, "_squared_mmd", measured)
    kernel_distance(np.ones((2400, 1)), np.ones((3000, 1)), block=100)
    assert sizes == [(100, 125)] * 24
    sizes.clear()
    kernel_distance(np.ones((3000, 1)), np.ones((2400, 1)), block=100)
    assert sizes == [(125, 100)] * 24
    sizes.clear()
    kernel_distance(np.ones((50, 1)), np.ones((40, 1)), block=100)
    assert sizes == [(5, 4)] * 10


def test_kernel_distance_does_not_depend_on_how_rows_are_sorted():
    """Sorted by class, or all classes in turn: neither must put one class in each block."""
    rng = stream(0, "sorted")
    centres = 3 * rng.normal(size=(10, 8))
    labels = np.arange(2000) % 10
    for order in (np.sort(labels), labels):
        x, y = (centres[order] + rng.normal(size=(2000, 8)) for _ in range(2))
        report = kernel_distance(x, y, block=200)
        assert abs(report.distance) < 5 * report.error
        far = kernel_distance(x, y + 1, block=200)
        assert far.distance > 5 * far.error


def test_same_seed_same_kernel_distance(rng):
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    assert kernel_distance(x, y) == kernel_distance(x.copy(), y.copy()) == kernel_distance(x, y, seed=0)
    assert kernel_distance(x, y) != kernel_distance(x, y, seed=1)


def test_mmd_is_computed_in_double_precision(rng):
    """k is near 10¹⁸ here: single precision would be off by 10¹¹, more than MMD² itself."""
    x, y = (1000 + rng.normal(size=(2, 40, 4))).astype("f4")
    expected = squared_mmd(x.astype("f8"), y.astype("f8"))
    assert squared_mmd(x, y) == expected
    assert kernel_distance(x, y) == kernel_distance(x.astype("f8"), y.astype("f8"))


def test_kernel_features_stay_on_their_backend(no_way_back, backend, rng):
    x, y = (Tensor(rng.normal(size=(500, 20)), backend=backend) for _ in range(2))
    assert kernel_distance(x, y).error > 0


KERNEL_MISTAKES = {
    "one": (lambda: squared_mmd(np.ones((1, 2)), ONES), "squared_mmd: 1 vectors in x; 2 are needed"),
    "none": (lambda: squared_mmd(ONES, np.ones((0, 2))), "squared_mmd: 0 vectors in y"),
    "few": (lambda: kernel_distance(ONES, ONES), "kernel_distance: 3 vectors in x; 20 are needed"),
    "NaN": (lambda: kernel_distance(np.ones((20, 1)), np.full((20, 1), np.nan)), "20 of 20 vectors in y"),
    "widths": (lambda: kernel_distance(np.ones((20, 1)), np.ones((20, 2))), "of 1 numbers and vectors of 2"),
    "block": (lambda: kernel_distance(np.ones((20, 1)), np.ones((20, 1)), block=1), "block=1"),
}


@pytest.mark.parametrize("mistake", KERNEL_MISTAKES)
def test_kernel_mistakes_are_named(mistake):
    call, message = KERNEL_MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------------------------------- score


def test_class_score_by_hand(backend):
    """p(k) = ¾, ¼: KL of (1, 0) is ln 4/3, of (½, ½) it is ½ ln 2/3 + ½ ln 2."""
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    kl = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    for form in forms(p, backend):
        mean, sd = class_score(form, splits=1)
        assert mean == pytest.approx(math.exp(kl))
        assert math.isnan(sd)


def test_class_score_from_1_to_k():
    assert class_score(np.full((40, 5), 0.2))[0] == pytest.approx(1)
    assert class_score(np.eye(5)[[2] * 40]) == (1.0, 0.0)
    assert class_score(np.eye(5)[np.arange(40) % 5], splits=1)[0] == pytest.approx(5)
    shares = np.repeat(np.eye(3), [10, 20, 30], axis=0)  # sure of each: the exponential of the entropy
    assert class_score(shares, splits=1)[0] == pytest.approx(math.exp(entropy([1, 2, 3])))


@given(seeds, st.integers(1, 4), st.integers(8, 50), st.integers(1, 6))
def test_class_score_as_scipy_computes_it(seed, splits, count, classes):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.3), count)
    parts = np.array_split(stream(5, "class score: splits").permutation(count), splits)
    scores = [math.exp(np.mean([entropy(row, p[part].mean(axis=0)) for row in p[part]])) for part in parts]
    mean, sd = class_score(p, splits, seed=5)
    assert mean == pytest.approx(sum(scores) / splits)
    assert 1 - 1e-9 <= mean <= classes + 1e-9
    if splits > 1:
        assert sd == pytest.approx(math.sqrt(sum((s - mean) ** 2 for s in scores) / (splits - 1)), abs=1e-9)


def test_class_score_does_not_depend_on_how_rows_are_sorted():
    """All classes in turn, or sorted by class: cut without shuffling, one of them would score 1."""
    labels = np.arange(5000) % 10
    for order in (labels, np.sort(labels)):
        mean, sd = class_score(np.eye(10)[order])
        assert mean == pytest.approx(10, rel=0.02)
        assert 0 < sd < 0.1


def test_class_score_of_single_precision(no_way_back, backend, rng):
    logits = 5 * rng.normal(size=(3000, 10))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = class_score(p)
    assert class_score(Tensor(p.astype("f4"), backend=backend)) == pytest.approx(expected, rel=1e-5)
    assert class_score(p.astype("f2")) == pytest.approx(expected, rel=1e-2)


SCORE_MISTAKES = {
    "logits": (lambda: class_score([[3.0, -2.0]] * 20), "numbers down to -2 and sums up to 0 away from 1"),
    "not normalised": (lambda: class_score([[0.5, 0.6]] * 20), "sums up to 0.1 away"),
    "too small": (lambda: class_score([[0.5, 0.3]] * 20), "sums up to 0.2 away"),
    "NaN": (lambda: class_score([[0.5, np.nan]] * 20), "20 of 20 vectors in probabilities"),
    "few": (lambda: class_score([[0.5, 0.5]] * 19), "19 vectors in probabilities; 20 are needed"),
    "labels": (lambda: class_score(np.ones(30)), r"probabilities of shape \(30,\)"),
    "splits": (lambda: class_score([[0.5, 0.5]] * 20, splits=0), "splits=0"),
}


@pytest.mark.parametrize("mistake", SCORE_MISTAKES)
def test_score_mistakes_are_named(mistake):
    call, message = SCORE_MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call()
