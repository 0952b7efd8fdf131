"""Parts and styles: a network as a list of parts, and a state dict as these parts under somebody's names.

A Part is one layer of the network, whatever it is called: its role, the numbers of the blocks that hold it, the shape
of its weight with outputs first.  A Style says how an engineer writes the parts down: a row for each module, with a
template for its name and the roles of the parts that it holds, mostly one, several where rows are stacked.  `write`
makes Items of both and keeps, for every key, which rows of which part it holds: truth by construction, without values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from loadstone.matching.structure import Item
from loadstone.matching.structure.words import holders

Shape: TypeAlias = tuple[int, ...]
Form: TypeAlias = Literal["layer", "norm", "batch", "embedding", "table"]
Numbers: TypeAlias = tuple[tuple[str, int], ...]
Identity: TypeAlias = tuple[str, Numbers, Shape]  # of a part: what is of another size is another part

_COUNT = re.compile(r"(?:\*(\d+))?(?:\+(\d+))?")


class Number(int):
    """A number as a template counts it: {n:+1} from one, {n:*3+1} as 1, 4, 7, {n:a} by letters, {n:~4} down from 4."""

    def __format__(self, spec: str) -> str:
        if spec == "a":
            return chr(ord("a") + self)
        if spec.startswith("~"):
            return str(int(spec[1:]) - self)
        count = _COUNT.fullmatch(spec)
        assert count is not None, spec
        return str(self * int(count[1] or 1) + int(count[2] or 0))


@dataclass(frozen=True, slots=True)
class Part:
    """One layer of a network.

    Attributes:
        numbers: where it lies: stage, block, place in the block, each by the letter that templates use.
        shape: of the weight, outputs first.
        kind: a layer may be stored with inputs first; a norm has its own words for weight and bias; a batch norm has
            statistics besides; an embedding is never turned; a table is a tensor of its own, without a module.
    """

    role: str
    shape: Shape
    numbers: Numbers = ()
    kind: Form = "layer"
    has_bias: bool = True
    outputs: int = 0  # length of the bias, where it is not the first axis

    @property
    def identity(self) -> Identity:
        return self.role, self.numbers, self.shape

    def leaves(self) -> Iterator[tuple[str, Shape]]:
        """The tensors of the part and their shapes."""
        yield "weight", self.shape
        if self.has_bias and self.kind in ("layer", "norm", "batch"):
            yield "bias", (self.outputs or self.shape[0],)
        if self.kind == "batch":
            yield from (("running_mean", self.shape), ("running_var", self.shape))


def at(**numbers: int) -> Numbers:
    return tuple(sorted(numbers.items()))


@dataclass(frozen=True, slots=True)
class Row:
    """A module of a style.

    Attributes:
        name: with the numbers of its parts in braces; with {leaf} where that is not a component of its own.
        roles: of the parts that it holds, in the order in which their rows are stacked.
        heads: into how many each part is cut before stacking: head by head where it is more than one.
        is_flat: a 1×1 convolution is written as a linear layer.
    """

    name: str
    roles: tuple[str, ...]
    heads: int = 1
    is_flat: bool = False


def row(name: str, roles: str, **other: object) -> Row:
    """A row by its roles in one string: row("attn.qkv", "q k v")."""
    return Row(name, tuple(roles.split()), **other)  # type: ignore[arg-type]


def within(container: str, *modules: tuple[str, str]) -> list[Row]:
    """Rows of modules inside a container, by name and roles."""
    return [row(f"{container}.{name}" if container else name, roles) for name, roles in modules]


@dataclass(frozen=True, slots=True)
class Style:
    rows: tuple[Row, ...]
    root: str = ""
    norm: tuple[str, str] = ("weight", "bias")  # its words in a norm
    is_turned: bool = False  # matrices are stored with inputs first
    has_counters: bool = True  # num_batches_tracked


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one tensor of a part."""

    part: Identity
    leaf: str
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a key holds: stretches from top to bottom, of the tensor with outputs first."""

    stretches: tuple[Stretch, ...]
    is_turned: bool = False

    def place(self, shape: Shape, element: int) -> tuple[Identity, str, int, int]:
        """Part, leaf, row and place in the row of one element of the stored tensor."""
        if self.is_turned:
            column, row = divmod(element, shape[1])
        else:
            row, column = divmod(element, prod(shape[1:]))
        for stretch in self.stretches:
            if row < stretch.rows:
                return stretch.part, stretch.leaf, stretch.start + row, column
            row -= stretch.rows
        raise AssertionError(f"element {element} is outside of {shape}")


@dataclass(frozen=True, slots=True)
class Written:
    """A state dict in somebody's style."""

    items: tuple[Item, ...]
    truth: Mapping[str, Content]


class ClashingNamesError(ValueError):
    """Two modules of a style have one name, or one is inside the other: nobody can have written it."""


def write(parts: Sequence[Part], style: Style) -> Written:
    """The parts under the names of the style, which has a row for each."""
    items: dict[str, Item] = {}
    truth: dict[str, Content] = {}
    modules: dict[str, None] = {}
    for each, members, name in _modules(parts, style):
        if name in modules:
            raise ClashingNamesError(name)
        modules[name] = None
        for leaf, _ in members[0].leaves():
            content, shape = _stacked(each, members, leaf)
            is_turned = style.is_turned and members[0].kind == "layer" and len(shape) == 2
            key = _key(name, leaf, members[0], style)
            items[key] = Item(key, shape[::-1] if is_turned else shape)
            truth[key] = Content(content, is_turned)
        if members[0].kind == "batch" and style.has_counters:
            items[f"{name}.num_batches_tracked"] = Item(f"{name}.num_batches_tracked", (), "int64")
    for name in modules:
        if not modules.keys().isdisjoint(holders(name)):
            raise ClashingNamesError(name)
    assert len({stretch.part for content in truth.values() for stretch in content.stretches}) == len(parts)
    return Written(tuple(items.values()), truth)


def _modules(parts: Sequence[Part], style: Style) -> Iterator[tuple[Row, list[Part], str]]:
    """Each module with its row, its parts and its name."""
    known: dict[str, dict[Numbers, Part]] = {}
    for part in parts:
        known.setdefault(part.role, {})[part.numbers] = part
    for each in style.rows:
        for numbers in known.get(each.roles[0], {}):
            members = [known[role][numbers] for role in each.roles if numbers in known.get(role, {})]
            name = style.root + each.name.format(**{letter: Number(n) for letter, n in numbers}, leaf="{leaf}")
            yield each, members, name


def _stacked(each: Row, members: Sequence[Part], leaf: str) -> tuple[tuple[Stretch, ...], Shape]:
    shapes = [dict(part.leaves())[leaf] for part in members]
    heads = each.heads if len(members) > 1 else 1
    stretches = tuple(
        Stretch(part.identity, leaf, head * (shape[0] // heads), shape[0] // heads)
        for head in range(heads)
        for part, shape in zip(members, shapes, strict=True)
    )
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return stretches, shape[:2] if each.is_flat and prod(shape[2:]) == 1 else shape


def _key(name: str, leaf: str, part: Part, style: Style) -> str:
    if part.kind == "table":
        return name
    if part.kind in ("norm", "batch") and leaf in ("weight", "bias"):
        leaf = style.norm[leaf == "bias"]
    return name.format(leaf=leaf) if "{leaf}" in name else f"{name}.{leaf}"
