"""Affix: the same names on both sides, but for one prefix.

Where nearly every layer of one side is found on the other under the same name, shape for shape, these are the same
code, wrapped or extended, and names decide.  Not so where the leftover layers of either side are more of the same
family (`layer1.2` beside `layer1.0` and `layer1.1`): then it is another depth, and equal names mean nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.words import blank

_SHARE = 0.9  # of the smaller side's layers


def same_names(source: Sequence[Layer], target: Sequence[Layer]) -> list[tuple[int, int]]:
    """Pairs (source, target) of layers with the same name behind one prefix; empty where names do not decide."""
    best: list[tuple[int, int]] = []
    for ours, theirs in _prefixes(source, target):
        place = {layer.text: index for index, layer in enumerate(target)}
        pairs = []
        for a, layer in enumerate(source):
            if layer.text.startswith(ours):
                b = place.get(theirs + layer.text[len(ours) :])
                if b is not None and target[b].signature == layer.signature:
                    pairs.append((a, b))
        if len(pairs) > len(best):
            best = pairs
    if len(best) < _SHARE * min(len(source), len(target)) or len(best) < 3:
        return []
    used = {a for a, _ in best}, {b for _, b in best}
    for side, layers in enumerate((source, target)):
        paired = Counter(blank(layers[i].path) for i in used[side])
        if any(paired[blank(layer.path)] for i, layer in enumerate(layers) if i not in used[side] and _numbers(layer)):
            return []
    return best


def _prefixes(source: Sequence[Layer], target: Sequence[Layer]) -> list[tuple[str, str]]:
    """Prefixes worth trying: none, and what stands before a source name at the end of a target name, or around."""
    votes: Counter[tuple[str, str]] = Counter({("", ""): 0})
    for longer, shorter, swap in ((target, source, False), (source, target, True)):
        names = {layer.text: layer.signature for layer in shorter}
        for layer in longer:
            parts = layer.text.split(".")
            for cut in range(1, len(parts)):
                if names.get(".".join(parts[cut:])) == layer.signature:
                    prefix = ".".join(parts[:cut]) + "."
                    votes[(prefix, "") if swap else ("", prefix)] += 1
                    break
    return [pair for pair, _ in votes.most_common(4)] + [("", "")]


def _numbers(layer: Layer) -> bool:
    return any(isinstance(token, int) for token in layer.path)
