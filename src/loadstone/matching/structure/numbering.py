"""Numbering: which numbers in names count something.

Layers are numbered from 0 or 1 and leave out few, as what has no parameters leaves its number out of the keys.  Numbers
that are far apart are the remains of a hash or of a counter over a whole graph; they order nothing, and become words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.words import Path, Token

_SPARSE = 3  # numbers to a member at most: activations, dropout and pooling between two layers with parameters
_START = 3


def numbered(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers, with numbers that count nothing as words."""
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
