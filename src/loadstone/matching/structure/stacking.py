"""Stacking: experts that one side keeps apart, and the other in one tensor.

`experts.0.w1.weight` to `experts.7.w1.weight` are eight matrices here and one tensor of eight there, with outputs
before inputs or behind them, and with gate and up in one.  Which of these it is, all tensors that lie together say
together: there is one reading in which each takes its own of the families, or it is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from loadstone.matching.structure.fusing import last, order_said
from loadstone.matching.structure.layers import Layer, Part, Piece
from loadstone.matching.structure.words import tokens

TURNED = "experts are stored (outputs, inputs) in one tensor, as they are apart"
Matrix: TypeAlias = tuple[int, int]
Family: TypeAlias = tuple[Layer, ...]  # the same layer of every expert
Families: TypeAlias = dict[str, Family]  # of one block, by what comes behind the number


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the stacked tensors of a block are read: whether inputs come first, and how many families each holds.

    `matrices` has the shape of one member of a family, for each of the stacked tensors.
    """

    turned: bool
    matrices: tuple[tuple[Matrix, int], ...]

    @property
    def needs(self) -> Counter[Matrix]:
        needs: Counter[Matrix] = Counter()
        for matrix, count in self.matrices:
            needs[matrix] += count
        return needs


def stack(mine: Sequence[Layer], other: Sequence[Layer]) -> tuple[list[Layer], list[Layer]]:
    """My layers with experts in one wherever the other side has them so, and its layers in the form that mine get."""
    have = Counter(layer.signature for layer in mine)
    blocks: dict[str, list[Layer]] = {}
    for layer in other:
        if _is_stacked(layer) and not have[layer.signature]:
            blocks.setdefault(layer.text.rpartition(".")[0], []).append(layer)
    if not blocks:
        return list(mine), list(other)
    kinds = {tuple(map(_shape, stacked)): stacked for stacked in blocks.values()}
    joined: dict[int, list[Layer]] = {}
    turned: dict[object, bool] = {}  # by kind
    for families in _families(mine):
        for kind, stacked in kinds.items():
            readings = _readings(stacked, families)
            if readings:
                made = list(_joined(families, stacked, readings[0], TURNED if len(readings) > 1 else ""))
                joined |= {id(member): [] for family in families.values() for member in family}
                joined[id(next(iter(families.values()))[0])] = made
                turned[kind] = readings[0].turned
                break
    read = {
        id(layer): _unstacked(layer, turned=turned[kind])
        for stacked in blocks.values()
        if (kind := tuple(map(_shape, stacked))) in turned
        for layer in stacked
    }
    left = [made for layer in mine for made in joined.get(id(layer), [layer])]
    return left, [read.get(id(layer), layer) for layer in other]


def _is_stacked(layer: Layer) -> bool:
    """A tensor of three axes that stands for a layer, with a bias for each of its matrices or none."""
    weight = layer.parts.get("", layer.parts.get("weight"))
    if weight is None or not layer.parts.keys() <= {"", "weight", "bias"}:
        return False
    shape = weight.shape
    bias = layer.parts.get("bias")
    plain = len(shape) == 3 and len(weight.pieces) == 1 and weight.pieces[0].item.shape == shape
    return plain and (bias is None or (len(bias.shape) == 2 and bias.shape[0] == shape[0]))


def _shape(layer: Layer) -> tuple[int, ...]:
    return layer.parts["weight" if "weight" in layer.parts else ""].shape


def _families(layers: Sequence[Layer]) -> Iterator[Families]:
    """Blocks of numbered families: matrices that differ in one number of their name, with none left out."""
    found: dict[str, dict[str, dict[int, Layer]]] = {}
    for layer in layers:
        parts = layer.text.split(".")
        for at, part in enumerate(parts):
            if part.isdigit() and "weight" in layer.parts and len(_shape(layer)) == 2:
                before, after = ".".join(parts[:at]), ".".join(parts[at + 1 :])
                found.setdefault(before, {}).setdefault(after, {})[int(part)] = layer
    for block in found.values():
        sizes = {len(numbered) for numbered in block.values()}
        whole = all(max(numbered) - min(numbered) == len(numbered) - 1 for numbered in block.values())
        alike = all(len({layer.signature for layer in numbered.values()}) == 1 for numbered in block.values())
        if len(sizes) == 1 and sizes != {1} and whole and alike:
            yield {after: tuple(numbered[number] for number in sorted(numbered)) for after, numbered in block.items()}


def _readings(stacked: Sequence[Layer], families: Families) -> list[_Reading]:
    """Every reading in which the stacked tensors hold each family once, plain ones first."""
    have: Counter[Matrix] = Counter()
    for family in families.values():
        rows, columns = _shape(family[0])
        have[rows, columns] += 1
    shapes = [_shape(layer) for layer in stacked]
    if any(shape[0] != len(next(iter(families.values()))) for shape in shapes):
        return []
    readings = []
    for turned, counts in product((False, True), product((1, 2), repeat=len(shapes))):
        sides = [(shape[2], shape[1]) if turned else (shape[1], shape[2]) for shape in shapes]
        if any(rows != _rows_of_bias(layer, rows) for layer, (rows, _) in zip(stacked, sides, strict=True)):
            continue
        pairs = list(zip(sides, counts, strict=True))
        if all(rows % count == 0 for (rows, _), count in pairs):
            matrices = tuple(((rows // count, columns), count) for (rows, columns), count in pairs)
            reading = _Reading(turned, matrices)
            mixed = len(set(matrices)) > len({matrix for matrix, _ in matrices})
            if reading.needs == have and not mixed:
                readings.append(reading)
    return readings


def _rows_of_bias(layer: Layer, otherwise: int) -> int:
    return layer.parts["bias"].shape[1] if "bias" in layer.parts else otherwise


def _joined(families: Families, stacked: Sequence[Layer], reading: _Reading, assumed: str) -> Iterator[Layer]:
    """One layer for every family, or for two that one tensor holds."""
    by_matrix: dict[tuple[int, ...], list[Family]] = {}
    for family in families.values():
        by_matrix.setdefault(_shape(family[0]), []).append(family)
    done: dict[Matrix, None] = {}
    for matrix, count in reading.matrices:
        if matrix in done:
            continue
        done[matrix] = None
        members = by_matrix[matrix]
        if count == 1:
            yield from (_stacked([family], assumed) for family in members)
            continue
        names = [last(layer) for layer, each in zip(stacked, reading.matrices, strict=True) if each == (matrix, count)]
        firsts = sorted((last(family[0]), family) for family in members)
        said = {order_said([name for name, _ in firsts], name) for name in names}
        pair = [family for _, family in firsts]
        if said == {(1, 0)}:
            pair.reverse()
        unsaid = "" if said in ({(0, 1)}, {(1, 0)}) else f"`{pair[0][0].text}` comes before `{pair[1][0].text}`"
        yield _stacked(pair, assumed or unsaid)


def _stacked(families: Sequence[Family], assumed: str) -> Layer:
    """The matrices of all experts one below the other; of two families, both of the first expert come first."""
    members = [member for together in zip(*families, strict=True) for member in together]
    parts = {}
    for role in (role for role in members[0].parts if all(role in member.parts for member in members)):
        tensors = [member.parts[role] for member in members]
        rows = sum(tensor.shape[0] for tensor in tensors)
        parts[role] = Part((rows, *tensors[0].shape[1:]), tuple(piece for tensor in tensors for piece in tensor.pieces))
    common = members[0].text.rpartition(".")[0].rpartition(".")[0]
    words = tuple(token for family in families for token in tokens(last(family[0])))
    text = ".".join(filter(None, (common, "_".join(last(family[0]) for family in families))))
    path = (*tokens(common), *(token for token in words if len(families) == 1 or isinstance(token, str)))
    return Layer(path, text, parts, assumed=assumed)


def _unstacked(layer: Layer, *, turned: bool) -> Layer:
    """The layer with its matrices one below the other, as `_stacked` has them."""
    parts = {}
    for role, part in layer.parts.items():
        (piece,) = part.pieces
        if role == "bias":
            parts[role] = Part((piece.item.elements,), (Piece(piece.item, piece.item.elements),))
        else:
            count, one, other = part.shape
            rows, columns = (count * other, one) if turned else (count * one, other)
            form = ((0, 2, 1), piece.item.shape) if turned else ()
            parts["weight"] = Part((rows, columns), (Piece(piece.item, rows, *form),))
    return Layer(layer.path, layer.text, parts)
