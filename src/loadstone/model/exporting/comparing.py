"""How far the outputs of a file are from those of the model, number by number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from loadstone.errors import Diagnostic, Fix, SaveError
from loadstone.screens.quantities import shape

# Largest difference that counts as rounding, as a share of the largest magnitude in that output: several hundred
# roundings of the dtype, far more than one operation replaced by another makes, far less than another value does.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2,
             torch.complex128: 1e-10, torch.complex64: 1e-4}  # fmt: skip


_STILL_NEAR = 0.01  # a share of the largest magnitude; what is further off is no rounding in any dtype


@dataclass(frozen=True, slots=True)
class Comparison:
    """The file's outputs beside the model's, for one input.

    Attributes:
        input: which one, in words.
        is_equal: equal to the bit.
        max_difference: the largest difference between two numbers.
        max_relative: the largest difference as a share of the largest magnitude in the same output.
        tolerance: what `max_relative` may be; where outputs have several dtypes, the loosest.
    """

    input: str
    is_equal: bool
    max_difference: float
    max_relative: float
    tolerance: float


def compare(expected: object, found: object, name: str, tolerance: float | None) -> Comparison:
    """Compare what the model gave for an input with what the file gave; `tolerance` None means that of each dtype.

    Raises SaveError (export-differs) for the first output that is another one.
    """
    ours, theirs = tree_flatten_with_path(expected)[0], tree_flatten_with_path(found)[0]
    if len(ours) != len(theirs):
        raise _differs(f"the file gives {len(theirs)} outputs where the model gives {len(ours)}", name)
    is_equal, difference, relative, allowed = True, 0.0, 0.0, 0.0
    for (path, our), (_, their) in zip(ours, theirs, strict=True):
        output = f"output{keystr(path)}"
        if not isinstance(our, torch.Tensor) or not isinstance(their, torch.Tensor):
            if type(our) is not type(their) or our != their:
                raise _differs(f"`{output}` is {their!r:.60} in the file and {our!r:.60} in the model", name)
            continue
        if (our.shape, our.dtype) != (their.shape, their.dtype):
            raise _differs(f"`{output}` is {_kind(their)} in the file and {_kind(our)} in the model", name)
        if _same_bits(our, their):
            continue
        limit = ROUNDING.get(our.dtype, 0.0) if tolerance is None else tolerance
        here, share = how_far(our, their)
        if share > limit:
            raise _too_far(output, here, share, limit, name)
        is_equal = False
        difference, relative, allowed = max(difference, here), max(relative, share), max(allowed, limit)
    return Comparison(name, is_equal, difference, relative, allowed)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    ours, theirs = (_dense(tensor).contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(ours, theirs)


def how_far(expected: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """The largest difference, and as a share of the largest magnitude; infinite where a number meets none."""
    wide = torch.complex128 if expected.is_complex() else torch.float64
    one, other = _dense(expected).to(wide), _dense(found).to(wide)
    is_same = (one == other) | (one.isnan() & other.isnan())
    apart = torch.where(is_same, 0.0, (one - other).abs()).nan_to_num(nan=math.inf)
    largest = float(apart.max())
    magnitudes = one.abs()[one.isfinite()]
    scale = float(magnitudes.max()) if magnitudes.numel() else 0.0
    return largest, largest / scale if scale else largest


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _kind(tensor: torch.Tensor) -> str:
    return f"{shape(tuple(tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}"


def _too_far(output: str, difference: float, share: float, limit: float, name: str) -> SaveError:
    if not math.isfinite(share):
        return _differs(f"`{output}` is infinite or no number where the model's is a number", name)
    loose = f"tolerance={10.0 ** math.ceil(math.log10(share)):.0e}"
    fixes = (Fix("accept a difference of that size", loose, "unsafe"),) if share < _STILL_NEAR else ()
    return _differs(
        f"`{output}` is up to {difference:.2g} from the model's, {share:.2g} of its largest value",
        name,
        (("allowed", f"{limit:.2g} of its largest value"),),
        *fixes,
    )


def _differs(message: str, name: str, evidence: tuple[tuple[str, str], ...] = (), *fixes: Fix) -> SaveError:
    return SaveError(Diagnostic("export-differs", message, (("input", name), *evidence), fixes))
