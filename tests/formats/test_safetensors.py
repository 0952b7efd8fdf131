"""safetensors headers: what the package writes is read to the bit, and every contradiction is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from loadstone.dtypes import DTYPES
from loadstone.errors import FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats import safetensors
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.io.sources import FileSource, MemorySource


def read(data: bytes) -> Contents:
    return safetensors.read(MemorySource(data, "model.safetensors"), Context(open_source))


def file_of(header: Any, nbytes: int, *, text: str | None = None) -> bytes:
    encoded = (json.dumps(header) if text is None else text).encode()
    return len(encoded).to_bytes(8, "little") + encoded + bytes(nbytes)


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def equal_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    as_bytes = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*as_bytes)


def test_every_dtype_of_the_package_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    names = [row.name for row in DTYPES.values() if row.safetensors and hasattr(torch, row.name)]
    assert len(names) == 20
    saved = {}
    for name in names:
        dtype = getattr(torch, name)
        raw = torch.randint(0, 2, (2 * 3 * torch.empty((), dtype=dtype).element_size(),), dtype=torch.uint8)
        saved[name] = raw.view(dtype).reshape(2, 3)
    save_file(saved, path)
    tree = safetensors.read(FileSource(path), Context(open_source)).tree
    expected = load_file(path)
    assert tree.keys() == expected.keys()
    for name, tensor in expected.items():
        assert equal_bits(tree[name].read(), tensor), name


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 4), max_size=4), max_size=6))
def test_any_keys_and_shapes_come_back(shapes: dict[str, list[int]]) -> None:
    shapes = {key: shape for key, shape in shapes.items() if key != "__metadata__"}
    try:
        data = save({key: torch.full(shape, 7.0) for key, shape in shapes.items()})
    except (ValueError, TypeError, UnicodeEncodeError):  # what the package itself cannot write
        return
    tree = read(data).tree
    assert {key: list(info.shape) for key, info in tree.items()} == shapes
    assert all(torch.equal(info.read(), torch.full(shapes[key], 7.0)) for key, info in tree.items())


def test_metadata_is_given_as_text() -> None:
    contents = read(save({"a": torch.ones(1)}, {"format": "pt", "note": "käse"}))
    assert contents.metadata == {"format": "pt", "note": "käse"}


def test_empty_and_scalar_tensors_are_read() -> None:
    tree = read(save({"empty": torch.ones(0, 3), "scalar": torch.tensor(2.5)})).tree
    assert tree["empty"].read().shape == (0, 3)
    assert tree["scalar"].read().item() == 2.5


def test_white_space_around_the_header_is_accepted() -> None:
    text = "\n\t " + json.dumps({"a": entry(0, 4, [1])}) + "   "
    data = file_of(None, 4, text=text)
    assert safetensors.recognises(data[:64], MemorySource(data, "x"))
    assert list(read(data).tree) == ["a"]


def test_six_bit_types_are_listed_with_their_size() -> None:
    info = read(file_of({"a": entry(0, 3, [4], "F6_E2M3")}, 3)).tree["a"]
    assert (info.dtype, info.shape, info.nbytes) == ("float6_e2m3fn", (4,), 3)


@pytest.mark.parametrize(
    ("header", "nbytes", "why"),
    [
        ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "`b` leaves a hole of 4 bytes"),
        ({"a": entry(4, 8, [1])}, 8, "`a` leaves a hole of 4 bytes"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "`b` overlaps `a`"),
        ({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, 8, "`b` overlaps `a`"),
        ({"a": entry(0, 4, [1])}, 5, "1 bytes follow the last tensor"),
        ({}, 3, "3 bytes follow the last tensor"),
        ({"a": entry(0, 4, [2])}, 4, "`a` needs 8 bytes and is given 4"),
        ({"a": entry(4, 0, [1])}, 4, "`a` needs 4 bytes and is given -4"),
        ({"a": entry(0, 4, [1.0])}, 4, "the entry of `a` has"),
        ({"a": entry(0, 4, [True])}, 4, "the entry of `a` has"),
        ({"a": entry(0, 4, [-1])}, 4, "the entry of `a` has"),
        ({"a": entry(0, 4, [2**62, 2**62, 0])}, 4, "more than 2\\^63"),
        ({"a": entry(0, 4, [2**32, 2**32])}, 4, "more than 2\\^63"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "the entry of `a` has"),
        ({"a": {**entry(0, 4, [1]), "data_offsets": [0, 4, 8]}}, 4, "the entry of `a` has"),
        ({"a": [1]}, 4, "the entry of `a` is no object"),
        ({"a": entry(0, 1, [1], "F4")}, 1, "`a` needs 0.5 bytes and is given 1"),
        ({"a": entry(0, 1, [2, 1], "F4")}, 1, "odd number of 4-bit values"),
        ({"__metadata__": {"a": 1}}, 0, "`__metadata__` maps to something else than text"),
        ({"__metadata__": ["a"]}, 0, "`__metadata__` maps to something else than text"),
        ([], 0, "it is a list instead of an object"),
    ],
)
def test_contradiction_in_the_header_is_refused(header: Any, nbytes: int, why: str) -> None:
    with pytest.raises(FormatError, match=rf"header-invalid.*{why}"):
        read(file_of(header, nbytes))


def test_unknown_dtype_is_named() -> None:
    with pytest.raises(FormatError, match=r"unsupported-feature.*unknown dtype 'F3'"):
        read(file_of({"a": entry(0, 4, [1], "F3")}, 4))


def test_key_that_stands_twice_is_refused() -> None:
    one = json.dumps(entry(0, 4, [1]))
    with pytest.raises(FormatError, match=r"the name 'a' stands twice"):
        read(file_of(None, 4, text=f'{{"a": {one}, "a": {one}}}'))


@pytest.mark.parametrize("kept", [4, 8, 20, 60, -1, -100])
def test_file_cut_anywhere_is_called_truncated(kept: int) -> None:
    data = save({"a": torch.ones(50)})[:kept]
    with pytest.raises(IntegrityError, match=r"truncated-file"):
        read(data)


def test_truncated_file_tells_both_sizes() -> None:
    data = save({"a": torch.ones(50)})
    with pytest.raises(IntegrityError) as raised:
        read(data[:-30])
    assert raised.value.diagnostics[0].evidence == (
        ("expected", f"{len(data)} bytes"),
        ("found", f"{len(data) - 30} bytes"),
    )


def test_zip_behind_the_tensors_is_ambiguous(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    data = save({"a": torch.ones(2)}) + (tmp_path / "w.pt").read_bytes()
    with pytest.raises(UnsafeError, match=r"ambiguous-archive.*zip archive"):
        read(data)


@given(st.binary(max_size=40), st.integers(0, 200), st.integers(0, 255))
def test_damaged_file_gives_no_other_error_than_ours(extra: bytes, place: int, byte: int) -> None:
    data = bytearray(save({"a.weight": torch.ones(3, 2), "b": torch.ones(1, dtype=torch.int8)}) + extra)
    data[place % len(data)] = byte
    try:
        tree = read(bytes(data)).tree
    except LoadstoneError:
        return
    assert sum(info.nbytes for info in tree.values()) <= len(data)


def test_ten_thousand_tensors_are_read_in_linear_time() -> None:
    def seconds(tensors: int) -> float:
        header = {f"layers.{i}.weight": entry(16 * i, 16 * i + 16, [2, 2]) for i in range(tensors)}
        data = file_of(header, 16 * tensors)
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            read(data)
            runs.append(time.perf_counter() - start)
        return min(runs)

    assert seconds(10_000) < 40 * max(seconds(1_000), 0.002)  # a square would be 100 times


def test_overlapping_entries_are_refused_before_tensors_are_made() -> None:
    header = {f"w{i}": entry(0, 4, [1]) for i in range(5_000)}
    with pytest.raises(FormatError, match=r"overlaps"):
        read(file_of(header, 4))


def test_reading_imports_neither_torch_nor_numpy_nor_the_package(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    program = (
        "import sys, loadstone.formats.safetensors as s\n"
        "from loadstone.formats.contents import Context\n"
        "from loadstone.io.sources import FileSource\n"
        "s.read(FileSource(sys.argv[1]), Context(None))\n"
        "print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.safetensors")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
