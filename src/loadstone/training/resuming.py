"""Put a saved training back into live objects: every difference first, then all of it or nothing.

    exact      everything is as it was, or a MatchError lists what is not
    transfer   weights and optimizer state go by name, or by structure; what does not fit starts anew, and is said
    weights    the model alone

The order is fixed: model, optimizer, scheduler (without a step of its own), scaler, other states, gradients, generators
last.  After a difference that shows only then, or any error, every object is put back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from loadstone.errors import Diagnostic, Fix, LoadstoneError, MatchError
from loadstone.matching.plan import Plan
from loadstone.model import randomness
from loadstone.model.load import plan as plan_weights
from loadstone.model.options import PlanOptions
from loadstone.training import differences
from loadstone.training.generators import put_generators
from loadstone.training.loaders import Place
from loadstone.training.optimizer_files import facts_beside
from loadstone.training.optimizer_names import model_names
from loadstone.training.optimizer_rearranging import is_move, moved
from loadstone.training.optimizers import OptimizerPlan, plan_optimizer
from loadstone.training.parts import Parts, kind, put_gradients, undo_for
from loadstone.training.progress import Line, describe
from loadstone.training.ranks import other_count
from loadstone.training.saved_run import SavedRun, Stored

Strict = Literal["exact", "transfer", "weights"]
_OTHER = "not for a model"  # what a plan says of the rest of the file


@dataclass(slots=True)
class Resume:
    """What a resume will do, collected before anything changes.

    Attributes:
        errors: what stands against it.
        lines, details, notes: what the report says.
        steps: what to carry out, in this order.
        place: where the unfinished epoch goes on; None where an epoch begins.
        generators: the random generators as they stood; None where they stay.
        batch: batches of the unfinished epoch that are done.
        expected: the fingerprint of the loader, for an exact resume.
    """

    errors: list[Diagnostic] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)
    steps: list[Callable[[], None]] = field(default_factory=list)
    place: Place | None = None
    generators: dict[str, Any] | None = None
    batch: int = 0
    expected: Mapping[str, Any] | None = None


def plan_resume(
    parts: Parts, saved: SavedRun, strict: Strict, *, config: Mapping[str, Any] | None, data: Mapping[str, Any] | None,
    matching: PlanOptions | None = None, processes: int = 1,
) -> Resume:  # fmt: skip
    """What a resume will do; nothing is changed.

    Args:
        data: the fingerprint of the loader, where it is known.
        matching: options of the plan for the weights: `match`, `answers`, `recipe`.
        processes: how many train together; `saved.rank` is the number of this one.
    """
    made = Resume(notes=list(saved.diagnostics))
    weights = _model(made, parts, saved, strict, matching or {})
    if strict == "weights":
        made.lines += [Line("dropped", part, "only the weights are wanted") for part in saved.others]
        return made
    own_config, saved_config = config or {}, saved.get("config") or {}
    if strict == "exact":
        made.errors += differences.differs("the config", differences.by_key(saved_config, own_config, "config."))
    _others(made, parts, saved, strict, weights)
    if strict == "exact":
        made.steps.append(lambda: check_rates(parts, saved))
    gradients = _gradients(made, parts, saved, strict, weights)
    made.steps.append(lambda: put_gradients(parts, gradients))
    regrouped = other_count(saved.processes, processes)
    made.errors += [regrouped] if regrouped is not None and strict == "exact" else []
    _data(made, saved, strict, data, "" if regrouped is None else regrouped.message)
    made.generators = saved.own("rng_state")
    if made.generators is not None:
        made.lines.append(Line("kept", "random generators", ", ".join(made.generators)))
        made.steps.append(lambda: put_generators(made.generators or {}))
    elif strict == "exact":
        made.errors += [] if regrouped else [Diagnostic("resume-differs", "the checkpoint holds no random generators")]
    else:
        made.lines.append(Line("new", "random generators", "the checkpoint holds none"))
    return made


def carry_out(made: Resume, parts: Parts) -> None:
    """Do it, or raise and leave every object as it was."""
    undo, generators = undo_for(parts), randomness.random_state()
    try:
        for step in made.steps:
            step()
    except BaseException:
        undo()
        randomness.restore(generators)
        raise


# Findings whose fixes are options of a resume too; and where the answer is missing, nothing is loaded beside it.
_ANSWERED = ("open-question", "answer-unfit", "rule-unfit")


def _for_a_run(finding: Diagnostic, strict: Strict) -> Diagnostic:
    """What a plan finds, with what to do about it here: most of its own fixes are options of `load`."""
    if finding.code in _ANSWERED:
        return replace(finding, level=None)
    if finding.code == "fits-by-structure":
        how = "weights" if strict == "weights" else "transfer"
        fix = Fix("match layers instead of names", f'run.resume(strict="{how}", match="structure")')
        return replace(finding, fixes=(fix,))
    fixes = () if strict == "transfer" else (Fix("carry over what fits, by name", 'run.resume(strict="transfer")'),)
    return replace(finding, fixes=fixes)


def _model(made: Resume, parts: Parts, saved: SavedRun, strict: Strict, matching: PlanOptions) -> Plan | None:
    if parts.model is None or not saved.has_model:
        _one_sided(made, "model", parts.model is not None, saved.has_model, strict)
        return None
    options: PlanOptions = {**matching, "strict": strict != "transfer", "weights": saved.weights}
    options["verify"] = False  # the digests of the whole file were compared a moment ago
    plan = plan_weights(parts.model, saved.checkpoint, **options)
    found = [_for_a_run(each, strict) for each in plan.diagnostics]
    structure = [each for each in found if each.code == "fits-by-structure"]
    errors = [each for each in found if each.severity == "error"]
    made.errors += [*errors, *structure] if errors else []
    if strict != "exact":
        made.notes += [*(each for each in found if each.severity == "warning"), *structure]
    if strict == "exact":
        made.errors += _changes(plan)
    moved = sum(op.name == "compose" for each in plan.loaded for op in each.ops)
    along = f", {moved:,} of them rearranged" if moved else ""
    made.lines.append(Line("kept", "model", f"{len(plan.filled):,} tensors{along}"))
    made.lines += [
        Line("new", f"model.{each.target}", each.why) for each in plan.actions if each.status in ("missing", "kept")
    ]
    made.lines += [
        Line("new", f"model.{each.target}", each.why or "another shape")
        for each in plan.actions
        if each.status == "mismatched"
    ]
    made.lines += [
        Line("dropped", f"model.{each.source}", each.why)
        for each in plan.actions
        if each.status in ("unexpected", "dropped") and each.how != _OTHER
    ]
    made.steps.append(plan.apply)
    return plan


def _changes(plan: Plan) -> list[Diagnostic]:
    """What an ordinary load settles without asking, and an exact resume does not."""
    rows = tuple(
        (str(each.target or each.source), f"{each.how}   {'; '.join(op.text for op in each.ops)}".rstrip())
        for each in plan.actions
        if (each.status == "load" and (each.how != "same key" or each.ops))
        or (each.status in ("kept", "dropped") and each.how != _OTHER)
    )
    if not rows:
        return []
    return [Diagnostic("resume-differs", f"the model is not the one that was saved: {len(rows)} keys differ", rows)]


def _others(made: Resume, parts: Parts, saved: SavedRun, strict: Strict, weights: Plan | None) -> None:
    for part in ("optimizer", "scheduler", "scaler", "state"):
        own, stored = parts.others.get(part, {}), saved.others.get(part, {})
        for name in dict.fromkeys((*own, *stored)):
            label = f"{part}.{name}" if name else part
            if name not in own or name not in stored:
                _one_sided(made, label, name in own, name in stored, strict)
            elif isinstance(own[name], Optimizer):
                _optimizer(made, parts, saved, (label, name), strict, weights)
            else:
                _stateful(made, parts, saved, (part, name, label), strict)


def _one_sided(made: Resume, label: str, is_here: bool, is_saved: bool, strict: Strict) -> None:
    if is_here == is_saved:
        return
    if strict != "exact":
        made.lines.append(
            Line("new", label, "the checkpoint has none") if is_here else Line("dropped", label, "there is none here")
        )
        return
    sides = ("is here and not in the checkpoint", "is in the checkpoint and not here")
    made.errors.append(Diagnostic("resume-differs", f"`{label}` {sides[0] if is_here else sides[1]}"))


def _optimizer(
    made: Resume, parts: Parts, saved: SavedRun, labels: tuple[str, str], strict: Strict, weights: Plan | None
) -> None:
    label, name = labels
    live, stored = parts.optimizers[name], saved.others["optimizer"][name]
    model = parts.model if parts.model is not None else nn.Module()
    if strict == "exact" and not _is_same_kind(made, saved, "optimizer", name, live, label):
        return
    try:
        plan = _optimizer_plan(live, model, saved, stored, strict, weights)
    except LoadstoneError as error:
        made.errors += error.diagnostics
        return
    made.errors += [each for each in plan.diagnostics if each.severity == "error"]
    made.notes += [each for each in plan.diagnostics if each.severity == "warning"]
    kept, moved = len(plan.named("kept")), len(plan.named("rearranged"))
    along = f", {moved:,} of them rearranged as their weights are" if moved else ""
    made.lines.append(Line("kept", label, f"state of {kept + moved:,} parameters{along}"))
    for each in plan.lines:
        if each.status not in ("kept", "rearranged"):
            made.lines.append(Line("dropped" if each.status == "dropped" else "new", f"{label}.{each.name}", each.why))
    if strict == "transfer":
        made.details.append(plan.report())
    made.steps.append(plan.apply)


def _optimizer_plan(
    live: Optimizer, model: nn.Module, saved: SavedRun, stored: Stored, strict: Strict, weights: Plan | None
) -> OptimizerPlan:
    how: Literal["exact", "transfer"] = "exact" if strict == "exact" else "transfer"
    if not saved.has_model:
        return plan_optimizer(live, stored.value, model=model, strict=how)
    return plan_optimizer(live, saved.checkpoint, model=model, strict=how, part=stored.place, weights=weights)


def _gradients(
    made: Resume, parts: Parts, saved: SavedRun, strict: Strict, weights: Plan | None
) -> dict[str, torch.Tensor]:
    """Those that wait for their step, by the model's names; they go where their weights go."""
    stored: dict[str, torch.Tensor] = saved.own("gradients") or {}
    if not stored or strict == "exact" or weights is None or parts.model is None:
        return stored
    facts, names = facts_beside(None, parts.model, weights), model_names(parts.model)
    found: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    for name, gradient in stored.items():
        target = names.first(facts.renames.get(name, name))
        if target is not None and names.parameters[target].shape == gradient.shape:
            found[target] = gradient
            used.add(name)
    for target, move in facts.moves.items():
        keys = {taken.key for taken in move.assignment.sources}
        if keys <= stored.keys() and is_move(move.assignment):
            found[target] = moved(move.assignment, stored)
            used |= keys
    lost = len(stored.keys() - used)
    if lost:
        made.lines.append(
            Line("dropped", "gradients", f"of {lost:,} parameters, which wait for a step; nothing fits them")
        )
    return found


def _is_same_kind(made: Resume, saved: SavedRun, part: str, name: str, live: object, label: str) -> bool:
    known = saved.kinds.get(part)
    was = known.get(name) if isinstance(known, Mapping) else known
    found = differences.differs(f"the class of `{label}`", [(label, was, kind(live))])
    made.errors += found
    return not found


def _stateful(made: Resume, parts: Parts, saved: SavedRun, labels: tuple[str, str, str], strict: Strict) -> None:
    part, name, label = labels
    live, stored = parts.others[part][name], saved.others[part][name]
    if strict == "exact":
        if not _is_same_kind(made, saved, part, name, live, label):
            return
        if part == "scheduler":
            rows = differences.scheduler_rows(stored.value, live.state_dict())
            made.errors += differences.differs(f"`{label}`", rows)
    elif part == "scheduler":
        why = _unfit(live, stored.value)
        if why:
            made.lines += [Line("new", label, why), Line("dropped", f"{label} of the checkpoint", why)]
            return
    made.lines.append(Line("kept", label, type(live).__name__))
    made.steps.append(lambda: live.load_state_dict(saved.checkpoint.read(*stored.path)))


def _unfit(live: Any, stored: Any) -> str:
    """Why a scheduler cannot go on from that state; empty where it can."""
    own = live.state_dict()
    if not isinstance(stored, Mapping) or set(own) - set(stored):
        return "it is of another kind"
    if len(own.get("base_lrs", ())) != len(stored.get("base_lrs", ())):
        return f"it has {len(own['base_lrs'])} groups, in the checkpoint {len(stored['base_lrs'])}"
    return ""


def _data(made: Resume, saved: SavedRun, strict: Strict, data: Mapping[str, Any] | None, regrouped: str) -> None:
    stored: dict[str, Any] = saved.own("data") or {}
    made.expected = stored.get("loader") if strict == "exact" else None
    if strict == "exact" and data is not None and stored:
        rows = differences.by_key(stored["loader"], data, "data.")
        made.errors += differences.differs("the data loader", rows)
    if not saved.batch:
        return
    rng = saved.own("rng_state")
    if regrouped:
        why = regrouped
    elif "start" not in stored or rng is None:
        why = "the checkpoint does not say where its loader stood"
        if strict == "exact":
            made.errors.append(Diagnostic("resume-differs", f"{describe(saved.epoch, saved.step, saved.batch)}: {why}"))
    elif strict == "transfer" and data is not None and not differences.is_same(stored["loader"], data):
        why = "the data loader is another one"
    else:
        made.batch = saved.batch
        made.place = Place(saved.batch, stored["start"], rng, stored.get("state"))
        made.lines.append(Line("kept", "data", f"goes on at batch {saved.batch + 1:,} of epoch {saved.epoch + 1:,}"))
        return
    made.lines.append(Line("dropped", "data", f"epoch {saved.epoch + 1:,} begins anew: {why}"))


def check_rates(parts: Parts, saved: SavedRun) -> None:
    """Raise MatchError (resume-differs) where a scheduler left other learning rates than the file has."""
    for name, stored in saved.others.get("optimizer", {}).items():
        groups = zip(parts.optimizers[name].param_groups, stored.value["param_groups"], strict=False)
        for number, (live, group) in enumerate(groups):
            rows = [("lr", float(group["lr"]), float(live["lr"]))] if _is_number(group.get("lr")) else []
            found = differences.differs(f"the learning rate of group {number}", rows)
            if found:
                raise MatchError(*found)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
