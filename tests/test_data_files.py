"""Data files: what is hostile, damaged or missing is refused in one line; what is fetched is whole."""

import errno
import gzip
import importlib
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from contextlib import suppress
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigan import data
from minigan.data import DataError, NotFound, image_folder, mnist, read_idx, sets, write_idx
from minigan.data.cache import user_cache
from minigan.data.download import download
from minigan.testing import strategies

mnist_module = importlib.import_module("minigan.data.mnist")
idx_module = importlib.import_module("minigan.data.idx")
download_module = importlib.import_module("minigan.data.download")

REAL = os.environ.get("MINIGAN_DATA")
DTYPES = ("u1", "i1", "i2", "i4", "f4", "f8")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A user whose home is empty, and no proxy."""
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("MINIGAN_DATA", raising=False)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


def refused(path, *words, **options):
    """read_idx refuses the file in one line that names it; the memory it took meanwhile, in bytes."""
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        read_idx(path, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message
    return peak


def idx_header(*shape, kind=8):
    return struct.pack(f">4B{len(shape)}I", 0, 0, kind, len(shape), *shape)


# ------------------------------------------------------------------------------------- IDX files


@given(
    shape=strategies.shapes(min_dims=1, max_dims=4, min_side=1),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from("<>"),
    suffix=st.sampled_from(["", ".gz"]),
    seed=st.integers(0, 99),
)
def test_what_is_written_comes_back(shape, dtype, order, suffix, seed, scratch):
    array = np.random.default_rng(seed).integers(0, 127, shape).astype(dtype)
    if array.dtype.kind == "f":
        array = array / 7
    path = scratch / f"there-and-back{suffix}"
    write_idx(path, array.astype(array.dtype.newbyteorder(order)))
    back = read_idx(path)
    assert back.dtype == array.dtype and back.dtype.isnative
    assert np.array_equal(back, array)
    back[...] = 0  # an array like any other


def test_the_format_is_the_published_one(tmp_path):
    write_idx(tmp_path / "a", np.array([[1, -2]], "i2"))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("00 00 0b 02 00000001 00000002 0001 fffe")


def test_whether_it_is_packed_is_seen_not_believed(tmp_path):
    write_idx(tmp_path / "a.gz", np.arange(5, dtype="u1"))
    (tmp_path / "b").write_bytes((tmp_path / "a.gz").read_bytes())
    assert read_idx(tmp_path / "b").tolist() == [0, 1, 2, 3, 4]


def test_the_same_array_gives_the_same_bytes(tmp_path, monkeypatch):
    write_idx(tmp_path / "a.gz", np.arange(5, dtype="u1"))
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_idx(tmp_path / "b.gz", np.arange(5, dtype="u1"))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize("array", [np.zeros(3, "i8"), np.zeros((2, 0), "u1"), np.array(1, "u1")])
def test_what_the_format_cannot_hold_is_not_written(array, tmp_path):
    with pytest.raises(ValueError, match="write_idx"):
        write_idx(tmp_path / "a", array)
    assert not list(tmp_path.iterdir())


ONE_ROW = idx_header(1, 3) + b"abc"
HOSTILE = {
    "empty": (b"", "is empty"),
    "a text": (b"<html>404</html>", "not an IDX file", "3c 68 74 6d"),
    "one byte": (b"\0", "not an IDX file"),
    "an unknown kind": (idx_header(3, kind=0x0A) + b"abc", "not an IDX file"),
    "no axes": (b"\0\0\x08\0abc", "not an IDX file"),
    "200 axes": (b"\0\0\x08\xc8" + b"\0\0\0\1" * 200 + b"a", "not an IDX file"),
    "half a header": (idx_header(1, 3)[:9], "header"),
    "no content": (idx_header(1, 3), "(1, 3)"),
    "cut off": (ONE_ROW[:-1], "(1, 3)"),
    "longer": (ONE_ROW + b"d", "longer"),
    "a length of zero": (idx_header(0, 3), "(0, 3)"),
    "a length that looks negative": (idx_header(2**32 - 1, 3) + b"abc", str(2**32 - 1)),
    "4 GB": (idx_header(2**31 - 1, 2) + b"abc", "more than a file of this size"),
    "an overflowing product": (idx_header(2**31 - 1, 2**31 - 1, 2**31 - 1) + b"a", "more than a file"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_and_costs_no_memory(case, packed, tmp_path):
    content, *words = HOSTILE[case]
    path = tmp_path / "train-images"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert refused(path, *words) < 1e6


@pytest.mark.parametrize("packed", [False, True])
def test_the_end_is_looked_at_whatever_the_length(packed, tmp_path):
    """A file of several pieces, and one byte more."""
    path = tmp_path / "a"
    content = idx_header(2, 1 << 18) + bytes(1 << 19) + b"x"
    path.write_bytes(gzip.compress(content) if packed else content)
    refused(path, "longer")
    path.write_bytes(gzip.compress(content[:-1])[:-5] + b"\1" * 5)  # the sum and the length are wrong
    refused(path, "damaged")


def test_a_header_cannot_ask_for_more_than_is_there(tmp_path):
    """400 MB claimed, half a MB there: so little that gzip could just have packed 400 MB into it."""
    path = tmp_path / "a.gz"
    content = np.random.default_rng(0).bytes(500_000)
    path.write_bytes(gzip.compress(idx_header(400, 1000, 1000) + content))
    assert refused(path, "cut off after 500000 bytes") < 3e6


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx_header(10, 10) + bytes(64 << 20), compresslevel=1))
    assert refused(path, "longer") < 1e6


def test_reading_stops_one_byte_behind_the_claim(tmp_path):
    header = idx_header(10, 10)
    file = io.BytesIO(header + bytes(1 << 20))
    with pytest.raises(DataError, match="longer"):
        idx_module._read(tmp_path / "a", file, 1 << 30, 1 << 30)
    assert file.tell() == len(header) + 100 + 1


def test_a_bomb_with_an_honest_header_meets_the_limit(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx_header(8, 1 << 20) + bytes(8 << 20), compresslevel=1))
    assert refused(path, "limit", limit=(8 << 20) - 1) < 1e6
    assert read_idx(path, limit=8 << 20).shape == (8, 1 << 20)


def test_reading_takes_little_more_memory_than_the_array(tmp_path):
    path = tmp_path / "a.gz"
    write_idx(path, np.zeros((16, 1 << 20), "u1"))
    tracemalloc.start()
    array = read_idx(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * array.nbytes + 1e6


@pytest.mark.parametrize("content", [b"not packed", ONE_ROW])
def test_a_name_in_gz_promises_gzip(content, tmp_path):
    (tmp_path / "a.gz").write_bytes(content)
    refused(tmp_path / "a.gz", "is not a gzip file")


@given(seed=st.integers(0, 10**6))
def test_damaged_gzip_never_gives_another_array(seed, scratch):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 9, (5, 40)).astype("u1")
    path = scratch / "damaged.gz"
    write_idx(path, array)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[: rng.integers(len(whole))])
    refused(path)
    whole[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
    path.write_bytes(whole)
    try:
        assert np.array_equal(read_idx(path), array)  # as when the bit is in gzip's date
    except DataError as error:
        assert str(path) in str(error)


@given(content=st.binary(max_size=60), dressed=st.booleans())
def test_random_bytes_are_an_array_or_refused(content, dressed, scratch):
    path = scratch / "random"
    path.write_bytes(b"\0\0\x08\x01\0\0\0" + content if dressed else content)
    try:
        array = read_idx(path)
    except DataError:
        return
    assert array.nbytes + 8 == path.stat().st_size


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path, "directory")
    refused(tmp_path / "nothing", "No such file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
        refused(tmp_path / "pipe", "not an IDX file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(ONE_ROW)
    (tmp_path / "a").chmod(0)
    refused(tmp_path / "a", "cannot be read")


# ------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize(
    ("platform", "where"),
    [("linux", "x/cache/minigan"), ("darwin", "x/Library/Caches/minigan"), ("win32", "x/local/minigan")],
)
def test_the_cache_is_where_the_system_has_caches(platform, where, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "x"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x" / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "x" / "local"))
    assert user_cache() == tmp_path / where
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache().is_absolute()


# ------------------------------------------------------------------------------------ a mirror


class Mirror(ThreadingHTTPServer):
    """A web server on this machine. files: path → content. behave: what it does instead of sending one."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, files, behave=None):
        self.files, self.behave, self.asked, self.over = files, behave, [], threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is no error here


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path[1:])
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
        elif self.server.behave:
            self.server.behave(self, content)
        else:
            self.send(content)

    def send(self, content, length=None):
        self.send_response(200)
        if length is not False:
            self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def hangs(answer, content):
    answer.server.over.wait(20)


def hangs_halfway(answer, content):
    answer.send(content[: len(content) // 2], len(content))
    answer.wfile.flush()
    answer.server.over.wait(20)


MISBEHAVIOUR = {
    "404": lambda answer, content: answer.send_error(404),
    "503": lambda answer, content: answer.send_error(503),
    "hangs up": lambda answer, content: answer.connection.shutdown(socket.SHUT_RDWR),
    "speaks something else": lambda answer, content: answer.wfile.write(b"220 ready\r\n"),
    "a wrong length": lambda answer, content: answer.send(content, "twelve"),
    "cut off": lambda answer, content: answer.send(content[:-5], len(content)),
    "cut off, no length": lambda answer, content: answer.send(content[:-5], False),
    "a page": lambda answer, content: answer.send(b"<html>please log in</html>"),
    "nothing": lambda answer, content: answer.send(b"", False),
    "another set": lambda answer, content: answer.send(gzip.compress(ONE_ROW)),
    "one bit wrong": lambda answer, content: answer.send(gzip.compress(gzip.decompress(content)[:-1] + b"?")),
    "a bomb": lambda answer, content: answer.send(gzip.compress(bytes(60 << 20), 1)),
    "a loop": lambda answer, content: (
        answer.send_response(302),
        answer.send_header("Location", answer.path),
        answer.end_headers(),
    ),
}


@pytest.fixture
def mirror():
    """mirror(files, behave) starts one; all are stopped at the end."""
    begun = []

    def begin(files, behave=None):
        begun.append(Mirror(files, behave))
        return begun[-1]

    yield begin
    for server in begun:
        server.over.set()
        server.shutdown()
        server.server_close()


def tiny(seed=0, count=20):
    """The four arrays of a set of few images."""
    rng = np.random.default_rng(seed)
    parts = []
    for n in (count, count // 2):
        parts += [rng.integers(0, 256, (n, 28, 28)).astype("u1"), rng.integers(0, 10, n).astype("u1")]
    return parts


def put(folder, arrays, suffix=".gz"):
    """Write the four files of a set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(mnist_module.FILES, arrays, strict=True):
        write_idx(folder / f"{name}{suffix}", array)


def same(images, arrays):
    assert all(np.array_equal(a, b) for a, b in zip(images, arrays, strict=True))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A tiny set that has just been published as MNIST: what a mirror of it serves."""
    put(tmp_path / "published", tiny())
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    sums = [md5(gzip.decompress(files[f"{name}.gz"])).hexdigest() for name in mnist_module.FILES]
    monkeypatch.setattr(mnist_module, "SUMS", {**mnist_module.SUMS, "mnist": sums})
    return files


def cached():
    folder = user_cache() / "mnist"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ------------------------------------------------------------------------------------ downloading


def test_download_once_and_for_all(published, mirror):
    server = mirror(published)
    same(mnist(mirrors=[server.url]), tiny())
    assert cached() == sorted(published) == sorted(server.asked)
    same(mnist(mirrors=[server.url]), tiny())
    assert len(server.asked) == 4


@pytest.mark.parametrize("case", MISBEHAVIOUR)
def test_the_second_mirror_steps_in(case, published, mirror):
    bad, good = mirror(published, MISBEHAVIOUR[case]), mirror(published)
    same(mnist(mirrors=[bad.url, good.url]), tiny())
    assert len(set(bad.asked)) == len(good.asked) == 4
    assert cached() == sorted(published)


@pytest.mark.parametrize("behave", [hangs, hangs_halfway])
def test_a_mirror_that_falls_silent_is_left(behave, published, mirror, tmp_path):
    bad, good = mirror(published, behave), mirror(published)
    name = "t10k-labels-idx1-ubyte.gz"
    started = time.monotonic()
    download(tmp_path / name, [bad.url, good.url], lambda file: None, seconds=0.2)
    assert time.monotonic() - started < 5
    assert (tmp_path / name).read_bytes() == published[name]


def test_a_search_for_the_address_is_not_waited_for(monkeypatch, tmp_path):
    answer, before = threading.Event(), set(threading.enumerate())
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: answer.wait(30) and [][0])
    started = time.monotonic()
    with pytest.raises(DataError, match=r"nowhere\.invalid: does not answer within 0\.1 s"):
        download(tmp_path / "a", ["http://nowhere.invalid/"], lambda file: None, seconds=0.1)
    assert time.monotonic() - started < 15
    answer.set()
    for searching in set(threading.enumerate()) - before:
        searching.join(30)  # what comes too late disturbs nobody
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("then", ["send", "send_error"])
def test_an_answer_that_comes_too_late_disturbs_nobody(then, published, mirror, tmp_path):
    def late(answer, content):
        answer.server.over.wait(0.4)
        getattr(answer, then)(content if then == "send" else 404)

    server = mirror(published, late)
    with pytest.raises(DataError, match="does not answer"):
        download(tmp_path / next(iter(published)), [server.url], lambda file: None, seconds=0.1)
    time.sleep(0.6)  # an open socket would be a ResourceWarning, and that a failure


@pytest.mark.parametrize("words", ["does not stop after 100 bytes", "too slow"])
def test_a_mirror_cannot_send_for_ever(words, published, mirror, tmp_path, monkeypatch):
    if words == "too slow":
        clock = iter(range(0, 10**6, 100))  # each look at it is 100 seconds later
        monkeypatch.setattr(download_module, "monotonic", lambda: next(clock))
    else:
        monkeypatch.setattr(download_module, "LARGEST", 100)
    server = mirror(published)
    with pytest.raises(DataError, match=words):
        download(tmp_path / "train-images-idx3-ubyte.gz", [server.url], lambda file: None)
    assert not (tmp_path / "train-images-idx3-ubyte.gz").exists()


def test_a_file_that_breaks_off_is_noticed_before_it_is_checked(published, mirror, tmp_path):
    server = mirror(published, MISBEHAVIOUR["cut off"])
    name, content = next(iter(published.items()))
    with pytest.raises(DataError, match=f"breaks off after {len(content) - 5} of {len(content)} bytes"):
        download(tmp_path / name, [server.url], lambda file: None)
    assert not (tmp_path / name).exists()


def test_without_any_mirror_there_is_advice(published, mirror, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    with pytest.raises(NotFound) as caught:
        mnist(mirrors=[closed, mirror({}).url])
    message = str(caught.value)
    assert "\n" not in message
    for words in ("train-images-idx3-ubyte.gz", "127.0.0.1", "refused", "404", "--data-dir", "MINIGAN_DATA"):
        assert words in message
    assert cached() == []


def test_a_wrong_checksum_says_so(published, mirror):
    server = mirror(published, MISBEHAVIOUR["one bit wrong"])
    with pytest.raises(NotFound, match="MD5"):
        mnist(mirrors=[server.url])
    assert cached() == []


def test_a_full_disk_says_so(published, mirror, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    server, other = mirror(published), mirror(published)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"images-idx3-ubyte\.gz: cannot be written \(No space left"):
        mnist(mirrors=[server.url, other.url])
    assert cached() == [] and other.asked == []


def test_an_unwritable_cache_says_so(published, mirror, tmp_path):
    (tmp_path / "home").write_bytes(b"a file where the cache's folder should be")
    with pytest.raises(DataError, match=r"cannot be written .*--data-dir"):
        mnist(mirrors=[mirror(published).url])


def test_a_damaged_file_in_the_cache_is_fetched_again(published, mirror):
    server = mirror(published)
    mnist(mirrors=[server.url])
    path = user_cache() / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    same(mnist(mirrors=[server.url]), tiny())
    assert server.asked[4:] == [path.name]


FETCH = """
import importlib, sys
module = importlib.import_module("minigan.data.mnist")
module.SUMS = {"mnist": sys.argv[2:]}
print(module.mnist(mirrors=[sys.argv[1]]).images.sum())
"""


def fetching(url):
    """Another process that wants the set."""
    command = [sys.executable, "-c", FETCH, url, *mnist_module.SUMS["mnist"]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_at_once(published, mirror):
    together = threading.Barrier(2)

    def both(answer, content):
        answer.send(content[:50], len(content))
        with suppress(threading.BrokenBarrierError):  # once one is done, the other goes on alone
            together.wait(5)  # neither has more than the beginning before both have
        answer.wfile.write(content[50:])

    server = mirror(published, both)
    processes = [fetching(server.url) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.split() == [str(tiny()[0].sum())]
        assert not err  # no progress bar either, where nobody looks
    assert cached() == sorted(published)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_nothing_that_counts(published, mirror):
    stuck, server = mirror(published, hangs_halfway), mirror(published)
    process = fetching(stuck.url)
    deadline = time.monotonic() + 30
    while not any("train-images" in name for name in cached()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert "train-images-idx3-ubyte.gz" not in cached()
    same(mnist(mirrors=[server.url]), tiny())


# ----------------------------------------------------------------------------------- where it is


def test_the_folder_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    for seed, folder in enumerate((tmp_path / "a", tmp_path / "b", user_cache() / "mnist")):
        put(folder, tiny(seed))
    same(mnist(download=False), tiny(2))
    monkeypatch.setenv("MINIGAN_DATA", str(tmp_path / "b"))
    same(mnist(download=False), tiny(1))
    same(mnist(tmp_path / "a", download=False), tiny(0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: has none of mnist's four files"):
        mnist(str(tmp_path / "empty"), download=False)
    monkeypatch.setenv("MINIGAN_DATA", str(tmp_path / "empty"))
    same(mnist(download=False), tiny(2))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_may_hold_both_sets(suffix, tmp_path):
    put(tmp_path, tiny(0), suffix)
    put(tmp_path / "fashion-mnist", tiny(1), suffix)
    same(mnist(tmp_path, "mnist", download=False), tiny(0))
    same(mnist(tmp_path, "fashion-mnist", download=False), tiny(1))


def test_one_set_is_not_taken_for_the_other(published, tmp_path):
    with pytest.raises(DataError, match="holds mnist, not fashion-mnist"):
        mnist(tmp_path / "published", "fashion-mnist")


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(DataError, match=r"typo: cannot be read \(No such file"):
        mnist(tmp_path / "typo")
    put(tmp_path / "part", tiny())
    (tmp_path / "part" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"part: train-labels-idx1-ubyte .*not there"):
        mnist(tmp_path / "part")
    with pytest.raises(NotFound, match="--data-dir"):
        mnist(download=False)
    with pytest.raises(ValueError, match=r"'cifar'.*mnist, fashion-mnist"):
        mnist(name="cifar")


@pytest.mark.parametrize(
    ("which", "array", "words"),
    [
        (0, np.zeros((20, 32, 32), "u1"), r"shape \(20, 32, 32\)"),
        (0, np.zeros((20, 28, 28), "f4"), "float32"),
        (1, np.zeros(19, "u1"), "20 images"),
        (1, np.full(20, 10, "u1"), "from 0 to 9"),
        (3, np.zeros((10, 1), "u1"), "10 images"),
    ],
)
def test_files_that_do_not_fit_are_refused(which, array, words, tmp_path):
    arrays = tiny()
    arrays[which] = array
    put(tmp_path, arrays)
    with pytest.raises(DataError, match=f"{mnist_module.FILES[which]}.*{words}"):
        mnist(tmp_path)


@pytest.mark.parametrize("name", mnist_module.MIRRORS)
def test_a_mirror_that_cannot_be_overheard_comes_first(name):
    secret = [mirror.startswith("https://") for mirror in mnist_module.MIRRORS[name]]
    assert secret[0] and secret == sorted(secret, reverse=True)


@pytest.fixture
def offline(monkeypatch):
    """No mirror answers, and drawn digits are few."""
    nowhere = dict.fromkeys(mnist_module.MIRRORS, ("http://127.0.0.1:1/",))
    monkeypatch.setattr(mnist_module, "MIRRORS", nowhere)
    monkeypatch.setattr(sets, "rendered_digits", lambda log: "drawn")


def test_offline_digits_are_drawn_and_that_is_said_once(offline):
    said = []
    assert data.load(log=said.append) == "drawn"
    assert len(said) == 1 and "\n" not in said[0]
    assert "MNIST" in said[0] and "fonts" in said[0] and "--dataset mnist" in said[0]
    assert data.load("digits", log=said.append) == "drawn"
    assert len(said) == 1


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_who_insists_gets_it_or_an_error(dataset, offline, tmp_path):
    with pytest.raises(DataError, match="--data-dir"):
        data.load(dataset)
    put(tmp_path / "here", tiny())
    same(data.load(dataset, tmp_path / "here"), tiny())
    same(data.load("auto", tmp_path / "here"), tiny())


def test_a_folder_that_is_not_right_is_no_reason_to_draw(offline, tmp_path):
    with pytest.raises(DataError, match="typo"):
        data.load("auto", tmp_path / "typo")
    with pytest.raises(ValueError, match=r"'mnits'.*auto, mnist, fashion-mnist, digits"):
        data.load("mnits")


@pytest.mark.mnist
@pytest.mark.skipif(not REAL, reason="$MINIGAN_DATA does not say where MNIST is")
def test_the_real_files_are_the_known_ones():
    images = mnist(REAL, download=False)
    assert [a.shape for a in images] == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]
    assert images.labels[:5].tolist() == [5, 0, 4, 1, 9]
    sums = [mnist_module._md5(path) for path in mnist_module._found(Path(REAL), "mnist")]
    assert sums == list(mnist_module.SUMS["mnist"])


# --------------------------------------------------------------------------------- own pictures


def save(path, *shape, seed=0, **options):
    """A picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype("u1")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def test_pictures_come_in_the_order_of_their_paths(tmp_path):
    grey = save(tmp_path / "b.png", 4, 6)
    colour = save(tmp_path / "a.PNG", 4, 6, 3, seed=1)
    inside = save(tmp_path / "c" / "d.png", 4, 6, 3, seed=2)
    save(tmp_path / ".hidden.png", 9, 9)
    (tmp_path / "notes.txt").write_text("no picture")
    images = image_folder(tmp_path)
    assert images.shape == (3, 3, 4, 6) and images.dtype == np.uint8
    assert np.array_equal(images[0], colour.transpose(2, 0, 1))
    assert np.array_equal(images[1], np.stack([grey] * 3))
    assert np.array_equal(images[2], inside.transpose(2, 0, 1))
    assert np.array_equal(image_folder(tmp_path, channels=1)[1, 0], grey)


@pytest.mark.parametrize(("size", "shape"), [(5, (5, 5)), ((8, 4), (8, 4))])
def test_pictures_of_all_sizes_can_be_brought_to_one(size, shape, tmp_path):
    save(tmp_path / "a.png", 12, 30, 3)
    save(tmp_path / "b.jpg", 31, 9)
    assert image_folder(tmp_path, size).shape == (2, 3, *shape)


def test_a_picture_is_cut_around_its_middle(tmp_path):
    pixels = np.zeros((4, 12), "u1")
    pixels[:, 4:8] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (image_folder(tmp_path, 4, 1) == 200).all()


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    save(tmp_path / "a.jpg", 8, 16, exif=exif)
    assert image_folder(tmp_path, channels=1).shape == (1, 1, 16, 8)


def bomb(path):
    """A PNG of some bytes that claims 9,000 x 9,000 pixels, which Pillow alone would believe."""
    save(path, 2, 2)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 9_000, 9_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def cut_off(path):
    save(path, 64, 64, 3)
    path.write_bytes(path.read_bytes()[:3000])


BAD_PICTURES = {
    "bomb": (bomb, "has 9000 x 9000 pixels, more than"),
    "cut off": (cut_off, "cannot be read as an image"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as an image"),
    "a text": (lambda path: path.write_text("hello"), "cannot be read as an image"),
    "a GIF": (lambda path: save(path, 4, 4, format="GIF"), "cannot be read as an image"),
    "16 bits": (lambda path: Image.fromarray(np.full((4, 6), 999, "u2")).save(path), "16 bits"),
    "another size": (lambda path: save(path, 9, 9), "is 9 x 9 and a.png 4 x 6; give a size"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_is_named(case, tmp_path):
    make, words = BAD_PICTURES[case]
    save(tmp_path / "a.png", 4, 6)
    make(tmp_path / "bad.png")
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad.png'}: ") and words in message and "\n" not in message


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        image_folder(tmp_path / "typo")
    for wrong in ({"channels": 4}, {"size": 0}, {"size": (3, 4, 5)}):
        with pytest.raises(ValueError, match="image_folder"):
            image_folder(tmp_path, **wrong)
