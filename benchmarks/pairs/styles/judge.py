"""The judge: what a match fills from elsewhere than its own part, and what three answers make of it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.pairs.origin import origin
from benchmarks.pairs.styles.kinds import Pair
from loadstone.matching.structure import Match, Question, match
from loadstone.matching.structure.gathering import counts

MOST_ANSWERS = 3
_WORDS = re.compile(r"[^\s()+|,;]+")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A tensor that holds what belongs elsewhere."""

    target: str
    source: str
    grade: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a pair.

    Attributes:
        outcome: the verdict, or WRONG.
        is_equal: all that has its part in the source is filled.
        is_settled: the same after three answers at most, by someone who knows the truth.
        seconds: that the match without answers took.
        wrong: without answers, or with them.
    """

    outcome: str
    questions: int
    is_equal: bool
    is_settled: bool
    seconds: float
    wrong: tuple[Wrong, ...] = field(default=())


def judged(pair: Pair) -> Finding:
    started = time.perf_counter()
    found = match(pair.source.items, pair.target.items)
    seconds = time.perf_counter() - started
    bad = tuple(wrong(pair, found))
    final = answered(pair, found) if not bad else found
    bad = bad or tuple(wrong(pair, final))
    if pair.sort == "another":
        is_taken = found.verdict == "complete" or (found.verdict == "partial" and bad)
        if found.verdict == "complete" and not bad:
            bad = (Wrong("*", "*", "", "another network is complete"),)
        bad = bad if is_taken else ()
    outcome = "WRONG" if bad else found.verdict
    return Finding(outcome, len(found.questions), _is_equal(pair, found), _is_equal(pair, final), seconds, bad)


def wrong(pair: Pair, found: Match) -> Iterator[Wrong]:
    """Tensors of which an element comes from elsewhere than the same place of the same part."""
    shapes = {item.key: item.shape for item in pair.source.items}
    for item in pair.target.items:
        assignment = found.assignments.get(item.key)
        if assignment is None or item.key not in pair.target.truth:
            continue
        for element in _sample(math.prod(item.shape)):
            key, place = origin(assignment, item.shape, element, shapes)
            if key not in pair.source.truth:
                break
            want = pair.target.truth[item.key].place(item.shape, element)
            if pair.source.truth[key].place(shapes[key], place) != want:
                yield Wrong(item.key, key, assignment.grade, assignment.evidence)
                break


def answered(pair: Pair, found: Match) -> Match:
    """The match after the answers of someone who knows what belongs to the tensor that is asked about."""
    answers: dict[str, str] = {}
    passed: set[str] = set()
    for _ in range(MOST_ANSWERS):
        question = next((each for each in found.questions if each.target not in passed), None)
        if question is None:
            break
        passed.add(question.target)
        found = _answer(pair, question, answers) or found
    return found


def _answer(pair: Pair, question: Question, answers: dict[str, str]) -> Match | None:
    """The match with the first option that fills the tensor rightly, which is added to the answers."""
    for option in question.options:
        attempt = match(pair.source.items, pair.target.items, answers={**answers, question.target: option})
        said = frozenset(_WORDS.findall(option))  # whoever answers sees all that the option names
        is_right = all(each.source not in said and each.target != question.target for each in wrong(pair, attempt))
        if question.target in attempt.assignments and is_right:
            answers[question.target] = option
            return attempt
    return None


def _is_equal(pair: Pair, found: Match) -> bool:
    have = {stretch.part for content in pair.source.truth.values() for stretch in content.stretches}
    due = [
        item.key
        for item in pair.target.items
        if counts(item) and all(stretch.part in have for stretch in pair.target.truth[item.key].stretches)
    ]
    return found.assignments.keys() >= set(due)


def _sample(elements: int) -> list[int]:
    places = {0, 1, elements // 5, elements // 3 + 1, elements // 2, elements // 2 + 1, elements - 1}
    return sorted(place for place in places if place < elements)
