"""Zip files made so that two readers see two different files, or so that a reader takes more than it should."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from loadstone.errors import FormatError, IntegrityError, LimitError, LoadstoneError, UnsafeError
from loadstone.formats.zip_family import kind_of
from loadstone.formats.zips.archive import open_archive
from loadstone.io.limits import Limits
from loadstone.io.sources import MemorySource


@dataclass(frozen=True)
class Entry:
    """An entry whose own header and line in the directory can be made to differ."""

    name: bytes
    data: bytes = b"data"
    method: int = 0
    flags: int = 0
    nbytes: int | None = None
    stored_nbytes: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_nbytes: int | None = None
    local_extra: bytes = b""
    extra: bytes = b""
    descriptor: bytes = b""
    before: bytes = b""


@dataclass(frozen=True)
class Zip:
    """A zip written by hand; every number in its end record can be made to lie."""

    entries: tuple[Entry, ...] = field(default=(Entry(b"archive/data.pkl"), Entry(b"archive/version", b"3\n")))
    before_directory: bytes = b""
    before_end: bytes = b""
    comment: bytes = b""
    comment_nbytes: int | None = None
    count: int | None = None
    directory_nbytes: int | None = None
    directory_offset: int | None = None

    def build(self) -> bytes:
        body, directory = bytearray(), bytearray()
        for entry in self.entries:
            body += entry.before
            offset = len(body) if entry.offset is None else entry.offset
            nbytes = len(entry.data) if entry.nbytes is None else entry.nbytes
            stored = len(entry.data) if entry.stored_nbytes is None else entry.stored_nbytes
            crc = zlib.crc32(entry.data)
            name = entry.name if entry.local_name is None else entry.local_name
            method = entry.method if entry.local_method is None else entry.local_method
            flags = entry.flags if entry.local_flags is None else entry.local_flags
            own = nbytes if entry.local_nbytes is None else entry.local_nbytes
            body += struct.pack(
                "<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0, crc, min(stored, 2**32 - 1), own, len(name),
                len(entry.local_extra),
            )  # fmt: skip
            body += name + entry.local_extra + entry.data + entry.descriptor
            directory += struct.pack(
                "<4s6H3I5H2I", b"PK\1\2", 20, 20, entry.flags, entry.method, 0, 0, crc, stored, nbytes,
                len(entry.name), len(entry.extra), 0, 0, 0, 0, offset,
            )  # fmt: skip
            directory += entry.name + entry.extra
        body += self.before_directory
        offset = len(body) if self.directory_offset is None else self.directory_offset
        nbytes = len(directory) if self.directory_nbytes is None else self.directory_nbytes
        count = len(self.entries) if self.count is None else self.count
        length = len(self.comment) if self.comment_nbytes is None else self.comment_nbytes
        end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, nbytes, offset, length)
        return bytes(body + directory + self.before_end + end + self.comment)


def one(**changes: object) -> Zip:
    return Zip((replace(Entry(b"archive/data.pkl"), **changes), Entry(b"archive/version", b"3\n")))  # type: ignore[arg-type]


def named(*names: bytes) -> Zip:
    return Zip(tuple(Entry(name) for name in names))


def archive_of(data: bytes, limits: Limits | None = None):
    return open_archive(MemorySource(data, "made.pt"), limits or Limits())


def zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def test_the_zip_these_tests_bend_is_sound_before_they_bend_it() -> None:
    data = Zip().build()
    assert list(archive_of(data).records) == zipfile.ZipFile(io.BytesIO(data)).namelist()


AMBIGUOUS = {
    "the same name twice": named(b"archive/data.pkl", b"archive/data.pkl"),
    "two names that differ in case": named(b"archive/data.pkl", b"archive/DATA.PKL"),
    "a file and a folder of one name": named(b"archive/data.pkl", b"archive/data.pkl/"),
    "a NUL in a name": named(b"archive/data.pkl\0.txt"),
    "a line break in a name": named(b"archive/data\n.pkl"),
    "another name in the entry's own header": one(local_name=b"archive/EVIL.pkl"),
    "a shorter name in the entry's own header": one(local_name=b"archive/data"),
    "another method in the entry's own header": one(local_method=8),
    "other flags in the entry's own header": one(local_flags=0x800),
    "another size in the entry's own header": one(local_nbytes=3),
    "two sizes of a stored entry": one(nbytes=3, local_nbytes=3),
    "a size that runs into the next entry": one(data=b"data", nbytes=9, stored_nbytes=9),
    "two entries over one header": Zip((Entry(b"archive/data.pkl"), Entry(b"archive/b", offset=0))),
    "bytes before the first entry": Zip((Entry(b"archive/data.pkl", before=b"#!/bin/sh\n"),)),
    "bytes between two entries": Zip((Entry(b"archive/data.pkl"), Entry(b"archive/b", before=b"PK\3\4"))),
    "bytes before the directory": Zip(before_directory=b"?"),
    "bytes between directory and end": Zip(before_end=b"?"),
    "a directory that starts later than it says": Zip(before_directory=b"????", directory_offset=1),
    "more entries than counted": Zip(count=1),
    "fewer entries than counted": Zip(tuple(Entry(b"archive/%d" % i, b"") for i in range(9)), count=10),
    "sizes behind the data that differ": one(flags=8, descriptor=struct.pack("<4s3I", b"PK\7\x08", 0, 4, 5)),
    "a descriptor without its signature": one(flags=8, descriptor=struct.pack("<4s3I", b"PK\3\4", 0, 4, 4)),
    "a flag for sizes that are not there": one(flags=8),
    "two zip64 fields": one(extra=zip64_extra(4, 4) * 2, nbytes=2**32 - 1, stored_nbytes=2**32 - 1),
    "two names in one entry": one(
        extra=struct.pack("<2HBI", 0x7075, 9, 1, zlib.crc32(b"archive/data.pkl")) + b"evil", local_extra=b""
    ),
    "an end record inside the comment": Zip(comment=struct.pack("<4s4H2IH", b"PK\5\6", *[0] * 7)),
}  # fmt: skip


@pytest.mark.parametrize("made", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_archive_that_two_readers_could_read_differently_is_refused(made: Zip) -> None:
    with pytest.raises(UnsafeError) as caught:
        archive_of(made.build())
    assert caught.value.code == "ambiguous-archive"


IMPOSSIBLE = {
    "an entry behind the directory": one(offset=10_000),
    "a zip64 offset near 2**64": one(offset=2**32 - 1, extra=zip64_extra(2**64 - 8)),
    "zip64 sizes that are missing": one(nbytes=2**32 - 1, stored_nbytes=2**32 - 1),
    "a directory behind its own end": Zip(directory_offset=2**31),
    "a directory longer than the file": Zip(directory_nbytes=10_000),
    "more entries than the directory could hold": Zip(count=60_000),
    "an extra field longer than its place": one(extra=struct.pack("<2H", 0xCAFE, 500)),
    "a name that is not the UTF-8 it claims": Zip((Entry(b"archive/\xff", flags=0x800),)),
    "an entry without a name": named(b""),
    "a size no deflate stream can reach": one(method=8, data=b"\3\0", nbytes=2**30),
}


@pytest.mark.parametrize("made", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_archive_with_impossible_values_is_refused(made: Zip) -> None:
    with pytest.raises(FormatError) as caught:
        archive_of(made.build())
    assert caught.value.code == "header-invalid"


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"flags": 1}, "encryption"),
        ({"flags": 0x20}, "patched"),
        ({"flags": 0x40}, "strong encryption"),
        ({"flags": 0x2000}, "0x2000"),
        ({"method": 99}, "method 99"),
        ({"method": 9}, "method 9"),
    ],
)
def test_feature_we_do_not_read_is_named(change: dict[str, int], feature: str) -> None:
    with pytest.raises(FormatError, match=feature) as caught:
        archive_of(one(**change).build())
    assert caught.value.code == "unsupported-feature"


@pytest.mark.parametrize(
    "name",
    [b"/etc/passwd", b"archive/../../evil", b"..", b"archive\\evil", b"C:evil", b"archive//evil", b"./archive/evil"],
)
def test_name_that_leaves_the_archive_is_refused(name: bytes) -> None:
    with pytest.raises(UnsafeError) as caught:
        archive_of(named(name).build())
    assert caught.value.code == "unsafe-path"


def test_entry_without_a_header_of_its_own_is_refused() -> None:
    data = Zip().build()
    second = data.rfind(b"PK\3\4")
    with pytest.raises(FormatError, match="has no header"):
        archive_of(data[:second] + b"PK\3\5" + data[second + 4 :])


def test_two_archives_one_behind_the_other_are_refused() -> None:
    with pytest.raises(UnsafeError, match="two ways"):
        archive_of(Zip().build() + Zip().build())


def test_second_archive_behind_the_first_with_true_offsets_is_refused() -> None:
    first = Zip().build()
    second = Zip((Entry(b"archive/data.pkl", b"evil", before=first),))
    with pytest.raises(UnsafeError, match="before its first entry"):
        archive_of(second.build())


def test_bytes_behind_the_archive_are_counted_and_not_read() -> None:
    archive = archive_of(Zip().build() + b"trailing")
    assert archive.trailing_nbytes == 8


def test_zip64_record_that_contradicts_the_end_record_is_refused() -> None:
    data = Zip().build()
    end = data[-22:]
    count, nbytes, offset = struct.unpack_from("<H2I", end, 10)
    zip64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count + 1, count + 1, nbytes, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    with pytest.raises(UnsafeError, match="disagree"):
        archive_of(data[:-22] + zip64 + locator + end)


def test_zip64_record_elsewhere_than_before_its_locator_is_refused() -> None:
    data = Zip().build()
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
    with pytest.raises(UnsafeError, match="not where its locator says"):
        archive_of(data[:-22] + locator + data[-22:])


def test_record_known_to_torch_in_another_case_is_refused() -> None:
    with pytest.raises(UnsafeError, match="torch would take"):
        kind_of(archive_of(named(b"archive/DATA.PKL", b"archive/version").build()))


def test_second_root_folder_is_refused() -> None:
    with pytest.raises(UnsafeError, match="outside its root"):
        kind_of(archive_of(named(b"archive/data.pkl", b"other/data.pkl").build()))


def test_bomb_is_stopped_before_its_memory_is_taken() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(2**24)) + packer.flush()
    archive = archive_of(one(method=8, data=data, nbytes=2**24).build(), Limits(header_nbytes=2**20))
    with pytest.raises(LimitError, match="header_nbytes"):
        archive.read("archive/data.pkl")


def test_many_small_bombs_are_stopped_by_what_they_expand_to_in_all() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(2**16)) + packer.flush()
    bombs = Zip(tuple(Entry(b"archive/%d" % i, data, method=8, nbytes=2**16) for i in range(20)))
    archive = archive_of(bombs.build(), Limits(expanded_nbytes=2**20))
    with pytest.raises(LimitError, match="expanded_nbytes"):
        [archive.read(name) for name in archive.records]


@pytest.mark.parametrize("claimed", [10, 2**16 - 1, 2**16 + 1])
def test_deflated_record_of_another_length_than_claimed_is_refused(claimed: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(2**16)) + packer.flush()
    archive = archive_of(one(method=8, data=data, nbytes=claimed).build())
    with pytest.raises(IntegrityError) as caught:
        archive.read("archive/data.pkl")
    assert caught.value.code == "bad-compression"


def test_directory_that_would_not_fit_into_memory_is_not_read() -> None:
    with pytest.raises(LimitError):
        archive_of(named(*(b"archive/%d" % i for i in range(1000))).build(), Limits(header_nbytes=1000))


def test_deflated_bomb_of_opcodes_stays_in_bounds(tmp_path: Path) -> None:
    """64 MiB of MARK in 64 kB, opened in a process of its own: an error, in bounded memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(b"\x80\2" + b"(" * 2**26) + packer.flush()
    path = tmp_path / "bomb.pt"
    path.write_bytes(one(method=8, data=data, nbytes=2**26 + 2).build())
    program = """
import sys
import loadstone as ls
try:
    ls.open(sys.argv[1])
except ls.LoadstoneError as error:
    status = dict(line.split(":") for line in open("/proc/self/status"))
    print(error.code, status["VmHWM"].split()[0])  # of this process alone, unlike ru_maxrss
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True, timeout=60)
    code, kilobytes = done.stdout.split()
    assert code == "resource-limit"
    assert int(kilobytes) < 300_000


def test_every_cut_and_every_flipped_byte_ends_in_an_error_or_an_archive() -> None:
    """No byte of the structure can be changed into an error that is not ours."""
    data = Zip((Entry(b"archive/data.pkl", flags=8, descriptor=struct.pack("<4s3I", b"PK\7\x08", 0, 4, 4)),)).build()
    damaged = [data[:stop] for stop in range(len(data))]
    damaged += [
        data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] for at in range(len(data)) for bit in (1, 128, 255)
    ]
    refused = 0
    for bent in damaged:
        try:
            archive = archive_of(bent)
            for name in archive.records:
                archive.read(name)
        except LoadstoneError:
            refused += 1
    assert refused > len(data)
