"""The engine: from two lists of items to a Match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from loadstone.matching.structure import flattening
from loadstone.matching.structure.additions import additions
from loadstone.matching.structure.affix import same_names
from loadstone.matching.structure.containers import inner, within
from loadstone.matching.structure.counting import log10_ways
from loadstone.matching.structure.crossing import unsaid
from loadstone.matching.structure.doubts import may_be_rotary, take_doubts, tied_doubt
from loadstone.matching.structure.expressions import with_keys
from loadstone.matching.structure.folding import folded, folded_away, parametrized
from loadstone.matching.structure.fusing import fuse, signatures
from loadstone.matching.structure.items import Assignment, Item, Match
from loadstone.matching.structure.keyless import keyless
from loadstone.matching.structure.layers import Layer, layers
from loadstone.matching.structure.numbering import numbered
from loadstone.matching.structure.orders import BY_ORDER, EVERY, leave, named, pair_by_order, refused, undoubted
from loadstone.matching.structure.orienting import joined, oriented
from loadstone.matching.structure.questions import questions
from loadstone.matching.structure.reordering import read
from loadstone.matching.structure.rules import Rule, induce
from loadstone.matching.structure.solve import Group, State, solve
from loadstone.matching.structure.support import unsupported
from loadstone.matching.structure.tables import constants, tables
from loadstone.matching.structure.ties import pair_moot, ties, untied
from loadstone.matching.structure.trying import answered
from loadstone.matching.structure.verdict import left_over, verdict
from loadstone.matching.structure.writing import assignments

_MOST_ROUNDS = 8  # questions that are answered on trial
_MOST_KEYS = 5_000  # on both sides, for which containers are matched by themselves: each costs several matches
_NO_ANSWERS: Mapping[str, str] = {}


def match(source: Sequence[Item], target: Sequence[Item], *, answers: Mapping[str, str] = _NO_ANSWERS) -> Match:
    """How `source` fills `target`.

    Args:
        source, target: the two state dicts, in any order.
        answers: target key → source key, for what was asked; each settles every place that looks alike.  Instead of
            keys an expression over them, see expressions: it says as well what is done to make them the layer that
            was asked about, see reordering.  "" and {"*": "order"} name no keys, see orders.

    Raises ValueError for an expression that is none.
    """
    spare, copies = ties(source, target)
    whole = target
    source = [item for item in source if item.key not in spare]
    target = [item for item in target if item.key not in copies]
    answers = {copies.get(key, key): with_keys(text, spare) if spare else text for key, text in answers.items()}
    return _with_aliases(_best(source, target, answers), copies, whole)


def _best(source: Sequence[Item], target: Sequence[Item], answers: Mapping[str, str]) -> Match:
    """As wholes; or, where these differ, of containers that are the same network."""
    found = _match(source, target, answers)
    if found.verdict == "complete" or not found.unmatched_target or len(source) + len(target) > _MOST_KEYS:
        return found
    pairs = inner(source, target)
    if not pairs or _settled(found, source, target, answers).verdict == "complete":
        return found
    is_rotary = all(may_be_rotary(layers(items)) for items in (source, target))  # tables may lie outside a container
    for ours, theirs in pairs:
        better = _inside(source, target, answers, (ours, theirs), is_rotary=is_rotary)
        if better is not None and len(better.assignments) > len(found.assignments) * (found.verdict != "refused"):
            return better
    return found


def _inside(
    source: Sequence[Item],
    target: Sequence[Item],
    answers: Mapping[str, str],
    containers: tuple[str, str],
    *,
    is_rotary: bool,
) -> Match | None:
    """The match of two containers that are the same network, and of what lies outside; None where they are not."""
    ours, theirs = containers
    mine, others = within(source, ours)
    wanted, besides = within(target, theirs)
    core = _match(mine, wanted, _about(answers, wanted), is_rotary=is_rotary)
    if _settled(core, mine, wanted, answers).verdict != "complete":
        return None
    rest = match(others, besides, answers=_about(answers, besides))
    # what is left over on both sides may be two other things of the same shapes
    at_last = _settled(rest, others, besides, answers)
    is_apart = at_last.verdict == "refused" or bool(at_last.unmatched_target and at_last.unmatched_source)
    missing, unused = left_over({}, others, besides) if is_apart else (rest.unmatched_target, rest.unmatched_source)
    both = {**core.assignments, **({} if is_apart else rest.assignments)}
    found = {item.key: both[item.key] for item in target if item.key in both}
    missing, unused = (*core.unmatched_target, *missing), (*core.unmatched_source, *unused)
    return Match(
        found,
        (*core.questions, *(() if is_apart else rest.questions)),
        unused,
        missing,
        core.admissible + (0.0 if is_apart else rest.admissible),
        "partial" if missing or unused else "complete",
        f"`{ours or 'the source'}` and `{theirs or 'the target'}` are the same network, with other things beside it",
        _rules(found),
    )


def _settled(found: Match, source: Sequence[Item], target: Sequence[Item], answers: Mapping[str, str]) -> Match:
    """The match when what is open has been answered, in whatever way."""
    said, again = _about(answers, target), partial(_match, source, target)
    for _, then in () if found.verdict == "complete" else answered(found, again, said, _MOST_ROUNDS):
        found = then
        if found.verdict == "complete":
            break
    return found


def _about(answers: Mapping[str, str], target: Sequence[Item]) -> dict[str, str]:
    keys = {item.key for item in target}
    return {key: value for key, value in answers.items() if key in keys or key == EVERY}


def _match(
    source: Sequence[Item], target: Sequence[Item], answers: Mapping[str, str], *, is_rotary: bool = False
) -> Match:
    said, empty = read(named(answers), source), refused(answers)
    stored = oriented(numbered(layers(_sorted(source))), numbered(layers(_sorted(target))), said)
    said = stored.answers
    left, right = joined(stored.source, stored.target)
    left, right = keyless(left, right, "source"), keyless(right, left, "target")
    left = folded(parametrized(left, right), right, said.values())
    left = fuse(left, right)  # what the target has joined since, the source may have to join
    state = solve(left, right, _groups(left, right, {key: one.sources[0].key for key, one in said.items()}))
    leave(state, empty)
    if answers.get(EVERY) == BY_ORDER:
        pair_by_order(state, source, target)
    pair_moot(state)
    assumed = _flattened(state)
    state.aside[0].update((constants(left) | additions(left)) - state.pairs.keys())
    state.aside[1].update((constants(right) | additions(right)) - state.backward.keys())
    shaky = unsupported(state)
    doubts, orders = take_doubts(state, shaky, assumed, said, unsaid(state, stored), is_rotary=is_rotary)
    also, maybe = untied(state, said)
    doubts = undoubted(state, [*doubts, *(tied_doubt(state, a, b) for a, b in maybe)], empty)
    found = assignments(state, target, orders, also)
    found |= tables(found, source, target)
    asked = questions(state, doubts)
    missing, unused = left_over(found, source, target)
    likely = [doubt for doubt in doubts if doubt.source not in shaky or doubt.source in assumed]
    pairs = ([(doubt.source, doubt.target) for doubt in each] for each in (doubts, likely))
    word, reason = verdict(state, found, missing, unused, target, *pairs)
    reason = folded_away(left, right) or reason if word == "refused" else reason
    if word == "refused":  # whether single layers are the same is nothing to ask of another network
        asked = questions(state, likely)
    return Match(
        found,
        asked,
        unused,
        missing,
        log10_ways(state, doubts),
        word,
        reason,
        _rules(found),
    )


def _with_aliases(match: Match, copies: Mapping[str, str], target: Sequence[Item]) -> Match:
    """Other names of the same memory get what the name that stands for it gets."""
    found = dict(match.assignments)
    for alias, first in copies.items():
        if first in found:
            found[alias] = replace(found[first], target=alias, evidence=f"the same memory as `{first}`")
    found = {item.key: found[item.key] for item in target if item.key in found}
    return replace(match, assignments=found, rules=_rules(found)) if copies else match


def _rules(found: Mapping[str, Assignment]) -> tuple[Rule, ...]:
    return induce({key: one.sources[0].key for key, one in found.items() if len(one.sources) == 1})


def _sorted(items: Sequence[Item]) -> list[Item]:
    """In the order of keys: the order of registration must not matter."""
    return sorted(items, key=lambda item: item.key)


def _groups(left: Sequence[Layer], right: Sequence[Layer], answers: Mapping[str, str]) -> list[Group]:
    """One group for each signature, apart from what was answered."""
    ours, theirs = signatures(left), signatures(right)
    owner = {piece.item.key: i for i, one in enumerate(left) for part in one.parts.values() for piece in part.pieces}
    place = {piece.item.key: i for i, one in enumerate(right) for part in one.parts.values() for piece in part.pieces}
    said = {place[key]: owner[value] for key, value in answers.items() if key in place and value in owner}
    said = {b: a for b, a in said.items() if left[a].signature == right[b].signature}
    groups = [Group([a], [b], "answer", "answered") for b, a in said.items()]
    used = dict.fromkeys(said.values())
    thinned = {left[a].signature for a in used}
    for a, b in same_names(left, right):
        if a not in used and b not in said:
            groups.append(Group([a], [b], "exact", "the same name"))
            used[a], said[b] = None, a
    for signature in ours:
        one = [a for a in ours[signature] if a not in used]
        other = [b for b in theirs.get(signature, []) if b not in said]
        if one and other:
            word = "the only layer of these shapes"
            groups.append(Group(one, other, "forced", word, thinned=signature in thinned))
    return groups


def _flattened(state: State) -> dict[int, str]:
    """Pair what is the same layer when flattened or turned; what flattening assumes, by source layer."""
    left = [a for a in range(len(state.source)) if a not in state.pairs]
    right = [b for b in range(len(state.target)) if b not in state.backward]
    assumed = {}
    for a, b, assumption in flattening.pairs(state.source, state.target, left, right):
        state.pairs[a] = (b, "forced", "the only layer of these shapes, flattened")
        state.backward[b] = a
        assumed[a] = assumption
    left = [a for a in left if a not in state.pairs]
    right = [b for b in right if b not in state.backward]
    for a, b, layer in flattening.turned(state.source, state.target, left, right):
        state.source[a] = layer
        state.pairs[a] = (b, "forced", "the only layer of these shapes, turned")
        state.backward[b] = a
    return assumed
