"""A new folder of files, there as a whole or not at all.

It is filled beside its place, under a name that no reader lists; every file is flushed, read back from the device and
compared, and only then does the folder take its name, which nobody else may have.  Files can be links to those of an
older folder: they are read and compared before they count, so that damage is not handed on.

A process that is killed leaves `.NAME.HEX.partial` behind.  While it works it holds a lock on that folder, and the next
save to the same name removes what nobody holds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from loadstone.errors import Diagnostic, LoadstoneError, SaveError
from loadstone.io.digests import UNKNOWN, Digest, digest
from loadstone.io.disk import disk
from loadstone.io.replace import NewFile, leftovers, lock_on, partial_beside, reserve, save_error, sync_name

SELF_KEY = "file"
_SELF_START = b'{"file":"'  # the digest of the file itself stands first, where it is found without parsing
_READ_ONLY = 0o444  # of a file that several folders may share: whoever wrote to it would change them all
_USUAL = 0o666
_PIECE_NBYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a folder: its size, and the digest of all its bytes."""

    nbytes: int
    digest: str


class DamagedLinkError(Exception):
    """A file that was to be linked is gone, or is not what was written."""


@final
class NewFolder:
    """A folder while it is filled.  `files` are those that are in it and on the device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, Listed] = {}
        self.linked: set[str] = set()  # of these files, those that have been read back

    def write(self, name: str, nbytes: int, pieces: Iterable[bytes | memoryview], *, is_shared: bool = False) -> Listed:
        """A new file out of `pieces`, `nbytes` bytes in all, flushed; read-only where later folders may link to it."""
        running = Digest()
        descriptor = disk().create(self.path / name, _READ_ONLY if is_shared else _USUAL)
        try:
            reserve(descriptor, nbytes)
            file = NewFile(self.path / name, descriptor)
            for piece in pieces:
                running.update(piece)
                file.write(piece)
            disk().sync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                disk().close(descriptor)
            raise
        disk().close(descriptor)
        self.files[name] = Listed(nbytes, str(running))
        return self.files[name]

    def link(self, source: Path, name: str, listed: Listed) -> None:
        """A second name for a file of another folder, once its bytes are seen to be those of `listed`.

        Raises DamagedLinkError where they are not (the folder is to be emptied then); OSError where the file system
        makes no links.
        """
        if source.is_symlink():
            raise DamagedLinkError(f"`{source}` is a symbolic link")
        try:
            disk().link(source, self.path / name)
        except FileNotFoundError as error:
            raise DamagedLinkError(f"`{source}` is not there any more") from error
        self.files[name] = listed
        try:
            found = self.reread(name)
        except OSError as error:
            raise DamagedLinkError(f"`{source}` cannot be read: {error.strerror or error}") from error
        if found != listed:
            raise DamagedLinkError(f"`{source}` is damaged: {found.digest} instead of {listed.digest}")
        self.linked.add(name)

    def empty(self) -> None:
        """Take all files out again."""
        for name in list(self.files):
            disk().remove(self.path / name)
            del self.files[name]
        self.linked.clear()

    def reread(self, name: str) -> Listed:
        """What the device gives for the file now."""
        running = Digest()
        nbytes = 0
        buffer = memoryview(bytearray(_PIECE_NBYTES))
        descriptor = os.open(self.path / name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            disk().forget(descriptor)
            while count := os.readv(descriptor, [buffer]):
                running.update(buffer[:count])
                nbytes += count
        finally:
            os.close(descriptor)
        return Listed(nbytes, str(running))


@contextlib.contextmanager
def new_folder(path: Path, *, verify: bool = True) -> Iterator[NewFolder]:
    """A folder that takes the name `path` when the block ends well, and leaves no trace when it does not.

    `verify`: what was written in the block is read back from the device and compared; what was linked has been.

    Raises SaveError: destination-exists, no-space, save-failed, verification-failed.
    """
    target = Path(os.path.abspath(path))
    _refuse_occupied(target)
    _sweep(target)
    try:
        partial, lock = _locked_partial(target)
    except OSError as error:
        raise save_error(path, error) from error
    folder = NewFolder(partial)
    try:
        yield folder
        disk().sync_folder(partial)
        if verify:
            _verify(folder, path)
        _refuse_occupied(target)
        disk().rename(partial, target)
    except BaseException as error:
        _discard(partial)
        if isinstance(error, OSError) and not isinstance(error, LoadstoneError):
            raise save_error(path, error) from error
        raise
    finally:
        _unlock(lock)
    sync_name(path, target)


def sealed(text: str) -> tuple[bytes, str]:
    """The JSON object of `text` with its own digest in front, `{"file": "xxh3-128:…", …`, and that digest.

    The digest is of all the bytes with its own digits as zeros.
    """
    data = _SELF_START + UNKNOWN.encode() + b'",' + text.encode("utf-8", "surrogatepass").removeprefix(b"{")
    own = digest(data)
    return data.replace(UNKNOWN.encode(), own.encode(), 1), own


def own_digest(data: bytes) -> tuple[str, str] | None:
    """What `sealed` bytes say their digest is, and what it is; None where they say nothing."""
    start, stop = len(_SELF_START), len(_SELF_START) + len(UNKNOWN)
    if not data.startswith(_SELF_START):
        return None
    return data[start:stop].decode("latin-1"), digest(data[:start] + UNKNOWN.encode() + data[stop:])


def _refuse_occupied(target: Path) -> None:
    if os.path.lexists(target):
        raise SaveError(
            Diagnostic("destination-exists", f"`{target}` is already there; a folder is never written over another")
        )


def _verify(folder: NewFolder, path: Path) -> None:
    written = {name: listed for name, listed in folder.files.items() if name not in folder.linked}
    wrong = {name: found for name, listed in written.items() if (found := folder.reread(name)) != listed}
    if wrong:
        name, found = next(iter(wrong.items()))
        raise SaveError(
            Diagnostic(
                "verification-failed",
                f"`{name}` of `{path}` reads back otherwise than it was written; nothing was left there",
                evidence=(("written", folder.files[name].digest), ("read back", found.digest)),
            )
        )


def _locked_partial(target: Path) -> tuple[Path, int | None]:
    """A new empty folder beside the target, and the descriptor that holds its lock; None where there are no locks."""
    while True:
        partial = partial_beside(target)
        disk().make_folder(partial)
        lock = lock_on(partial, is_waiting=True)
        if lock is not None or partial.is_dir():
            return partial, lock  # else another save swept it before it was locked


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _sweep(target: Path) -> None:
    """Remove the folders among what killed saves to this name left behind."""
    for folder in leftovers(target):
        if folder.is_dir():
            _discard(folder)


def _discard(folder: Path) -> None:
    """Remove a partial folder, as far as the disk lets us; it holds files only."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                disk().remove(folder / name)
        disk().remove_folder(folder)
