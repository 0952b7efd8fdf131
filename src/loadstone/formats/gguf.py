"""GGUF, the file of llama.cpp: a header of typed values, tensor places, and the tensors' bytes.

Plain types become tensors.  Quantised ones are kept as records of their type, so that nobody takes packed blocks for
weights.

Format, versions 2 and 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; numbers of types: ggml.h.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from math import prod
from typing import Literal

from loadstone.dtypes import nbytes_of
from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats.contents import Contents, Context
from loadstone.io.sources import ByteSource
from loadstone.storage import Extent, Storage
from loadstone.tensors import MAX_INT64, contiguous_stride, dense
from loadstone.values import Opaque, Value

FORMAT = "gguf"

_MAGIC = b"GGUF"
_WINDOW_NBYTES = 1024 * 1024
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_MAX_NAME_NBYTES = 65_535
_DEFAULT_ALIGNMENT = 32
_SHOWN_CHARACTERS = 200

_PLAIN_TYPES = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16",
}  # fmt: skip
_BLOCK_TYPES: dict[int, tuple[str, int, int]] = {  # name, values a block, bytes a block
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class _Cursor:
    """Reads the header from front to end, a window at a time, and never past the file or the header limit."""

    def __init__(self, source: ByteSource, context: Context, order: Literal["<", ">"]) -> None:
        self._source = source
        self._limits = context.limits
        self.order = order
        self._window = b""
        self._window_start = 0
        self.position = 0

    @property
    def left(self) -> int:
        return self._source.size - self.position

    def take(self, nbytes: int) -> bytes:
        start = self.position - self._window_start
        if start + nbytes > len(self._window):
            self._limits.check("header_nbytes", self.position + nbytes, f"the header of `{self._source.name}`")
            size = max(nbytes, min(_WINDOW_NBYTES, self.left))
            self._window = self._source.read(self.position, size)
            self._window_start, start = self.position, 0
        self.position += nbytes
        return self._window[start : start + nbytes]

    def number(self, code: str) -> Value:
        layout = self.order + code
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def count(self, smallest_nbytes: int, what: str) -> int:
        """A number of items, each of at least so many bytes, for which the file has room."""
        count: int = self.number("Q")
        if count * smallest_nbytes > self.left:
            raise _invalid(self._source, f"it claims {count:,} {what}, {self.left:,} bytes are left")
        return count

    def text(self) -> str:
        return self.take(self.count(1, "bytes of text")).decode("utf-8", "replace")


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the file starts with GGUF's magic number."""
    return head.startswith(_MAGIC)


def read(source: ByteSource, context: Context) -> Contents:
    """{name: TensorInfo, or an Opaque "gguf.Q4_K" for quantised blocks}; single header values are the metadata.

    Shapes are torch's: GGUF lists the fastest dimension first.  Raises FormatError ("header-invalid") where counts,
    types or places contradict the file, ("unsupported-feature") for version 1.
    """
    version = source.read(4, 4)
    cursor = _Cursor(source, context, "<" if int.from_bytes(version, "little") < 65_536 else ">")
    cursor.take(4)
    number = cursor.number("I")
    if number not in (2, 3):
        raise FormatError(Diagnostic("unsupported-feature", f"`{source.name}` is GGUF version {number}, not 2 or 3"))
    tensors = cursor.count(8 + 4 + 4 + 8, "tensors")
    values = cursor.count(8 + 4 + 1, "header values")
    metadata, alignment = _header_values(source, cursor, values)
    claims = [_tensor_claim(source, cursor) for _ in range(tensors)]
    data_start = -(-cursor.position // alignment) * alignment
    is_big_endian = cursor.order == ">"
    tree: dict[str, Value] = {}
    runs: list[tuple[int, int, str]] = []
    quantised: list[str] = []
    for name, shape, kind, offset in claims:
        if name in tree:
            raise _invalid(source, f"the tensor {name!r:.80} stands twice")
        nbytes = _nbytes(source, name, shape, kind)
        start = data_start + offset
        if offset % alignment:
            raise _invalid(source, f"{name!r:.80} lies at {offset:,}, which is no multiple of {alignment}")
        if start + nbytes > source.size:
            raise _ends_early(source, name, start + nbytes)
        runs.append((start, start + nbytes, name))
        storage = Storage(name, nbytes, (Extent.stored(source, start, nbytes),), is_big_endian=is_big_endian)
        if kind in _PLAIN_TYPES:
            tree[name] = dense(name, _PLAIN_TYPES[kind], shape, contiguous_stride(shape), 0, storage)
        else:
            quantised.append(name)
            tree[name] = Opaque(f"gguf.{_BLOCK_TYPES[kind][0]}", state={"shape": shape, "nbytes": nbytes})
    _refuse_overlaps(source, runs)
    return Contents(FORMAT, tree, _notes(source, tree, quantised, is_big_endian), metadata, weights=())


def _header_values(source: ByteSource, cursor: _Cursor, count: int) -> tuple[dict[str, str], int]:
    metadata: dict[str, str] = {}
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(count):
        key = cursor.text()
        if key in metadata:
            raise _invalid(source, f"the value {key!r:.80} stands twice")
        value = _value(source, cursor, cursor.number("I"))
        metadata[key] = str(value)[:_SHOWN_CHARACTERS]
        if key == "general.alignment":
            alignment = value
    if type(alignment) is not int or not 0 < alignment <= 65_536 or alignment & (alignment - 1):
        raise _invalid(source, f"the alignment is {alignment!r:.40}")
    return metadata, alignment


def _value(source: ByteSource, cursor: _Cursor, kind: int) -> Value:
    """A single value; of an array only its size, as text (a tokenizer's holds 150,000 words)."""
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY:
        raise _invalid(source, f"a header value has the unknown type {kind}")
    item = cursor.number("I")
    if item in _SCALARS:
        count = cursor.count(struct.calcsize(_SCALARS[item]), "numbers")
        cursor.take(count * struct.calcsize(_SCALARS[item]))
        return f"[{count:,} numbers]"
    if item != _STRING:  # arrays of arrays are allowed and not written by anything
        raise FormatError(Diagnostic("unsupported-feature", f"`{source.name}` has a header array of type {item}"))
    count = cursor.count(8, "strings")
    for _ in range(count):
        cursor.take(cursor.count(1, "bytes of text"))
    return f"[{count:,} strings]"


def _tensor_claim(source: ByteSource, cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, torch's shape, type and offset of one tensor, as claimed."""
    length = cursor.count(1, "bytes of text")
    if length > _MAX_NAME_NBYTES:
        raise _invalid(source, f"a tensor's name has {length:,} bytes")
    name = cursor.take(length).decode("utf-8", "replace")
    dimensions = cursor.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise _invalid(source, f"{name!r:.80} has {dimensions:,} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    if prod(size or 1 for size in shape) > MAX_INT64:  # strides count an empty dimension as 1
        raise _invalid(source, f"{name!r:.80} has the shape {list(shape)}")
    return name, shape, cursor.number("I"), cursor.number("Q")


def _nbytes(source: ByteSource, name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind in _PLAIN_TYPES:
        return nbytes_of(_PLAIN_TYPES[kind], shape)
    if kind not in _BLOCK_TYPES:
        raise FormatError(
            Diagnostic("unsupported-feature", f"{name!r:.80} in `{source.name}` has the unknown type {kind}")
        )
    title, block_values, block_nbytes = _BLOCK_TYPES[kind]
    if not shape or shape[-1] % block_values:
        raise _invalid(source, f"the rows of {name!r:.80} do not divide into {title} blocks of {block_values}")
    return prod(shape) // block_values * block_nbytes


def _refuse_overlaps(source: ByteSource, runs: list[tuple[int, int, str]]) -> None:
    runs.sort()
    for (_, end, name), (start, _, other) in pairwise(runs):
        if start < end:
            raise _invalid(source, f"{other!r:.80} overlaps {name!r:.80}")


def _notes(
    source: ByteSource, tree: dict[str, Value], quantised: list[str], is_big_endian: bool
) -> tuple[Diagnostic, ...]:
    notes: tuple[Diagnostic, ...] = ()
    if quantised:
        kinds = ", ".join(sorted({tree[name].class_name.removeprefix("gguf.") for name in quantised}))
        what = f"{len(quantised):,} of {len(tree):,} tensors of `{source.name}` are quantised blocks ({kinds})"
        notes = (Diagnostic("not-extracted", what, keys=tuple(quantised)),)
    if is_big_endian:
        notes += (Diagnostic("big-endian", f"`{source.name}` is stored big-endian"),)
    return notes


def _ends_early(source: ByteSource, name: str, expected: int) -> IntegrityError:
    return IntegrityError(
        Diagnostic(
            "truncated-file",
            f"`{source.name}` ends before the end of {name!r:.80}",
            evidence=(("expected", f"{expected:,} bytes"), ("found", f"{source.size:,} bytes")),
        )
    )


def _invalid(source: ByteSource, why: str) -> FormatError:
    return FormatError(Diagnostic("header-invalid", f"the header of `{source.name}` is invalid: {why}"))
