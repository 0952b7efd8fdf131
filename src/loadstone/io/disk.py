"""Every change that Loadstone makes to a file system, one method a call to the operating system.

Nothing else in the package creates, writes, renames, links or removes a file.  So one object can stand in for the disk:
the tests put a recorder or a failing disk here (`using`) and see every state that a crash could leave behind.

A method does its one call and raises the OSError of that call.  What a failure means for the user is decided above, in
replace.py and folders.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class Disk:
    """The disk of this machine.  Not final: a harness overrides methods to record or to fail."""

    def create(self, path: Path, mode: int = 0o666) -> int:
        """The descriptor of a new file, for writing; `mode` is cut by the umask.  An existing one is an error."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode)

    def reserve(self, descriptor: int, nbytes: int) -> None:
        """Have the file system set aside room for the first `nbytes` bytes; raises ENOSPC where there is none.

        Raises OSError with EOPNOTSUPP or EINVAL where the file system cannot do that.
        """
        if nbytes:
            os.posix_fallocate(descriptor, 0, nbytes)

    def write(self, descriptor: int, data: memoryview | bytes) -> int:
        """How many of the bytes were written behind those that are there; it may be fewer than were given."""
        return os.write(descriptor, data)

    def write_at(self, descriptor: int, data: memoryview | bytes, offset: int) -> int:
        """How many of the bytes were written from `offset` on, over what is there; it may be fewer than were given."""
        return os.pwrite(descriptor, data, offset)

    def cut(self, descriptor: int, nbytes: int) -> None:
        """Make the file end after `nbytes` bytes."""
        os.ftruncate(descriptor, nbytes)

    def set_mode(self, descriptor: int, mode: int) -> None:
        """Give the file these permissions, whatever the umask."""
        os.fchmod(descriptor, mode)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's bytes are on the device.  A failed call must not be repeated: the bytes are lost."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close the descriptor.  On network file systems the error of an earlier write can come here."""
        os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """A new empty directory."""
        path.mkdir()

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in the directory are on the device."""
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name in one step; a file that has that name is replaced."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        os.link(source, target)

    def remove(self, path: Path) -> None:
        """Take a name from a file; the last one takes its bytes along."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def free_nbytes(self, folder: Path) -> int:
        """Bytes that this process may still write there."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize

    def forget(self, descriptor: int) -> None:
        """Drop the file's bytes from the page cache, so that the next read asks the device."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


_disk = Disk()


def disk() -> Disk:
    """The disk in use."""
    return _disk


@contextlib.contextmanager
def using(other: Disk) -> Iterator[None]:
    """Let `other` stand in for the disk, in all threads, until the block ends.  For harnesses."""
    global _disk
    before, _disk = _disk, other
    try:
        yield
    finally:
        _disk = before
