"""Ties: an embedding and a head that are one tensor, in the file, in the model, in both or in one of the two.

one memory, one tensor     keys that are the same memory count once, where the other side has the values once; the name
                           that stands for it is the one that leaves layers as the other side has them
one memory, two tensors    which is which is moot: both get, or both must have, the same values
one tensor, two memories   whether it is both of them is asked, and fills both where the answer is yes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from loadstone.matching.structure.items import Assignment, Item
from loadstone.matching.structure.layers import Layer, Signature, layers
from loadstone.matching.structure.reordering import main_keys
from loadstone.matching.structure.solve import Group, State
from loadstone.matching.structure.words import holders, place


def ties(source: Sequence[Item], target: Sequence[Item]) -> tuple[dict[str, str], dict[str, str]]:
    """Keys to leave out on either side, each with the key that stands for it.

    A file written by safetensors has a tied tensor under one name, one of torch.save under all: what decides is which
    side has more tensors of the shape.
    """
    memories = _memories(source), _memories(target)
    if not any(memories):
        return {}, {}
    have, want = Counter(item.shape for item in source), Counter(item.shape for item in target)
    both = {names[0].shape for names in memories[0]} & {names[0].shape for names in memories[1]}

    def kept(
        memories: list[list[Item]], mine: Counter[tuple[int, ...]], other: Counter[tuple[int, ...]]
    ) -> list[list[Item]]:
        shapes = both | {shape for shape in mine if mine[shape] > other[shape]}
        return [names for names in memories if names[0].shape in shapes]

    spare = _standing(kept(memories[0], have, want), source, target)
    left = [item for item in source if item.key not in spare]
    return spare, _standing(kept(memories[1], want, have), target, left)


def _memories(items: Sequence[Item]) -> list[list[Item]]:
    """What is one memory under several names, in the order of keys."""
    found: dict[tuple[str, tuple[int, ...]], list[Item]] = {}
    for item in sorted(items, key=lambda item: item.key):
        if item.storage is not None:
            found.setdefault((item.storage, item.shape), []).append(item)
    return [names for names in found.values() if len(names) > 1]


def _standing(memories: Sequence[list[Item]], items: Sequence[Item], others: Sequence[Item]) -> dict[str, str]:
    """Every name but the one that stands for its memory, with that one.

    Tensors that lie together under all their names, as those of a layer that is registered twice, go together.  Of
    names that leave equally good layers it is the one as deep in containers as its like on the other side; where
    nothing tells them apart, the first by key: either is right.
    """
    if not memories:
        return {}
    theirs = layers(others)
    known: dict[Signature, list[int]] = {}
    for layer, depth in zip(theirs, _depths([layer.text for layer in theirs]), strict=True):
        known.setdefault(layer.signature, []).append(depth)
    depths = dict(zip(texts := list(map(_layer, items)), _depths(texts), strict=True))
    members: dict[str, list[Item]] = {}
    for item in items:
        members.setdefault(_layer(item), []).append(item)
    bundles: dict[tuple[str, ...], list[list[Item]]] = {}
    for names in memories:
        bundles.setdefault(tuple(map(_layer, names)), []).append(names)
    found: dict[str, str] = {}
    for places, bundle in bundles.items():
        rest = [item for text in dict.fromkeys(places) for item in members[text]]
        fits = []
        for at, text in enumerate(places):
            gone = {item.key for names in bundle for n, item in enumerate(names) if n != at}
            left = layers(item for item in rest if item.key not in gone)
            share = sum(layer.signature in known for layer in left) / max(len(left), 1)
            own = next((layer.signature for layer in left if layer.text == text), ())
            fits.append((share, -min((abs(depth - depths[text]) for depth in known.get(own, ())), default=0)))
        best = fits.index(max(fits))
        found |= {item.key: names[best].key for names in bundle for n, item in enumerate(names) if n != best}
    return found


def _depths(texts: Sequence[str]) -> list[int]:
    """How many containers each layer lies in, less those that hold all of them."""
    inside = [holders(text) for text in texts]
    shared = set(inside[0]).intersection(*inside[1:]) if inside else ()
    return [len(containers) - len(shared) for containers in inside]


def _layer(item: Item) -> str:
    return place(item.key)[1]


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
