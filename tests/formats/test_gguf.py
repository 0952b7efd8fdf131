"""GGUF headers, built here byte by byte: shapes turned round, quantised blocks kept apart, lies refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import FormatError, IntegrityError, LoadstoneError
from loadstone.formats import gguf
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_source
from loadstone.io.sources import MemorySource
from loadstone.values import Opaque

F32, F16, Q4_K, I32, BF16 = 0, 1, 12, 26, 30
ONE_TENSOR = ("w", (2,), F32, 0)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def file_of(
    tensors: list[tuple[str, tuple[int, ...], int, int]],
    data: bytes,
    values: tuple[tuple[str, int, bytes], ...] = (),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Tensors are (name, sizes with the fastest first, type, offset); values are (key, type, bytes)."""
    head = b"GGUF" + struct.pack("<I2Q", version, *(counts or (len(tensors), len(values))))
    for key, kind, value in values:
        head += text(key) + struct.pack("<I", kind) + value
    for name, sizes, kind, offset in tensors:
        head += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)
    return head + bytes(-len(head) % 32) + data


def read(data: bytes) -> Contents:
    source = MemorySource(data, "model.gguf")
    assert gguf.recognises(data[:64], source)
    return gguf.read(source, Context(open_source))


def test_shapes_are_given_in_torchs_order() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    info = read(file_of([("w", (3, 2), F32, 0)], values.numpy().tobytes())).tree["w"]
    assert info.shape == (2, 3)
    assert torch.equal(info.read(), values)


def test_several_tensors_lie_at_their_aligned_offsets() -> None:
    data = (
        struct.pack("<2i", 7, 8) + bytes(24) + torch.ones(3, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    )
    tree = read(file_of([("a", (2,), I32, 0), ("b", (3,), BF16, 32)], data)).tree
    assert tree["a"].read().tolist() == [7, 8]
    assert torch.equal(tree["b"].read(), torch.ones(3, dtype=torch.bfloat16))


def test_quantised_blocks_are_records_and_not_tensors() -> None:
    contents = read(file_of([("q", (256, 2), Q4_K, 0)], bytes(288)))
    assert isinstance(contents.tree["q"], Opaque)
    assert (contents.tree["q"].class_name, contents.tree["q"].state["shape"]) == ("gguf.Q4_K", (2, 256))
    assert [(one.code, one.keys) for one in contents.diagnostics] == [("not-extracted", ("q",))]


def test_header_values_are_metadata_and_lists_are_counted() -> None:
    words = struct.pack("<IQ", 8, 2) + text("<s>") + text("</s>")
    numbers = struct.pack("<IQ3f", 6, 3, 1, 2, 3)
    values = (
        ("general.name", 8, text("tiny")),
        ("x.layers", 4, struct.pack("<I", 5)),
        ("tokens", 9, words),
        ("scores", 9, numbers),
    )
    metadata = read(file_of([], b"", values)).metadata
    assert metadata == {"general.name": "tiny", "x.layers": "5", "tokens": "[2 strings]", "scores": "[3 numbers]"}


def test_alignment_of_the_file_is_used() -> None:
    values = (("general.alignment", 4, struct.pack("<I", 8)),)
    data = file_of([("a", (1,), F32, 0), ("b", (1,), F32, 8)], struct.pack("<f4xf", 1.0, 2.0), values)
    assert read(data).tree["b"].read().item() == 2.0


def test_big_endian_file_is_read_and_noted() -> None:
    head = b"GGUF" + struct.pack(">I2Q", 3, 1, 0) + struct.pack(">Q", 1) + b"w" + struct.pack(">IQIQ", 1, 2, F32, 0)
    contents = read(head + bytes(-len(head) % 32) + struct.pack(">2f", 1.5, 2.5))
    assert contents.tree["w"].read().tolist() == [1.5, 2.5]
    assert [one.code for one in contents.diagnostics] == ["big-endian"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (file_of([], b"", counts=(2**60, 0)), "claims 1,152,921,504,606,846,976 tensors"),
        (file_of([], b"", counts=(0, 2**60)), "header values"),
        (file_of([("w", (1,) * 5, F32, 0)], bytes(64)), "has 5 dimensions"),
        (file_of([("w", (2**40, 2**40), F32, 0)], bytes(64)), "has the shape"),
        (file_of([("w", (2,), F32, 4)], bytes(64)), "no multiple of 32"),
        (file_of([ONE_TENSOR, ONE_TENSOR], bytes(64)), "stands twice"),
        (file_of([ONE_TENSOR, ("v", (2,), F32, 0)], bytes(64)), "overlaps"),
        (file_of([("w", (100,), Q4_K, 0)], bytes(640)), "do not divide into Q4_K blocks of 256"),
        (file_of([], b"", (("general.alignment", 4, struct.pack("<I", 3)),)), "the alignment is 3"),
        (file_of([], b"", (("general.alignment", 8, text("32")),)), "the alignment is '32'"),
        (file_of([], b"", (("k", 99, b""),)), "the unknown type 99"),
        (file_of([], b"", (("k", 9, struct.pack("<IQ", 4, 2**61)),)), "numbers"),
        (file_of([], b"", (("k", 8, text("a")), ("k", 8, text("b")))), "the value 'k' stands twice"),
    ],
)
def test_contradiction_in_the_header_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=f"header-invalid.*{why}"):
        read(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (file_of([], b"", version=1), "GGUF version 1"),
        (file_of([("w", (2,), 77, 0)], bytes(64)), "the unknown type 77"),
    ],
)
def test_unknown_version_or_type_is_named(data: bytes, what: str) -> None:
    with pytest.raises(FormatError, match=f"unsupported-feature.*{what}"):
        read(data)


@pytest.mark.parametrize("kept", [6, 20, 30, -1])
def test_file_that_ends_early_is_truncated(kept: int) -> None:
    with pytest.raises(LoadstoneError, match=r"truncated-file|bytes are left"):
        read(file_of([ONE_TENSOR], bytes(8))[:kept])


def test_missing_data_tells_both_sizes() -> None:
    data = file_of([ONE_TENSOR], bytes(8))
    with pytest.raises(IntegrityError) as raised:
        read(data[:-1])
    assert raised.value.diagnostics[0].evidence == (("expected", "72 bytes"), ("found", "71 bytes"))


@given(st.integers(4, 200), st.integers(0, 255), st.integers(0, 60))
def test_damaged_file_gives_no_other_error_than_ours(place: int, byte: int, cut: int) -> None:
    values: tuple[tuple[str, int, Any], ...] = (("a", 8, text("x")), ("b", 9, struct.pack("<IQ2I", 4, 2, 1, 2)))
    data = bytearray(file_of([ONE_TENSOR, ("q", (256,), Q4_K, 32)], bytes(176), values))
    data[place] = byte
    try:
        read(bytes(data[: len(data) - cut]))
    except LoadstoneError:
        return
