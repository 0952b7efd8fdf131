"""Tries: the paths of a group of layers as a tree, and which branches of two trees belong together.

Only the layers of one signature are in the tree, so whatever lies between them is gone: a chain of single children is
no branching.  `layer1.0.conv3` and `encoder.stages.0.layers.0.layer.2.convolution` then differ in the same places.
Branches are paired by number where both sides are numbered, by their own size, or by a word they share; the rest stays
together, undecided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadstone.matching.structure.items import Grade
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.words import ORDINALS, Path, Token

_FAMILY = 3  # numbered members that make a family one can know by its size


@dataclass(slots=True)
class Trie:
    """Leaves are indices into the list of layers; `path` is what leads here from the root."""

    path: Path
    children: dict[Token, Trie] = field(default_factory=dict)
    leaves: list[int] = field(default_factory=list)

    def collapsed(self) -> Trie:
        node = self
        while len(node.children) == 1 and "" not in node.children:
            node = next(iter(node.children.values()))
        return node

    def by_number(self) -> list[Trie] | None:
        """Children in order of their numbers, if every one has a number."""
        if len(self.children) < 2 or not all(isinstance(token, int) for token in self.children):
            return None
        return [self.children[token] for token in sorted(self.children, key=int)]


def trie(members: Sequence[int], layers: Sequence[Layer]) -> Trie:
    root = Trie(())
    for index in members:
        node = root
        node.leaves.append(index)
        path = layers[index].path
        for depth, token in enumerate((*path, "")):
            if token not in node.children:
                node.children[token] = Trie(path[: depth + 1])
            node = node.children[token]
            node.leaves.append(index)
    return root


@dataclass(frozen=True, slots=True)
class Split:
    """Two sets of layers that belong together."""

    left: list[int]
    right: list[int]
    grade: Grade
    evidence: str
    numbers: tuple[Path, int, Path, int] | None = None  # family and number, on the left and on the right
    is_whole: bool = True  # the numbers name these branches alone, not a stretch of a run
    depths: tuple[int, int] | None = None  # where the word that both share ends, on the left and on the right


def branches(left: Trie, right: Trie, thinned: bool = False) -> list[Split]:
    """How the branches of two tries belong together; what is in no split stays undecided.

    `thinned`: layers were taken out of the group before, so that the size of a branch says less.
    """
    left, right = left.collapsed(), right.collapsed()
    a, b = left.by_number(), right.by_number()
    if a and b and len(a) == len(b) and all(len(x.leaves) == len(y.leaves) for x, y in zip(a, b, strict=True)):
        return [_numbered(x, y) for x, y in zip(a, b, strict=True)]
    flat = _flat(left, right)
    if flat:
        return flat
    if a and b:
        return []
    return _by_words(left, right, thinned)


def _numbered(x: Trie, y: Trie) -> Split:
    return Split(
        x.leaves,
        y.leaves,
        "numbered",
        f"{_shown(x.path)} and {_shown(y.path)}, same place",
        (x.path[:-1], _number(x.path), y.path[:-1], _number(y.path)),
    )


def _flat(left: Trie, right: Trie) -> list[Split]:
    """One side numbers straight through what the other numbers in two levels."""
    a, b = _run(left), _run(right)
    if not (a and b and len(a) == len(b)) or (left.by_number() is None) is not (right.by_number() is None):
        return []
    depths = {len(node.path) for node in a}, {len(node.path) for node in b}
    one = left.by_number(), right.by_number()
    if len(a) != len(one[0] or ()) and len(b) != len(one[1] or ()):
        return []  # nested on both sides, in different ways
    if any(len(depth) > 1 for depth in depths):
        return []
    return [
        Split(
            x.leaves,
            y.leaves,
            "numbered",
            f"{_shown(x.path)} and {_shown(y.path)}, same place in the whole run",
            (left.path, _number(x.path, len(left.path)), right.path, _number(y.path, len(right.path))),
            False,
        )
        for x, y in zip(a, b, strict=True)
    ]


def _run(node: Trie) -> list[Trie] | None:
    """The leaves in the order of their numbers, if nothing but numbers tells them apart."""
    node = node.collapsed()
    if len(node.leaves) == 1:
        return [node]
    children = node.by_number()
    if children is None:
        return None
    runs = [_run(child) for child in children]
    return None if any(run is None for run in runs) else [leaf for run in runs if run for leaf in run]


def _by_words(left: Trie, right: Trie, thinned: bool) -> list[Split]:
    splits: list[Split] = []
    a, b = _families(left), _families(right)
    sizes = Counter(len(child.leaves) for child in a), Counter(len(child.leaves) for child in b)
    rest_a, rest_b = list(a), list(b)
    for size in () if thinned else sizes[0]:  # where others were taken out, a size says nothing
        if sizes[0][size] != 1 or sizes[1][size] != 1:
            continue
        x = next(child for child in rest_a if len(child.leaves) == size)
        y = next(child for child in rest_b if len(child.leaves) == size)
        if _family(x) == _family(y) >= (_FAMILY if sizes[0] != sizes[1] else 2):
            splits.append(Split(x.leaves, y.leaves, "structure", f"{_shown(x.path)} and {_shown(y.path)}, {size} each"))
            rest_a, rest_b = [c for c in rest_a if c is not x], [c for c in rest_b if c is not y]
    for x in list(rest_a):
        token = x.path[-1] if x.path else ""
        if isinstance(token, int) or token == "":
            continue
        same = [c for c in rest_b if c.path and c.path[-1] == token and len(c.leaves) == len(x.leaves)]
        if same:
            depths = len(x.path), len(same[0].path)
            splits.append(Split(x.leaves, same[0].leaves, "named", f"`{token}` on both sides", depths=depths))
            rest_a, rest_b = [c for c in rest_a if c is not x], [c for c in rest_b if c is not same[0]]
    if len(rest_a) == len(rest_b) == 2:
        splits += _ordinals(rest_a, rest_b)
    return splits


def _families(node: Trie) -> list[Trie]:
    return list(node.children.values())


def _ordinals(a: list[Trie], b: list[Trie]) -> list[Split]:
    """Two on each side that count: before and after, 1 and 2."""
    first, second = _counting(a), _counting(b)
    if not (first and second):
        return []
    pairs = zip(first, second, strict=True)
    if any(len(x.leaves) != len(y.leaves) for x, y in zip(first, second, strict=True)):
        return []
    return [
        Split(x.leaves, y.leaves, "numbered", f"{_shown(x.path)} and {_shown(y.path)}, same place") for x, y in pairs
    ]


def _counting(nodes: list[Trie]) -> list[Trie] | None:
    numbers = []
    for node in nodes:
        token = node.path[-1] if node.path else ""
        number = token if isinstance(token, int) else ORDINALS.get(token)
        if number is None:
            return None
        numbers.append(number)
    if len(set(numbers)) != len(nodes):
        return None
    return [node for _, node in sorted(zip(numbers, nodes, strict=True), key=lambda pair: pair[0])]


def _family(node: Trie) -> int:
    children = node.collapsed().by_number()
    return len(children) if children else 0


def _number(path: Path, at: int = -1) -> int:
    number = path[at]
    assert isinstance(number, int)
    return number


def _shown(path: Path) -> str:
    return f"`{'.'.join(map(str, path))}`"
