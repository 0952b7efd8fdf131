"""Composed tensors without a copy of their own: every part is read to where it belongs in the model.

A joined projection is three reads into three stretches of one parameter; a transposed matrix is written through a
transposed view.  What can be said of the file (which rows, in which shape) is said of the file; the rest is undone on
the target, until both sides are the same tensor in two places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from loadstone.matching.plan import Action, Plan
from loadstone.matching.step_shapes import carried_out
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.matching.structure.steps import Narrow, Permute, Reshape, Shape, Step, after, beside
from loadstone.tensors import TensorInfo, contiguous_stride


def sources_of(action: Action, plan: Plan) -> list[str]:
    """Every key of the checkpoint that goes into the action's target."""
    made_of = plan.compositions.get(str(action.target)) if action.status == "load" else None
    keys = [taken.key for taken in made_of.sources] if made_of is not None else []
    return list(dict.fromkeys([action.source, *keys] if action.source is not None else keys))


def parts_of(
    assignment: Assignment, infos: Mapping[str, TensorInfo], target: torch.Tensor
) -> list[tuple[TensorInfo, torch.Tensor]] | None:
    """(tensor of the file, view of the target) for every part, of one shape each; None where a copy is needed.

    Args:
        assignment: by keys of the checkpoint.
        infos: the tensors of the checkpoint.
        target: what is filled, of any strides.
    """
    try:
        return list(_parts(assignment, infos, target))
    except _CopyNeededError:
        return None


def values_of(
    assignment: Assignment, tensors: Mapping[str, torch.Tensor], target: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """`parts_of` for tensors in memory: (values, view of the target); the values may be views of those tensors."""
    shapes = {taken.key: tuple(tensors[taken.key].shape) for taken in assignment.sources}
    try:
        places = list(_places(assignment, shapes, target))
    except _CopyNeededError:
        return None
    return [(carried_out(tensors[taken.key].detach(), steps), place) for taken, steps, place in places]


class _CopyNeededError(Exception):
    """A part cannot be read to its place."""


def _parts(
    assignment: Assignment, infos: Mapping[str, TensorInfo], target: torch.Tensor
) -> Iterator[tuple[TensorInfo, torch.Tensor]]:
    shapes = {taken.key: infos[taken.key].shape for taken in assignment.sources}
    for taken, steps, place in _places(assignment, shapes, target):
        info, rest = _on_file(infos[taken.key], steps)
        yield info, _undone(place, info.shape, rest)


def _places(
    assignment: Assignment, shapes: Mapping[str, Shape], target: torch.Tensor
) -> Iterator[tuple[Taken, Sequence[Step], torch.Tensor]]:
    """Every source, what happens to it, and the stretch of the target that it then is."""
    if len(assignment.sources) == 1:
        (taken,) = assignment.sources
        yield taken, (*taken.steps, *assignment.steps), target
        return
    whole: Shape = (0,)
    starts = []
    for taken in assignment.sources:
        starts.append(whole[0])
        whole = beside(whole, after(shapes[taken.key], taken.steps))
    joined = _undone(target, whole, assignment.steps)
    for taken, start, end in zip(assignment.sources, starts, [*starts[1:], whole[0]], strict=True):
        yield taken, taken.steps, joined[start:end]


def _on_file(info: TensorInfo, steps: Sequence[Step]) -> tuple[TensorInfo, Sequence[Step]]:
    """The tensor after the steps that need no memory, and the steps that are left."""
    if not info.is_contiguous or info.storage is None or info.quantization is not None:
        raise _CopyNeededError
    for at, step in enumerate(steps):
        match step:
            case Reshape(shape):
                info = replace(info, shape=shape, stride=contiguous_stride(shape))
            case Narrow(start, length):
                offset = info.offset + start * info.stride[0]
                info = replace(info, shape=(length, *info.shape[1:]), offset=offset)
            case _:
                return info, steps[at:]
    return info, ()


def _undone(target: torch.Tensor, shape: Shape, steps: Sequence[Step]) -> torch.Tensor:
    """The view of the target as it was before the steps, when it had `shape`."""
    shapes = [shape]
    for step in steps:
        shapes.append(after(shapes[-1], (step,)))
    for step, before in zip(reversed(steps), reversed(shapes[:-1]), strict=True):
        match step:
            case Reshape():
                target = _viewed(target, before)
            case Permute(dims):
                target = target.permute([dims.index(dim) for dim in range(len(dims))])
            case _:
                raise _CopyNeededError
    return target


def _viewed(target: torch.Tensor, shape: Shape) -> torch.Tensor:
    try:
        return target.view(shape)
    except RuntimeError:  # its strides do not allow it
        raise _CopyNeededError from None
