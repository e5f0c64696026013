"""The Parzen window estimate: against formulas that are known, naive loops, and numerical integrals."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from minigan import Tensor
from minigan.backend import get, to_numpy
from minigan.metrics import ParzenReport, judge_parzen, parzen, parzen_log_likelihood


def naive(samples, points, sigma):
    """The formula, sample by sample."""
    densities = [multivariate_normal(s, sigma**2 * np.eye(samples.shape[1])).pdf(points) for s in samples]
    return np.log(np.mean(densities, axis=0))


def here(name, array):
    return get(name).from_numpy(array)


def test_one_sample_gives_the_normal_density_around_it(backend, rng):
    sample, points = rng.normal(size=(1, 5)), rng.normal(size=(20, 5))
    found = parzen_log_likelihood(here(backend, sample), here(backend, points), 0.7)
    expected = multivariate_normal(sample[0], 0.49 * np.eye(5)).logpdf(points)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-12)


def test_it_is_the_mean_over_the_samples(backend, rng):
    samples, points = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    found = parzen_log_likelihood(here(backend, samples), here(backend, points), 0.4)
    np.testing.assert_allclose(to_numpy(found), naive(samples, points, 0.4), rtol=1e-10)


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_in_one_dimension_the_density_integrates_to_one(rng, sigma):
    samples, x = rng.normal(size=(50, 1)), np.linspace(-10, 10, 4001)
    density = np.exp(parzen_log_likelihood(samples, x[:, None], sigma))
    assert density.sum() * (x[1] - x[0]) == pytest.approx(1, abs=1e-9)


def test_in_two_dimensions_the_density_integrates_to_one(rng):
    samples, x = rng.normal(size=(20, 2)), np.linspace(-8, 8, 161)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    density = np.exp(parzen_log_likelihood(samples, points, 0.3))
    assert density.sum() * (x[1] - x[0]) ** 2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("entries", [1, 100, 3000])
def test_how_many_points_are_looked_at_together_changes_nothing(rng, monkeypatch, entries):
    samples, points = rng.normal(size=(40, 6)), rng.normal(size=(70, 6))
    at_once = parzen_log_likelihood(samples, points, [0.2, 1.0])
    monkeypatch.setattr(parzen, "ENTRIES", entries)
    np.testing.assert_allclose(parzen_log_likelihood(samples, points, [0.2, 1.0]), at_once, rtol=1e-12)


def test_several_sigmas_give_what_each_of_them_gives(backend, rng):
    samples, points = (here(backend, rng.normal(size=(n, 4))) for n in (10, 12))
    sigmas = [0.1, 0.3, 2.0]
    together = to_numpy(parzen_log_likelihood(samples, points, sigmas))
    assert together.shape == (3, 12)
    for found, sigma in zip(together, sigmas, strict=True):
        np.testing.assert_array_equal(to_numpy(parzen_log_likelihood(samples, points, sigma)), found)


def test_points_far_from_all_samples_have_a_finite_logarithm():
    found = parzen_log_likelihood(np.array([[0.0], [1.0]]), np.array([[1000.0]]), 0.1)
    nearest = multivariate_normal([1.0], 0.01).logpdf([1000.0])
    assert found[0] == pytest.approx(nearest - math.log(2), rel=1e-12)


def test_images_in_single_precision_lose_nothing(rng):
    """784 pixels and the smallest sigma of the paper, where an error in |x - s|² counts 50 times."""
    samples, points = (rng.random((n, 784), dtype=np.float32) for n in (50, 20))
    points[0] = samples[7]
    differences = points[:, None].astype(float) - samples[None]
    exponents = -(differences**2).sum(axis=2) / 0.02
    expected = np.logaddexp.reduce(exponents, axis=1) - math.log(50)
    expected -= 784 * math.log(0.1 * math.sqrt(2 * math.pi))
    found = parzen_log_likelihood(samples, points, 0.1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def test_it_does_not_matter_where_zero_is(rng):
    samples, points = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    found = parzen_log_likelihood(samples + 1e6, points + 1e6, 0.5)
    np.testing.assert_allclose(found, parzen_log_likelihood(samples, points, 0.5), atol=1e-7)


def test_what_is_given_stays_as_it_is(rng):
    samples, points = rng.normal(size=(5, 2)), rng.normal(size=(6, 2))
    before = samples.copy(), points.copy()
    parzen_log_likelihood(Tensor(samples), points, [0.5, 1.0])
    parzen_log_likelihood(samples, points, 0.5)
    np.testing.assert_array_equal(samples, before[0])
    np.testing.assert_array_equal(points, before[1])


# ------------------------------------------------------------------------------------ judge_parzen


def test_the_report_is_about_the_test_points_with_the_sigma_that_validation_likes_best(backend, rng):
    samples, validation, test = (rng.normal(size=(n, 2)) for n in (200, 100, 90))
    sigmas = [0.01, 0.1, 0.3, 1.0, 3.0]
    report = judge_parzen(*(here(backend, x) for x in (samples, validation, test)), sigmas)
    means = [naive(samples, validation, sigma).mean() for sigma in sigmas[1:]]
    assert report.sigma == sigmas[1:][int(np.argmax(means))]
    assert report.validation == pytest.approx(max(means))
    logs = naive(samples, test, report.sigma)
    assert report.mean == pytest.approx(logs.mean())
    assert report.error == pytest.approx(logs.std(ddof=1) / math.sqrt(90))


def test_sigma_is_not_chosen_on_the_test_points():
    """Validation points lie on the samples and like the smallest sigma; the test points do not."""
    samples = np.arange(10.0)[:, None] * 5
    report = judge_parzen(samples, samples, samples + 1, [0.1, 1.0])
    assert report.sigma == 0.1
    assert report.mean < -40 < parzen_log_likelihood(samples, samples + 1, 1.0).mean()


def test_the_sigmas_of_the_paper(rng):
    report = judge_parzen(*(rng.random((30, 20)) for _ in range(3)))
    assert report.sigma in np.logspace(-1, 0, 10)
    assert len(parzen.SIGMAS) == 10


def test_the_report_in_words():
    assert str(ParzenReport(1.26, 0.04, 0.25, 3.0)) == "log-likelihood 1.3 ± 0.0 nats (sigma 0.25)"


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf, [], [0.1, 0.0], [[0.1]]])
def test_sigma_must_be_above_zero(sigma):
    with pytest.raises(ValueError, match=r"parzen_log_likelihood: sigma=.*above 0"):
        parzen_log_likelihood(np.zeros((2, 2)), np.zeros((2, 2)), sigma)


def test_nan_is_refused():
    bad = np.array([[0.0, math.nan], [1.0, 2.0]])
    with pytest.raises(ValueError, match=r"1 of 2 .*samples contain NaN"):
        parzen_log_likelihood(bad, np.zeros((2, 2)), 1.0)
    with pytest.raises(ValueError, match=r"1 of 2 .*points contain NaN"):
        parzen_log_likelihood(np.zeros((2, 2)), bad, 1.0)
    with pytest.raises(ValueError, match=r"judge_parzen: 1 of 2 .*validation points contain NaN"):
        judge_parzen(np.zeros((2, 2)), bad, np.zeros((2, 2)))


def test_samples_and_points_must_have_the_same_width():
    with pytest.raises(ValueError, match=r"vectors of 2 numbers and vectors of 3"):
        parzen_log_likelihood(np.zeros((2, 2)), np.zeros((2, 3)), 1.0)


def test_images_must_be_flat_and_there_must_be_some():
    with pytest.raises(ValueError, match=r"shape \(2, 28, 28\)"):
        parzen_log_likelihood(np.zeros((2, 28, 28)), np.zeros((2, 784)), 1.0)
    with pytest.raises(ValueError, match=r"0 .*samples"):
        parzen_log_likelihood(np.zeros((0, 3)), np.zeros((2, 3)), 1.0)
    with pytest.raises(ValueError, match=r"judge_parzen: 1 .*test points"):
        judge_parzen(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((1, 3)))
