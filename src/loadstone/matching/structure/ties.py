"""Ties: keys that are the same memory count once, where the other side has the values once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadstone.matching.structure.items import Item


def ties(source: Sequence[Item], target: Sequence[Item]) -> tuple[dict[str, str], dict[str, str]]:
    """Keys to leave out on either side, each with the key that stands for it.

    A file written by safetensors has a tied tensor under one name, one of torch.save under all: what decides is which
    side has more tensors of the shape.
    """
    spare, copies = _aliases(source), _aliases(target)
    shapes = {item.key: item.shape for item in (*source, *target)}
    have, want = Counter(item.shape for item in source), Counter(item.shape for item in target)
    both = {shapes[key] for key in spare} & {shapes[key] for key in copies}

    def kept(
        aliases: dict[str, str], mine: Counter[tuple[int, ...]], other: Counter[tuple[int, ...]]
    ) -> dict[str, str]:
        return {
            alias: first
            for alias, first in aliases.items()
            if shapes[alias] in both or mine[shapes[alias]] > other[shapes[alias]]
        }

    return kept(spare, have, want), kept(copies, want, have)


def _aliases(items: Sequence[Item]) -> dict[str, str]:
    """Later names of one memory, by key order, with the first."""
    first: dict[tuple[str, tuple[int, ...]], str] = {}
    aliases = {}
    for item in sorted(items, key=lambda item: item.key):
        if item.storage is not None:
            name = first.setdefault((item.storage, item.shape), item.key)
            if name != item.key:
                aliases[item.key] = name
    return aliases
