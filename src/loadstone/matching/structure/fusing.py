"""Fusing: projections that one side keeps apart and the other stacks.

q, k and v are three linear layers here and one `qkv` or `in_proj` there; so are the gates of a recurrent cell.  Where
one side has more layers of the stacked shape than the other, and the other has sibling layers whose names say which
part they are, the parts are joined into one layer that stands for them.  The order is that of the names (q, k, v),
never that of the file.  Parts without such names are left alone: which comes first cannot be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadstone.matching.structure.layers import Layer, Part, Signature
from loadstone.matching.structure.words import FUSED, part_of, tokens


def fuse(mine: Sequence[Layer], other: Sequence[Layer]) -> list[Layer]:
    """My layers, with parts joined wherever the other side has the joined shape and I do not."""
    have, want = Counter(layer.signature for layer in mine), Counter(layer.signature for layer in other)
    result = list(mine)
    for members, joined in _candidates(mine):
        signature = joined.signature
        if want[signature] > have[signature] and have[members[0].signature] > want[members[0].signature]:
            places = {id(member) for member in members}
            at = min(index for index, layer in enumerate(result) if id(layer) in places)
            result[at] = joined
            result = [layer for layer in result if id(layer) not in places]
            have[signature] += 1
            have.subtract(member.signature for member in members)
    return result


def _candidates(layers: Sequence[Layer]) -> list[tuple[list[Layer], Layer]]:
    siblings: dict[str, dict[str, Layer]] = {}
    for layer in layers:
        found = part_of(layer.path, layer.text)
        if found:
            siblings.setdefault(found[0], {})[found[1]] = layer
    candidates = []
    for text, parts in siblings.items():
        for whole, names in FUSED.items():
            options = [names] if whole != "qkv" else [names, ("q", "kv")]
            for wanted in options:
                if all(name in parts for name in wanted):
                    members = [parts[name] for name in wanted]
                    joined = _joined(text.replace("*", whole), members)
                    if joined:
                        candidates.append((members, joined))
    return candidates


def _joined(text: str, members: Sequence[Layer]) -> Layer | None:
    roles = [role for role in members[0].parts if all(role in member.parts for member in members)]
    if any(len(member.parts) != len(roles) for member in members):
        return None
    parts = {}
    for role in roles:
        tensors = [member.parts[role] for member in members]
        if any(len(tensor.shape) == 0 or tensor.shape[1:] != tensors[0].shape[1:] for tensor in tensors):
            return None
        rows = sum(tensor.shape[0] for tensor in tensors)
        pieces = tuple(piece for tensor in tensors for piece in tensor.pieces)
        parts[role] = Part((rows, *tensors[0].shape[1:]), pieces)
    return Layer(tokens(text), text, parts)


def signatures(layers: Sequence[Layer]) -> dict[Signature, list[int]]:
    found: dict[Signature, list[int]] = {}
    for index, layer in enumerate(layers):
        found.setdefault(layer.signature, []).append(index)
    return found
