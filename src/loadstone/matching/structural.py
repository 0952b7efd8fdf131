"""The stage of a plan that goes by structure: what names did not settle, matched by layers, shapes and families.

The engine (structure/) knows keys, shapes and dtypes only.  Here candidates and slots become its items, and what it
found becomes candidates under the model's names again, so that casts, ties, adapters and findings stay what they are.
A tensor that is reshaped, turned, cut or joined on the way becomes a computed one.

    a person's word     `fresh`, `adapt` and what the model's own hooks make are not put to the engine
    rules of a recipe   come before the engine, key by key, and take the sources they name
    the engine          says the rest, or asks, or refuses; refused, nothing goes by names either
    what has no place   keeps its name only where that cannot fill anything unasked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from loadstone.errors import Diagnostic, Fix
from loadstone.keys import nearest, parent
from loadstone.matching.aliases import may_be_left_over
from loadstone.matching.answers import in_the_file, open_questions, read_answers, unfit_answers
from loadstone.matching.candidates import Candidate
from loadstone.matching.composing import composed, is_plain
from loadstone.matching.key_rules import KeyRule, expand
from loadstone.matching.options import Options
from loadstone.matching.plan import Action
from loadstone.matching.schema import Schema, Slot
from loadstone.matching.selection import Patterns
from loadstone.matching.settle import Computed
from loadstone.matching.step_shapes import tidied
from loadstone.matching.structure import GRADES, Assignment, Item, Match, Question, match
from loadstone.matching.structure.expressions import sources_of, with_keys
from loadstone.matching.structure.folding import undivided
from loadstone.matching.structure.tables import is_table
from loadstone.matching.structure.ties import ties
from loadstone.matching.trials import Waiting, waiting
from loadstone.matching.wholeness import not_once


@dataclass(slots=True)
class Structural:
    """What the engine made of the candidates.

    Attributes:
        candidates: under the model's names, as far as that is certain.
        unplaced: candidates that nothing takes although their names are the model's.
        computed: tensors that change on the way, by key in the model.
        lines: for sources that go into a target beside others, or wait for an answer.
        waiting: model key → why it waits for an answer.
        kept: model key → how and why it keeps the values it has.
        nearest: model key without a source → what comes nearest to it.
        findings: questions, a refusal, rules and answers that do not fit.
        questions: what is open, with the checkpoint's keys.
        admissible: log10 of the number of ways to pair what is open.
        assignments: what was found, with the checkpoint's keys, by model key.
        is_refused: these are probably not the same network.
    """

    candidates: list[Candidate]
    unplaced: list[Candidate] = field(default_factory=list)
    computed: dict[str, Computed] = field(default_factory=dict)
    lines: list[Action] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    kept: dict[str, tuple[str, str]] = field(default_factory=dict)
    nearest: dict[str, str] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)
    questions: tuple[Question, ...] = ()
    admissible: float = 0.0
    assignments: dict[str, Assignment] = field(default_factory=dict)
    is_refused: bool = False


def by_structure(
    schema: Schema, candidates: list[Candidate], is_decided: Callable[[str], bool], options: Options
) -> Structural:
    """Candidates under the model's names, by the rules of a recipe and by structure.

    Args:
        is_decided: whether a person, or the model's own hook, says what happens to this key of the model.
    """
    free = [
        one
        for one in candidates
        if not (one.name in schema.slots and is_decided(one.name)) and may_be_left_over(one, schema) is None
    ]
    kept = {id(one) for one in free}
    result = Structural([one for one in candidates if id(one) not in kept])
    slots = {key: slot for key, slot in schema.slots.items() if not is_decided(key)}
    led = _led(free, slots, schema, result)
    names = led.names
    named = {name: one for name, one in led.named.items() if name not in led.spare}
    said = {led.copies.get(target, target): text for target, text in options.answers.items()}
    answers, unread = read_answers(said, names, {one.key: one.info.shape for one in free})
    found = match(led.sources, led.targets, answers=answers)
    shapes = {name: one.info.shape for name, one in named.items()}
    ruled = _ruled(result, options.rules, slots, names, {one.key: one.info.shape for one in free})
    used: dict[str, None] = {taken.key: None for one in ruled.values() for taken in one.sources}
    for target, assignment in ((key, tidied(one, shapes)) for key, one in found.assignments.items()):
        rule = ruled.get(target)
        if rule is not None:
            is_same = (rule.sources, rule.steps) == (assignment.sources, assignment.steps)
            ruled[target] = assignment if is_same else rule
        elif found.verdict != "refused" and not any(taken.key in used for taken in assignment.sources):
            ruled[target] = assignment
    _place(result, {key: ruled[key] for key in schema.slots if key in ruled}, named, schema)
    questions = [each for each in found.questions if each.target not in ruled]
    if found.verdict == "refused" and not ruled:
        result.is_refused = True
        result.findings.append(
            Diagnostic("no-structural-match", f"no match by structure: {found.reason}", level="error")
        )
    else:
        asked = replace(found, questions=tuple(questions))
        _wait(result, {} if options.is_trial else waiting(asked, led.sources, led.targets, answers), named)
        keys = {name: one.key for name, one in named.items()}
        result.questions = tuple(in_the_file(question, keys) for question in questions)
        # what rules say is not counted: with no question left, nothing is open
        result.admissible = found.admissible if questions or not options.rules else 0.0
        result.findings += open_questions(result.questions, result.waiting, strict=options.strict)
    whole = (one for key, one in result.assignments.items() if schema.slots[key].tied_to is None)
    result.findings += not_once(whole, {one.key: one.info.shape for one in candidates})
    result.nearest |= undivided(found)
    left = _resized(result, found, named, slots, options)
    _leave(result, left, schema)
    result.findings += unread
    readable = {target: with_keys(text, led.standing) for target, text in said.items() if target in answers}
    result.findings += unfit_answers(
        readable, result.assignments, schema, {one.key: one.info.shape for one in candidates}
    )
    return result


def fitting(schema: Schema, candidates: Sequence[Candidate]) -> Match:
    """What the engine says where nobody decided anything: for a note on a plan by names."""
    sources = [_source_item(one, {}) for one in candidates]
    return match(sources, [_target_item(slot, schema) for slot in _leaders(schema)])


def _source_item(candidate: Candidate, memories: Mapping[str, str]) -> Item:
    info = candidate.info
    return Item(candidate.name, info.shape, info.dtype, storage=memories.get(candidate.key))


def _target_item(slot: Slot, schema: Schema) -> Item:
    module, memory = schema.modules.get(parent(slot.key)), slot.tied_to or slot.key
    return Item(slot.key, slot.shape, slot.dtype, slot.kind, module, memory)


def _leaders(schema: Schema) -> list[Slot]:
    return [slot for slot in schema.slots.values() if slot.tied_to is None]


@dataclass(frozen=True, slots=True)
class _Led:
    """Both sides with one name for each memory that has several, and the other names, each with that one.

    All names go to the engine where the other side has as many tensors: a tied pair into an untied one.
    """

    named: dict[str, Candidate]
    sources: list[Item]
    targets: list[Item]
    spare: dict[str, str]
    copies: dict[str, str]

    @property
    def names(self) -> dict[str, str]:
        """The engine's name for every key of the file."""
        return {one.key: self.spare.get(name, name) for name, one in self.named.items()}

    @property
    def standing(self) -> dict[str, str]:
        """The key that stands for every key of the file."""
        return {one.key: self.named[self.spare.get(name, name)].key for name, one in self.named.items()}


def _led(free: list[Candidate], slots: Mapping[str, Slot], schema: Schema, result: Structural) -> _Led:
    memories = _memories(free)
    named: dict[str, Candidate] = {}
    for one in free:
        if one.name in named:
            result.unplaced.append(one)
        else:
            named[one.name] = one
    sources = [_source_item(one, memories) for one in named.values()]
    targets = [_target_item(slot, schema) for slot in slots.values()]
    spare, copies = ties(sources, targets)
    for name, stands in spare.items():
        why = f"the same memory as `{named[stands].key}`"
        result.lines.append(Action("dropped", named[name].key, None, "tied in the checkpoint", why))
    sources = [item for item in sources if item.key not in spare]
    return _Led(named, sources, [item for item in targets if item.key not in copies], spare, copies)


def _memories(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The first key of a memory for every key of the file that shares one."""
    views: dict[tuple[object, ...], list[str]] = {}
    for one in candidates:
        info = one.info
        if info.storage is not None:
            view = (id(info.storage), info.offset, info.shape, info.stride, info.dtype)
            views.setdefault(view, []).append(one.key)
    return {key: keys[0] for keys in views.values() if len(keys) > 1 for key in keys}


def _ruled(
    result: Structural,
    rules: Mapping[str, str],
    slots: Mapping[str, Slot],
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Assignment]:
    """What the rules of a recipe say, in the names of the engine; a finding for each that fits nothing."""
    said = expand(rules, slots) if rules else {}
    ruled: dict[str, Assignment] = {}
    unfit: dict[KeyRule, tuple[str, str]] = {}
    for target, (text, rule) in said.items():
        lost = [key for key in sources_of(text) if key not in names]
        if lost:
            unfit.setdefault(rule, (target, lost[0]))
            continue
        assignment = rule.read(text, target, shapes)
        sources = tuple(replace(taken, key=names[taken.key]) for taken in assignment.sources)
        ruled[target] = replace(assignment, sources=sources)
    for rule, (target, key) in unfit.items():
        result.findings.append(
            Diagnostic(
                "rule-unfit",
                f"a rule takes `{key}` for `{target}`, and the checkpoint has no such key",
                (("rule", rule.text),),
                tuple(Fix("did you mean", name) for name in nearest(key, names, 2)),
                (target,),
            )
        )
    fitting = {rule.target for _, rule in said.values()}
    for left, right in rules.items():
        if left not in fitting:
            message = f"the rule for `{left}` fits no key of the model"
            result.findings.append(Diagnostic("rule-unfit", message, (("rule", KeyRule(left, right).text),)))
    return ruled


def _place(
    result: Structural, assignments: Mapping[str, Assignment], named: Mapping[str, Candidate], schema: Schema
) -> None:
    """Put every assignment into the result."""
    loaded: dict[str, None] = {}
    beside: dict[str, Action] = {}
    for target, assignment in assignments.items():
        first = named[assignment.sources[0].key]
        how = "by a rule of the recipe"
        if not assignment.evidence.startswith("`") or assignment.grade != "answer":
            grade = "branch" if assignment.grade == "structure" else assignment.grade
            how = f"by structure, {grade}: {GRADES[assignment.grade]}"
        if not is_plain(assignment):
            made = composed(assignment, named, schema.slots[target])
            if made is not None:
                result.computed[target] = made
            # else its first part has no values, or alone another shape: settling says so
        same = is_plain(assignment) and first.name == target and first.key == target
        result.candidates.append(first if same else first.renamed(target, how, assignment.evidence))
        loaded[first.key] = None
        result.assignments[target] = replace(
            assignment, sources=tuple(replace(taken, key=named[taken.key].key) for taken in assignment.sources)
        )
        for taken in assignment.sources[1:]:
            key = named[taken.key].key
            beside.setdefault(key, Action("joined", key, None, how, f"goes into `{target}` beside `{first.key}`"))
    result.lines += [line for key, line in beside.items() if key not in loaded]


def _wait(result: Structural, waits: Waiting, named: Mapping[str, Candidate]) -> None:
    """Both sides of what waits for an answer are ambiguous, and neither missing nor unexpected."""
    placed = {one.key for one in result.candidates} | {line.source for line in result.lines}
    for target, (question, sources) in waits.items():
        if target in result.assignments:
            continue
        why = f"waits for the answer about `{question}`"
        result.waiting.setdefault(target, why)
        for key in (named[name].key for name in sources):
            if key not in placed:
                result.lines.append(Action("ambiguous", key, None, "open question", why))
                placed.add(key)


def _resized(
    result: Structural, found: Match, named: Mapping[str, Candidate], slots: Mapping[str, Slot], options: Options
) -> dict[str, Candidate]:
    """Give what `adapt` names the one tensor left over that is like it but for a length; all others, by name."""
    left = dict(named)
    adapted = Patterns(options.adapt, slots)
    spare = {one.key: one.nearest for one in found.unmatched_source}
    for one in found.unmatched_target if found.verdict != "refused" else ():
        key = one.nearest
        if spare.get(key) != one.key or one.key in result.assignments:
            continue
        result.nearest[one.key] = one.near.replace(f"`{key}`", f"`{named[key].key}`")
        if adapted.first(one.key) is not None:
            how = "by structure, resized: the only one left over that is like it but for a length"
            result.candidates.append(left.pop(key).renamed(one.key, how, one.near))
    return left


def _leave(result: Structural, named: Mapping[str, Candidate], schema: Schema) -> None:
    """What found no place keeps its name where the model has no such key, or one of another shape that is free.

    Of the same shape it would be loaded by its name alone, which the engine did not find reason enough.
    """
    taken = {one.key for one in result.candidates} | {line.source for line in result.lines}
    filled = {one.name for one in result.candidates} | result.waiting.keys()
    for one in named.values():
        if one.key in taken:
            continue
        if is_table(one.info.dtype) and not result.is_refused:
            why = "integers that a model makes when it is built"
            result.lines.append(Action("dropped", one.key, None, "index table", why))
            continue
        slot = schema.slots.get(one.name)
        if slot is None or (one.name not in filled and slot.shape != one.info.shape and not result.is_refused):
            result.candidates.append(one)
        else:
            result.unplaced.append(one)
    if not result.is_refused:
        why = "integers that the model made when it was built"
        tables = [slot for slot in schema.slots.values() if is_table(slot.dtype)]
        result.kept = {slot.key: ("index table", why) for slot in tables if slot.key not in filled}
