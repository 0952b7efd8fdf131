"""Trials: what would follow from an answer that nobody has given yet.

An open question is worth more to a person who sees what waits for it.  So the engine is asked again with any answer in
its place; what then finds a partner waits for that question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loadstone.matching.structure import Item, Match, Question, match

_MOST_ROUNDS = 4  # questions that are answered on trial
_MOST_KEYS = 5_000  # on both sides together, for which that is done


class Engine:
    """The two sides as items, asked with more answers or fewer."""

    def __init__(self, source: list[Item], target: list[Item], answers: Mapping[str, str]) -> None:
        self._source = source
        self._target = target
        self._answers = answers
        self.match = match(source, target, answers=answers)
        self.size = len(source) + len(target)

    def answered(self, more: Mapping[str, str]) -> Match:
        return match(self._source, self._target, answers={**self._answers, **more})


@dataclass(slots=True)
class Trial:
    """What answers would settle: model key → (the question, the sources)."""

    settled: dict[str, tuple[str, list[str]]] = field(default_factory=dict)


def tried(engine: Engine, questions: Sequence[Question]) -> Trial:
    """Answer the open questions on trial, with any answer, to see what waits for them."""
    trial = Trial()
    if engine.size > _MOST_KEYS:
        return trial
    answers: dict[str, str] = {}
    last, open_ones = engine.match, list(questions)
    # of a refused match nothing is applied, so that all of it waits
    before = {} if last.verdict == "refused" else last.assignments
    for _ in range(_MOST_ROUNDS):
        question = next((each for each in open_ones if each.target not in answers and each.options), None)
        if question is None:
            break
        answers[question.target] = question.options[0]
        last = engine.answered(answers)
        for target, assignment in last.assignments.items():
            if target not in before:
                trial.settled.setdefault(target, (question.target, [taken.key for taken in assignment.sources]))
        open_ones = list(last.questions)
    return trial
