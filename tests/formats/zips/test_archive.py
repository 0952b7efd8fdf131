"""Zip archives as tools write them: all readable, and the same as torch and zipfile see them."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import IntegrityError
from loadstone.formats.zips.archive import Archive, open_archive
from loadstone.io.sources import FileSource, MemorySource


def opened(data: bytes) -> Archive:
    return open_archive(MemorySource(data, "made.zip"))


def assert_same_as_zipfile(data: bytes) -> None:
    archive = opened(data)
    with zipfile.ZipFile(io.BytesIO(data)) as oracle:
        names = [name for name in oracle.namelist() if not name.endswith("/")]
        assert list(archive.records) == names
        for name in names:
            assert archive.read(name) == oracle.read(name)
            assert (archive.records[name].crc32 or 0) == oracle.getinfo(name).CRC


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


names = st.text(st.characters(exclude_characters="/\\:.", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@given(
    root=names,
    members=st.dictionaries(names.map(str.casefold), st.binary(max_size=300), min_size=1, max_size=6),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    comment=st.binary(max_size=20),
)
def test_archive_of_zipfile_reads_back(root: str, members: dict[str, bytes], method: int, comment: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir(root)
        for name, data in members.items():
            archive.writestr(f"{root}/{name}", data)
        archive.comment = comment.replace(b"PK", b"--")
    archive = opened(buffer.getvalue())
    assert archive.root == root
    folded = {name.casefold() for name in members}
    assert len(folded) == len(archive.records)
    assert_same_as_zipfile(buffer.getvalue())


def test_archive_of_torch_has_the_records_that_zipfile_sees() -> None:
    assert_same_as_zipfile(saved({"w": torch.arange(1000.0), "empty": torch.zeros(0), "b": torch.ones(3)}))


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_padding_of_torch_is_no_foreign_data(alignment: int) -> None:
    with torch.utils.serialization.config.patch("save.storage_alignment", alignment):
        archive = opened(saved([torch.ones(3), torch.zeros(70)]))
    assert [archive.records[f"archive/data/{key}"].data_offset % alignment for key in "01"] == [0, 0]


def test_archive_written_to_a_pipe_has_its_sizes_behind_the_data() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        archive.writestr("archive/data.pkl", b"x" * 1000)
        archive.writestr("archive/empty", b"")
        with archive.open("archive/large", "w", force_zip64=True) as large:
            large.write(b"y" * 10)
    assert_same_as_zipfile(bytes(pipe.data))


def test_own_header_may_know_one_size_and_leave_the_other_to_the_descriptor() -> None:
    """As `zip -r - folder | cat` writes them: the expanded size in the header, both behind the data."""
    data = zlib.compress(b"x" * 100, wbits=-15)
    crc = zlib.crc32(b"x" * 100)
    body = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 8, 8, 0, 0, 0, 0, 100, 3, 0) + b"a/x" + data
    body += struct.pack("<4s3I", b"PK\7\x08", crc, len(data), 100)
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 8, 8, 0, 0, crc, len(data), 100, 3, 0, 0, 0, 0, 0, 0) + b"a/x"
    assert_same_as_zipfile(body + entry + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(body), 0))


def test_name_in_utf8_is_known_without_its_flag() -> None:
    """Info-ZIP on Unix writes names as the system has them."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as made:
        made.writestr("mod--le/x", b"")
    assert list(opened(buffer.getvalue().replace(b"mod--le", "modèle".encode())).records) == ["modèle/x"]


def test_name_that_is_not_utf8_is_cp437() -> None:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as made:
        made.writestr("modele/x", b"")
    data = buffer.getvalue().replace(b"modele/x", "modèle/x".encode("cp437"))
    assert list(opened(data).records) == ["modèle/x"]


def test_second_name_of_info_zip_is_taken() -> None:
    """Field 0x7075: the name in UTF-8, with the checksum of the first one (APPNOTE 4.6.9)."""
    raw = "modèle/x".encode("cp437")
    field = struct.pack("<2HBI", 0x7075, 5 + len("modèle/x".encode()), 1, zlib.crc32(raw)) + "modèle/x".encode()
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as made:
        info = zipfile.ZipInfo("modele/x")
        info.extra = field
        made.writestr(info, b"data")
    archive = opened(buffer.getvalue().replace(b"modele/x", raw))
    assert archive.read("modèle/x") == b"data"


def test_fields_that_differ_between_the_two_headers_are_fine() -> None:
    """Info-ZIP writes both times in an entry's own header, one of them in the directory (field UT)."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as made:
        info = zipfile.ZipInfo("archive/x")
        info.extra = struct.pack("<2HBI", 0x5455, 5, 1, 1_700_000_000)
        made.writestr(info, b"data")
    data = bytearray(buffer.getvalue())
    data[30 + len("archive/x") + 4] = 3
    assert opened(bytes(data)).read("archive/x") == b"data"


def test_checksums_that_are_all_zero_were_not_recorded() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        archive = opened(saved(torch.ones(3)))
    finally:
        torch.serialization.set_crc32_options(True)
    assert not archive.has_checksums
    assert archive.records["archive/data/0"].crc32 is None


def test_sizes_past_four_gigabytes_are_read_from_zip64_fields(tmp_path: Path) -> None:
    """A file with a hole: 5 GiB that take no space."""
    path = tmp_path / "large.zip"
    nbytes = 5 * 2**30
    sizes = struct.pack("<2H2Q", 1, 16, nbytes, nbytes)
    full = 2**32 - 1
    with open(path, "wb") as file:
        file.write(struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, full, full, 3, len(sizes)) + b"a/x" + sizes)
        file.seek(nbytes, os.SEEK_CUR)
        second = file.tell()
        file.write(struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 4, 4, 3, 0) + b"a/y" + b"data")
        directory = file.tell()
        entry = "<4s6H3I5H2I"
        file.write(struct.pack(entry, b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, full, full, 3, 20, 0, 0, 0, 0, 0))
        file.write(b"a/x" + sizes)
        file.write(struct.pack(entry, b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 4, 4, 3, 12, 0, 0, 0, 0, full))
        file.write(b"a/y" + struct.pack("<2HQ", 1, 8, second))
        end = file.tell()
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, end - directory, directory))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, end - directory, full, 0))
    with zipfile.ZipFile(path) as oracle:
        assert [info.file_size for info in oracle.infolist()] == [nbytes, 4]
    archive = open_archive(FileSource(path))
    assert archive.records["a/x"].nbytes == nbytes
    assert archive.read("a/y") == b"data"


def test_folders_are_no_records() -> None:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as made:
        made.mkdir("archive")
        made.writestr("archive/x", b"")
    archive = opened(buffer.getvalue())
    assert (archive.root, list(archive.records)) == ("archive", ["archive/x"])


def test_missing_record_is_named() -> None:
    with pytest.raises(IntegrityError, match="archive/none") as caught:
        opened(saved(1)).read("archive/none")
    assert caught.value.code == "missing-record"


@pytest.mark.parametrize("cut", [1, 21, 22, 200])
def test_archive_cut_off_at_its_end_says_that_the_directory_is_missing(cut: int) -> None:
    data = saved(torch.ones(100))[:-cut]
    with pytest.raises(IntegrityError, match="directory") as caught:
        opened(data)
    assert caught.value.code == "truncated-file"
    assert f"{len(data):,} bytes" in str(caught.value)


def test_member_is_a_source_of_its_own_whether_stored_or_deflated() -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(buffer := io.BytesIO(), "w", method) as made:
            made.writestr("archive/x", b"0123456789")
        assert opened(buffer.getvalue()).member("archive/x").read(2, 3) == b"234"
