"""Replace a file in one step: what stands at the path is the old file or the whole new one, never a part of it.

The bytes go to a hidden file in the same directory, are flushed to the device, are read back if asked, and only then
take the name.  The order (write, fsync, rename, fsync of the directory) is the one POSIX file systems ask for; see
`man 2 rename`, and T. S. Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014.

A process that is killed leaves `.NAME.HEX.partial` behind.  While it works it holds a lock on that file, and the next
save to the same name removes what nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast, final

from loadstone.errors import Diagnostic, LoadstoneError, SaveError
from loadstone.io.disk import disk

if sys.platform != "win32":
    import fcntl

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_CANNOT = frozenset((errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS))  # the file system has no such thing
_RESERVE_NBYTES = 1024 * 1024  # smaller files are written as fast as room for them is set aside


@final
class NewFile:
    """A file while it is written, beside the place that it will take."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.nbytes = 0
        self._descriptor = descriptor

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """All of the bytes, behind those that are there."""
        rest = memoryview(data).cast("B")
        nbytes = rest.nbytes
        while rest.nbytes:
            with contextlib.suppress(InterruptedError):
                rest = rest[_some(disk().write(self._descriptor, rest)) :]
        self.nbytes += nbytes
        return nbytes

    def write_at(self, data: bytes, offset: int) -> None:
        """All of the bytes, over those that are there."""
        rest = memoryview(data)
        while rest.nbytes:
            with contextlib.suppress(InterruptedError):
                count = _some(disk().write_at(self._descriptor, rest, offset))
                rest, offset = rest[count:], offset + count

    def start_writeback(self) -> None:
        """Have the kernel begin to bring what is there to the device; Linux does so where it is told to forget it."""
        disk().forget(self._descriptor)


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str], *, nbytes: int = 0, check: Callable[[Path], object] | None = None
) -> Iterator[NewFile]:
    """A file that becomes `path` when the block ends well, and leaves no trace when it does not.

    Args:
        path: a symbolic link stays one, and the file it points to is replaced.  A file that is replaced keeps its
            permissions; a new one gets those of the umask.
        nbytes: how large it will be; the room is set aside before anything is written.
        check: called with the path of the whole file, once it is on the device and before it takes the name; by
            raising it keeps it from doing so.

    Raises SaveError (no-space, save-failed) where the operating system refuses.  Then the old file is untouched; but
    for the one case of which the message says that the new file is there and that its name may not survive.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = _mode_for(target)
        if nbytes:
            check_space(path, nbytes)
        _sweep(target)
        partial, descriptor, lock = _locked_partial(target)
    except SaveError:
        raise
    except OSError as error:
        raise save_error(path, error) from error
    is_open = True
    try:
        if nbytes >= _RESERVE_NBYTES:
            reserve(descriptor, nbytes)
        yield NewFile(partial, descriptor)
        if mode is not None:
            disk().set_mode(descriptor, mode)
        disk().sync(descriptor)
        is_open = False  # whatever close says, the descriptor is gone
        disk().close(descriptor)
        if check is not None:
            check(partial)
        disk().rename(partial, target)
    except BaseException as error:
        if is_open:
            with contextlib.suppress(OSError):
                disk().close(descriptor)
        with contextlib.suppress(OSError):
            disk().remove(partial)
        if isinstance(error, OSError) and not isinstance(error, LoadstoneError):
            raise save_error(path, error) from error
        raise
    finally:
        if lock is not None:
            os.close(lock)
    sync_name(path, target)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, check: Callable[[Path], object] | None = None) -> Iterator[BinaryIO]:
    """`new_file` as a binary file, for writers that want one; buffered."""
    with new_file(path, check=check) as new:
        file = io.BufferedWriter(cast(io.RawIOBase, _Raw(new)))
        yield file
        file.flush()


def check_space(path: str | os.PathLike[str], nbytes: int) -> None:
    """Raise SaveError (no-space) unless `nbytes` more bytes can be written beside `path`."""
    free = disk().free_nbytes(Path(os.path.realpath(path)).parent)
    if nbytes > free:
        message = f"`{os.fspath(path)}` needs {nbytes:,} bytes and the disk has {free:,}; nothing was written"
        evidence = (("needed", f"{nbytes:,} bytes"), ("free", f"{free:,} bytes"))
        raise SaveError(Diagnostic("no-space", message, evidence))


def flush_directory(folder: Path) -> None:
    """Make the names in it durable, where the file system can."""
    with contextlib.suppress(OSError):
        disk().sync_folder(folder)


@final
class _Raw(io.RawIOBase):
    def __init__(self, new: NewFile) -> None:
        self._new = new

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._new.write(cast(memoryview, data))


def _some(count: int) -> int:
    """A write that took nothing and raised nothing would be asked for ever."""
    if count <= 0:
        raise OSError(errno.EIO, "the operating system took no bytes")
    return count


def _mode_for(target: Path) -> int | None:
    """Permissions of the file that will be replaced; None where there is none yet."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(target))
    return stat.S_IMODE(status.st_mode)


def reserve(descriptor: int, nbytes: int) -> None:
    """Set room aside where the file system can; raises OSError where there is none."""
    try:
        disk().reserve(descriptor, nbytes)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def _locked_partial(target: Path) -> tuple[Path, int, int | None]:
    """A new file beside the target, its descriptor, and the one that holds its lock; None where there are no locks."""
    while True:
        partial = partial_beside(target)
        descriptor = disk().create(partial)
        lock = lock_on(partial, is_waiting=True)
        if lock is not None or partial.exists():
            return partial, descriptor, lock
        disk().close(descriptor)  # another save swept it before it was locked


def lock_on(path: Path, *, is_waiting: bool = False) -> int | None:
    """The descriptor of a file that is there and that nobody else holds; else None."""
    if sys.platform == "win32":  # leftovers stay, saves work
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def partial_beside(target: Path) -> Path:
    """A name beside the target that no reader lists, and that is known for a leftover should its writer be killed."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")


def leftovers(target: Path) -> Iterator[Path]:
    """What killed saves to this name left behind, files and folders; each is locked until the next one is asked for."""
    leftover = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.partial")
    try:
        names = [name for name in os.listdir(target.parent) if leftover.fullmatch(name)]
    except OSError:
        return
    for name in names:
        path = target.with_name(name)
        if (lock := lock_on(path)) is not None:
            try:
                yield path
            finally:
                os.close(lock)


def _sweep(target: Path) -> None:
    """Remove the files among the leftovers."""
    for path in leftovers(target):
        if path.is_file():
            with contextlib.suppress(OSError):
                disk().remove(path)


def sync_name(path: str | os.PathLike[str], target: Path) -> None:
    """Make the new name durable; where that goes wrong, nothing can be taken back."""
    try:
        disk().sync_folder(target.parent)
    except OSError as error:
        if error.errno in _CANNOT:
            return
        why = error.strerror or error
        message = f"`{os.fspath(path)}` is there and whole, but its name may not survive a power cut: {why}"
        raise SaveError(Diagnostic("save-failed", message)) from error


def save_error(path: str | os.PathLike[str], error: OSError) -> SaveError:
    """The error of the operating system as one of ours."""
    code = "no-space" if error.errno in _NO_SPACE else "save-failed"
    message = f"writing `{os.fspath(path)}`: {error.strerror or error}; what was there before is untouched"
    return SaveError(Diagnostic(code, message))
