"""Steps: what a match does to one tensor on its way, in words of torch where torch has them.

Two of them keep the shape and act along one axis, so that what is said of a weight holds for its bias as well:

    Regroup   the axis is seen as a small grid, and the grid is turned: q, k, v head by head or part by part, rotary
              halves or neighbours
    Blocks    equal stretches of the axis change places: the gates of a recurrent cell, the halves of a joined input
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from loadstone.matching.candidates import shape_text

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    shape: Shape


@dataclass(frozen=True, slots=True)
class Permute:
    """Axes in a new order, as in torch.permute."""

    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Narrow:
    """Rows `start` to `start + length` of the first axis."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Regroup:
    """One axis seen as `sizes`, of which one may be -1; these in another order, as in torch.permute; and flat again."""

    axis: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]

    def grid(self, shape: Shape) -> Shape:
        """The sizes, for the axis of a tensor of that shape; ValueError where they do not fill it."""
        known = prod(size for size in self.sizes if size != -1)
        length = _length(shape, self.axis)
        if length % known or (-1 not in self.sizes and length != known):
            raise ValueError(f"an axis of {length:,} is no grid of {shape_text(self.sizes)}")
        return tuple(length // known if size == -1 else size for size in self.sizes)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Equal stretches of one axis: the first of the result is number `order[0]`, and so on."""

    axis: int
    order: tuple[int, ...]


Step: TypeAlias = Reshape | Permute | Narrow | Regroup | Blocks


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
            case Regroup():
                step.grid(shape)
            case Blocks(axis, order):
                if _length(shape, axis) % len(order):
                    raise ValueError(f"an axis of {shape[axis]:,} is not {len(order)} equal stretches")
    return shape


def beside(one: Shape, other: Shape) -> Shape:
    """The shape of two tensors that are joined along the first axis."""
    return (one[0] + other[0], *other[1:]) if other else one


def inverse(steps: Iterable[Step], shape: Shape) -> tuple[Step, ...]:
    """The steps that lead back, from what `steps` make of a tensor of that shape; ValueError where a part is lost."""
    back: list[Step] = []
    for step in steps:
        match step:
            case Reshape():
                back.append(Reshape(shape))
            case Permute(dims):
                back.append(Permute(_turned(dims)))
            case Regroup(axis, sizes, order):
                back.append(Regroup(axis, tuple(sizes[each] for each in order), _turned(order)))
            case Blocks(axis, order):
                back.append(Blocks(axis, _turned(order)))
            case Narrow(_, length):
                if length != shape[0]:
                    raise ValueError(f"{length:,} of {shape[0]:,} rows do not give back the others")
        shape = after(shape, (step,))
    return tuple(reversed(back))


def _turned(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(each) for each in range(len(order)))


def _length(shape: Shape, axis: int) -> int:
    if axis >= len(shape):
        raise ValueError(f"{shape_text(shape)} has no axis {axis}")
    return shape[axis]
