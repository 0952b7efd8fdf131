"""Remove the checkpoints that retention gives up, so that at no moment half of one can be taken for a whole.

Each is renamed to `.trash-…` in its folder, the folder is flushed, and only then its bytes go.  A crash leaves a
`.trash-…` behind, which nobody lists and the next prune sweeps.  A process that has the checkpoint open reads it to
its end, as it was: POSIX keeps a file until the last descriptor is closed.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadstone.errors import Diagnostic
from loadstone.io.disk import disk
from loadstone.runs.facts import locked, protected, read_facts
from loadstone.runs.keep import Decision
from loadstone.runs.listing import TRASH, Entry
from loadstone.runs.seen import stamp_of


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed: paths, and bytes that the disk got back; why others were not, in `diagnostics`."""

    removed: tuple[Path, ...] = ()
    nbytes: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()


def prune(folder: str | os.PathLike[str], decisions: Iterable[Decision]) -> Pruned:
    """Remove what was decided, unless it was pinned, or changed, since.

    What somebody else removed meanwhile is no error.  Raises SaveError where the folder cannot be locked.
    """
    place = Path(folder)
    victims = [decision.entry for decision in decisions if not decision.is_kept]
    with locked(place):
        found = [*sweep(place)]
        facts = read_facts(place)
        if facts.diagnostics:
            return Pruned(diagnostics=(*facts.diagnostics, *found))
        kept = protected(facts)
        removed: list[Path] = []
        nbytes = 0
        for entry in victims:
            if entry.path.name in kept:
                found.append(_left(entry.path, "it was pinned meanwhile, or a run went on from it"))
                continue
            try:
                if stamp_of(entry.path) != entry.stamp:
                    found.append(_left(entry.path, "it has changed since it was judged"))
                    continue
                freed = freed_nbytes([entry])
                delete(entry.path)
            except FileNotFoundError:
                continue
            except OSError as error:
                found.append(_left(entry.path, error.strerror or str(error)))
                continue
            removed.append(entry.path)
            nbytes += freed
    return Pruned(tuple(removed), nbytes, tuple(found))


def delete(path: Path) -> None:
    """Remove one checkpoint, a file or a folder; raises FileNotFoundError where it is gone, OSError."""
    trash = path.with_name(f"{TRASH}{secrets.token_hex(8)}")
    disk().rename(path, trash)
    disk().sync_folder(path.parent)
    _remove(trash)


def sweep(folder: Path) -> list[Diagnostic]:
    """Remove what a crash left of earlier prunes; what cannot be removed is said."""
    found: list[Diagnostic] = []
    for name in sorted(os.listdir(folder)):
        if name.startswith(TRASH):
            try:
                _remove(folder / name)
            except OSError as error:
                found.append(_left(folder / name, error.strerror or str(error)))
    return found


def freed_nbytes(entries: Sequence[Entry]) -> int:
    """Bytes that the disk gets back when all of these go: a file with a name elsewhere stays."""
    names: dict[tuple[int, int], int] = {}
    sizes: dict[tuple[int, int], tuple[int, int]] = {}  # size, names in all
    for entry in entries:
        for file in _files(entry.path):
            try:
                status = os.lstat(file)
            except FileNotFoundError:
                continue
            place = status.st_dev, status.st_ino
            names[place] = names.get(place, 0) + 1
            sizes[place] = status.st_size, status.st_nlink
    return sum(size for place, (size, links) in sizes.items() if names[place] >= links)


def _files(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else [path]
    except FileNotFoundError:
        return []


def _remove(trash: Path) -> None:
    """Remove a file or a flat folder; whoever else does the same meanwhile may be faster."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(trash).st_mode)
        if not is_folder:
            disk().remove(trash)
            return
        for file in _files(trash):
            try:
                disk().remove(file)
            except FileNotFoundError:
                continue
        disk().remove_folder(trash)
    except FileNotFoundError:
        return


def _left(path: Path, why: str) -> Diagnostic:
    return Diagnostic("not-removed", f"`{path.name}` was not removed: {why}")
