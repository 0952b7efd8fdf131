"""The engine: from two lists of items to a Match."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from loadstone.matching.structure import flattening
from loadstone.matching.structure.affix import same_names
from loadstone.matching.structure.doubts import take_doubts
from loadstone.matching.structure.fusing import fuse, signatures
from loadstone.matching.structure.items import Item, Match
from loadstone.matching.structure.layers import Layer, layers
from loadstone.matching.structure.numbering import numbered
from loadstone.matching.structure.questions import questions
from loadstone.matching.structure.rules import induce
from loadstone.matching.structure.solve import Group, State, solve
from loadstone.matching.structure.verdict import left_over, verdict
from loadstone.matching.structure.writing import assignments

_NO_ANSWERS: Mapping[str, str] = {}


def match(source: Sequence[Item], target: Sequence[Item], *, answers: Mapping[str, str] = _NO_ANSWERS) -> Match:
    """How `source` fills `target`.

    Args:
        source, target: the two state dicts, in any order.
        answers: target key → source key, for what was asked; each settles every place that looks alike.
    """
    left, right = numbered(layers(_sorted(source))), numbered(layers(_sorted(target)))
    left, right = fuse(left, right), fuse(right, left)
    state = solve(left, right, _groups(left, right, answers))
    assumed = _flattened(state)
    doubts = take_doubts(state, assumed, answers)
    found = assignments(state, target)
    missing, unused = left_over(state, found, source, target)
    word, reason = verdict(state, found, missing, unused, source, target)
    simple = {key: one.sources[0].key for key, one in found.items() if len(one.sources) == 1}
    return Match(
        found,
        questions(state, doubts),
        unused,
        missing,
        sum(math.lgamma(len(group.left) + 1) for group in state.groups) / math.log(10),
        word,
        reason,
        induce(simple),
    )


def _sorted(items: Sequence[Item]) -> list[Item]:
    """In the order of keys: the order of registration must not matter."""
    return sorted(items, key=lambda item: item.key)


def _groups(left: Sequence[Layer], right: Sequence[Layer], answers: Mapping[str, str]) -> list[Group]:
    """One group for each signature, apart from what was answered."""
    ours, theirs = signatures(left), signatures(right)
    owner = {piece.item.key: i for i, one in enumerate(left) for part in one.parts.values() for piece in part.pieces}
    place = {piece.item.key: i for i, one in enumerate(right) for part in one.parts.values() for piece in part.pieces}
    said = {place[key]: owner[value] for key, value in answers.items() if key in place and value in owner}
    said = {b: a for b, a in said.items() if left[a].signature == right[b].signature}
    groups = [Group([a], [b], "answer", "answered") for b, a in said.items()]
    used = dict.fromkeys(said.values())
    thinned = {left[a].signature for a in used}
    for a, b in same_names(left, right):
        if a not in used and b not in said:
            groups.append(Group([a], [b], "exact", "the same name"))
            used[a], said[b] = None, a
    for signature in ours:
        one = [a for a in ours[signature] if a not in used]
        other = [b for b in theirs.get(signature, []) if b not in said]
        if one and other:
            word = "the only layer of these shapes"
            groups.append(Group(one, other, "forced", word, thinned=signature in thinned))
    return groups


def _flattened(state: State) -> dict[int, str]:
    """Pair what is the same layer when flattened; what that assumes, by source layer."""
    left = [a for a in range(len(state.source)) if a not in state.pairs]
    right = [b for b in range(len(state.target)) if b not in state.backward]
    assumed = {}
    for a, b, assumption in flattening.pairs(state.source, state.target, left, right):
        state.pairs[a] = (b, "forced", "the only layer of these shapes, flattened")
        state.backward[b] = a
        assumed[a] = assumption
    return assumed
