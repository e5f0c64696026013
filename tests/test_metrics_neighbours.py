"""Nearest neighbours: counts that can be made by hand, and by loops. Fréchet's distance of many numbers."""

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from scipy.spatial import cKDTree

import minigan as mg
from minigan import Tensor
from minigan.metrics import frechet_distance, moments, neighbours
from minigan.metrics.neighbours import NeighbourReport, judge_neighbours

seeds = st.integers(0, 2**32 - 1)


def column(*numbers):
    return np.array(numbers, float)[:, None]


def by_loops(real, fake, k):
    """The four definitions, one pair of points at a time. Exact for whole numbers, ties included."""

    def squared(a, b):
        return sum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True))

    def radii(points):
        others = (np.delete(points, i, axis=0) for i in range(len(points)))
        return [sorted(squared(p, o) for o in rest)[k - 1] for p, rest in zip(points, others, strict=True)]

    of_real, of_fake = radii(real), radii(fake)
    held = [[squared(x, y) <= r for y in fake] for x, r in zip(real, of_real, strict=True)]
    holds = [[squared(x, y) <= r for y, r in zip(fake, of_fake, strict=True)] for x in real]
    return NeighbourReport(
        precision=sum(any(row[j] for row in held) for j in range(len(fake))) / len(fake),
        recall=sum(any(row) for row in holds) / len(real),
        density=sum(map(sum, held)) / (k * len(fake)),
        coverage=sum(any(row) for row in held) / len(real),
    )


def by_trees(real, fake, k):
    """SciPy's search tree takes the root, and knows nothing of |a|² + |b|² - 2 a·b."""
    of_real, of_fake = (cKDTree(z).query(z, k + 1)[0][:, k] for z in (real, fake))
    held = [set(found) for found in cKDTree(fake).query_ball_point(real, of_real)]
    holds = [set(found) for found in cKDTree(real).query_ball_point(fake, of_fake)]
    return NeighbourReport(
        precision=len(set().union(*held)) / len(fake),
        recall=len(set().union(*holds)) / len(real),
        density=sum(map(len, held)) / (k * len(fake)),
        coverage=sum(map(bool, held)) / len(real),
    )


# --------------------------------------------------------------------------------- by hand


def test_points_on_a_line(backend):
    """Reals 0, 1, 3, 7 have the radii 1, 1, 2, 4 for k = 1: the balls are [-1 1], [0 2], [1 5], [3 11].

    Fakes -2, 0.5, 4, 30, 31 have 2.5, 2.5, 3.5, 1, 1: [-4.5 0.5], [-2 3], [0.5 7.5], [29 31], [30 32].
    """
    real, fake = column(0, 1, 3, 7), column(-2, 0.5, 4, 30, 31)
    report = judge_neighbours(Tensor(real, backend=backend), Tensor(fake, backend=backend), k=1)
    assert report == NeighbourReport(precision=2 / 5, recall=1.0, density=4 / 5, coverage=1.0)
    # k = 2: [-3 3], [-1 3], [0 6], [1 13]; the fakes are in 1, 3, 2, 0, 0 of them
    report = judge_neighbours(real, fake, k=2)
    assert report == NeighbourReport(precision=3 / 5, recall=1.0, density=6 / 10, coverage=1.0)


def test_each_number_is_for_its_own_question():
    """Real points at two places. Fakes at one only are precise, but do not cover; and the other way round."""
    one, other = column(*range(10)), column(*range(100, 110))
    both = np.concatenate([one, other])
    report = judge_neighbours(both, one, k=2)
    assert (report.precision, report.recall, report.coverage) == (1.0, 0.5, 0.5)
    report = judge_neighbours(one, both, k=2)
    assert (report.precision, report.recall, report.coverage) == (0.5, 1.0, 1.0)


def test_one_stray_point_misleads_the_older_two():
    """A real point far off makes precision 1, a fake one recall; density and coverage hardly move."""
    real, fake = column(*range(20)), column(*(40 + np.arange(20)))
    none = judge_neighbours(real, fake, k=3)
    assert astuple(none) == (0, 0, 0, 0)
    stray = judge_neighbours(np.concatenate([real, column(100)]), fake, k=3)
    assert (stray.precision, stray.density, stray.coverage) == (1.0, 1 / 3, 1 / 21)
    stray = judge_neighbours(real, np.concatenate([fake, column(-60)]), k=3)
    assert (stray.recall, stray.precision, stray.density, stray.coverage) == (1.0, 0, 0, 0)


def test_a_point_on_the_edge_is_inside(backend):
    """However the mean is rounded that the points are moved by: thirds, sevenths and a large place."""
    for place in (0.0, 1 / 3, -7 / 9, 1000.1):
        real = np.array([[place, 0.0], [place + 1, 0.0], [place, 3.0]])
        fake = np.array([[place - 1, 0.0], [place - 5, 0.0]])
        made = [mg.backend.get(backend).from_numpy(points) for points in (real, fake)]
        assert judge_neighbours(*made, k=1).precision == 0.5


def test_equal_points_are_neighbours():
    """A point is not its own neighbour, but its twin is, at distance 0: the ball is a point, not empty."""
    real = column(0.1, 0.1, 0.1, 5, 6, 7)
    assert judge_neighbours(real, column(0.1, 0.2, 0.3), k=2).precision == 1 / 3
    assert judge_neighbours(real, column(0.2, 0.3, 0.4), k=2).precision == 0
    assert judge_neighbours(real, column(0.2, 0.3, 0.4, 9), k=3).precision == 1  # the third neighbour is 5
    same = np.full((6, 3), 0.5)
    assert astuple(judge_neighbours(same, same, k=2)) == (1, 1, 3, 1)
    assert astuple(judge_neighbours(same, same + 0.1, k=2)) == (0, 0, 0, 0)


# --------------------------------------------------------------- other ways to the same numbers


@given(
    seeds,
    st.integers(4, 20),
    st.integers(4, 20),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from("ifd"),
)
def test_as_the_definitions_say(seed, n, m, size, k, dtype):
    """On small whole numbers, where points are often equal and distances nearly always tied."""
    rng = np.random.default_rng(seed)
    real, fake = (rng.integers(0, 6, (count, size)).astype(dtype) for count in (n, m))
    assert judge_neighbours(real, fake, k) == by_loops(real, fake, k)


@given(seeds, st.integers(1, 12), st.integers(1, 8), st.sampled_from(["float32", "float64"]))
def test_as_a_search_tree_says(seed, size, k, dtype):
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(120, size)).astype(dtype)
    fake = (0.3 + 1.2 * rng.normal(size=(90, size))).astype(dtype)
    assert judge_neighbours(real, fake, k) == by_trees(real, fake, k)


def test_small_distances_far_from_the_centre(rng):
    """Clusters 1000 times as far from each other as they are wide. In float32 the balls would be noise."""
    centres = 1000 * rng.normal(size=(5, 2))
    real, fake = (centres[rng.integers(5, size=400)] + rng.normal(size=(400, 2)) for _ in range(2))
    assert judge_neighbours(real, fake) == by_trees(real, fake, 5)


@pytest.mark.parametrize(("place", "dtype"), [(2**20, "f4"), (2**40, "f8")])
def test_points_far_from_zero(rng, place, dtype):
    """The place does not matter, even where few digits are left for the differences."""
    real, fake = rng.integers(0, 8, (2, 60, 3))
    far = judge_neighbours((real + place).astype(dtype), (fake + place).astype(dtype), k=3)
    assert far == by_loops(real, fake, 3)


def test_many_points(rng):
    real, fake = rng.normal(size=(2000, 3)), rng.normal(size=(1500, 3))
    assert judge_neighbours(real, fake, k=7) == by_trees(real, fake, 7)


def test_on_every_backend(backend, rng):
    real, fake = rng.normal(size=(70, 4)), rng.normal(size=(50, 4))
    moved = [mg.backend.get(backend).from_numpy(points) for points in (real, fake)]
    report = judge_neighbours(*moved, k=3)
    assert report == by_trees(real, fake, 3)
    assert [type(value) for value in astuple(report)] == [float] * 4


# -------------------------------------------------------------------------------- what must hold


@given(seeds, st.integers(2, 40), st.integers(1, 6), st.data())
def test_of_a_set_with_itself(seed, count, size, data):
    """Every ball holds its centre and k others on or within its edge: a density of (k + 1) / k."""
    k = data.draw(st.integers(1, count - 1))
    x = np.random.default_rng(seed).normal(2, 3, (count, size))
    report = judge_neighbours(x, x[::-1], k)
    assert (report.precision, report.recall, report.coverage) == (1, 1, 1)
    assert report.density == pytest.approx((k + 1) / k)


@given(seeds, st.integers(1, 6))
def test_far_apart(seed, size):
    real, fake = np.random.default_rng(seed).normal(size=(2, 30, size))
    assert astuple(judge_neighbours(real, fake + 100)) == (0, 0, 0, 0)


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_order_rotation_place_and_scale_do_not_matter(seed, size, k):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(40, size)), rng.normal(0.5, 1, (30, size))
    expected = judge_neighbours(real, fake, k)
    q = np.linalg.qr(rng.normal(size=(size, size)))[0]
    shift = 10 * rng.normal(size=size)
    assert judge_neighbours(3 * real @ q + shift, 3 * fake @ q + shift, k) == expected
    assert judge_neighbours(rng.permutation(real), rng.permutation(fake), k) == expected


@given(seeds, st.integers(1, 6))
def test_exchanged_sets_exchange_precision_and_recall(seed, k):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(30, 2)), rng.normal(0.7, 1, (20, 2))
    one, other = judge_neighbours(real, fake, k), judge_neighbours(fake, real, k)
    assert (one.precision, one.recall) == (other.recall, other.precision)


def test_what_is_expected_of_one_distribution(rng):
    """Density 1, coverage 1 - 2⁻ᵏ (Naeem et al. 2020)."""
    for k in (1, 3, 5):
        report = judge_neighbours(*rng.normal(size=(2, 2000, 2)), k)
        assert report.density == pytest.approx(1, abs=0.05)
        assert report.coverage == pytest.approx(1 - 0.5**k, abs=0.03)


# ------------------------------------------------------------------------------- in small pieces


@pytest.mark.parametrize("at_once", [1, 60, 61, 200, 59 * 61])
def test_pieces_do_not_matter(monkeypatch, rng, at_once):
    real, fake = rng.normal(size=(59, 3)), rng.normal(0.5, 1, (61, 3))
    real[::5] = fake[:12]  # points that lie exactly on the edges of balls, too
    expected = judge_neighbours(real, fake, k=4)
    monkeypatch.setattr(neighbours, "AT_ONCE", at_once)
    assert judge_neighbours(real, fake, k=4) == expected


def test_memory_does_not_grow_with_all_pairs(monkeypatch, rng):
    real, fake = rng.normal(size=(2, 3000, 4)).astype("f4")  # 3000 · 3000 distances would be 72 MB
    monkeypatch.setattr(neighbours, "AT_ONCE", 2**17)
    tracemalloc.start()
    judge_neighbours(real, fake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6


def test_what_is_given_stays_as_it_is(rng):
    real, fake = rng.normal(size=(2, 20, 3))
    before = real.copy(), fake.copy()
    judge_neighbours(real, fake)
    assert np.array_equal((real, fake), before)


# ------------------------------------------------------------------------------------- mistakes

SIX = np.arange(12.0).reshape(6, 2)
MISTAKES = {
    "k is all real points": (lambda: judge_neighbours(SIX[:5], SIX), "k=5, .* 5 real and 6 fake"),
    "k is all fakes": (lambda: judge_neighbours(SIX, SIX[:3], k=3), "k=3, .* 6 real and 3 fake"),
    "k is 0": (lambda: judge_neighbours(SIX, SIX, k=0), "k must be 1 or more"),
    "k is no whole number": (lambda: judge_neighbours(SIX, SIX, k=2.0), "k must be a whole number"),
    "one real point": (lambda: judge_neighbours(SIX[:1], SIX, k=1), "1 vectors in real"),
    "one fake": (lambda: judge_neighbours(SIX, SIX[:1], k=1), "1 vectors in fake"),
    "NaN": (lambda: judge_neighbours(SIX, SIX * [np.nan, 1]), "6 of 6 vectors in fake contain NaN"),
    "infinite": (lambda: judge_neighbours(np.where(SIX == 3, np.inf, SIX), SIX), "1 of 6 vectors in real"),
    "other features": (lambda: judge_neighbours(SIX, SIX[:, :1]), "2 numbers and vectors of 1"),
    "images": (lambda: judge_neighbours(SIX.reshape(3, 2, 2), SIX), r"\(3, 2, 2\)"),
    "two backends": (
        lambda: judge_neighbours(SIX, mg.backend.get("strict").from_numpy(SIX)),
        "'numpy' and one of 'strict'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=f"judge_neighbours: .*{message}"):
        call()


# -------------------------------------------------------------- Fréchet's distance of many numbers


@pytest.mark.parametrize("size", [64, 128])
def test_frechet_distance_of_many_features(rng, size):
    """SciPy's root of the product, where it is as exact as in few dimensions: covariances of full rank."""
    x, y = (rng.normal(size=(4 * size, size)) @ rng.normal(size=(size, size)) for _ in range(2))
    (m1, c1), (m2, c2) = moments(x), moments(y + 0.5)
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-8)


@given(seeds, st.integers(2, 15), st.integers(2, 15), st.integers(1, 20))
def test_frechet_distance_of_few_vectors(seed, n, m, size):
    """Where N ≤ F no root is needed: tr (C₁ C₂)^½ is the sum of the singular values of X Yᵀ / √(N-1)(M-1)."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, size)), rng.normal(1, 2, (m, size))
    (m1, c1), (m2, c2) = moments(x), moments(y)
    root = np.linalg.svd((x - m1) @ (y - m2).T, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * root
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_one_feature(rng):
    x, y = rng.normal(1, 2, (50, 1)), rng.normal(-1, 3, (70, 1))
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(expected)


def test_frechet_distance_to_points_that_are_all_the_same(rng):
    """C₂ = 0: only the spread of the others is left, d² = |μ₁ - μ₂|² + tr C₁."""
    x, point = rng.normal(size=(40, 5)), np.full((3, 5), 2.0)
    mean, cov = moments(x)
    expected = ((mean - 2) ** 2).sum() + np.trace(cov)
    assert frechet_distance(mean, cov, *moments(point)) == pytest.approx(expected)


def test_moments_are_summed_where_the_vectors_are(backend, rng, monkeypatch):
    """Only μ and C leave the device, not the vectors."""
    x = (100 + rng.normal(size=(300, 4))).astype("f4")
    home = mg.backend.get(backend)
    there, taken = home.from_numpy(x), []
    monkeypatch.setattr(
        "minigan.metrics.frechet.to_numpy", lambda a: taken.append(a.shape) or mg.backend.to_numpy(a)
    )
    mean, cov = moments(there)
    assert taken == [(4,), (4, 4)]
    assert np.allclose(mean, x.mean(axis=0, dtype=float), rtol=1e-12)
    assert np.allclose(cov, np.cov(x.astype(float), rowvar=False), rtol=1e-10)
