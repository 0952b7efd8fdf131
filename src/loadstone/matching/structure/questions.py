"""Questions: what stays open, once for all places that look alike."""

from __future__ import annotations

from collections.abc import Sequence

from loadstone.matching.structure.items import Question
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.solve import Group, State
from loadstone.matching.structure.words import Path


def questions(state: State) -> tuple[Question, ...]:
    """One for each template of open groups, the one that more places wait for first."""
    alike: dict[object, list[Group]] = {}
    for group in sorted(state.groups, key=lambda group: state.target[group.right[0]].text):
        if len(group.left) == len(group.right):
            alike.setdefault(_template(state, group), []).append(group)
    found = [_question(state, groups) for groups in alike.values()]
    return tuple(sorted(found, key=lambda question: -question.places))


def _template(state: State, group: Group) -> object:
    left = sorted(_blank(state.source[a].path) for a in group.left)
    right = sorted(_blank(state.target[b].path) for b in group.right)
    return tuple(left), tuple(right)


def _blank(path: Path) -> tuple[str, ...]:
    return tuple("#" if isinstance(token, int) else token for token in path)


def _question(state: State, groups: list[Group]) -> Question:
    group = groups[0]
    target = state.target[group.right[0]]
    options = tuple(_key(state.source[a]) for a in group.left)
    others = f", and {len(group.right) - 1} more like it" if len(group.right) > 1 else ""
    text = f"which of {len(options)} is `{target.text}`{others}: the same shapes, and no name or place tells them apart"
    return Question(text, _key(target), options, len(groups))


def _key(layer: Layer) -> str:
    parts: Sequence[object] = tuple(layer.parts.values())
    role = "weight" if "weight" in layer.parts else next(role for role in layer.parts if role != "count" or not parts)
    return layer.parts[role].pieces[0].item.key
