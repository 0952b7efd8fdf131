"""Byte sources give exactly what is asked for, or say what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import IntegrityError, MissingFileError
from loadstone.io.sources import ByteSource, FileSource, MemorySource, SliceSource

DATA = bytes(range(256)) * 4


@pytest.fixture(params=["file", "memory", "slice"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ByteSource:
    if request.param == "memory":
        return MemorySource(DATA, "memory")
    path = tmp_path / "data.bin"
    if request.param == "file":
        path.write_bytes(DATA)
        opened: ByteSource = FileSource(path)
    else:
        path.write_bytes(b"xx" + DATA + b"yyy")
        opened = SliceSource(FileSource(path), 2, len(DATA), "inner")
    return opened


@given(start=st.integers(0, 1024), count=st.integers(0, 1024))
def test_reads_are_exact(start: int, count: int) -> None:
    source = MemorySource(DATA, "memory")
    if start + count <= len(DATA):
        assert source.read(start, count) == DATA[start : start + count]
    else:
        with pytest.raises(IntegrityError):
            source.read(start, count)


def test_every_way_of_reading_agrees(source: ByteSource) -> None:
    assert source.size == len(DATA)
    buffer = bytearray(100)
    source.read_into(50, memoryview(buffer))
    assert bytes(buffer) == source.read(50, 100) == bytes(source.view(50, 100)) == DATA[50:150]


@pytest.mark.parametrize(("start", "count"), [(1000, 25), (-1, 5), (1025, 0), (0, -1)])
def test_outside_is_an_error_of_ours(source: ByteSource, start: int, count: int) -> None:
    with pytest.raises(IntegrityError, match="truncated-file"):
        source.read(start, count)
    with pytest.raises(IntegrityError, match="truncated-file"):
        source.view(start, count)


def test_views_are_private_and_outlive_the_source(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    source = FileSource(path)
    view = source.view(10, 20)
    source.close()
    view[0] = 99
    assert view[0] == 99
    assert path.read_bytes() == DATA


def test_a_closed_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    source = FileSource(path)
    source.close()
    source.close()
    with pytest.raises(IntegrityError, match="is closed"):
        source.read(0, 1)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "model.pth").touch()
    with pytest.raises(MissingFileError, match=r"near\s+model\.pth") as raised:
        FileSource(tmp_path / "modle.pth")
    assert isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "file/inside"])
def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingFileError, match="file-not-found"):
        FileSource(tmp_path / name)


def test_a_file_that_shrinks_after_opening_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    source = FileSource(path)
    path.write_bytes(DATA[:100])
    with pytest.raises(IntegrityError, match="ends"):
        source.read(50, 100)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IntegrityError, match="not a regular file"):
        FileSource(tmp_path / "pipe")


def test_a_device_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not a regular file"):
        FileSource("/dev/zero")
