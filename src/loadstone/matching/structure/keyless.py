"""Keyless: attention that gives q and v a bias, and k none.

A bias of k adds the same to all scores of a query, which a softmax does not see: many leave it out, and keep `q_bias`
and `v_bias` apart where q, k and v are one matrix.  Where the other side has one bias for all three, its middle third
belongs to k: zeros, or what is left out.  What was in it no shape shows, so that this is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from loadstone.matching.structure.arithmetic import Sum
from loadstone.matching.structure.layers import Layer, Part, Piece
from loadstone.matching.structure.words import part_of, tokens

Side = Literal["source", "target"]
_STACKED = ("q", "k", "v")
KEYLESS = "the bias of k, which one side does not have, counts for nothing: it is zeros there, or left out"


def keyless(mine: Sequence[Layer], other: Sequence[Layer], side: Side) -> list[Layer]:
    """My layers with the biases of q and v in one, k between them, wherever the other side has one for all three."""
    have, want = Counter(layer.signature for layer in mine), Counter(layer.signature for layer in other)
    changed: dict[int, Layer | None] = {}
    for text, (q, k, v) in _without(mine):
        made = _joined(text, (q, k, v), side)
        if want[made.signature] > have[made.signature] and have[k.signature] > want[k.signature]:
            changed |= {id(layer): None for layer in (q, v)} | {id(k): made}
    return [kept for layer in mine if (kept := changed.get(id(layer), layer)) is not None]


def _without(layers: Sequence[Layer]) -> Iterator[tuple[str, tuple[Layer, Layer, Layer]]]:
    """What is q, what k and what v, by the name of all: with k stands the matrix of all three, where it is one."""
    whole = {layer.text: layer for layer in layers if layer.parts.keys() == {"weight"}}
    parts: dict[str, dict[str, Layer]] = {}
    for layer in layers:
        found = part_of(layer.path, layer.text)
        if found:
            parts.setdefault(found[0], {})[found[1]] = layer
    for stem, named in parts.items():
        text = stem.replace("*", "".join(_STACKED))
        k = named.get("k", whole.get(text))
        if k is None or k.parts.keys() != {"weight"} or not {"q", "v"} <= named.keys():
            continue
        q, v = named["q"], named["v"]
        roles = {"weight", "bias"} if "k" in named else {"bias"}
        rows = k.parts["weight"].shape[0] // (1 if "k" in named else len(_STACKED))
        if q.signature != v.signature or q.parts.keys() != roles or q.parts["bias"].shape != (rows,):
            continue
        if all(len(layer.parts["bias"].pieces) == 1 for layer in (q, v)):
            yield text, (q, k, v)


def _joined(text: str, layers: tuple[Layer, Layer, Layer], side: Side) -> Layer:
    weights = [layer.parts["weight"] for layer in layers if "weight" in layer.parts]
    [first], [last] = layers[0].parts["bias"].pieces, layers[2].parts["bias"].pieces
    if side == "source":
        biases: tuple[Piece, ...] = (
            replace(first, rows=len(_STACKED) * first.rows, made_by=Sum("around"), beside=(last.item,)),
        )
    else:
        biases = (first, replace(last, skipped=first.rows))
    pieces = tuple(piece for weight in weights for piece in weight.pieces)
    shape = (sum(weight.shape[0] for weight in weights), *weights[0].shape[1:])
    bias = Part((len(_STACKED) * first.rows,), biases)
    return Layer(tokens(text), text, {"weight": Part(shape, pieces), "bias": bias}, assumed=KEYLESS)
