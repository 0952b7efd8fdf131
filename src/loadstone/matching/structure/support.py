"""Support: whether a pair that rests on shapes may be believed where layers are missing on one side or on both.

"The only layer of these shapes" is proof while nothing is missing.  But where the source has a layer that the target
lacks, and the target one that the source lacks, of the same shapes, then each is the only one left, and they are not
the same.  What gives such a pair away is what lies around it:

    blocks      a numbered block holds layers without partner: what else is in it may be any of them
    branches    most of what lies beside it has no partner: the head or neck of another model
    places      what lies beside the one has its partners elsewhere than beside the other
    templates   layers of both names, in other blocks, are without partner
    sizes       layers are left over on both sides, some share a width with it, and no container is whole around it

A pair without support is asked about.  The head's own case is no danger: a layer left over on either side, the same
but for the length of one axis, is one layer resized.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.solve import State
from loadstone.matching.structure.words import holders

_WHOLE = 3  # layers of a container that is whole, at least
_FEW = 100  # layers that a head, a vocabulary or channels of another size touch, at most


@dataclass(slots=True)
class _Side:
    layers: Sequence[Layer]
    partner: Mapping[int, int]
    over: frozenset[int]  # without partner, and no question is open that gives all of them one
    undecided: frozenset[int]
    inside: dict[str, list[int]] = field(default_factory=dict)
    branches: dict[str, tuple[Counter[str], set[str]]] = field(default_factory=dict)
    beside: dict[str, tuple[list[int], Counter[str]]] = field(default_factory=dict)
    left_in: dict[str, int] = field(default_factory=dict)
    templates: frozenset[str] = frozenset()  # of layers without partner
    sizes: frozenset[int] = frozenset()  # of layers left over

    def __post_init__(self) -> None:
        for index, layer in enumerate(self.layers):
            if layer.elements > 1:
                for container in _around(layer):
                    self.inside.setdefault(container, []).append(index)
                    if index in self.over:
                        self.left_in[container] = self.left_in.get(container, 0) + 1
        self.templates = frozenset(_template(self.layers[index]) for index in self.undecided)
        self.sizes = frozenset(size for index in self.over for size in _sizes(self.layers[index]))

    def nearest(self, index: int) -> str:
        """The smallest container that holds anything else; "" is the whole model."""
        return next(each for each in _around(self.layers[index]) if not each or len(self.inside.get(each, ())) > 1)

    def is_whole_around(self, index: int) -> bool:
        """A container below the model has several layers and none left over."""
        return any(
            each and len(self.inside.get(each, ())) >= _WHOLE and each not in self.left_in
            for each in _around(self.layers[index])
        )

    def is_foreign(self, index: int) -> bool:
        """Around it lie layers without partner: any in a numbered block, as many branches as others elsewhere."""
        container = self.nearest(index)
        if not container or container not in self.left_in:
            return False
        if any(character.isdigit() for character in container.rpartition(".")[2]):
            return True
        paired, left = self._branches(container)
        mine = self._branch(container, index)
        others = len(paired) - (paired[mine] == 1)
        return len(left - paired.keys()) + (paired[mine] == 1 and mine in left) >= others

    def _branches(self, container: str) -> tuple[Counter[str], set[str]]:
        """How many layers with a partner each branch of a container has, and the branches that have some without."""
        if container not in self.branches:
            inside = self.inside[container]
            paired = Counter(self._branch(container, i) for i in inside if i not in self.over)
            self.branches[container] = paired, {self._branch(container, i) for i in inside if i in self.over}
        return self.branches[container]

    def _branch(self, container: str, index: int) -> str:
        return self.layers[index].text[len(container) + 1 :].partition(".")[0]


def unsupported(state: State) -> dict[int, str]:
    """Source layers whose pair is not to be believed, with the reason."""
    over, undecided = _left_over(state)
    if not any(undecided):
        return {}
    forward = {a: b for a, (b, _, _) in state.pairs.items()}
    source = _Side(state.source, forward, over[0], undecided[0])
    target = _Side(state.target, state.backward, over[1], undecided[1])
    open_pairs = {a: b for a, (b, grade, _) in state.pairs.items() if grade not in ("exact", "answer")}
    found: dict[int, str] = {}
    while True:
        new = {a: reason for a, b in open_pairs.items() if a not in found and (reason := _reason(source, target, a, b))}
        if not new:
            return found
        found |= new
        source.templates |= {_template(state.source[a]) for a in new}
        target.templates |= {_template(state.target[open_pairs[a]]) for a in new}


def _reason(source: _Side, target: _Side, a: int, b: int) -> str:
    if source.is_foreign(a) or target.is_foreign(b):
        return "it is the same layer, though layers beside it have no partner"
    elsewhere = _is_elsewhere(source, target, a, b) + _is_elsewhere(target, source, b, a)
    if elsewhere > (0 if source.over and target.over else 1):
        return "it is the same layer, though what lies beside it is not"
    if not source.over and not target.over:
        return ""
    one, other = source.layers[a], target.layers[b]
    if _template(one) in source.templates and _template(other) in target.templates:
        return "it is the same layer, though layers of these names have no partner in other blocks"
    if not (source.over and target.over) or _same_word(one, other):
        return ""
    if source.is_whole_around(a) and target.is_whole_around(b):
        return ""
    sizes = _sizes(one)
    is_apart = sizes and not sizes & (source.sizes | target.sizes)
    return "" if is_apart else "it is the same layer, though both sides have layers left over, of its width"


def _is_elsewhere(mine: _Side, other: _Side, index: int, partner: int) -> bool:
    """What lies in the nearest container has its partners in one that does not hold mine."""
    container = mine.nearest(index)
    if not container:
        return False
    if container not in mine.beside:
        paired = [i for i in mine.inside[container] if i in mine.partner]
        held = Counter(each for i in paired for each in _around(other.layers[mine.partner[i]]))
        mine.beside[container] = paired, held
    paired, held = mine.beside[container]
    if len(paired) < 3:
        return False
    witness = paired[1] if paired[0] == index else paired[0]
    own = _around(other.layers[partner])
    around = _around(other.layers[mine.partner[witness]])
    return any(each and each not in own and held[each] == len(paired) - 1 for each in around)


def _left_over(state: State) -> tuple[tuple[frozenset[int], frozenset[int]], tuple[frozenset[int], frozenset[int]]]:
    """Layers that get no partner whatever is answered, and layers without one so far, on either side."""
    has = state.pairs, state.backward
    undecided = [
        {
            i
            for i, layer in enumerate(layers)
            if i not in has[side] and i not in state.aside[side] and layer.elements > 1
        }
        for side, layers in enumerate((state.source, state.target))
    ]
    over = [set(each) for each in undecided]
    for group in state.groups:
        if len(group.left) <= len(group.right):
            over[0].difference_update(group.left)
        if len(group.right) <= len(group.left):
            over[1].difference_update(group.right)
    if _are_resized([state.source[a] for a in over[0]], [state.target[b] for b in over[1]]):
        for side, each in enumerate(over):
            undecided[side] -= each
        over = [set(), set()]
    return (frozenset(over[0]), frozenset(over[1])), (frozenset(undecided[0]), frozenset(undecided[1]))


def _are_resized(left: Sequence[Layer], right: Sequence[Layer]) -> bool:
    """What is left over on either side is the same, but for one length that changes alike everywhere."""
    if len(left) != len(right) or len(left) > _FEW:
        return False
    changes = [_changes(one, other) for one in left for other in right]
    alike = [each for each in changes if each is not None and len(each) == 1]
    return len(alike) == len(left) and len(frozenset().union(*alike)) <= 1


def _changes(one: Layer, other: Layer) -> set[tuple[int, int]] | None:
    """Lengths that differ; None where the layers have not the same axes."""
    if one.parts.keys() != other.parts.keys():
        return None
    pairs = [(part.shape, other.parts[role].shape) for role, part in one.parts.items()]
    if any(len(have) != len(wanted) for have, wanted in pairs):
        return None
    return {lengths for have, wanted in pairs for lengths in zip(have, wanted, strict=True) if lengths[0] != lengths[1]}


def _around(layer: Layer) -> list[str]:
    """The containers of a layer, nearest first; the whole model for one that is all of it."""
    return holders(layer.text) or [""]


def _template(layer: Layer) -> str:
    return re.sub(r"\d+", "#", layer.text)


def _same_word(one: Layer, other: Layer) -> bool:
    word = one.text.rpartition(".")[2]
    return word == other.text.rpartition(".")[2] and not word.isdigit()


def _sizes(layer: Layer) -> frozenset[int]:
    return frozenset(size for part in layer.parts.values() for size in part.shape)
