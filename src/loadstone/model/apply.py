"""Execute a plan on a live module: every check first, then the copy, all of it or nothing.

    1  the plan still belongs to this model and this file
    2  everything that can go wrong for another reason than the disk is tried, and its results are kept (staging)
    3  the memory that will be needed is taken
    4  the bytes are moved (copying), or new tensors are put in (targets)
    5  what modules asked to be told is told to them: extra state, post hooks

Up to the end of 3 nothing in the model has changed.  From there on the only thing that can fail is the disk, or a hook;
hooks, and `backup=True`, are met by keeping the old values until the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from loadstone.errors import Diagnostic, FormatError, IntegrityError, LoadstoneError, MatchError
from loadstone.io.sources import changed_size
from loadstone.matching.plan import Plan
from loadstone.matching.schema import Schema
from loadstone.model import after_load
from loadstone.model.copying import Fill, fill_all, scratch_for, write_values
from loadstone.model.pieces import Scratch
from loadstone.model.schema import places_of, schema_of
from loadstone.model.staging import Reader, broken_cast, dense_for, needs_staging, prove, staged, tied_conflict
from loadstone.model.targets import (
    Placement,
    Target,
    can_be_mapped,
    left_on_meta,
    mapped,
    shared_bytes,
    swap_for,
    targets_of,
)
from loadstone.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Loading:
    """What a plan does not hold: the live module, and where values come from and go to.

    Attributes:
        model: the module to fill.
        memory: the source's tensors, where it is a state dict in memory.
        extra_state: values for `set_extra_state`, by key.
        placement: device and dtype of what comes out.
        backup: keep the old values until the load is through.
        source: kept alive, and so kept open, as long as the plan.
    """

    model: nn.Module
    memory: Mapping[str, torch.Tensor] | None = None
    extra_state: Mapping[str, object] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    backup: bool = False
    source: object = None


def apply(plan: Plan, loading: Loading) -> None:
    """Do what `plan` says, or raise and leave the model as it was.

    Raises:
        MatchError: the plan no longer fits (stale-plan), a value cannot be used (dtype-breaks-values, tied-conflict,
            adapter-failed, hook-failed), or a tensor would stay on meta (left-on-meta).
        IntegrityError: the file is damaged; or the disk failed in the middle of the copy (partial-load), and the
            parameters that have changed are named.
    """
    reader = Reader(plan.sources, loading.memory)
    _check_is_current(plan, schema_of(loading.model))
    places = places_of(loading.model)
    targets = targets_of(places, plan.actions)
    on_meta = left_on_meta(targets)
    if on_meta:
        raise MatchError(*on_meta, plan=plan)
    _check_memory(targets)
    used = {key: plan.sources[key] for key in _sources_of(targets)}
    prove(used)
    fills, replaced = _prepared(plan, targets, reader, loading)
    scratch = scratch_for(fills)
    swap = swap_for(replaced, loading.placement)
    new = {id(tensor) for _, tensor in replaced}
    in_place = [fill.target for fill in fills if id(fill.target) not in new]
    keeps_old = loading.backup or after_load.can_fail(loading.model, loading.extra_state)
    old = [(tensor, tensor.detach().clone()) for tensor in in_place] if keeps_old else []
    started: list[Fill] = []
    is_swapped = False
    try:
        # new tensors first: a disk that fails there has changed nothing
        fill_all([fill for fill in fills if id(fill.target) in new], scratch, lambda fill: None)
        fill_all([fill for fill in fills if id(fill.target) not in new], scratch, started.append)
        is_swapped = True
        swap.commit()
        after_load.run(plan, loading.model, loading.extra_state)
    except BaseException as error:
        if is_swapped:
            swap.undo()
        if not started:
            raise
        if keeps_old:
            for tensor, values in old:
                write_values(tensor, values)
            failure = _as_it_was(error)
            if failure is error:
                raise
            raise failure from error
        failure = _partial(error, targets, started)
        if failure is error:
            raise
        raise failure from error


def _prepared(
    plan: Plan, targets: list[Target], reader: Reader, loading: Loading
) -> tuple[list[Fill], list[tuple[Target, torch.Tensor]]]:
    """Every value that is not simply copied, and every new tensor; all checks on values are made here."""
    found: list[Diagnostic] = []
    fills: list[Fill] = []
    replaced: list[tuple[Target, torch.Tensor]] = []
    to_map: list[tuple[Target, TensorInfo]] = []
    checking = Scratch(0)
    own_memory = {_storage_of(target.tensor) for target in targets if not target.tensor.is_meta}
    for target in targets:
        action = target.filling
        if action is None:
            if target.tensor.is_meta:
                replaced.append((target, torch.zeros((), dtype=target.tensor.dtype)))
            elif target.is_replaced(loading.placement, None):
                replaced.append((target, _moved(target.tensor, loading.placement)))
            continue
        found += [
            conflict
            for other in target.actions
            if other is not action and (conflict := tied_conflict(action, other, reader))
        ]
        info = plan.sources[action.source] if action.source is not None else None
        source_dtype = None if info is None else _dtype_of(info)
        if info is not None:
            wanted = loading.placement.dtype_for(target.tensor, source_dtype)
            broken = broken_cast(action, reader, wanted, checking)
            if broken is not None:
                found.append(broken)
                continue
        value: torch.Tensor | None = None
        if info is None or needs_staging(action, info):
            try:
                value = dense_for(staged(action, reader, tuple(target.tensor.shape)), target.tensor, target.key)
            except MatchError as error:
                found += error.diagnostics
                continue
        elif reader.memory is not None:
            value = dense_for(reader.look(info.key), target.tensor, target.key)
            if not target.is_replaced(loading.placement, value.dtype) and _storage_of(value) in own_memory:
                value = value.clone()  # the state dict is this model's own: read before it is overwritten
        if value is not None:
            source_dtype = value.dtype
        if not target.is_replaced(loading.placement, source_dtype):
            fills.append(Fill(target.key, target.tensor.detach(), None if value is not None else info, value))
            continue
        dtype = loading.placement.dtype_for(target.tensor, source_dtype)
        device = loading.placement.device_for(target.tensor)
        if value is not None:
            replaced.append((target, value.to(device=device, dtype=dtype)))
        elif info is not None and can_be_mapped(info) and dtype == source_dtype and device.type == "cpu":
            to_map.append((target, info))
        else:
            assert info is not None
            new = torch.empty(info.shape, dtype=dtype, device=device)
            fills.append(Fill(target.key, new, info))
            replaced.append((target, new))
    if found:
        raise MatchError(*found, summary="nothing was loaded, the model is as it was", plan=plan)
    aliases = shared_bytes([info for _, info in to_map])
    for position, (target, info) in enumerate(to_map):
        replaced.append((target, mapped(info).clone() if position in aliases else mapped(info)))
    return fills, replaced


def _check_is_current(plan: Plan, schema: Schema) -> None:
    """The plan was made for this model as it is now, and for the file as it is now."""
    if schema.slots != plan.schema.slots or schema.non_persistent != plan.schema.non_persistent:
        changed = [
            key
            for key in dict.fromkeys((*plan.schema.slots, *schema.slots))
            if plan.schema.slots.get(key) != schema.slots.get(key)
        ]
        names = ", ".join(f"`{key}`" for key in changed[:3]) or "its non-persistent buffers"
        raise MatchError(
            Diagnostic("stale-plan", f"the model changed after the plan was made: {names}", keys=tuple(changed)),
            plan=plan,
        )
    storages = (info.storage for info in plan.sources.values() if info.storage is not None)
    sources = {id(extent.source): extent.source for storage in storages for extent in storage.extents}
    for source in sources.values():
        size = changed_size(source)
        if size is not None:
            message = f"`{source.name}` had {source.size:,} bytes when it was opened and has {size:,}"
            raise MatchError(Diagnostic("stale-plan", message), plan=plan)


def _check_memory(targets: list[Target]) -> None:
    for target in targets:
        if target.filling is not None and torch._debug_has_internal_overlap(target.tensor) == 1:
            raise FormatError(
                Diagnostic(
                    "unsupported-feature",
                    f"`{target.key}` is expanded, several of its elements are one memory, so it cannot be filled",
                    keys=target.keys,
                )
            )


def _sources_of(targets: list[Target]) -> list[str]:
    return [action.source for target in targets for action in target.actions if action.source is not None]


def _moved(tensor: torch.Tensor, placement: Placement) -> torch.Tensor:
    return tensor.detach().to(placement.device_for(tensor), placement.dtype_for(tensor, None))


def _dtype_of(info: TensorInfo) -> torch.dtype:
    dtype = getattr(torch, info.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise FormatError(Diagnostic("unsupported-feature", f"torch has no dtype for `{info.key}` ({info.dtype})"))
    return dtype


def _storage_of(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a layout or subclass without a storage
        return id(tensor)


def _as_it_was(error: BaseException) -> BaseException:
    """The error of a load that was taken back; the same kind of error, which now says so."""
    note = "the old values were put back: the model is as it was"
    if isinstance(error, LoadstoneError):
        return type(error)(*error.diagnostics, summary=note)
    error.add_note(note)
    return error


def _partial(error: BaseException, targets: list[Target], started: list[Fill]) -> BaseException:
    """The error of a load that broke off in the middle: which parameters have changed."""
    changed = {fill.key for fill in started}
    keys = tuple(key for target in targets if target.key in changed for key in target.keys)
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    diagnostic = Diagnostic(
        "partial-load",
        f"loading broke off after {len(keys):,} tensors had been written: {reason}",
        evidence=tuple(("changed", key) for key in keys),
        keys=keys,
    )
    if isinstance(error, Exception):
        return IntegrityError(diagnostic)
    error.add_note(str(diagnostic))  # KeyboardInterrupt stays one
    return error
