"""Where bytes of tensors lie: runs in a source (Extent), and the stretches of memory they make up (Storage)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from loadstone.errors import Diagnostic, IntegrityError
from loadstone.io.sources import ByteSource

CHUNK_NBYTES = 4 * 1024 * 1024  # how much is inflated at a time


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes in a source.  `nbytes` is what it takes there, `expanded_nbytes` what it holds."""

    source: ByteSource
    offset: int
    nbytes: int
    expanded_nbytes: int
    is_deflated: bool = False

    @classmethod
    def stored(cls, source: ByteSource, offset: int, nbytes: int) -> Extent:
        """Bytes that lie in the source as they are."""
        return cls(source, offset, nbytes, nbytes)

    def expand(self) -> Iterator[bytes]:
        """The bytes in pieces; raises IntegrityError where a deflate stream is damaged, short or too long."""
        if not self.is_deflated:
            for start in range(0, self.nbytes, CHUNK_NBYTES):
                yield self.source.read(self.offset + start, min(CHUNK_NBYTES, self.nbytes - start))
            return
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # raw deflate, as in zip records
        produced = consumed = 0
        pending = b""
        while True:
            if not pending and consumed < self.nbytes:
                pending = self.source.read(self.offset + consumed, min(CHUNK_NBYTES, self.nbytes - consumed))
                consumed += len(pending)
            try:
                piece = inflater.decompress(pending, min(CHUNK_NBYTES, self.expanded_nbytes - produced + 1))
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            pending = inflater.unconsumed_tail
            produced += len(piece)
            if produced > self.expanded_nbytes:
                raise self._damaged(f"it expands to more than the {self.expanded_nbytes:,} bytes it claims")
            if piece:
                yield piece
            elif inflater.eof or (not pending and consumed == self.nbytes):
                break
        if produced != self.expanded_nbytes:
            raise self._damaged(f"it expands to {produced:,} bytes instead of {self.expanded_nbytes:,}")

    def _damaged(self, why: str) -> IntegrityError:
        return IntegrityError(
            Diagnostic("bad-compression", f"a compressed record of `{self.source.name}` cannot be expanded: {why}")
        )


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """One stretch of memory as the file keeps it; compared by identity, as torch compares storages.

    Attributes:
        name: what the file calls it, for example "archive/data/0".
        nbytes: bytes of memory.
        extents: the runs that hold them, in order.  Their expanded sizes add up to `nbytes`.
        is_big_endian: elements are stored with their bytes reversed.
        location: the device it was saved from, "cpu" or "cuda:0"; never a place that Loadstone would use.
        crc32: the checksum recorded for a single stored extent; None where none was recorded.
    """

    name: str
    nbytes: int
    extents: tuple[Extent, ...]
    is_big_endian: bool = False
    location: str = "cpu"
    crc32: int | None = None

    @property
    def is_raw(self) -> bool:
        """The bytes can be copied from one place of one source as they are (on a little-endian machine)."""
        return len(self.extents) == 1 and not self.extents[0].is_deflated and not self.is_big_endian

    def read_into(self, start: int, buffer: memoryview, *, swap: int = 1) -> None:
        """Fill `buffer` with the bytes from `start` on; `swap` is the unit to reverse if stored big-endian."""
        position = 0  # of the extent in the storage
        stop = start + buffer.nbytes
        for extent in self.extents:
            first, last = max(start, position), min(stop, position + extent.expanded_nbytes)
            if first < last:
                part = buffer[first - start : last - start]
                if extent.is_deflated:
                    _copy_range(extent.expand(), first - position, part)
                else:
                    extent.source.read_into(extent.offset + first - position, part)
            position += extent.expanded_nbytes
        if self.is_big_endian and swap > 1:
            _reverse_units(buffer, swap)

    def view(self, start: int, nbytes: int) -> memoryview:
        """The bytes without reading them now, private and writable; only where `is_raw`."""
        extent = self.extents[0]
        return extent.source.view(extent.offset + start, nbytes)

    def prove(self) -> None:
        """Expand compressed extents once and throw the bytes away, so that a later read cannot fail half way."""
        for extent in self.extents:
            if extent.is_deflated:
                for _ in extent.expand():
                    pass


def _copy_range(pieces: Iterator[bytes], start: int, target: memoryview) -> None:
    """Copy the bytes [start, start + len(target)) of a stream of pieces into target."""
    position = done = 0
    for piece in pieces:
        first = max(start - position, 0)
        part = piece[first : first + target.nbytes - done]
        target[done : done + len(part)] = part
        done += len(part)
        position += len(piece)
        if done == target.nbytes:
            return


def _reverse_units(buffer: memoryview, unit: int) -> None:
    """Reverse every `unit` bytes in place, without numpy."""
    for start in range(0, buffer.nbytes, CHUNK_NBYTES):
        part = buffer[start : start + CHUNK_NBYTES]  # CHUNK_NBYTES is a multiple of every unit
        source = bytes(part)
        for place in range(unit):
            part[place::unit] = source[unit - 1 - place :: unit]
