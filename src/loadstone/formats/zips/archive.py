"""A zip archive whose every byte has one meaning: the records in it, and where their bytes lie.

`open_archive` reads the directory (zip_directory.py) and then proves it against the file: each entry's own header says
the same, and headers, data and descriptors tile the file from its first byte to the directory, with no hole and no
overlap in which another reader could find something else.  Nothing is expanded until it is asked for.

PyTorch pads a local header's extra field (id `FB`) until the data is aligned, leaves its sizes 0 and writes them in a
descriptor behind the data instead (caffe2/serialize/inline_container.cc).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from loadstone.errors import Diagnostic, IntegrityError
from loadstone.formats.zips.directory import (
    DEFLATED,
    DESCRIPTOR_FLAG,
    LEVEL_FLAGS,
    Directory,
    Entry,
    ambiguous,
    extra_fields,
    invalid,
    read_directory,
    zip64_values,
)
from loadstone.io.limits import DEFAULT_LIMITS, Limits
from loadstone.io.sources import ByteSource, MemorySource, SliceSource
from loadstone.storage import Extent

_LOCAL = struct.Struct("<4s5H3I2H")
_FULL32 = 0xFFFFFFFF
# what may follow the data, by its length: sizes of 32 or 64 bits, and a signature (torch writes it) or none
_DESCRIPTORS = {struct.calcsize(form): struct.Struct(form) for form in ("<4x2I", "<8x2I", "<4x2Q", "<8x2Q")}
_WINDOW_NBYTES = 4096
_MAX_DEFLATE_RATIO = 1032  # https://zlib.net/zlib_tech.html
_MAX_TEXT_NBYTES = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """A file in the archive: `nbytes` expanded, `stored_nbytes` in the file from `data_offset` on.

    `crc32` is of the expanded bytes; None where the writer recorded none.
    """

    name: str
    nbytes: int
    stored_nbytes: int
    data_offset: int
    is_deflated: bool
    crc32: int | None


@final
class Archive:
    """The records of a zip, in the order of its directory; folders are left out.

    Attributes:
        source: the bytes it was opened from.
        root: the part of the first entry's name before the first "/", which torch takes for the archive's name.
        records: by name.
        trailing_nbytes: how many bytes follow the end of the archive; no reader of zips looks at them.
        has_checksums: False where every checksum is 0, as torch writes them when told to compute none.
    """

    def __init__(
        self, source: ByteSource, limits: Limits, root: str, records: Mapping[str, Record], trailing_nbytes: int
    ) -> None:
        self.source = source
        self.limits = limits
        self.root = root
        self.records = records
        self.trailing_nbytes = trailing_nbytes
        self.has_checksums = any(record.crc32 is not None for record in records.values())
        self._expanded_nbytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self.records

    def extent(self, name: str) -> Extent:
        """Where the bytes of a record lie; raises IntegrityError ("missing-record") where there is none."""
        record = self._record(name)
        return Extent(self.source, record.data_offset, record.stored_nbytes, record.nbytes, record.is_deflated)

    def read(self, name: str) -> bytes:
        """The bytes of a record, expanded; raises LimitError before taking more memory than the limits allow."""
        record = self._record(name)
        self.limits.check("header_nbytes", record.nbytes, f"`{name}` in `{self.source.name}`")
        if record.is_deflated:
            self._expanded_nbytes += record.nbytes
            self.limits.check("expanded_nbytes", self._expanded_nbytes, f"expanding `{self.source.name}`")
        return b"".join(self.extent(name).expand())

    def text(self, name: str) -> str | None:
        """A short record as text without the white space around it; None where there is no such record."""
        if name not in self.records:
            return None
        if self.records[name].nbytes > _MAX_TEXT_NBYTES:
            raise invalid(self.source, f"`{name}` should hold a word and has {self.records[name].nbytes:,} bytes")
        return self.read(name).decode("utf-8", "replace").strip()

    def member(self, name: str) -> ByteSource:
        """A record as a source of its own, without reading it if it is stored as it is."""
        record = self._record(name)
        title = f"{self.source.name}/{name}"
        if record.is_deflated:
            return MemorySource(self.read(name), title)
        return SliceSource(self.source, record.data_offset, record.nbytes, title)

    def _record(self, name: str) -> Record:
        record = self.records.get(name)
        if record is None:
            raise IntegrityError(Diagnostic("missing-record", f"`{self.source.name}` has no record `{name}`"))
        return record


def open_archive(source: ByteSource, limits: Limits = DEFAULT_LIMITS) -> Archive:
    """The archive in `source`, its directory proved against the file.

    Raises UnsafeError ("ambiguous-archive", "unsafe-path") where two readers could see different files or a name
    climbs out, FormatError ("header-invalid", "unsupported-feature"), IntegrityError ("truncated-file") and LimitError.
    """
    directory = read_directory(source, limits)
    offsets = _data_offsets(source, directory)
    has_checksums = any(entry.crc32 for entry in directory.entries)
    records = {
        entry.name: Record(
            entry.name,
            entry.nbytes,
            entry.stored_nbytes,
            offset,
            entry.method == DEFLATED,
            entry.crc32 if has_checksums else None,
        )
        for entry, offset in zip(directory.entries, offsets, strict=True)
        if not entry.name.endswith("/")
    }
    first, slash, _ = directory.entries[0].name.partition("/") if directory.entries else ("", "", "")
    return Archive(source, limits, first if slash else "", records, directory.trailing_nbytes)


def _data_offsets(source: ByteSource, directory: Directory) -> list[int]:
    """Where each entry's data starts, in the order of the directory, after proving that the entries tile the file."""
    entries = directory.entries
    order = sorted(range(len(entries)), key=lambda index: entries[index].header_offset)
    offsets = [0] * len(entries)
    window = _Window(source, directory.offset)
    stops = [entries[index].header_offset for index in order[1:]] + [directory.offset]
    if order and entries[order[0]].header_offset != 0:
        raise ambiguous(source, f"{entries[order[0]].header_offset:,} foreign bytes lie before its first entry")
    for index, stop in zip(order, stops, strict=True):
        entry = entries[index]
        offsets[index] = _prove_local_header(source, window, entry)
        position = offsets[index] + entry.stored_nbytes
        if position > stop:
            raise ambiguous(source, f"`{entry.name}` overlaps what follows it")
        if entry.flags & DESCRIPTOR_FLAG:
            _prove_descriptor(source, window, entry, position, stop - position)
        elif position != stop:
            raise ambiguous(source, f"{stop - position:,} foreign bytes follow `{entry.name}`")
    return offsets


@final
class _Window:
    """Reads a little more than asked for, so that a descriptor and the header behind it are one read."""

    def __init__(self, source: ByteSource, stop: int) -> None:
        self._source = source
        self._stop = stop
        self._start = 0
        self._block = b""

    def take(self, offset: int, nbytes: int) -> bytes:
        """Up to `nbytes` bytes from `offset`, fewer where the directory begins."""
        place = offset - self._start
        if not 0 <= place <= len(self._block) - nbytes:
            self._start, place = offset, 0
            self._block = self._source.read(offset, max(0, min(max(nbytes, _WINDOW_NBYTES), self._stop - offset)))
        return self._block[place : place + nbytes]


def _prove_local_header(source: ByteSource, window: _Window, entry: Entry) -> int:
    """The offset of the data, once the entry's own header is found to say what the directory says.

    The checksum alone may differ: no reader chooses a record by it, and `verify` is there to check it.
    """
    header = window.take(entry.header_offset, _LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise invalid(source, f"`{entry.name}` has no header at {entry.header_offset:,}")
    _, _, flags, method, _, _, _, stored_nbytes, nbytes, name_nbytes, extra_nbytes = _LOCAL.unpack(header)
    variable = window.take(entry.header_offset + _LOCAL.size, name_nbytes + extra_nbytes)
    if variable[:name_nbytes] != entry.raw_name:
        raise ambiguous(source, f"`{entry.name}` is called {variable[: min(name_nbytes, 60)]!r} in its own header")
    if method != entry.method or flags & ~LEVEL_FLAGS != entry.flags:
        raise ambiguous(source, f"the method or the flags of `{entry.name}` differ in its own header")
    if _FULL32 in (nbytes, stored_nbytes):
        fields = extra_fields(source, variable[name_nbytes:])
        nbytes, stored_nbytes = zip64_values(source, entry.name, fields, (nbytes, stored_nbytes))
    for here, there in ((nbytes, entry.nbytes), (stored_nbytes, entry.stored_nbytes)):
        if here != there and not (here == 0 and entry.flags & DESCRIPTOR_FLAG):
            raise ambiguous(
                source, f"`{entry.name}` has {there:,} bytes in the directory and {here:,} in its own header"
            )
    if entry.nbytes > _MAX_DEFLATE_RATIO * (entry.stored_nbytes + 1):
        raise invalid(source, f"{entry.stored_nbytes:,} bytes cannot expand to the {entry.nbytes:,} of `{entry.name}`")
    variable_nbytes: int = name_nbytes + extra_nbytes
    return entry.header_offset + _LOCAL.size + variable_nbytes


def _prove_descriptor(source: ByteSource, window: _Window, entry: Entry, position: int, nbytes: int) -> None:
    """The sizes that follow the data, in all of the `nbytes` bytes up to the next entry, are those of the directory."""
    form = _DESCRIPTORS.get(nbytes)
    if form is None:
        raise ambiguous(source, f"{nbytes:,} bytes follow `{entry.name}`, which is the length of no zip descriptor")
    data = window.take(position, nbytes)
    if nbytes in (16, 24) and not data.startswith(b"PK\7\x08"):
        raise ambiguous(source, f"foreign bytes follow `{entry.name}`")
    if form.unpack(data) != (entry.stored_nbytes, entry.nbytes):
        raise ambiguous(source, f"the sizes behind the data of `{entry.name}` are not those in the directory")
