"""Sensing: which open questions matter for an input, without another model to compare with.

A question is moot where the model computes the same whatever is answered: the tensors are equal, or the function does
not tell them apart.  Copies are filled with one answer after the other, the first option for all other questions, and
the outputs are compared in float64.  That a question matters says nothing of which answer is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from loadstone.errors import MatchError
from loadstone.matching.plan import Plan
from loadstone.matching.probed import Sensitivity
from loadstone.matching.structure.items import Question
from loadstone.matching.structure.trying import answered
from loadstone.model.alternatives import alternatives
from loadstone.model.deciding import Again, Said
from loadstone.model.equality import TOLERANCE, compared
from loadstone.model.exporting.comparing import how_far
from loadstone.model.exporting.examples import Example, example_of
from loadstone.model.observing import Watched, wide

_MOST_OPTIONS = 6  # of one question that are tried
_MOST_QUESTIONS = 32


def sensed(again: Again, trial: Watched, example_input: object) -> tuple[Sensitivity, ...]:
    """One for each question that has two answers which can be applied, in the order in which they are asked.

    Raises MatchError where the plan cannot be applied with the first option of every question.
    """
    example = wide(example_of(example_input))
    plan, answers, questions = _answered(again, trial, {})
    if not plan.ok:
        errors = [finding for finding in plan.diagnostics if finding.severity == "error"]
        raise MatchError(
            *errors, summary="with the first answer to every question the plan cannot be applied", plan=plan
        )
    before = _run(plan, trial, example)
    found = []
    for question in questions:
        tried, apart = [question.options[0]], 0.0
        for option in islice(_others(question, plan, trial), _MOST_OPTIONS - 1):
            other, _, _ = _answered(again, trial, {**answers, question.target: option})
            if other.ok:
                tried.append(option)
                apart = max(apart, _apart(before, _run(other, trial, example)))
        if len(tried) > 1:
            found.append(Sensitivity(question, tuple(tried), apart, apart <= TOLERANCE))
    return tuple(found)


def _answered(again: Again, trial: Watched, answers: Said) -> tuple[Plan, Said, Sequence[Question]]:
    """The plan with nothing open: what is not answered gets its first option; and what that was."""
    plan = again(trial.model, answers, {})
    trials = list(answered(plan, lambda said: again(trial.model, said, {}), answers, _MOST_QUESTIONS))
    questions = [question for question, _ in trials]
    said = {question.target: question.options[0] for question in questions}
    return trials[-1][1] if trials else plan, {**answers, **said}, questions


def _others(question: Question, plan: Plan, trial: Watched) -> Iterator[str]:
    yield from question.options[1:]
    yield from alternatives(question, question.options[0], plan, (trial.model,))


def _run(plan: Plan, trial: Watched, example: Example) -> torch.Tensor:
    plan.apply()
    return trial.run(example, "the model")


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    result = compared(one, other, "")
    if result is not None:
        return result.max_relative
    return how_far(one, other)[1] if one.shape == other.shape else float("inf")
