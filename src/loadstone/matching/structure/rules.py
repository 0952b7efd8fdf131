"""Rules: three hundred pairs of keys as the few lines a person reads.

A rule is a pair of templates: `layer{a}.{b}.conv1.weight` → `stages.{a-1}.layers.{b}.layer.0.weight`.  A number that
differs between pairs becomes a slot, and every slot of the target is a slot of the source plus a constant, or the rule
is not made and the pairs stay lines of their own.  A rule holds for all the pairs it was made from and says how many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Rule:
    """Source template → target template, with the pairs it stands for."""

    source: str
    target: str
    pairs: tuple[tuple[str, str], ...]


def induce(pairs: Mapping[str, str]) -> tuple[Rule, ...]:
    """Rules for pairs of source key and target key, by target key; each pair is under exactly one."""
    families: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for target, source in pairs.items():
        shape = (_NUMBER.sub("{}", source), _NUMBER.sub("{}", target))
        families.setdefault(shape, []).append((source, target))
    rules: list[Rule] = []
    for members in families.values():
        rules += _rules(members)
    return tuple(rules)


def _rules(members: list[tuple[str, str]]) -> list[Rule]:
    """One rule where the numbers allow it; else split by the first number that does not follow from the source."""
    if len(members) == 1:
        return [Rule(*members[0], tuple(members))]
    left = [[int(n) for n in _NUMBER.findall(source)] for source, _ in members]
    right = [[int(n) for n in _NUMBER.findall(target)] for _, target in members]
    varying = [i for i in range(len(left[0])) if len({row[i] for row in left}) > 1]
    slots: list[str] = []
    for j in range(len(right[0])):
        column = [row[j] for row in right]
        if len(set(column)) == 1:
            slots.append(str(column[0]))
            continue
        slot = next((s for s in (_follows(left, column, i) for i in varying) if s), None)
        if slot is None:
            return _split(members, left, right, varying)
        slots.append(slot)
    names = {i: chr(97 + n) for n, i in enumerate(varying)}
    source = _filled(members[0][0], [f"{{{names[i]}}}" if i in names else str(left[0][i]) for i in range(len(left[0]))])
    target = _filled(members[0][1], [_named(slot, names) for slot in slots])
    return [Rule(source, target, tuple(members))]


def _follows(left: list[list[int]], column: list[int], i: int) -> str | None:
    shifts = {number - row[i] for row, number in zip(left, column, strict=True)}
    return f"{i}:{shifts.pop()}" if len(shifts) == 1 else None


def _named(slot: str, names: dict[int, str]) -> str:
    if ":" not in slot:
        return slot
    index, shift = map(int, slot.split(":"))
    return "{" + names[index] + (f"{shift:+d}" if shift else "") + "}"


def _split(
    members: list[tuple[str, str]], left: list[list[int]], right: list[list[int]], varying: list[int]
) -> list[Rule]:
    best: list[Rule] | None = None
    for side, rows in ((varying, left), (list(range(len(right[0]))), right)):
        for i in side:
            parts: dict[int, list[tuple[str, str]]] = {}
            for member, row in zip(members, rows, strict=True):
                parts.setdefault(row[i], []).append(member)
            if 1 < len(parts) < len(members):
                rules = [rule for part in parts.values() for rule in _rules(part)]
                if best is None or len(rules) < len(best):
                    best = rules
    return best or [Rule(source, target, ((source, target),)) for source, target in members]


def _filled(key: str, numbers: list[str]) -> str:
    parts = iter(numbers)
    return _NUMBER.sub(lambda _: next(parts), key)
