"""numpy's files: .npy, one array, and .npz, a zip of them.

Arrays of numbers become tensors.  Arrays of Python objects are pickles: they are judged like any other, and kept as
records.  Text and arrays with fields are records as well, with numpy's description of their dtype.
"""

from __future__ import annotations

import zlib
from functools import partial
from math import prod

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, IntegrityError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.npy_header import MAGIC, NpyHeader, read_header
from loadstone.formats.pickles.globals import judge
from loadstone.formats.pickles.vm import execute
from loadstone.formats.zips.archive import Archive
from loadstone.io.sources import ByteSource, SliceSource
from loadstone.storage import Extent, Storage
from loadstone.tensors import TensorInfo, contiguous_stride
from loadstone.values import Opaque, Value

FORMAT = "npz"

_SUFFIX = ".npy"
_NUMPY_CODES = {
    "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128", "b1": "bool",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}  # fmt: skip
_DEFLATE_SLACK_NBYTES = 1024  # a deflate stream may be a little longer than what it holds


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the file is a single .npy array; an .npz is a zip, whose reader calls `read_npz_archive`."""
    return head.startswith(MAGIC)


def read(source: ByteSource, context: Context) -> Contents:
    """The array of a .npy file as the whole tree.

    Raises FormatError ("header-invalid"), IntegrityError ("truncated-file") where the data is shorter than its shape.
    """
    whole = Extent.stored(source, 0, source.size)
    header = read_header(partial(_first, whole, source.name), source.name)
    value, diagnostics = _array("", header, whole, source, context)
    return Contents("npy", value, diagnostics, {"format": "numpy array"})


def read_npz_archive(archive: Archive, context: Context) -> Contents:
    """{name: TensorInfo or Opaque} of an .npz; what is no array in it is noted and not read.

    Raises what `read` raises, for the first array that is damaged.
    """
    tree: dict[str, Value] = {}
    diagnostics: list[Diagnostic] = []
    others: list[str] = []
    for name, record in archive.records.items():
        if not name.endswith(_SUFFIX):
            others.append(name)
            continue
        extent = archive.extent(name)
        title = f"{archive.source.name}/{name}"
        header = read_header(partial(_first, extent, title), title)
        payload = archive.member(name) if header.has_objects or _is_unaligned(header, record.is_deflated) else None
        if payload is not None and record.is_deflated:
            extent = Extent.stored(payload, 0, payload.size)
        key = name.removesuffix(_SUFFIX)
        tree[key], found = _array(key, header, extent, payload or archive.source, context)
        diagnostics += found
    if others:
        listed = ", ".join(f"`{name}`" for name in others[:5])
        what = f"{len(others):,} members of `{archive.source.name}` are no arrays: {listed}"
        diagnostics.append(Diagnostic("not-extracted", what))
    return Contents(FORMAT, tree, tuple(diagnostics))


def _array(
    key: str, header: NpyHeader, extent: Extent, payload: ByteSource, context: Context
) -> tuple[Value, tuple[Diagnostic, ...]]:
    """The tensor or record of an array whose header and data are `extent`; `payload` holds the pickle of an object."""
    record = Opaque("numpy.ndarray", state={"dtype": header.descr, "shape": header.shape})
    title = payload.name if not key else f"{payload.name}:{key}"
    if header.has_objects:
        pickle = SliceSource(payload, header.nbytes, payload.size - header.nbytes, title)
        return record, tuple(judge(execute(pickle, 0, limits=context.limits), title))
    dtype = _dtype(header)
    if dtype is None:
        note = f"`{key or payload.name}` is an array of {header.descr!s:.60}, which no tensor can hold"
        return record, (Diagnostic("not-extracted", note),)
    nbytes = prod(header.shape) * DTYPES[dtype].bits // 8
    extra = extent.expanded_nbytes - header.nbytes - nbytes
    if extra < 0:
        raise _ends_early(title, header.nbytes + nbytes, extent.expanded_nbytes)
    notes = (Diagnostic("trailing-bytes", f"{extra:,} bytes follow the array `{title}`"),) if extra else ()
    shape = header.shape
    stride = contiguous_stride(shape[::-1])[::-1] if header.is_fortran_order else contiguous_stride(shape)
    is_big_endian = str(header.descr).startswith(">")
    offset = 0
    if extent.is_deflated:  # the data begins inside the expanded bytes, behind the header
        offset = header.nbytes * 8 // DTYPES[dtype].bits
    else:
        extent = Extent.stored(extent.source, extent.offset + header.nbytes, nbytes)
    storage = Storage(key or title, extent.expanded_nbytes, (extent,), is_big_endian=is_big_endian)
    return TensorInfo(key, dtype, shape, stride, offset, storage), notes


def _dtype(header: NpyHeader) -> str | None:
    return _NUMPY_CODES.get(header.descr[1:]) if isinstance(header.descr, str) else None


def _is_unaligned(header: NpyHeader, is_deflated: bool) -> bool:
    """The data of a deflated member begins inside an element, so that it can only be reached in memory."""
    dtype = _dtype(header)
    return is_deflated and dtype is not None and header.nbytes * 8 % DTYPES[dtype].bits != 0


def _first(extent: Extent, title: str, nbytes: int) -> bytes:
    """The first bytes of a member, without expanding the rest of it."""
    if nbytes > extent.expanded_nbytes:
        raise _ends_early(title, nbytes, extent.expanded_nbytes)
    if not extent.is_deflated:
        return extent.source.read(extent.offset, nbytes)
    stored = extent.source.read(extent.offset, min(extent.nbytes, nbytes + _DEFLATE_SLACK_NBYTES))
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, nbytes)
    except zlib.error as error:
        raise IntegrityError(Diagnostic("bad-compression", f"`{title}` cannot be expanded: {error}")) from error
    if len(data) < nbytes:
        raise _ends_early(title, nbytes, len(data))
    return data


def _ends_early(title: str, expected: int, found: int) -> IntegrityError:
    return IntegrityError(
        Diagnostic(
            "truncated-file",
            f"the array `{title}` ends {expected - found:,} bytes early",
            evidence=(("expected", f"{expected:,} bytes"), ("found", f"{found:,} bytes")),
        )
    )
