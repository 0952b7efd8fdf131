"""Channels: what two modules are given, the same but for the order of channels, and that order as a step.

Where two runs part first, the module that parts may have been given the same numbers in another order: the halves of a
joined input exchanged, rows and columns flattened before channels, the corners of a patch merged otherwise.  No state
dict shows that.  The values do: each channel of the one equals exactly one of the other, to rounding in float64.

The order has to be one that somebody would write, equal stretches or a grid that is turned.  Any other is no answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from loadstone.model.observing import Call, own_tensors

Order: TypeAlias = tuple[int, ...]

_EQUAL = 1e-9  # of the largest magnitude
_LEAST_KNOWN = 0.5  # of the channels; others may be all zero behind an activation
_MOST_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Reordered:
    """How the tensors of a module have to be reordered to take channels in the order that they come in.

    Attributes:
        steps: name of the tensor → what is done to it, as rules write it.
        order: channel i is channel order[i] of the reference.
        out: the axis of its output that has the same order then; None where it does not show.
    """

    steps: dict[str, str]
    order: Order
    out: int | None


def reordered(module: nn.Module, mine: Call, other: Call) -> Reordered | None:
    """What it takes; None where the inputs are not the same in another order, or nobody would write that order.

    Args:
        mine: a call of the module.
        other: a call of the module that it is compared with.
    """
    if mine.given is None or other.given is None or mine.given.shape != other.given.shape:
        return None
    place = _place(module, mine.given)
    if place is None:
        return None
    axis, inside = place
    found = _found(mine.given.movedim(axis, 0).flatten(1), other.given.movedim(axis, 0).flatten(1))
    step = None if found is None else _written(found)
    if step is None:
        return None
    text, order = step
    is_shown = mine.made is not None and all(each == 0 for each in inside.values())
    return Reordered(
        {name: text.replace("AXIS", str(at)) for name, at in inside.items()}, order, axis if is_shown else None
    )


def _place(module: nn.Module, given: torch.Tensor) -> tuple[int, dict[str, int]] | None:
    """The axis of channels in what a module is given, and where they are in its own tensors, by name."""
    weight = getattr(module, "weight", None)
    own = {name: getattr(module, name) for name in own_tensors(module)}
    if not isinstance(weight, torch.Tensor) or "weight" not in own:
        return None
    if isinstance(module, _ConvNd):
        axis = given.dim() - weight.dim() + 1
        at = 0 if isinstance(module, _ConvTransposeNd) else 1
        fits = module.groups == 1 and axis >= 0 and given.shape[axis] == weight.shape[at]
        return (axis, {"weight": at}) if fits else None
    if weight.dim() == 2 and given.shape[-1:] == weight.shape[1:]:
        return given.dim() - 1, {"weight": 1}
    axis = 1 if isinstance(module, (_NormBase, nn.GroupNorm)) else given.dim() - 1
    is_each = all(tensor.shape == given.shape[axis : axis + 1] for tensor in own.values())
    return (axis, dict.fromkeys(own, 0)) if is_each else None


def _found(mine: torch.Tensor, other: torch.Tensor) -> list[int | None] | None:
    """For each row of the one, the only row of the other that it equals; None for a row that equals several.

    None altogether where a row equals none, where too few are known, or where the order is the same.
    """
    direction = torch.randn(mine.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, another = (rows.double().cpu() @ direction for rows in (mine, other))
    limit = _EQUAL * float(another.abs().max()) if another.numel() else 0.0
    ranked, places = another.sort()
    first = torch.searchsorted(ranked, one - limit)
    last = torch.searchsorted(ranked, one + limit, right=True)
    if bool((first == last).any()):
        return None
    order = [int(places[low]) if high - low == 1 else None for low, high in zip(first, last, strict=True)]
    known = [(here, there) for here, there in enumerate(order) if there is not None]
    if len(known) < _LEAST_KNOWN * len(order) or all(here == there for here, there in known):
        return None
    here, there = (torch.tensor(each, device=mine.device) for each in zip(*known, strict=True))
    return order if bool(((mine[here] - other[there]).abs() <= _EQUAL * other.abs().max()).all()) else None


def _written(found: Sequence[int | None]) -> tuple[str, Order] | None:
    """The one step, for an axis that is filled in later, that gives this order; None where none or several do."""
    known = {here: there for here, there in enumerate(found) if there is not None}
    fitting: dict[Order, str] = {}
    for text, order in _steps(len(found), known):
        if all(order[here] == there for here, there in known.items()):
            fitting.setdefault(order, text)
    if len(fitting) != 1:
        return None
    ((order, text),) = fitting.items()
    return text, order


def _steps(size: int, known: dict[int, int]) -> Iterator[tuple[str, Order]]:
    """Steps that may give an order of so many channels, the plainest first."""
    for count in range(2, min(size, _MOST_BLOCKS) + 1):
        if size % count == 0:
            length = size // count
            stretches = {here // length: there // length for here, there in known.items()}
            if sorted(stretches.values()) == sorted(stretches) == list(range(count)):
                order = tuple(stretches[number] for number in range(count))
                text = f"blocks(AXIS; {', '.join(map(str, order))})"
                yield text, tuple(number * length + each for number in order for each in range(length))
    for sizes in _grids(size):
        for turned in permutations(range(len(sizes))):
            if turned != tuple(range(len(sizes))):
                places = torch.arange(size).reshape(sizes).permute(turned).flatten()
                text = f"regroup(AXIS; {', '.join(map(str, sizes))}; {', '.join(map(str, turned))})"
                yield text, tuple(places.tolist())


def _grids(size: int) -> Iterator[tuple[int, ...]]:
    factors = [each for each in range(2, size) if size % each == 0]
    yield from ((one, size // one) for one in factors)
    for one in factors:
        for other in factors:
            if size % (one * other) == 0 and size // (one * other) > 1:
                yield one, other, size // (one * other)
