"""The verdict: whether a match may be applied, and what found no partner.

Another network of the same kind also finds partners: the stem, the head, many a block.  What gives it away is what is
left over *inside* blocks that repeat: layers without partner beside layers that have one, in more than one block.  A
head more or less, a neck or a backbone inside a larger model leave nothing there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from loadstone.matching.structure.gathering import counts
from loadstone.matching.structure.items import Assignment, Item, Unmatched
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.solve import State
from loadstone.matching.structure.words import Path, place

_HALF = 0.5
Word = Literal["complete", "partial", "refused"]


def left_over(
    found: Mapping[str, Assignment], source: Sequence[Item], target: Sequence[Item]
) -> tuple[tuple[Unmatched, ...], tuple[Unmatched, ...]]:
    """Target keys without values and source keys without use; counters and index tables are not among them."""
    used = {taken.key for one in found.values() for taken in one.sources}
    missing = [item for item in target if counts(item) and item.key not in found]
    unused = [item for item in source if counts(item) and item.key not in used]
    return _with_near(missing, unused), _with_near(unused, missing)


def _with_near(items: Sequence[Item], others: Sequence[Item]) -> tuple[Unmatched, ...]:
    """Each with the one item of the other side that is like it but for one axis, where there is exactly one."""
    shelves: dict[_Shelf, dict[tuple[int, ...], list[Item]]] = {}
    sizes: Counter[_Shelf] = Counter()
    for other in others:
        for shelf in _shelves(other):
            shelves.setdefault(shelf, {}).setdefault(other.shape, []).append(other)
            sizes[shelf] += 1
    result = []
    for item in items:
        known = [shelf for shelf in _shelves(item) if shelf in shelves]
        near = {shelf: sizes[shelf] - len(shelves[shelf].get(item.shape, ())) for shelf in known}
        text = nearest = ""
        if sum(near.values()) == 1:
            [shelf] = (shelf for shelf, count in near.items() if count)
            [one] = (other for shape, alike in shelves[shelf].items() if shape != item.shape for other in alike)
            nearest = one.key
            text = f"`{one.key}` is {_times(one.shape)}, this is {_times(item.shape)}"
        result.append(Unmatched(item.key, text, nearest))
    return tuple(result)


_Shelf = tuple[str, int, tuple[int, ...]]


def _shelves(item: Item) -> list[_Shelf]:
    """One for each axis: what shares a shelf differs in the length of that axis, or not at all."""
    role = place(item.key)[2]
    return [(role, axis, item.shape[:axis] + item.shape[axis + 1 :]) for axis in range(len(item.shape))]


def verdict(
    state: State,
    found: Mapping[str, Assignment],
    missing: Sequence[Unmatched],
    unused: Sequence[Unmatched],
    target: Sequence[Item],
    waiting: Sequence[tuple[int, int]],
    likely: Sequence[tuple[int, int]],
) -> tuple[Word, str]:
    """The word, and the reason for it.

    Args:
        waiting: pairs of layers that wait for an answer, as groups with as many on either side do: not applied, but no
            sign of another network either.
        likely: those of them that an answer is expected to give.
    """
    if not missing and not unused:
        return "complete", "every tensor on either side has its partner"
    even = [group for group in state.groups if len(group.left) == len(group.right)]
    left = state.aside[0].union((a for a, _ in waiting), *(group.left for group in even))
    right = {b for group in even for b in group.right}
    hoped = {key for b in right.union(b for _, b in likely) for key in _keys(state.target[b])}
    right.update(state.aside[1], (b for _, b in waiting))
    aside = {key for b in state.aside[1] for key in _keys(state.target[b])}
    floats = [item for item in target if counts(item) and item.key not in aside]
    total = sum(item.elements for item in floats)
    share = sum(item.elements for item in floats if item.key in found) / max(total, 1)
    reason = f"{share:.0%} of the target's parameters have a partner"
    sides = (state.source, state.pairs, left, "source"), (state.target, state.backward, right, "target")
    for layers, has, may, word in sides:
        blocks = _broken(layers, [index in has or index in may for index in range(len(layers))])
        if len(blocks) > 1:
            return "refused", f"layers without partner inside {len(blocks)} blocks of the {word} that repeat"
    near = [item for item in floats if item.key in found or item.key in hoped]
    if sum(item.elements for item in near) < _HALF * total or len(near) < _HALF * len(floats):
        return "refused", reason
    return "partial", reason


def _keys(layer: Layer) -> Iterator[str]:
    return (piece.item.key for part in layer.parts.values() for piece in part.pieces)


def _broken(layers: Sequence[Layer], has: Sequence[bool]) -> list[Path]:
    """Numbered containers with layers of both kinds; a single number, as profilers leave them, is no layer."""
    inside: dict[Path, set[bool]] = {}
    for layer, paired in zip(layers, has, strict=True):
        if layer.elements <= 1:
            continue
        for depth, token in enumerate(layer.path[:-1]):
            if isinstance(token, int):
                inside.setdefault(layer.path[: depth + 1], set()).add(paired)
    return [path for path, kinds in inside.items() if len(kinds) == 2]


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"
