"""Byte sources: something of known size that can be read at any place.

Readers know nothing of files.  They are given a ByteSource: a file, bytes in memory, or a slice of another source
(a checkpoint inside an archive).  A read gives exactly the bytes asked for or raises IntegrityError.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import Protocol, final

from loadstone.errors import Diagnostic, Fix, IntegrityError, MissingFileError


class ByteSource(Protocol):
    """Bytes of known size, readable at any offset, by several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it, for example the path."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; raises IntegrityError where the source ends before."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (contiguous, writable, of bytes) from `offset`; raises IntegrityError where the source ends."""

    def view(self, offset: int, nbytes: int) -> memoryview:
        """The bytes without reading them now: private to the caller, writable, never written back."""

    def close(self) -> None:
        """Give back what the operating system holds for it.  Views that are still in use stay valid."""


@final
class FileSource:
    """A regular file, read with pread so that threads may share it, and mapped only when a view is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = os.fspath(path)
        self._mapping: mmap.mmap | None = None
        try:
            # not blocking, so that a pipe that nobody writes to is refused instead of waited for
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise _opening_failed(self.path, error) from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise IntegrityError(Diagnostic("io-error", f"`{path}` is a pipe or a device, not a regular file"))
        self.size = status.st_size

    def read(self, offset: int, nbytes: int) -> bytes:
        self._check(offset, nbytes)
        try:
            data = os.pread(self._descriptor, nbytes, offset)
        except OSError as error:
            raise self._failed(offset, nbytes, error) from error
        if len(data) == nbytes:
            return data
        buffer = bytearray(nbytes)  # a short read: the rest comes in pieces
        buffer[: len(data)] = data
        self.read_into(offset + len(data), memoryview(buffer)[len(data) :])
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        nbytes = buffer.nbytes
        self._check(offset, nbytes)
        done = 0
        while done < nbytes:
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise self._failed(offset + done, nbytes - done, error) from error
            if count == 0:
                raise _ends_early(self.name, offset + nbytes, offset + done)
            done += count

    def view(self, offset: int, nbytes: int) -> memoryview:
        self._check(offset, nbytes)
        if nbytes == 0:
            return memoryview(bytearray())
        if self._mapping is None:
            try:
                self._mapping = mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_COPY)
            except OSError as error:
                raise self._failed(0, self.size, error) from error
        return memoryview(self._mapping)[offset : offset + nbytes]

    def current_size(self) -> int:
        """Number of bytes the file has now; it may have been cut or have grown since it was opened."""
        self._check(0, 0)
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._mapping = None  # unmapped when the last view of it is gone

    def _check(self, offset: int, nbytes: int) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise _ends_early(self.name, offset + nbytes, self.size)
        if self._descriptor < 0:
            raise IntegrityError(
                Diagnostic(
                    "io-error",
                    f"`{self.name}` is closed, its tensors can no longer be read",
                    fixes=(Fix("read inside the `with`", "with loadstone.open(path) as checkpoint: ..."),),
                )
            )

    def _failed(self, offset: int, nbytes: int, error: OSError) -> IntegrityError:
        return IntegrityError(
            Diagnostic(
                "io-error",
                f"reading {nbytes:,} bytes at {offset:,} of `{self.name}`: {error.strerror or error}",
            )
        )


@final
class MemorySource:
    """Bytes that are already in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str) -> None:
        self._data = memoryview(data).cast("B")
        self.name = name
        self.size = self._data.nbytes

    def read(self, offset: int, nbytes: int) -> bytes:
        return bytes(self._slice(offset, nbytes))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._slice(offset, buffer.nbytes)

    def view(self, offset: int, nbytes: int) -> memoryview:
        return memoryview(bytearray(self._slice(offset, nbytes)))

    def close(self) -> None:
        pass

    def _slice(self, offset: int, nbytes: int) -> memoryview:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise _ends_early(self.name, offset + nbytes, self.size)
        return self._data[offset : offset + nbytes]


@final
class SliceSource:
    """A part of another source, seen as a source of its own: a file inside an archive."""

    def __init__(self, parent: ByteSource, offset: int, nbytes: int, name: str) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > parent.size:
            raise _ends_early(parent.name, offset + nbytes, parent.size)
        self.parent = parent
        self._offset = offset
        self.name = name
        self.size = nbytes

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.parent.read(self._place(offset, nbytes), nbytes)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.parent.read_into(self._place(offset, buffer.nbytes), buffer)

    def view(self, offset: int, nbytes: int) -> memoryview:
        return self.parent.view(self._place(offset, nbytes), nbytes)

    def close(self) -> None:
        pass  # the parent belongs to whoever opened it

    def _place(self, offset: int, nbytes: int) -> int:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise _ends_early(self.name, offset + nbytes, self.size)
        return self._offset + offset


def _ends_early(name: str, expected: int, found: int) -> IntegrityError:
    return IntegrityError(
        Diagnostic(
            "truncated-file",
            f"`{name}` ends {expected - found:,} bytes early",
            evidence=(("expected", f"{expected:,} bytes"), ("found", f"{found:,} bytes")),
        )
    )


def _opening_failed(path: Path, error: OSError | ValueError) -> IntegrityError:
    """ValueError is what `os.open` says of a name that no file can have, one with a zero byte for example."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return missing_file(path)
    return IntegrityError(Diagnostic("io-error", f"opening `{path}`: {error.strerror or error}"))


def missing_file(path: Path) -> MissingFileError:
    """The error for a path that is not there, with the names in its directory that come nearest."""
    from difflib import get_close_matches  # 3 ms, and only when something is wrong

    try:
        siblings = sorted(entry.name for entry in path.parent.iterdir())
    except (OSError, ValueError):
        siblings = []
    near = get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    evidence = (("looked in", str(path.parent)), *(("near", name) for name in near))
    return MissingFileError(Diagnostic("file-not-found", f"there is no file `{path}`", evidence))


def changed_size(source: ByteSource) -> int | None:
    """The size now of a file that has another one than when it was opened; None where nothing changed."""
    while isinstance(source, SliceSource):
        source = source.parent
    if not isinstance(source, FileSource):
        return None
    size = source.current_size()
    return None if size == source.size else size
