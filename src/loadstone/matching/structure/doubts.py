"""Doubts: pairs that are right if something holds that no shape shows.

The layers are found, what is open is the order inside them: whether stacked gates or projections are stacked in the
same order, whether a flat axis counts channels first, whether three numbered layers are q, k and v, whether rotary
positions turn neighbours or halves.  A doubt keeps its pair from being applied until it is answered, once for all
layers of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.solve import State
from loadstone.matching.structure.words import part_of, stacking

_ROTARY = "both turn the same rows of q and k for rotary positions, halves or neighbours"


@dataclass(frozen=True, slots=True)
class Doubt:
    source: int
    target: int
    text: str
    key: str  # target key to answer
    option: str  # source keys that say yes, joined by " + "


def take_doubts(state: State, assumed: Mapping[int, str], answers: Mapping[str, str]) -> list[Doubt]:
    """Take pairs in doubt out of the state, but for those whose template has been answered."""
    doubts = []
    rotary = _may_be_rotary(state.source) and _may_be_rotary(state.target)
    for a, (b, _, _) in state.pairs.items():
        source, target = state.source[a], state.target[b]
        text = assumed.get(a) or source.assumed or target.assumed or _stacked(source, target)
        text = text or (_ROTARY if rotary and _turns(source, target) else "")
        if text:
            doubts.append(Doubt(a, b, text, first_key(target), joined_keys(source)))
    said = {template(state, d) for d in doubts if answers.get(d.key) == d.option}
    doubts = [doubt for doubt in doubts if template(state, doubt) not in said]
    for doubt in doubts:
        del state.pairs[doubt.source]
        del state.backward[doubt.target]
    return sorted(doubts, key=lambda doubt: doubt.key)


def template(state: State, doubt: Doubt) -> object:
    """What doubts have in common that one answer settles."""
    if doubt.text is _ROTARY:
        return _ROTARY
    paths = state.source[doubt.source].path, state.target[doubt.target].path
    return tuple(tuple("#" if isinstance(token, int) else token for token in path) for path in paths)


def first_key(layer: Layer) -> str:
    return _main(layer)[0]


def joined_keys(layer: Layer) -> str:
    return " + ".join(_main(layer))


def _main(layer: Layer) -> list[str]:
    part = layer.parts.get("weight") or next(part for role, part in layer.parts.items() if role != "count")
    return [piece.item.key for piece in part.pieces]


def _stacked(source: Layer, target: Layer) -> str:
    """Why the rows of the two may be stacked in different orders."""
    one, other = stacking(source.path), stacking(target.path)
    if one == other:
        return ""
    if "gates" in one + other:
        if "ifgo" in (*source.path, *target.path) or "rzn" in (*source.path, *target.path):
            return ""
        return "both stack their gates in torch's order"
    if "perhaps" in one + other:
        return "the rows of both are q, k, v part by part, not head by head"
    return ""


def _may_be_rotary(layers: Sequence[Layer]) -> bool:
    """There are tokens, and nothing else says where: no table of positions, no bias between them, one kernel at most.

    Tables are bare tensors, or layers of one matrix outside the blocks, with fewer rows than the vocabulary has.
    """
    shapes = [(layer, layer.signature[0][1]) for layer in layers if len(layer.signature) == 1]
    if any(len(shape) == 2 and "" in layer.parts for layer, shape in shapes):
        return False
    tables = {shape for layer, shape in shapes if len(shape) == 2 and not any(isinstance(t, int) for t in layer.path)}
    widths = [shape[1] for shape in tables]
    kernels = sum(len(shape) > 2 for layer in layers for _, shape in layer.signature)
    return bool(tables) and kernels <= 1 and not any(widths.count(width) > 1 for width in widths)


def _turns(source: Layer, target: Layer) -> bool:
    """Both are q, k or both in one, by different names: two code bases, which may turn other rows."""
    names = source.text.rpartition(".")[2], target.text.rpartition(".")[2]
    parts = [part_of(layer.path, layer.text) for layer in (source, target)]
    is_attention = any(part and part[1] in ("q", "k") for part in parts) or any(
        stacking(layer.path).startswith("q") for layer in (source, target)
    )
    return is_attention and names[0] != names[1]
