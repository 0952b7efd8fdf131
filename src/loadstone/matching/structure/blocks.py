"""Blocks: numbered containers that hold each other's partners and nobody else's.

Where the layers of `decoder.layers.0` that are paired lie in `transformer.decoder.layers.0`, and theirs in the first,
what else lies in the two belongs together as well, whatever becomes of the layers that lie outside of all blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.tries import Split
from loadstone.matching.structure.words import Path, containers

Scope: TypeAlias = Callable[[int, Path], tuple[int, Path]]  # of a side and a container: how many partners, and where


def inside(left: dict[Path, list[int]], right: dict[Path, list[int]], scope: Scope) -> list[Split]:
    """How as many members of a group on either side, by their blocks, fall apart."""
    splits = []
    for block, members in left.items():
        partner = _shared(*scope(0, block))
        others = right.get(partner, [])
        if partner and len(members) == len(others) and _shared(*scope(1, partner)) == block:
            splits.append(Split(members, others, "sibling", "beside layers that are paired"))
    rest = sum(map(len, left.values())) - sum(len(split.left) for split in splits)
    return splits if rest != 1 else []


def by_block(layers: Sequence[Layer], members: Sequence[int]) -> dict[Path, list[int]]:
    """Members by the innermost numbered container that they lie in; () where they lie in none."""
    found: dict[Path, list[int]] = {}
    for index in members:
        path = layers[index].path
        ends = (end for end in containers(layers[index].text) if end < len(path) and isinstance(path[end - 1], int))
        found.setdefault(path[: next(ends, 0)], []).append(index)
    return found


def _shared(count: int, scope: Path) -> Path:
    """The innermost numbered container around what holds several partners."""
    ends = (end for end in range(len(scope), 0, -1) if isinstance(scope[end - 1], int))
    return scope[: next(ends, 0)] if count > 1 else ()
