"""Our methods, for the runner of the pairs: `python run.py --extra methods.py --methods loadstone,…`.

A full transfer is claimed where `ls.load(model, checkpoint, match="structure")` would have gone through; everything
less is applied as far as it goes with `strict=False` and claims nothing.  The variants show the same method other
names, another order and another process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import methods as folder  # type: ignore[import-not-found]  # the pairs' own
from torch import nn

import loadstone as ls
from benchmarks.pairs import asking, notes, variants

Given = dict[str, Any]
Method = TypeVar("Method", bound=Callable[..., Any])
Outcome = folder.Outcome


def method(name: str, *, needs_models: bool = False) -> Callable[[Method], Method]:
    """Register with the runner."""

    def register(function: Method) -> Method:
        folder.method(name, needs_models)(function)
        return function

    return register


def transfer(given: Given, target: nn.Module, answers: Mapping[str, str] | None = None) -> Any:
    """Load as far as it goes without a guess."""
    plan = ls.plan(target, given, match="structure", answers=answers)
    if plan.ok:
        plan.apply()
        return Outcome(None, full=True)
    plan = ls.plan(target, given, match="structure", answers=answers, strict=False)
    if not plan.ok:
        raise ValueError(", ".join(dict.fromkeys(finding.code for finding in plan.diagnostics)))
    plan.apply()
    return Outcome(None, plan.missing_keys, plan.unexpected_keys, full=False)


@method("loadstone")
def at_default_grades(given: Given, target: nn.Module) -> Any:
    return transfer(given, target)


@method("loadstone+answers", needs_models=True)
def with_answers(given: Given, target: nn.Module, context: Any) -> Any:
    """At most three questions, answered by someone who knows the certified mapping."""
    built = context.run_target.__self__
    certified = asking.certified(built)
    plan = ls.plan(target, given, match="structure")
    note: dict[str, object] = {"plan": digest(plan), "asked": 0, "answers": {}}
    if plan.ok:
        plan.apply()
        note["wrong"] = asking.differing(target, [str(action.target) for action in plan.loaded], certified)
        outcome = Outcome(None, full=True)
    else:
        note["wrong"] = asking.wrongly_filled(given, target, certified)
        asked, answers = asking.answered(given, target, certified)
        note |= {"asked": asked, "answers": answers}
        outcome = transfer(given, target, answers) if answers else None
    notes.write(built.pair.name, "loadstone+answers", note)
    return outcome or transfer(given, target)


@method("loadstone+reference", needs_models=True)
def with_reference(given: Given, target: nn.Module, context: Any) -> Any:
    """Nothing is claimed that the two models' outputs do not confirm; open questions are tried."""
    built = context.run_target.__self__
    outcome, forwards = asking.confirmed(given, target, built, transfer)
    notes.write(built.pair.name, "loadstone+reference", {"forwards": forwards, "confirmed": outcome is not None})
    if outcome is None:
        raise ValueError(f"the outputs differ, {forwards} ways tried")
    return outcome


@method("loadstone shuffled")
def with_another_order(given: Given, target: nn.Module) -> Any:
    """Both sides in a random order; the model's is put back before anything runs."""
    shuffled = variants.shuffled(given)
    with variants.registered_otherwise(target):
        plan = ls.plan(target, shuffled, match="structure")
        if not plan.ok:
            plan = ls.plan(target, shuffled, match="structure", strict=False)
        if not plan.ok:
            raise ValueError("not settled")
        full = not (plan.missing_keys or plan.unexpected_keys or plan.mismatched_keys or plan.ambiguous_keys)
        plan.apply()
    return Outcome(None, plan.missing_keys, plan.unexpected_keys, full=full)


@method("loadstone hashed")
def with_hashed_names(given: Given, target: nn.Module) -> Any:
    """Every token of the source's names replaced by a hash of it."""
    return transfer(variants.hashed(given), target)


@method("loadstone again", needs_models=True)
def in_another_process(given: Given, target: nn.Module, context: Any) -> Any:
    """The plan alone, for another PYTHONHASHSEED to give the same bytes."""
    notes.write(
        context.run_target.__self__.pair.name,
        "loadstone again",
        {"plan": digest(ls.plan(target, given, match="structure"))},
    )
    raise ValueError("a plan only")


def digest(plan: ls.Plan) -> str:
    """Of the whole plan, as JSON."""
    return hashlib.sha256(plan.to_json().encode()).hexdigest()
