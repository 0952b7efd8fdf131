"""The verb `build`: construct a model without initialising it, and fill it from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import nn

from loadstone.model.load import load, plan
from loadstone.model.opening import Source
from loadstone.model.options import PlanOptions
from loadstone.model.randomness import random_state, restore
from loadstone.model.schema import modules_of, walk
from loadstone.model.targets import targets_of
from loadstone.model.uninitialised import Uninitialised


def build(factory: Callable[[], nn.Module], source: Source, **options: Unpack[PlanOptions]) -> nn.Module:
    """The model of `factory`, filled from `source`; the same as `load(factory(), source)`, without the initialising.

    Non-persistent buffers and whatever else `factory` computes come out as always.  Where a tensor keeps its initial
    values (`fresh=`, `strict=False`), or its value follows from those of others, the model is constructed once more,
    in full, from the same random state, so that it has the very values it would have had.

    Args:
        factory: called without arguments, once or twice.
        source, options: as in `plan`.

    Raises what `load` raises.
    """
    state = random_state()
    mode = Uninitialised()
    with mode:
        model = factory()
    if mode.is_certain:
        made = plan(model, source, **options)
        filled = {
            place.key
            for target in targets_of(walk(model), made.actions)
            if target.filling is not None and not any(op.keeps_own for op in target.filling.ops)
            for place in target.places
        }
        if not any(mode.is_empty(tensor) for tensor in _left(model, filled)):
            made.apply()
            return model
    restore(state)
    model = factory()
    load(model, source, **options)
    return model


def _left(model: nn.Module, filled: set[str]) -> list[torch.Tensor]:
    """Tensors of the model that no source fills, plain attributes of modules among them."""
    buffers = [place.tensor for place in walk(model).places if place.key not in filled]
    attributes = [
        value for _, module in modules_of(model) for value in vars(module).values() if isinstance(value, torch.Tensor)
    ]
    return buffers + attributes
