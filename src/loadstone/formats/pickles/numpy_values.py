"""numpy arrays and scalars of a pickle, without numpy: tensors over the bytes in the pickle, and numbers.

Source: numpy/_core/src/multiarray (array_reduce, array_setstate, arraydescr_reduce), numpy/_core/numeric.py
(`_frombuffer`).  A dtype is a call `numpy.dtype("f4", False, True)` whose state has the byte order at index 1.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Final

from loadstone.dtypes import nbytes_of
from loadstone.errors import Diagnostic, FormatError
from loadstone.formats.pickles.call_site import CallSite, Table
from loadstone.io.sources import MemorySource
from loadstone.storage import Extent, Storage
from loadstone.tensors import MAX_INT64, TensorInfo, contiguous_stride, dense
from loadstone.values import Opaque, Value

MAX_DIMENSIONS: Final = 64  # NPY_MAXDIMS of numpy 2

_DTYPES: Final = {
    "b1": "bool",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
    "f2": "float16", "f4": "float32", "f8": "float64",
    "c8": "complex64", "c16": "complex128",
}  # fmt: skip

_STRUCT_CODES: Final = {
    "b1": "?",
    "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
    "c8": "ff", "c16": "dd",
}  # fmt: skip


def array(
    data: bytes, dtype: str, shape: tuple[int, ...], *, is_fortran: bool = False, is_big_endian: bool = False,
    name: str = "array",
) -> TensorInfo:  # fmt: skip
    """A tensor over bytes in memory, which must be exactly as many as dtype and shape need.

    Raises FormatError ("tensor-out-of-bounds") where they are not, or where the shape has more than 64 dimensions.
    """
    if len(shape) > MAX_DIMENSIONS or any(type(size) is not int or not 0 <= size <= MAX_INT64 for size in shape):
        raise FormatError(Diagnostic("tensor-out-of-bounds", f"`{name}` claims a shape that no array can have"))
    if prod(shape) > MAX_INT64 or nbytes_of(dtype, shape) != len(data):
        raise FormatError(
            Diagnostic(
                "tensor-out-of-bounds",
                f"`{name}`, an array of shape {list(shape)} and dtype {dtype}, has {len(data):,} bytes of data",
            )
        )
    stride = contiguous_stride(shape[::-1])[::-1] if is_fortran else contiguous_stride(shape)
    source = MemorySource(data, name)
    storage = Storage(name, len(data), (Extent.stored(source, 0, len(data)),), is_big_endian)
    return dense(name, dtype, shape, stride, 0, storage)


def _described(dtype: Value) -> tuple[str, bool] | None:
    """Type code ("f4") and whether big-endian, of the record of a numpy.dtype; None for what is none."""
    if not (isinstance(dtype, Opaque) and dtype.class_name == "numpy.dtype" and dtype.args):
        return None
    code = dtype.args[0]
    if isinstance(code, bytes) and code.isascii():
        code = code.decode("ascii")
    if not isinstance(code, str):
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return code.lstrip("<>=|"), order in (">", b">") or code.startswith(">")


def _ndarray(site: CallSite) -> Value:
    """`_reconstruct(ndarray, (0,), b"b")`, then the state ([version,] shape, dtype, is_fortran, data)."""
    match site.state:
        case (int(), tuple() as shape, dtype, is_fortran, data) | (tuple() as shape, dtype, is_fortran, data):
            pass
        case _:
            return site.unbuilt()
    return _array_of(site, data, dtype, shape, bool(is_fortran))


def _frombuffer(site: CallSite) -> Value:
    match site.args:
        case (data, dtype, tuple() as shape, "C" | "F" as order, *_):
            return _array_of(site, data, dtype, shape, order == "F")
    return site.unbuilt()


def _array_of(site: CallSite, data: Value, dtype: Value, shape: tuple[Value, ...], is_fortran: bool) -> Value:
    described = _described(dtype)
    if isinstance(data, str):  # a str of Python 2 that was all ASCII
        try:
            data = data.encode("latin-1")
        except UnicodeEncodeError:
            raise site.malformed() from None
    if described is None or described[0] not in _DTYPES or not isinstance(data, bytes):
        return site.unbuilt()  # text, objects, fields, dates: no tensor holds them
    code, is_big_endian = described
    return array(data, _DTYPES[code], shape, is_fortran=is_fortran, is_big_endian=is_big_endian, name="numpy.ndarray")


def _scalar(site: CallSite) -> Value:
    """`scalar(dtype, data)`: a number of Python's; text where it is numpy.str_."""
    match site.args:
        case (Opaque() as dtype, bytes() | str() as data):
            described = _described(dtype)
        case _:
            return site.unbuilt()
    if isinstance(data, str):
        data = data.encode("latin-1", "replace")
    if described is None:
        return site.unbuilt()
    code, is_big_endian = described
    sign = ">" if is_big_endian else "<"
    try:
        if code.startswith("U"):
            return data.decode("utf-32-be" if is_big_endian else "utf-32-le")
        if code not in _STRUCT_CODES:
            return site.unbuilt()
        numbers = struct.unpack(sign + _STRUCT_CODES[code], data)
    except (struct.error, UnicodeDecodeError):
        raise site.malformed() from None
    return complex(*numbers) if len(numbers) == 2 else numbers[0]


ARRAYS: Final[Table] = {
    "numpy.core.multiarray._reconstruct": _ndarray,
    "numpy._core.multiarray._reconstruct": _ndarray,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
