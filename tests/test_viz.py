"""Pictures: every pixel of a grid is where it should be, files are whole, and no number stops a drawing."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from minigan import viz

GAP, MAGENTA = 96, (255, 0, 255)
BLUE, ORANGE, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def count(picture, colour):
    return int((picture == np.array(colour)).all(axis=-1).sum())


# ------------------------------------------------------------------------------------------- grid


@given(st.data())
def test_every_image_is_at_its_place(data):
    n, h, w = (data.draw(st.integers(1, most), label) for most, label in ((12, "n"), (4, "h"), (4, "w")))
    channels = data.draw(st.sampled_from([1, 3]), "channels")
    columns, gap = data.draw(st.integers(1, 14), "columns"), data.draw(st.integers(0, 3), "gap")
    images = np.random.default_rng(0).integers(0, 256, (n, channels, h, w))

    picture = viz.grid(images, columns, low=0, high=255, gap=gap)
    assert picture.dtype == np.uint8
    rows = math.ceil(n / columns)
    size = (rows * h + (rows - 1) * gap, columns * w + (columns - 1) * gap)
    assert picture.shape == (size if channels == 1 else (*size, 3))

    rest = picture.copy().reshape(*size, channels)
    for i, image in enumerate(images):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        assert np.array_equal(rest[y : y + h, x : x + w], image.transpose(1, 2, 0))
        rest[y : y + h, x : x + w] = GAP
    assert (rest == GAP).all()


def test_black_white_and_what_lies_beyond():
    images = np.array([[[-1.0, 0.0, 1.0, -7.0, 7.0]]])
    assert viz.grid(images).tolist() == [[0, 128, 255, 0, 255]]
    assert viz.grid(images, low=-7, high=7).tolist() == [[109, 128, 146, 0, 255]]
    assert viz.grid(images * 1e300).tolist() == [[0, 128, 255, 0, 255]]


@pytest.mark.parametrize("shape", [(6, 16), (6, 4, 4), (6, 1, 4, 4)])
def test_grey_images_may_come_in_three_shapes(shape, rng):
    images = rng.uniform(-1, 1, (6, 4, 4))
    assert np.array_equal(viz.grid(images.reshape(shape)), viz.grid(images))
    assert viz.grid(images).ndim == 2


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (64, 8), (100, 10)])
def test_without_columns_it_is_a_square(n, columns):
    assert viz.grid(np.zeros((n, 2, 2)), gap=0).shape[1] == 2 * columns


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_striking(lost, rng):
    images = rng.uniform(-1, 1, (4, 3, 3))
    whole = viz.grid(images)
    images[2, 1, 1] = lost
    picture = viz.grid(images)
    assert picture.shape == (*whole.shape, 3)
    there = (picture == MAGENTA).all(axis=-1)
    assert np.argwhere(there).tolist() == [[3 + 2 + 1, 1]]
    assert np.array_equal(picture[~there], np.repeat(whole[~there][:, None], 3, axis=1))


def test_one_lost_channel_is_enough():
    images = np.zeros((1, 3, 2, 2))
    images[0, 1, 0, 1] = np.nan
    assert viz.grid(images).tolist() == [[[128] * 3, list(MAGENTA)], [[128] * 3, [128] * 3]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "?"])
def test_any_kind_of_number(dtype):
    images = np.array([[[0, 1], [1, 0]]], dtype)
    images.setflags(write=False)
    assert viz.grid(images, low=0).tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: viz.grid(np.zeros((28, 28))), ValueError, r"shape \(28, 28\).*image\[None\]"),
        (lambda: viz.grid(np.zeros((2, 8, 8, 3))), ValueError, r"\(2, 8, 8, 3\); they must .*\(N, 3, H, W\)"),
        (lambda: viz.grid(np.zeros(9)), ValueError, r"shape \(9,\)"),
        (lambda: viz.grid(np.zeros((0, 4, 4))), ValueError, "no pixels"),
        (lambda: viz.grid(np.zeros((2, 0))), ValueError, "no pixels"),
        (lambda: viz.grid(np.zeros((2, 2, 2), complex)), TypeError, "complex128"),
        (lambda: viz.grid(np.zeros((2, 2, 2)), columns=0), ValueError, "columns=0 must be 1 or more"),
        (lambda: viz.grid(np.zeros((2, 2, 2)), gap=-1), ValueError, "gap=-1"),
        (lambda: viz.grid(np.zeros((2, 2, 2)), low=1), ValueError, "low=1, .* less than high=1"),
        (lambda: viz.grid(np.zeros((2, 2, 2)), high=math.nan), ValueError, "high=nan"),
        (lambda: viz.save_png("a.png", np.zeros((2, 2))), ValueError, r"save_png: .*\(2, 2\) .* float64"),
        (lambda: viz.save_png("a.png", np.zeros((3, 2, 2), "u1")), ValueError, r"shape \(3, 2, 2\)"),
        (lambda: viz.save_png("a.png", np.zeros((0, 2), "u1")), ValueError, r"shape \(0, 2\)"),
        (lambda: viz.gif("a.gif", []), ValueError, "no frames"),
        (lambda: viz.gif("a.gif", [np.zeros(3)]), ValueError, r"gif: an array of shape \(3,\)"),
        (lambda: viz.gif("a.gif", frames(2), milliseconds=10), ValueError, "milliseconds=10"),
        (lambda: viz.gif("a.gif", frames(2), hold_last=0), ValueError, "hold_last=0"),
        (lambda: viz.gif("a.gif", frames(2), most=1), ValueError, "most=1"),
        (lambda: viz.gif("a.gif", [*frames(3), frames(1)[0][:2]]), ValueError, "0 and 3 .*: 5 x 4 and 5 x 2"),
        (lambda: plane(values=np.zeros(4)), ValueError, r"values of shape \(4,\)"),
        (lambda: plane(values=np.zeros((1, 4))), ValueError, r"values of shape \(1, 4\)"),
        (lambda: plane(real=np.zeros((2, 3))), ValueError, r"real of shape \(2, 3\)"),
        (lambda: plane(fake=np.zeros(2)), ValueError, r"fake of shape \(2,\)"),
        (lambda: plane(arrows=np.zeros((3, 2))), ValueError, r"arrows of shape \(3, 2\) for fakes of shape"),
        (lambda: plane(extent=(1, 0, 0, 1)), ValueError, r"extent=\(1, 0, 0, 1\)"),
        (lambda: plane(low=2), ValueError, "low=2 must be less than high=1"),
    ],
)  # fmt: skip
def test_mistakes_are_explained_and_leave_no_file(call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call()
    assert os.listdir() == []


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1)])
def test_a_png_comes_back(shape, rng, tmp_path):
    picture = rng.integers(0, 256, shape, np.uint8)
    viz.save_png(tmp_path / "a.png", picture)
    viz.save_png(str(tmp_path / "b.png"), np.asfortranarray(picture))
    assert np.array_equal(pixels_of(tmp_path / "a.png"), picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


def test_a_picture_takes_the_place_of_the_last_one(tmp_path):
    for value in (1, 2):
        viz.save_png(tmp_path / "a.png", np.full((2, 2), value, np.uint8))
    assert (pixels_of(tmp_path / "a.png") == 2).all()


def frames(n):
    """n pictures, each of another grey."""
    return [np.full((4, 5), i, np.uint8) for i in range(n)]


WRITERS = {
    "png": lambda path: viz.save_png(path, frames(1)[0]),
    "gif": lambda path: viz.gif(path, frames(3)),
    "curves": lambda path: viz.curves(path, [{"epoch": 1, "loss_d": 1.0}]),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("step", ["encode", "replace"])
def test_a_failure_leaves_the_old_file(write, step, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError(28, "No space left on device", "some name")

    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        patched.setattr(*((Image.Image, "save") if step == "encode" else (os, "replace")), fails)
        with pytest.raises(OSError, match="No space left"):
            write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["picture.png"]


def run(code, folder):
    environment = {**os.environ, "MPLCONFIGDIR": str(folder / "matplotlib")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    code = (
        "import os, numpy as np; from minigan import viz\n"
        "os.replace = lambda *_: os._exit(9)\n"
        "viz.save_png('a.png', np.zeros((2, 2), np.uint8))"
    )
    assert run(code, tmp_path).returncode == 9
    assert (tmp_path / "a.png").read_bytes() == b"old"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_where_nothing_can_be_written_the_error_is_one_line_and_names_the_file(write, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place, error in (
        (tmp_path / "no" / "a.png", FileNotFoundError),
        (tmp_path / "file" / "a.png", NotADirectoryError),
        (tmp_path, IsADirectoryError),
    ):
        with pytest.raises(error) as caught:
            write(place)
        assert str(caught.value).endswith(f": '{place}'")
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def test_the_file_has_the_usual_permissions(tmp_path):
    viz.save_png(tmp_path / "a.png", frames(1)[0])
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


# -------------------------------------------------------------------------------------------- gif


def film(path):
    """[(pixels in colour, milliseconds)] of a GIF."""
    with Image.open(path) as image:
        assert image.info["loop"] == 0, "it should run for ever"
        shown = ImageSequence.Iterator(image)
        return [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in shown]


def test_an_animation_shows_every_grey_frame_as_it_is(rng, tmp_path):
    given = [rng.integers(0, 256, (9, 8), np.uint8) for _ in range(4)]
    given.append(given[-1].copy())
    given[-1][2:4, 5] = 0  # a frame that differs in few places
    viz.gif(tmp_path / "a.gif", given, milliseconds=80, hold_last=1000)
    shown = film(tmp_path / "a.gif")
    assert [ms for _, ms in shown] == [80] * 4 + [1000]
    for (colours, _), grey in zip(shown, given, strict=True):
        assert (colours == grey[..., None]).all()


def test_frames_may_be_files(tmp_path):
    for i, picture in enumerate(frames(3)):
        viz.save_png(tmp_path / f"{i}.png", picture)
    viz.gif(tmp_path / "a.gif", [tmp_path / "0.png", str(tmp_path / "1.png"), tmp_path / "2.png"])
    viz.gif(tmp_path / "b.gif", iter(frames(3)))
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_colour_among_grey(tmp_path):
    images = np.linspace(-1, 1, 64).reshape(4, 4, 4)
    lost = images.copy()
    lost[1] = np.nan
    viz.gif(tmp_path / "a.gif", [viz.grid(images), viz.grid(lost), viz.grid(-images)])
    grey, magenta, _ = (picture for picture, _ in film(tmp_path / "a.gif"))
    assert (grey == viz.grid(images)[..., None]).all()
    assert count(magenta, MAGENTA) == 16


@pytest.mark.parametrize(("n", "most", "kept"), [(1, 100, 1), (100, 100, 100), (250, 100, 100), (7, 3, 3)])
def test_of_many_frames_some_are_left_out(n, most, kept, tmp_path):
    viz.gif(tmp_path / "a.gif", frames(n), most=most, hold_last=500)
    shown = film(tmp_path / "a.gif")
    numbers = [int(picture[0, 0, 0]) for picture, _ in shown]
    assert len(numbers) == kept
    assert (numbers[0], numbers[-1], shown[-1][1]) == (0, n - 1, 500)
    gaps = np.diff(numbers)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_frames_that_do_not_change_last_as_long(tmp_path):
    viz.gif(tmp_path / "a.gif", [frames(1)[0]] * 3, milliseconds=100, hold_last=400)
    assert sum(ms for _, ms in film(tmp_path / "a.gif")) == 600


def test_only_the_frames_that_are_shown_are_read(tmp_path):
    viz.save_png(tmp_path / "a.png", frames(1)[0])
    viz.gif(tmp_path / "a.gif", [tmp_path / "a.png", tmp_path / "not there.png", tmp_path / "a.png"], most=2)
    with pytest.raises(FileNotFoundError, match=r"not there\.png"):
        viz.gif(tmp_path / "a.gif", [tmp_path / "not there.png"])


# ----------------------------------------------------------------------------------------- curves


def record(epoch, **values):
    usual = {"loss_d": 1.2, "loss_g": 0.9, "d_real": 0.6, "d_fake_before": 0.45, "d_fake_after": 0.4}
    return {"epoch": epoch, "step": 100 * epoch, "seconds": 0.5, **usual, **values}


@pytest.fixture
def drawn(tmp_path):
    """The two panels that `curves` draws, as pictures."""

    def draw(records, **options):
        viz.curves(tmp_path / "curves.png", records, **options)
        picture = pixels_of(tmp_path / "curves.png")
        assert picture.shape == (600, 750, 3)
        return picture[:290], picture[290:]

    return draw


@pytest.mark.parametrize("n", [1, 2, 300])
def test_all_curves_are_there(n, drawn):
    upper, lower = drawn(record(i + 1) for i in range(n))
    upper, lower = upper[40:], lower[40:]  # without the legends
    assert min(count(upper, BLUE), count(upper, ORANGE)) >= 5
    assert min(count(lower, BLUE), count(lower, ORANGE), count(lower, GREEN)) >= 5
    assert count(upper, GREEN) == 0


def test_a_curve_goes_up_where_the_numbers_do(drawn):
    upper, _ = drawn([{"epoch": i, "loss_g": i} for i in range(100)])
    y, x = np.nonzero((upper[40:] == ORANGE).all(axis=-1))
    assert np.corrcoef(x, y)[0, 1] < -0.99


def test_what_is_missing_is_not_drawn(drawn):
    upper, lower = drawn([{"epoch": 1, "loss_d": 1.0}, {"epoch": 2, "loss_d": 2.0, "loss_g": None}])
    assert count(upper, BLUE) > 20 and count(upper, ORANGE) == 0
    assert count(lower, BLUE) == 0


def test_the_equilibrium_is_drawn_if_asked_for(drawn):
    upper, _ = drawn([record(1), record(2)])
    asked, _ = drawn([record(1), record(2)], equilibrium=(1.386, 0.693))
    assert count(asked, BLUE) > count(upper, BLUE) + 100
    assert count(asked, ORANGE) > count(upper, ORANGE) + 100


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, 1e300])
def test_a_number_that_is_lost_leaves_a_cross(value, drawn):
    records = [record(i, loss_g=0.9 + 0.1 * (i == 2)) for i in range(1, 6)]
    at_the_edge = slice(25, 60)
    without, _ = drawn([{**r, "loss_g": None} if r["epoch"] == 3 else r for r in records])
    upper, _ = drawn([{**r, "loss_g": value} if r["epoch"] == 3 else r for r in records])
    assert count(upper[at_the_edge], ORANGE) > count(without[at_the_edge], ORANGE)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{}],
        [{}, record(2)],
        [{"epoch": "one", "loss_d": "high", "loss_g": [1], "d_real": {}, "d_fake_after": 1j}],
        [record(math.nan), record(math.inf)],
        [record(10**400), record(3)],
        [record(2), record(1), record(1)],
        [record(1, loss_d=math.nan, loss_g=math.inf, d_real=-math.inf)],
        [record(i, loss_d=math.nan, d_real=math.nan) for i in range(100)],
        [record(1, loss_d=3e38), record(2, loss_d=-3e38)],
        [record(1, loss_d=5e-324), record(2, loss_d=-5e-324)],
        [record(True, loss_d=False)],
        [record(np.int64(i), loss_d=np.float32(i), loss_g=np.float64("nan")) for i in range(3)],
        [record(i, d_real=-40.0, d_fake_before=90.0) for i in range(3)],
    ],
)
def test_no_record_stops_the_drawing(records, drawn):
    drawn(records)
    drawn(records, equilibrium=(1.386, 0.693))


def test_where_records_share_an_epoch_their_steps_count(drawn):
    steps = [dict(record(1), step=step, loss_d=step / 10) for step in (10, 20, 50)]
    shared = drawn(steps)
    only_steps = drawn([{k: v for k, v in r.items() if k != "epoch"} for r in steps])
    without = drawn([{k: v for k, v in r.items() if k not in ("epoch", "step")} for r in steps])
    assert all(map(np.array_equal, shared, only_steps))
    assert not np.array_equal(shared[0], without[0])


def test_the_same_records_make_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        viz.curves(tmp_path / name, [record(1), record(2)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# -------------------------------------------------------------------------------------- landscape


def plane(real=((0.2, 0.8),), fake=((0.7, 0.3),), values=((0, 1), (0, 1)), extent=(0, 1, 0, 1), **options):
    return viz.landscape(real, fake, np.asarray(values, float), extent, **options)


def inside(picture):
    """The part of a landscape where the points are: the box left of the bar of colours, without its frame."""
    dark = (picture == 0).all(axis=-1)
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(dark.sum(axis=1 - i) > 150) for i in (0, 1))
    upright = np.flatnonzero(dark[top:bottom].mean(axis=0) > 0.9)
    assert upright[0] == left
    right = upright[upright > left + 50][0]
    return picture[top + 2 : bottom - 1, left + 2 : right - 1]


def bluish(pixels):
    return pixels[..., 2].astype(int) - pixels[..., 0]


def test_low_is_orange_and_high_is_blue_from_the_lower_left_corner():
    ramp = np.linspace(0, 1, 20)
    box = inside(plane(values=np.outer(ramp, ramp), real=np.zeros((0, 2)), fake=np.zeros((0, 2))))
    h, w = box.shape[:2]
    corner = bluish(box)[h - h // 5 :, : w // 5], bluish(box)[: h // 5, w - w // 5 :]
    assert corner[0].max() < -50 and corner[1].min() > 20
    box = inside(plane(values=np.tile(ramp, (7, 1))))
    assert bluish(box)[5, 20] < -50 < 50 < bluish(box)[-5, -20]


def test_what_lies_beyond_is_clipped_and_what_is_not_finite_is_grey():
    ramp = np.outer(np.ones(12), np.linspace(-3, 4, 12))
    ramp[:6, :6] = np.nan
    box = inside(plane(values=ramp, real=np.zeros((0, 2)), fake=np.zeros((0, 2))))
    assert np.ptp(box[-5, 5].astype(int)) == 0, "lost values: grey"
    assert bluish(box)[5, 5] < -50 and bluish(box)[5, -5] > 50
    assert count(box, (85, 85, 85)) > 100, "D's decision boundary"


def test_points_are_where_they_should_be():
    box = inside(plane(real=[[0.25, 0.75]], fake=[[1.5, -0.25]], extent=(0, 2, -1, 1)))
    h, w = box.shape[:2]
    for colour, (x, y) in ((BLUE, (0.25, 0.75)), (ORANGE, (1.5, -0.25))):
        rows, columns = np.nonzero((box == colour).all(axis=-1))
        assert columns.mean() / w == pytest.approx(x / 2, abs=0.01)
        assert rows.mean() / h == pytest.approx((1 - y) / 2, abs=0.01)


@pytest.mark.parametrize("extent", [(0, 1, 0, 1), (-2, 2, -1, 1), (0, 1, 5, 8)])
def test_both_axes_have_the_same_scale(extent):
    left, right, bottom, top = extent
    h, w = inside(plane(extent=extent)).shape[:2]
    assert (right - left) / w == pytest.approx((top - bottom) / h, rel=0.02)


def test_arrows_begin_at_the_fakes_and_are_as_long_as_they_say():
    still = inside(plane(fake=[[0.5, 0.5]], values=np.ones((2, 2)), arrows=[[0.0, 0.0]]))
    moving = inside(plane(fake=[[0.5, 0.5]], values=np.ones((2, 2)), arrows=[[0.3, -0.2]]))
    h, w = still.shape[:2]
    rows, columns = np.nonzero((still != moving).any(axis=-1))
    assert columns.max() / w == pytest.approx(0.8, abs=0.015)
    assert rows.max() / h == pytest.approx(0.7, abs=0.015)
    assert columns.min() / w > 0.47 and rows.min() / h > 0.47


def test_pictures_of_one_plane_can_be_frames(rng, tmp_path):
    pictures = [
        plane(values=rng.uniform(0, 1, (5, 6)), title=f"step {n}", arrows=[[0.1, 0.1 * n]]) for n in (1, 1000)
    ]
    viz.gif(tmp_path / "a.gif", pictures)
    assert len(film(tmp_path / "a.gif")) == 2
    assert inside(pictures[0]).shape == inside(pictures[1]).shape


@pytest.mark.parametrize(
    "options",
    [
        {"values": np.full((3, 3), np.nan)},
        {"values": [[np.nan, 1.0, 0.0], [np.inf, -np.inf, 0.5]]},
        {"values": np.full((3, 3), 0.5)},
        {"values": [[-1e300, 1e300], [0.0, 0.0]]},
        {"values": [[-30.0, 5.0], [0.0, 2.0]], "low": -4.0, "high": 4.0},
        {"fake": [[np.nan, 0.5], [0.5, np.inf], [9.0, 9.0]], "arrows": [[np.nan, 1], [1, np.inf], [1, 1]]},
        {"real": [[1e300, -1e300]], "fake": [[1e300, 0.5]], "arrows": [[-1e300, 1.0]]},
        {"real": np.zeros((0, 2)), "fake": np.zeros((0, 2)), "arrows": np.zeros((0, 2))},
        {"extent": (0, 1000, 0, 1)},
    ],
)
def test_no_number_stops_the_drawing(options):
    picture = plane(**options)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


# ---------------------------------------------------------------------------------- what it leaves


def test_importing_it_loads_neither_matplotlib_nor_pillow(tmp_path):
    loaded = run("import sys, minigan.viz; print(*sys.modules)", tmp_path).stdout.split()
    assert "minigan.viz" in loaded
    assert not {"matplotlib", "PIL"} & set(loaded)


def test_drawing_needs_no_window_and_changes_no_settings(tmp_path):
    code = (
        "import sys, matplotlib, numpy as np; from minigan import viz\n"
        "before = matplotlib.rcParams.copy()\n"
        "viz.curves('a.png', [{'epoch': 1, 'loss_d': 1.0}])\n"
        "viz.landscape([[0, 0]], [[1, 1]], np.eye(3), (-1, 1, -1, 1))\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams.copy() == before)"
    )
    done = run(code, tmp_path)
    assert done.stdout.split() == ["False", "True"], done.stderr
