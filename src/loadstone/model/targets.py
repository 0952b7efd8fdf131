"""Where the values of a plan end up: in the memory that the model has, or in new tensors that take its place.

Tied parameters are one Target.  New tensors come straight from the file where they can: a private mapping of its bytes,
read when they are first used.  They stand in no module until all of them exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from loadstone import as_torch
from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, MatchError
from loadstone.matching.plan import Action
from loadstone.model.copying import is_plain_memory
from loadstone.model.schema import Identity, Place, Walk
from loadstone.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Placement:
    """Where parameters shall end up; None means as the model has them.

    `is_assigned` lets them become the file's tensors, in the file's dtype unless `dtype` is given.
    """

    device: torch.device | None = None
    dtype: torch.dtype | None = None
    is_assigned: bool = False

    def dtype_for(self, target: torch.Tensor, source: torch.dtype | None) -> torch.dtype:
        """The dtype of what comes out; like `Module.to`, `dtype` applies to floating point tensors only."""
        if self.dtype is not None and target.dtype.is_floating_point:
            return self.dtype
        return source if self.is_assigned and source is not None else target.dtype

    def device_for(self, target: torch.Tensor) -> torch.device:
        """The device of what comes out; the CPU for what is on meta."""
        if self.device is not None:
            return self.device
        return torch.device("cpu") if target.is_meta else target.device


@dataclass(slots=True, eq=False)
class Target:
    """One tensor of the model.

    Attributes:
        places: every place it stands at, in the model's order.
        actions: the plan's lines that have a source for it.
        tensor: the tensor itself.
        filling: the action that fills it; None where it keeps what it has.
    """

    places: list[Place]
    actions: list[Action]
    tensor: torch.Tensor
    filling: Action | None = None

    @property
    def key(self) -> str:
        """The first of its keys."""
        return self.places[0].key

    @property
    def keys(self) -> tuple[str, ...]:
        """All of its keys."""
        return tuple(place.key for place in self.places)

    def is_replaced(self, placement: Placement, source: torch.dtype | None) -> bool:
        """A new tensor takes its place, instead of new values its memory."""
        if self.filling is None:
            wanted = placement.dtype_for(self.tensor, None), placement.device_for(self.tensor)
            return not self.tensor.is_meta and wanted != (self.tensor.dtype, self.tensor.device)
        if self.tensor.is_meta or placement.is_assigned:
            return True
        wanted = placement.dtype_for(self.tensor, source), placement.device_for(self.tensor)
        return wanted != (self.tensor.dtype, self.tensor.device)


def targets_of(walked: Walk, actions: Iterable[Action]) -> list[Target]:
    """Every tensor of the model once, tied ones together, in the model's order."""
    by_target: dict[str, list[Action]] = {}
    for action in actions:
        if action.target is not None and action.status in ("load", "tied"):
            by_target.setdefault(action.target, []).append(action)
    found: dict[Identity, Target] = {}
    for place, identity in zip(walked.places, walked.identities, strict=True):
        target = found.get(identity)
        if target is None:
            target = found[identity] = Target([], [], place.tensor)
        target.places.append(place)
        for action in by_target.get(place.key, ()):
            target.actions.append(action)
            if target.filling is None and action.status == "load":
                target.filling = action
    return list(found.values())


def left_on_meta(targets: list[Target]) -> tuple[Diagnostic, ...]:
    """One diagnostic for each tensor on meta that nothing would be put into."""
    return tuple(
        Diagnostic(
            "left-on-meta",
            f"`{target.key}` is on the meta device and has no source",
            fixes=(Fix("construct it with values", "loadstone.build(FACTORY, FILE)"),),
            keys=target.keys,
        )
        for target in targets
        if target.tensor.is_meta and target.filling is None and not is_counter(target)
    )


def is_counter(target: Target) -> bool:
    """`num_batches_tracked` of a batch norm, which starts at zero where a file does not have it, as in torch."""
    place = target.places[0]
    return place.name == "num_batches_tracked" and isinstance(place.module, nn.modules.batchnorm._NormBase)


def can_be_mapped(info: TensorInfo) -> bool:
    """Its bytes in the file are a tensor as they are."""
    return info.is_plain and DTYPES[info.dtype].bits % 8 == 0


def mapped(info: TensorInfo) -> torch.Tensor:
    """A tensor over a private, writable mapping of the file; what is written to it stays in memory."""
    assert info.storage is not None  # is_plain
    dtype = as_torch.dtype_of(info.dtype)
    if info.elements == 0:
        return torch.empty(info.shape, dtype=dtype, device="cpu")
    return torch.frombuffer(info.storage.view(*info.byte_range()), dtype=dtype).view(info.shape)


def shared_bytes(infos: Sequence[TensorInfo]) -> set[int]:
    """Positions of tensors whose bytes overlap those of an earlier one: two parameters must not share memory."""
    ranges = []
    for position, info in enumerate(infos):
        assert info.storage is not None
        extent = info.storage.extents[0]
        first, nbytes = info.byte_range()
        ranges.append((id(extent.source), extent.offset + first, nbytes, position))
    overlapping: set[int] = set()
    end = (0, 0)
    for source, start, nbytes, position in sorted(ranges):
        if nbytes and source == end[0] and start < end[1]:
            overlapping.add(position)
        end = (source, max(start + nbytes, end[1] if source == end[0] else 0))
    return overlapping


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """New tensors for the places of the model, made and not yet put there."""

    changes: tuple[tuple[Place, torch.Tensor, torch.Tensor], ...]  # place, old, new
    data: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...]  # parameter, old data, new data

    def commit(self) -> None:
        """Put every new tensor at its place."""
        for place, _, new in self.changes:
            place.put(new)
        for parameter, _, new in self.data:
            parameter.data = new

    def undo(self) -> None:
        """Put every old tensor back."""
        for place, old, _ in self.changes:
            place.put(old)
        for parameter, old, _ in self.data:
            parameter.data = old


def swap_for(replaced: Iterable[tuple[Target, torch.Tensor]], placement: Placement) -> Swap:
    """The change that puts the new tensors in; one new Parameter for every old one, so that ties stay ties.

    A Parameter that only changes device or dtype stays the same object, as in `Module.to`, so that optimizers keep it.
    """
    changes: list[tuple[Place, torch.Tensor, torch.Tensor]] = []
    data: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for target, new in replaced:
        made: dict[int, torch.Tensor] = {}
        for place in target.places:
            old = place.tensor
            if id(old) not in made:
                if not (old.is_meta or placement.is_assigned) and is_plain_memory(old) and is_plain_memory(new):
                    data.append((old, old.data, new))
                    made[id(old)] = old
                else:
                    made[id(old)] = _in_place_of(old, new, place)
            if made[id(old)] is not old:
                changes.append((place, old, made[id(old)]))
    return Swap(tuple(changes), tuple(data))


def _in_place_of(old: torch.Tensor, new: torch.Tensor, place: Place) -> torch.Tensor:
    if old.requires_grad and not (new.dtype.is_floating_point or new.dtype.is_complex):
        message = f"`{place.key}` wants a gradient, which {new.dtype} cannot have"
        raise MatchError(Diagnostic("dtype-breaks-values", message, keys=(place.key,)))
    if place.kind == "parameter":
        fresh: torch.Tensor = nn.Parameter(new.detach(), requires_grad=old.requires_grad)
    else:
        fresh = new.detach().requires_grad_(old.requires_grad)
    fresh.__dict__.update(old.__dict__)  # marks that a framework left on its parameters
    return fresh
