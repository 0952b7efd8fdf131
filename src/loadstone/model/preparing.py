"""What a load will write, worked out before it writes: a Fill or a new tensor for every target, all values checked.

kept on meta     a counter that the file lacks starts at zero
in place         the target's own memory is filled, from the file or with a value at hand
composed         several stretches of one target, each filled from its own part of the file
mapped           a new tensor over the file itself
made             a new tensor of another dtype or on another device, filled like one in place
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from loadstone.errors import Diagnostic, FormatError, MatchError
from loadstone.matching.plan import Action, Plan
from loadstone.matching.structure.items import Assignment
from loadstone.model.composed import parts_of, sources_of, values_of
from loadstone.model.copying import Fill
from loadstone.model.lineage import storage_id
from loadstone.model.pieces import Scratch
from loadstone.model.staging import Reader, broken_cast, dense_for, needs_staging, staged, tied_conflict
from loadstone.model.targets import Placement, Target, can_be_mapped, mapped, shared_bytes
from loadstone.tensors import TensorInfo

_MOVES = ("compose", "cast")  # what happens on the way when a part is read to its place


@dataclass(slots=True)
class Prepared:
    """What will be written where.

    Attributes:
        into_model: values for memory of the model.
        into_new: values for tensors that were made for it.
        replaced: the targets that get a new tensor, and that tensor.
    """

    into_model: list[Fill] = field(default_factory=list)
    into_new: list[Fill] = field(default_factory=list)
    replaced: list[tuple[Target, torch.Tensor]] = field(default_factory=list)


def prepare(plan: Plan, targets: list[Target], reader: Reader, placement: Placement) -> Prepared:
    """Work out every target; raises one MatchError with everything that cannot be used."""
    preparing = _Preparing(plan, targets, reader, placement)
    found: list[Diagnostic] = []
    for target in targets:
        try:
            preparing.add(target)
        except MatchError as error:
            found += error.diagnostics
    if found:
        raise MatchError(*found, summary="nothing was loaded, the model is as it was", plan=plan)
    return preparing.finished()


class _Preparing:
    def __init__(self, plan: Plan, targets: list[Target], reader: Reader, placement: Placement) -> None:
        self._plan = plan
        self._reader = reader
        self._placement = placement
        self._result = Prepared()
        self._to_map: list[tuple[Target, TensorInfo]] = []
        self._scratch = Scratch(0)
        self._own_memory: set[int] = set()
        if reader.memory is not None:
            self._own_memory = {storage_id(target.tensor) for target in targets if not target.tensor.is_meta}

    def add(self, target: Target) -> None:
        action = target.filling
        if action is None:
            self._keep(target)
            return
        if self._add_parts(target, action):
            return
        for other in target.actions:
            conflict = tied_conflict(action, other, self._reader) if other is not action else None
            if conflict is not None:
                raise MatchError(conflict)
        info = self._plan.sources[action.source] if action.source is not None else None
        if info is not None:
            dtype = self._placement.dtype_for(target.tensor, _dtype_of(info))
            broken = broken_cast(action, sources_of(action, self._plan), self._reader, dtype, self._scratch)
            if broken is not None:
                raise MatchError(broken)
        value = self._value(action, info, target)
        if value is not None:
            self._add_value(target, value)
        else:
            assert info is not None  # _value gives one otherwise
            self._add_info(target, info)

    def finished(self) -> Prepared:
        aliases = shared_bytes([info for _, info in self._to_map])
        for position, (target, info) in enumerate(self._to_map):
            tensor = mapped(info)
            self._result.replaced.append((target, tensor.clone() if position in aliases else tensor))
        return self._result

    def _keep(self, target: Target) -> None:
        """A target without a source: it may have to move with the others, or to start at zero."""
        dtype, device = self._wanted(target, None)
        if target.tensor.is_meta:
            self._result.replaced.append((target, torch.zeros(target.tensor.shape, dtype=dtype, device=device)))
        elif target.is_replaced(self._placement, None):
            self._result.replaced.append((target, target.tensor.detach().to(device, dtype)))

    def _add_parts(self, target: Target, action: Action) -> bool:
        """Every part of a composed tensor straight to its place, where no copy of the whole is needed."""
        made_of = self._plan.compositions.get(str(action.target))
        is_alone = len(target.actions) == 1 and not any(op.is_checked for op in action.ops)
        if made_of is None or not is_alone or not any(op.name == "compose" for op in action.ops):
            return False
        dtypes = {_dtype_of(self._plan.sources[taken.key]) for taken in made_of.sources}
        if len(dtypes) > 1 or any(op.name not in _MOVES for op in action.ops):
            return False
        (source,) = dtypes
        whole = target.tensor.detach()
        is_new = target.is_replaced(self._placement, source)
        if is_new:
            dtype, device = self._wanted(target, source)
            whole = torch.empty(whole.shape, dtype=dtype, device=device)
        fills = self._fills(target.key, made_of, whole)
        if fills is None:
            return False
        (self._result.into_new if is_new else self._result.into_model).extend(fills)
        if is_new:
            self._result.replaced.append((target, whole))
        return True

    def _fills(self, key: str, made_of: Assignment, whole: torch.Tensor) -> list[Fill] | None:
        memory = self._reader.memory
        if memory is None:
            parts = parts_of(made_of, self._plan.sources, whole)
            return None if parts is None else [Fill(key, view, info) for info, view in parts]
        tensors = [memory[taken.key] for taken in made_of.sources]
        if any(tensor.layout != torch.strided or storage_id(tensor) in self._own_memory for tensor in tensors):
            return None  # a state dict of this very model: read before it is overwritten
        values = values_of(made_of, memory, whole)
        return None if values is None else [Fill(key, view, value=value) for value, view in values]

    def _value(self, action: Action, info: TensorInfo | None, target: Target) -> torch.Tensor | None:
        """The values, where they are at hand or have to be before the first write; None where the file gives them."""
        if info is None or needs_staging(action, info):
            return dense_for(staged(action, self._reader, target.tensor), target.tensor, target.key)
        if self._reader.memory is None:
            return None
        value = dense_for(self._reader.look(str(action.source)), target.tensor, target.key)
        is_own = storage_id(value) in self._own_memory
        # a state dict of this very model: read before it is overwritten
        return value.clone() if is_own and not target.is_replaced(self._placement, value.dtype) else value

    def _add_value(self, target: Target, value: torch.Tensor) -> None:
        if target.is_replaced(self._placement, value.dtype):
            dtype, device = self._wanted(target, value.dtype)
            self._result.replaced.append((target, value.to(device=device, dtype=dtype)))
        else:
            self._result.into_model.append(Fill(target.key, target.tensor.detach(), value=value))

    def _add_info(self, target: Target, info: TensorInfo) -> None:
        source = _dtype_of(info)
        if not target.is_replaced(self._placement, source):
            self._result.into_model.append(Fill(target.key, target.tensor.detach(), info))
            return
        dtype, device = self._wanted(target, source)
        if can_be_mapped(info) and dtype == source and device.type == "cpu":
            self._to_map.append((target, info))
            return
        new = torch.empty(info.shape, dtype=dtype, device=device)
        self._result.into_new.append(Fill(target.key, new, info))
        self._result.replaced.append((target, new))

    def _wanted(self, target: Target, source: torch.dtype | None) -> tuple[torch.dtype, torch.device]:
        return self._placement.dtype_for(target.tensor, source), self._placement.device_for(target.tensor)


def _dtype_of(info: TensorInfo) -> torch.dtype:
    dtype = getattr(torch, info.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise FormatError(Diagnostic("unsupported-feature", f"torch has no dtype for `{info.key}` ({info.dtype})"))
    return dtype
