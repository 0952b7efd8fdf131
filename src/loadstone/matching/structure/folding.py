"""Folding: layers of the source in the form in which the target has them, where that takes arithmetic.

    weight_norm      length and direction of a weight become the weight, or a plain weight becomes both
    spectral_norm    a weight and the two vectors that say what to divide it by become the weight that was used
    batch norm       a convolution and the norm behind it become a convolution with a bias

Which norm stands behind which convolution is said by their numbers (`conv1` and `bn1`, or 0 and 1 of a sequence) or by
there being one of each; else nothing is folded.  The eps of a norm is in no state dict: it is asked, once for all.
The other way there is no way: a folded norm cannot be taken out again, see `folded_away`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from loadstone.matching.structure.arithmetic import Sum
from loadstone.matching.structure.items import Assignment, Match
from loadstone.matching.structure.layers import Layer, Part, Piece, Signature
from loadstone.matching.structure.words import place

FOLDED = "batch norms are folded into the layers before them, with the eps of the answer"
EPS = (1e-05, 1e-03)  # torch's own, and that of TensorFlow and of what was ported from it

_NORM = frozenset(("weight", "bias", "mean", "var"))


def parametrized(mine: Sequence[Layer], other: Sequence[Layer]) -> list[Layer]:
    """My layers with weight_norm where the other side has it, and without where it has none."""
    changed: dict[int, Layer] = {}
    for layer in mine:
        made = _plain(layer) or _divided(layer, other) or _normed(layer)
        if made is not None:
            changed[id(layer)] = made
    return _where_wanted(mine, other, changed)


def folded(mine: Sequence[Layer], other: Sequence[Layer], answers: Iterable[Assignment]) -> list[Layer]:
    """My layers with batch norms folded into what stands before them, where the other side has them so."""
    norms = Counter(layer.signature for layer in mine if _is_norm(layer))
    norms.subtract(layer.signature for layer in other if _is_norm(layer))
    if not any(count > 0 for count in norms.values()):
        return list(mine)
    eps = next((made.eps for answer in answers if (made := answer.made_by) and made.eps is not None), None)
    behind = _behind(mine)
    changed = {id(layer): _folded(layer, behind[id(layer)], eps) for layer in mine if id(layer) in behind}
    result = _where_wanted(mine, other, changed)
    kept = {id(layer) for layer in result}
    gone = {id(norm): norm for at, norm in behind.items() if at not in kept}
    if Counter(norm.signature for norm in gone.values()) > norms:  # the other side keeps some of them
        return list(mine)
    return [layer for layer in result if id(layer) not in gone]


def folded_away(mine: Sequence[Layer], other: Sequence[Layer]) -> str:
    """Why a source cannot fill a target that has batch norms, where it has folded its own away; "" where it can."""
    into = Counter(_bare(layer) for layer, _ in _pairs_behind(other).values())
    have = Counter(_bare(layer) for layer in mine if "bias" in layer.parts)
    undivided = Counter(layer.parts["undivided"].shape for layer in other if "undivided" in layer.parts)
    undivided.subtract(layer.parts["undivided"].shape for layer in mine if "undivided" in layer.parts)
    if any(count > 0 for count in undivided.values()):
        return f"the target has {SPECTRAL}"
    if any(map(_is_norm, mine)) or not into or any(have[signature] < count for signature, count in into.items()):
        return ""
    return "the target has batch norms, which the source has folded into its layers: they cannot be taken out again"


def _where_wanted(mine: Sequence[Layer], other: Sequence[Layer], changed: Mapping[int, Layer]) -> list[Layer]:
    """Layers changed, all of a form or none, where the other side has more of the new form and I more of the old."""
    have, want = Counter(layer.signature for layer in mine), Counter(layer.signature for layer in other)
    forms: dict[tuple[Signature, Signature], int] = {}
    for layer in mine:
        if id(layer) in changed:
            form = layer.signature, changed[id(layer)].signature
            forms[form] = forms.get(form, 0) + 1
    have.subtract({old: count for (old, _), count in forms.items()})  # what is left if all are changed
    wanted = {
        (old, new): have[new] + count <= want[new] and (old == new or want[old] <= have[old])
        for (old, new), count in forms.items()
    }
    return [
        changed[id(layer)] if id(layer) in changed and wanted[layer.signature, changed[id(layer)].signature] else layer
        for layer in mine
    ]


# weight_norm ---------------------------------------------------------------------------------------------------------


def _plain(layer: Layer) -> Layer | None:
    """The layer with its weight computed from length and direction."""
    if not {"magnitude", "direction"} <= layer.parts.keys():
        return None
    [length], [direction] = layer.parts["magnitude"].pieces, layer.parts["direction"].pieces
    if not _is_by_row(length, direction):
        return None
    piece = Piece(direction.item, direction.rows, made_by=Sum("scaled"), beside=(length.item,))
    weight = Part(layer.parts["direction"].shape, (piece,))
    rest = {role: part for role, part in layer.parts.items() if role not in ("magnitude", "direction")}
    return replace(layer, parts={"weight": weight, **rest})


def _is_by_row(length: Piece, direction: Piece) -> bool:
    """One length for each row: weight_norm along the first axis, its default."""
    shape = length.item.shape
    return shape[:1] == direction.item.shape[:1] and max(shape[1:], default=1) == 1


def _normed(layer: Layer) -> Layer | None:
    """The layer with length and direction of its weight."""
    weight = layer.parts.get("weight", layer.parts.get("") if len(layer.parts) == 1 else None)
    if weight is None or len(weight.pieces) != 1 or len(weight.shape) < 2 or weight.pieces[0].turned:
        return None
    [piece] = weight.pieces
    if piece.made_by is not None or piece.item.shape[:1] != weight.shape[:1]:
        return None
    lengths = Part(weight.shape[:1], (Piece(piece.item, piece.rows, made_by=Sum("lengths")),))
    rest = {role: part for role, part in layer.parts.items() if role not in ("weight", "")}
    return replace(layer, parts={"magnitude": lengths, "direction": weight, **rest})


# spectral_norm -------------------------------------------------------------------------------------------------------


SPECTRAL = "`spectral_norm`, which the source has not: fill the model before `spectral_norm` is applied to it"
_OUTPUTS_FIRST = frozenset(("Conv1d", "Conv2d", "Conv3d"))


def undivided(found: Match) -> dict[str, str]:
    """Why tensors of a spectral_norm find no source, where the source has none anywhere."""
    sides = found.unmatched_target, found.unmatched_source
    missing, unused = ({one.key: place(one.key)[2] for one in side} for side in sides)
    if "undivided" in unused.values():
        return {}
    return {key: f"of {SPECTRAL}" for key, role in missing.items() if role == "undivided"}


def _divided(layer: Layer, other: Sequence[Layer]) -> Layer | None:
    """The layer with the weight that was used, which is the stored one divided by its largest singular value."""
    if not {"undivided", "left", "direction"} <= layer.parts.keys():
        return None
    pieces = [layer.parts[role].pieces[0] for role in ("undivided", "left", "direction")]
    shapes = [piece.item.shape for piece in pieces]
    made = Sum("spectral")
    try:
        made.after(shapes)
    except ValueError:
        return None
    piece = Piece(pieces[0].item, pieces[0].rows, made_by=made, beside=(pieces[1].item, pieces[2].item))
    gone = ("undivided", "left", "direction")
    rest = {role: part for role, part in layer.parts.items() if role not in gone}
    plain = replace(layer, parts={"weight": Part(layer.parts["undivided"].shape, (piece,)), **rest})
    if len(shapes[0]) < 3 or shapes[0][0] != shapes[0][1]:
        return plain
    # of a transposed convolution the rows are the second axis, which no shape tells here
    wanted = [one for one in other if one.signature == plain.signature]
    modules = {part.pieces[0].item.module for one in wanted for part in one.parts.values()}
    return plain if modules <= _OUTPUTS_FIRST else None


# batch norm ----------------------------------------------------------------------------------------------------------


def _is_norm(layer: Layer) -> bool:
    return layer.parts.keys() - {"count"} == _NORM


def _bare(layer: Layer) -> Signature:
    """The signature without the bias."""
    return replace(layer, parts={role: part for role, part in layer.parts.items() if role != "bias"}).signature


def _behind(layers: Sequence[Layer]) -> dict[int, Layer]:
    """By identity of a layer, the norm behind it."""
    return {at: norm for at, (_, norm) in _pairs_behind(layers).items()}


def _pairs_behind(layers: Sequence[Layer]) -> dict[int, tuple[Layer, Layer]]:
    """(layer, norm behind it) where there is no other way to pair them."""
    boxes: dict[tuple[str, int], tuple[list[Layer], list[Layer]]] = {}
    for layer in layers:
        weight = layer.parts.get("weight", layer.parts.get(""))
        if weight is None or not weight.shape or len(weight.pieces) != 1 or weight.pieces[0].turned:
            continue
        box = boxes.setdefault((layer.text.rpartition(".")[0], weight.shape[0]), ([], []))
        if _is_norm(layer):
            box[1].append(layer)
        elif len(weight.pieces[0].item.shape) > 1:
            box[0].append(layer)
    found: dict[int, tuple[Layer, Layer]] = {}
    for matrices, norms in boxes.values():
        for norm in norms:
            before = matrices if len(matrices) == len(norms) == 1 else [one for one in matrices if _follows(one, norm)]
            if len(before) == 1 and id(before[0]) not in found:
                found[id(before[0])] = before[0], norm
    return found


def _follows(layer: Layer, norm: Layer) -> bool:
    """The same number, `conv1` and `bn1`, or the next one of a sequence, `0` and `1`."""
    mine, other = (each.text.rpartition(".")[2] for each in (layer, norm))
    if mine.isdigit() and other.isdigit():
        return int(mine) + 1 == int(other)
    numbers = ["".join(filter(str.isdigit, each)) for each in (mine, other)]
    return bool(numbers[0]) and numbers[0] == numbers[1]


def _folded(layer: Layer, norm: Layer, eps: float | None) -> Layer:
    weight = layer.parts.get("weight", layer.parts.get("", next(iter(layer.parts.values()))))
    gamma, beta, mean, var = (norm.parts[role].pieces[0].item for role in ("weight", "bias", "mean", "var"))
    bias = tuple(piece.item for piece in layer.parts["bias"].pieces) if "bias" in layer.parts else ()
    [piece] = weight.pieces
    value = EPS[0] if eps is None else eps
    rows = Piece(beta, piece.rows, made_by=Sum("fold_bias", value), beside=(mean, gamma, var, *bias))
    parts = {
        "weight": Part(weight.shape, (replace(piece, made_by=Sum("fold", value), beside=(gamma, var)),)),
        "bias": Part((piece.rows,), (rows,)),
    }
    return replace(layer, parts=parts, assumed=FOLDED if eps is None else "")
