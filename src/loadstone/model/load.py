"""The verbs `plan` and `load`: a source and a live module in, a Plan bound to both out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, Unpack

import torch
from torch import nn

from loadstone import collector
from loadstone.checkpoint import Checkpoint, open_checkpoint
from loadstone.errors import Diagnostic, Fix, RecipeError, worst_first
from loadstone.manifest import Manifest
from loadstone.matching.adapters import Adapter
from loadstone.matching.names import make_plan
from loadstone.matching.options import Rename
from loadstone.matching.plan import Plan
from loadstone.matching.probed import Probed
from loadstone.model.apply import Loading, apply
from loadstone.model.memory import NAME, InMemory, from_memory, outside
from loadstone.model.migration import migration_for
from loadstone.model.options import Checked, Globs, PlanOptions, checked
from loadstone.model.proving import proof_for
from loadstone.model.schema import extra_state_of, schema_of, walk
from loadstone.model.staging import Reader
from loadstone.model.targets import left_on_meta, targets_of
from loadstone.tensors import TensorInfo
from loadstone.weights import WeightSet

Source: TypeAlias = str | os.PathLike[str] | Checkpoint | Mapping[str, object]


def plan(
    model: nn.Module,
    source: Source,
    *,
    strict: bool = True,
    rename: Mapping[str, str] | Rename | None = None,
    only: Globs = (),
    drop: Globs = (),
    fresh: Globs = (),
    adapt: Mapping[str, Adapter] | None = None,
    match: str = "names",
    answers: Mapping[str, str] | None = None,
    weights: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    assign: bool = False,
    backup: bool = False,
    verify: bool | None = None,
    recipe: str | os.PathLike[str] | None = None,
) -> Plan:
    """How `source` fits `model`, key by key, from headers alone; `plan.apply()` then loads it.

    Args:
        model: any module: on the CPU, on a GPU, on meta, wrapped by DataParallel, DDP or torch.compile.
        source: a path, an open Checkpoint, or a state dict in memory (in other dicts or not).
        strict: every key on both sides must be settled.  False: what fits is loaded, the rest is reported.
        rename: {regex: replacement}, applied in order to the checkpoint's keys, or a callable from key to key.
        only, drop: globs over checkpoint keys: which ones take part, which are left out on purpose.
        fresh: globs over model keys that keep the values they have.
        adapt: {glob: how} where shapes differ: "fresh", "slice", "pad", "channels", "interpolate", "vocabulary",
            `classes(old, new)`, `interpolate(...)`, or (tensor, target_shape) -> tensor; "cast" where dtypes do.
        match: "names", or "structure": what names leave open is matched by layers, shapes and families, and used
            only where it is proven unique.
        answers: {key of the model: key of the checkpoint} for the questions of a match by structure.
        weights: which of the checkpoint's weight sets.
        device, dtype: where parameters end up; the model's own where not given.  `dtype` is for floating point tensors.
        assign: parameters become the file's tensors, as in torch; make optimizers afterwards.
        backup: keep the old values until the load is through, so that not even a failing disk changes anything.
        verify: compare every tensor with the digest that the file has of it, before the first write.  None: where the
            file has digests, as those that `save` writes.  True: or raise; a plain torch zip is proved by the checksums
            of its records.  False: never.
        recipe: a TOML file with the same options; what is given here as well wins.

    Raises:
        FormatError, IntegrityError, UnsafeError, LimitError: the file cannot be read.
        MatchError: the model has parameters without a shape (uninitialised-parameter).
        RecipeError: an option has a wrong value.
    """
    given = PlanOptions(
        strict=strict, rename=rename, only=only, drop=drop, fresh=fresh, adapt=adapt, match=match, answers=answers,
        weights=weights,
        device=device, dtype=dtype, assign=assign, backup=backup, verify=verify, recipe=recipe,
    )  # fmt: skip
    return _bound(model, source, checked(given))[0]


def load(model: nn.Module, source: Source, **options: Unpack[PlanOptions]) -> Plan:
    """Fill `model` from `source`: all of it, or an error and the model as it was.

    Takes what `plan` takes, and returns the plan that was applied.

    Raises:
        MatchError: a key is unsettled or a value cannot be used; carries `.plan`, and the model is as it was.
        IntegrityError: the file is damaged; or the disk failed in the middle of the copy, and the message names every
            parameter that has changed.
        and what `plan` raises.
    """
    made, opened = _bound(model, source, checked(options))
    try:
        with collector.paused():
            made.apply()
    finally:
        opened.close()
    return made


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Opened:
    """A source in the form that plans are made of.

    Attributes:
        weights: the set of weights that is used.
        others: every other tensor of the source.
        name: what messages call it.
        notes: what is to be said about the source.
        memory: the tensors and values of a state dict in memory.
        checkpoint: the file, where the source is one.
        is_owned: it was opened here and is to be closed here.
    """

    weights: WeightSet
    others: Mapping[str, TensorInfo]
    name: str
    notes: tuple[Diagnostic, ...] = ()
    memory: InMemory | None = None
    checkpoint: Checkpoint | None = None
    is_owned: bool = False

    def close(self) -> None:
        """Close a file that was opened here.  Tensors that are mapped from it stay valid."""
        if self.checkpoint is not None and self.is_owned:
            self.checkpoint.close()


def _open(source: object, weights: str | None) -> _Opened:
    if isinstance(source, Mapping):
        memory = from_memory(source, weights)
        return _Opened(memory.weights, memory.others, NAME, memory.notes, memory)
    if isinstance(source, Checkpoint):
        return _from_checkpoint(source, weights, is_owned=False)
    if not isinstance(source, (str, os.PathLike)):
        fixes = (Fix("pass what it holds", "model.state_dict()"),) if isinstance(source, nn.Module) else ()
        message = f"the source is a {type(source).__name__}; it may be a path, a Checkpoint or a state dict"
        raise RecipeError(Diagnostic("invalid-option", message, fixes=fixes))
    checkpoint = open_checkpoint(source, weights=weights)
    try:
        return _from_checkpoint(checkpoint, None, is_owned=True)
    except BaseException:
        checkpoint.close()
        raise


def _from_checkpoint(checkpoint: Checkpoint, weights: str | None, *, is_owned: bool) -> _Opened:
    chosen, found = checkpoint.choose(weights)
    # what another part of the file asks for is no reason not to read its weights, of which every bound is proved
    notes = (replace(finding, level="warning") if finding.severity == "error" else finding for finding in found)
    return _Opened(
        chosen,
        outside(chosen, checkpoint.tensors),
        checkpoint.name,
        tuple(notes),
        checkpoint=checkpoint,
        is_owned=is_owned,
    )


def _bound(model: object, source: object, options: Checked) -> tuple[Plan, _Opened]:
    """A plan that can be applied; a file that was opened for it stays open until the plan is gone."""
    if not isinstance(model, nn.Module):
        message = f"the model is a {type(model).__name__}; it has to be a torch.nn.Module"
        raise RecipeError(Diagnostic("invalid-option", message))
    opened = _open(source, options.weights)
    if opened.checkpoint is not None and opened.is_owned:
        weakref.finalize(opened, opened.checkpoint.close)
    try:
        with collector.paused():
            return _planned(model, opened, options), opened
    except BaseException:
        opened.close()
        raise


def _planned(model: nn.Module, opened: _Opened, options: Checked) -> Plan:
    weights = opened.weights
    walked = walk(model)
    takes_extra_state = extra_state_of(walked)
    sources = {key: info for key, info in weights.tensors.items() if key not in takes_extra_state}
    memory = None if opened.memory is None else opened.memory.tensors
    reader = Reader(weights.tensors, memory)
    made = make_plan(
        schema_of(model, walked),
        sources,
        options.matching,
        source_name=opened.name,
        target_name=type(model).__name__,
        weights=weights.name,
        not_for_model=opened.others,
        notes=(*opened.notes, *_lost_extra_state(takes_extra_state, opened)),
        metadata=weights.metadata,
        migrate=migration_for(model, weights.metadata, reader.read),
    )
    loading = Loading(
        model,
        memory,
        _extra_state(takes_extra_state, opened, reader),
        options.placement,
        options.backup,
        None if opened.checkpoint is None else proof_for(opened.checkpoint, weights, options.verify),
        opened,
    )
    is_on_meta = any(place.tensor.is_meta for place in walked.places)
    on_meta = left_on_meta(targets_of(walked, made.actions)) if is_on_meta else ()
    known = {key for finding in made.diagnostics if finding.severity == "error" for key in finding.keys}
    found = [finding for finding in on_meta if not known.issuperset(finding.keys)]
    return replace(
        made,
        diagnostics=worst_first((*made.diagnostics, *found)),
        applier=partial(apply, loading=loading),
        checker=partial(_checked, model, None if opened.checkpoint is None else opened.checkpoint.manifest),
    )


def _checked(
    model: nn.Module, manifest: Manifest | None, made: Plan, example_input: object, reference: object, outputs: object
) -> Probed:
    """The model beside the probe of the file, a reference or an output; what runs models is imported only here."""
    if example_input is None and reference is None and outputs is None:
        from loadstone.model.probe import check

        kept = [str(action.target) for action in made.actions if action.status in ("kept", "missing")]
        return check(model, manifest, made.source_name, kept)
    from loadstone.model.equality import gives, same_function

    if example_input is None or (reference is None) == (outputs is None):
        message = "`check` takes an example input with either `reference` or `outputs`, or nothing at all"
        raise RecipeError(Diagnostic("invalid-option", message))
    if reference is None:
        return gives(model, example_input, outputs)
    if not isinstance(reference, nn.Module):
        message = f"`reference` is a {type(reference).__name__}; it has to be a torch.nn.Module"
        raise RecipeError(Diagnostic("invalid-option", message))
    pairs = {action.target: action.source for action in made.actions if action.target and action.source}
    return same_function(model, reference, example_input, pairs)


def _extra_state(modules: Mapping[str, nn.Module], opened: _Opened, reader: Reader) -> dict[str, object]:
    """Values for `set_extra_state`: whatever a state dict in memory holds, tensors from a file."""
    if opened.memory is not None:
        return {key: value for key, value in opened.memory.extra_state.items() if key in modules}
    return {key: reader.read(key) for key in modules if key in opened.weights.tensors}


def _lost_extra_state(modules: Mapping[str, nn.Module], opened: _Opened) -> tuple[Diagnostic, ...]:
    """Extra state that a file holds in a form that is not read."""
    if opened.memory is not None:
        return ()
    lost = tuple(key for key in modules if key in opened.weights.skipped)
    if not lost:
        return ()
    return (
        Diagnostic(
            "not-extracted",
            f"the extra state of {len(lost):,} modules is no tensor and is not loaded",
            evidence=tuple((key, opened.weights.skipped[key]) for key in lost),
            keys=lost,
            level="warning",
        ),
    )
