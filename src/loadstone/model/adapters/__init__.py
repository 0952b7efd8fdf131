"""Adapters: carry out the Steps of a plan on values: pure functions of tensors, the decisions were made in matching."""

from __future__ import annotations

import torch

from loadstone.matching.steps import Channels, Resize, Step
from loadstone.model.adapters.channels import with_channels
from loadstone.model.adapters.grids import resized
from loadstone.model.adapters.rows import with_rows


def carried_out(step: Step, values: torch.Tensor, current: torch.Tensor, *, casts: bool) -> torch.Tensor:
    """The values after one step, in new memory.

    `current` is the target, whose shape they get; rows without a source keep its values.  With `casts` they may come
    in its dtype, because a cast to it follows; otherwise they stay in the dtype of `values`.
    """
    values = values.to_dense() if values.layout != torch.strided else values
    values = values.dequantize() if values.is_quantized else values
    if isinstance(step, Channels):
        return with_channels(values, step)
    if isinstance(step, Resize):
        return resized(values, step, tuple(current.shape))
    return with_rows(values, step, current, current.dtype if casts else values.dtype)
