"""Fusing: projections that one side keeps apart and the other stacks.

q, k and v are three linear layers here and one `qkv` or `in_proj` there; so are the gates of a recurrent cell.  Where
one side has more layers of the stacked shape than the other, and the other has sibling layers whose names say which
part they are, the parts are joined into one layer that stands for them.  The order is that of the names (q, k, v),
never that of the file.  Three parts that only have numbers may be joined too, but which is which is then asked.

Two siblings of one shape are joined as well, as gate and up of a gated MLP are.  Which of them comes first is known
where the stacked layer is named after both (`gate_up_proj`, `w12`); else it is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from loadstone.matching.structure.layers import Layer, Part, Signature
from loadstone.matching.structure.words import FUSED, blank, part_of, tokens

Candidate: TypeAlias = tuple[list[Layer], Layer]  # parts, and what they are joined


def fuse(mine: Sequence[Layer], other: Sequence[Layer]) -> list[Layer]:
    """My layers, with parts joined wherever the other side has the joined shape and I do not.

    A family, as of all blocks alike, is joined as a whole or not at all: which of its members would be joined and which
    not, nothing but their order could say.
    """
    have, want = Counter(layer.signature for layer in mine), Counter(layer.signature for layer in other)
    families: dict[tuple[object, Signature], list[Candidate]] = {}
    for members, joined in (*_candidates(mine), *_numbered(mine), *_pairs(mine, other)):
        families.setdefault((blank(joined.path), joined.signature), []).append((members, joined))
    gone: dict[int, Layer | None] = {}  # by identity: what stands where a part was, None for nothing
    rest: list[Layer] = []
    for (_, signature), family in families.items():
        part = family[0][0][0].signature
        if want[signature] <= have[signature] or have[part] <= want[part]:
            continue
        rivals = [each for (_, made), each in families.items() if made == signature and not _is_gone(each, gone)]
        missing = want[signature] - have[signature]
        if sum(map(len, rivals)) > missing and family not in _named(rivals, signature, other, missing):
            continue
        for members, joined in family:
            if any(id(member) in gone for member in members):
                continue  # another candidate has joined some of them
            gone |= {id(member): None for member in members} | {id(members[0]): joined}
            rest += [left for member in members if (left := _rest(member, joined))]
            have[signature] += 1
            have.subtract(member.signature for member in members)
    return [kept for layer in mine if (kept := gone.get(id(layer), layer)) is not None] + rest


def _is_gone(candidates: Sequence[Candidate], gone: Mapping[int, Layer | None]) -> bool:
    return any(id(member) in gone for members, _ in candidates for member in members)


def _named(
    rivals: Sequence[list[Candidate]], signature: Signature, other: Sequence[Layer], missing: int
) -> list[list[Candidate]]:
    """Of families that may be joined, those with the words that all stacked layers of the other side have.

    All of them where there is one alone, or where they share their members: then nothing else can be meant.  None where
    words leave more than are missing.
    """
    members = [frozenset(id(member) for parts, _ in family for member in parts) for family in rivals]
    if all(one & another for one in members for another in members):
        return list(rivals)
    stacked = [frozenset(layer.path) for layer in other if layer.signature == signature]
    shared = frozenset(word for word in frozenset.intersection(*stacked) if isinstance(word, str))
    words = [frozenset(token for parts, _ in family for part in parts for token in part.path) for family in rivals]
    telling = [word for word in sorted(map(str, shared)) if 0 < sum(word in mine for mine in words) < len(words)]
    named = [family for family, mine in zip(rivals, words, strict=True) if telling and all(w in mine for w in telling)]
    return named if sum(map(len, named)) <= missing else []


def _candidates(layers: Sequence[Layer]) -> list[Candidate]:
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


def _numbered(layers: Sequence[Layer]) -> list[Candidate]:
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


def _pairs(layers: Sequence[Layer], other: Sequence[Layer]) -> list[Candidate]:
    """Two siblings of one shape, and no third, in the order that names of stacked layers say, or to be asked.

    One of q, k and v is joined with the other two or with nothing.
    """
    parted = {id(member) for members, _ in _candidates(layers) if len(members) == 3 for member in members}
    siblings: dict[tuple[str, Signature], list[Layer]] = {}
    for layer in layers:
        siblings.setdefault((layer.text.rpartition(".")[0], layer.signature), []).append(layer)
    names: dict[Signature, dict[str, None]] = {}
    for layer in other:
        names.setdefault(layer.signature, {})[last(layer)] = None
    found = []
    for (parent, signature), members in siblings.items():
        if len(members) != 2 or all(len(shape) < 2 for _, shape in signature):
            continue
        if sum(id(member) in parted for member in members) == 1:
            continue
        members = sorted(members, key=lambda layer: layer.text)
        text = ".".join(filter(None, (parent, "_".join(map(last, members)))))
        whole = _joined(text, members)
        if whole is None or whole.signature not in names:
            continue
        said = {order_said([last(member) for member in members], name) for name in names[whole.signature]}
        if said == {(1, 0)}:
            members = members[::-1]
        assumed = "" if said in ({(0, 1)}, {(1, 0)}) else f"`{members[0].text}` comes before `{members[1].text}`"
        joined = _joined(text, members, assumed)
        if joined is not None:
            words = tuple(token for member in members for token in tokens(last(member)) if isinstance(token, str))
            found.append((members, replace(joined, path=(*tokens(parent), *words))))
    return found


def order_said(names: Sequence[str], whole: str) -> tuple[int, ...]:
    """The order in which the name of a stacked layer holds what tells its two parts apart; () where it does not."""
    words = [[str(token) for token in tokens(name)] for name in names]
    own = ["".join(word for word in mine if word not in other) for mine, other in (words, words[::-1])]
    plain = "".join(map(str, tokens(whole)))
    if not all(own) or own[0] in own[1] or own[1] in own[0]:
        return ()
    return next((order for order in ((0, 1), (1, 0)) if "".join(own[at] for at in order) in plain), ())


def last(layer: Layer) -> str:
    """The last component of its name."""
    return layer.text.rpartition(".")[2]


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
