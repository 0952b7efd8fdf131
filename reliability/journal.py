"""Journal: what a save asked of the file system, in order, as plain data that crashes.py can cut off anywhere.

Files and directories are numbered (inodes), names are entries of a directory: so a directory that is renamed takes
along what is in it, and a linked file has one content under two names.  Two sources feed a journal: `Recorder`, which
stands in for Loadstone's own disk, and the system calls of any other process (tracing.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from loadstone.io.disk import Disk

ROOT = 0  # the inode of the directory that is watched

Entry: TypeAlias = tuple[int, str]  # the inode of a directory, and a name in it


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes into a file."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file now ends after so many bytes; new ones are zero."""

    inode: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Sync:
    """The bytes of a file are on the device when this returns."""

    inode: int


@dataclass(frozen=True, slots=True)
class Names:
    """Entries that change in one step; None takes the name away."""

    changes: tuple[tuple[Entry, int | None], ...]


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """The entries of a directory are on the device when this returns."""

    inode: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The save of this step returned: from here on it may not be lost."""

    step: int


Operation: TypeAlias = Write | Resize | Sync | Names | SyncFolder | Acknowledged


@dataclass(slots=True)
class Journal:
    """The operations under one directory so far, and the tree that they make.

    Attributes:
        root: the directory; what happens elsewhere is not recorded.
        before: the entries that were there at the start.
        contents: the bytes that the files had at the start, by inode; a directory has none.
        operations: what happened.
    """

    root: Path
    before: dict[Entry, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    entries: dict[Entry, int] = field(default_factory=dict)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    _inodes: int = ROOT

    @classmethod
    def of(cls, root: Path) -> Journal:
        """A journal that starts with what is in `root` now."""
        journal = cls(root)
        known: dict[int, int] = {}  # so that hard links are one inode here too
        for path in sorted(root.rglob("*")):
            number = known.setdefault(path.stat().st_ino, journal._inodes + 1)
            journal._inodes = max(number, journal._inodes)
            if path.is_dir():
                journal.folders.add(number)
            else:
                journal.contents[number] = path.read_bytes()
            journal.entries[journal._entry(path)] = number
        journal.before = dict(journal.entries)
        return journal

    def create(self, path: Path) -> int | None:
        """A new empty file; its inode, or None where the path is not under the root."""
        return self._new(path)

    def make_folder(self, path: Path) -> None:
        number = self._new(path)
        if number is not None:
            self.folders.add(number)

    def find(self, path: Path) -> int | None:
        """The inode at a path; None where there is none, or the path is not under the root."""
        inode = ROOT
        if not path.is_relative_to(self.root):
            return None
        for name in path.relative_to(self.root).parts:
            found = self.entries.get((inode, name))
            if found is None:
                return None
            inode = found
        return inode

    def write(self, inode: int, offset: int, data: bytes) -> None:
        self.operations.append(Write(inode, offset, data))

    def resize(self, inode: int, nbytes: int) -> None:
        self.operations.append(Resize(inode, nbytes))

    def sync(self, inode: int) -> None:
        self.operations.append(SyncFolder(inode) if inode in self.folders else Sync(inode))

    def rename(self, source: Path, target: Path) -> None:
        inode = self.find(source)
        if inode is not None:
            self._change(((self._entry(source), None), (self._entry(target), inode)))

    def link(self, source: Path, target: Path) -> None:
        inode = self.find(source)
        if inode is not None:
            self._change(((self._entry(target), inode),))

    def remove(self, path: Path) -> None:
        if self.find(path) is not None:
            self._change(((self._entry(path), None),))

    def acknowledge(self, step: int) -> None:
        self.operations.append(Acknowledged(step))

    def _entry(self, path: Path) -> Entry:
        folder = self.find(path.parent)
        if folder is None:
            raise LookupError(f"{path.parent} appeared without a call that made it")
        return folder, path.name

    def _new(self, path: Path) -> int | None:
        if not path.is_relative_to(self.root):
            return None
        self._inodes += 1
        self._change(((self._entry(path), self._inodes),))
        return self._inodes

    def _change(self, changes: tuple[tuple[Entry, int | None], ...]) -> None:
        self.operations.append(Names(changes))
        apply_names(self.entries, changes)


def apply_names(entries: dict[Entry, int], changes: tuple[tuple[Entry, int | None], ...]) -> None:
    """Carry out changes of names."""
    for entry, inode in changes:
        if inode is None:
            entries.pop(entry, None)
        else:
            entries[entry] = inode


def apply_data(content: bytes, operation: Write | Resize) -> bytes:
    """What a file holds after a change of its bytes."""
    match operation:
        case Write(_, offset, data):
            return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
        case Resize(_, nbytes):
            return content[:nbytes].ljust(nbytes, b"\0")


def paths_of(entries: Mapping[Entry, int], folders: set[int]) -> dict[str, int | None]:
    """The relative path of everything that the root leads to: a file's inode, None for a directory."""
    by_folder: dict[int, list[tuple[str, int]]] = {}
    for (folder, name), inode in entries.items():
        by_folder.setdefault(folder, []).append((name, inode))
    found: dict[str, int | None] = {}
    waiting = [(ROOT, "")]
    while waiting:
        folder, prefix = waiting.pop()
        for name, inode in by_folder.get(folder, ()):
            found[prefix + name] = None if inode in folders else inode
            if inode in folders:
                waiting.append((inode, f"{prefix}{name}/"))
    return found


def disagreements(journal: Journal) -> list[str]:
    """Paths where the journal, carried out, is not what is on the disk: then it missed a call and proves nothing."""
    contents = dict(journal.contents)
    for operation in journal.operations:
        if isinstance(operation, Write | Resize):
            contents[operation.inode] = apply_data(contents.get(operation.inode, b""), operation)
    expected = {
        path: None if inode is None else contents.get(inode, b"")
        for path, inode in paths_of(journal.entries, journal.folders).items()
    }
    actual = {
        str(path.relative_to(journal.root)): None if path.is_dir() else path.read_bytes()
        for path in journal.root.rglob("*")
    }
    return sorted(path for path in expected.keys() | actual.keys() if expected.get(path, 0) != actual.get(path, 0))


class Recorder(Disk):
    """The disk, with every change written down once it is done."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._open: dict[int, int] = {}  # descriptor -> inode
        self._ends: dict[int, int] = {}  # descriptor -> where `write` goes on

    def create(self, path: Path, mode: int = 0o666) -> int:
        descriptor = super().create(path, mode)
        inode = self.journal.create(path)
        if inode is not None:
            self._open[descriptor], self._ends[descriptor] = inode, 0
        return descriptor

    def reserve(self, descriptor: int, nbytes: int) -> None:
        super().reserve(descriptor, nbytes)
        if descriptor in self._open and nbytes:
            self.journal.resize(self._open[descriptor], nbytes)

    def write(self, descriptor: int, data: memoryview | bytes) -> int:
        written = super().write(descriptor, data)
        if descriptor in self._open:
            offset = self._ends[descriptor]
            self.journal.write(self._open[descriptor], offset, bytes(memoryview(data).cast("B")[:written]))
            self._ends[descriptor] = offset + written
        return written

    def write_at(self, descriptor: int, data: memoryview | bytes, offset: int) -> int:
        written = super().write_at(descriptor, data, offset)
        if descriptor in self._open:
            self.journal.write(self._open[descriptor], offset, bytes(memoryview(data).cast("B")[:written]))
        return written

    def cut(self, descriptor: int, nbytes: int) -> None:
        super().cut(descriptor, nbytes)
        if descriptor in self._open:
            self.journal.resize(self._open[descriptor], nbytes)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        if descriptor in self._open:
            self.journal.sync(self._open[descriptor])

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._open.pop(descriptor, None)

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.journal.make_folder(path)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        inode = self.journal.find(Path(os.path.abspath(path)))
        if inode is not None:
            self.journal.sync(inode)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.journal.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self.journal.link(source, target)

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.journal.remove(path)

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        self.journal.remove(path)
