"""Files of arrays: what is saved comes back, a file is whole or not there, and a bad one is refused."""

import io as streams
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import Tensor, io, nn
from minigan.testing import strategies

SUFFIXES = (".npz", ".safetensors")


@pytest.fixture(params=SUFFIXES)
def suffix(request):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors", reason="the extra `safetensors` is not installed")
    return request.param


@pytest.fixture
def path(tmp_path, suffix):
    return tmp_path / f"weights{suffix}"


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        one, other = np.asarray(a[name]), np.asarray(b[name])
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name


# ------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u8", "?"])
def test_every_kind_of_number_comes_back(dtype, path):
    state = {
        "a": np.array([[0, 1, 1], [1, 0, 1]], dtype),
        "no axes": np.array(1, dtype),
        "nothing": np.zeros((0, 3), dtype),
    }
    io.save(path, state)
    same(io.load(path), state)


def test_nan_and_infinity_come_back(path):
    state = {"a": np.array([np.nan, np.inf, -np.inf, -0.0])}
    io.save(path, state)
    same(io.load(path), state)
    assert np.signbit(io.load(path)["a"][3])


@given(st.data())
def test_any_shape_in_any_layout_comes_back(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(SUFFIXES))
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="the extra `safetensors` is not installed")
    names = data.draw(st.lists(st.text("aé/. _-0", min_size=1, max_size=8), unique=True, max_size=4))
    rng = np.random.default_rng(0)
    state = {
        name: rng.normal(size=data.draw(strategies.shapes())).astype(
            data.draw(st.sampled_from(["f4", ">f8"]))
        )
        for name in names
    }
    path = tmp_path_factory.mktemp("any") / f"state{suffix}"
    io.save(path, {name: data.draw(strategies.layouts())(a) for name, a in state.items()})
    same(io.load(path), {name: a.astype(a.dtype.newbyteorder("=")) for name, a in state.items()})


def test_numbers_and_strings_come_back_as_arrays_without_axes(tmp_path):
    io.save(tmp_path / "a.npz", {"epoch": 12, "rate": 2e-4, "kind": "Adam", "done": True, "file": [1, 2]})
    state = io.load(tmp_path / "a.npz")
    assert (int(state["epoch"]), float(state["rate"]), str(state["kind"])) == (12, 2e-4, "Adam")
    assert bool(state["done"])
    assert state["kind"].shape == ()
    assert state["file"].tolist() == [1, 2]


def test_a_mapping_within_a_mapping_is_flat_in_the_file(path):
    m = np.ones(2)
    io.save(path, {"g": {"0": {"weight": m}, "1.weight": m * 2}, "epoch": 3})
    state = io.load(path)
    assert sorted(state) == ["epoch", "g.0.weight", "g.1.weight"]
    same(io.section(state, "g"), {"0.weight": m, "1.weight": m * 2})
    same(io.section(state, "g.0"), {"weight": m})
    with pytest.raises(ValueError, match="nothing in this state begins with 'd'; there are: epoch, g"):
        io.section(state, "d")


def test_arrays_of_every_backend_can_be_saved(backend, tmp_path):
    x = Tensor([1.0, 2.0], backend=backend)
    io.save(tmp_path / "a.npz", {"array": x.data, "tensor of numpy": Tensor([3.0])})
    state = io.load(tmp_path / "a.npz")
    assert all(type(a) is np.ndarray for a in state.values())
    same(state, {"array": np.array([1.0, 2.0]), "tensor of numpy": np.array([3.0])})


def test_a_model_comes_back(path, rng):
    model, other = (
        nn.Sequential(nn.Conv2d(2, 3, 3, rng=seed), nn.Lambda(mg.tanh), nn.ConvTranspose2d(3, 2, 3, rng=seed))
        for seed in (1, 2)
    )
    x = rng.normal(size=(2, 2, 5, 5)).astype("f4")
    assert not np.array_equal(model(x).numpy(), other(x).numpy())
    io.save(path, model.state_dict())
    other.load_state_dict(io.load(path))
    assert np.array_equal(model(x).numpy(), other(x).numpy())


def test_numpy_reads_what_we_write_and_we_what_numpy_writes(tmp_path):
    state = {"0.weight": np.arange(6.0).reshape(2, 3), "epoch": np.array(3)}
    io.save(tmp_path / "ours.npz", state)
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as theirs:
        same({name: theirs[name] for name in theirs.files}, state)
    np.savez_compressed(tmp_path / "theirs.npz", **state)
    same(io.load(tmp_path / "theirs.npz"), state)


def test_the_same_state_makes_the_same_file(path):
    state = {"a": np.arange(3.0), "b": np.array(1)}
    io.save(path, state)
    first = path.read_bytes()
    io.save(path, state)
    assert path.read_bytes() == first


def test_a_string_is_a_path_too(path):
    io.save(str(path), {"a": np.ones(2)})
    same(io.load(str(path)), {"a": np.ones(2)})
    assert os.listdir(path.parent) == [path.name]  # no second suffix, nothing left over


# -------------------------------------------------------------------- the whole file or nothing


def test_a_failure_while_writing_leaves_the_old_file(path, monkeypatch):
    state = {"a": np.arange(3.0)}
    io.save(path, state)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        io.save(path, {"a": np.zeros(3)})
    same(io.load(path), state)
    assert os.listdir(path.parent) == [path.name]


def test_the_new_file_is_on_the_disk_before_it_takes_the_old_ones_name(path, monkeypatch):
    io.save(path, {"a": np.arange(3.0)})
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: done.append("fsync") or fsync(f))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append((str(a), str(b))) or replace(a, b))
    io.save(path, {"a": np.zeros(3)})
    assert done[0] == "fsync"
    temporary, final = done[1]
    assert os.path.dirname(temporary) == os.path.dirname(final)
    assert final == str(path)
    same(io.load(path), {"a": np.zeros(3)})


def test_what_cannot_be_saved_touches_no_file(path):
    with pytest.raises(TypeError):
        io.save(path, {"a": np.ones(3), "b": object()})
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of Unix")
def test_the_file_has_the_usual_permissions(path):
    io.save(path, {"a": np.ones(1)})
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


# ------------------------------------------------------------------------------------- bad files


def npz_of(**entries):
    buffer = streams.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("_npy", ".npy"), content)
    return buffer.getvalue()


def npy_of(array, **options):
    buffer = streams.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


class Hostile:
    """Unpickling this writes a file."""

    def __reduce__(self):
        return (open, ("pwned", "w"))


def safetensors_of(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def claiming(shape, descr="<f8", data=b"\0" * 64):
    """A .npy file with these words in its header."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header + data


def lying(content, *sizes):
    """A .npz file whose directory says other sizes of its entry: (packed, unpacked)."""
    plain = npz_of(a_npy=content)
    at = plain.index(b"PK\x01\x02") + 20
    return plain[:at] + struct.pack("<2I", *sizes) + plain[at + 8 :]


def packed(count, method=zipfile.ZIP_DEFLATED):
    """A .npz file of many zeros, in few bytes."""
    buffer = streams.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.npy", npy_of(np.zeros(count, "u1")))
    return buffer.getvalue()


def nested(entries, count):
    """A .npz file whose entries are all the same bytes, so that it unpacks to far more than it has."""
    content = packed(count)
    first, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    record = content[first:end]
    names = [f"{i:05}"[-5:].encode() for i in range(entries)]
    directory = b"".join(record.replace(b"a.npy", name) for name in names)
    numbers = struct.pack("<4H2IH", 0, 0, entries, entries, len(directory), first, 0)
    return content[:first] + directory + b"PK\x05\x06" + numbers


BAD = {
    "empty.npz": (b"", "zip"),
    "text.npz": (b"hello" * 100, "zip"),
    "pickle.npz": (pickle.dumps(Hostile()), "zip"),
    "npy.npz": (npy_of(np.ones(3)), "zip"),
    "objects.npz": (npz_of(a_npy=npy_of(np.array([Hostile()], dtype=object))), "no array of .* dtype object"),
    "pickle inside.npz": (npz_of(a_npy=pickle.dumps(Hostile())), ""),
    "no array.npz": (npz_of(readme=b"hello"), "its entry 'readme' is no array"),
    "record.npz": (npz_of(a_npy=npy_of(np.zeros(2, "i4,f4"))), "no array of numbers"),
    "short.npz": (npz_of(a_npy=npy_of(np.ones(9))[:-8]), ""),
    "long.npz": (npz_of(a_npy=npy_of(np.ones(9)) + b"x"), r"says float64 of shape \(9,\), .* take 73 bytes"),
    "huge.npz": (npz_of(a_npy=claiming((10**14,))), "take 64 bytes"),
    "overflow.npz": (npz_of(a_npy=claiming((2**32, 2**32))), "take 64 bytes"),
    "negative.npz": (npz_of(a_npy=claiming((-2, -4))), "take 64 bytes"),
    "wide.npz": (npz_of(a_npy=claiming((1,), "<U500000000")), "take 64 bytes"),
    "no width.npz": (npz_of(a_npy=claiming((10**15,), "<U0")), "take 64 bytes"),
    "sub.npz": (npz_of(a_npy=claiming((1,), "(9999,9999)f8")), ""),
    "words for a shape.npz": (npz_of(a_npy=claiming("('a',)")), ""),
    "sizes.npz": (lying(claiming((2**27,)), 2**30, 2**30), "cannot have the 1073741824 bytes"),
    "bomb.npz": (nested(20000, 10**6), "would unpack to"),
    "lzma.npz": (packed(10**6, zipfile.ZIP_LZMA), "cannot have the"),
    "empty.safetensors": (b"", ""),
    "text.safetensors": (b"hello" * 100, ""),
    "long header.safetensors": ((1 << 60).to_bytes(8, "little") + b"{}", ""),
    "past the end.safetensors": (
        safetensors_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 8), "",
    ),
    "wrong shape.safetensors": (
        safetensors_of({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8), "",
    ),
    "unknown.safetensors": (
        safetensors_of({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"\0\0"),
        "(F8_E4M3|InvalidHeader)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name(name, tmp_path, monkeypatch):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors", reason="the extra `safetensors` is not installed")
    monkeypatch.chdir(tmp_path)
    content, reason = BAD[name]
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=rf"load: .*{name}.* is not a .* file of arrays: .*{reason}"
    ) as caught:
        io.load(tmp_path / name)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000 + 30 * len(content)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_file_cut_short_or_changed_is_refused_or_read_whole(path):
    """Cut anywhere it is an error. With a bit flipped, it is an error or gives other numbers."""
    state = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3)}
    io.save(path, state)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=path.name):
            io.load(path)
    rng = np.random.default_rng(0)
    for at in rng.permutation(len(content))[:200]:
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found = io.load(path)
        except ValueError as error:
            assert path.name in str(error)
        else:
            assert all(array.dtype.kind in "biufcU" for array in found.values())


def test_what_is_packed_tightly_but_honestly_is_read(tmp_path):
    (tmp_path / "a.npz").write_bytes(packed(10**6))
    assert not io.load(tmp_path / "a.npz")["a"].any()


def test_a_name_with_a_path_is_only_a_name(tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.npz", "w") as archive:
        for name in ("../up.npy", "/root.npy"):
            archive.writestr(name, npy_of(np.ones(1)))
    assert sorted(io.load(tmp_path / "in" / "a.npz")) == ["../up", "/root"]
    assert os.listdir(tmp_path) == ["in"] and os.listdir(tmp_path / "in") == ["a.npz"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name, as on Linux and macOS")
def test_what_has_no_end_is_refused(path):
    os.mkfifo(path)  # opening it would wait for ever
    with pytest.raises(ValueError, match=f"load: .*{path.name} is no file, but a device"):
        io.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"load: .*{path.name} is no file, but a folder"):
        io.load(path)


def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy_of(np.ones(1)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", npy_of(np.zeros(1)))
    with pytest.raises(ValueError, match=r"its entry 'a\.npy' is there twice"):
        io.load(tmp_path / "a.npz")


def test_half_precision_of_the_other_kind_becomes_float32(tmp_path):
    pytest.importorskip("safetensors", reason="the extra `safetensors` is not installed")
    values = np.array([[1.0, -2.5], [0.15625, 3e38]], "f4")
    upper = (values.view("<u4") >> 16).astype("<u2")
    header = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    (tmp_path / "a.safetensors").write_bytes(safetensors_of(header, upper.tobytes()))
    found = io.load(tmp_path / "a.safetensors")["a"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=2**-7)
    assert found[0].tolist() == [1.0, -2.5]


# ---------------------------------------------------------------------------------------- errors

MISTAKES = {
    "suffix": (lambda p: io.save(p / "a.pt", {}), ValueError, r"save: '.*a\.pt' should end in \.npz or"),
    "no suffix": (lambda p: io.load(p / "a"), ValueError, r"load: '.*a' should end in \.npz or"),
    "missing": (lambda p: io.load(p / "a.npz"), FileNotFoundError, r"a\.npz"),
    "folder": (lambda p: io.save(p / "no" / "a.npz", {}), FileNotFoundError, "no folder .*no for a.npz"),
    "None": (lambda p: io.save(p / "a.npz", {"w": None}), TypeError, "'w' is a NoneType of dtype object"),
    "objects": (lambda p: io.save(p / "a.npz", {"w": np.array([{}])}), TypeError, "'w' is a ndarray of"),
    "bytes": (lambda p: io.save(p / "a.npz", {"w": b"abc"}), TypeError, "'w' is a bytes"),
    "name": (lambda p: io.save(p / "a.npz", {1: 2.0}), TypeError, "the name 1 is a int, not a string"),
    "twice": (
        lambda p: io.save(p / "a.npz", {"a": {"b": 1}, "a.b": 2}), ValueError, "two values are called 'a.b'",
    ),
    "history": (
        lambda p: io.save(p / "a.npz", {"w": Tensor(1.0, requires_grad=True)}), TypeError, r"\.detach\(\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_explained(case, tmp_path):
    wrong, kind, message = MISTAKES[case]
    with pytest.raises(kind, match=message):
        wrong(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_safetensors_cannot_hold(tmp_path):
    pytest.importorskip("safetensors", reason="the extra `safetensors` is not installed")
    with pytest.raises(
        TypeError, match=r"'kind' has dtype <U4, which a \.safetensors file cannot hold; \.npz"
    ):
        io.save(tmp_path / "a.safetensors", {"kind": "Adam"})
    assert os.listdir(tmp_path) == []


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    path = tmp_path / "a.safetensors"
    with pytest.raises(ImportError, match=r'pip install "minigan\[safetensors\]"'):
        io.save(path, {"a": np.ones(1)})
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=r'pip install "minigan\[safetensors\]"'):
        io.load(path)
    io.save(tmp_path / "a.npz", {"a": np.ones(1)})


# --------------------------------------------------------------------------------- with PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="exchanges files with PyTorch, which is not installed")


def nets(torch):
    """A network of PyTorch's, and the same of ours."""
    t = torch.nn
    theirs = t.Sequential(
        t.Conv2d(3, 8, 4, 2, 1), t.LeakyReLU(0.2), t.Conv2d(8, 16, 4, 2, 1, bias=False), t.BatchNorm2d(16),
        t.LeakyReLU(0.2), t.ConvTranspose2d(16, 4, 4, 2, 1), t.BatchNorm2d(4), t.Tanh(), t.Flatten(),
        t.Linear(4 * 16, 5),
    )  # fmt: skip
    ours = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1, rng=0), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1, bias=False, rng=0),
        nn.BatchNorm2d(16), nn.LeakyReLU(0.2), nn.ConvTranspose2d(16, 4, 4, 2, 1, rng=0), nn.BatchNorm2d(4),
        nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 5, rng=0),
    )  # fmt: skip
    return theirs, ours


def outputs(torch, theirs, ours):
    x = np.random.default_rng(5).normal(size=(6, 3, 8, 8)).astype("f4")
    with torch.no_grad():
        return theirs(torch.tensor(x)).numpy(), ours(x).numpy()


@pytest.mark.torch
def test_weights_from_pytorch_by_name(torch, tmp_path):
    stock = pytest.importorskip("safetensors.torch", reason="the extra `safetensors` is not installed")
    torch.manual_seed(0)
    theirs, ours = nets(torch)
    theirs(torch.randn(6, 3, 8, 8))  # the running statistics of batch normalisation move
    stock.save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours.load_state_dict(io.load(tmp_path / "weights.safetensors"))
    theirs.eval()
    ours.eval()
    one, other = outputs(torch, theirs, ours)
    np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.torch
def test_weights_to_pytorch_by_name(torch, tmp_path):
    stock = pytest.importorskip("safetensors.torch", reason="the extra `safetensors` is not installed")
    theirs, ours = nets(torch)
    ours(np.random.default_rng(1).normal(size=(6, 3, 8, 8)).astype("f4"))
    optimizer = mg.optim.Adam(ours.parameters(), lr=0.01)
    (ours(np.ones((2, 3, 8, 8), "f4")) ** 2).mean().backward()
    optimizer.step()  # the weights live in the optimiser's memory now
    io.save(tmp_path / "weights.safetensors", ours.state_dict())
    theirs.load_state_dict(stock.load_file(tmp_path / "weights.safetensors"))
    theirs.eval()
    ours.eval()
    one, other = outputs(torch, theirs, ours)
    np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.torch
def test_half_precision_from_pytorch(torch, tmp_path):
    stock = pytest.importorskip("safetensors.torch", reason="the extra `safetensors` is not installed")
    x = torch.randn(3, 4).to(torch.bfloat16)
    stock.save_file({"a": x}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(io.load(tmp_path / "a.safetensors")["a"], x.float().numpy())
