"""One process writes the checkpoints of a run: whoever comes second is told, and nothing is mixed.

The lease is a POSIX record lock on `.NAME.lock` in the run's directory.  It belongs to the process and to nothing else:
it is gone when the process is, however that ends, and processes that were forked from it (a DataLoader's workers, which
may outlive it for some seconds) do not hold it.  Several `Run`s of one process share it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import final

from loadstone.errors import Diagnostic, SaveError
from loadstone.io.disk import disk

if sys.platform != "win32":
    import fcntl


@final
class Lease:
    """The right to write one run; `release` gives it back, once for each `hold` that gave one."""

    def __init__(self, key: tuple[int, str], descriptor: int) -> None:
        self._key = key
        self._descriptor = descriptor
        self.holders = 1

    def release(self) -> None:
        """Let another process write, once nobody in this one holds it any more."""
        self.holders -= 1
        if self.holders == 0 and self._key[0] == os.getpid():
            del _held[self._key]
            os.close(self._descriptor)


_held: dict[tuple[int, str], Lease] = {}  # by process and path: any descriptor of the file that is closed lets go


def hold(folder: Path, name: str) -> Lease | None:
    """Be the one process that writes the run called `name` in `folder`, until the lease is released.

    None where there are no locks of that kind; then nothing is checked.  Raises SaveError (run-in-use) where another
    process writes it.
    """
    if sys.platform == "win32":
        return None
    path = Path(os.path.realpath(folder)) / f".{name}.lock"
    key = os.getpid(), os.fspath(path)
    if key in _held:
        _held[key].holders += 1
        return _held[key]
    try:
        with contextlib.suppress(FileExistsError):
            disk().close(disk().create(path))
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SaveError(Diagnostic("save-failed", f"locking `{path}`: {error.strerror or error}")) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        message = f"another process writes the run `{name}` in `{folder}`; nothing was written here"
        raise SaveError(Diagnostic("run-in-use", message, (("lock", os.fspath(path)),))) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    _held[key] = Lease(key, descriptor)
    return _held[key]
