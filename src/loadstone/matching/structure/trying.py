"""Trying: what is open answered with the first option, one question after the other, to see what follows.

That is no answer.  It tells what waits for a question, whether two networks are the same once all is said, and what a
model computes while the other questions are open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from loadstone.matching.structure.items import Question


class _Asks(Protocol):
    @property
    def questions(self) -> Sequence[Question]: ...


Found = TypeVar("Found", bound=_Asks)


def answered(
    found: Found, again: Callable[[Mapping[str, str]], Found], answers: Mapping[str, str], most: int
) -> Iterator[tuple[Question, Found]]:
    """Each question that is open then, and what is found with its first option, at most so many.

    Args:
        found: what was found with `answers`.
        again: finds it with more of them.
    """
    for _ in range(most):
        question = next((each for each in found.questions if each.target not in answers and each.options), None)
        if question is None:
            return
        answers = {**answers, question.target: question.options[0]}
        found = again(answers)
        yield question, found
