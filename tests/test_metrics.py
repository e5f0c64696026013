"""Scores of generated images: Fréchet's distance against closed forms, and a classifier that reads digits."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

import minigan as mg
from minigan import Tensor, io
from minigan.data import DataError, mnist
from minigan.metrics import (
    DigitClassifier,
    DigitReport,
    classifier,
    digit_classifier,
    digit_floor,
    frechet_distance,
    judge_digits,
    moments,
)
from minigan.metrics.classifier import cross_entropy
from minigan.tape import is_recording

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 8)


def covariance(rng, size, rank=None):
    a = rng.normal(size=(size, size if rank is None else rank))
    return a @ a.T


def rotation(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


# ------------------------------------------------------------------------------ Fréchet's distance


def test_distance_of_two_normal_distributions_on_a_line():
    d = frechet_distance([1.0], [[9.0]], [-1.0], [[25.0]])
    assert d == pytest.approx((1 - -1) ** 2 + (3 - 5) ** 2)


@given(seeds, sizes)
def test_distance_where_the_covariances_commute(seed, size):
    """C₁ = Q A Qᵀ, C₂ = Q B Qᵀ: then d² = |μ₁ - μ₂|² + Σ (√a - √b)², whether some are zero or not."""
    rng = np.random.default_rng(seed)
    a, b = rng.exponential(size=(2, size)) * rng.integers(0, 2, (2, size))
    m1, m2 = rng.normal(size=(2, size))
    expected = ((m1 - m2) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    q = rotation(rng, size)
    assert frechet_distance(m1, np.diag(a), m2, np.diag(b)) == pytest.approx(expected)
    assert frechet_distance(m1, (q * a) @ q.T, m2, (q * b) @ q.T) == pytest.approx(expected)


@given(seeds, sizes)
def test_distance_as_the_formula_says(seed, size):
    """SciPy's matrix root of C₁ C₂ takes another way to the same trace."""
    rng = np.random.default_rng(seed)
    m1, m2 = rng.normal(size=(2, size))
    c1, c2 = covariance(rng, size, size + 2), covariance(rng, size, size + 2)
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.trace(c1 + c2))


@given(seeds, sizes, st.integers(1, 8))
def test_distance_does_not_depend_on_order_rotation_or_place(seed, size, rank):
    rng = np.random.default_rng(seed)
    m1, m2, shift = rng.normal(size=(3, size))
    c1, c2 = covariance(rng, size, rank), covariance(rng, size, rank)
    q = rotation(rng, size)
    d = frechet_distance(m1, c1, m2, c2)
    assert d > 0
    assert frechet_distance(m2, c2, m1, c1) == pytest.approx(d)
    assert frechet_distance(q @ m1 + shift, q @ c1 @ q.T, q @ m2 + shift, q @ c2 @ q.T) == pytest.approx(d)
    assert frechet_distance(3 * m1, 9 * c1, 3 * m2, 9 * c2) == pytest.approx(9 * d)


@given(seeds, st.integers(2, 40), st.sampled_from(["float32", "float64"]))
def test_distance_of_equal_sets_is_zero(seed, count, dtype):
    """Also where there are fewer vectors than numbers in each, and where their sizes are very different."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(count, 20)) * 10.0 ** rng.integers(-6, 4, 20)).astype(dtype)
    mean, cov = moments(x)
    assert 0 <= frechet_distance(mean, cov, mean, cov) <= 1e-13 * np.trace(cov)
    again = moments(x[::-1])
    assert frechet_distance(mean, cov, *again) <= 1e-7 * np.trace(cov)


@given(seeds, st.integers(2, 12), sizes)
def test_moments(seed, count, size):
    x = np.random.default_rng(seed).normal(3, 2, (count, size))
    mean, cov = moments(x)
    assert np.allclose(mean, x.mean(axis=0), rtol=1e-12)
    assert cov.shape == (size, size)
    assert np.allclose(cov, np.cov(x, rowvar=False, ddof=1), rtol=1e-10, atol=1e-12)


def test_moments_are_computed_in_double_precision(rng):
    """In single precision a large mean would swallow the digits of the variance."""
    x = (1000 + rng.normal(size=(500, 3))).astype("f4")
    before = x.copy()
    mean, cov = moments(x)
    assert mean.dtype == cov.dtype == np.float64
    assert np.allclose(cov, np.cov(x.astype("f8"), rowvar=False), rtol=1e-12)
    assert np.array_equal(x, before)


def test_moments_of_arrays_of_any_backend(backend, rng):
    x = rng.normal(size=(9, 3))
    mean, cov = moments(Tensor(x, backend=backend))
    assert type(mean) is type(cov) is np.ndarray
    assert np.allclose(cov, moments(x)[1], rtol=1e-13)
    assert np.allclose(mean, moments(mg.backend.get(backend).from_numpy(x))[0], rtol=1e-13)


EYE = np.eye(2)
MISTAKES = {
    "one vector": (lambda: moments(np.ones((1, 4))), "1 vectors have no covariance"),
    "images": (lambda: moments(np.ones((5, 2, 2))), r"shape \(5, 2, 2\)"),
    "NaN": (lambda: moments(np.array([[1.0, np.nan], [0.0, 1.0], [np.inf, 1.0]])), "2 of 3 vectors"),
    "two kinds": (lambda: frechet_distance([0.0], [[1.0]], [0.0, 0.0], EYE), "1 entries, the second 2"),
    "variances": (lambda: frechet_distance([0.0, 0.0], EYE, [0.0, 0.0], [1.0, 1.0]), r"cov2 \(2,\)"),
    "NaN in cov": (lambda: frechet_distance([0.0, 0.0], EYE * np.nan, [0.0, 0.0], EYE), "cov1 contains NaN"),
    "not symmetric": (
        lambda: frechet_distance([0.0, 0.0], EYE, [0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]),
        "cov2 is not symmetric",
    ),
    "negative": (lambda: frechet_distance([0.0, 0.0], EYE, [0.0, 0.0], -EYE), "cov2 has the eigenvalue -1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_frechet_mistakes_are_named(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------ cross-entropy


def test_cross_entropy(backend, rng):
    """L = -mean log softmax, dL/dl = (softmax - 1 at the right class) / N."""
    values, labels = rng.normal(size=(5, 4)), np.array([3, 0, 0, 2, 1])
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    logits = Tensor(values, requires_grad=True, backend=backend)
    loss = cross_entropy(logits, labels)
    loss.backward()
    assert float(loss) == pytest.approx(-np.log(p[np.arange(5), labels]).mean())
    assert np.allclose(logits.grad.numpy(), (p - np.eye(4)[labels]) / 5, atol=1e-15)
    mg.gradcheck(lambda x: cross_entropy(x, labels), logits.detach())


def test_cross_entropy_of_extreme_logits():
    """The logarithm of a softmax would be -∞ here."""
    logits = Tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = cross_entropy(logits, np.array([1, 1]))
    loss.backward()
    assert float(loss) == 1e4
    assert np.array_equal(logits.grad.numpy(), [[0.5, -0.5], [0.0, 0.0]])


# ---------------------------------------------------------------------------------- the classifier


def bars(count, rng):
    """A stand-in for digits: class k is a bright bar at one of ten heights, of random length and place."""
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 40, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        left, right = rng.integers(2, 10), rng.integers(16, 26)
        top = 3 + 2 * label
        image[top : top + 2, left:right] += rng.integers(120, 210)
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    return (*bars(1000, rng), *bars(300, rng))


@pytest.fixture(scope="module")
def trained(data):
    return digit_classifier(data, cache=False, log=lambda line: None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def weights(network):
    return np.concatenate([array.ravel() for array in network.state_dict().values()])


def test_classifier_learns(data, trained):
    _, _, images, labels = data
    assert trained.accuracy > 0.95
    assert trained.accuracy == np.mean(trained.labels(images) == labels)
    assert np.isnan(DigitClassifier().accuracy)


def test_same_seed_same_classifier(data, trained):
    lines = []
    again = digit_classifier(data, cache=False, log=lines.append)
    assert np.array_equal(weights(again), weights(trained))
    assert "epoch 1 of" in lines[0]
    assert f"{again.accuracy:.2%}" in lines[-1]
    other = digit_classifier(data, cache=False, seed=1, log=lines.append)
    assert not np.allclose(weights(other), weights(trained))


def test_features_are_what_the_last_layer_reads(data, trained):
    images = data[2]
    features = trained.features(images)
    assert features.shape == (300, 64)
    assert features.dtype == np.float32
    assert features.min() == 0
    assert features.std(axis=0).max() > 0
    logits = features @ trained.head.weight.numpy().T + trained.head.bias.numpy()
    assert np.array_equal(logits.argmax(axis=1), trained.labels(images))


def test_images_come_in_many_shapes(data, trained):
    pixels = data[2][:7]
    images = pixels.astype("f4") / 127.5 - 1
    expected = trained.features(images)
    same = [pixels, images.reshape(7, 784), images[:, None], images.astype("f8"), Tensor(images[:, None])]
    for form in same:
        assert np.allclose(trained.features(form), expected, rtol=1e-5, atol=1e-5)
        assert trained.labels(form).shape == (7,)


def test_features_come_in_batches(data, trained):
    """An image's features do not depend on its neighbours."""
    images = data[0][:901]
    features = trained.features(images)
    assert features.shape == (901, 64)
    assert np.allclose(features[498:503], trained.features(images[498:503]), rtol=1e-4, atol=1e-4)
    assert trained.features(images[:0]).shape == (0, 64)
    assert trained.labels(images[:0]).shape == (0,)


def test_features_record_nothing(data, trained, monkeypatch):
    recording = []
    monkeypatch.setattr(trained.body[-1], "forward", lambda x: recording.append(is_recording()) or x)
    trained.features(data[2])
    trained.labels(data[2])
    assert recording == [False, False]
    assert trained(np.zeros((1, 1, 28, 28), "f4")).requires_grad


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((5, 32, 32)), r"shape \(5, 32, 32\)"),
        (np.zeros(784), r"shape \(784,\)"),
        (np.float64(0), r"shape \(\)"),
        (np.full((2, 784), 255.0), "from 0 to 255"),
        (np.full((2, 28, 28), -1, np.int64) * 3, "dtype int64"),
        (np.full((2, 784), np.nan), "nan"),
    ],
)
def test_images_that_are_none_are_refused(images, message):
    for method in (DigitClassifier().features, DigitClassifier().labels):
        with pytest.raises(ValueError, match=message):
            method(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, c, d: (a / 255, b, c, d), "train images are .*float64.*uint8"),
        (lambda a, b, c, d: (a.tolist(), b, c, d), "train images are list"),
        (lambda a, b, c, d: (a, b, c.reshape(-1, 784), d), "test images are .*784.*28, 28"),
        (lambda a, b, c, d: (a, b[1:], c, d), "train labels are .* for 1000 images"),
        (lambda a, b, c, d: (a, b, c, d / 2), "test labels are float64"),
        (lambda a, b, c, d: (a, b + 1, c, d), "from 1 to 10"),
        (lambda a, b, c, d: (a[:99], b[:99], c, d), "99 train images; it needs 100"),
        (lambda a, b, c, d: (a, b, c[:0], d[:0]), "0 test images"),
    ],
)
def test_training_data_that_does_not_fit_is_refused(data, change, message):
    with pytest.raises(ValueError, match=message):
        digit_classifier(change(*data), cache=False)


# ------------------------------------------------------------------------------- the classifier's file


def forbidden(*args):
    raise AssertionError("trained although its file was there")


def test_classifier_is_kept_in_a_file(data, trained, folder, monkeypatch):
    first = digit_classifier(data, log=lambda line: None)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(classifier, "_train", forbidden)
    lines = []
    second = digit_classifier(data, log=lines.append)
    assert np.array_equal(weights(first), weights(trained))
    assert np.array_equal(weights(second), weights(trained))
    assert second.accuracy == trained.accuracy
    assert len(lines) == 1
    few = (*data[:2], data[2][:50], data[3][:50])  # other test images: the same network, another accuracy
    assert digit_classifier(few, log=lines.append).accuracy == np.mean(trained.labels(few[2]) == few[3])


def test_other_data_or_seed_or_recipe_is_another_file(data, folder, monkeypatch):
    images, labels, *test = data
    monkeypatch.setattr(classifier, "_train", lambda *args: None)  # what is in the files does not matter here

    def files(*changed, seed=0):
        digit_classifier(changed, seed=seed, log=lambda line: None)
        return len(list(folder.iterdir()))

    assert files(images, labels, *test) == 1
    assert files(images.copy(), labels.tolist(), *test) == 1
    assert files(images, labels, *test, seed=1) == 2
    assert files(images[::-1], labels, *test) == 3
    assert files(images, labels[::-1], *test) == 4
    monkeypatch.setattr(classifier, "RECIPE", classifier.RECIPE + 1)
    assert files(images, labels, *test) == 5


def garbage(path, state):
    path.write_bytes(b"not an archive")


def half(path, state):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path, state):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(path, state):
    io.save(path, {**state, "key": "of another classifier"})


def nameless(path, state):
    io.save(path, {"weights": io.section(state, "weights")})


def other_layers(path, state):
    io.save(path, {"key": str(state["key"]), "weights": {"weight": np.ones(3)}})


def no_weights(path, state):
    io.save(path, {"key": str(state["key"])})


@pytest.mark.parametrize("spoil", [garbage, half, flipped, foreign, nameless, other_layers, no_weights])
def test_file_that_is_damaged_or_foreign_is_made_again(data, trained, folder, spoil):
    classifier._keep(classifier._key(*data[:2], seed=0), trained, pytest.fail)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    spoil(path, io.load(path))
    lines = []
    again = digit_classifier(data, log=lines.append)
    assert "trained again" in lines[0]
    assert np.array_equal(weights(again), weights(trained))
    assert path.read_bytes() == good


def test_folder_that_cannot_be_written_is_said_and_no_more(data, trained, folder):
    folder.write_text("a file where the folder should be")
    lines = []
    network = digit_classifier(data, log=lines.append)
    assert "cannot be kept" in lines[-1]
    assert not any("trained again" in line for line in lines)
    assert np.array_equal(weights(network), weights(trained))


def test_user_without_a_home_has_a_classifier_too(data, trained, monkeypatch):
    def homeless():
        raise FileNotFoundError("no folder for a cache")

    monkeypatch.setattr(classifier, "user_cache", homeless)
    lines = []
    assert np.array_equal(weights(digit_classifier(data, log=lines.append)), weights(trained))
    assert "no folder for a cache" in lines[-1]
    assert np.array_equal(weights(digit_classifier(data, cache=False, log=lines.append)), weights(trained))


def test_without_cache_no_file_is_touched(data, folder):
    digit_classifier(data, cache=False, log=lambda line: None)
    assert not folder.exists()


# -------------------------------------------------------------------------------- judging digits


def test_samples_that_are_the_reference_have_distance_zero(data, trained):
    images = data[2]
    report = judge_digits(images.reshape(-1, 784) / 127.5 - 1, trained, images)
    assert report.distance == pytest.approx(0, abs=1e-3)
    assert report.samples == 300
    assert report.floor is None
    assert np.allclose(report.shares, np.bincount(trained.labels(images), minlength=10) / 300)
    assert sum(report.shares) == pytest.approx(1)


def test_worse_samples_are_farther_away(data, trained, rng):
    """Real images, the same with a digit missing, the same under noise, and noise alone, in this order."""
    train, labels, test, _ = data
    floor = digit_floor(train, trained, test, 300)
    some = train[300:][labels[300:] != 9][:300]
    noise = rng.integers(0, 256, (300, 28, 28))
    samples = [some, train[:300] // 2 + (noise // 2).astype(np.uint8), noise.astype(np.uint8)]
    reports = [judge_digits(s, trained, test, floor) for s in samples]
    assert reports[0].shares[9] < 0.02
    assert 0 < floor < reports[0].distance < reports[1].distance < reports[2].distance
    assert all(report.floor == floor for report in reports)
    assert floor == judge_digits(train[:300], trained, test).distance


def test_floor_needs_images_enough(data, trained):
    for samples in (1, 1001):
        with pytest.raises(ValueError, match=f"samples={samples} of 1000"):
            digit_floor(data[0], trained, data[2], samples)


def test_report_is_readable():
    report = DigitReport(distance=174.26, shares=(0.05,) * 9 + (0.55,), samples=10_000, floor=5.4)
    lines = str(report).splitlines()
    assert "174.26" in lines[0]
    assert "10000 samples" in lines[0]
    assert "5.40" in lines[0]
    assert lines[1].split() == ["digit", *"0123456789"]
    assert lines[2].split() == ["share", "%", *["5.0"] * 9, "55.0"]
    assert len(lines[1]) == len(lines[2])
    collapsed = str(DigitReport(4000.0, (1.0,) + (0.0,) * 9, 10_000)).splitlines()
    assert collapsed[2].split() == ["share", "%", "100.0", *["0.0"] * 9]
    assert "real" not in str(DigitReport(1.0, (0.1,) * 10, 100))


# ---------------------------------------------------------------------------------- on real digits


@pytest.mark.mnist
def test_classifier_on_mnist():
    if not os.environ.get("MINIGAN_DATA"):
        pytest.skip("needs MNIST's four files in the folder that MINIGAN_DATA names")
    try:
        images = mnist(download=False)
    except DataError as error:
        pytest.skip(str(error))
    network = digit_classifier(images, cache=False)
    assert network.accuracy >= 0.985
    train, test = images.images, images.test_images
    floor = digit_floor(train, network, test)
    mean_digit = np.broadcast_to(test.mean(axis=0).astype(np.uint8), (1000, 28, 28))
    assert 0 < floor < 0.1 * judge_digits(mean_digit, network, test).distance
    assert max(np.abs(np.array(judge_digits(train[:10_000], network, test).shares) - 0.1)) < 0.02
