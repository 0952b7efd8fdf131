"""Numbers as people read them: 38.6 M elements, 154.4 MB (decimal), 64 × 3 × 7 × 7, and bars."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_MOST_SIZES = 8  # of a shape; what has more is no tensor that anybody trains


def elements(number: int) -> str:
    """A number of elements or parameters: 512, 786.4 k, 38.6 M, 7.2 B."""
    return _scaled(number, ("", " k", " M", " B", " T", " Q"))


def nbytes(number: int) -> str:
    """A number of bytes in decimal units: 512 B, 73.7 kB, 154.4 MB."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB", " PB", " EB"))


def _scaled(number: int, units: Sequence[str]) -> str:
    if number < 1000:
        return f"{number}{units[0]}"
    power = 1
    while power < len(units) - 1 and round(number / 1000**power, 1) >= 1000:
        power += 1
    return f"{number / 1000**power:,.1f}{units[power]}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 tensor", "1,250 tensors"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shape(sizes: Sequence[int]) -> str:
    """Sizes of a tensor: "64 × 3 × 7 × 7"; "scalar" where there is none."""
    if not sizes:
        return "scalar"
    if len(sizes) > _MOST_SIZES:
        return " × ".join([*map(str, sizes[:_MOST_SIZES]), f"… {len(sizes)} dimensions"])
    return " × ".join(map(str, sizes))


def bar(part: int, whole: int, width: int) -> str:
    """A bar of at most `width` cells in eighths of a cell."""
    if whole <= 0:
        return ""
    full, rest = divmod(round(part * width * 8 / whole), 8)
    return "█" * full + _EIGHTHS[rest]
