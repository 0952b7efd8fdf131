"""Where a file keeps the digest of itself, and one pass over the file that compares it.

The digest is over all bytes of the file, its own 32 digits taken as zeros.  It stands in the comment of a torch zip
(`loadstone xxh3-128:…`) and in `__metadata__["loadstone.file"]` of a safetensors file.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadstone.errors import Diagnostic, IntegrityError
from loadstone.io.digests import DIGITS, PREFIX, UNKNOWN, Digest, is_digest
from loadstone.io.disk import disk
from loadstone.io.sources import missing_file
from loadstone.manifest import COMMENT, FILE_ENTRY

_PIECE_NBYTES = 1024 * 1024  # stays in a core's cache between the read and the digest
_END = struct.Struct("<4s4H2IH")  # the end of a zip's directory, its comment behind it
_COMMENT_NBYTES = len(COMMENT) + len(UNKNOWN)
_SAFETENSORS_START = f'"{FILE_ENTRY}":"{PREFIX}'.encode()
_MAX_HEADER_NBYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Mark:
    """The digest that a file says it has, and where its digits stand."""

    digest: str
    offset: int


def mark_in(descriptor: int) -> Mark | None:
    """The file's own digest, where it has one; raises OSError."""
    size = os.fstat(descriptor).st_size
    in_zip = _in_zip(descriptor, size)  # whatever the first bytes are: they may be what is damaged
    return _in_safetensors(descriptor, size) if in_zip is None else in_zip


def mark_of(path: str | os.PathLike[str]) -> Mark | None:
    """The file's own digest, where it has one; raises IntegrityError (io-error)."""
    with _descriptor_of(path) as descriptor:
        return mark_in(descriptor)


def digest_now(path: str | os.PathLike[str], mark: Mark | None = None) -> str:
    """The digest of the bytes that the device gives now, with zeros for the digits of `mark`.

    Raises IntegrityError (io-error).
    """
    with _descriptor_of(path) as descriptor:
        disk().forget(descriptor)  # what the disk holds is asked for, not what is in memory
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # so that the kernel reads further ahead
        running = Digest()
        position = 0
        buffer = memoryview(bytearray(_PIECE_NBYTES))
        while count := os.readv(descriptor, [buffer]):
            piece = buffer[:count]
            if mark is not None:
                _blank(piece, mark.offset - position)
            running.update(piece)
            position += count
        return str(running)


def _blank(piece: memoryview, place: int) -> None:
    """Zeros for the digits that start at `place`, as far as they are in this piece."""
    first, last = max(place, 0), min(place + DIGITS, piece.nbytes)
    if first < last:
        piece[first:last] = b"0" * (last - first)


@contextlib.contextmanager
def _descriptor_of(path: str | os.PathLike[str]) -> Iterator[int]:
    """The file open for reading; errors of the operating system become ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise missing_file(Path(path)) from error
    except OSError as error:
        raise IntegrityError(Diagnostic("io-error", f"reading `{path}`: {error.strerror or error}")) from error


def _in_zip(descriptor: int, size: int) -> Mark | None:
    start = size - _COMMENT_NBYTES - _END.size
    tail = os.pread(descriptor, _COMMENT_NBYTES + _END.size, max(start, 0))
    if start < 0 or not tail.startswith(b"PK\5\6") or _END.unpack_from(tail)[-1] != _COMMENT_NBYTES:
        return None
    comment = tail[_END.size :].decode("latin-1")
    own = comment.removeprefix(COMMENT)
    return Mark(own, size - DIGITS) if comment.startswith(COMMENT) and is_digest(own) else None


def _in_safetensors(descriptor: int, size: int) -> Mark | None:
    """A quote inside a text of the header is escaped, so that these bytes can only be the entry itself."""
    header_nbytes = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if not 2 <= header_nbytes <= min(_MAX_HEADER_NBYTES, size - 8):
        return None
    header = os.pread(descriptor, header_nbytes, 8)
    place = header.find(_SAFETENSORS_START)
    if place < 0 or header.find(_SAFETENSORS_START, place + 1) >= 0:
        return None
    first = place + len(_SAFETENSORS_START)
    own = PREFIX + header[first : first + DIGITS].decode("latin-1")
    return Mark(own, 8 + first) if is_digest(own) else None
