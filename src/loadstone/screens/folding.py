"""Thousands of keys as a small tree of groups, without losing one and without showing one that does not exist.

Keys are split at their dots into a tree.  Siblings whose subtrees are equal, name by name and tensor by tensor, become
one group: `h.{0..11}`, `bn{1,2}`, `ln_1.{weight,bias}`.  Whatever differs, even in one dtype, stays apart.
Each subtree gets a number by its content, so that folding takes time linear in the number of keys.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from loadstone.keys import fold_groups as fold_keys

_MOST_PARTS = 40  # of a key; what is deeper stays one name
_MOST_NAMES = 8  # in one pair of braces; more than that nobody reads
_UNNUMBERED = "\0"  # the family of the names that end in no number


class Sized(Protocol):
    """What is folded: a TensorInfo, or a Slot of a model."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def elements(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are equal but for their keys, or a block of such groups.

    Attributes:
        label: its key below the group it stands in, folded: "h.{0..11}", "ln_1.{weight,bias}".
        repeats: how many blocks it stands for; 1 for a row of tensors.
        tensors, elements, nbytes: totals over everything it stands for.
        example: one of the tensors of a row; None for a block.
        kind: what sets the row's tensors apart from others of that shape, "f32" or "f32 sparse".
        children: the groups in one of the blocks, with totals over all the blocks.
    """

    label: str
    repeats: int
    tensors: int
    elements: int
    nbytes: int
    example: Sized | None = None
    kind: str = ""
    children: tuple[Group, ...] = ()

    @property
    def has_own_row(self) -> bool:
        """Whether an opened block stands above its children: one of a list does, others are part of their labels."""
        return self.repeats > 1 or (len(self.children) > 1 and self.label.rpartition(".")[2].isdecimal())


@dataclass(slots=True)
class _Node:
    """A place in the tree of keys: a tensor, or names below it."""

    content: int = -1  # equal numbers mean equal subtrees
    tensor: Sized | None = None
    kind: str = ""
    children: dict[tuple[str, bool], _Node] = field(default_factory=dict)  # by name, and whether it is a tensor


def fold(tensors: Mapping[str, Sized], kinds: Mapping[str, str]) -> tuple[Group, ...]:
    """The groups of all the tensors, in the order of their first keys.  `kinds` gives each key's kind."""
    root = _Node()
    for key, tensor in tensors.items():
        *parents, name = key.split(".", _MOST_PARTS)
        node = root
        for parent in parents:
            node = node.children.setdefault((parent, False), _Node())
        node.children[name, True] = _Node(tensor=tensor, kind=kinds[key])
    _number(root, {})
    return tuple(_groups_below(root, 1))


def _number(node: _Node, numbers: dict[object, int]) -> int:
    """Give the node and all below it their content number."""
    if node.tensor is not None:
        content: object = (node.kind, node.tensor.shape, node.tensor.nbytes)
    else:
        content = tuple(
            (name, is_tensor, _number(child, numbers)) for (name, is_tensor), child in node.children.items()
        )
    node.content = numbers.setdefault(content, len(numbers))
    return node.content


def _groups_below(node: _Node, times: int) -> Iterator[Group]:
    """The groups of a node's children, in order; `times` is how many such nodes there are."""
    alike: dict[tuple[int, bool], list[tuple[int, str]]] = {}
    for place, ((name, is_tensor), child) in enumerate(node.children.items()):
        alike.setdefault((child.content, is_tensor), []).append((place, name))
    found = [(*label, is_tensor) for (_, is_tensor), names in alike.items() for label in _labels(names)]
    for _, first, label, count, is_tensor in sorted(found):
        yield _group(node.children[first, is_tensor], label, count, times)


def _group(node: _Node, label: str, count: int, times: int) -> Group:
    total = times * count
    if node.tensor is not None:
        tensor = node.tensor
        return Group(label, 1, total, total * tensor.elements, total * tensor.nbytes, tensor, node.kind)
    children = tuple(_groups_below(node, total))
    if len(children) == 1:  # nothing branches here: one label for both
        only = children[0]
        repeats = only.repeats * count if only.children else 1
        return replace(only, label=f"{label}.{only.label}", repeats=repeats)
    return Group(
        label,
        count,
        sum(child.tensors for child in children),
        sum(child.elements for child in children),
        sum(child.nbytes for child in children),
        children=children,
    )


def _labels(names: list[tuple[int, str]]) -> Iterator[tuple[int, str, str, int]]:
    """(place, name) pairs folded to (first place, first name, label, how many): numbers by stem, the rest together."""
    place_of = {name: place for place, name in names}
    families: dict[str, list[str]] = {}
    for name in place_of:
        stem = name.rstrip("0123456789")
        families.setdefault(stem if stem != name else _UNNUMBERED, []).append(name)
    others = [*families.pop(_UNNUMBERED, [])]
    others += [members.pop() for members in families.values() if len(members) == 1]
    others.sort(key=place_of.__getitem__)
    alone = [[name] for name in others] if len(others) > _MOST_NAMES else [others]
    for members in [*alone, *families.values()]:
        for folded in fold_keys(members):
            first = folded.keys[0]
            yield place_of[first], first, folded.text, len(folded.keys)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a tree of groups.

    Attributes:
        group: what it is about.
        label: its key below the row it stands under.
        rails: one for each level it is indented: whether more rows follow there.
        is_open: its block's children follow.
    """

    group: Group
    label: str
    rails: tuple[bool, ...]
    is_open: bool

    @property
    def branches(self) -> str:
        """The lines of the tree before the label."""
        *outer, last = self.rails or (None,)
        return "" if last is None else "".join("│  " if more else "   " for more in outer) + ("├─ " if last else "└─ ")


def rows(groups: tuple[Group, ...], limit: int | None) -> list[Row]:
    """The groups as rows, blocks opened as long as there are at most `limit` (None: all), those of most bytes first."""
    opened: set[int] = set()
    shown = serial = len(groups)
    waiting = [(-group.nbytes, number, group) for number, group in enumerate(groups) if group.children]
    heapq.heapify(waiting)
    while waiting:
        _, _, group = heapq.heappop(waiting)
        more = len(group.children) - (not group.has_own_row)
        if limit is not None and shown + more > limit:
            continue
        shown += more
        opened.add(id(group))
        for child in group.children:
            if child.children:
                serial += 1
                heapq.heappush(waiting, (-child.nbytes, serial, child))
    return list(_walk(groups, opened, None))


def _walk(groups: tuple[Group, ...], opened: set[int], outer: tuple[bool, ...] | None) -> Iterator[Row]:
    level = list(_spelled_out(groups, opened, ""))
    for number, (group, label) in enumerate(level, 1):
        rails = () if outer is None else (*outer, number < len(level))
        is_open = id(group) in opened
        yield Row(group, label, rails, is_open)
        if is_open:
            yield from _walk(group.children, opened, rails)


def _spelled_out(groups: tuple[Group, ...], opened: set[int], prefix: str) -> Iterator[tuple[Group, str]]:
    """The groups of one level with their labels; opened blocks without a row give their children."""
    for group in groups:
        label = prefix + group.label
        if id(group) in opened and not group.has_own_row:
            yield from _spelled_out(group.children, opened, label + ".")
        else:
            yield group, label
