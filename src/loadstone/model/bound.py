"""Bound: a plan together with the live module it was made for and the open source of its values.

It does what a plan promises: applies it, proves it beside a reference, and makes the same plan again with more said.
What runs models is imported only where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from loadstone.errors import Diagnostic, RecipeError, worst_first
from loadstone.matching.names import make_plan
from loadstone.matching.plan import Plan
from loadstone.matching.probed import Probed
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.model.apply import Loading, apply
from loadstone.model.migration import migration_for
from loadstone.model.opening import Opened
from loadstone.model.options import Checked
from loadstone.model.proving import proof_for
from loadstone.model.schema import extra_state_of, schema_of, walk
from loadstone.model.staging import Reader
from loadstone.model.targets import left_on_meta, targets_of


@dataclass(frozen=True, slots=True)
class Bound:
    """The `live` part of a Plan.

    Attributes:
        model: the module to fill.
        source: where values come from; kept alive, and so kept open, as long as the plan.
        options: what was asked for.
        loading: what `apply` needs.
    """

    model: nn.Module
    source: Opened
    options: Checked
    loading: Loading

    def apply(self, plan: Plan) -> None:
        apply(plan, self.loading)

    def check(self, plan: Plan, example_input: object, reference: object, outputs: object) -> Probed:
        if example_input is None and reference is None and outputs is None:
            from loadstone.model.probe import check

            kept = [str(action.target) for action in plan.actions if action.status in ("kept", "missing")]
            manifest = None if self.source.checkpoint is None else self.source.checkpoint.manifest
            return check(self.model, manifest, plan.source_name, kept)
        from loadstone.model.equality import gives, same_function

        if example_input is None or (reference is None) == (outputs is None):
            message = "`check` takes an example input with either `reference` or `outputs`, or nothing at all"
            raise RecipeError(Diagnostic("invalid-option", message))
        if reference is None:
            return gives(self.model, example_input, outputs)
        if not isinstance(reference, nn.Module):
            message = f"`reference` is a {type(reference).__name__}; it has to be a torch.nn.Module"
            raise RecipeError(Diagnostic("invalid-option", message))
        return same_function(self.model, reference, example_input, origins_of(plan))

    def plausibility(self, plan: Plan) -> tuple[Diagnostic, ...]:
        from loadstone.model.plausibility import conflicting, implausible, read

        reader = Reader(plan.sources, self.loading.memory)
        return *implausible(read(plan.loaded, reader)), *conflicting(plan.actions, reader)


def origins_of(plan: Plan) -> dict[str, Assignment]:
    """Key of the model → what it is made of, whether names said so or structure."""
    by_name = {
        action.target: Assignment(action.target, (Taken(action.source),), (), "exact", action.how)
        for action in plan.actions
        if action.target and action.source
    }
    return {**by_name, **plan.compositions}


def bound(model: nn.Module, opened: Opened, options: Checked) -> Plan:
    """The plan of a source for a module, bound to both."""
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
        live=Bound(model, opened, options, loading),
    )


def _extra_state(modules: Mapping[str, nn.Module], opened: Opened, reader: Reader) -> dict[str, object]:
    """Values for `set_extra_state`: whatever a state dict in memory holds, tensors from a file."""
    if opened.memory is not None:
        return {key: value for key, value in opened.memory.extra_state.items() if key in modules}
    return {key: reader.read(key) for key in modules if key in opened.weights.tensors}


def _lost_extra_state(modules: Mapping[str, nn.Module], opened: Opened) -> tuple[Diagnostic, ...]:
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
