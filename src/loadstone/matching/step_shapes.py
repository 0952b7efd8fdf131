"""Steps: what a structural match does to one tensor, over shapes and over values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any, TypeAlias

from loadstone.matching.candidates import shape_text
from loadstone.matching.structure.items import Assignment, Narrow, Permute, Reshape, Step, Taken

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]


def after(shape: Shape, steps: Iterable[Step]) -> Shape:
    """The shape that steps make of a shape; ValueError, in words, where one cannot be done."""
    for step in steps:
        match step:
            case Reshape(new):
                if prod(new) != prod(shape):
                    raise ValueError(f"{prod(shape):,} numbers do not fill {shape_text(new)}")
                shape = new
            case Permute(dims):
                if len(dims) != len(shape):
                    raise ValueError(f"{shape_text(shape)} has {len(shape)} dimensions")
                shape = tuple(shape[dim] for dim in dims)
            case Narrow(start, length):
                if not shape or start + length > shape[0]:
                    raise ValueError(f"{shape_text(shape)} has fewer than {start + length:,} rows")
                shape = (length, *shape[1:])
    return shape


def beside(one: Shape, other: Shape) -> Shape:
    """The shape of two tensors that are joined along the first axis."""
    return (one[0] + other[0], *other[1:]) if other else one


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
    return value


def tidied(assignment: Assignment, shapes: Shapes) -> Assignment:
    """The same without steps that change nothing; the steps of a single source come after it."""
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
    kept = []
    for step in steps:
        now = after(shape, (step,))
        if now != shape or isinstance(step, Permute):
            kept.append(step)
        shape = now
    return tuple(kept)
