"""Kinds of networks, and pairs of them: the same network twice in two styles, parts of it, or two that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias

from benchmarks.pairs.styles.attention import stack, stack_rows, vision, vision_rows
from benchmarks.pairs.styles.convolutions import dense, dense_rows, plain, plain_rows, unet, unet_rows
from benchmarks.pairs.styles.parts import ClashingNamesError, Part, Row, Style, Written, write
from benchmarks.pairs.styles.residuals import inverted, inverted_rows, residual, residual_rows
from benchmarks.pairs.styles.sequences import crossing, crossing_rows, recurrent, recurrent_rows, towers, towers_rows

Sort: TypeAlias = Literal["whole", "partial", "another"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of network.

    Attributes:
        heads: roles that a backbone lacks, the last of the network first.
        extras: roles that another implementation may lack, each with those that go with it.
        run: the number that counts its blocks or stages.
        is_turned_by_some: there is code that stores its matrices with inputs first.
    """

    parts: Callable[[Random], list[Part]]
    rows: Callable[[Random, Sequence[Part]], list[Row]]
    heads: tuple[str, ...]
    extras: tuple[str, ...]
    run: str
    is_turned_by_some: bool = False


KINDS = {
    "stack": Kind(stack, stack_rows, ("head", "last_norm"), ("positions", "norm2"), "n", True),
    "vision": Kind(
        vision, vision_rows, ("head dist_head", "last_norm"), ("dist dist_head", "scale1 scale2", "patch"), "n"
    ),
    "crossing": Kind(crossing, crossing_rows, ("head",), ("source", "enc_last", "enc_last dec_last"), "n"),
    "towers": Kind(
        towers, towers_rows, ("one_proj two_proj",), ("one_positions two_positions", "one_last two_last"), "n"
    ),
    "residual": Kind(
        residual, residual_rows, ("head", "last_norm"), ("reduce expand", "stem_norm", "shortcut shortcut_norm"), "s"
    ),
    "inverted": Kind(inverted, inverted_rows, ("head", "tail tail_norm"), ("se_reduce se_expand", "stem_norm"), "s"),
    "plain": Kind(plain, plain_rows, ("linear",), (), "s"),
    "dense": Kind(dense, dense_rows, ("head", "last_norm"), ("stem_norm",), "s"),
    "unet": Kind(unet, unet_rows, ("out",), ("lowest lowest_norm", "first first_norm"), "n"),
    "recurrent": Kind(recurrent, recurrent_rows, ("head",), ("tokens",), "n"),
}
ROOTS = ("", "", "", "model.", "module.", "backbone.", "net.", "transformer.", "net.backbone.")
NORM_WORDS = (*[("weight", "bias")] * 5, ("scale", "shift"), ("gamma", "beta"))
# Classes of mistakes that are known to be open: nothing in shapes or names contradicts them.
TURNED = "turned without biases"  # every matrix may then be another one, plain
BY_HEIGHT = "numbered by height"  # levels of one width that one side counts as they are computed, the other not
_SHARE = 0.15  # of styles of a kind that some turn
_TRIES = 200


@dataclass(frozen=True, slots=True)
class Pair:
    """A source and a target with the truth about both.

    Attributes:
        sort: the same network; parts of the same; another network, of which nothing is to be taken for complete.
        known: a class of mistakes that is known to be open, "" for none.
    """

    kind: str
    sort: Sort
    source: Written
    target: Written
    known: str = ""


def drawn(kind: str, sort: Sort, seed: int) -> Pair:
    """The pair that belongs to a seed."""
    dice = Random(f"{kind} {sort} {seed}")
    parts = KINDS[kind].parts(dice)
    ours, theirs = _versions(dice, KINDS[kind], sort, parts)
    styles = [_style(dice, KINDS[kind], version) for version in (ours, theirs)]
    source, target = write(ours, styles[0]), write(theirs, styles[1])
    return Pair(kind, sort, source, target, _known(parts, styles))


def _known(parts: Sequence[Part], styles: Sequence[Style]) -> str:
    is_bare = not any(part.has_bias for part in parts if part.kind == "layer")
    if is_bare and any(style.is_turned for style in styles):
        return TURNED
    heights = [any("{v" in row.name for row in style.rows) for style in styles]
    is_even = len({part.shape for part in parts if part.role == "up"}) == 1
    return BY_HEIGHT if is_even and heights[0] is not heights[1] else ""


def _style(dice: Random, kind: Kind, parts: Sequence[Part]) -> Style:
    for _ in range(_TRIES):
        style = Style(
            tuple(kind.rows(dice, parts)),
            dice.choice(ROOTS),
            dice.choice(NORM_WORDS),
            kind.is_turned_by_some and dice.random() < _SHARE,
            dice.random() < 0.8,
        )
        try:
            write(parts, style)
        except ClashingNamesError:
            continue
        return style
    raise AssertionError("every style that was drawn names two modules alike")


# versions ------------------------------------------------------------------------------------------------------------


def _versions(dice: Random, kind: Kind, sort: Sort, parts: list[Part]) -> tuple[list[Part], list[Part]]:
    if sort == "whole":
        return parts, parts
    changes = (_backbone, _another_head, _lacking_both) if sort == "partial" else (_shallower, _wider, _without_biases)
    for change in dice.sample(changes, len(changes)):
        changed = change(dice, kind, parts)
        if changed is not None:
            return changed if dice.random() < 0.5 else changed[::-1]
    raise AssertionError("no version of these parts differs")


_Versions: TypeAlias = tuple[list[Part], list[Part]] | None


def _backbone(dice: Random, kind: Kind, parts: list[Part]) -> _Versions:
    """One side is without head, and perhaps without what comes before it."""
    return parts, _without(parts, *kind.heads[: dice.choice((1, len(kind.heads)))])


def _another_head(dice: Random, kind: Kind, parts: list[Part]) -> _Versions:
    """The head of one side has another number of outputs."""
    heads = [part for part in parts if part.role in kind.heads[0].split() and part.kind == "layer"][-1:]
    if not heads:
        return None
    return parts, [replace(part, shape=(7, *part.shape[1:])) if part in heads else part for part in parts]


def _lacking_both(dice: Random, kind: Kind, parts: list[Part]) -> _Versions:
    """Each side lacks something that the other has."""
    known = {part.role for part in parts}
    roles = [role for role in (*kind.heads, *kind.extras) if not known.isdisjoint(role.split())]
    if len(roles) < 2:
        return None
    one, other = dice.sample(roles, 2)
    return _without(parts, one), _without(parts, other)


def _without(parts: list[Part], *roles: str) -> list[Part]:
    gone = {role for each in roles for role in each.split()}
    return [part for part in parts if part.role not in gone]


def _shallower(dice: Random, kind: Kind, parts: list[Part]) -> _Versions:
    """The last block or stage is missing."""
    numbers = [dict(part.numbers).get(kind.run, 0) for part in parts]
    if not max(numbers):
        return None
    return parts, [part for part, n in zip(parts, numbers, strict=True) if n < max(numbers)]


def _wider(dice: Random, kind: Kind, parts: list[Part]) -> _Versions:
    """One size is another, wherever it occurs among the layers of one block or of all."""
    sizes = sorted({size for part in parts if part.numbers for size in part.shape[:2] if size > 3})
    size = dice.choice(sizes)
    changed = [
        replace(part, shape=tuple(size + 8 if length == size else length for length in part.shape))
        if part.outputs == 0 else part
        for part in parts
    ]  # fmt: skip
    return parts, changed


def _without_biases(dice: Random, kind: Kind, parts: list[Part]) -> _Versions:
    """The layers of one side have biases, those of the other have none."""
    changed = [replace(part, has_bias=not part.has_bias) if part.kind == "layer" else part for part in parts]
    return parts, changed
