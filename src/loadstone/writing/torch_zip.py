"""The zip that torch.save writes, with one record more, laid out before a byte is written.

    <root>/data.pkl, .format_version, .storage_alignment, byteorder, data/0 …, version, .data/serialization_id
    <root>/loadstone.json      the manifest
    comment                    `loadstone xxh3-128:…`, the digest of the whole file, its own 32 digits taken as zeros

Every record starts at a multiple of 64, by padding in an extra field of id `FB`; checksums follow the data in a
descriptor, so that the bytes are written in one pass.  The names, their order, the padding and the zip64 records at the
end are torch's own (caffe2/serialize/inline_container.cc).  Zip: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadstone.io.digests import PREFIX, digest
from loadstone.io.hashed import ZEROS, Hashed
from loadstone.manifest import COMMENT, RECORD

ALIGNMENT = 64
_FORMAT_VERSION, _CONTAINER_VERSION = b"1", b"3\n"
_FLAGS = 0x0808  # UTF-8 names; checksum and sizes follow the data
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_ZIP64, _PADDING = 0x0001, 0x4246  # "FB"
_VERSION_NEEDED, _VERSION_NEEDED64 = 0, 45

Pieces = Callable[[], Iterable[memoryview]]


@dataclass(frozen=True, slots=True)
class Record:
    """A file in the zip: its size is known before, its bytes come in pieces when they are wanted."""

    name: str
    nbytes: int
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Placed:
    """A record, where its header starts, and the header."""

    record: Record
    offset: int
    header: bytes

    @property
    def is_large(self) -> bool:
        return self.record.nbytes >= _FULL32

    @property
    def stop(self) -> int:
        """The first byte behind its descriptor."""
        return self.offset + len(self.header) + self.record.nbytes + (24 if self.is_large else 16)


@dataclass(frozen=True, slots=True)
class Layout:
    """Every record in its place; `nbytes` is the size of the file, `mark` the offset of the digits in its comment."""

    records: tuple[Placed, ...]
    nbytes: int

    @property
    def mark(self) -> int:
        return self.nbytes - len(ZEROS)


def layout(root: str, pickle: bytes, storages: Sequence[tuple[int, Pieces]], manifest: tuple[int, Pieces]) -> Layout:
    """Where everything will stand.

    Args:
        root: the folder that all records are in.
        pickle: the record data.pkl.
        storages: size and bytes of each record `data/N`.
        manifest: size and bytes of loadstone.json, which is written last.
    """
    names = f"{root}/{len(storages)}/{digest(pickle)}"
    # torch writes 40 digits here, of the names and of the bytes, for its own profiling; nobody reads them
    serialization_id = str(int(digest(names.encode()).removeprefix(PREFIX), 16)).rjust(40, "0")[:40].encode()
    records = [
        _small("data.pkl", pickle),
        _small(".format_version", _FORMAT_VERSION),
        _small(".storage_alignment", str(ALIGNMENT).encode()),
        _small("byteorder", sys.byteorder.encode()),
        *(Record(f"data/{number}", nbytes, pieces) for number, (nbytes, pieces) in enumerate(storages)),
        _small("version", _CONTAINER_VERSION),
        _small(".data/serialization_id", serialization_id),
        Record(RECORD, *manifest),
    ]
    placed: list[Placed] = []
    offset = 0
    for record in records:
        placed.append(Placed(record, offset, _local_header(f"{root}/{record.name}".encode(), record.nbytes, offset)))
        offset = placed[-1].stop
    directory_nbytes = sum(len(_entry(record, 0)) for record in placed)
    end_nbytes = _END64.size + _LOCATOR.size + _END.size + len(COMMENT) + len(PREFIX) + len(ZEROS)
    return Layout(tuple(placed), offset + directory_nbytes + end_nbytes)


def write(plan: Layout, out: Hashed) -> str:
    """Write it; gives the digest of the file."""
    checksums: list[int] = []
    for placed in plan.records:
        out.put(placed.header)
        crc32 = out.stream(placed.record.pieces())
        nbytes = placed.record.nbytes
        out.put(struct.pack("<4sI2Q" if placed.is_large else "<4s3I", b"PK\7\x08", crc32, nbytes, nbytes))
        checksums.append(crc32)
    offset = plan.records[-1].stop
    directory = b"".join(map(_entry, plan.records, checksums))
    out.put(directory + _end(len(checksums), len(directory), offset))
    return out.finish_with_digest()


def _small(name: str, data: bytes) -> Record:
    return Record(name, len(data), lambda: [memoryview(data)])


def _local_header(name: bytes, nbytes: int, offset: int) -> bytes:
    """Padded, so that the data behind it starts at a multiple of ALIGNMENT."""
    is_large = nbytes >= _FULL32
    extra = struct.pack("<2H2Q", _ZIP64, 16, nbytes, nbytes) if is_large else b""
    padding = -(offset + _LOCAL.size + len(name) + len(extra) + 4) % ALIGNMENT
    extra += struct.pack("<2H", _PADDING, padding) + b"Z" * padding
    size, version = (_FULL32, _VERSION_NEEDED64) if is_large else (0, _VERSION_NEEDED)
    return _LOCAL.pack(b"PK\3\4", version, _FLAGS, 0, 0, 0, 0, size, size, len(name), len(extra)) + name + extra


def _entry(placed: Placed, crc32: int) -> bytes:
    """The record's line in the directory."""
    name_nbytes = _LOCAL.unpack_from(placed.header)[9]
    name = placed.header[_LOCAL.size : _LOCAL.size + name_nbytes]
    nbytes, offset = placed.record.nbytes, placed.offset
    long = [value for value in (nbytes, nbytes, offset) if value >= _FULL32]
    extra = struct.pack(f"<2H{len(long)}Q", _ZIP64, 8 * len(long), *long) if long else b""
    nbytes, offset = min(nbytes, _FULL32), min(offset, _FULL32)
    version = _VERSION_NEEDED64 if long else _VERSION_NEEDED
    sizes = (crc32, nbytes, nbytes, len(name), len(extra), 0, 0, 0, 0, offset)
    return _CENTRAL.pack(b"PK\1\2", 0, version, _FLAGS, 0, 0, 0, *sizes) + name + extra


def _end(count: int, directory_nbytes: int, offset: int) -> bytes:
    """What follows the directory, but for the digits of the digest."""
    short = min(count, _FULL16)
    comment = (COMMENT + PREFIX).encode()
    sizes = (min(directory_nbytes, _FULL32), min(offset, _FULL32), len(comment) + len(ZEROS))
    return (
        _END64.pack(b"PK\6\6", _END64.size - 12, 0, 45, 0, 0, count, count, directory_nbytes, offset)
        + _LOCATOR.pack(b"PK\6\7", 0, offset + directory_nbytes, 1)
        + _END.pack(b"PK\5\6", 0, 0, short, short, *sizes)
        + comment
    )
