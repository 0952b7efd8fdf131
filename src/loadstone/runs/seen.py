"""Which checkpoints this process has verified, so that retention reads again only what it does not know.

What was found is remembered with the file's size, inode and times, and forgotten when one of them changes.  A bit that
flips on the device changes none of them: `verify` asks the device each time, this only spares a run the reading of its
own checkpoints after every save.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias, final

from loadstone.errors import Diagnostic

Stamp: TypeAlias = tuple[tuple[str, int, int, int, int], ...]  # name, size, inode, mtime, ctime of every file


def stamp_of(path: Path) -> Stamp:
    """What tells this file, or folder, from one that took its place; raises OSError where it is gone.

    The ctime of a file in a folder is left out: the next checkpoint that links the file changes it.
    """
    status = os.stat(path)
    if not os.path.isdir(path):
        return (("", status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns),)
    with os.scandir(path) as entries:
        files = [(entry.name, entry.stat()) for entry in entries]
    return tuple(sorted((name, each.st_size, each.st_ino, each.st_mtime_ns, 0) for name, each in files))


@final
class Verified:
    """What was found about each checkpoint, by its path."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, tuple[Diagnostic, ...]]] = {}

    def add(self, path: Path, findings: tuple[Diagnostic, ...] = (), *, stamp: Stamp | None = None) -> None:
        """Remember what verification found: nothing, for a whole one.  `stamp` is from before it was read."""
        self._known[os.path.abspath(path)] = (stamp_of(path) if stamp is None else stamp, findings)

    def findings(self, path: Path, stamp: Stamp) -> tuple[Diagnostic, ...] | None:
        """What was found; None where it was not looked at, or has changed since."""
        known = self._known.get(os.path.abspath(path))
        return known[1] if known is not None and known[0] == stamp else None
