"""Questions of a structural match and answers to them, in the keys of the file and of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from loadstone.errors import Diagnostic, Fix
from loadstone.keys import nearest
from loadstone.matching.schema import Schema
from loadstone.matching.structure import Assignment, Question
from loadstone.matching.structure.expressions import expression, parse, sources_of, with_keys
from loadstone.matching.structure.orders import BY_ORDER, EVERY
from loadstone.matching.structure.writing import ORDERED

_ORDER = f'answers={{"{EVERY}": "{BY_ORDER}"}}'
_MOST_OPTIONS = 6  # of a question that are shown


def read_answers(
    answers: Mapping[str, str], names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, str], list[Diagnostic]]:
    """Answers in the names of the engine; a finding for each that cannot be read."""
    read: dict[str, str] = {}
    unread: list[Diagnostic] = []
    for target, text in answers.items():
        if not text or (target, text) == (EVERY, BY_ORDER):
            read[target] = text
            continue
        if target == EVERY:
            message = f"of `{EVERY}` only `{BY_ORDER}` can be said, not `{text}`"
            unread.append(Diagnostic("answer-unfit", message, fixes=(Fix("the order of keys", _ORDER, "unsafe"),)))
            continue
        try:
            parse(text, target, shapes)
        except ValueError as error:
            unread.append(Diagnostic("answer-unfit", f"the answer `{target} = {text}` cannot be read: {error}"))
        else:
            read[target] = with_keys(text, names)
    return read, unread


def in_the_file(question: Question, keys: Mapping[str, str]) -> Question:
    """The same question, its options over keys of the checkpoint; `keys`: by the names of the engine."""
    return replace(question, options=tuple(with_keys(option, keys) for option in question.options))


def open_questions(questions: Sequence[Question], waits: Mapping[str, str], *, strict: bool) -> Iterator[Diagnostic]:
    """One diagnostic a question, with a line to paste for each answer."""
    level = None if strict else "warning"
    for question in questions:
        waiting = sum(why.endswith(f"about `{question.target}`") for why in waits.values())
        options = question.options
        evidence = [("model", question.target)]
        if question.places > 1 or waiting:
            places = f"{question.places:,} places like it" if question.places > 1 else "this place"
            tensors = f", {waiting:,} {'tensor' if waiting == 1 else 'tensors'}" if waiting else ""
            evidence.append(("settles", places + tensors))
        if len(options) > _MOST_OPTIONS:
            evidence.append(("options", f"{len(options):,}, of which {_MOST_OPTIONS} are shown"))
        yield Diagnostic(
            "open-question",
            question.text,
            tuple(evidence),
            tuple(
                Fix(
                    "if it is so" if len(options) == 1 else f"if it is `{option}`",
                    f"answers={{{question.target!r}: {option!r}}}".replace("'", '"'),
                    "unsafe",
                )
                for option in options[:_MOST_OPTIONS]
            ),
            (question.target,),
            level,  # type: ignore[arg-type]
        )


def _was_taken(assignment: Assignment, keys: Sequence[str], *, is_expression: bool) -> bool:
    taken = {one.key for one in assignment.sources}  # one of them stands for all that are joined
    return (taken <= set(keys) or taken >= set(keys)) and (not is_expression or ORDERED in assignment.evidence)


def unfit_answers(
    answers: Mapping[str, str], found: Mapping[str, Assignment], schema: Schema, keys: Mapping[str, tuple[int, ...]]
) -> Iterator[Diagnostic]:
    """An answer that did not come to pass is an error: a person relies on it."""
    for target, text in answers.items():
        if target == EVERY:
            continue
        parts = sources_of(text) if text else []
        unknown = [key for key in parts if key not in keys]
        if target not in schema.slots:
            message, near = f"`{target}` in `answers` is no key of the model", nearest(target, schema.slots, 2)
        elif unknown:
            message, near = f"`{unknown[0]}` in `answers` is no key of the checkpoint", nearest(unknown[0], keys, 2)
        elif not text and target not in found:
            continue
        elif target not in found:
            message, near = f"the answer `{target} = {text}` fits neither shapes nor the other answers", []
        elif not _was_taken(found[target], parts, is_expression=" | " in text):
            now = expression(found[target], keys)
            message, near = f"the answer `{target} = {text}` was not taken: `{target}` is `{now}`", []
        else:
            continue
        yield Diagnostic("answer-unfit", message, fixes=tuple(Fix("did you mean", name) for name in near))
