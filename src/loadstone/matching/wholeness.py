"""Wholeness: every row of a tensor of the checkpoint is used once, and where it is not, that is said.

An expression that a person writes can cut a tensor, and take a part twice or not at all.  The shapes may demand that: a
model with fewer rows leaves some out, one that repeats its heads takes some twice.  No shape demands both at once:

    left out    used twice
    -           -             as it should be
    yes         -             a warning
    -           yes           a warning
    yes         yes           an error: what was taken twice was meant for what goes nowhere

A tensor that several places take whole is shared, which is no cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from math import prod
from typing import TypeAlias

from loadstone.errors import Diagnostic
from loadstone.matching.structure.items import Assignment
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Shape, Step, after, beside

_MOST_NAMED = 3  # targets of one tensor


def not_once(assignments: Iterable[Assignment], shapes: Mapping[str, Shape]) -> Iterator[Diagnostic]:
    """rows-not-once for each tensor of the checkpoint that is cut and not used once.

    Args:
        assignments: one for each memory of the model.
        shapes: of the tensors that they take.
    """
    used: dict[str, list[tuple[str, Cut]]] = {}
    for assignment in assignments:
        for key, cut in _cuts(assignment, shapes):
            used.setdefault(key, []).append((assignment.target, cut))
    for key, places in used.items():
        if all(cut is None for _, cut in places):
            continue
        axis = next(cut[0] for _, cut in places if cut is not None)
        if any(cut is not None and cut[0] != axis for _, cut in places):
            continue  # cut both ways: how much of it is left is not said by rows
        everything = range(shapes[key][axis])
        taken = [everything if cut is None else cut[1] for _, cut in places]
        if _follow(taken, len(everything)):
            continue
        times = Counter(chain.from_iterable(taken))
        left, twice = [at for at in everything if not times[at]], [at for at in everything if times[at] > 1]
        if left or twice:
            yield _finding(key, axis, left, twice, list(dict.fromkeys(target for target, _ in places)))


def _follow(taken: Iterable[Sequence[int]], size: int) -> bool:
    """They are stretches that follow each other from the first place to the last."""
    at = 0
    for each in sorted(taken, key=lambda each: each[0] if each else -1):
        if not isinstance(each, range) or each.start != at:
            return False
        at = each.stop
    return at == size


def _finding(key: str, axis: int, left: Sequence[int], twice: Sequence[int], targets: Sequence[str]) -> Diagnostic:
    what = "rows" if axis == 0 else f"places along axis {axis}"
    said = [f"{_stretches(each)} {words}" for each, words in ((twice, "are used twice"), (left, "go nowhere")) if each]
    more = f" and {len(targets) - _MOST_NAMED:,} more" if len(targets) > _MOST_NAMED else ""
    evidence = (("goes to", ", ".join(targets[:_MOST_NAMED]) + more),)
    level = None if left and twice else "warning"
    message = f"of the {what} of `{key}`, {' and '.join(said)}"
    return Diagnostic("rows-not-once", message, evidence, keys=tuple(targets), level=level)  # type: ignore[arg-type]


def _stretches(places: Sequence[int]) -> str:
    """Numbers in order, as stretches: "0 to 15, 32 to 47"."""
    found: list[list[int]] = []
    for at in places:
        if found and found[-1][1] == at - 1:
            found[-1][1] = at
        else:
            found.append([at, at])
    texts = [str(first) if first == last else f"{first:,} to {last:,}" for first, last in found]
    return ", ".join(texts[:_MOST_NAMED]) + (" …" if len(texts) > _MOST_NAMED else "")


# What is left of a tensor after cuts ---------------------------------------------------------------------------------

Cut: TypeAlias = tuple[int, Sequence[int]] | None  # an axis of a tensor as it is stored, places on it; None: all of it
_Axis: TypeAlias = tuple[int | None, Sequence[int]]  # of a tensor on its way: the axis that it was, and places on that


def _cuts(assignment: Assignment, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Cut]]:
    """Each tensor that an assignment takes, and what it takes of it; nothing of one where that cannot be said."""
    times = Counter(taken.key for taken in assignment.sources)
    for key, steps in () if assignment.made_by is not None else _alone(assignment, shapes):
        kept = _kept(shapes[key], steps)
        if kept is not None:
            cut = [(axis, places) for axis, places in kept.items() if len(places) < shapes[key][axis]]
            if not cut and times[key] > 1:
                cut = [(0, range(shapes[key][0]))]
            if len(cut) <= 1:
                yield key, cut[0] if cut else None


def _alone(assignment: Assignment, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Sequence[Step]]]:
    """Each source with all that is done to it: with its own rows of what is cut out of several that were joined."""
    if len(assignment.sources) == 1:
        (taken,) = assignment.sources
        yield taken.key, (*taken.steps, *assignment.steps)
        return
    if not any(isinstance(step, Narrow) for step in assignment.steps):
        yield from ((taken.key, taken.steps) for taken in assignment.sources)
        return
    whole: Shape = ()
    starts = [0]
    for taken in assignment.sources:
        made = after(shapes[taken.key], taken.steps)
        whole = beside(whole, made) if starts[1:] else made
        starts.append(whole[0])
    kept = _kept(whole, assignment.steps) or {}
    if any(len(kept.get(axis, ())) < size for axis, size in enumerate(whole) if axis > 0):
        return
    rows = sorted(kept.get(0, ()))
    for taken, start, end in zip(assignment.sources, starts, starts[1:], strict=False):
        inside = rows[bisect_left(rows, start) : bisect_left(rows, end)]
        if inside and len(inside) <= inside[-1] - inside[0]:
            continue  # what was turned and then cut is no stretch of it
        yield taken.key, (*taken.steps, Narrow(inside[0] - start if inside else 0, len(inside)))


def _kept(shape: Shape, steps: Sequence[Step]) -> dict[int, Sequence[int]] | None:
    """By axis of a tensor, the places along it that are left after steps; None where that cannot be said by axes."""
    axes: list[_Axis] = [(axis, range(size)) for axis, size in enumerate(shape)]
    last = max((at for at, step in enumerate(steps) if isinstance(step, Narrow)), default=-1)
    for step in steps[: last + 1]:  # after the last cut nothing is lost
        now = tuple(len(places) for _, places in axes)
        match step:
            case Reshape(new) if new and now and new[0] == now[0] and all(_is_all(axis, shape) for axis in axes[1:]):
                axes = [axes[0], *((None, range(size)) for size in new[1:])]
            case Reshape(new) if [size for size in new if size != 1] == [size for size in now if size != 1]:
                real = iter([one for one, size in zip(axes, now, strict=True) if size != 1])
                axes = [(None, range(1)) if size == 1 else next(real) for size in new]
            case Reshape():
                return None
            case Permute(dims):
                axes = [axes[dim] for dim in dims]
            case Narrow(start, length):
                axis, places = axes[0]
                if axis is None and length < len(places):
                    return None
                axes[0] = axis, places[start : start + length]
            case Regroup(axis, _, order):
                axes[axis] = axes[axis][0], _turned(axes[axis][1], step.grid(now), order)
            case Blocks(axis, order):
                length = now[axis] // len(order)
                stretches = (axes[axis][1][each * length : (each + 1) * length] for each in order)
                axes[axis] = axes[axis][0], [at for stretch in stretches for at in stretch]
    return {axis: places for axis, places in axes if axis is not None}


def _is_all(axis: _Axis, shape: Shape) -> bool:
    return axis[0] is None or len(axis[1]) == shape[axis[0]]


def _turned(places: Sequence[int], grid: Shape, order: Sequence[int]) -> list[int]:
    """Places seen as a grid, whose axes are put in another order."""
    strides = [prod(grid[dim + 1 :]) for dim in range(len(grid))]
    ranges = (range(0, grid[dim] * strides[dim], strides[dim]) for dim in order)
    return [places[sum(each)] for each in product(*ranges)]
