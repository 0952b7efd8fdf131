"""Answers: what a person said to the questions of a match by structure, read before and checked after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from loadstone.errors import Diagnostic, Fix
from loadstone.keys import nearest
from loadstone.matching.structure import Assignment
from loadstone.matching.structure.expressions import Shapes, expression, parse, sources_of, with_keys
from loadstone.matching.structure.writing import ORDERED


def read_answers(
    answers: Mapping[str, str], names: Mapping[str, str], shapes: Shapes
) -> tuple[dict[str, str], list[Diagnostic]]:
    """Answers in the names of the engine; a finding for each that cannot be read."""
    read: dict[str, str] = {}
    unread: list[Diagnostic] = []
    for target, text in answers.items():
        try:
            parse(text, target, shapes)
        except ValueError as error:
            unread.append(Diagnostic("answer-unfit", f"the answer `{target} = {text}` cannot be read: {error}"))
        else:
            read[target] = with_keys(text, names)
    return read, unread


def unfit_answers(
    answers: Mapping[str, str], assignments: Mapping[str, Assignment], slots: Mapping[str, object], keys: Shapes
) -> Iterator[Diagnostic]:
    """An answer that did not come to pass is an error: a person relies on it.

    Args:
        assignments: what was found, with the checkpoint's keys, by model key.
        slots: keys of the model.
        keys: shapes of the checkpoint's keys.
    """
    for target, text in answers.items():
        parts = sources_of(text)
        unknown = [key for key in parts if key not in keys]
        if target not in slots:
            message, near = f"`{target}` in `answers` is no key of the model", nearest(target, slots, 2)
        elif unknown:
            message, near = f"`{unknown[0]}` in `answers` is no key of the checkpoint", nearest(unknown[0], keys, 2)
        elif target not in assignments:
            message, near = f"the answer `{target} = {text}` fits neither shapes nor the other answers", []
        elif not _was_taken(assignments[target], parts, is_expression=" | " in text):
            now = expression(assignments[target], keys)
            message, near = f"the answer `{target} = {text}` was not taken: `{target}` is `{now}`", []
        else:
            continue
        yield Diagnostic("answer-unfit", message, fixes=tuple(Fix("did you mean", name) for name in near))


def _was_taken(assignment: Assignment, keys: Sequence[str], *, is_expression: bool) -> bool:
    return {taken.key for taken in assignment.sources} <= set(keys) and (
        not is_expression or ORDERED in assignment.evidence
    )
