"""Bound: a plan together with the live module it was made for and the open source of its values.

It does what a plan promises: applies it, proves it beside a reference, and makes the same plan again with more said.
What runs models is imported only where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from loadstone.errors import Diagnostic, Fix, IntegrityError, MatchError, RecipeError, worst_first
from loadstone.matching.names import make_plan
from loadstone.matching.plan import Plan
from loadstone.matching.probed import Probed, Sensitivity
from loadstone.model.apply import Loading, apply
from loadstone.model.migration import migration_for
from loadstone.model.opening import Opened
from loadstone.model.options import Checked
from loadstone.model.origins import held_otherwise, origins_of
from loadstone.model.proving import proof_for
from loadstone.model.schema import extra_state_of, schema_of, walk
from loadstone.model.staging import Reader
from loadstone.model.targets import Placement, left_on_meta, targets_of


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

        other = _other("check", example_input, reference, outputs)
        if other is None:
            return gives(self.model, example_input, outputs)
        try:
            return same_function(self.model, other, example_input, origins_of(plan))
        except MatchError as error:
            raise self._explained(error, plan, other) from error

    def decide(self, plan: Plan, example_input: object, reference: object, outputs: object, forwards: int) -> Plan:
        from loadstone.model.deciding import decided

        other = _other("decide", example_input, reference, outputs)
        if not isinstance(forwards, int) or forwards < 1:
            raise _invalid(f"`forwards` is {forwards!r:.60}; it has to be a whole number from 1")
        try:
            found = decided(self.trial, self.model, example_input, other, outputs, forwards)
        except MatchError as error:
            raise self._explained(error, plan, other) from error
        return self._again(self.model, self.options, found.answers, found.rules)

    def sensitivity(self, plan: Plan, example_input: object) -> tuple[Sensitivity, ...]:
        from loadstone.model.observing import Watched
        from loadstone.model.sensing import sensed

        return sensed(self.trial, Watched.copy_of(self.model), example_input)

    def _explained(self, error: MatchError, plan: Plan, reference: nn.Module | None) -> MatchError:
        """The same error; where the reference does not hold the weights of the file, that comes first."""
        reader = Reader(plan.sources, self.loading.memory)
        try:
            key = None if reference is None else held_otherwise(plan, reader, reference)
        except IntegrityError:  # `load` has closed the file
            key = None
        if key is None:
            return error
        first, *others = error.diagnostics
        row = ("weights", f"`{key}` in the reference is not what {plan.source_name} holds")
        fix = Fix("fill it first", f"ls.load(reference, {plan.source_name!r})")
        first = replace(first, evidence=(row, *first.evidence), fixes=(fix, *first.fixes))
        return MatchError(first, *others, plan=error.plan)

    def trial(self, model: nn.Module, answers: Mapping[str, str], rules: Mapping[str, str]) -> Plan:
        """The plan for a copy of the module, with more said.

        Which dtypes and devices were asked for is not minded, and what finds no partner is left as it is.
        """
        matching = replace(self.options.matching, strict=False, dtype=None, assign=False, is_trial=True)
        options = replace(self.options, matching=matching, placement=Placement(), backup=False, verify=False)
        return self._again(model, options, answers, rules)

    def _again(self, model: nn.Module, options: Checked, answers: Mapping[str, str], rules: Mapping[str, str]) -> Plan:
        matching = options.matching
        said = replace(
            matching,
            match="structure" if rules else matching.match,
            answers={**matching.answers, **answers},
            rules={**rules, **{left: right for left, right in matching.rules.items() if left not in rules}},
        )
        return bound(model, self.source, replace(options, matching=said))

    def plausibility(self, plan: Plan) -> tuple[Diagnostic, ...]:
        from loadstone.model.plausibility import conflicting, implausible, read

        reader = Reader(plan.sources, self.loading.memory)
        return *implausible(read(plan.loaded, reader)), *conflicting(plan.actions, reader)


def _other(verb: str, example_input: object, reference: object, outputs: object) -> nn.Module | None:
    """The reference, where that is what was given to compare with."""
    if example_input is None or (reference is None) == (outputs is None):
        nothing = ", or nothing at all" if verb == "check" else ""
        raise _invalid(f"`{verb}` takes an example input with either `reference` or `outputs`{nothing}")
    if reference is not None and not isinstance(reference, nn.Module):
        raise _invalid(f"`reference` is a {type(reference).__name__}; it has to be a torch.nn.Module")
    return reference


def _invalid(message: str) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", message))


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
