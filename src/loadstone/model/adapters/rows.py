"""Some rows from the file, the others as the model has them: classes by label, vocabularies that grew, and corners."""

from __future__ import annotations

import torch

from loadstone.matching.steps import Rows


def with_rows(values: torch.Tensor, step: Rows, current: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The current values with the rows of the step replaced; (rows, ...) in `dtype`, where the values lie."""
    if step.own:
        whole = current.detach().to(device=values.device, dtype=dtype, copy=True)
    else:
        whole = torch.empty(current.shape, dtype=dtype, device=values.device)
    for source, target, count in step.runs:
        whole[target : target + count] = values[source : source + count]
    return whole


def corner(values: torch.Tensor, shape: tuple[int, ...], *, pads: bool) -> torch.Tensor:
    """The leading corner of `values` that fits into `shape`; with `pads`, filled up with zeros where it is smaller."""
    leading = tuple(slice(0, min(have, want)) for have, want in zip(values.shape, shape, strict=True))
    if not pads:
        return values[leading]
    whole = values.new_zeros(shape)
    whole[leading] = values[leading]
    return whole
