"""Orders: what a person says to open questions that names no tensor.

`answers={key: ""}`         nothing of this source belongs there, nor in places like it
`answers={"*": "order"}`    what is still open goes by the order of keys in the file and in the model

The order of keys is no evidence: somebody who lists `second` before `first` gets them crossed, and nothing shows it.
So it is only taken where it was asked for, only between as many layers on either side, and has a grade of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from loadstone.matching.structure.doubts import Doubt, first_key
from loadstone.matching.structure.items import Item
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.solve import Group, State
from loadstone.matching.structure.words import blank

EVERY, BY_ORDER = "*", "order"


def named(answers: Mapping[str, str]) -> dict[str, str]:
    """The answers that name tensors."""
    return {key: text for key, text in answers.items() if text and key != EVERY}


def refused(answers: Mapping[str, str]) -> list[str]:
    """The keys of the target that get nothing."""
    return [key for key, text in answers.items() if not text]


def pair_by_order(state: State, source: Sequence[Item], target: Sequence[Item]) -> None:
    """Pair what is open in the order of the two lists."""
    ranks = [{item.key: rank for rank, item in enumerate(items)} for items in (source, target)]
    ones = []
    for group in state.groups:
        if len(group.left) == len(group.right):
            left = sorted(group.left, key=lambda a: _first(state.source[a], ranks[0]))
            right = sorted(group.right, key=lambda b: _first(state.target[b], ranks[1]))
            pairs = zip(left, right, strict=True)
            state.taken_by_order.append(group)
            ones += [Group([a], [b], "order", "the order of keys, because you asked") for a, b in pairs]
        else:
            ones.append(group)
    state.groups = ones
    state.settle()


def leave(state: State, keys: Collection[str]) -> None:
    """Take places that get nothing, and places like them, out of the groups that are open.

    What might have filled them is set aside with them: that it is left over is what the person expects.
    """
    templates = _templates(state, keys)
    for group in state.groups:
        gone = {b for b in group.right if blank(state.target[b].path) in templates}
        if gone:
            group.right = [b for b in group.right if b not in gone]
            state.aside[0].update(group.left)
            state.aside[1].update(group.right, gone)
    state.groups = [group for group in state.groups if group.right]


def undoubted(state: State, doubts: Sequence[Doubt], keys: Collection[str]) -> list[Doubt]:
    """The doubts less those about places that get nothing."""
    templates = _templates(state, keys)
    kept = []
    for doubt in doubts:
        if blank(state.target[doubt.target].path) in templates:
            state.aside[0].add(doubt.source)
            state.aside[1].add(doubt.target)
        else:
            kept.append(doubt)
    return kept


def _templates(state: State, keys: Collection[str]) -> dict[object, None]:
    return {blank(layer.path): None for layer in state.target if first_key(layer) in keys} if keys else {}


def _first(layer: Layer, ranks: Mapping[str, int]) -> int:
    return min(ranks[piece.item.key] for part in layer.parts.values() for piece in part.pieces)
