"""One table of dtypes: how many bits, and what torch, safetensors, numpy and old storage classes call them.

Sources: torch/storage.py (storage classes), torch/_utils.py `_rebuild_tensor_v3` (dtypes without a class),
safetensors' `Dtype` enum, torch/_export/serde/schema.py `ScalarType` (the numbers in .pt2 files).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Kind = Literal["float", "integer", "bool", "complex", "quantized", "bits"]


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type.  `name` is torch's own word without the `torch.`; a name of None elsewhere means "has none"."""

    name: str
    kind: Kind
    bits: int
    swap: int  # bytes to reverse together in a big-endian file: the itemsize, of one component for complex numbers
    safetensors: str | None
    numpy: str | None  # a dtype of numpy itself, or of ml_dtypes
    storage: str | None  # prefix of the old typed storage class, FloatStorage -> "Float"
    scalar_type: int | None  # c10::ScalarType, as .pt2 files number it
    short: str


# fmt: off
_ROWS: tuple[Dtype, ...] = (
    #     name               kind         bits swap safetensors   numpy               storage         scalar short
    Dtype("float64",         "float",       64, 8, "F64",          "float64",          "Double",        8,    "f64"),
    Dtype("float32",         "float",       32, 4, "F32",          "float32",          "Float",         7,    "f32"),
    Dtype("float16",         "float",       16, 2, "F16",          "float16",          "Half",          6,    "f16"),
    Dtype("bfloat16",        "float",       16, 2, "BF16",         "bfloat16",         "BFloat16",      13,   "bf16"),
    Dtype("float8_e4m3fn",   "float",        8, 1, "F8_E4M3",      "float8_e4m3fn",    None,            29,   "f8e4m3"),
    Dtype("float8_e5m2",     "float",        8, 1, "F8_E5M2",      "float8_e5m2",      None,            30,   "f8e5m2"),
    Dtype("float8_e4m3fnuz", "float",        8, 1, "F8_E4M3FNUZ",  "float8_e4m3fnuz",  None,            31,   "f8e4m3z"),
    Dtype("float8_e5m2fnuz", "float",        8, 1, "F8_E5M2FNUZ",  "float8_e5m2fnuz",  None,            32,   "f8e5m2z"),
    Dtype("float8_e8m0fnu",  "float",        8, 1, "F8_E8M0",      "float8_e8m0fnu",   None,            33,   "f8e8m0"),
    Dtype("float4_e2m1fn_x2", "float",       8, 1, "F4",           None,               None,            45,   "f4x2"),
    Dtype("int64",           "integer",     64, 8, "I64",          "int64",            "Long",          5,    "i64"),
    Dtype("int32",           "integer",     32, 4, "I32",          "int32",            "Int",           4,    "i32"),
    Dtype("int16",           "integer",     16, 2, "I16",          "int16",            "Short",         3,    "i16"),
    Dtype("int8",            "integer",      8, 1, "I8",           "int8",             "Char",          2,    "i8"),
    Dtype("uint8",           "integer",      8, 1, "U8",           "uint8",            "Byte",          1,    "u8"),
    Dtype("uint16",          "integer",     16, 2, "U16",          "uint16",           None,            28,   "u16"),
    Dtype("uint32",          "integer",     32, 4, "U32",          "uint32",           None,            34,   "u32"),
    Dtype("uint64",          "integer",     64, 8, "U64",          "uint64",           None,            35,   "u64"),
    Dtype("bool",            "bool",         8, 1, "BOOL",         "bool",             "Bool",          12,   "bool"),
    Dtype("complex32",       "complex",     32, 2, None,           None,               None,            9,    "c32"),
    Dtype("bcomplex32",      "complex",     32, 2, None,           None,               None,            None, "bc32"),
    Dtype("complex64",       "complex",     64, 4, "C64",          "complex64",        "ComplexFloat",  10,   "c64"),
    Dtype("complex128",      "complex",    128, 8, None,           "complex128",       "ComplexDouble", 11,   "c128"),
    Dtype("qint8",           "quantized",    8, 1, None,           None,               "QInt8",         None, "qi8"),
    Dtype("quint8",          "quantized",    8, 1, None,           None,               "QUInt8",        None, "qu8"),
    Dtype("qint32",          "quantized",   32, 4, None,           None,               "QInt32",        None, "qi32"),
    Dtype("quint4x2",        "quantized",    4, 1, None,           None,               "QUInt4x2",      None, "qu4"),
    Dtype("quint2x4",        "quantized",    2, 1, None,           None,               "QUInt2x4",      None, "qu2"),
    Dtype("bits1x8",         "bits",         8, 1, None,           None,               None,            None, "b1x8"),
    Dtype("bits2x4",         "bits",         8, 1, None,           None,               None,            None, "b2x4"),
    Dtype("bits4x2",         "bits",         8, 1, None,           None,               None,            None, "b4x2"),
    Dtype("bits8",           "bits",         8, 1, None,           None,               None,            None, "b8"),
    Dtype("bits16",          "bits",        16, 2, None,           None,               None,            None, "b16"),
    # in safetensors only: six bits an element, which torch has no dtype for
    Dtype("float6_e2m3fn",   "float",        6, 1, "F6_E2M3",      "float6_e2m3fn",    None,            None, "f6e2m3"),
    Dtype("float6_e3m2fn",   "float",        6, 1, "F6_E3M2",      "float6_e3m2fn",    None,            None, "f6e3m2"),
)
# fmt: on

DTYPES: dict[str, Dtype] = {row.name: row for row in _ROWS}
BY_SAFETENSORS: dict[str, Dtype] = {row.safetensors: row for row in _ROWS if row.safetensors}
BY_STORAGE: dict[str, Dtype] = {row.storage: row for row in _ROWS if row.storage}
BY_SCALAR_TYPE: dict[int, Dtype] = {row.scalar_type: row for row in _ROWS if row.scalar_type is not None}


def nbytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a dense tensor of this dtype and shape takes, rounded up to whole bytes."""
    return (prod(shape) * DTYPES[dtype].bits + 7) // 8
