"""The stage of a plan that goes by structure: what names did not settle, matched by layers, shapes and families.

The engine (structure/) knows keys, shapes and dtypes only.  Here candidates and slots become its items, and what it
found becomes candidates under the model's names again, so that casts, ties, adapters and findings stay what they are.
A tensor that is reshaped, turned, cut or joined on the way becomes a computed one.

What a person said about a key (`fresh`, `adapt`) is not put to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadstone.errors import Diagnostic, Fix
from loadstone.keys import parent
from loadstone.matching.aliases import may_be_left_over
from loadstone.matching.candidates import Candidate, shape_text
from loadstone.matching.migration import Compute, Read
from loadstone.matching.plan import Action
from loadstone.matching.schema import Schema, Slot
from loadstone.matching.settle import Computed
from loadstone.matching.structure.items import Assignment, Item, Match, Permute, Reshape, Step

_MOST_OPTIONS = 6  # of a question that are shown


@dataclass(slots=True)
class Structural:
    """What the engine made of the candidates.

    Attributes:
        candidates: under the model's names, as far as that is certain.
        computed: tensors that change on the way, by key in the model.
        lines: for sources that go into a target beside others, and for those without a place.
        findings: questions, and a refusal.
        match: the engine's own answer.
    """

    candidates: list[Candidate]
    computed: dict[str, Computed] = field(default_factory=dict)
    lines: list[Action] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)
    match: Match | None = None


def by_structure(
    schema: Schema,
    candidates: list[Candidate],
    is_decided: Callable[[str], bool],
    answers: Mapping[str, str],
    *,
    strict: bool,
) -> Structural:
    """Candidates under the model's names, by structure.

    Args:
        is_decided: whether a person said what happens to this key of the model.
        answers: {key of the model: name of the candidate} for the engine's questions.
    """
    from loadstone.matching.structure import match  # the engine is read only where it is asked

    free = [one for one in candidates if not (is_decided(one.name) and one.name in schema.slots)]
    free = [one for one in free if may_be_left_over(one, schema) is None]
    others = [one for one in candidates if one not in free] if len(free) < len(candidates) else []
    named = {one.name: one for one in free}
    wanted = [slot for slot in schema.slots.values() if not is_decided(slot.key)]
    found = match(
        [_source_item(one) for one in named.values()], [_target_item(slot, schema) for slot in wanted], answers=answers
    )
    if found.verdict == "refused":
        level = None if strict else "warning"
        refusal = Diagnostic("no-structural-match", f"no match by structure: {found.reason}", level=level)  # type: ignore[arg-type]
        return Structural(candidates, findings=[refusal], match=found)
    result = Structural(others, match=found)
    used = _place(result, found, named, schema)
    result.lines += [
        Action("unexpected", one.key, None, "no place by structure", _near(found, one.name))
        for one in named.values()
        if one.name not in used
    ]
    result.findings += _questions(found, strict=strict)
    return result


def _source_item(candidate: Candidate) -> Item:
    info = candidate.info
    storage = None if info.storage is None else f"{id(info.storage)}:{info.offset}:{info.shape}"
    return Item(candidate.name, info.shape, info.dtype, storage=storage)


def _target_item(slot: Slot, schema: Schema) -> Item:
    return Item(
        slot.key, slot.shape, slot.dtype, slot.kind, schema.modules.get(parent(slot.key)), slot.tied_to or slot.key
    )


def _place(result: Structural, found: Match, named: Mapping[str, Candidate], schema: Schema) -> set[str]:
    """Put every assignment into the result; gives the names that were used."""
    used: set[str] = set()
    for target, assignment in found.assignments.items():
        first = named[assignment.sources[0].key]
        how = f"by structure, {assignment.grade}"
        result.candidates.append(first if first.name == target else first.renamed(target, how))
        used.update(taken.key for taken in assignment.sources)
        if _is_plain(assignment):
            continue
        slot = schema.slots[target]
        result.computed[target] = Computed(
            _composed(assignment, {taken.key: named[taken.key].key for taken in assignment.sources}),
            first.info.dtype,
            slot.shape,
            "compose",
            _text(assignment, named, slot),
            assignment.evidence,
        )
        result.lines += [
            Action("joined", named[taken.key].key, None, how, f"goes into `{target}` beside `{first.key}`")
            for taken in assignment.sources[1:]
            if named[taken.key].key != first.key
        ]
    return used


def _is_plain(assignment: Assignment) -> bool:
    return len(assignment.sources) == 1 and not assignment.sources[0].steps and not assignment.steps


def _composed(assignment: Assignment, keys: Mapping[str, str]) -> Compute:
    """The function that makes the target's values out of those of its sources."""

    def compute(read: Read) -> Any:
        parts = [_carried_out(read(keys[taken.key]), taken.steps) for taken in assignment.sources]
        return _carried_out(parts[0] if len(parts) == 1 else _joined(parts), assignment.steps)

    return compute


def _carried_out(value: Any, steps: tuple[Step, ...]) -> Any:
    for step in steps:
        if isinstance(step, Reshape):
            value = value.reshape(step.shape)
        elif isinstance(step, Permute):
            value = value.permute(step.dims)
        else:
            value = value.narrow(0, step.start, step.length)
    return value


def _joined(parts: list[Any]) -> Any:
    """The parts one behind the other along the first axis, in new memory; by methods that every tensor has."""
    whole = parts[0].new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]))
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _text(assignment: Assignment, named: Mapping[str, Candidate], slot: Slot) -> str:
    """What happens to the values, in words."""
    shapes = [named[taken.key].info.shape for taken in assignment.sources]
    steps = [step for taken in assignment.sources for step in taken.steps] + list(assignment.steps)
    words = []
    if any(isinstance(step, Permute) for step in steps):
        words.append("transposed")
    if len(shapes) > 1:
        words.append(f"{len(shapes)} tensors joined")
    elif not all(isinstance(step, (Reshape, Permute)) for step in steps):
        words.append("a part of it")
    have = " + ".join(map(shape_text, dict.fromkeys(shapes)))
    return f"{' and '.join(words) or 'reshaped'}: {have} → {shape_text(slot.shape)}"


def _near(found: Match, name: str) -> str:
    return next((each.near for each in found.unmatched_source if each.key == name), "")


def _questions(found: Match, *, strict: bool) -> Iterator[Diagnostic]:
    """One diagnostic a question, with a line to paste for each answer."""
    level = None if strict else "warning"
    for question in found.questions:
        places = f", {question.places} places" if question.places > 1 else ""
        yield Diagnostic(
            "open-question",
            question.text + places,
            fixes=tuple(
                Fix(f"if it is `{option}`", f'answers={{"{question.target}": "{option}"}}', "unsafe")
                for option in question.options[:_MOST_OPTIONS]
            ),
            keys=(question.target,),
            level=level,  # type: ignore[arg-type]
        )
