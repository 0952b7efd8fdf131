"""A new file whose bytes are digested while they are written, and read back from the device afterwards.

The digests are computed by a second thread from the same memory: XXH3-128 and CRC-32 together take a fifth of the time
that a fast disk takes, and both let other threads run.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, final

from loadstone.errors import Diagnostic, SaveError
from loadstone.io.digests import DIGITS, PREFIX, Digest
from loadstone.io.disk import disk
from loadstone.io.replace import NewFile
from loadstone.io.side import Call, SideThread

_SMALL_NBYTES = 64 * 1024  # below this a system call costs more than moving the bytes once more
_TOGETHER_NBYTES = 1024 * 1024
_AT_WORK = 2  # pieces that wait for their digest; each may be memory that was made for it
_WRITEBACK_NBYTES = 32 * 1024 * 1024  # the device works while the rest is still being written
_AHEAD_NBYTES = 32 * 1024 * 1024
_READ_NBYTES = 1024 * 1024  # stays in a core's cache between the read and the digest

ZEROS = b"0" * DIGITS


@final
class Hashed:
    """Writes into a NewFile, in order.  Use it in a `with`."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._running = Digest()
        self._crc32 = 0
        self._thread = SideThread("loadstone-digest")
        self._at_work: deque[Call[None]] = deque()
        self._small = bytearray()
        self._flushed = 0

    def put(self, data: bytes) -> None:
        """A few bytes."""
        self._small += data
        if len(self._small) >= _TOGETHER_NBYTES:
            self._flush()

    def stream(self, pieces: Iterable[memoryview]) -> int:
        """Many bytes; gives their CRC-32.  The memory of a piece is used until this returns."""
        self._crc32 = 0
        for piece in pieces:
            if piece.nbytes < _SMALL_NBYTES:
                self._wait(0)
                self._crc32 = zlib.crc32(piece, self._crc32)
                self.put(bytes(piece))
            else:
                self._flush()
                self._write(piece, with_crc32=True)
        self._wait(0)
        return self._crc32

    def finish_with_digest(self) -> str:
        """The last 32 bytes: the digest of the whole file, with zeros for these.  Gives the digest."""
        digest = self._digest_with(ZEROS)
        self._file.write(digest.removeprefix(PREFIX).encode())
        return digest

    def put_digest_at(self, offset: int) -> str:
        """The digest of the whole file, over 32 zeros that were put at `offset`.  Gives the digest."""
        digest = self._digest_with(b"")
        self._file.write_at(digest.removeprefix(PREFIX).encode(), offset)
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.__exit__(kind, error, trace)

    def _digest_with(self, last: bytes) -> str:
        self._flush()
        self._wait(0)
        self._running.update(last)
        return str(self._running)

    def _flush(self) -> None:
        if self._small:
            data, self._small = self._small, bytearray()
            self._write(memoryview(data), with_crc32=False)

    def _write(self, piece: memoryview, *, with_crc32: bool) -> None:
        self._wait(_AT_WORK - 1)
        self._at_work.append(self._thread.take(partial(self._take, piece, with_crc32)))
        self._file.write(piece)
        if self._file.nbytes - self._flushed >= _WRITEBACK_NBYTES:
            self._flushed = self._file.nbytes
            self._file.start_writeback()

    def _take(self, piece: memoryview, with_crc32: bool) -> None:
        self._running.update(piece)
        if with_crc32:
            self._crc32 = zlib.crc32(piece, self._crc32)

    def _wait(self, most: int) -> None:
        while len(self._at_work) > most:
            self._at_work.popleft().result()


def check_written(partial: Path, digest: str, offset: int, shown: str) -> None:
    """Read the file back from the device, and raise SaveError (verification-failed) unless it has this digest.

    `offset` is where the file's own digest stands, which counts as zeros.
    """
    running = Digest()
    buffer = memoryview(bytearray(_READ_NBYTES))
    position = asked = 0
    descriptor = os.open(partial, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        disk().forget(descriptor)
        while True:
            asked = _ask_ahead(descriptor, position, asked)
            if not (count := os.readv(descriptor, [buffer])):
                break
            first, last = max(offset - position, 0), min(offset + DIGITS - position, count)
            if first < last:
                said = bytes(buffer[first:last])
                start = position + first - offset
                if said != digest.removeprefix(PREFIX).encode()[start : start + len(said)]:
                    raise _differs(shown, digest, said.decode("latin-1"))
                buffer[first:last] = b"0" * (last - first)
            running.update(buffer[:count])
            position += count
    finally:
        os.close(descriptor)
    if str(running) != digest:
        raise _differs(shown, digest, str(running))


def _ask_ahead(descriptor: int, position: int, asked: int) -> int:
    """Have the kernel read ahead by far more than it would of itself: a device gives twice as much then."""
    if position + _AHEAD_NBYTES <= asked or not hasattr(os, "posix_fadvise"):
        return asked
    os.posix_fadvise(descriptor, asked, 2 * _AHEAD_NBYTES, os.POSIX_FADV_WILLNEED)
    return asked + 2 * _AHEAD_NBYTES


def _differs(shown: str, written: str, found: str) -> SaveError:
    message = f"`{shown}` reads back otherwise than it was written; what was there before is untouched"
    return SaveError(Diagnostic("verification-failed", message, (("written", written), ("read back", found))))
