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
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from loadstone.errors import Diagnostic, FormatError, IntegrityError, LimitError, LoadstoneError, MatchError
from loadstone.io.sources import changed_size
from loadstone.matching.plan import Plan
from loadstone.model import after_load
from loadstone.model.composed import sources_of
from loadstone.model.copying import Fill, Work, fill_all, work_for, write_values
from loadstone.model.preparing import prepare
from loadstone.model.proving import Proof
from loadstone.model.schema import Walk, is_described, schema_of, walk
from loadstone.model.staging import Reader, prove
from loadstone.model.targets import Placement, Swap, Target, left_on_meta, swap_for, targets_of


@dataclass(frozen=True, slots=True)
class Loading:
    """What a plan does not hold: the live module, and where values come from and go to.

    Attributes:
        model: the module to fill.
        memory: the source's tensors, where it is a state dict in memory.
        extra_state: values for `set_extra_state`, by key.
        placement: device and dtype of what comes out.
        backup: keep the old values until the load is through.
        proof: how the bytes of the source are proved; None where they are not.
        source: kept alive, and so kept open, as long as the plan.
    """

    model: nn.Module
    memory: Mapping[str, torch.Tensor] | None = None
    extra_state: Mapping[str, object] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    backup: bool = False
    proof: Proof | None = None
    source: object = None


def apply(plan: Plan, loading: Loading) -> None:
    """Do what `plan` says, or raise and leave the model as it was.

    Raises:
        MatchError: the plan no longer fits (stale-plan), a value cannot be used (dtype-breaks-values, tied-conflict,
            adapter-failed, hook-failed), or a tensor would stay on meta (left-on-meta).
        IntegrityError: the file is damaged (bad-digest, bad-checksum …); or the disk failed in the middle of the copy
            (partial-load), and the parameters that have changed are named.
    """
    with torch.device("cpu") if torch.get_default_device().type != "cpu" else nullcontext():
        try:
            ready = _ready(plan, loading)
        except RuntimeError as error:
            failure = _memory_error(error)
            if failure is error:
                raise
            raise failure from error
        _execute(plan, loading, ready)


@dataclass(frozen=True, slots=True)
class _Ready:
    """Everything that the copy needs, checked and in memory; nothing of the model has changed.

    Attributes:
        targets: the tensors of the model.
        into_new: values of tensors that are made here.
        into_model: values that go into the model's own memory.
        swap: puts the new tensors into the model.
        old: the model's own tensors with a copy of their values, where these may have to be put back.
    """

    targets: list[Target]
    into_new: Work
    into_model: Work
    swap: Swap
    old: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None


def _ready(plan: Plan, loading: Loading) -> _Ready:
    reader = Reader(plan.sources, loading.memory)
    walked = walk(loading.model)
    _check_is_current(plan, loading.model, walked)
    targets = targets_of(walked, plan.actions)
    on_meta = left_on_meta(targets)
    if on_meta:
        raise MatchError(*on_meta, plan=plan)
    _check_memory(targets)
    actions = [action for target in targets for action in target.actions]
    used = {key: plan.sources[key] for action in actions for key in sources_of(action, plan)}
    prove(used)
    if loading.proof is not None:
        loading.proof.check(used)
    prepared = prepare(plan, targets, reader, loading.placement)
    into_new, into_model = work_for(prepared.into_new), work_for(prepared.into_model)
    swap = swap_for(prepared.replaced, loading.placement)
    keeps_old = loading.backup or after_load.can_fail(loading.model, loading.extra_state)
    in_place = [fill.target for fill in (*into_model.straight, *into_model.others)]
    old = tuple((tensor, tensor.clone()) for tensor in in_place) if keeps_old else None
    return _Ready(targets, into_new, into_model, swap, old)


def _execute(plan: Plan, loading: Loading, ready: _Ready) -> None:
    started: list[Fill] = []
    is_swapped = False
    try:
        fill_all(ready.into_new, lambda fill: None)  # first: a disk that fails here has changed nothing
        fill_all(ready.into_model, started.append)
        is_swapped = True
        ready.swap.commit()
        after_load.run(plan, loading.model, loading.extra_state)
    except BaseException as error:
        if is_swapped:
            ready.swap.undo()
        if not started:
            raise
        if ready.old is None:
            failure = _partial(error, ready.targets, started)
        else:
            for tensor, values in ready.old:
                write_values(tensor, values)
            failure = _as_it_was(error)
        if failure is error:
            raise
        raise failure from error


def _memory_error(error: RuntimeError) -> Exception:
    """torch reports that memory is full as a RuntimeError of its own; anything else stays what it is."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
        return error
    reason = text.splitlines()[0].rpartition(": ")[2]
    return LimitError(Diagnostic("resource-limit", f"loading needs more memory than there is: {reason}"))


def _check_is_current(plan: Plan, model: nn.Module, walked: Walk) -> None:
    """The plan was made for this model as it is now, and for the file as it is now."""
    if not is_described(walked, plan.schema):
        schema = schema_of(model, walked)
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


def _as_it_was(error: BaseException) -> BaseException:
    """The error of a load that was taken back; the same kind of error, which now says so."""
    note = "the old values were put back: the model is as it was"
    if isinstance(error, MatchError):
        return MatchError(*error.diagnostics, summary=note, plan=error.plan)
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
