"""Numbering: which numbers in names count something.

Layers are numbered from 0 or 1 and leave out few, as what has no parameters leaves its number out of the keys.  Numbers
that are far apart are the remains of a hash or of a counter over a whole graph; they order nothing, and become words.
Letters behind a number count as well where they run from the first on: `5b`, `5c`, `6a`, `6b`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.words import Path, Token

_LETTERED = re.compile(r"(\d+)([a-z])")
_FEWEST = 3  # of one family that are numbered by letters
_SPARSE = 3  # numbers to a member at most: activations, dropout and pooling between two layers with parameters
_START = 3


class Lettered(int):
    """The place of `5b` in its family, shown as it is written."""

    text: str

    def __new__(cls, rank: int, text: str) -> Lettered:
        made = super().__new__(cls, rank)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


def numbered(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers, with numbers that count nothing as words, and words that count as numbers."""
    layers = _lettered(layers)
    families: dict[Path, dict[int, None]] = {}
    for layer in layers:
        for depth, token in enumerate(layer.path):
            if isinstance(token, int):
                families.setdefault(layer.path[:depth], {})[token] = None
    counting = {family for family, numbers in families.items() if max(numbers) < _SPARSE * len(numbers) + _START}

    def kept(path: Path, depth: int) -> Token:
        token = path[depth]
        return str(token) if isinstance(token, int) and path[:depth] not in counting else token

    return [replace(layer, path=tuple(kept(layer.path, depth) for depth in range(len(layer.path)))) for layer in layers]


def _lettered(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Letters as numbers, where all members of a family have one and none is left out between them."""
    some: dict[Path, dict[Token, None]] = {}
    for layer in layers:
        for depth, token in enumerate(layer.path):
            if isinstance(token, str) and len(token) < 4 and _LETTERED.fullmatch(token):
                some[layer.path[:depth]] = {}
    for layer in layers if some else ():
        for depth, token in enumerate(layer.path):
            if layer.path[:depth] in some:
                some[layer.path[:depth]][token] = None
    runs = {family: _run(members) for family, members in some.items()}
    known = {family: {text: Lettered(n, text) for n, text in enumerate(run)} for family, run in runs.items() if run}
    if not known:
        return layers

    def renamed(path: Path) -> Path:
        return tuple(
            known[path[:depth]].get(token, token) if path[:depth] in known and isinstance(token, str) else token
            for depth, token in enumerate(path)
        )

    return [replace(layer, path=renamed(layer.path)) for layer in layers]


def _run(members: Iterable[Token]) -> list[str]:
    """The members in order, or nothing where they are no such run."""
    found = []
    for token in members:
        match = _LETTERED.fullmatch(token) if isinstance(token, str) else None
        if match is None:
            return []
        found.append((int(match[1]), match[2], match[0]))
    found.sort()
    is_dense = all(
        ord(two[1]) == ord(one[1]) + 1 if one[0] == two[0] else two[1] == "a" for one, two in pairwise(found)
    )
    return [text for _, _, text in found] if is_dense and len(found) >= _FEWEST and found[0][1] <= "b" else []
