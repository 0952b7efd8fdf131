"""numpy's files: arrays as numpy wrote them, headers that lie, and pickles that are judged."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from loadstone.errors import FormatError, IntegrityError, LoadstoneError
from loadstone.formats import npz
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.formats.zips.archive import open_archive
from loadstone.io.sources import FileSource, MemorySource
from loadstone.values import Opaque

CONTEXT = Context(open_source)
NUMBERS = st.sampled_from(
    ["<f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c16", "|b1", "|i1", "<i2", ">i4", "<i8", "|u1", ">u2", "<u4", ">u8"]
)


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def read(data: bytes) -> Contents:
    source = MemorySource(data, "a.npy")
    assert npz.recognises(data[:64], source)
    return npz.read(source, CONTEXT)


def read_npz(path: Path) -> Contents:
    return npz.read_npz_archive(open_archive(FileSource(path)), CONTEXT)


def with_header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    encoded = text.encode("latin-1")
    return (
        b"\x93NUMPY" + bytes((version, 0)) + len(encoded).to_bytes(2 if version == 1 else 4, "little") + encoded + data
    )


@given(np_st.arrays(NUMBERS, np_st.array_shapes(min_dims=0, min_side=0)), st.booleans())
def test_array_of_numbers_comes_back_to_the_bit(array: np.ndarray, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    info = read(npy(array)).tree
    found = info.numpy()
    assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("="))
    assert found.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("compress", [False, True])
def test_archive_gives_each_array_under_its_name(tmp_path: Path, compress: bool) -> None:
    arrays = {
        "layer/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
        "swapped": np.arange(5, dtype=">i8"),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 3), dtype=np.int16),
        "scalar": np.array(2.5),
    }
    path = tmp_path / "a.npz"
    (np.savez_compressed if compress else np.savez)(path, **arrays)
    contents = read_npz(path)
    assert (contents.format, list(contents.tree)) == ("npz", list(arrays))
    for key, array in arrays.items():
        assert np.array_equal(contents.tree[key].numpy(), array), key
        assert contents.tree[key].key == key


def test_stored_member_is_read_in_place(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(4, dtype=np.float32))
    assert read_npz(tmp_path / "a.npz").tree["w"].is_plain


def test_deflated_member_whose_header_cuts_an_element_is_read(tmp_path: Path) -> None:
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"
    data = with_header(text + " " * (3 - len(text) % 8), np.array([1.5, -2.5]).tobytes())
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", data)
    assert read_npz(tmp_path / "a.npz").tree["w"].numpy().tolist() == [1.5, -2.5]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_is_read(version: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(3), version=version)
    assert read(buffer.getvalue()).tree.numpy().tolist() == [0, 1, 2]


def test_header_as_python_2_wrote_it_is_read() -> None:
    text = "{'descr': '<i4', 'fortran_order': False, 'shape': (2L,), }\n"
    assert read(with_header(text, bytes(8))).tree.shape == (2,)


def test_text_and_fields_are_records_with_their_dtype() -> None:
    words = read(npy(np.array(["a", "bc"])))
    fields = read(npy(np.zeros(2, dtype=[("x", "<f4"), ("y", "<i8", (3,))])))
    assert (words.tree.class_name, words.tree.state["dtype"]) == ("numpy.ndarray", "<U2")
    assert fields.tree.state["dtype"] == [("x", "<f4"), ("y", "<i8", (3,))]
    assert [one.code for one in (*words.diagnostics, *fields.diagnostics)] == ["not-extracted"] * 2


def test_array_of_plain_objects_is_a_record_without_error(tmp_path: Path) -> None:
    array = np.array([1, "two", None], dtype=object)
    np.savez_compressed(tmp_path / "a.npz", objects=array)
    for contents in (read(npy(array)), read_npz(tmp_path / "a.npz")):
        value = contents.tree if isinstance(contents.tree, Opaque) else contents.tree["objects"]
        assert value.state["shape"] == (3,)
        assert not [one for one in contents.diagnostics if one.severity == "error"]


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("dtype", [object, [("x", "<f4"), ("y", object)]])
def test_payload_in_an_array_of_objects_is_reported_and_not_run(tmp_path: Path, dtype: Any) -> None:
    array = np.zeros(1, dtype=dtype)
    array[0] = Payload(tmp_path / "marker") if dtype is object else (1.0, Payload(tmp_path / "marker"))
    np.savez_compressed(tmp_path / "a.npz", objects=array)
    for contents in (read(npy(array)), read_npz(tmp_path / "a.npz")):
        assert [one.code for one in contents.diagnostics if one.severity == "error"] == ["dangerous-global"]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [2]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2.0,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': 'f4; import os', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} + {}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}",
        "[" * 60_000,
        "{1: 2}",
        "",
    ],
)
def test_header_that_is_not_numpys_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"header-invalid.*the npy header of `a.npy`"):
        read(with_header(text, bytes(64)))


def test_header_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(FormatError, match=r"claims 70,000 bytes"):
        read(with_header(" " * 70_000, version=2))


def test_unknown_version_is_named() -> None:
    with pytest.raises(FormatError, match=r"npy version 9"):
        read(with_header("{}", bytes(20), version=9))


def test_array_that_ends_early_tells_both_sizes() -> None:
    data = npy(np.zeros(10))
    with pytest.raises(IntegrityError, match=r"truncated-file.*ends 5 bytes early") as raised:
        read(data[:-5])
    assert dict(raised.value.diagnostics[0].evidence) == {"expected": "208 bytes", "found": "203 bytes"}


def test_bytes_behind_the_array_are_noted() -> None:
    assert [one.code for one in read(npy(np.zeros(2)) + b"more").diagnostics] == ["trailing-bytes"]


def test_member_that_is_no_array_is_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(1))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "hello")
    contents = read_npz(tmp_path / "a.npz")
    assert list(contents.tree) == ["w"]
    assert [one.code for one in contents.diagnostics] == ["not-extracted"]


@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_damaged_array_gives_no_other_error_than_ours(place: int, byte: int, cut: int) -> None:
    data = bytearray(npy(np.arange(6, dtype=np.float32)))
    data[place % len(data)] = byte
    damaged = bytes(data[: len(data) - cut])
    try:
        npz.read(MemorySource(damaged, "a.npy"), CONTEXT)
    except LoadstoneError:
        return
