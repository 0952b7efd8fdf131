"""Solve: groups of layers that are known to belong together, made smaller until each holds one pair.

A group says: these layers of the source are those of the target, in some order.  It begins as one group for each
signature and is only ever split, by evidence that binds both sides; a group of one and one is a pair.  Evidence of
different kinds takes turns until nothing moves, the strongest first:

    siblings    an undecided layer lies in the same container as layers that are paired: its partner lies where
                theirs lie, and the other side must say the same
    rules       what the paired layers elsewhere say about the ends and words of names, see lore
    tries       numbered families and branches, see tries
    words       a word that as many have on the one side as on the other, see sharing

A number once paired binds its whole family: a later split that would pair it otherwise, or count backwards where the
pairs count forwards, is not made.  What no evidence
splits stays a group, and becomes a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loadstone.matching.structure.blocks import by_block, inside
from loadstone.matching.structure.items import Grade
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.lore import Lore
from loadstone.matching.structure.pairing import forced, parts
from loadstone.matching.structure.prefixes import by_prefix
from loadstone.matching.structure.runs import Bounds, Run, common
from loadstone.matching.structure.sharing import Side, Sides, is_sound, shared_words
from loadstone.matching.structure.tries import Split, branches, trie
from loadstone.matching.structure.words import Path, containers, tokens

Families = dict[Path, dict[int, int]]  # what comes before a number → number → its rank

_MANY = 200  # layers in a group
_STRENGTH: dict[Grade, int] = {
    "exact": 8, "answer": 7, "forced": 6, "sibling": 5, "rule": 4, "named": 3, "numbered": 2, "structure": 1,
    "order": 0,
}  # fmt: skip


@dataclass(slots=True)
class Group:
    left: list[int]
    right: list[int]
    grade: Grade = "forced"
    evidence: str = ""
    thinned: bool = False  # others of the same signature were paired out of it

    @property
    def is_pair(self) -> bool:
        return len(self.left) == len(self.right) == 1


@dataclass(slots=True)
class State:
    source: list[Layer]
    target: Sequence[Layer]
    groups: list[Group]
    pairs: dict[int, tuple[int, Grade, str]] = field(default_factory=dict)
    backward: dict[int, int] = field(default_factory=dict)
    under: tuple[dict[Path, tuple[int, Path]], dict[Path, tuple[int, Path]]] = field(default_factory=lambda: ({}, {}))
    runs: tuple[dict[Path, Run], dict[Path, Run]] = field(default_factory=lambda: ({}, {}))
    lore: Lore = field(default_factory=Lore)
    numbers: dict[tuple[Path, Path], tuple[dict[int, int], dict[int, int]]] = field(default_factory=dict)
    families: tuple[Families, Families] = field(default_factory=lambda: ({}, {}))
    marked: tuple[list[Path], list[Path]] = field(default_factory=lambda: ([], []))
    orders: dict[tuple[Path, Path], dict[int, tuple[int, int]]] = field(default_factory=dict)
    taken_by_order: list[Group] = field(default_factory=list)
    aside: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))  # said to have no partner

    def settle(self) -> None:
        """Move groups of one and one to the pairs."""
        rest = []
        for group in self.groups:
            if group.is_pair:
                self._pair(group)
            elif group.left and group.right:
                rest.append(group)
        self.groups = rest

    def _pair(self, group: Group) -> None:
        a, b = group.left[0], group.right[0]
        self.pairs[a] = (b, group.grade, group.evidence)
        self.backward[b] = a
        both = self.source[a], self.target[b]
        for side, (layer, other) in enumerate((both, both[::-1])):
            path, partner = layer.path, other.path
            around = partner[: len(tokens(other.text.rpartition(".")[0]))]
            for depth in containers(layer.text):
                count, scope = self.under[side].get(path[:depth], (0, around))
                self.under[side][path[:depth]] = (count + 1, common(scope, partner))
        for side, (mine, other) in enumerate((both, both[::-1])):
            inside = tokens(other.text.rpartition(".")[0])
            for family, number in _places(mine.path):
                self.runs[side].setdefault(family, Run()).add(number, other.path[: len(inside)])
        for family, number in _places(self.source[a].path):
            for partners, theirs in _places(self.target[b].path):
                order = self.orders.setdefault((family, partners), {})
                least, most = order.get(number, (theirs, theirs))
                order[number] = (min(least, theirs), max(most, theirs))
        marked = (self.marked[0][a], self.marked[1][b])
        self.lore.learn(self.source[a], self.target[b], marked, said=group.grade == "answer")

    def scope(self, side: int, container: Path) -> tuple[int, Path]:
        """How many layers of a container are paired, and what holds all their partners."""
        return self.under[side].get(container, (0, ()))

    def agrees(self, splits: Iterable[Split]) -> bool:
        """The numbers these splits pair are not paired otherwise, and do not cross what is paired for other reasons."""
        bounds: dict[tuple[Path, Path], Bounds] = {}
        for split in splits:
            if not split.numbers:
                continue
            family, number, other, partner = split.numbers
            if split.is_whole:
                there, back = self.numbers.get((family, other), ({}, {}))
                longer = len(self.families[0].get(family, ())) - len(self.families[1].get(other, ()))
                if not self._same_rank(split.numbers) or (longer >= 0 and there.get(number, partner) != partner):
                    return False
                if longer <= 0 and back.get(partner, number) != number:
                    return False
            if (family, other) not in bounds:
                bounds[family, other] = Bounds(self.orders.get((family, other), {}))
            if bounds[family, other].crosses(number, partner):
                return False
        return True

    def _same_rank(self, numbers: tuple[Path, int, Path, int]) -> bool:
        """Of two families with as many members, the third belongs to the third, whatever this group has of them."""
        family, number, other, partner = numbers
        return (
            not self._are_as_many(family, other) or self.families[0][family][number] == self.families[1][other][partner]
        )

    def _are_as_many(self, family: Path, other: Path) -> bool:
        """Where they are not, several of the one may be parts of one of the other: attention, feed, attention, feed."""
        return len(self.families[0].get(family, ())) == len(self.families[1].get(other, ()))

    def note(self, splits: Iterable[Split]) -> None:
        for split in splits:
            if split.numbers and split.is_whole:
                family, number, other, partner = split.numbers
                there, back = self.numbers.setdefault((family, other), ({}, {}))
                there[number], back[partner] = partner, number


def _places(path: Path) -> list[tuple[Path, int]]:
    """Every number of a path with what comes before it."""
    return [(path[:depth], token) for depth, token in enumerate(path) if isinstance(token, int)]


def _marked(layers: Sequence[Layer], families: Families) -> list[Path]:
    """Paths with every number as "number/members of its family"."""
    return [
        tuple(
            f"{token}/{len(families[layer.path[:depth]])}" if isinstance(token, int) else token
            for depth, token in enumerate(layer.path)
        )
        for layer in layers
    ]


def _families(layers: Sequence[Layer]) -> Families:
    """All numbers that follow a path, each with its rank."""
    found: dict[Path, dict[int, None]] = {}
    for layer in layers:
        for family, number in _places(layer.path):
            found.setdefault(family, {})[number] = None
    return {family: {n: rank for rank, n in enumerate(sorted(numbers))} for family, numbers in found.items()}


def solve(source: Sequence[Layer], target: Sequence[Layer], groups: list[Group]) -> State:
    """Split until nothing moves; `groups` hold what is known to begin with."""
    families = _families(source), _families(target)
    marked = _marked(source, families[0]), _marked(target, families[1])
    state = State(list(source), target, groups, families=families, marked=marked)
    state.settle()
    kinds = (_siblings, _blocks, _rules, _tries, _shared_words)
    while True:
        for kind in kinds:
            if _round(state, kind):
                break
        else:
            return state


def _round(state: State, kind: object) -> bool:
    moved = False
    groups: list[Group] = []
    for group in sorted(state.groups, key=lambda group: -len(group.left)):
        splits = kind(state, group)  # type: ignore[operator]
        made = _apply(state, group, splits) if splits and state.agrees(splits) else None
        moved = moved or made is not None
        groups += made or [group]
    state.groups = groups
    state.settle()
    return moved


def _apply(state: State, group: Group, splits: Sequence[Split]) -> list[Group] | None:
    taken = {index for split in splits for index in split.left}, {index for split in splits for index in split.right}
    left = [index for index in group.left if index not in taken[0]]
    right = [index for index in group.right if index not in taken[1]]
    if len(splits) == 1 and not left and not right:
        return None
    made = [
        Group(s.left, s.right, _weakest(group.grade, s.grade), s.evidence or group.evidence, group.thinned)
        for s in splits
    ]
    state.note(splits)
    if left and right:
        weakest = min((part.grade for part in made), key=lambda grade: _STRENGTH[grade])
        made.append(Group(left, right, weakest, "what is left when the others are paired", True))
    return made


def _weakest(one: Grade, other: Grade) -> Grade:
    if one in ("forced", "exact"):
        return other
    return min(one, other, key=lambda grade: _STRENGTH[grade])


# siblings ------------------------------------------------------------------------------------------------------------


def _siblings(state: State, group: Group) -> list[Split]:
    """Parts of a group that lie in the same places; in one that is not even only what has one place."""
    if len(group.left) != len(group.right):
        found = parts(_edges(state, group, _LACKING))
        ones = [part for part in found if len(part[0]) == len(part[1]) == 1 < len(group.left)]
        return [Split(left, right, "sibling", "beside layers that are paired") for left, right in ones]
    found = parts(_edges(state, group, _STRETCHED))
    if any(len(left) != len(right) for left, right in found):
        return []  # a part that does not come out even says that the evidence is wrong here
    if any(len(left) > 1 for left, _ in found):
        edges = _edges(state, group, _STRICT)
        found = [smaller for left, right in found for smaller in forced(left, right, edges)]
    smaller_ones = [part for part in found if len(part[0]) < len(group.left)]
    return [Split(left, right, "sibling", "beside layers that are paired") for left, right in smaller_ones]


def _blocks(state: State, group: Group) -> list[Split]:
    if len(group.left) != len(group.right):
        return []
    return inside(by_block(state.source, group.left), by_block(state.target, group.right), state.scope)


# How far what neighbours say is believed: stretched to reach a candidate, which is safe while all parts come out even;
# as it is; and where a layer may have no partner at all, only what two of them say.
_STRETCHED, _STRICT, _LACKING = range(3)


def _edges(state: State, group: Group, how: int) -> dict[int, list[int]]:
    left, right = by_prefix(state.source, group.left), by_prefix(state.target, group.right)
    inside: dict[int, set[int]] = {}
    for b in group.right:
        near = _near(state, 0, state.target[b], group.left, left, how)
        if near is group.left and len(group.left) > _MANY:
            return {}  # nothing is known around some of them, and there are others to begin with
        inside[b] = set(near)
    edges: dict[int, list[int]] = {}
    for a in group.left:
        candidates = _near(state, 1, state.source[a], group.right, right, how)
        edges[a] = [b for b in candidates if a in inside[b]]
    return edges


def _near(
    state: State, other: int, layer: Layer, all_of: list[int], inside: Mapping[Path, list[int]], how: int
) -> list[int]:
    """Candidates on the other side that lie where the partners of the nearest paired neighbours lie."""
    mine, path = 1 - other, layer.path
    nothing = [] if how == _LACKING else all_of
    for depth in (end for end in containers(layer.text) if end < len(path)):  # what was joined may have another path
        number, run = path[depth], state.runs[mine].get(path[:depth])
        if run and isinstance(number, int):
            if how != _LACKING and (between := run.around(number)) in inside:
                return inside[between]
            if len(run) == 1:
                continue  # where the partners of one number lie says nothing of another
        count, scope = state.scope(mine, path[:depth])
        if not count:
            continue
        if how == _LACKING and count == len(state.pairs):
            return []  # what holds everything else says nothing
        if count == 1 and how == _LACKING:
            return []
        shortest = 0 if how == _STRETCHED else len(scope) - 1
        return next((inside[scope[:n]] for n in range(len(scope), shortest, -1) if scope[:n] in inside), nothing)
    return nothing


# rules, tries and words ----------------------------------------------------------------------------------------------


def _rules(state: State, group: Group) -> list[Split]:
    return state.lore.splits(state.source, state.target, group.left, group.right, state.marked)


def _tries(state: State, group: Group) -> list[Split]:
    left = trie(group.left, state.source)
    right = trie(group.right, state.target)
    splits = [split for split in branches(left, right, group.thinned) if is_sound(_sides(state, group), split)]
    if len(group.left) != len(group.right):
        return [split for split in splits if split.grade == "structure"]
    return splits


def _shared_words(state: State, group: Group) -> list[Split]:
    return shared_words(_sides(state, group))


def _sides(state: State, group: Group) -> Sides:
    return Side(state.source, group.left), Side(state.target, group.right)
