"""Questions: what stays open, once for all places that look alike."""

from __future__ import annotations

from collections.abc import Sequence

from loadstone.matching.structure.doubts import Doubt, first_key, template
from loadstone.matching.structure.items import Question
from loadstone.matching.structure.solve import Group, State
from loadstone.matching.structure.words import blank


def questions(state: State, doubts: Sequence[Doubt]) -> tuple[Question, ...]:
    """One for each template of open groups, the one that more places wait for first."""
    alike: dict[object, list[Group]] = {}
    for group in sorted(state.groups, key=lambda group: state.target[group.right[0]].text):
        if len(group.left) == len(group.right):
            alike.setdefault(_template(state, group), []).append(group)
    found = [_question(state, groups) for groups in alike.values()]
    same: dict[object, list[Doubt]] = {}
    for doubt in doubts:
        same.setdefault(template(state, doubt), []).append(doubt)
    for alike_ones in same.values():
        one = max(alike_ones, key=lambda doubt: len(doubt.options))
        found.append(Question(f"{one.text}?", one.key, one.options, len(alike_ones), one.kind))
    return tuple(sorted(found, key=lambda question: -question.places))


def _template(state: State, group: Group) -> object:
    left = sorted(blank(state.source[a].path) for a in group.left)
    right = sorted(blank(state.target[b].path) for b in group.right)
    return tuple(left), tuple(right)


def _question(state: State, groups: list[Group]) -> Question:
    group = groups[0]
    target = state.target[group.right[0]]
    options = tuple(first_key(state.source[a]) for a in group.left)
    others = f", and {len(group.right) - 1} more like it" if len(group.right) > 1 else ""
    text = f"which of {len(options)} is `{target.text}`{others}: the same shapes, and no name or place tells them apart"
    return Question(text, first_key(target), options, len(groups))
