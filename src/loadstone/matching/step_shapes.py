"""Steps carried out: what a match does to the values of one tensor, and what of it is left when it changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from loadstone.matching.structure.expressions import Shapes
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Shape, Step, after, beside


def carried_out(value: Any, steps: Iterable[Step]) -> Any:
    """The tensor after the steps; a view of it where that can be."""
    for step in steps:
        match step:
            case Reshape(shape):
                value = value.reshape(shape)
            case Permute(dims):
                value = value.permute(dims)
            case Narrow(start, length):
                value = value.narrow(0, start, length)
            case Regroup(axis, _, order):
                grid = step.grid(tuple(value.shape))
                value = _along(value, axis, grid, order)
            case Blocks(axis, order):
                shape = tuple(value.shape)
                parts = value.reshape((*shape[:axis], len(order), -1, *shape[axis + 1 :]))
                value = parts[(slice(None),) * axis + (list(order),)].reshape(shape)
    return value


def _along(value: Any, axis: int, grid: Shape, order: tuple[int, ...]) -> Any:
    """The same shape, with one axis seen as a grid that is turned."""
    shape = tuple(value.shape)
    turned = (*range(axis), *(axis + each for each in order), *range(axis + len(grid), len(shape) + len(grid) - 1))
    return value.reshape((*shape[:axis], *grid, *shape[axis + 1 :])).permute(turned).reshape(shape)


def tidied(assignment: Assignment, shapes: Shapes) -> Assignment:
    """The same without steps that change nothing; the steps of a single source come after it."""
    if assignment.made_by is not None:
        shape = assignment.made_by.after([shapes[one.key] for one in assignment.sources])
        return replace(assignment, steps=_effective(assignment.steps, shape))
    if len(assignment.sources) == 1:
        (taken,) = assignment.sources
        steps = _effective((*taken.steps, *assignment.steps), shapes[taken.key])
        return replace(assignment, sources=(Taken(taken.key),), steps=steps)
    sources = tuple(Taken(one.key, _effective(one.steps, shapes[one.key])) for one in assignment.sources)
    whole: Shape = (0,)
    for one in sources:
        whole = beside(whole, after(shapes[one.key], one.steps))
    return replace(assignment, sources=sources, steps=_effective(assignment.steps, whole))


def _effective(steps: Iterable[Step], shape: Shape) -> tuple[Step, ...]:
    kept: list[Step] = []
    shapes = [shape]  # before each of the kept steps, and after the last
    for step in steps:
        merged = _merged(kept[-1], step, shapes[-1]) if kept else None
        if merged is not None:
            kept.pop()
            shapes.pop()
            step = merged
        now = after(shapes[-1], (step,))
        if _changes(step, shapes[-1], now):
            kept.append(step)
            shapes.append(now)
    return tuple(kept)


def _merged(one: Step, other: Step, shape: Shape) -> Step | None:
    """The one step that two are, the second done to a tensor of that shape; None where they stay two."""
    match one, other:
        case Reshape(), Reshape():
            return other
        case Blocks(0, order), Narrow(start, length) if length == shape[0] // len(order) and start % length == 0:
            return Narrow(order[start // length] * length, length)
    return None


def _changes(step: Step, shape: Shape, now: Shape) -> bool:
    match step:
        case Permute(order) | Blocks(_, order) | Regroup(_, _, order):
            return order != tuple(range(len(order)))
        case _:
            return now != shape
