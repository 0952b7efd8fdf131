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
    a, b = _families(left), _families(right)
    # where others were taken out, a size says nothing of one family among others
    by_size = [] if thinned and not (_is_only_family(a) and _is_only_family(b)) else _by_size(a, b)
    by_word = _by_shared_word(*_rest(a, b, by_size))
    found = [*by_size, *by_word]
    rest_a, rest_b = _rest(a, b, found)
    ordinals = _ordinals(rest_a, rest_b) if len(rest_a) == len(rest_b) == 2 else []
    return [split for _, _, split in found] + ordinals


def _by_size(a: list[Trie], b: list[Trie]) -> list[tuple[Trie, Trie, Split]]:
    """Numbered families that nothing on their side is as large as."""
    one, other = ({len(child.leaves): child for child in side} for side in (a, b))
    sizes = Counter(len(child.leaves) for child in a), Counter(len(child.leaves) for child in b)
    least = 2 if sizes[0] == sizes[1] else _FAMILY
    return [
        (x, y, Split(x.leaves, y.leaves, "structure", f"{_shown(x.path)} and {_shown(y.path)}, {size} each"))
        for size, x in one.items()
        if sizes[0][size] == sizes[1][size] == 1
        for y in (other[size],)
        if _family(x) == _family(y) >= least
    ]


def _is_only_family(nodes: list[Trie]) -> bool:
    """One of them, and no more, is numbered."""
    return sum(_family(node) >= _FAMILY for node in nodes) == 1


def _by_shared_word(a: list[Trie], b: list[Trie]) -> list[tuple[Trie, Trie, Split]]:
    """Branches that the same word leads to, of the same size."""
    named = {(child.path[-1], len(child.leaves)): child for child in reversed(b) if child.path}
    found = []
    for x in a:
        token = x.path[-1] if x.path else ""
        if isinstance(token, int) or token == "":
            continue
        y = named.pop((token, len(x.leaves)), None)
        if y is not None:
            depths = len(x.path), len(y.path)
            found.append((x, y, Split(x.leaves, y.leaves, "named", f"`{token}` on both sides", depths=depths)))
    return found


def _rest(a: list[Trie], b: list[Trie], taken: list[tuple[Trie, Trie, Split]]) -> tuple[list[Trie], list[Trie]]:
    gone = {id(node) for x, y, _ in taken for node in (x, y)}
    return [node for node in a if id(node) not in gone], [node for node in b if id(node) not in gone]


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
