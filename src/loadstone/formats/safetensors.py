"""safetensors: eight bytes of header length, a JSON header, and the tensors' bytes behind it, without gaps.

The header is read directly (no package, no import of numpy or torch) and proved: every tensor's bytes follow from its
dtype and shape, and all of them together tile the rest of the file exactly.  Nothing is left over that another reader
could take for something else.

Format: https://github.com/huggingface/safetensors#format and its `Metadata::validate`.
"""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

from loadstone.dtypes import BY_SAFETENSORS
from loadstone.errors import Diagnostic, FormatError, IntegrityError, LoadstoneError, UnsafeError
from loadstone.formats import strict_json
from loadstone.formats.contents import Contents, Context
from loadstone.formats.manifests import read_manifest
from loadstone.io.sources import ByteSource
from loadstone.manifest import ENTRY, FILE_ENTRY, Manifest
from loadstone.storage import Extent, Storage
from loadstone.tensors import MAX_INT64, TensorInfo, contiguous_stride

FORMAT = "safetensors"
MAX_HEADER_NBYTES = 100_000_000  # the package's own limit
_LENGTH_NBYTES = 8
_ZIP_TAIL_NBYTES = 65_557  # a zip ends with 22 bytes and at most 65,535 of comment

_Entry: TypeAlias = tuple[int, int, str, str, tuple[int, ...]]  # first byte, end, key, dtype, shape as torch has it


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the file starts with a plausible header length and the `{` of a JSON object."""
    if len(head) <= _LENGTH_NBYTES:
        return False
    header_nbytes = int.from_bytes(head[:_LENGTH_NBYTES], "little")
    if not 2 <= header_nbytes <= MAX_HEADER_NBYTES:
        return False
    start = head[_LENGTH_NBYTES : _LENGTH_NBYTES + header_nbytes]
    if start[:1] == b"{":
        return True  # even if the file ends inside the header: then it is a truncated safetensors file
    return start.lstrip(b" \t\r\n")[:1] == b"{" and _LENGTH_NBYTES + header_nbytes <= source.size


def read(source: ByteSource, context: Context) -> Contents:
    """The tensors of a safetensors file as {key: TensorInfo} and its `__metadata__`.

    Raises FormatError ("header-invalid") where the header contradicts itself or the file, IntegrityError
    ("truncated-file") where the file ends before its last tensor, UnsafeError ("ambiguous-archive") where a zip
    archive follows the tensors.
    """
    header_nbytes = int.from_bytes(source.read(0, _LENGTH_NBYTES), "little")
    if not 2 <= header_nbytes <= MAX_HEADER_NBYTES:
        raise _invalid(source, f"it claims a header of {header_nbytes:,} bytes")
    context.limits.check("header_nbytes", header_nbytes, f"the header of `{source.name}`")
    header = strict_json.parse(
        source.read(_LENGTH_NBYTES, header_nbytes), name=f"the header of `{source.name}`", limits=context.limits
    )
    if not isinstance(header, dict):
        raise _invalid(source, f"it is a {type(header).__name__} instead of an object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _invalid(source, "`__metadata__` maps to something else than text")
    data_start = _LENGTH_NBYTES + header_nbytes
    entries = [_checked_entry(source, key, entry) for key, entry in header.items()]
    _prove_tiling(source, entries, source.size - data_start)
    tree: dict[str, TensorInfo] = {}
    strides: dict[tuple[int, ...], tuple[int, ...]] = {}  # many tensors, few shapes
    for begin, end, key, dtype, shape in entries:
        stride = strides.get(shape)
        if stride is None:
            stride = strides[shape] = contiguous_stride(shape)
        storage = Storage(key, end - begin, (Extent.stored(source, data_start + begin, end - begin),))
        tree[key] = TensorInfo(key, dtype, shape, stride, 0, storage)
    manifest: Manifest | None = None
    notes: tuple[Diagnostic, ...] = ()
    if (text := metadata.pop(ENTRY, None)) is not None:
        metadata.pop(FILE_ENTRY, None)
        manifest, notes = read_manifest(
            lambda: text.encode("utf-8", "surrogatepass"), tree, name=source.name, limits=context.limits
        )
    return Contents(FORMAT, tree, notes, metadata=metadata, weights=(), manifest=manifest)


def _checked_entry(source: ByteSource, key: str, entry: object) -> _Entry:
    """One tensor, with a length that agrees with its dtype and shape."""
    if not isinstance(entry, dict):
        raise _invalid(source, f"the entry of `{key}` is no object")
    shape, offsets, name = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not (isinstance(name, str) and _is_counts(shape) and _is_counts(offsets) and len(offsets) == 2):
        claim = f"dtype {name!r:.40}, shape {shape!r:.60}, data_offsets {offsets!r:.60}"
        raise _invalid(source, f"the entry of `{key}` has {claim}")
    dtype = BY_SAFETENSORS.get(name)
    if dtype is None:
        raise FormatError(
            Diagnostic("unsupported-feature", f"`{key}` in `{source.name}` has the unknown dtype {name!r:.40}")
        )
    elements = reach = 1
    for size in shape:
        elements *= size
        reach *= size or 1  # strides count an empty dimension as 1
    bits = 4 if name == "F4" else dtype.bits
    begin, end = offsets
    if reach > MAX_INT64 or elements * bits != (end - begin) * 8:
        needed = f"{elements * bits / 8:,.1f}".removesuffix(".0") if reach <= MAX_INT64 else "more than 2^63"
        raise _invalid(source, f"`{key}` needs {needed} bytes and is given {end - begin:,}")
    if name == "F4":  # torch counts bytes, which hold two values each: float4_e2m1fn_x2
        if not shape or shape[-1] % 2:
            raise _invalid(source, f"the last dimension of `{key}` has an odd number of 4-bit values")
        return begin, end, key, dtype.name, (*shape[:-1], shape[-1] // 2)
    return begin, end, key, dtype.name, tuple(shape)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    if type(value) is not list:
        return False
    for item in value:  # noqa: SIM110  half the time of all() with a generator
        if type(item) is not int or not 0 <= item <= MAX_INT64:
            return False
    return True


def _prove_tiling(source: ByteSource, entries: list[_Entry], available: int) -> None:
    """No hole, no overlap, and the end of the last tensor is the end of the file."""
    position, before = 0, "the header"
    for begin, end, key, _, _ in sorted(entries):
        if begin != position:
            how = f"overlaps {before}" if begin < position else f"leaves a hole of {begin - position:,} bytes"
            raise _invalid(source, f"`{key}` {how}")
        position, before = end, f"`{key}`"
    if position > available:
        raise _ends_early(source, position - available)
    if position < available:
        raise _extra_bytes(source, source.size - (available - position))


def _ends_early(source: ByteSource, missing: int) -> IntegrityError:
    return IntegrityError(
        Diagnostic(
            "truncated-file",
            f"`{source.name}` ends {missing:,} bytes before the end of its last tensor",
            evidence=(("expected", f"{source.size + missing:,} bytes"), ("found", f"{source.size:,} bytes")),
        )
    )


def _extra_bytes(source: ByteSource, end: int) -> LoadstoneError:
    extra = source.size - end
    tail_nbytes = min(extra, _ZIP_TAIL_NBYTES)
    tail = source.read(source.size - tail_nbytes, tail_nbytes)
    if b"PK\x05\x06" in tail or source.read(end, min(extra, 4)) == b"PK\x03\x04":
        return UnsafeError(
            Diagnostic(
                "ambiguous-archive",
                f"`{source.name}` is a safetensors file with a zip archive of {extra:,} bytes behind it",
            )
        )
    return _invalid(source, f"{extra:,} bytes follow the last tensor")


def _invalid(source: ByteSource, why: str) -> FormatError:
    return FormatError(Diagnostic("header-invalid", f"the header of `{source.name}` is invalid: {why}"))
