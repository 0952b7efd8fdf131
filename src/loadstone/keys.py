"""Dotted keys: globs over them, their natural order, folding of many into few, and names that are near.

Folding is lossless: `layer{1..4}.{0,1}.conv1.weight` stands for exactly the eight keys that its product gives, never
for one that is not there.  The same braces are understood in globs, so that what a screen shows can be pasted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product

_MOST_FOLDED_TOKENS = 16  # keys of more levels stay as they are; the deepest real ones have 14
_MOST_COMPARED = 400  # names that difflib looks at for one question
_DIGITS = re.compile(r"([0-9]+)")

Natural = tuple[tuple[int, str], ...]


def natural(key: str) -> Natural:
    """A sort key that puts `layer.2` before `layer.10`."""
    pieces: list[tuple[int, str]] = []
    for index, piece in enumerate(_DIGITS.split(key)):
        digits = piece.lstrip("0")
        pieces.append((len(digits), digits) if index % 2 else (0, piece))
    return (*pieces, (0, key))


def parent(key: str) -> str:
    """The module that owns a key: `fc` for `fc.weight`, "" for a key without a dot."""
    return key.rpartition(".")[0]


def leaf(key: str) -> str:
    """The last token of a key: `weight` for `fc.weight`."""
    return key.rpartition(".")[2]


# --- globs ------------------------------------------------------------------------------------------------------------


class Globs:
    """Patterns over keys: `*` stops at a dot, `**` does not, `{0..11}` and `{weight,bias}` are alternatives.

    A pattern without a star is a name: it means that key, and everything under it.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._literal: dict[str, int] = {}
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        for index, pattern in enumerate(self.patterns):
            if "*" in pattern or "{" in pattern:
                self._expressions.append((index, _expression(pattern)))
            self._literal.setdefault(pattern, index)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def first(self, key: str) -> str | None:
        """The first pattern that the key matches, None if it matches none."""
        best = len(self.patterns)
        if self._literal:
            best = min((self._literal.get(name, best) for name in _self_and_above(key)), default=best)
        for index, expression in self._expressions:
            if index >= best:
                break
            if expression.fullmatch(key):
                best = index
        return self.patterns[best] if best < len(self.patterns) else None

    def unused(self, keys: Iterable[str]) -> list[str]:
        """The patterns that match none of the keys, in the order they were given."""
        names = dict.fromkeys(keys)
        above = {name for key in names for name in _self_and_above(key)} if self._literal else set()
        used = {index for pattern, index in self._literal.items() if pattern in above}
        used.update(index for index, expression in self._expressions if any(map(expression.fullmatch, names)))
        return [pattern for index, pattern in enumerate(self.patterns) if self._index(pattern, index) not in used]

    def _index(self, pattern: str, index: int) -> int:
        return self._literal.get(pattern, index)  # a pattern given twice counts as its first


def _self_and_above(key: str) -> Iterator[str]:
    """The key, and the modules it lies in, from the inside out."""
    yield key
    end = key.rfind(".")
    while end > 0:
        yield key[:end]
        end = key.rfind(".", 0, end)


def _expression(pattern: str) -> re.Pattern[str]:
    parts = []
    for piece in re.split(r"(\*\*|\*|\{[^{}]*\})", pattern):
        if piece == "**":
            parts.append(r"[\s\S]*")
        elif piece == "*":
            parts.append(r"[^.]*")
        elif piece.startswith("{") and piece.endswith("}"):
            parts.append("(?:" + "|".join(map(re.escape, _alternatives(piece[1:-1]))) + ")")
        else:
            parts.append(re.escape(piece))
    below = "" if "*" in pattern else r"(?:\.[\s\S]*)?"
    return re.compile("".join(parts) + below)


# --- folding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folded:
    """Several keys as one text: `text` stands for exactly `keys`, in the order they were given."""

    text: str
    keys: tuple[str, ...]


Token = str | tuple[str, ...]  # one spelling, or several alternatives


def fold(keys: Iterable[str]) -> list[str]:
    """As few texts as are needed for the keys; `unfold` gives exactly them back."""
    return [folded.text for folded in fold_groups(keys)]


def fold_groups(keys: Iterable[str]) -> list[Folded]:
    """Like `fold`, with the keys that each text stands for.  Order follows the first key of each.

    Two texts that differ in one token only are one text with alternatives at that token.  Merging from the last token
    to the first and once again is linear in the number of keys and finds the products that real models consist of.
    """
    position = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    rank = _token_ranks(position)
    rows: list[tuple[tuple[Token, ...], list[str]]] = []
    for same_length in _by_length(position).values():
        patterns: dict[tuple[Token, ...], list[str]] = {tuple(key.split(".")): [key] for key in same_length}
        count = len(next(iter(patterns)))
        if count <= _MOST_FOLDED_TOKENS and len(patterns) > 1:
            for _ in range(2):
                before = len(patterns)
                for place in reversed(range(count)):
                    patterns = _merge_at(place, patterns, rank)
                if len(patterns) == before:
                    break
        rows += patterns.items()
    groups = [Folded(".".join(map(_spelled, pattern)), tuple(sorted(own, key=position.__getitem__)))
              for pattern, own in rows]  # fmt: skip
    return sorted(groups, key=lambda folded: position[folded.keys[0]])


def unfold(texts: Iterable[str]) -> list[str]:
    """The keys that folded texts stand for."""
    keys = []
    for text in texts:
        pieces: list[list[str]] = []
        for literal, alternatives in _PIECES.findall(text):
            pieces.append([_ESCAPED.sub(r"\1", literal)] if literal else _alternatives(alternatives[1:-1]))
        keys += ["".join(parts) for parts in product(*pieces)]
    return keys


_PIECES = re.compile(r"((?:[^{}\\]|\\[\s\S])+)|(\{(?:[^{}\\]|\\[\s\S])*\})")
_ESCAPED = re.compile(r"\\([\s\S])")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_WIDEST_RANGE = 1_000_000


def _by_length(keys: Iterable[str]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for key in keys:
        groups.setdefault(key.count("."), []).append(key)
    return groups


def _token_ranks(keys: Iterable[str]) -> dict[str, tuple[int, int, str, str]]:
    """For every token its place among alternatives: names as they first came, numbers counted."""
    stems: dict[str, int] = {}
    ranks: dict[str, tuple[int, int, str, str]] = {}
    for key in keys:
        for token in key.split("."):
            if token not in ranks:
                stem, digits = _numbered(token)
                ranks[token] = (stems.setdefault(stem, len(stems)), len(digits), digits, token)
    return ranks


def _merge_at(
    place: int, patterns: dict[tuple[Token, ...], list[str]], rank: dict[str, tuple[int, int, str, str]]
) -> dict[tuple[Token, ...], list[str]]:
    groups: dict[tuple[Token, ...], list[tuple[Token, ...]]] = {}
    for pattern in patterns:
        groups.setdefault(pattern[:place] + pattern[place + 1 :], []).append(pattern)
    if len(groups) == len(patterns):
        return patterns
    merged: dict[tuple[Token, ...], list[str]] = {}
    for rest, members in groups.items():
        if len(members) == 1:
            merged[members[0]] = patterns[members[0]]
            continue
        spellings: list[str] = []
        keys: list[str] = []
        for member in members:
            token = member[place]
            spellings += [token] if isinstance(token, str) else token
            keys += patterns[member]
        spellings.sort(key=rank.__getitem__)
        merged[(*rest[:place], tuple(spellings), *rest[place:])] = keys
    return merged


def _spelled(token: Token) -> str:
    """`conv{1,2}` or `{weight,bias}` for alternatives, the token itself for one spelling; braces are escaped."""
    if isinstance(token, str):
        return re.sub(r"([{}\\])", r"\\\1", token)
    stems = {_numbered(spelling)[0] for spelling in token}
    if len(stems) > 1 or not all(_numbered(spelling)[1] for spelling in token):
        return "{" + ",".join(re.sub(r"([{},\\])", r"\\\1", spelling) for spelling in token) + "}"
    stem = re.sub(r"([{}\\])", r"\\\1", stems.pop())
    return stem + "{" + ",".join(_runs([_numbered(spelling)[1] for spelling in token])) + "}"


def _runs(numbers: list[str]) -> Iterator[str]:
    """Sorted numbers, three or more in a row as `first..last`."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index < len(numbers) and int(numbers[index]) == int(numbers[index - 1]) + 1:
            continue
        if index - start > 2:
            yield f"{numbers[start]}..{numbers[index - 1]}"
        else:
            yield from numbers[start:index]
        start = index


def _numbered(token: str) -> tuple[str, str]:
    """The name and the number at its end; a number that does not survive int() and back belongs to the name."""
    stem = token.rstrip("0123456789")
    digits = token[len(stem) :]
    if not digits or len(digits) > 6:
        return token, ""
    number = digits.lstrip("0") or "0"
    return stem + digits[: len(digits) - len(number)], number


def _alternatives(text: str) -> list[str]:
    """What stands between braces, as the list it means."""
    spellings: list[str] = []
    for piece in re.split(r"(?<!\\),", text) if "\\" not in text else _split_escaped(text):
        bounds = _RANGE.fullmatch(piece)
        if bounds and len(bounds[1]) <= 7 and len(bounds[2]) <= 7 and int(bounds[2]) - int(bounds[1]) < _WIDEST_RANGE:
            spellings += map(str, range(int(bounds[1]), int(bounds[2]) + 1))
        else:
            spellings.append(_ESCAPED.sub(r"\1", piece))
    return spellings


def _split_escaped(text: str) -> list[str]:
    pieces, current, index = [], "", 0
    while index < len(text):
        if text[index] == "\\":
            current += text[index : index + 2]
            index += 2
            continue
        if text[index] == ",":
            pieces.append(current)
            current = ""
        else:
            current += text[index]
        index += 1
    return [*pieces, current]


# --- near names -------------------------------------------------------------------------------------------------------


def nearest(name: str, pool: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` names of the pool that are close to `name`, the closest first.

    The cost is bounded: of a large pool only the names that share most with `name` are compared letter by letter.
    """
    candidates = list(dict.fromkeys(pool))
    if len(candidates) > _MOST_COMPARED:
        tokens = set(re.split(r"[._]", name.lower()))
        candidates.sort(
            key=lambda key: (
                -len(tokens.intersection(re.split(r"[._]", key.lower()))),
                abs(len(key) - len(name)),
                key,
            )
        )
        del candidates[_MOST_COMPARED:]
    return get_close_matches(name[:200], [key[:200] for key in candidates], n=count, cutoff=0.6)
