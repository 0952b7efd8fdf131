"""Replace a file in one step: what stands at the path is the old file or the whole new one, never a part of it.

The bytes go to a hidden file in the same directory, are flushed to the disk, and only then take the name.
The order (write, fsync, rename, fsync of the directory) is the one POSIX file systems ask for; see `man 2 rename`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from loadstone.errors import Diagnostic, SaveError

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, check: Callable[[Path], object] | None = None) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    `check` is called with the path of the whole file before it takes the name, and by raising keeps it from doing so.

    A file that is replaced keeps its permissions; a new one gets those of the umask.  A symbolic link stays one: the
    file it points to is replaced.

    Raises SaveError (no-space, save-failed) where the operating system refuses; then the old file is untouched.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        mode = _mode_for(target)
        # os.open and not tempfile: the umask, not 0600, decides about a new file
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise _save_error(Path(path), error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, SaveError):
            raise _save_error(Path(path), error) from error
        raise
    flush_directory(target.parent)


def _mode_for(target: Path) -> int | None:
    """Permissions of the file that will be replaced; None where there is none yet."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(target))
    return stat.S_IMODE(status.st_mode)


def flush_directory(folder: Path) -> None:
    """Make the new name durable.  Some file systems refuse; the file itself is on the disk by then."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _save_error(path: Path, error: OSError) -> SaveError:
    code = "no-space" if error.errno in _NO_SPACE else "save-failed"
    return SaveError(
        Diagnostic(code, f"writing `{path}`: {error.strerror or error}; what was there before is untouched")
    )
