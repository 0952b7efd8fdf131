"""Ties: an embedding and a head that are one tensor, in the file, in the model, in both or in one of the two.

one memory, one tensor     keys that are the same memory count once, where the other side has the values once
one memory, two tensors    which is which is moot: both get, or both must have, the same values
one tensor, two memories   whether it is both of them is asked, and fills both where the answer is yes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from loadstone.matching.structure.items import Assignment, Item
from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.reordering import main_keys
from loadstone.matching.structure.solve import Group, State


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


def pair_moot(state: State) -> None:
    """Pair the layers of groups that are one memory on one side: any pairing gives the same values."""
    rest = []
    for group in state.groups:
        left = sorted(group.left, key=lambda a: state.source[a].text)
        right = sorted(group.right, key=lambda b: state.target[b].text)
        if len(left) == len(right) and (_is_one_memory(state.source, left) or _is_one_memory(state.target, right)):
            why = "one memory on one side, so that either is right"
            rest += [Group([a], [b], "exact", why) for a, b in zip(left, right, strict=True)]
        else:
            rest.append(group)
    state.groups = rest
    state.settle()


def _is_one_memory(layers: Sequence[Layer], members: Sequence[int]) -> bool:
    memories = {piece.item.storage for i in members for part in layers[i].parts.values() for piece in part.pieces}
    return len(members) > 1 and len(memories) == 1 and None not in memories


def untied(state: State, answers: Mapping[str, Assignment]) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """Where the source has one table of words and the target two of that shape.

    Gives target layers that get the values of a source layer which is paired with another, as was said; and (source
    layer, target layer) pairs to be asked about.
    """
    tables = _tables(state.source), _tables(state.target)
    copies: dict[int, int] = {}
    asked: list[tuple[int, int]] = []
    for shape, places in tables[1].items():
        mine = tables[0].get(shape, [])
        if len(mine) != 1 or len(places) != 2:
            continue
        [a] = mine
        taken = state.pairs[a][0] if a in state.pairs else None
        other = next((b for b in places if b != taken), places[0])
        said = [answers[key].sources[0].key for b in places if (key := main_keys(state.target[b])[0]) in answers]
        if taken in places and main_keys(state.source[a])[0] in said:
            copies[other] = a
        elif taken is None or taken in places:
            asked.append((a, other))
    return copies, asked


def _tables(layers: Sequence[Layer]) -> dict[tuple[int, ...], list[int]]:
    """Matrices alone in their layer and outside all blocks, with more rows than any other has: words, as it seems."""
    shapes = {i: layer.signature[0][1] for i, layer in enumerate(layers) if len(layer.signature) == 1}
    matrices = {i: shape for i, shape in shapes.items() if len(shape) == 2 and shape[0] > shape[1]}
    most = max((shape[0] for layer in layers for _, shape in layer.signature if shape), default=0)
    found: dict[tuple[int, ...], list[int]] = {}
    for i, shape in matrices.items():
        if shape[0] == most and not any(isinstance(token, int) for token in layers[i].path):
            found.setdefault(shape, []).append(i)
    return {shape: sorted(members, key=lambda i: layers[i].text) for shape, members in found.items()}
