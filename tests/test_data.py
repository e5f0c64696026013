"""Data: drawn digits, mixtures, ranges and batches are what they say, and depend on the seed only."""

import importlib
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import minigan as mg
from minigan.data import (
    Batches,
    Images,
    grid,
    rendered_digits,
    ring,
    scaled,
    wgan_gp_grid,
    wgan_gp_ring,
    wgan_gp_swiss_roll,
)
from minigan.data.cache import user_cache
from minigan.data.glyphs import FACES, middle_lines
from minigan.data.mixtures import SwissRoll

digits_module = importlib.import_module("minigan.data.drawn_digits")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A user whose cache is empty."""
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.fixture(scope="module")
def drawn() -> Images:
    return rendered_digits(3000, 1000, cache=False)


# ---------------------------------------------------------------------------------- drawn digits


def test_digits_have_the_shapes_of_mnist(drawn):
    assert [a.shape for a in drawn] == [(3000, 28, 28), (3000,), (1000, 28, 28), (1000,)]
    assert all(a.dtype == np.uint8 for a in drawn)


def test_the_same_seed_draws_the_same_digits():
    one, same, other = (rendered_digits(50, 50, seed, cache=False) for seed in (3, 3, 4))
    assert [a.tobytes() for a in one] == [a.tobytes() for a in same]
    assert all(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True))
    assert one.images.tobytes() != one.test_images.tobytes()


def test_more_digits_begin_with_the_same_ones(drawn):
    few = rendered_digits(1234, 0, cache=False)
    assert np.array_equal(few.images, drawn.images[:1234])
    assert np.array_equal(few.labels, drawn.labels[:1234])
    assert few.test_images.shape == (0, 28, 28)


def test_every_digit_is_as_likely_as_the_others(drawn):
    counts = np.bincount(drawn.labels, minlength=10)
    assert len(counts) == 10
    assert ((counts - 300) ** 2 / 300).sum() < 27.9  # chi squared, 9 degrees of freedom: p = 0.001


def test_digits_look_like_mnist(drawn):
    """White on black, 20 pixels large, the centre of mass in the middle. The figures are MNIST's."""
    ink = drawn.images / 255
    assert abs(ink.mean() - 0.131) < 0.01 and abs(ink.std() - 0.309) < 0.015
    assert ((ink.max(axis=(1, 2)) > 0.8).mean() > 0.99) and abs((ink == 0).mean() - 0.81) < 0.03
    rows, columns = (ink > 0.5).any(axis=2).sum(axis=1), (ink > 0.5).any(axis=1).sum(axis=1)
    assert abs(rows.mean() - 19.6) < 1 and abs(columns.mean() - 14.8) < 1
    at = np.arange(28) - 14
    weight = ink.sum(axis=(1, 2))
    middle = np.stack([(ink.sum(axis=1) @ at) / weight, (ink.sum(axis=2) @ at) / weight])
    assert np.abs(middle.mean(axis=1)).max() < 0.1 and np.percentile(np.abs(middle), 99) < 0.51
    assert (ink[:, [0, -1]].max(axis=(1, 2)) > 0.5).mean() < 0.05


def test_no_two_digits_are_alike(drawn):
    assert len({image.tobytes() for image in [*drawn.images, *drawn.test_images]}) == 4000


def test_labels_say_what_is_drawn(drawn):
    """The nearest of 3,000 others has the same label nearly always."""
    train, test = (x.reshape(len(x), 784) / 255.0 for x in (drawn.images, drawn.test_images[:300]))
    distance = (train**2).sum(axis=1) - 2 * test @ train.T
    right = drawn.labels[distance.argmin(axis=1)] == drawn.test_labels[:300]
    assert right.mean() > 0.9


HOLES = (1, 0, 0, 0, 1, 0, 1, 0, 2, 1)


@pytest.mark.parametrize("face", range(len(FACES)), ids=FACES)
def test_a_thinned_digit_hangs_together_and_keeps_its_holes(face):
    lines = middle_lines()
    for digit in range(10):
        line = lines.distance[10 * face + digit] == 0
        _, pieces = ndimage.label(line, np.ones((3, 3)))
        _, outside = ndimage.label(~line)  # four neighbours: a diagonal line is tight
        assert (pieces, outside - 1) == (1, HOLES[digit]), digit
        assert 40 < line.sum() < 220  # a line, not an area
        extent = np.ptp(lines.points[10 * face + digit], axis=1).max()
        assert 1.4 < extent <= 2


def test_digits_are_drawn_once(monkeypatch):
    first = rendered_digits(30, 10, seed=1)
    monkeypatch.setattr(digits_module, "_draw", None)
    again = rendered_digits(30, 10, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(TypeError):  # another seed, another file: it has to draw
        rendered_digits(30, 10, seed=2)


def break_off(path):
    path.write_bytes(path.read_bytes()[:2000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)


def swap(path):
    np.savez(path, *[np.zeros(3, "u1")] * 4)


@pytest.mark.parametrize("damage", [break_off, flip, swap, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_drawn_again(damage):
    first = rendered_digits(30, 10)
    (path,) = (user_cache() / "digits").iterdir()
    damage(path)
    said = []
    again = rendered_digits(30, 10, log=said.append)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(said) == 1 and str(path) in said[0] and "\n" not in said[0]
    rendered_digits(30, 10, log=pytest.fail)  # and the cache is mended


def test_an_unwritable_cache_is_a_warning(tmp_path):
    (tmp_path / "home").write_bytes(b"a file where the cache's folder should be")
    with pytest.warns(UserWarning, match="cannot be written"):
        images = rendered_digits(30, 10)
    assert np.array_equal(images.images, rendered_digits(30, 10, cache=False).images)


@pytest.mark.parametrize(("count", "test"), [(0, 10), (10, -1)])
def test_no_digits_are_refused(count, test):
    with pytest.raises(ValueError, match="rendered_digits"):
        rendered_digits(count, test)


# --------------------------------------------------------------------------------------- mixtures


def test_ring_has_the_published_centres():
    mixture = ring()
    expected = [[np.cos(2 * np.pi * k / 8), np.sin(2 * np.pi * k / 8)] for k in range(8)]
    assert np.allclose(mixture.centres, expected, atol=1e-15) and mixture.sigma == 0.01
    distance = np.linalg.norm(mixture.centres[:, None] - mixture.centres, axis=2)
    assert np.count_nonzero(distance < 0.1) == 8  # no mode is there twice


def test_grid_has_the_published_centres():
    mixture = grid()
    expected = {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert {tuple(c) for c in mixture.centres.tolist()} == expected and len(mixture.centres) == 25
    assert mixture.sigma == 0.05


def test_the_toys_of_wgan_gp():
    eight = wgan_gp_ring()
    assert np.allclose(np.linalg.norm(eight.centres, axis=1), 2 / 1.414) and len(eight.centres) == 8
    assert eight.sigma == 0.02 / 1.414
    many = wgan_gp_grid()
    assert np.allclose(np.unique(many.centres), np.array([-4, -2, 0, 2, 4]) / 2.828)
    assert len(many.centres) == 25 and many.sigma == 0.05 / 2.828
    roll = wgan_gp_swiss_roll()
    assert (roll.noise, roll.scale) == (0.25, 7.5)


@pytest.mark.parametrize("make", [ring, grid, wgan_gp_ring, wgan_gp_grid])
def test_samples_lie_around_the_centres(make):
    mixture, count = make(), 20_000
    x = mixture.sample(count, np.random.default_rng(5))
    assert x.shape == (count, 2) and x.dtype == np.float32
    distance = np.linalg.norm(x[:, None] - mixture.centres, axis=2)
    k, away = distance.argmin(axis=1), distance.min(axis=1)
    per_mode = count / len(mixture.centres)
    assert np.abs(np.bincount(k) - per_mode).max() < 5 * per_mode**0.5
    assert abs((away**2).mean() / (2 * mixture.sigma**2) - 1) < 0.05  # σ² along each of two axes
    inside = (away < 3 * mixture.sigma).mean()
    assert abs(inside - (1 - np.exp(-4.5))) < 0.005


def test_the_swiss_roll_is_a_spiral():
    x = SwissRoll(0, 1).sample(1000, np.random.default_rng(0)).astype("f8")
    t = np.linalg.norm(x, axis=1)
    assert 1.5 * np.pi <= t.min() < 5 and 14 < t.max() <= 4.5 * np.pi
    assert np.allclose(x, np.stack([t * np.cos(t), t * np.sin(t)], axis=1), atol=1e-4)
    noisy = SwissRoll(0.25, 7.5).sample(1000, np.random.default_rng(0)) * 7.5 - x
    assert noisy.dtype == np.float64 and abs(noisy.std() - 0.25) < 0.02
    assert wgan_gp_swiss_roll().sample(3, np.random.default_rng(0)).dtype == np.float32


@pytest.mark.parametrize("make", [ring, wgan_gp_swiss_roll])
def test_samples_depend_on_the_generator_only(make):
    one, same, other = (make().sample(9, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


# ------------------------------------------------------------------------------------------ range


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (-2.5, 0.5)])
def test_scaled_goes_from_low_to_high(low, high, backend):
    x = np.arange(256, dtype="u1").reshape(4, 64)
    before = x.copy()
    y = scaled(mg.backend.get(backend).from_numpy(x), low, high)
    assert y.dtype == np.float32 and mg.backend.home_of(y).name == backend
    y = mg.backend.to_numpy(y)
    assert y.min() == np.float32(low) and y.max() == np.float32(high)
    assert np.allclose(y, low + x.astype("f8") * (high - low) / 255, atol=1e-6)
    assert np.array_equal(x, before)


def test_what_is_scaled_already_is_not_scaled_again():
    y = scaled(np.zeros((2, 3), "u1"))
    with pytest.raises(TypeError, match="float32"):
        scaled(y)
    with pytest.raises(TypeError, match="list"):
        scaled([0, 255])
    with pytest.raises(ValueError, match="low=1"):
        scaled(np.zeros(3, "u1"), 1, -1)


# ---------------------------------------------------------------------------------------- batches


@given(count=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_an_epoch_shows_each_row_once(count, size, seed, epoch):
    batches = Batches(np.arange(count), size, seed)
    steps = range(epoch * len(batches), (epoch + 1) * len(batches))
    shown = [batches.at(step) for step in steps]
    assert sorted(np.concatenate(shown)) == list(range(count))
    assert len(batches) == -(-count // size)
    sizes = [len(x) for x in shown]
    assert sizes == [len(x) for x in np.array_split(np.arange(count), len(batches))]
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1


def test_a_lonely_row_is_rare():
    """Batch normalisation needs two rows. Only in batches of two can one be left over."""
    for count in range(2, 80):
        for size in range(2, 90):
            batches = Batches(np.arange(count), size, 0)
            smallest = min(len(batches.at(step)) for step in (0, len(batches) - 1))
            assert smallest > 1 or (size == 2 and count % 2), (count, size)


def test_consecutive_batches_and_epochs_differ():
    batches = Batches(np.arange(1000), 100, 0)
    shown = [batches.at(step).tolist() for step in range(30)]
    assert len({tuple(rows) for rows in shown}) == 30
    firsts = [list(chain(*shown[10 * epoch : 10 * epoch + 10])) for epoch in range(3)]
    assert firsts[0] != firsts[1] != firsts[2] and firsts[0] != list(range(1000))


def test_a_batch_depends_on_the_seed_and_the_step_only():
    x = np.random.default_rng(0).normal(size=(50, 3))
    one, same, other = (Batches(x, 8, seed) for seed in (7, 7, 8))
    forward = [one.at(step).tobytes() for step in range(21)]
    backward = [same.at(step).tobytes() for step in reversed(range(21))]
    assert forward == backward[::-1]  # so a run can go on where it was interrupted
    assert forward != [other.at(step).tobytes() for step in range(21)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_batches_live_on_the_backend(dtype, backend):
    x = np.random.default_rng(0).integers(0, 256, (10, 2, 3)).astype(dtype)
    batches = Batches(x, 4, 0, backend)
    shown = [batches.at(step) for step in range(3)]
    for batch in shown:
        assert mg.backend.home_of(batch).name == backend and batch.dtype == dtype
    assert [len(batch) for batch in shown] == [4, 3, 3]
    rows = np.concatenate([mg.backend.to_numpy(batch) for batch in shown])
    assert sorted(rows.reshape(10, -1).tolist()) == sorted(x.reshape(10, -1).tolist())
    there = Batches(mg.backend.get(backend).from_numpy(x), 4, 0, backend)
    assert np.array_equal(mg.backend.to_numpy(there.at(5)), mg.backend.to_numpy(batches.at(5)))


def test_writing_into_a_batch_does_not_change_the_data(backend):
    x = np.arange(12.0).reshape(6, 2)
    batches = Batches(x, 6, 0, backend)
    before = mg.backend.to_numpy(batches.at(0)).copy()
    batch = batches.at(0)
    batch[...] = -1
    assert np.array_equal(mg.backend.to_numpy(batches.at(0)), before)
    assert x.tolist() == np.arange(12.0).reshape(6, 2).tolist()


def test_labels_stay_with_their_images(backend):
    images = np.arange(20, dtype="f4").reshape(10, 2)
    batches = Batches((images, np.arange(10)), 3, 0, backend)
    for step in range(8):
        x, y = map(mg.backend.to_numpy, batches.at(step))
        assert np.array_equal(x[:, 0], 2 * y)


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (np.zeros((0, 2)), 3, "0 rows"),
        (np.zeros((4, 2)), 0, "batches of 0"),
        ((np.zeros(4), np.zeros(5)), 2, "4 and 5 rows"),
        ((), 2, "no rows"),
        (np.float32(3), 2, "single number"),
    ],
)
def test_what_cannot_be_cut_into_batches_is_refused(data, size, words):
    with pytest.raises(ValueError, match=words):
        Batches(data, size, 0)


def test_batches_says_what_is_wrong():
    with pytest.raises(ValueError, match="step=-1"):
        Batches(np.arange(5), 2, 0).at(-1)
    with pytest.raises(TypeError):
        Batches(np.arange(5), 2.5, 0)
    elsewhere = mg.backend.get("strict").from_numpy(np.zeros(3))
    with pytest.raises(TypeError, match="'strict' where 'numpy'"):
        Batches(elsewhere, 2, 0)
