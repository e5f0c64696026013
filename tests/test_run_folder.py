"""The folder of a run: what is in it, who may write there, and what happens to it when something is wrong."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from small_runs import (
    BATCH,
    NOISE,
    PIXELS,
    all_bytes,
    differences,
    images,
    mlp,
    press,
    small_game,
    small_trainer,
    what_is_left,
)

from minigan import io, nn, viz
from minigan.gan import BEGAN, LeastSquares, Unrolled, loss
from minigan.optim import SGD, Adam, schedules
from minigan.training import Interrupted, RunError, command_line, read_config
from minigan.training.checkpoint import write_checkpoint
from minigan.training.run_folder import RunFolder, free_folder


@pytest.fixture
def in_haste(monkeypatch):
    """What takes long in a short run: curves that nobody looks at, and waiting for the disk."""
    monkeypatch.setattr(viz, "curves", lambda path, *args, **options: Path(path).write_bytes(b""))
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def stopped(tmp_path, in_haste):
    """The folder of a run that was interrupted in step 7 of 15."""
    return begun(tmp_path / "run")


def begun(folder):
    trainer = small_trainer(folder, save_every=0)
    press(trainer, 7)
    with pytest.raises(Interrupted):
        trainer.run(3)
    return folder


def refused(folder, pattern, game=None, data=None, **settings):
    """The run does not go on: one line says why, nothing has changed, and the folder is free again."""
    before = all_bytes(folder)
    with pytest.raises(RunError, match=pattern) as error:
        small_trainer(folder, game, data, resume=True, **settings)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    assert all_bytes(folder) == before
    RunFolder(folder, json.loads((folder / "config.json").read_text()), resume=True).close()


# ------------------------------------------------------------------------------- what there is


def test_what_a_run_leaves_behind(tmp_path):
    small_trainer(tmp_path / "new" / "run").run(2)
    folder = tmp_path / "new" / "run"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name[0] != "."} == {
        "config.json",
        "metrics.jsonl",
        "samples",
        *(f"samples/epoch_{epoch:04d}.png" for epoch in range(3)),
        "curves.png",
        "checkpoint.npz",
        "checkpoint.previous.npz",
        "progress.gif",
    }
    assert [path.name for path in folder.rglob(".*")] == [".minigan.lock"]
    for path in folder.glob("samples/*.png"):
        with Image.open(path) as picture:  # four images of 2 x 2 pixels, with a gap
            assert (picture.size, picture.mode) == ((6, 6), "L")
    with Image.open(folder / "curves.png") as picture:
        assert min(picture.size) > 300
    with Image.open(folder / "progress.gif") as film:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)]
    pictures = [np.asarray(Image.open(path)) for path in sorted(folder.glob("samples/*.png"))]
    assert np.array_equal(frames, pictures)


def test_samples_are_drawn_from_the_same_noise(tmp_path, in_haste):
    """A G that does not move draws the same picture each time."""
    game = small_game(optimizer=lambda params: SGD(params, 0.0))
    for buffers in game.g.modules():
        buffers.momentum = 0.0
    small_trainer(tmp_path, game).run(3)
    pictures = {path.read_bytes() for path in tmp_path.glob("samples/*.png")}
    assert len(pictures) == 1
    small_trainer(tmp_path / "b", seed=4).run(0)
    assert (tmp_path / "b/samples/epoch_0000.png").read_bytes() not in pictures


def test_a_picture_of_ones_own(tmp_path, in_haste):
    seen = []

    def picture(made):
        seen.append(made)
        return np.full((3, 5, 3), len(seen), "uint8")

    small_trainer(tmp_path, picture=picture, samples=7).run(1)
    assert [made.shape for made in seen] == [(7, PIXELS)] * 2
    with Image.open(tmp_path / "samples" / "epoch_0001.png") as shown:
        assert np.asarray(shown).tolist() == np.full((3, 5, 3), 2).tolist()


def test_config_says_all_that_the_numbers_depend_on(tmp_path, in_haste):
    game = small_game(
        LeastSquares(c=0.9),
        "gp",
        optimizer=lambda params: Adam(params, schedules.linear(1e-2, 100), (0.5, 0.9)),
        unrolled=Unrolled(2),
    )
    options = {
        "epochs": 3,
        "data_dir": Path("here"),
        "lr": np.float32(0.5),
        "odd": float("nan"),
        "list": (1, 2),
    }
    small_trainer(tmp_path, game, options=options, d_steps=2).folder.close()
    text = (tmp_path / "config.json").read_text()
    config = json.loads(text, parse_constant=pytest.fail)  # NaN is no JSON
    assert config["options"] == {"epochs": 3, "data_dir": "here", "lr": 0.5, "odd": None, "list": [1, 2]}
    settings = config["settings"]
    assert settings.items() > {
        ("seed", 3), ("batch", BATCH), ("noise", NOISE), ("noise_kind", "normal"), ("d_steps", 2),
        ("ema", 0.998), ("samples", 4), ("simultaneous", False), ("reuse_fakes", True),
    }  # fmt: skip
    assert loss(**settings["loss"]) == LeastSquares(c=0.9)
    assert settings["terms"][0]["name"] == "GradientPenalty" and settings["terms"][0]["weight"] == 10.0
    assert settings["unrolled"]["steps"] == 2
    adam = settings["optimizers"]["g_optimizer"]
    assert (adam["kind"], adam["betas"]) == ("Adam", [0.5, 0.9])
    assert adam["lr"] == {"step 0": 0.01, "step 100": 0.0, "step 10000": 0.0}
    assert "Linear(3, 6)" in config["networks"]["g"] and "Dropout(p=0.3)" in config["networks"]["d"]
    assert config["data"]["images"]["shape"] == [18, 4]
    assert config["data"]["images"]["dtype"] == "float32"
    assert config["backend"] == "numpy"
    assert config["versions"]["numpy"] == np.__version__ and config["minigan"]


def test_a_checkpoint_holds_the_whole_state_and_no_code(stopped):
    with np.load(stopped / "checkpoint.npz", allow_pickle=False) as file:
        state = dict(file)
    assert {name.partition(".")[0] for name in state} == {
        "format", "trainer", "g", "d", "g_optimizer", "d_optimizer", "ema",
    }  # fmt: skip
    assert {"g.1.running_var", "g_optimizer.m.0", "d_optimizer.v.3", "ema.1.running_mean"} < state.keys()
    assert (state["trainer.step"], state["trainer.count"], state["ema.updates"]) == (7, 2, 7)


def test_the_state_of_the_loss_is_saved(tmp_path, in_haste):
    game = small_game("began")
    small_trainer(tmp_path, game).run(2)
    assert isinstance(game.loss, BEGAN) and game.loss.k > 0
    assert io.load(tmp_path / "checkpoint.npz")["loss.k"] == game.loss.k


def test_metrics_that_are_cut_off_or_damaged_do_not_stop_a_run(stopped, tmp_path):
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(b'[1, 2]\n{"step": null}\n\xff\xfe\x00\n{"epoch": 9, "step": 99}\n{"epoch": 2, "st')
    small_trainer(stopped, resume=True).run(3)
    small_trainer(tmp_path / "whole").run(3)
    assert differences(what_is_left(stopped), what_is_left(tmp_path / "whole")) == []


def test_what_was_logged_after_the_checkpoint_is_logged_again(tmp_path, in_haste):
    trainer = small_trainer(tmp_path / "run", save_every=1e9)
    press(trainer, 12)
    press(trainer, 12)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(3)
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
    small_trainer(tmp_path / "run", resume=True).run(3)
    small_trainer(tmp_path / "whole").run(3)
    assert differences(what_is_left(tmp_path / "run"), what_is_left(tmp_path / "whole")) == []


# ----------------------------------------------------------------------------- checkpoint files


def test_the_checkpoint_before_is_kept(tmp_path):
    for number in range(4):
        write_checkpoint(tmp_path, {"number": number})
        assert io.load(tmp_path / "checkpoint.npz")["number"] == number
        if number:
            assert io.load(tmp_path / "checkpoint.previous.npz")["number"] == number - 1
    assert len(list(tmp_path.iterdir())) == 2


def test_on_a_file_system_without_links(tmp_path, monkeypatch):
    def link(*names):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    test_the_checkpoint_before_is_kept(tmp_path)


def test_a_run_that_was_killed_between_two_names(tmp_path):
    """The last checkpoint was the previous one already, and the new one was not yet there."""
    write_checkpoint(tmp_path, {"number": 0})
    os.link(tmp_path / "checkpoint.npz", tmp_path / "checkpoint.previous.npz")
    write_checkpoint(tmp_path, {"number": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.npz", "checkpoint.previous.npz"]
    assert io.load(tmp_path / "checkpoint.previous.npz")["number"] == 0


LITTER = [
    *(f".{name}.minigan-0123abcd" for name in (
        "checkpoint.npz", "checkpoint.previous.npz", "config.json", "metrics.jsonl", "curves.png",
        "progress.gif",
    )),
    "samples/.epoch_0001.png.minigan-0123abcd",
]  # fmt: skip
NOT_OURS = [
    "notes.txt", ".hidden", "best.npz", "new.checkpoint.npz", "spare.checkpoint.npz", ".lock",
    ".package.json.20250101", ".checkpoint.npz.20250101", ".package.json.minigan-0123abcd",
    ".config.json.minigan-backup01", "samples/mine.png", "samples/epoch_mine.png", "samples/epoch_12.png",
    "samples/.epoch_0001.png.20250101",
]  # fmt: skip


def test_what_a_killed_run_left_behind_is_tidied_up(stopped):
    for name in [*LITTER, *NOT_OURS]:
        (stopped / name).write_bytes(b"something")
    small_trainer(stopped, resume=True).run(3)
    assert [name for name in LITTER if (stopped / name).exists()] == []
    assert [name for name in NOT_OURS if (stopped / name).read_bytes() != b"something"] == []


def test_a_new_run_removes_nothing_from_a_folder(tmp_path, in_haste):
    (tmp_path / "samples").mkdir()
    for name in [*LITTER, *NOT_OURS]:
        (tmp_path / name).write_bytes(b"something")
    small_trainer(tmp_path).run(2)
    assert [name for name in [*LITTER, *NOT_OURS] if (tmp_path / name).read_bytes() != b"something"] == []


@pytest.mark.parametrize("name", ["curves.png", "progress.gif", "samples/epoch_0001.png"])
def test_a_new_run_overwrites_no_picture(name, tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(RunError, match=f"{name}: is there already, and would be overwritten; take an"):
        small_trainer(tmp_path)
    assert all_bytes(tmp_path) == {name: b"mine"}


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_a_checkpoint_that_is_a_link_to_another_disk(tmp_path):
    """What it points to is written, and the one before is a file of its own."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.npz").symlink_to(tmp_path / "disk/big.npz")
    for number in range(3):
        write_checkpoint(tmp_path / "run", {"number": number})
    assert io.load(tmp_path / "disk/big.npz")["number"] == 2
    assert io.load(tmp_path / "run/checkpoint.previous.npz")["number"] == 1
    assert sorted(all_bytes(tmp_path)) == [
        "disk/big.npz",
        "run/checkpoint.npz",
        "run/checkpoint.previous.npz",
    ]


def test_the_previous_checkpoint_is_as_good(stopped, tmp_path):
    (stopped / "checkpoint.npz").write_bytes(b"")
    refused(stopped, r"checkpoint\.npz: cannot be read: .*; .*checkpoint\.previous\.npz")
    os.replace(stopped / "checkpoint.previous.npz", stopped / "checkpoint.npz")
    trainer = small_trainer(stopped, resume=True)
    assert trainer.step == 6
    trainer.run(3)
    small_trainer(tmp_path / "whole").run(3)
    assert differences(what_is_left(stopped), what_is_left(tmp_path / "whole")) == []


def test_a_lost_checkpoint(stopped):
    os.remove(stopped / "checkpoint.npz")
    refused(stopped, r"checkpoint\.npz: there is no such file.*; .*checkpoint\.previous\.npz")
    os.remove(stopped / "checkpoint.previous.npz")
    refused(stopped, r"checkpoint\.npz: there is no such file")


def test_a_run_that_was_stopped_before_its_first_step(tmp_path, in_haste):
    """There is nothing yet to go on from, and nothing to lose: it begins."""
    small_trainer(tmp_path / "run").folder.close()
    small_trainer(tmp_path / "run", resume=True).run(1)
    small_trainer(tmp_path / "whole").run(1)
    assert differences(what_is_left(tmp_path / "run"), what_is_left(tmp_path / "whole")) == []


# --------------------------------------------------------------------------- damaged and foreign


def changed(**entries):
    """Checkpoints with other entries; None: without that one."""

    def change(path):
        state = io.load(path)
        for name, value in entries.items():
            name = name.replace("__", ".")
            if value is None:
                del state[name]
            else:
                state[name] = np.asarray(value)
        io.save(path, state)

    return change


class Payload:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("the-pickle-was-run",)


def pickled(path):
    path.write_bytes(pickle.dumps(Payload()))


def npz_with_pickle(path):
    state = io.load(path)
    with open(path, "wb") as file:
        np.savez(file, **{**state, "g.0.weight": np.array([Payload()], dtype=object)}, allow_pickle=True)


def a_header_that_lies(path):
    """An entry that says it has 4 PB of numbers."""
    header = repr({"descr": "<f4", "fortran_order": False, "shape": (10**15,)}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("g.more.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


def a_folder(path):
    path.unlink()
    path.mkdir()


def network_weights(path):
    io.save(path, mlp()[0].state_dict())


def cut(part):
    return lambda path: path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


FIT = "does not belong to this run"
DAMAGES = {
    "empty": (cut(0), "cannot be read"),
    "cut in the middle": (cut(0.5), "cannot be read"),
    "cut at the end": (cut(0.999), "cannot be read"),
    "text": (lambda path: path.write_text("hello\n" * 100), "cannot be read"),
    "a folder": (a_folder, "there is no such file"),
    "pickle": (pickled, "cannot be read"),
    "pickle inside": (npz_with_pickle, "cannot be read: it is not .*no array of .*, but of dtype object"),
    "a header that lies": (a_header_that_lies, "cannot be read"),
    "weights": (network_weights, "no checkpoint of a training run .*'format'"),
    "older": (changed(format=1), "its format is 1, and this version of minigan reads format 2"),
    "newer": (changed(format=3), "its format is 3"),
    "odd format": (changed(format=[1, 1]), r"its format is \[1 1\]"),
    "format in words": (changed(format="one"), "its format is one"),
    "a shape of G": (changed(g__0__weight=np.zeros((6, 4))), rf"{FIT}: .*shape: 0\.weight has \(6, 3\)"),
    "a shape of D": (changed(d__0__bias=np.zeros(7)), rf"{FIT}: .*wrong shape: 0\.bias"),
    "a moment": (changed(d_optimizer__m__1=np.zeros((2, 2))), rf"{FIT}: .*wrong shape: m\.1"),
    "an average": (changed(ema__0__bias=np.zeros(())), rf"{FIT}: .*0\.bias"),
    "words for numbers": (changed(g__0__weight=np.full((6, 3), "x")), f"{FIT}: .*not numbers"),
    "words for a moment": (changed(g_optimizer__v__0=np.full((6, 3), "x")), f"{FIT}: .*not numbers"),
    "words for an average": (changed(ema__0__weight=np.full((6, 3), "x")), FIT),
    "other optimiser": (changed(g_optimizer__kind="SGD"), f"{FIT}: .*the state of SGD"),
    "less": (changed(d__3__bias=None), rf"{FIT}: .*missing: 3\.bias"),
    "more": (changed(d__4__bias=0.0), rf"{FIT}: .*unexpected: 4\.bias"),
    "no trainer": (changed(trainer__step=None), FIT),
    "seed": (changed(trainer__seed=4), f"{FIT}: its seed is 4, not 3"),
    "seeds": (changed(trainer__seed=[3, 3]), FIT),
    "before the beginning": (changed(trainer__step=-3), FIT),
    "step inf": (changed(trainer__step=np.inf), FIT),
    "step nan": (changed(trainer__step=np.nan), FIT),
    "time nan": (changed(trainer__seconds=np.nan), FIT),
    "negative count": (changed(trainer__count=-1), FIT),
    "several sums": (changed(trainer__sums__loss_d=np.zeros(3)), FIT),
    "a sum in words": (changed(trainer__sums__loss_d="a"), FIT),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_a_checkpoint_that_cannot_be_right_is_refused(what, stopped, monkeypatch, tmp_path):
    damage, message = DAMAGES[what]
    monkeypatch.chdir(tmp_path)
    damage(stopped / "checkpoint.npz")
    refused(stopped, rf"checkpoint\.npz: .*{message}" if message != FIT else message)
    assert not Path("the-pickle-was-run").exists()


def test_the_payload_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Payload()))
    assert Path("the-pickle-was-run").exists()


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """The folder of a run, what its checkpoint is, and what is in there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viz, "curves", lambda path, *args, **options: None)
        folder = begun(tmp_path_factory.mktemp("flipped") / "run")
    return folder, (folder / "checkpoint.npz").read_bytes(), io.load(folder / "checkpoint.npz")


@given(st.data())
def test_a_flipped_bit_is_noticed_or_makes_no_difference(flipped, data):
    folder, content, right = flipped
    directory = content.index(b"PK\x01\x02")  # the last part of the file says where the others are
    part = data.draw(st.sampled_from([(0, directory), (directory, len(content))]), "part")
    place, bit = data.draw(st.integers(part[0], part[1] - 1), "byte"), data.draw(st.integers(0, 7), "bit")
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    (folder / "checkpoint.npz").write_bytes(changed)
    try:
        trainer = small_trainer(folder, resume=True)
    except RunError as error:
        assert "checkpoint.npz: " in str(error) and "\n" not in str(error)
    else:
        trainer.folder.close()
        assert trainer.step == 7
        for who, part in trainer.play.parts().items():
            for name, value in part.state_dict().items():
                assert np.array_equal(value, right[f"{who}.{name}"]), (who, name)


CONFIGS = {
    "gone": (None, r"config\.json: cannot be read: No such file or directory; is .* the folder of a run"),
    "cut": ('{"settings": {', r"config\.json: is no JSON"),
    "binary": ("\x00\x01", r"config\.json: is no JSON"),
    "deep": ("[" * 100_000, r"config\.json: is no JSON"),
    "list": ("[]", r"config\.json: is no description of a run"),
    "foreign": ('{"name": "my-app", "version": 2}', "the run began with other settings"),
    "odd options": ('{"options": 3}', r"config\.json: is no description of a run"),
    "odd settings": ('{"settings": [1]}', r"the run began with other settings: \[1\] then"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_description_that_cannot_be_right_is_refused(what, stopped):
    text, message = CONFIGS[what]
    path = stopped / "config.json"
    path.unlink() if text is None else path.write_text(text)
    before = all_bytes(stopped)
    with pytest.raises(RunError, match=message) as error:
        small_trainer(stopped, resume=True)
    assert "\n" not in str(error.value)
    assert all_bytes(stopped) == before


def test_a_description_by_an_older_version(stopped):
    """It lacks a setting whose value is None today."""
    config = json.loads((stopped / "config.json").read_text())
    del config["settings"]["unrolled"]
    (stopped / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="the run began with other settings, unrolled: unknown then, None now"):
        small_trainer(stopped, resume=True)


# ----------------------------------------------------------------- the same run, and one at a time


def wider():
    g, _ = mlp()
    rng = np.random.default_rng(0)
    return g, nn.Sequential(nn.Linear(PIXELS, 7, rng=rng), nn.LeakyReLU(0.2), nn.Linear(7, 1, rng=rng))


def with_another_pixel():
    data = images()
    data[17, 3] = np.nextafter(data[17, 3], np.float32(0))
    return data


OTHERS = {
    "network": (
        {"game": lambda: small_game(networks=wider())},
        "networks, d: .* then, .*Linear\\(4, 7\\).* now",
    ),
    "loss": ({"game": lambda: small_game("hinge")}, "settings, loss: .*non-saturating.* then, .*hinge.* now"),
    "option of the loss": (
        {"game": lambda: small_game(loss("non-saturating", real_target=0.9))},
        "settings, loss",
    ),
    "penalty": ({"game": lambda: small_game("non-saturating", "gp")}, "settings, terms"),
    "optimiser": (
        {"game": lambda: small_game(optimizer=lambda p: SGD(p, 0.1))},
        "settings, optimizers: .*SGD",
    ),
    "learning rate": (
        {"game": lambda: small_game(optimizer=lambda p: Adam(p, 0.1, (0.5, 0.999)))},
        "optimizers",
    ),
    "unrolled": ({"game": lambda: small_game(unrolled=Unrolled(1))}, "settings, unrolled: None then, .* now"),
    "new fakes": (
        {"game": lambda: small_game(reuse_fakes=False)},
        "settings, reuse_fakes: True then, False now",
    ),
    "separate": ({"game": lambda: small_game(separate=True)}, "settings, separate: None then, True now"),
    "a pixel": ({"data": with_another_pixel}, "data, images, crc32"),
    "fewer images": ({"data": lambda: images()[1:]}, r"data, images, shape: \[18, 4\] then, \[17, 4\] now"),
    "seed": ({"seed": 4}, "settings, seed: 3 then, 4 now"),
    "batch": ({"batch": 5}, "settings, batch: 4 then, 5 now"),
    "d_steps": ({"d_steps": 2}, "settings, d_steps: 1 then, 2 now"),
    "at once": ({"simultaneous": True}, "settings, simultaneous: False then, True now"),
    "average": ({"ema": 0.9}, "settings, ema: 0.998 then, 0.9 now"),
    "no average": ({"ema": 0}, "settings, ema"),
    "uniform": ({"noise_kind": "uniform"}, "settings, noise_kind: normal then, uniform now"),
    "samples": ({"samples": 5}, "settings, samples: 4 then, 5 now"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_does_not_go_on_with_this_one(what, stopped):
    settings, message = OTHERS[what]
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    refused(stopped, f": the run began with other .*{message}", **settings)


def test_another_backend_does_not_go_on_with_this_one(stopped):
    g, d = mlp()
    refused(
        stopped,
        "other backend: numpy then, strict now",
        small_game(networks=(g.to("strict"), d.to("strict"))),
    )


@pytest.mark.parametrize(
    "trace", ["config.json", "metrics.jsonl", "checkpoint.npz", "checkpoint.previous.npz"]
)
def test_a_new_run_does_not_begin_where_there_is_one(trace, tmp_path, in_haste):
    (tmp_path / trace).write_text("precious")
    with pytest.raises(
        RunError, match=r"holds a run already; go on with it \(--resume .*\), or take another"
    ):
        small_trainer(tmp_path)
    assert all_bytes(tmp_path) == {trace: b"precious"}


def test_other_files_are_left_alone(tmp_path, in_haste):
    (tmp_path / "notes.txt").write_text("mine")
    small_trainer(tmp_path).run(1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_one_run_at_a_time(stopped):
    trainer = small_trainer(stopped, resume=True)
    before = all_bytes(stopped)
    for resume in (True, False):
        with pytest.raises(RunError) as error:
            small_trainer(stopped, resume=resume)
        assert all_bytes(stopped) == before
        if resume:
            assert str(error.value) == f"{stopped}: another run is writing here (process {os.getpid()})"
    trainer.run(3)
    small_trainer(stopped, resume=True).folder.close()


def test_two_new_runs_at_the_same_moment(tmp_path, in_haste, monkeypatch):
    """Both find the folder empty; the one that comes second to the lock is refused."""
    first = small_trainer(tmp_path)
    monkeypatch.setattr("minigan.training.run_folder.TRACES", ())
    before = all_bytes(tmp_path)
    with pytest.raises(RunError, match="another run is writing here"):
        small_trainer(tmp_path)
    assert all_bytes(tmp_path) == before
    first.folder.close()


def test_a_trainer_that_goes_on_later_claims_the_folder_again(tmp_path, in_haste):
    trainer = small_trainer(tmp_path)
    trainer.run(1)
    other = small_trainer(tmp_path, resume=True)
    with pytest.raises(RunError, match="another run is writing here"):
        trainer.run(2)
    other.folder.close()
    trainer.run(2)


def test_a_run_that_failed_gives_its_folder_back(tmp_path, in_haste):
    trainer = small_trainer(tmp_path, picture=lambda made: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run(1)
    small_trainer(tmp_path, resume=True).run(1)


def test_a_folder_of_ones_own(tmp_path):
    for number in (1, 2, 3):
        folder = free_folder("x", tmp_path)
        assert folder == tmp_path / f"x-{number}"
        folder.mkdir()


# ------------------------------------------------------------------------------ no room, no right


@contextlib.contextmanager
def files_at_most(size):
    """No file can grow beyond so many bytes: to those who write it is as if the disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 60, 400, 1000, 5000])
def test_a_full_disk(size, stopped, tmp_path):
    """What there was stays as it was, and when there is room again the run goes on."""
    before = all_bytes(stopped)
    trainer = small_trainer(stopped, resume=True)
    with pytest.raises(RunError) as error, files_at_most(size):
        trainer.run(3)
    assert re.fullmatch(
        rf"{re.escape(str(stopped))}/\S+: cannot be written: File too large", str(error.value)
    )
    after = all_bytes(stopped)
    assert after["checkpoint.npz"] == before["checkpoint.npz"]
    assert [name for name in after if "/." in f"/{name}" or name.startswith(("new", "spare"))] == []
    small_trainer(stopped, resume=True).run(3)
    small_trainer(tmp_path / "whole").run(3)
    assert differences(what_is_left(stopped), what_is_left(tmp_path / "whole")) == []


@pytest.mark.parametrize("call", ["fsync", "replace", "rename-last"])
def test_an_error_while_a_checkpoint_is_written(call, stopped, monkeypatch, tmp_path):
    trainer = small_trainer(stopped, resume=True)
    before = all_bytes(stopped)
    name, real = call.partition("-")[0].replace("rename", "replace"), os.replace

    def broken(*args):
        if call == "rename-last" and Path(args[1]).name != "checkpoint.npz":
            return real(*args)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, broken)
        with pytest.raises(RunError, match=r"checkpoint\.npz: cannot be written: Input/output error"):
            trainer.save()
    after = all_bytes(stopped)
    assert after["checkpoint.npz"] == before["checkpoint.npz"]
    assert after.keys() == before.keys()
    trainer.run(3)
    small_trainer(tmp_path / "whole").run(3)
    assert differences(what_is_left(stopped), what_is_left(tmp_path / "whole")) == []


def test_no_room_for_a_new_run(tmp_path):
    with (
        pytest.raises(RunError, match=rf"{tmp_path}/run/config.json: cannot be written: File too large"),
        files_at_most(0),
    ):
        small_trainer(tmp_path / "run")
    small_trainer(tmp_path / "run").folder.close()  # there is no description yet, so it may begin


@pytest.mark.parametrize("below", ["", "run", "a/b/c"])
def test_a_file_where_the_folder_should_be(below, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RunError, match=r"file.*: cannot be written: (Not a directory|File exists)"):
        small_trainer(tmp_path / "file" / below)
    assert all_bytes(tmp_path) == {"file": b"precious"}
    with pytest.raises(RunError, match=r"config\.json: cannot be read: Not a directory"):
        small_trainer(tmp_path / "file" / below, resume=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(stopped):
    stopped.chmod(0o500)
    try:
        refused(stopped, "cannot be written: Permission denied")
    finally:
        stopped.chmod(0o700)


@pytest.mark.parametrize("name", ["metrics.jsonl", "curves.png", "samples/epoch_0002.png", "progress.gif"])
def test_a_folder_where_a_file_should_be(name, stopped):
    with contextlib.suppress(FileNotFoundError):
        (stopped / name).unlink()
    (stopped / name / "inside").mkdir(parents=True)
    with pytest.raises(RunError, match=rf"{name}: cannot be written: Is a directory") as error:
        small_trainer(stopped, resume=True).run(3)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------ TensorBoard


def test_without_tensorboardx_no_run_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(
        RunError, match=r'need the package tensorboardX: pip install "minigan\[tensorboard\]"'
    ):
        small_trainer(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def events_in(folder):
    """(tag, step, value) of all scalars, and the steps from which on earlier ones are to be forgotten."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, starts = [], []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            if event.HasField("session_log"):
                starts.append(event.step)
            content = content[16 + length :]
    return scalars, starts


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_events_for_tensorboard(tmp_path, in_haste):
    pytest.importorskip("tensorboardX")
    trainer = small_trainer(tmp_path, tensorboard=True)
    press(trainer, 12)
    with pytest.raises(Interrupted):
        trainer.run(3)
    scalars, starts = events_in(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {(tag, step): pytest.approx(value, rel=1e-6) for tag, step, value in scalars} == {
        (name, record["step"]): record[name]
        for record in records
        for name in ("seconds", "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after")
    }
    assert starts == []
    small_trainer(tmp_path, tensorboard=True, resume=True).run(3)
    scalars, starts = events_in(tmp_path)
    assert starts == [13]  # what a run that was killed wrote for steps from here on is hidden
    assert sorted(step for tag, step, _ in scalars if tag == "loss_g") == [5, 10, 15]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_events_of_a_trainer_that_goes_on(tmp_path, in_haste):
    pytest.importorskip("tensorboardX")
    trainer = small_trainer(tmp_path, tensorboard=True)
    trainer.run(1)
    trainer.run(2)
    assert sorted(step for tag, step, _ in events_in(tmp_path)[0] if tag == "loss_g") == [5, 10]


def test_without_tensorboard_there_are_no_events(tmp_path, in_haste):
    small_trainer(tmp_path).run(1)
    assert not (tmp_path / "tensorboard").exists()


# -------------------------------------------------------------------------------- --resume and all


def parser(name="example"):
    found = command_line.arguments("An example.\n\nMore about it.", name, epochs=3)
    found.add_argument("--width", type=int, default=8, help="units of a layer (8)")
    return found


def train(options):
    """What an example does."""
    game = command_line.game(options, *mlp(seed=options.seed), lr=1e-2, betas=(0.5, 0.999))
    command_line.trainer(options, game, images(), noise=NOISE, batch=BATCH, samples=4).run(options.epochs)


def parse(*argv, name="example"):
    return command_line.parse(parser(name), [str(argument) for argument in argv])


ARGUMENTS = ["--seed", 5, "--loss", "hinge", "--width", 9, "--quiet"]


@pytest.fixture
def example(tmp_path, in_haste):
    """The folder of an example that is done: two epochs."""
    train(parse(*ARGUMENTS, "--epochs", 2, "--out", tmp_path / "run"))
    return tmp_path / "run"


def test_a_run_takes_the_next_free_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse().out == Path("runs/example-1")
    Path("runs/example-1").mkdir(parents=True)
    assert parse().out == Path("runs/example-2")
    assert parse("--out", "x").out == Path("x")
    assert list(Path("runs").iterdir()) == [Path("runs/example-1")]


def test_resume_takes_the_options_that_the_run_began_with(example):
    options = parse("--resume", example)
    assert (options.epochs, options.seed, options.loss, options.width) == (2, 5, "hinge", 9)
    assert options.out == options.resume == example
    assert parse("--resume", example, "--seed", 5, "--loss", "hinge").seed == 5  # said again


def test_resume_finds_a_folder_that_has_moved(example, tmp_path, monkeypatch):
    os.rename(example, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    options = parse("--resume", "elsewhere", "--epochs", 3)
    train(options)
    assert len((tmp_path / "elsewhere/metrics.jsonl").read_text().splitlines()) == 3
    assert not example.exists()


def test_more_epochs_are_remembered(example, tmp_path):
    """An interrupted run goes on to where it was going, not to where it was going at first."""
    options = parse("--resume", example, "--epochs", 4)
    train(options)
    assert read_config(example)["options"]["epochs"] == 4
    assert parse("--resume", example).epochs == 4
    whole = [*ARGUMENTS, "--epochs", 4, "--out", tmp_path / "whole"]
    train(parse(*whole))
    assert differences(what_is_left(example), what_is_left(tmp_path / "whole")) == []


@pytest.mark.parametrize(
    ("argument", "value", "began"),
    [("--seed", 6, 5), ("--loss", "minimax", "hinge"), ("--penalty", "r1", "none"), ("--width", 8, 9)],
)
def test_what_a_run_began_with_cannot_be_changed(argument, value, began, example):
    before = all_bytes(example)
    with pytest.raises(RunError, match=f"began with {argument} {began}") as error:
        parse("--resume", example, argument, value)
    assert str(example) in str(error.value)
    assert all_bytes(example) == before


def test_a_run_of_another_program_is_refused(example, tmp_path):
    with pytest.raises(RunError, match="run: is no run of other, but of example"):
        parse("--resume", example, name="other")
    small_trainer(tmp_path / "plain").folder.close()
    with pytest.raises(RunError, match=r"plain: is no run of example$"):
        parse("--resume", tmp_path / "plain")
    with pytest.raises(
        RunError, match=r"nothing/config\.json: cannot be read: .*; is .* the folder of a run\?"
    ):
        parse("--resume", tmp_path / "nothing")


def test_help_can_be_read(capsys):
    with pytest.raises(SystemExit) as done:
        parse("--help")
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "An example." in text and "More about it" not in text
    assert max(map(len, text.splitlines())) <= 96
    for argument in (
        "--epochs", "--loss", "--penalty", "--seed", "--backend", "--out", "--resume RUN", "--save-every",
        "--quiet", "--tensorboard", "--dataset", "--data-dir", "--width",
    ):  # fmt: skip
        assert re.search(rf"^  {re.escape(argument)}\b", text, re.MULTILINE), argument
    for name in ("non-saturating", "wasserstein", "gmmn", "gp-one-sided", "spectral"):
        assert name in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "argument --epochs: 0 must be 1 or more"),
        (["--epochs", "x"], "argument --epochs: 'x' is no whole number"),
        (["--seed", "-1"], "argument --seed: -1 must be 0 or more"),
        (["--loss", "hing"], "argument --loss: invalid choice: 'hing'"),
        (["--penalty", "gpp"], "argument --penalty: invalid choice: 'gpp'"),
        (["--backend", "torch"], "argument --backend: invalid choice: 'torch'"),
        (["--out"], "argument --out: expected one argument"),
    ],
)
def test_arguments_that_make_no_sense(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.run(train, parser(), argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, None, ""),
        (RunError("runs/x: full"), 2, "example: runs/x: full\n"),
        (MemoryError("too large"), 2, "example: too large\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "No such file or directory: 'x'\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            Interrupted(15, 7, None),
            143,
            "\nstopped by SIGTERM after step 7; nothing saved, since the run has",
        ),
    ],
)
def test_exit_codes(error, code, said, capsys, tmp_path):
    def main(options):
        if error is not None:
            raise error

    found = parser()
    found.prog = "example"
    if code is None:
        command_line.run(main, found, ["--out", str(tmp_path / "x")])
    else:
        with pytest.raises(SystemExit) as stop:
            command_line.run(main, found, ["--out", str(tmp_path / "x")])
        assert stop.value.code == code
    assert said in capsys.readouterr().err


def test_the_command_to_go_on_can_be_pasted(capsys, monkeypatch, tmp_path):
    def main(options):
        raise Interrupted(2, 7, options.out)

    monkeypatch.setattr(sys, "argv", ["my example.py"])
    with pytest.raises(SystemExit) as stop:
        command_line.run(main, parser(), ["--out", str(tmp_path / "a b")])
    assert stop.value.code == 130
    assert f"go on with: python 'my example.py' --resume '{tmp_path / 'a b'}'" in capsys.readouterr().err


def test_a_mistake_in_the_program_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        command_line.run(lambda options: 1 / 0, parser(), ["--out", str(tmp_path / "x")])


@pytest.mark.parametrize("penalty", ["none", "gp", "consensus", "spectral", "clip"])
def test_losses_and_penalties_by_name(penalty, tmp_path, in_haste):
    train(parse("--loss", "hinge", "--penalty", penalty, "--out", tmp_path, "--epochs", 1, "--quiet"))
    settings = read_config(tmp_path)["settings"]
    assert settings["loss"]["name"] == "hinge"
    assert len(settings["terms"]) == (penalty in ("gp", "consensus", "clip"))
    assert settings["simultaneous"] == (penalty == "consensus")


@pytest.mark.parametrize("penalty", ["gp", "consensus", "clip"])
def test_a_penalty_without_anybody_to_hold_back(penalty, tmp_path):
    with pytest.raises(RunError, match=r"--loss gmmn .*--penalty"):
        train(parse("--loss", "gmmn", "--penalty", penalty, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
