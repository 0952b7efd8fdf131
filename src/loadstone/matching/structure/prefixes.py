"""Prefixes: which layers of a group lie in a container, or are named after it.

`embed.word` is in `embed`.  `self_attn_layer_norm` is not in `self_attn`, but named after it; that says something
where it is the only one beside it that has the word.  `embed_out` beside `token_embed` says nothing of `embed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.words import Path, Token, containers


def by_prefix(layers: Sequence[Layer], members: Sequence[int]) -> dict[Path, list[int]]:
    """Members by the containers that hold them, or that they are named after and no other member beside them is."""
    found: dict[Path, list[int]] = {}
    named: dict[Path, dict[int, Path]] = {}  # prefix → layer named so → the container that holds both
    for index in members:
        path = layers[index].path
        ends = {*containers(layers[index].text), len(path)}
        outer = 0
        for depth in range(1, len(path) + 1):
            found.setdefault(path[:depth], []).append(index)
            if depth in ends:
                outer = depth
            else:
                named.setdefault(path[:depth], {})[index] = path[:outer]
    words = _words(layers, members, {container for each in named.values() for container in each.values()})
    for prefix, indices in named.items():
        gone = [i for i, outer in indices.items() if words[outer, prefix[-1]] > len(found[prefix])]
        if gone:
            found[prefix] = [i for i in found[prefix] if i not in gone]
    return {prefix: indices for prefix, indices in found.items() if indices}


def _words(layers: Sequence[Layer], members: Sequence[int], inside: set[Path]) -> Mapping[tuple[Path, Token], int]:
    """How many members of a container have a word somewhere behind it."""
    found: Counter[tuple[Path, Token]] = Counter()
    for index in members:
        path = layers[index].path
        for depth in range(len(path)):
            if path[:depth] in inside:
                found.update((path[:depth], token) for token in set(path[depth:]))
    return found
