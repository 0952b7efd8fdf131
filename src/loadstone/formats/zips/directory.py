"""The end of a zip file: where its directory lies, and the entries in it.

A zip can be written so that two readers see two different files: one trusts the offset in the end record, another
counts back from it; one takes the first of two equal names, another the last.  PyTorch reads with miniz, scanners read
with Python's zipfile, so whatever could make these two differ is refused here (UnsafeError, "ambiguous-archive").

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from loadstone.errors import Diagnostic, FormatError, IntegrityError, UnsafeError
from loadstone.io.limits import Limits
from loadstone.io.sources import ByteSource

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")

_MAX_COMMENT_NBYTES = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
_MEMORY_PER_BYTE = 8  # an entry as objects, compared with its bytes in the directory

DESCRIPTOR_FLAG = 0x0008  # sizes follow the data
_UTF8_FLAG = 0x0800
LEVEL_FLAGS = 0x0006  # how hard the packer tried: says nothing about the data
_REFUSED_FLAGS = {0x0001: "encryption", 0x0020: "compressed patched data", 0x0040: "strong encryption"}
STORED, DEFLATED = 0, 8

_ZIP64_FIELD, _UNICODE_NAME_FIELD = 0x0001, 0x7075

_BREAKS_OUT = re.compile(r"\\|^/|^[A-Za-z]:|(?:^|/)\.{1,2}(?:/|$)|//")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the directory.  `raw_name` is the name's bytes, `flags` without what says nothing about the data."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc32: int
    stored_nbytes: int
    nbytes: int
    header_offset: int


@dataclass(frozen=True, slots=True)
class Directory:
    """The directory: where it starts, its entries in order, and how many bytes follow the end of the archive."""

    offset: int
    entries: tuple[Entry, ...]
    trailing_nbytes: int


@dataclass(frozen=True, slots=True)
class _End:
    count: int
    nbytes: int
    offset: int
    stop: int  # first byte of the records that end the archive
    trailing_nbytes: int


def read_directory(source: ByteSource, limits: Limits) -> Directory:
    """Find and read the directory.

    Raises IntegrityError where there is none (the file is cut off), FormatError for impossible values and features
    that are not read, UnsafeError where two readers could see different entries, LimitError for a directory that
    would not fit into memory.
    """
    end = _find_end(source)
    if end.offset + end.nbytes > end.stop:
        raise invalid(source, f"its directory would end at {end.offset + end.nbytes:,}, behind its end record")
    if end.offset + end.nbytes != end.stop:
        raise ambiguous(source, f"{end.stop - end.offset - end.nbytes:,} bytes lie between its directory and its end")
    if end.count * _ENTRY.size > end.nbytes:
        raise invalid(source, f"a directory of {end.nbytes:,} bytes cannot hold {end.count:,} entries")
    limits.check("header_nbytes", end.nbytes * _MEMORY_PER_BYTE, f"the directory of `{source.name}`")
    entries = tuple(_entries(source, end))
    if len(entries) != end.count:
        raise ambiguous(source, f"its directory has {len(entries):,} entries, its end record says {end.count:,}")
    _refuse_twins(source, entries)
    return Directory(end.offset, entries, end.trailing_nbytes)


def _find_end(source: ByteSource) -> _End:
    """The last end record, and the zip64 records before it where there are any."""
    start = max(0, source.size - _END.size - _MAX_COMMENT_NBYTES)
    tail = source.read(start, source.size - start)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or place + _END.size > len(tail):
        raise IntegrityError(
            Diagnostic(
                "truncated-file",
                f"`{source.name}` is cut off: the zip directory that belongs at its end is missing",
                evidence=(("found", f"{source.size:,} bytes, the end record not among them"),),
            )
        )
    _, disk, first_disk, disk_count, count, nbytes, offset, comment_nbytes = _END.unpack_from(tail, place)
    position = start + place
    trailing = source.size - position - _END.size - comment_nbytes
    if trailing < 0:
        raise IntegrityError(
            Diagnostic(
                "truncated-file",
                f"`{source.name}` ends {-trailing:,} bytes early, inside its comment",
                evidence=(("expected", f"{source.size - trailing:,} bytes"), ("found", f"{source.size:,} bytes")),
            )
        )
    end = _End(count, nbytes, offset, position, trailing)
    locator_position = position - _LOCATOR.size
    if locator_position >= 0:
        locator = source.read(locator_position, _LOCATOR.size)
        if locator.startswith(b"PK\6\7"):
            return _find_end64(source, end, locator, locator_position)
    if (disk, first_disk) != (0, 0) or disk_count != count:
        raise FormatError(Diagnostic("unsupported-feature", f"`{source.name}` is one part of a zip in several parts"))
    return end


def _find_end64(source: ByteSource, end: _End, locator: bytes, locator_position: int) -> _End:
    """The zip64 end record, proved to lie where both ways to find it lead and to say what the other record says."""
    _, _, position, disks = _LOCATOR.unpack(locator)
    if disks > 1 or position + _END64.size > locator_position:
        raise invalid(source, f"its zip64 locator points to {position:,}, where no zip64 end record fits")
    magic, length, _, _, disk, first_disk, disk_count, count, nbytes, offset = _END64.unpack(
        source.read(position, _END64.size)
    )
    if magic != b"PK\6\6" or position + 12 + length != locator_position:
        raise ambiguous(source, "its zip64 end record is not where its locator says")
    if (disk, first_disk) != (0, 0) or disk_count != count:
        raise FormatError(Diagnostic("unsupported-feature", f"`{source.name}` is one part of a zip in several parts"))
    for short, full, long in (
        (end.count, _FULL16, count),
        (end.nbytes, _FULL32, nbytes),
        (end.offset, _FULL32, offset),
    ):
        if short not in (full, long):
            raise ambiguous(source, f"its two end records disagree: {short:,} and {long:,}")
    return _End(count, nbytes, offset, position, end.trailing_nbytes)


def _entries(source: ByteSource, end: _End) -> Iterator[Entry]:
    data = source.read(end.offset, end.nbytes)
    place = 0
    while place < len(data):
        if place + _ENTRY.size > len(data):
            raise invalid(source, "the last entry of its directory is cut off")
        (
            magic, _, _, flags, method, _, _, crc32, stored_nbytes, nbytes,
            name_nbytes, extra_nbytes, comment_nbytes, disk, _, _, header_offset,
        ) = _ENTRY.unpack_from(data, place)  # fmt: skip
        name_place = place + _ENTRY.size
        extra_place = name_place + name_nbytes
        place = extra_place + extra_nbytes + comment_nbytes
        if magic != b"PK\1\2" or place > len(data):
            raise invalid(source, "its directory has something else between its entries")
        raw_name = data[name_place:extra_place]
        fields = extra_fields(source, data[extra_place : extra_place + extra_nbytes]) if extra_nbytes else {}
        name = _name(source, raw_name, flags, fields.get(_UNICODE_NAME_FIELD))
        _refuse_features(source, name, flags, method, disk)
        if _FULL32 in (nbytes, stored_nbytes, header_offset):
            nbytes, stored_nbytes, header_offset = zip64_values(
                source, name, fields, (nbytes, stored_nbytes, header_offset)
            )
        if header_offset > end.offset or header_offset + stored_nbytes > end.offset:
            raise invalid(source, f"`{name}` would lie behind its directory, at {header_offset:,}")
        if method == STORED and nbytes != stored_nbytes:
            raise ambiguous(source, f"`{name}` is stored as it is, but has two sizes: {nbytes:,} and {stored_nbytes:,}")
        yield Entry(raw_name, name, flags & ~LEVEL_FLAGS, method, crc32, stored_nbytes, nbytes, header_offset)


def extra_fields(source: ByteSource, data: bytes) -> dict[int, bytes]:
    """The extra fields of an entry by their number; one that stands twice would be read in two ways."""
    fields: dict[int, bytes] = {}
    place = 0
    while place + 4 <= len(data):
        number, length = struct.unpack_from("<2H", data, place)
        if place + 4 + length > len(data):
            raise invalid(source, "an extra field is longer than the place for it")
        if number in fields and number in (_ZIP64_FIELD, _UNICODE_NAME_FIELD):
            raise ambiguous(source, "an entry has two zip64 sizes or two names")
        fields[number] = data[place + 4 : place + 4 + length]
        place += 4 + length
    return fields


def zip64_values(source: ByteSource, name: str, fields: dict[int, bytes], short: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes and offset of an entry: 32-bit ones that are all ones are taken, in order, from the zip64 field."""
    field = fields.get(_ZIP64_FIELD, b"")
    wanted = short.count(_FULL32)
    if len(field) < 8 * wanted:
        raise invalid(source, f"`{name}` lacks its zip64 sizes")
    long = iter(struct.unpack_from(f"<{wanted}Q", field))
    return tuple(next(long) if value == _FULL32 else value for value in short)


def _name(source: ByteSource, raw: bytes, flags: int, unicode_field: bytes | None) -> str:
    """The name as text, proved to stay inside the archive and to be the same for every reader."""
    try:
        name = raw.decode("utf-8")  # Info-ZIP on Unix writes it without the flag, and torch never looks at the flag
    except UnicodeDecodeError as error:
        if flags & _UTF8_FLAG:
            raise invalid(source, f"the name {raw[:60]!r} is not UTF-8") from error
        name = raw.decode("cp437")
    if unicode_field is not None:
        name = _unicode_name(source, raw, name, unicode_field)
    if not name:
        raise invalid(source, "an entry has no name")
    if _CONTROL.search(name):
        raise ambiguous(source, f"the name {name!r:.80} has control characters")
    if _BREAKS_OUT.search(name):
        raise UnsafeError(Diagnostic("unsafe-path", f"`{source.name}` has an entry {name!r:.80}"))
    return name


def _unicode_name(source: ByteSource, raw: bytes, name: str, field: bytes) -> str:
    """Info-ZIP's second, UTF-8 name (field 0x7075), which counts only if it is the first name in another coding."""
    if len(field) < 5 or field[0] != 1 or struct.unpack_from("<I", field, 1)[0] != zlib.crc32(raw):
        return name  # as Info-ZIP does with a field that belongs to another name
    try:
        second = field[5:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(source, f"the second name of {name!r:.60} is not UTF-8") from error
    if second != name and field[5:] != raw:
        raise ambiguous(source, f"an entry has two names, {name!r:.60} and {second!r:.60}")
    return second


def _refuse_features(source: ByteSource, name: str, flags: int, method: int, disk: int) -> None:
    for bit, feature in _REFUSED_FLAGS.items():
        if flags & bit:
            raise FormatError(Diagnostic("unsupported-feature", f"`{name}` in `{source.name}` uses {feature}"))
    if method not in (STORED, DEFLATED):
        raise FormatError(
            Diagnostic("unsupported-feature", f"`{name}` in `{source.name}` is compressed with method {method}")
        )
    if flags & ~(_UTF8_FLAG | DESCRIPTOR_FLAG | LEVEL_FLAGS) or disk != 0:
        raise FormatError(
            Diagnostic("unsupported-feature", f"`{name}` in `{source.name}` has unknown zip flags, {flags:#06x}")
        )


def _refuse_twins(source: ByteSource, entries: tuple[Entry, ...]) -> None:
    """Names must differ without regard to case: miniz finds `DATA.PKL` when torch asks for `data.pkl`."""
    seen: dict[str, str] = {}
    for entry in entries:
        other = seen.setdefault(entry.name.casefold().rstrip("/"), entry.name)
        if other is not entry.name:
            raise ambiguous(source, f"it has both `{other}` and `{entry.name}`")


def ambiguous(source: ByteSource, why: str) -> UnsafeError:
    """The error for an archive that two readers could read differently."""
    return UnsafeError(Diagnostic("ambiguous-archive", f"`{source.name}` can be read in two ways: {why}"))


def invalid(source: ByteSource, why: str) -> FormatError:
    """The error for an archive that no reader could read."""
    return FormatError(Diagnostic("header-invalid", f"`{source.name}` is no valid zip archive: {why}"))
