"""Would this cast break values?  The tensors in question are read once, before anything is written.

A cast may round.  It breaks a value where a finite number becomes infinite, or where the target cannot represent it at
all: a fraction, a number out of range or a NaN in an integer, an imaginary part in a real number.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from loadstone.errors import Diagnostic


def broken_by_cast(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask, shaped as `values`, of those that a cast to `dtype` would break."""
    cast = values.to(dtype)
    if dtype.is_floating_point and not values.is_complex():
        return torch.isfinite(values) & ~torch.isfinite(_wide(cast))
    if dtype.is_complex:
        return torch.isfinite(values) & ~torch.isfinite(cast)
    if values.is_complex() and dtype.is_floating_point:
        return (values.imag != 0) | (torch.isfinite(values.real) & ~torch.isfinite(cast))
    return ~(cast.to(values.dtype) == values)  # NaN is unequal to itself, as it should be here


def check_cast(
    key: str, source: str, pieces: Iterable[tuple[int, torch.Tensor]], dtype: torch.dtype
) -> Diagnostic | None:
    """What a cast of the tensor would break: how many values, and where the first one is; None if nothing."""
    count = 0
    first: tuple[int, ...] = ()
    example = ""
    for row, piece in pieces:
        mask = broken_by_cast(_wide(piece), dtype)
        found = int(mask.sum())
        if found and not count:
            where = torch.nonzero(mask)[0].tolist()
            example = str(piece[tuple(where)].item())
            first = (row + where[0], *where[1:]) if where else ()
        count += found
    if not count:
        return None
    name = str(dtype).removeprefix("torch.")
    return Diagnostic(
        "dtype-breaks-values",
        f"{count:,} value{'s' if count > 1 else ''} of `{source}` would not survive as {name} in `{key}`",
        evidence=(("first", f"{example} at index {list(first)}"),),
        keys=(key,),
    )


def _wide(values: torch.Tensor) -> torch.Tensor:
    """8-bit floats as float32, which has the operations needed; the change is exact."""
    return values.float() if values.dtype.is_floating_point and values.element_size() == 1 else values
