"""Where one element of a target comes from: what an assignment does, followed backwards without any values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from loadstone.matching.structure import Assignment
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Step

MADE_UP = ("", -1)  # an element that comes from nowhere in the source


def origin(
    assignment: Assignment, shape: tuple[int, ...], element: int, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, int]:
    """Where one element of a target comes from: the steps of an assignment, backwards."""
    if assignment.made_by is not None and assignment.made_by.name == "around":
        third, at = divmod(element, prod(shape) // 3)
        return MADE_UP if third == 1 else (assignment.sources[third // 2].key, at)
    parts = [(taken, _after(taken.steps, shapes[taken.key])) for taken in assignment.sources]
    joined = (sum(part[0] for _, part in parts), *parts[0][1][1:]) if len(parts) > 1 else parts[0][1]
    element = _before(assignment.steps, joined, element)
    for taken, part in parts:
        if element < prod(part):
            return taken.key, _before(taken.steps, shapes[taken.key], element)
        element -= prod(part)
    raise AssertionError(f"{assignment.target} of shape {shape} has more elements than its sources")


def _after(steps: Sequence[Step], shape: tuple[int, ...]) -> tuple[int, ...]:
    for step in steps:
        shape = _stepped(step, shape)
    return shape


def _stepped(step: Step, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(step, Reshape):
        assert prod(step.shape) == prod(shape)
        return step.shape
    if isinstance(step, Permute):
        return tuple(shape[dim] for dim in step.dims)
    if isinstance(step, (Regroup, Blocks)):
        return shape
    assert isinstance(step, Narrow)
    assert step.start + step.length <= shape[0]
    return (step.length, *shape[1:])


def _before(steps: Sequence[Step], shape: tuple[int, ...], element: int) -> int:
    shapes = [shape]
    for step in steps:
        shapes.append(_stepped(step, shapes[-1]))
    for step, have, made in zip(reversed(steps), reversed(shapes[:-1]), reversed(shapes[1:]), strict=True):
        if isinstance(step, Narrow):
            element += step.start * prod(have[1:])
        elif isinstance(step, Permute):
            at = _unravelled(element, made)
            place = [0] * len(have)
            for axis, dim in enumerate(step.dims):
                place[dim] = at[axis]
            element = _ravelled(place, have)
        elif isinstance(step, (Regroup, Blocks)):
            place = _unravelled(element, have)
            place[step.axis] = _along(step, have, place[step.axis])
            element = _ravelled(place, have)
    return element


def _along(step: Regroup | Blocks, shape: tuple[int, ...], index: int) -> int:
    """Where a place along the axis comes from."""
    count = len(step.order)
    if isinstance(step, Blocks):
        blocks = Regroup(step.axis, (count, -1), (0, 1)).grid(shape)
        block, rest = _unravelled(index, blocks)
        return _ravelled([step.order[block], rest], blocks)
    grid = step.grid(shape)
    at, place = _unravelled(index, tuple(grid[dim] for dim in step.order)), [0] * count
    for axis, dim in enumerate(step.order):
        place[dim] = at[axis]
    return _ravelled(place, grid)


def _ravelled(place: Sequence[int], shape: Sequence[int]) -> int:
    element = 0
    for size, index in zip(shape, place, strict=True):
        element = element * size + index
    return element


def _unravelled(element: int, shape: tuple[int, ...]) -> list[int]:
    found = []
    for size in reversed(shape):
        element, index = divmod(element, size)
        found.append(index)
    return found[::-1]
