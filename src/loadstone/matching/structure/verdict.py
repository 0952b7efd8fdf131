"""The verdict: whether a match may be applied, and what found no partner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from loadstone.matching.structure.items import Assignment, Item, Unmatched
from loadstone.matching.structure.layers import counts
from loadstone.matching.structure.solve import State


def left_over(
    state: State, found: Mapping[str, Assignment], source: Sequence[Item], target: Sequence[Item]
) -> tuple[tuple[Unmatched, ...], tuple[Unmatched, ...]]:
    """Target keys without values and source keys without use; counters and index tables are not among them."""
    used = {taken.key for one in found.values() for taken in one.sources}
    missing = tuple(Unmatched(item.key, "") for item in target if counts(item) and item.key not in found)
    unused = tuple(Unmatched(item.key, "") for item in source if counts(item) and item.key not in used)
    return missing, unused


def verdict(
    state: State,
    found: Mapping[str, Assignment],
    missing: Sequence[Unmatched],
    unused: Sequence[Unmatched],
    source: Sequence[Item],
    target: Sequence[Item],
) -> tuple[Literal["complete", "partial", "refused"], str]:
    if not missing and not unused:
        return "complete", "every tensor on either side has its partner"
    total = sum(item.elements for item in target if counts(item))
    have = sum(item.elements for item in target if item.key in found and counts(item))
    share = have / total if total else 0.0
    if share < 0.5:
        return "refused", f"{share:.0%} of the target's parameters have a partner"
    return "partial", f"{share:.0%} of the target's parameters have a partner"
