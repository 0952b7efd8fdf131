"""What a change of dtype does to values: nothing, rounding, or damage.

The ranges are those of IEEE 754 and of the OCP 8-bit formats, as torch.finfo gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadstone.dtypes import DTYPES

Effect = Literal["none", "exact", "rounds", "breaks"]


@dataclass(frozen=True, slots=True)
class Cast:
    """The effect of a cast, in a word and in words.

    `can_overflow` means that values which are finite in the checkpoint may be infinite in the model, so that they have
    to be looked at before anything is written.
    """

    effect: Effect
    text: str
    can_overflow: bool = False


@dataclass(frozen=True, slots=True)
class _Range:
    digits: int  # bits of the significand, the leading one included
    largest: float
    smallest_exponent: int  # of the smallest subnormal


_FLOATS = {
    "float64": _Range(53, 1.7976931348623157e308, -1074),
    "float32": _Range(24, 3.4028234663852886e38, -149),
    "bfloat16": _Range(8, 3.3895313892515355e38, -133),
    "float16": _Range(11, 65504.0, -24),
    "float8_e5m2": _Range(3, 57344.0, -16),
    "float8_e5m2fnuz": _Range(3, 57344.0, -17),
    "float8_e4m3fn": _Range(4, 448.0, -9),
    "float8_e4m3fnuz": _Range(4, 240.0, -10),
}
_COMPONENTS = {"complex32": "float16", "bcomplex32": "bfloat16", "complex64": "float32", "complex128": "float64"}


def cast_between(source: str, target: str) -> Cast:
    """What happens to values of dtype `source` in a tensor of dtype `target`."""
    if source == target:
        return Cast("none", "")
    arrow = f"{source} → {target}"
    kinds = DTYPES[source].kind, DTYPES[target].kind
    if kinds in {("float", "float"), ("float", "complex"), ("complex", "complex")}:
        wide, narrow = (_FLOATS.get(_COMPONENTS.get(name, name)) for name in (source, target))
        return _between_floats(arrow, wide, narrow)
    if kinds[0] == "bool" and kinds[1] in ("integer", "float", "complex"):
        return Cast("exact", f"{arrow}, exact")
    if kinds == ("integer", "integer"):
        fits = _integer_fits(source, target)
        return Cast("exact", f"{arrow}, exact") if fits else Cast("breaks", f"{arrow} wraps around")
    if kinds[0] == "integer" and kinds[1] in ("float", "complex"):
        return _integer_to_float(arrow, source, _FLOATS.get(_COMPONENTS.get(target, target)))
    return Cast("breaks", f"{arrow} {_DAMAGE.get(kinds, 'has no meaning')}")


_DAMAGE = {
    ("float", "integer"): "cuts off the fraction",
    ("complex", "integer"): "drops the imaginary part and the fraction",
    ("complex", "float"): "drops the imaginary part",
    ("float", "bool"): "keeps only whether a value is zero",
    ("integer", "bool"): "keeps only whether a value is zero",
    ("complex", "bool"): "keeps only whether a value is zero",
    ("quantized", "float"): "needs the scales that the model does not have",
}


def _between_floats(arrow: str, source: _Range | None, target: _Range | None) -> Cast:
    if source is None or target is None:
        return Cast("breaks", f"{arrow} has no meaning for packed values")
    overflows = source.largest > target.largest
    if not overflows and source.digits <= target.digits and source.smallest_exponent >= target.smallest_exponent:
        return Cast("exact", f"{arrow}, exact")
    return Cast("rounds", f"{arrow}, rounds", can_overflow=overflows)


def _integer_to_float(arrow: str, source: str, target: _Range | None) -> Cast:
    if target is None:
        return Cast("breaks", f"{arrow} has no meaning for packed values")
    bits = DTYPES[source].bits - (0 if source.startswith("u") else 1)
    if bits <= target.digits and 2.0**bits <= target.largest:
        return Cast("exact", f"{arrow}, exact")
    return Cast("rounds", f"{arrow}, rounds", can_overflow=2.0**bits > target.largest)


def _integer_fits(source: str, target: str) -> bool:
    spare = DTYPES[target].bits - DTYPES[source].bits
    if source.startswith("u"):
        return spare > 0 or (spare == 0 and target.startswith("u"))
    return spare >= 0 and not target.startswith("u")
