"""Origins: what each tensor of the model is filled from by a plan, whether names said so or structure."""

from __future__ import annotations

from loadstone.matching.plan import Plan
from loadstone.matching.structure.items import Assignment, Taken


def origins_of(plan: Plan) -> dict[str, Assignment]:
    """Key of the model → its origin, with the checkpoint's keys."""
    by_name = {
        action.target: Assignment(action.target, (Taken(action.source),), (), "exact", action.how)
        for action in plan.actions
        if action.target and action.source
    }
    return {**by_name, **plan.compositions}
