"""Doubts: pairs that are right if something holds that no shape shows.

The layers are found, what is open is the order inside them: whether stacked gates or projections are stacked in the
same order, whether a flat axis counts channels first, whether three numbered layers are q, k and v, whether rotary
positions turn neighbours or halves.  A doubt keeps its pair from being applied until it is answered, once for all
layers of the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from loadstone.matching.structure.folding import EPS, FOLDED
from loadstone.matching.structure.fusing import last
from loadstone.matching.structure.gates import cells, halved
from loadstone.matching.structure.items import Assignment, Kind
from loadstone.matching.structure.layers import Layer, Piece
from loadstone.matching.structure.reordering import Recipe, keys_of, main_keys, main_part, reordered
from loadstone.matching.structure.solve import State
from loadstone.matching.structure.stacking import TURNED
from loadstone.matching.structure.words import blank, part_of, stacking

_ROTARY = "both turn the same rows of q and k for rotary positions, halves or neighbours"
_GATES = "both stack their gates in torch's order"
_HEADS = "the rows of both are q, k, v part by part, not head by head"
_HALVES = "both gate the same half of the rows, the first or the second"
_TURNED = "both store it with outputs first, or both with inputs first"
_UNSAID = "both store the matrices of these blocks alike, both with outputs first or both with inputs first"
_CELL = ("ih", "hh", "reverse")  # torch's words for the matrices of one recurrent cell, whose gates are added up

_FEW_HEADS = 4  # heads are narrower than this part of any width


@dataclass(frozen=True, slots=True)
class Doubt:
    source: int
    target: int
    text: str
    key: str  # target key to answer
    options: tuple[str, ...]  # what may be said of it; where it is one, that says yes
    kind: Kind


def take_doubts(
    state: State,
    shaky: Mapping[int, str],
    flat: Mapping[int, str],
    answers: Mapping[str, Assignment],
    unsaid: Mapping[int, str],
    *,
    is_rotary: bool = False,
) -> tuple[list[Doubt], dict[int, dict[str, Recipe]]]:
    """Take pairs in doubt out of the state, but for those whose template has been answered.

    Also gives how the tensors of a source layer are reordered, by role, where an answer says so: for all pairs of the
    answered template, doubted or not.

    Args:
        shaky: source layers that may not be what they are paired with, with the reason.
        flat: source layers that are the same when flattened, with what that assumes.
        unsaid: source layers that may be stored the other way round, with the answer that says so.
        is_rotary: positions may be rotary, for all that lies beside these layers.
    """
    is_rotary = is_rotary or (may_be_rotary(state.source) and may_be_rotary(state.target))
    otherwise = {
        _HALVES: _otherwise(state, halved(state.source), halved(state.target)),
        _GATES: _beside(state, _otherwise(state, cells(state.source), cells(state.target))),
    }
    doubts = {a: doubt for a in state.pairs if (doubt := _doubt(state, a, shaky, flat, otherwise, is_rotary=is_rotary))}
    doubts |= {a: _unsaid_doubt(state, a, across) for a, across in unsaid.items() if a not in doubts}
    orders: dict[int, dict[str, Recipe]] = {}
    for a, found in _answered(state, doubts, answers).items():
        if found[0] is not None and all(order == found[0] for order in found):
            doubts.pop(a, None)
            orders[a] = found[0]
        elif a not in doubts:
            doubts[a] = _doubt_of(state, a, "it is in another order, as places like it are said to be", "order")
    for doubt in doubts.values():
        del state.pairs[doubt.source]
        del state.backward[doubt.target]
    return sorted(doubts.values(), key=lambda doubt: doubt.key), {a: order for a, order in orders.items() if order}


def _answered(
    state: State, doubts: Mapping[int, Doubt], answers: Mapping[str, Assignment]
) -> dict[int, list[dict[str, Recipe] | None]]:
    """By source layer, how it is reordered by what was said of it, or else by all that was said of places like it."""
    said: dict[int, Assignment] = {}
    alike: dict[object, list[int]] = {}
    templates = {a: _template(state, a, b, doubts[a].text if a in doubts else "") for a, (b, *_) in state.pairs.items()}
    for a, (b, _, _) in state.pairs.items():
        answer = answers.get(first_key(state.target[b]))
        if answer is not None and sorted(keys_of(answer)) == sorted(main_keys(state.source[a])):
            said[a] = answer
            alike.setdefault(templates[a], []).append(a)
    places = {a: [a] if a in said else alike.get(templates[a], []) for a in state.pairs}
    return {
        a: [reordered(state.source[a], said[one], state.source[one]) for one in found]
        for a, found in places.items()
        if found
    }


def _doubt(
    state: State,
    a: int,
    shaky: Mapping[int, str],
    flat: Mapping[int, str],
    otherwise: Mapping[str, Set[int]],
    *,
    is_rotary: bool,
) -> Doubt | None:
    source, target = state.source[a], state.target[state.pairs[a][0]]
    stacked = _stacked(source, target, is_cell=a in otherwise[_GATES])
    reasons: tuple[tuple[str, Kind], ...] = (
        (flat.get(a, ""), "flatten"),
        ("" if a in flat else shaky.get(a, ""), "pick"),
        (source.assumed or target.assumed, "fold" if source.assumed is FOLDED else "order"),
        (stacked, "gates" if stacked is _GATES else "heads"),
        (_HALVES if a in otherwise[_HALVES] else "", "order"),
        (_TURNED if _may_be_turned(source, target) else "", "order"),
        (_ROTARY if is_rotary and _turns(source, target) else "", "rotary"),
    )
    text, kind = next((reason for reason in reasons if reason[0]), ("", "pick"))
    return _doubt_of(state, a, text, kind) if text else None


def _doubt_of(state: State, a: int, text: str, kind: Kind) -> Doubt:
    b = state.pairs[a][0]
    return Doubt(a, b, text, first_key(state.target[b]), _options(state.source[a], state.target[b], text), kind)


def _unsaid_doubt(state: State, a: int, across: str) -> Doubt:
    doubt = _doubt_of(state, a, _UNSAID, "turned")
    return replace(doubt, options=(*doubt.options[:1], *filter(None, (across,))))


def tied_doubt(state: State, a: int, b: int) -> Doubt:
    """Whether a layer of the source, paired or not, is this one as well."""
    keys = main_keys(state.source[a])
    text = f"`{keys[0]}` is tied in the checkpoint: embedding and head are both it"
    return Doubt(a, b, text, first_key(state.target[b]), (" + ".join(keys),), "tied")


def _options(source: Layer, target: Layer, text: str) -> tuple[str, ...]:
    """The source's tensors as they are; and what else may be, where that is one other thing."""
    keys, piece, into = main_keys(source), main_part(source).pieces[0], main_keys(target)
    plain = " + ".join(keys)
    if TURNED in (source.assumed, target.assumed):
        return plain, " + ".join(f"({key} | t())" for key in keys) if len(keys) > 1 else f"{plain} | permute(0, 2, 1)"
    if text is FOLDED:
        return tuple(f"fold({', '.join(keys)}; {eps:g})" for eps in EPS)
    if text is _TURNED:
        return plain, f"{plain} | t()"
    if source.assumed and len(keys) % 2 == 0:
        return plain, " + ".join(keys[at ^ 1] for at in range(len(keys)))
    if text is _HALVES or (target.assumed and len(into) % 2 == 0):
        return plain, f"{plain}{_outputs_first(piece, main_part(source).shape)} | {_swapped(max(len(into), 2))}"
    return (plain,)


def _outputs_first(piece: Piece, shape: tuple[int, ...]) -> str:
    """Steps that bring a stored matrix, or a stack of them, into rows."""
    stacked = len(piece.item.shape) == 3
    turn = (" | permute(0, 2, 1)" if stacked else " | t()") if piece.turned else ""
    return f"{turn} | reshape({shape[0]}, {shape[1]})" if stacked else turn


def _swapped(parts: int) -> str:
    return f"blocks(0; {', '.join(str(at ^ 1) for at in range(parts))})"


def _may_be_turned(source: Layer, target: Layer) -> bool:
    """A square matrix that is a bare tensor here and the weight of a module there: either may be the other, turned."""
    roles = [next(iter(layer.parts)) for layer in (source, target) if len(layer.parts) == 1]
    shape = main_part(source).shape
    return sorted(roles) == ["", "weight"] and len(shape) == 2 and shape[0] == shape[1]


def template(state: State, doubt: Doubt) -> object:
    """What doubts have in common that one answer settles."""
    return _template(state, doubt.source, doubt.target, doubt.text)


def _template(state: State, a: int, b: int, doubted: str) -> object:
    if doubted in (_ROTARY, FOLDED, _UNSAID):
        return doubted
    paths = state.source[a].path, state.target[b].path
    if doubted is _GATES:  # of one cell, which adds up what both matrices give; and of both its directions
        torch = [path for path in paths if "ih" in path or "hh" in path]
        return _GATES, *(blank(tuple(token for token in path if token not in _CELL)) for path in torch)
    return tuple(map(blank, paths))


def first_key(layer: Layer) -> str:
    return main_keys(layer)[0]


def _otherwise(state: State, ours: Set[int], theirs: Set[int]) -> frozenset[int]:
    """Source layers of some, which are paired with some of the other side, under another name."""
    pairs = ((a, b) for a, (b, *_) in state.pairs.items() if a in ours and b in theirs)
    return frozenset(a for a, b in pairs if last(state.source[a]) != last(state.target[b]))


def _beside(state: State, some: Set[int]) -> frozenset[int]:
    """They, and what lies in the same containers: the other matrix of a cell."""
    containers = {state.source[a].text.rpartition(".")[0] for a in some}
    return frozenset(a for a in cells(state.source) if state.source[a].text.rpartition(".")[0] in containers)


def _stacked(source: Layer, target: Layer, *, is_cell: bool) -> str:
    """Why the rows of the two may be stacked in different orders."""
    one, other = stacking(source.path), stacking(target.path)
    if one == other:
        return "" if one or not is_cell else _GATES
    if "gates" in one + other:
        named = "ifgo" in (*source.path, *target.path) or "rzn" in (*source.path, *target.path)
        return "" if named else _GATES
    return _HEADS if "perhaps" in one + other else ""


def may_be_rotary(layers: Sequence[Layer]) -> bool:
    """There are tokens, and nothing else says where: no table of positions, no bias between them, one kernel at most.

    Tables are bare tensors, or layers of one matrix outside the blocks, with fewer rows than the vocabulary has.
    """
    shapes = [(layer, layer.signature[0][1]) for layer in layers if len(layer.signature) == 1]
    if any(len(shape) == 2 and "" in layer.parts for layer, shape in shapes) or _has_biases_of_heads(layers):
        return False
    tables = {shape for layer, shape in shapes if len(shape) == 2 and not any(isinstance(t, int) for t in layer.path)}
    widths = [shape[1] for shape in tables]
    kernels = sum(len(shape) > 2 for layer in layers for _, shape in layer.signature)
    return bool(tables) and kernels <= 1 and not any(widths.count(width) > 1 for width in widths)


def _has_biases_of_heads(layers: Sequence[Layer]) -> bool:
    """A table with a column for each head, which is added to scores by how far tokens are apart: what T5 introduced.

    Nothing else is nearly as narrow, and it is not in every block, as a matrix of theirs would be.
    """
    shapes = [part.shape for layer in layers for part in layer.parts.values()]
    names = Counter(blank(layer.path) for layer in layers)
    for layer in layers:
        part = main_part(layer)
        if len(layer.parts) > 1 or len(part.shape) != 2 or part.pieces[0].item.shape != part.shape:
            continue
        others = [size for shape in shapes if shape != part.shape for size in shape if size > 1]
        is_few = 1 < part.shape[1] < part.shape[0] and _FEW_HEADS * part.shape[1] <= min(others, default=0)
        if is_few and names[blank(layer.path)] == 1:
            return True
    return False


def _turns(source: Layer, target: Layer) -> bool:
    """Both are q, k or both in one, by different names: two code bases, which may turn other rows."""
    names = source.text.rpartition(".")[2], target.text.rpartition(".")[2]
    parts = [part_of(layer.path, layer.text) for layer in (source, target)]
    is_attention = any(part and part[1] in ("q", "k") for part in parts) or any(
        stacking(layer.path).startswith("q") for layer in (source, target)
    )
    return is_attention and names[0] != names[1]
