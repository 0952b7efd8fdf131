"""Someone who answers: a person who knows the certified mapping, and a machine that runs both models.

The person is asked at most three questions.  Of an answer they know one thing, whether the one tensor it is about
then gets the certified values; what the answer does everywhere else is Loadstone's affair.

The machine accepts a full match only where the outputs of both models are equal, and tries the answers to open
questions one after the other, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import methods as folder  # type: ignore[import-not-found]  # these five are the folder's own
import torch
import verify  # type: ignore[import-not-found]
from common import first_tensor, ignorable, rel_diff  # type: ignore[import-not-found]
from core import call  # type: ignore[import-not-found]
from oracle import transfer as certified_transfer  # type: ignore[import-not-found]
from torch import nn

import loadstone as ls

MOST_QUESTIONS = 3
MOST_FORWARDS = 32
_MOST_PLANS = 64

Given = dict[str, Any]
State = dict[str, torch.Tensor]


def certified(built: Any) -> State:
    """What a right transfer puts into each key of the target; nothing where no oracle says so."""
    pair = built.pair
    if pair.kind == "negative":
        return {}
    if pair.kind == "partial":
        expected = verify.expected(built)
        return {key: value for key, value in expected.items() if isinstance(value, torch.Tensor)}
    own = built.tgt.state_dict()
    if hasattr(pair.oracle, "state"):
        state = pair.oracle.state(built.native, own)
    else:
        try:
            state = certified_transfer(built.native, own, *built.specs())
        except Exception:  # a fresh pair without a table: equal output is its only certificate
            return _certified_by_output(built)
    return {key: value.reshape(own[key].shape) for key, value in state.items() if not ignorable(key, own[key])}


def _certified_by_output(built: Any) -> State:
    """The state with which the target computes what the source computes, where trying finds one."""
    before = {key: value.clone() for key, value in built.tgt.state_dict().items()}
    found: State = {}
    for plan in full_matches(built.given, built.tgt, forwards=MOST_FORWARDS):
        plan.apply()
        if _computes_the_same(plan, built):
            state = built.tgt.state_dict()
            found = {str(action.target): state[str(action.target)].clone() for action in plan.loaded}
            break
    _put(built.tgt, before)
    return found


def wrongly_filled(given: Given, target: nn.Module, right: State) -> list[str]:
    """Keys that a load with `strict=False` fills with other values than the certified ones."""
    filled = _filled(given, target, {})
    return [key for key, value in filled.items() if key in right and not torch.equal(value, right[key])]


def differing(model: nn.Module, keys: Iterable[str], right: State) -> list[str]:
    """Those of the keys whose values are not the certified ones."""
    own = model.state_dict()
    return [key for key in keys if key in right and not torch.equal(own[key], right[key])]


def answered(given: Given, target: nn.Module, right: State) -> tuple[int, dict[str, str]]:
    """How many questions were asked, and the answers to them."""
    answers: dict[str, str] = {}
    passed: set[str] = set()
    for asked in range(MOST_QUESTIONS):
        plan = ls.plan(target, given, match="structure", answers=answers, strict=False)
        question = next((each for each in plan.questions if each.target not in passed), None)
        if question is None:
            return asked, answers
        for option in question.options:
            if _is_right(given, target, right, question.target, {**answers, question.target: option}):
                answers[question.target] = option
                break
        else:
            passed.add(question.target)
    return MOST_QUESTIONS, answers


def _is_right(given: Given, target: nn.Module, right: State, key: str, answers: Mapping[str, str]) -> bool:
    filled = _filled(given, target, answers)
    if filled:
        return key in filled and key in right and torch.equal(filled[key], right[key])
    value = given.get(answers[key])  # too little is settled yet to load anything: the person looks at the tensor itself
    if key not in right or not isinstance(value, torch.Tensor) or value.numel() != right[key].numel():
        return False
    return torch.equal(value.reshape(right[key].shape), right[key])


def _filled(given: Given, target: nn.Module, answers: Mapping[str, str]) -> State:
    """What a load that goes as far as it can puts where; the target is as before afterwards."""
    plan = ls.plan(target, given, match="structure", answers=answers, strict=False)
    if not plan.ok:
        return {}
    before = {key: value.clone() for key, value in target.state_dict().items()}
    plan.apply()
    state = target.state_dict()
    filled = {str(action.target): state[str(action.target)].clone() for action in plan.loaded}
    _put(target, before)
    return filled


@torch.no_grad()
def _put(model: nn.Module, state: State) -> None:
    own = model.state_dict()
    for key, value in state.items():
        own[key].copy_(value)


def confirmed(given: Given, target: nn.Module, built: Any, transfer: Callable[..., Any]) -> tuple[Any, int]:
    """`plan.decide`: the match that computes what the source computes, else what is certain without claiming all of it;
    nothing where a full one was run and does not.  And how often the target was run."""
    plan = ls.plan(target, given, match="structure")
    _RUNS.clear()
    with _called(target, built.pair.target.run, _count), _called(built.src, built.pair.source.run):
        try:
            decided = plan.decide((built.x,), reference=built.src, forwards=MOST_FORWARDS)
        except ls.MatchError as error:
            is_whole = not (plan.missing_keys or plan.unexpected_keys)
            was_run = error.code in ("undecided", "function-differs") and is_whole
            return (None if was_run else transfer(given, target)), len(_RUNS)
    if not decided.ok:  # it answers what is open; a tensor without partner still has none
        return transfer(given, target, decided.recipe_options.get("answers")), len(_RUNS)
    decided.apply()
    return folder.Outcome(None, full=True), len(_RUNS)


_RUNS: list[None] = []


def _count() -> None:
    _RUNS.append(None)


@contextmanager
def _called(model: nn.Module, run: Callable[..., Any], before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The model as one that takes the pair's input: whoever calls it, or a copy of it, calls it the pair's way."""
    kind = type(model)

    def forward(self: Any, *args: Any, **words: Any) -> Any:
        if self.__dict__.get("_is_inside"):
            return kind.forward(self, *args, **words)
        before()
        self.__dict__["_is_inside"] = True
        try:
            return first_tensor(run(self, *args))
        finally:
            self.__dict__["_is_inside"] = False

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    try:
        yield
    finally:
        model.__class__ = kind


def full_matches(given: Given, target: nn.Module, *, forwards: int) -> Iterator[Any]:
    """Plans that would load everything, at most `forwards`: without an answer, or with each answer to the questions."""
    waiting: list[dict[str, str]] = [{}]
    for _ in range(_MOST_PLANS):
        if not waiting or not forwards:
            return
        answers = waiting.pop(0)
        plan = ls.plan(target, given, match="structure", answers=answers)
        if plan.ok:
            forwards -= 1
            yield plan
            continue
        question = next((each for each in plan.questions if each.target not in answers), None)
        if question is not None:
            waiting += [{**answers, question.target: option} for option in question.options]


def _computes_the_same(plan: Any, built: Any) -> bool:
    """By `plan.check` where both are called with the input alone, else by the pair's own way to call them."""
    pair = built.pair
    if pair.source.run is call and pair.target.run is call:
        try:
            plan.check(built.x, reference=built.src)
        except ls.LoadstoneError:
            return False
        return True
    try:
        return bool(rel_diff(built.target_out(), built.y) <= pair.tol)
    except Exception:  # the target cannot even be run on this input
        return False
