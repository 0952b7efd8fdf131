"""Grouping: many keys with one cause as few names, each standing for exactly its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from loadstone.keys import fold, fold_groups, parent

_MOST_GROUPS = 20  # of one code; the last one gathers the rest
_LONGEST_NAME = 160
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that are told together: what a message calls them, and all of them."""

    label: str
    keys: tuple[str, ...]


class Owners:
    """Knows all keys of one side, and so which modules a set of keys covers whole."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = keys
        self._below: dict[str, int] | None = None

    def globs(self, keys: Iterable[str]) -> list[str]:
        """Globs that match these keys and none that is not among all keys, as few as there are."""
        return fold(self._roots(keys))

    def paste(self, keys: Iterable[str]) -> str:
        """The globs as a Python list."""
        return "[" + ", ".join(f'"{glob}"' for glob in self.globs(keys)) + "]"

    def groups(self, keys: Iterable[str]) -> list[Group]:
        """The keys by module where whole modules are covered, by pattern otherwise; at most _MOST_GROUPS."""
        units: dict[str, list[str]] = {}
        loose: dict[str, None] = {}
        for root, own in self._roots(keys).items():
            if any(parent(key) not in (root, parent(root)) for key in own):
                units[root] = own
            else:
                loose.update(dict.fromkeys(own))
        alike: dict[str, list[str]] = {}  # modules that differ in their numbers only
        for root in units:
            alike.setdefault(_DIGITS.sub("#", root), []).append(root)
        groups = []
        for folded in (folded for roots in alike.values() for folded in fold_groups(roots)):
            own = [key for root in folded.keys for key in units[root]]
            groups.append(Group(f"`{_short(folded.text, folded.keys)}` ({len(own):,} keys)", tuple(own)))
        groups += [Group(named(folded.keys), folded.keys) for folded in fold_groups(loose)]
        if len(groups) > _MOST_GROUPS:
            rest = tuple(key for group in groups[_MOST_GROUPS - 1 :] for key in group.keys)
            groups[_MOST_GROUPS - 1 :] = [Group(f"`{rest[0]}` and {len(rest) - 1:,} more keys", rest)]
        return groups

    def _roots(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """The keys by the topmost module all of whose keys are among them; a key without such a module by itself."""
        keys = list(keys)
        covered = _below(keys)
        below = self._all_below() if keys else {}
        roots: dict[str, list[str]] = {}
        for key in keys:
            root = key
            end = key.find(".")
            while end > 0:
                place = key[:end]
                if covered[place] == below.get(place):
                    root = place
                    break
                end = key.find(".", end + 1)
            roots.setdefault(root, []).append(key)
        return roots

    def _all_below(self) -> dict[str, int]:
        if self._below is None:
            self._below = _below(self._keys)
        return self._below


def named(keys: Iterable[str]) -> str:
    """What a message calls these keys, in backticks."""
    keys = list(keys)
    groups = fold_groups(keys)
    if len(groups) == 1 and len(groups[0].text) <= _LONGEST_NAME:
        return f"`{groups[0].text}`"
    return f"`{keys[0]}` and {len(keys) - 1:,} more keys"


def _short(text: str, names: tuple[str, ...]) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{names[0]} … {names[-1]}"


def _below(keys: Iterable[str]) -> dict[str, int]:
    """How many keys lie in each module."""
    counts: dict[str, int] = {}
    for key in keys:
        end = key.rfind(".")
        while end > 0:
            counts[key[:end]] = counts.get(key[:end], 0) + 1
            end = key.rfind(".", 0, end)
    return counts
