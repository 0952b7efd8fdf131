"""A disk that is really full: a small tmpfs, with room that ends at every place of a save."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadstone.errors import SaveError
from reliability.contenders import Contender, step_of

_DISK = 64 * 1024 * 1024
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Filled:
    """Saves onto a full disk: how many were tried, were refused, lost the old checkpoint, left litter, or broke off
    with an error that is not ours; and an example of what went wrong."""

    contender: str
    tried: int
    refused: int
    lost: int
    litter: int
    untyped: int
    example: str = ""


class NotRootError(Exception):
    """Mounting needs root."""


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[Path]:
    """A file system of its own until the block ends.  Raises NotRootError where it cannot be mounted."""
    with tempfile.TemporaryDirectory(prefix="loadstone-mount-") as name:
        done = subprocess.run(["mount", *arguments, name], capture_output=True, text=True)
        if done.returncode:
            raise NotRootError(f"mount: {done.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def fill(contender: Contender, *, every: int = 1) -> Filled:
    """Save with 0, 1, 2 ... free pages, until it is enough for three saves in a row."""
    counts = {"tried": 0, "refused": 0, "lost": 0, "litter": 0, "untyped": 0}
    example, pages, in_a_row = "", 0, 0
    with mounted("-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs") as disk:
        while in_a_row < 3:
            folder = disk / f"run{pages}"
            folder.mkdir()
            contender.save(folder, 1)
            names = {path.name for path in folder.rglob("*")}
            stuffing = disk / "stuffing"
            free = os.statvfs(disk).f_bavail * _PAGE
            with stuffing.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(free - pages * _PAGE, 1))
            counts["tried"] += 1
            broken, in_a_row = [], in_a_row + 1
            try:
                contender.save(folder, 2)
            except Exception as error:
                in_a_row = 0
                counts["refused"] += 1
                if not isinstance(error, SaveError):
                    broken.append("untyped")
                if {path.name for path in folder.rglob("*")} - names:
                    broken.append("litter")
            stuffing.unlink()
            try:
                step = step_of(contender.load(folder))
            except Exception:
                step = -1
            if step not in ((1, 2) if in_a_row == 0 else (2,)):
                broken.append("lost")
            for what in broken:
                counts[what] += 1
            example = example or (f"{', '.join(broken)} with {pages} pages" if broken else "")
            subprocess.run(["rm", "-r", str(folder)], check=True)
            pages += every
    return Filled(contender.name, **counts, example=example)
