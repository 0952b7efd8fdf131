"""A file is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

import loadstone as ls
from loadstone.io.disk import Disk, using
from loadstone.io.replace import replacing


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_new_bytes_take_the_place_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
        assert (tmp_path / "f").read_bytes() == b"old"
    assert (tmp_path / "f").read_bytes() == b"new"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_error_in_the_block_leaves_the_old_file_and_no_litter(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def write_and_fail() -> None:
        with replacing(tmp_path / "f") as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write_and_fail()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_full_disk_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))  # the kernel refuses more, as a full disk does
    try:
        with pytest.raises(ls.SaveError, match="no-space"), replacing(tmp_path / "f") as file:
            file.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_missing_directory_is_save_failed(tmp_path: Path) -> None:
    with pytest.raises(ls.SaveError, match=os.strerror(errno.ENOENT)), replacing(tmp_path / "no" / "f"):
        pass


def test_directory_in_the_way_is_save_failed(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(ls.SaveError, match="no regular file"), replacing(tmp_path / "f"):
        pass
    assert names(tmp_path) == ["f"]


def test_new_file_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "f") as file:
            file.write(b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o604)
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o604


def test_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".f.0123456789abcdef.partial").write_bytes(b"left")
    (tmp_path / ".other.0123456789abcdef.partial").write_bytes(b"not mine")
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
    assert names(tmp_path) == [".other.0123456789abcdef.partial", "f"]


def test_a_writer_at_work_is_not_swept(tmp_path: Path) -> None:
    with replacing(tmp_path / "f") as first:
        first.write(b"first")
        with replacing(tmp_path / "f") as second:
            second.write(b"second")
        assert (tmp_path / "f").read_bytes() == b"second"
    assert (tmp_path / "f").read_bytes() == b"first"
    assert names(tmp_path) == ["f"]


def test_a_name_that_may_not_survive_is_said_as_it_is(tmp_path: Path) -> None:
    class Broken(Disk):
        def sync_folder(self, path: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write() -> None:
        with replacing(tmp_path / "f") as file:
            file.write(b"new")

    with using(Broken()), pytest.raises(ls.SaveError, match="is there and whole, but its name may not survive"):
        write()
    assert (tmp_path / "f").read_bytes() == b"new"
    assert names(tmp_path) == ["f"]


def test_short_writes_and_interruptions_are_gone_on_with(tmp_path: Path) -> None:
    class Hesitant(Disk):
        calls = 0

        def write(self, descriptor: int, data: memoryview | bytes) -> int:
            self.calls += 1
            if self.calls % 2:
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
            return super().write(descriptor, bytes(data[:7]))

    with using(Hesitant()), replacing(tmp_path / "f") as file:
        file.write(bytes(range(100)))
    assert (tmp_path / "f").read_bytes() == bytes(range(100))
