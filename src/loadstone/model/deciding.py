"""Deciding: the open questions of a plan answered by running the model, until it computes what it should.

The questions are answered one after the other, in the order in which the model first uses what they are about; each
way to answer all of them is run once, in float64.  A way is taken only where the outputs are equal, so that nothing is
believed that was not seen.  Three things keep the number of runs near the number of questions:

    a look at both        with a reference, one run tells which module is which by what reaches them, see replaying;
                          what it tells is said first, also where the match went on from a right answer to a wrong pair
    where two runs part   all that the model used later is not to blame, so that other answers for it are not tried
    channels              where a module that parts was given the same channels in another order, that order is what is
                          missing: it becomes a rule, see channels

A tensor that finds no partner is no question: the model keeps its own values for it, and where the outputs are equal
all the same, the answers are right.  The plan goes on to say that it is missing.  Where the outputs cannot be equal,
because the head is another one, an answer is taken where all modules that both have are given the same and make the
same, and what some of them are given depends on it.

Where no option is right, a question may have other answers that make sense: gates in another order, q and k turned
head by head.  Those are tried after the options, see alternatives.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from loadstone.errors import Diagnostic, Fix, LoadstoneError, MatchError
from loadstone.matching.plan import Plan
from loadstone.matching.structure.expressions import expression
from loadstone.matching.structure.items import Question
from loadstone.model.alternatives import alternatives
from loadstone.model.channels import reordered
from loadstone.model.equality import apart, compared, where
from loadstone.model.exporting.examples import Example, example_of
from loadstone.model.observing import Parting, Watched, agree, first_tensor, module_pairs, parting, wide
from loadstone.model.origins import origins_of
from loadstone.model.replaying import Evidence, replayed

_MOST_ORDERS = 8  # of channels, one after the other, for one way to answer
_MOST_TOLD = 16  # times that a plan is made with answers that the look at both models told
_LACKING = ("missing-key", "shape-mismatch")  # what the model keeps its own values for, while it is run
Said = Mapping[str, str]
Again = Callable[[nn.Module, Said, Said], Plan]  # (model, answers, rules) → the plan with these said as well


@dataclass(frozen=True, slots=True)
class Decided:
    """What makes the model compute what it should: answers to questions, and rules for channels in another order."""

    answers: Said
    rules: Said


@dataclass(slots=True)
class _Best:
    """The attempt that came furthest."""

    finding: Diagnostic
    answers: Said
    reach: tuple[float, float]  # when it parted; and, where that is not known, how near its output was
    plan: Plan


def decided(
    again: Again, model: nn.Module, example_input: object, reference: nn.Module | None, outputs: object, forwards: int
) -> Decided:
    """The answers; the model is left alone, copies are run.

    Args:
        again: makes the plan for a copy of the model, with more answers and rules.
        reference, outputs: one of the two.
        forwards: how often the copy may be filled and run.

    Raises MatchError: function-differs where nothing was open, undecided where nothing that was tried is right, or what
    keeps the plan from being applied whatever is answered.
    """
    example = wide(example_of(example_input))
    trial = Watched.copy_of(model)
    theirs, expected = None, None
    if reference is not None:
        theirs = Watched.copy_of(reference)
        expected = theirs.run(example, "the reference")
    search = _Search(again, trial, theirs, first_tensor(outputs) if expected is None else expected, example, forwards)
    plan = again(trial.model, {}, {})
    if plan.questions:
        search.look(plan)
    else:
        search.below(plan, {})
        if search.found is None and plan.ok and theirs is not None:  # a pair that was settled may be a wrong one
            search.look(plan)
    if search.found is None:
        search.below(*search.told(plan))
    if search.found is None:
        search.below(plan, {})
    if search.found is None:
        raise search.failure(plan)
    return search.found


@dataclass(slots=True)
class _Search:
    again: Again
    trial: Watched
    theirs: Watched | None
    expected: torch.Tensor
    example: Example
    forwards: int
    spent: int = 0
    planned: int = 0
    found: Decided | None = None
    best: _Best | None = None
    unfit: Plan | None = None
    seen: Evidence | None = None
    is_cut_short: bool = False
    ways: dict[frozenset[tuple[str, str]], float] = field(default_factory=dict)  # answers → when it parted

    def look(self, plan: Plan) -> None:
        """Run once to see in which order the model uses its modules, and with a reference, which module is which."""
        if self.theirs is None:
            self.trial.run(self.example, "the model")
            return
        if plan.ok:
            plan.apply()
        settled = module_pairs(self.trial, self.theirs, origins_of(plan))
        self.seen = Evidence(replayed(self.trial, self.theirs, settled, self.example), self.theirs, plan.sources)

    def told(self, plan: Plan) -> tuple[Plan, Said]:
        """The plan with the answers that the look at both told, as far as they fit, and these."""
        answers: Said = {}
        for _ in range(_MOST_TOLD):
            found = {} if self.seen is None else self.seen.told(plan, answers)
            deeper = self.again(self.trial.model, {**answers, **found}, {}) if found else None
            if deeper is None or _is_unfit(deeper):
                break
            plan, answers = deeper, {**answers, **found}
        return plan, answers

    def below(self, plan: Plan, answers: Said) -> float:
        """Try what is open in a plan; gives when the best attempt parted, as far as earlier answers are to blame."""
        open_ones = _open(plan, answers)
        if not open_ones:
            way = frozenset(answers.items())
            if way not in self.ways:
                self.ways[way] = self._attempt(plan, answers)
            return self.ways[way]
        question = min(open_ones, key=lambda each: (self.trial.began(each.target), -each.places))
        latest = -math.inf
        for answer in self._answers(question, plan):
            if self.spent >= self.forwards or self.planned >= self.forwards:
                self.is_cut_short = True
                break
            self.planned += 1
            more = {**answers, question.target: answer}
            deeper = self.again(self.trial.model, more, {})
            if _is_unfit(deeper) and (answer not in question.options or not _open(deeper, more)):
                continue  # of a match that is refused nothing is taken, until more is answered
            parted = self.below(deeper, more)
            if self.found is not None:
                return math.inf
            touched = deeper.compositions.keys() - plan.compositions.keys()
            if parted < min(map(self.trial.began, touched), default=0):
                return parted  # before anything that this question is about
            latest = max(latest, parted)
        return latest if latest > -math.inf else math.inf

    def _answers(self, question: Question, plan: Plan) -> Iterator[str]:
        """The options, the one that the reference uses first coming first; then what else makes sense."""
        options, theirs = list(question.options), self.theirs
        if theirs is not None:
            options.sort(key=lambda option: theirs.began(option.partition(" + ")[0]))
        if self.seen is not None:
            options.sort(key=partial(self.seen.rank, question.target))
        yield from options
        models = (self.trial.model, None if theirs is None else theirs.model)
        for option in options:
            yield from alternatives(question, option, plan, models)

    def _attempt(self, plan: Plan, answers: Said) -> float:
        """Run the model as the plan fills it; gives when it parts from the reference, infinity where nobody knows."""
        rules: dict[str, str] = {}
        theirs = copy.copy(self.theirs)
        if theirs is not None:
            theirs.calls = dict(theirs.calls)
        for _ in range(_MOST_ORDERS):
            if not plan.ok:
                self.unfit = self.unfit or plan
                return math.inf
            if self.spent >= self.forwards:
                self.is_cut_short = True
                return math.inf
            plan.apply()
            self.spent += 1
            try:
                found = self.trial.run(self.example, "the model")
            except MatchError as error:
                self._note(error.diagnostics[0], answers, (-1.0, 0.0), plan)
                return math.inf
            if compared(self.expected, found, "is expected") is not None:
                idle = [target for target in answers if not self._matters(target, found)]
                if idle:
                    raise MatchError(_unproven(idle[0]), plan=plan)
                self.found = Decided(answers, rules)
                return math.inf
            if theirs is None:
                finding = apart(self.expected, found, "the output that was given", ())
                self._note(finding, answers, (0.0, -_share(self.expected, found)), plan)
                return math.inf
            pairs = module_pairs(self.trial, theirs, origins_of(plan))
            place = parting(self.trial, theirs, pairs)
            finding = where(self.trial, theirs, pairs, place, self.expected, found, "the reference")
            if place is None and _lacks(plan) and self._is_shown(answers, pairs, theirs):
                self.found = Decided(answers, rules)
                return math.inf
            parted = math.inf if place is None else float(place.position)
            self._note(finding, answers, (parted, -_share(self.expected, found)), plan)
            more = None if place is None else self._orders(plan, place, theirs)
            if not more:
                return parted
            rules |= more
            plan = self.again(self.trial.model, answers, rules)
        return math.inf

    def _matters(self, target: str, before: torch.Tensor) -> bool:
        """The output changes with the tensor; where it does not, that it is right says nothing of the answer."""
        return compared(before, self._shaken(target), "") is None

    def _is_shown(self, answers: Said, pairs: Mapping[str, str], theirs: Watched) -> bool:
        """Without equal outputs, as behind another head: what reaches modules is the same, and each answer shows."""
        both = [(path, other) for path, other in pairs.items() if path in self.trial.calls and other in theirs.calls]
        given = {path: self.trial.calls[path].given for path, _ in both}
        same = [path for path, other in both if agree(given[path], theirs.calls[other].given) is True]
        for target in answers:
            self._shaken(target)
            now = (self.trial.calls.get(path) for path in same)
            if all(call is None or agree(given[path], call.given) for path, call in zip(same, now, strict=True)):
                return False
        return bool(same)

    def _shaken(self, target: str) -> torch.Tensor:
        """The output with other values in that tensor, which it has no more afterwards."""
        tensor = self.trial.model.state_dict()[target]
        kept = tensor.clone()
        noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(kept)
        tensor.add_(noise * (kept.std(correction=0) + 1e-3))
        try:
            return self.trial.run(self.example, "the model")
        finally:
            tensor.copy_(kept)

    def _orders(self, plan: Plan, place: Parting, theirs: Watched) -> dict[str, str] | None:
        """Rules for the tensors of a module that was given channels in another order; None where it was not."""
        call = theirs.calls[place.other]
        found = reordered(self.trial.modules[place.path], self.trial.calls[place.path], call)
        if found is None:
            return None
        if found.out is not None and call.made is not None:  # what follows gets them in that order, too
            order = torch.tensor(found.order, device=call.made.device)
            theirs.calls[place.other] = replace(call, made=call.made.index_select(found.out, order))
        shapes = {key: info.shape for key, info in plan.sources.items()}
        origins = origins_of(plan)
        keys = {f"{place.path}.{name}".lstrip("."): step for name, step in found.steps.items()}
        taken = {source.key for key in keys for source in origins[key].sources}
        beside = [key for key, origin in origins.items() if any(source.key in taken for source in origin.sources)]
        return {  # a rule takes its sources from all that is not said by rules
            key: expression(origins[key], shapes) + (f" | {keys[key]}" if key in keys else "") for key in beside
        }

    def _note(self, finding: Diagnostic, answers: Said, reach: tuple[float, float], plan: Plan) -> None:
        if self.best is None or reach > self.best.reach:
            self.best = _Best(finding, answers, reach, plan)

    def failure(self, plan: Plan) -> LoadstoneError:
        """The error: what came nearest, and what was spent."""
        if self.best is None:
            unfit = self.unfit or plan
            errors = [finding for finding in unfit.diagnostics if finding.severity == "error"]
            return MatchError(*errors, summary="whatever is answered, the plan cannot be applied", plan=unfit)
        lacking = [replace(each, level=None) for each in self.best.plan.diagnostics if each.code in _LACKING]
        if not plan.questions:
            return MatchError(self.best.finding, *lacking, plan=plan)
        tried = f"{self.spent:,} of {self.forwards:,} forward passes"
        what = "1 question" if len(plan.questions) == 1 else f"{len(plan.questions):,} questions"
        message = f"no answer that was tried to {what} makes the model compute what it should, after {tried}"
        evidence = [("nearest", f"{target} = {answer}") for target, answer in self.best.answers.items()]
        evidence += [("there", self.best.finding.message), *self.best.finding.evidence]
        fixes = (Fix("try more", f"forwards={4 * self.forwards}"),) if self.is_cut_short else ()
        return MatchError(Diagnostic("undecided", message, tuple(evidence), fixes), *lacking, plan=plan)


def _unproven(target: str) -> Diagnostic:
    message = f"the output for this input does not depend on `{target}`, so that running proves no answer about it"
    return Diagnostic("undecided", message, fixes=(Fix("take another input", "plan.decide(…)"),), keys=(target,))


def _is_unfit(plan: Plan) -> bool:
    return any(finding.code == "answer-unfit" for finding in plan.diagnostics)


def _lacks(plan: Plan) -> bool:
    """There are tensors without partner, so that the two need not compute the same in the end."""
    return bool(plan.missing_keys or plan.unexpected_keys or plan.mismatched_keys)


def _open(plan: Plan, answers: Said) -> list[Question]:
    return [question for question in plan.questions if question.target not in answers]


def _share(expected: torch.Tensor, found: torch.Tensor) -> float:
    if expected.numel() != found.numel():
        return math.inf
    difference = (expected.double().flatten() - found.double().flatten()).abs().max()
    return float(difference.nan_to_num(nan=math.inf))
