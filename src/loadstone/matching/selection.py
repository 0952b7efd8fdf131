"""Which tensors of a checkpoint take part, and under which names: the options only, drop and rename."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.keys import Globs, nearest
from loadstone.matching.candidates import Candidate
from loadstone.matching.options import Options, Rename
from loadstone.matching.plan import Action
from loadstone.matching.wrappers import unwrapped
from loadstone.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Selection:
    """What takes part, what was left out on purpose, and which patterns did nothing, with their option's name."""

    candidates: list[Candidate]
    dropped: list[Action]
    unused: list[tuple[str, str]]


def select(sources: Mapping[str, TensorInfo], options: Options) -> Selection:
    """The tensors that take part, renamed as asked, and a line for each that was left out on purpose.

    Raises RecipeError (invalid-option) for a regular expression or a callable of `rename` that is wrong.
    """
    only, drop = Patterns(options.only, sources), Patterns(options.drop, sources)
    candidates: list[Candidate] = []
    dropped: list[Action] = []
    for key, info in sources.items():
        pattern = drop.first(key)
        if pattern is not None:
            dropped.append(Action("dropped", key, None, "`drop`", f"matches `{pattern}`"))
        elif only and only.first(key) is None:
            dropped.append(Action("dropped", key, None, "`only`", "matches none of its patterns"))
        else:
            candidates.append(Candidate(key, key, info))
    unused = [("only", pattern) for pattern in only.unused] + [("drop", pattern) for pattern in drop.unused]
    if callable(options.rename):
        candidates = [_by_function(candidate, options.rename) for candidate in candidates]
    elif options.rename is not None:
        rules = [_Rule(pattern, _compiled(pattern), new) for pattern, new in options.rename.items()]
        candidates = [_by_rules(candidate, rules) for candidate in candidates]
        unused += [("rename", rule.pattern) for rule in rules if not rule.uses]
    return Selection(candidates, dropped, unused)


class Patterns:
    """The globs of one option over the keys of one side.

    A glob that fits no key as it stands is tried without the wrappers before the keys: `fc` finds `module.fc.weight`.
    """

    def __init__(self, patterns: Iterable[str], keys: Iterable[str]) -> None:
        self._globs = Globs(patterns)
        self._bare = Globs(self._globs.unused(keys)) if self._globs else Globs(())
        self.unused = self._bare.unused(map(unwrapped, keys)) if self._bare else []

    def __bool__(self) -> bool:
        return bool(self._globs)

    def first(self, key: str) -> str | None:
        """The first glob that the key matches, None if it matches none."""
        if not self._globs:
            return None
        return self._globs.first(key) or (self._bare.first(unwrapped(key)) if self._bare else None)


def unused_option(option: str, pattern: str, keys: Iterable[str]) -> Diagnostic:
    """A warning that a pattern fits no key, with the keys and modules it may have meant."""
    side = "the model" if option in ("fresh", "adapt") else "the checkpoint"
    places = dict.fromkeys(place for key in keys for place in _places(key))
    return Diagnostic(
        "unused-option",
        f"`{pattern}` in `{option}` matches no key of {side}",
        fixes=tuple(Fix("did you mean", name) for name in nearest(pattern, places)),
        level="warning",
    )


def _places(key: str) -> Iterable[str]:
    yield key
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


@dataclass(slots=True)
class _Rule:
    """One row of `rename`, and how many keys it has changed."""

    pattern: str
    expression: re.Pattern[str]
    replacement: str
    uses: int = 0


def _by_function(candidate: Candidate, rename: Rename) -> Candidate:
    try:
        name: object = rename(candidate.key)
    except Exception as error:
        raise _invalid(f"`rename` raised {type(error).__name__} for `{candidate.key}`: {error}") from error
    if not isinstance(name, str):
        raise _invalid(f"`rename` returned {type(name).__name__} for `{candidate.key}`, not a key")
    return candidate if name == candidate.key else candidate.renamed(name, "`rename`")


def _by_rules(candidate: Candidate, rules: list[_Rule]) -> Candidate:
    name, used = candidate.name, []
    for rule in rules:
        try:
            changed = rule.expression.sub(rule.replacement, name)
        except (re.error, IndexError) as error:
            raise _invalid(
                f"the replacement `{rule.replacement}` of `{rule.pattern}` in `rename` is wrong: {error}"
            ) from error
        if changed != name:
            rule.uses += 1
            used.append(f"`{rule.pattern}` → `{rule.replacement}`")
            name = changed
    return candidate.renamed(name, f"rename {', '.join(used)}") if used else candidate


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise _invalid(f"`{pattern}` in `rename` is no regular expression: {error}") from error


def _invalid(message: str) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", message))
