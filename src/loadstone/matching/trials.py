"""Trials: what would follow from an answer that nobody has given yet.

An open question is worth more to a person who sees what waits for it.  So the engine is asked again with any answer in
its place; what then finds a partner waits for that question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from loadstone.matching.structure import Item, Match, match
from loadstone.matching.structure.trying import answered

_MOST_ROUNDS = 4  # questions that are answered on trial
_MOST_KEYS = 5_000  # on both sides together, for which that is done

Waiting: TypeAlias = dict[str, tuple[str, list[str]]]  # model key → (the key that is asked about, the sources)


def waiting(found: Match, source: Sequence[Item], target: Sequence[Item], answers: Mapping[str, str]) -> Waiting:
    """What finds a partner once the questions of a match are answered, in whatever way.

    Args:
        found: the match of `source` and `target` with `answers`.
    """
    waits: Waiting = {}
    if len(source) + len(target) > _MOST_KEYS:
        return waits
    # of a refused match nothing is applied, so that all of it waits
    before = {} if found.verdict == "refused" else found.assignments
    trials = answered(found, lambda said: match(source, target, answers=said), answers, _MOST_ROUNDS)
    for question, then in trials:
        for key, assignment in then.assignments.items():
            if key not in before:
                waits.setdefault(key, (question.target, [taken.key for taken in assignment.sources]))
    return waits
