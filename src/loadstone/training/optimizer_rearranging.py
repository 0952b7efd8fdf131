"""Optimizer state that goes where its weights go, through reshaping, transposing, cutting and joining.

These steps move numbers and change none.  Momentum and second moments, as Adam and its kin keep them, are one number a
weight, so that the same steps put each beside its weight again; and a step count holds for a whole tensor.

    weight    q (8, 8)  +  k (8, 8)  +  v (8, 8)   ──►   qkv (24, 8)
    exp_avg   the same
    step      7            7            7          ──►   7; where they differ, no count is right

What is not one number a weight cannot follow: the rows and columns of Adafactor, the matrices of Shampoo, the scales of
quantised moments.  A parameter with any of it starts afresh, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.optim import Optimizer

from loadstone.matching.step_shapes import carried_out
from loadstone.matching.structure import Assignment
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Shape, Step, after, beside
from loadstone.screens.quantities import shape as spelled_shape
from loadstone.training.optimizer_groups import same
from loadstone.training.optimizer_kinds import LIKE_PARAMETER, is_flat, is_torchs
from loadstone.training.optimizer_positions import Shapes
from loadstone.training.optimizer_saved import SavedEntry, copied, shape_of

# The steps of a match that move numbers; moments do not follow what else a step may come to do.
_MOVES = (Reshape, Permute, Narrow, Regroup, Blocks)
_ONE_NUMBER: tuple[Shape, ...] = ((), (1,))


@dataclass(frozen=True, slots=True)
class Move:
    """How a parameter's weights are made of others, and that in words: "3 tensors joined: 8 × 8 → 24 × 8"."""

    assignment: Assignment
    text: str


@dataclass(frozen=True, slots=True)
class Keys:
    """What the keys of a saved state hold: one number a weight, or one value a tensor; the rest is unknown."""

    each: frozenset[str]
    whole: frozenset[str]
    is_known: bool = True  # an optimizer of torch, whose numbers for a tensor depend on the count of steps alone


def keys_of(optimizer: Optimizer, saved: Iterable[tuple[Mapping[str, Any], Shape | None]]) -> Keys:
    """The keys of the states, each given with the shape of its parameter.

    torch's own optimizers are known.  Of another one the file is the witness: a key that always has its parameter's
    shape, among them one that is not square, since in the state of a square matrix a factor of it looks alike.
    """
    found: dict[str, list[tuple[Shape | None, Shape | None]]] = {}
    for state, shape in saved:
        for key, value in state.items():
            own = () if isinstance(value, (int, float)) else shape_of(value)  # a list of matrices has none
            found.setdefault(key, []).append((own, shape))
    known = is_torchs(optimizer)
    if is_flat(optimizer):
        return Keys(frozenset(), frozenset(), known)
    each = {key for key, seen in found.items() if (key in LIKE_PARAMETER if known else _is_each(seen))}
    whole = {key for key in found.keys() - each if _is_whole(found[key], is_known=known)}
    return Keys(frozenset(each), frozenset(whole), known)


def _is_each(seen: Sequence[tuple[Shape | None, Shape | None]]) -> bool:
    if any(own is None or own != shape for own, shape in seen):
        return False
    shapes = {own for own, _ in seen if own is not None}
    return any(len(set(shape)) > 1 for shape in shapes) or all(len(shape) == 1 and shape != (1,) for shape in shapes)


def _is_whole(seen: Sequence[tuple[Shape | None, Shape | None]], *, is_known: bool) -> bool:
    is_number = all(own in _ONE_NUMBER for own, _ in seen)
    return is_number and (is_known or any(own != shape for own, shape in seen))


def is_move(assignment: Assignment) -> bool:
    """Numbers change their places, and nothing else."""
    return all(isinstance(step, _MOVES) for step in _steps(assignment))


def _steps(assignment: Assignment) -> tuple[Step, ...]:
    return (*(step for taken in assignment.sources for step in taken.steps), *assignment.steps)


def why_not(assignment: Assignment, parts: Mapping[str, SavedEntry], shapes: Shapes, keys: Keys, wanted: Shape) -> str:
    """Why the state of a parameter of shape `wanted` cannot be made of that of its parts; "" where it can.

    Args:
        assignment: how its weights are made.
        parts: the saved state of each source, by key; those that the file's optimizer has.
        shapes: of the sources.
    """
    sources = [taken.key for taken in assignment.sources]
    if not is_move(assignment):
        return "its weights are computed, not moved"
    for key in sources:
        if key not in parts:
            return f"`{key}` is not in the file's optimizer"
    made = _shape(assignment, shapes)
    if made != wanted:
        return f"{spelled_shape(made)} in the file, {spelled_shape(wanted)} here"
    is_parted = len(sources) > 1 or any(isinstance(step, Narrow) for step in _steps(assignment))
    first = parts[sources[0]].state
    every = sorted({name for key in sources for name in parts[key].state})
    for key in sources:
        lacks = [name for name in every if name not in parts[key].state]
        if lacks:
            return f"`{key}` has no {lacks[0] if parts[key].state else 'state'} in the file"
        for name, value in parts[key].state.items():
            if name in keys.whole:
                if is_parted and not keys.is_known and not _is_count(value):
                    return f"{name} is one number for a whole tensor, and tensors are cut or joined"
                if not same(copied(value), copied(first[name])):
                    return f"{name} of `{key}` is {_spelled(value)}, of `{sources[0]}` {_spelled(first[name])}"
            elif name not in keys.each or shape_of(value) != tuple(shapes[key]):
                return f"{name} is not known to be one number a weight"
            elif value.dtype != first[name].dtype:
                return f"{name} has several dtypes"
    return ""


def _shape(assignment: Assignment, shapes: Shapes) -> Shape:
    taken = [after(tuple(shapes[one.key]), one.steps) for one in assignment.sources]
    whole = taken[0]
    for each in taken[1:]:
        whole = beside(whole, each)
    return after(whole, assignment.steps)


def _is_count(value: Any) -> bool:
    number = copied(value)
    number = number.item() if isinstance(number, torch.Tensor) else number
    return isinstance(number, (int, float)) and number == int(number)


def _spelled(value: Any) -> str:
    number = copied(value)
    return f"{number.item():g}" if isinstance(number, torch.Tensor) else f"{number}"


@dataclass(frozen=True, slots=True)
class Rearranged:
    """The state of one parameter, made of that of its parts; nothing is read before `state`."""

    assignment: Assignment
    parts: Mapping[str, SavedEntry]
    each: frozenset[str]

    def state(self) -> dict[str, Any]:
        """In memory of its own."""
        first = self.parts[self.assignment.sources[0].key].state
        return {name: self._of_each(name) if name in self.each else copied(value) for name, value in first.items()}

    def _of_each(self, name: str) -> torch.Tensor:
        return moved(self.assignment, {key: copied(entry.state[name]) for key, entry in self.parts.items()})


def moved(assignment: Assignment, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What is one number a weight, for the parameter that is made of the parts; in memory of its own."""
    taken = [carried_out(parts[one.key], one.steps) for one in assignment.sources]
    whole = carried_out(taken[0] if len(taken) == 1 else torch.cat(taken), assignment.steps)
    made: torch.Tensor = whole.clone(memory_format=torch.contiguous_format)
    return made


def used_twice(assignments: Iterable[Assignment], shapes: Shapes, firsts: Mapping[str, str]) -> frozenset[str]:
    """Keys of which more numbers are taken than there are: the gradient of one weight is not that of its copies.

    Args:
        firsts: for every key the first one of the same memory.
    """
    taken: dict[str, int] = {}
    for assignment in assignments:
        steps = assignment.steps if len(assignment.sources) == 1 else ()
        for one in assignment.sources:
            count = prod(after(tuple(shapes[one.key]), (*one.steps, *steps)))
            taken[firsts[one.key]] = taken.get(firsts[one.key], 0) + count
    return frozenset(key for key, first in firsts.items() if taken.get(first, 0) > prod(shapes[key]))
