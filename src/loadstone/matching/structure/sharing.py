"""Sharing: a word that a name of the source and one of the target have in common, and when it says that they are one.

It says so of `attention.query` and `self_attn.query`.  It does not where the names go on and contradict each other:

    differently     `embed_out` and `token_embed`; unless the word is q, k or v, or a container's name
    by number       `lin.0` and `lin.3`
    on one side     `embed_out` and `embed`; unless what is left when they are paired shares a word as well
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.runs import common
from loadstone.matching.structure.tries import Split
from loadstone.matching.structure.words import ORDINALS, PARTS, Path, by_word, containers, telling

_SHORT = 3  # letters of a word that may be short for a longer one


@dataclass(frozen=True, slots=True)
class Side:
    """What one side has of a group: indices into its layers."""

    layers: Sequence[Layer]
    members: Sequence[int]

    def having(self) -> dict[str, list[int]]:
        """Members by the words that may tell them from others, behind what all of them begin with."""
        paths = [self.layers[index].path for index in self.members]
        depth = len(reduce(common, paths)) if len(paths) > 1 else 0
        return by_word((path[depth:] for path in paths), self.members)

    def words_without(self, some: Sequence[int]) -> set[str]:
        """Words of members that those in `some` have not."""
        gone = {word for index in some for word in telling(self.layers[index].path)}
        return {word for index in self.members if index not in some for word in telling(self.layers[index].path)} - gone


Sides: TypeAlias = tuple[Side, Side]


def shared_words(sides: Sides) -> list[Split]:
    """A word that as many have on the left as on the right, and not all; the names of q, k and v before others."""
    left, right = (side.having() for side in sides)
    sizes = [len(side.members) for side in sides]
    for word, members in sorted(left.items(), key=lambda each: each[0] not in PARTS):
        others = right.get(word, [])
        if len(members) != len(others) or [len(members), len(others)] == sizes:
            continue
        split = Split(members, others, "named", f"`{word}` on both sides")
        one, other = sides[0].layers[members[0]].path, sides[1].layers[others[0]].path
        if word not in PARTS:
            if _say_otherwise(_besides(left, word), _besides(right, word)):
                continue
            if _one_goes_on(one, other, word) and not _is_backed(sides, split):
                continue
        if len(members) == 1 and _count_otherwise(_behind(one, word), _behind(other, word)):
            continue
        if sizes[0] == sizes[1] or (len(members) == 1 and _same_end(one, other)):
            return [split]
    return []


def is_sound(sides: Sides, split: Split) -> bool:
    """Whether the word that leads to both branches, if any does, says that they are the same."""
    if split.depths is None:
        return True
    chosen = split.left, split.right
    for side, members, depth in zip(sides, chosen, split.depths, strict=True):
        word = side.layers[members[0]].path[depth - 1]
        if any(word in side.layers[index].path for index in side.members if index not in members):
            return False  # others have it too, further down
    if len(split.left) != 1:
        return True
    both = [side.layers[members[0]] for side, members in zip(sides, chosen, strict=True)]
    behind = [layer.path[depth:] for layer, depth in zip(both, split.depths, strict=True)]
    if _count_otherwise(*behind):
        return False
    words = [[token for token in path if isinstance(token, str)] for path in behind]
    if all(depth in containers(layer.text) for layer, depth in zip(both, split.depths, strict=True)):
        return True
    if not any(words) or both[0].path[split.depths[0] - 1] in ORDINALS:  # `pre`: it says all there is to say
        return True
    return not _say_otherwise(*words) if all(words) else _is_backed(sides, split)


def is_same_word(word: str, other: str) -> bool:
    """They are the same, or one is short for the other."""
    return word == other or _is_short_for(word, other) or _is_short_for(other, word)


def _is_short_for(word: str, longer: str) -> bool:
    return len(word) >= _SHORT and longer.startswith(word)


def _is_backed(sides: Sides, split: Split) -> bool:
    """What is left when a split is made shares a word as well."""
    return not sides[0].words_without(split.left).isdisjoint(sides[1].words_without(split.right))


def _say_otherwise(one: Sequence[str], other: Sequence[str]) -> bool:
    """Both names go on, and differently."""
    return bool(one and other) and not any(is_same_word(x, y) for x in one for y in other)


def _count_otherwise(one: Path, other: Path) -> bool:
    """Behind the word that they share, both go on, and one by a number that the other has not."""
    return bool(one and other and any(isinstance(path[0], int) for path in (one, other)) and one[0] != other[0])


def _one_goes_on(one: Path, other: Path, word: str) -> bool:
    """Behind the word that they share one name ends, and the other goes on with words that the one lacks."""
    more = [
        any(isinstance(token, str) and not _has(partner, token) for token in _behind(path, word))
        for path, partner in ((one, other), (other, one))
    ]
    return any(more) and not all(more)


def _has(path: Path, word: str) -> bool:
    return any(isinstance(token, str) and is_same_word(word, token) for token in path)


def _behind(path: Path, word: str) -> Path:
    """What follows the last place of a word."""
    at = max((depth for depth, token in enumerate(path) if token == word), default=len(path))
    return path[at + 1 :]


def _besides(having: Mapping[str, list[int]], word: str) -> list[str]:
    """Other words that exactly the same layers of a group have."""
    return [other for other, members in having.items() if other != word and members == having[word]]


def _same_end(one: Path, other: Path) -> bool:
    """Both end in the same two tokens: enough to pair them where one side has more than the other."""
    return len(one[-2:]) == 2 and one[-2:] == other[-2:]
