"""Origins: what each tensor of the model is filled from by a plan, and whether a reference holds the same."""

from __future__ import annotations

import torch
from torch import nn

from loadstone.matching.plan import Plan
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.model.staging import Reader


def origins_of(plan: Plan) -> dict[str, Assignment]:
    """Key of the model → its origin, with the checkpoint's keys, whether names said so or structure."""
    by_name = {
        action.target: Assignment(action.target, (Taken(action.source),), (), "exact", action.how)
        for action in plan.actions
        if action.target and action.source and action.status != "mismatched"
    }
    return {**by_name, **plan.compositions}


def held_otherwise(plan: Plan, reader: Reader, reference: nn.Module) -> str | None:
    """The first key of the checkpoint that the reference has with other values: it was not filled from there."""
    held = reference.state_dict()
    for key in dict.fromkeys(taken.key for one in origins_of(plan).values() for taken in one.sources):
        own = held.get(key)
        if own is None or not own.is_floating_point() or own.is_meta:
            continue
        value = reader.look(key)
        if value.shape == own.shape and not torch.equal(value.to(own.device, own.dtype), own):
            return key
    return None
