"""What a tensor's values are, in a few numbers: digest, norm, smallest and largest, in one pass and without torch.

bfloat16 and the eight-bit floats are widened here, so that no package is needed for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadstone.checks.fingerprints import pieces_of
from loadstone.dtypes import DTYPES
from loadstone.io.digests import Digest
from loadstone.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True, slots=True)
class Summary:
    """A tensor in numbers; `norm` is Euclidean and, as the other two, None where the dtype has no numbers here.

    `norm`, `low` and `high` are of the finite values; `not_finite` counts the others.
    """

    digest: str
    norm: float | None = None
    low: float | None = None
    high: float | None = None
    not_finite: int = 0


def summary(info: TensorInfo) -> Summary | None:
    """None for a tensor that has no dense bytes.  Raises IntegrityError where bytes are missing."""
    pieces = pieces_of(info)
    if pieces is None:
        return None
    import numpy

    running = Digest()
    squares, low, high, not_finite = 0.0, math.inf, -math.inf, 0
    has_numbers = True
    for piece in pieces:
        running.update(piece)
        values = _numbers(piece, info.dtype) if has_numbers else None
        if values is None:
            has_numbers = False
            continue
        finite = values[numpy.isfinite(values)]
        not_finite += values.size - finite.size
        if finite.size:
            squares += float(numpy.dot(finite, finite))
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if not has_numbers or low > high:
        return Summary(str(running), not_finite=not_finite)
    return Summary(str(running), math.sqrt(squares), low, high, not_finite)


def _numbers(piece: memoryview, dtype: str) -> numpy.ndarray | None:
    """The elements as float64; of a complex dtype both components."""
    import numpy

    row = DTYPES[dtype]
    if dtype == "bfloat16":  # the upper half of a float32
        return (numpy.frombuffer(piece, numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32).astype(float)
    if dtype == "float8_e5m2":  # the upper half of a float16
        return (numpy.frombuffer(piece, numpy.uint8).astype(numpy.uint16) << 8).view(numpy.float16).astype(float)
    if dtype == "float8_e4m3fn":
        return numpy.array([_e4m3fn(code) for code in range(256)])[numpy.frombuffer(piece, numpy.uint8)]
    if row.kind == "complex" and row.numpy is not None:
        return numpy.frombuffer(piece, f"float{row.bits // 2}").astype(float)
    if row.kind in ("float", "integer", "bool") and row.numpy is not None and hasattr(numpy, row.numpy):
        return numpy.frombuffer(piece, row.numpy).astype(float)
    return numpy.frombuffer(piece, bool).astype(float) if row.kind == "bool" else None


def _e4m3fn(code: int) -> float:
    """https://arxiv.org/abs/2209.05433, table 1: four bits of exponent, three of mantissa, no infinity."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 15, code & 7
    if code & 0x7F == 0x7F:
        return math.nan
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))
