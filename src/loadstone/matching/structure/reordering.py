"""Reordering: what an answer says about the order inside one layer, for all its tensors and for every place like it.

An answer can be an expression over the tensors of one place: `q.weight | regroup(0; -1, 2, 8; 0, 2, 1)`.  Rows of a
weight are rows of its bias, so that what it does along the first axis is done to both; what it does along other axes
is for the weight alone.  Steps act on tensors as they are stored and give the layer outputs first, so that a matrix
which is stored (in, out) is turned by them: `c_attn.weight | t() | regroup(0; …)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from loadstone.matching.structure.expressions import parse
from loadstone.matching.structure.items import Assignment, Item, Taken
from loadstone.matching.structure.layers import Layer, Part
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Step, after, beside

Recipe: TypeAlias = tuple[tuple[Taken, ...], tuple[Step, ...]]  # of one canonical tensor: what is joined, what follows


def main_part(layer: Layer) -> Part:
    """The tensor that stands for the layer when it is asked about."""
    return layer.parts.get("weight") or next(part for role, part in layer.parts.items() if role != "count")


def main_keys(layer: Layer) -> list[str]:
    return [key for piece in main_part(layer).pieces for key in piece.keys]


def reordered(layer: Layer, answer: Assignment, place: Layer) -> dict[str, Recipe] | None:
    """Each tensor of `layer`, by role, made as the answer makes the main one of `place`.

    {} where the answer takes it as it is; None where what it says cannot be done to this layer.
    """
    if answer.made_by is not None:  # which is all that there is to say
        return {} if any(piece.made_by for part in layer.parts.values() for piece in part.pieces) else None
    if not (answer.steps or any(taken.steps for taken in answer.sources)) and keys_of(answer) == main_keys(place):
        return {}
    try:
        return {
            role: _recipe(part, answer, main_part(place), is_main=part is main_part(layer))
            for role, part in layer.parts.items()
            if role != "count"
        }
    except ValueError:
        return None


def _recipe(part: Part, answer: Assignment, said: Part, *, is_main: bool) -> Recipe:
    """ValueError where the steps cannot be done to this tensor, or do not give all of it."""
    place = {piece.item.key: at for at, piece in enumerate(said.pieces)}
    taken: list[Taken] = []
    whole: tuple[int, ...] = ()
    for one in answer.sources:
        was, piece = said.pieces[place[one.key]], part.pieces[place[one.key]]
        if piece.turned and not any(isinstance(step, Permute) for step in (*one.steps, *answer.steps)):
            raise ValueError("it is stored (in, out), and nothing turns it")
        flat = piece.to_canonical((piece.rows, *part.shape[1:])) if len(piece.item.shape) > len(part.shape) else ()
        within = any(isinstance(step, (Regroup, Blocks)) and step.axis > 0 for step in (*one.steps, *answer.steps))
        if flat and not is_main and within:
            raise ValueError("what is done inside each matrix of a stack says nothing of its bias")
        steps = (*(() if is_main else flat), *_carried(one.steps, was.rows, piece.rows, is_main=is_main))
        taken.append(Taken(piece.item.key, steps))
        made = after(piece.item.shape, steps)
        if len(taken) > 1 and made[1:] != whole[1:]:
            raise ValueError("parts of different widths")
        whole = made if len(taken) == 1 else beside(whole, made)
    steps = (*_carried(answer.steps, _rows(said), _rows(part), is_main=is_main), Reshape(part.shape))
    after(whole, steps)
    return tuple(taken), steps


def _rows(part: Part) -> int:
    return part.shape[0] if part.shape else 1


def _carried(steps: Sequence[Step], had: int, has: int, *, is_main: bool) -> tuple[Step, ...]:
    """Steps said of a tensor with `had` rows, for one with `has`."""
    carried: list[Step] = []
    for step in steps:
        if isinstance(step, Narrow):
            if step.start * has % had or step.length * has % had:
                raise ValueError(f"rows of {had:,} are none of {has:,}")
            carried.append(Narrow(step.start * has // had, step.length * has // had))
        elif is_main or (isinstance(step, (Regroup, Blocks)) and step.axis == 0):
            carried.append(step)
    return tuple(carried)


def cut(recipe: Recipe, whole: Part, start: int, rows: int, form: Sequence[Step]) -> Recipe:
    """Rows of what a recipe makes, in the form in which the target stores them."""
    sources, steps = recipe
    narrow = () if rows == _rows(whole) else (Narrow(start, rows),)
    return sources, (*steps, *narrow, *form)


def read(answers: Mapping[str, str], source: Sequence[Item]) -> dict[str, Assignment]:
    """Answers by target key; ValueError for one that is no expression over keys of the source."""
    shapes = {item.key: item.shape for item in source}
    return {target: parse(text, target, shapes) for target, text in answers.items()}


def keys_of(answer: Assignment) -> list[str]:
    return list(dict.fromkeys(taken.key for taken in answer.sources))
