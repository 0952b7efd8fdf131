"""Fusing: projections that one side keeps apart and the other stacks.

q, k and v are three linear layers here and one `qkv` or `in_proj` there; so are the gates of a recurrent cell.  Where
one side has more layers of the stacked shape than the other, and the other has sibling layers whose names say which
part they are, the parts are joined into one layer that stands for them.  The order is that of the names (q, k, v),
never that of the file.  Three parts that only have numbers may be joined too, but which is which is then asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from loadstone.matching.structure.layers import Layer, Part, Signature
from loadstone.matching.structure.words import FUSED, part_of, tokens


def fuse(mine: Sequence[Layer], other: Sequence[Layer]) -> list[Layer]:
    """My layers, with parts joined wherever the other side has the joined shape and I do not."""
    have, want = Counter(layer.signature for layer in mine), Counter(layer.signature for layer in other)
    result = list(mine)
    for members, joined in (*_candidates(mine), *_numbered(mine)):
        signature = joined.signature
        if want[signature] > have[signature] and have[members[0].signature] > want[members[0].signature]:
            places = {id(member) for member in members}
            at = next((index for index, layer in enumerate(result) if id(layer) in places), None)
            if at is None or places - {id(layer) for layer in result}:
                continue  # another candidate has joined some of them
            result[at] = joined
            rest = [part for member in members if (part := _rest(member, joined))]
            result = [layer for layer in result if id(layer) not in places] + rest
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


def _numbered(layers: Sequence[Layer]) -> list[tuple[list[Layer], Layer]]:
    """Three siblings that differ in a number alone, as q, k, v: an assumption, to be asked."""
    families: dict[str, list[tuple[int, Layer]]] = {}
    for layer in layers:
        if layer.path and isinstance(layer.path[-1], int) and layer.text.endswith(str(layer.path[-1])):
            stem = layer.text[: -len(str(layer.path[-1]))]
            families.setdefault(stem, []).append((layer.path[-1], layer))
    found = []
    for stem, numbered in families.items():
        members = [layer for _, layer in sorted(numbered, key=lambda pair: pair[0])]
        if len(members) == 3 and len({member.signature for member in members}) == 1:
            joined = _joined(f"{stem}qkv", members, f"`{stem}*` are q, k and v in the order of their numbers")
            if joined:
                found.append((members, joined))
    return found


def _joined(text: str, members: Sequence[Layer], assumed: str = "") -> Layer | None:
    roles = [role for role in members[0].parts if all(role in member.parts for member in members)]
    if "weight" not in roles and any(len(member.parts) != 1 for member in members):
        return None
    parts = {}
    for role in roles:
        tensors = [member.parts[role] for member in members]
        if any(len(tensor.shape) == 0 or tensor.shape[1:] != tensors[0].shape[1:] for tensor in tensors):
            return None
        rows = sum(tensor.shape[0] for tensor in tensors)
        pieces = tuple(piece for tensor in tensors for piece in tensor.pieces)
        parts[role] = Part((rows, *tensors[0].shape[1:]), pieces)
    return Layer(tokens(text), text, parts, assumed=assumed)


def _rest(member: Layer, joined: Layer) -> Layer | None:
    """What not all members have: the bias of q and v, where k has none."""
    parts = {role: part for role, part in member.parts.items() if role not in joined.parts}
    return replace(member, parts=parts) if parts else None


def signatures(layers: Sequence[Layer]) -> dict[Signature, list[int]]:
    found: dict[Signature, list[int]] = {}
    for index, layer in enumerate(layers):
        found.setdefault(layer.signature, []).append(index)
    return found
