"""Files that are written whole or not at all: links, permissions, and what can stand in the way."""

import errno
import os
import stat
import sys

import pytest

from minigan.files import remove_unfinished, unfinished, whole_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions as on Linux and macOS")


def write(path, content=b"new"):
    with whole_file(path) as file:
        file.write(content)


def names(folder):
    return sorted(os.listdir(folder))


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_an_interrupted_file_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a"] and path.read_bytes() == b"old"


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_stays_a_link(relative, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("there")
    (tmp_path / "there/file").write_bytes(b"old")
    os.symlink("there/file" if relative else tmp_path / "there/file", "link")
    os.symlink("link", "link to the link")
    write("link to the link")
    assert (tmp_path / "link to the link").is_symlink() and (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/file").read_bytes() == b"new"
    assert names("there") == ["file"] and names(".") == ["link", "link to the link", "there"]


def test_a_link_to_a_file_that_is_not_there_yet(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize(("target", "code"), [("no/file", errno.ENOENT), ("link", errno.ELOOP)])
def test_a_link_into_nowhere(target, code, tmp_path):
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError) as caught:
        write(tmp_path / "link")
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "link"))
    assert names(tmp_path) == ["link"] and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o755, 0o666])
def test_a_file_keeps_its_permissions(permissions, tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(permissions)
    with whole_file(tmp_path / "a") as file:
        assert mode(file.name) == permissions  # at no time may others read what they may not
    assert mode(tmp_path / "a") == permissions


def test_a_new_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o640


def test_a_file_that_may_not_be_written_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, how: not how & os.W_OK)  # root may write everything
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/a'"):
        write(tmp_path / "a")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/a'"):
        write(tmp_path / "a")


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"Invalid argument: '.*/pipe'"):
        write(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        write(tmp_path)
    assert names(tmp_path) == ["pipe"] and stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's disk that is always full")
def test_a_full_disk_is_told_with_the_name_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda path, how, open=open: open("/dev/full", "wb"))
    with pytest.raises(OSError) as caught:
        write(tmp_path / "a")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert names(tmp_path) == []


def test_only_what_was_left_unfinished_is_removed(tmp_path):
    mine = [
        ".a.minigan-0123",
        ".a.minigan-0123456z",
        ".b.minigan-01234567",
        "a.minigan-01234567",
        ".a.20250101",
    ]
    for name in mine:
        (tmp_path / name).touch()
    for name in ("a", "a", "pictures_1"):
        unfinished(tmp_path / name).touch()
    assert len(names(tmp_path)) == len(mine) + 3
    remove_unfinished(tmp_path, "a")
    remove_unfinished(tmp_path, "pictures_*")
    assert names(tmp_path) == sorted(mine)
