"""Tables: integers that no layer learns, such as the indices of relative positions, masks and position ids.

A model makes them when it is built, so that a table without a partner is nothing lost.  But where both sides keep one
beside the same layers, it is part of what the layers compute: the rows of a bias table mean what its indices say.
Then the two belong together, and the values go along.

Some tables are no integers, as coordinates.  What gives them away is that they do not grow with what lies beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from loadstone.matching.structure.items import Assignment, Item, Taken
from loadstone.matching.structure.layers import Layer, Signature
from loadstone.matching.structure.steps import Reshape
from loadstone.matching.structure.words import holders

_BLOCK = re.compile(r"(?:.*\.)?\d+\.")  # up to the last number
_NUMBER = re.compile(r"\d+")
_HALF = 0.5
_INTEGERS = frozenset(("int64", "int32", "int16"))  # smaller ones may be quantised weights


def is_table(dtype: str) -> bool:
    """Integers that count, point or mask."""
    return dtype in _INTEGERS or dtype == "bool"


def tables(found: Mapping[str, Assignment], source: Sequence[Item], target: Sequence[Item]) -> dict[str, Assignment]:
    """Tables of the target whose partner lies beside the sources of the layers they lie beside."""
    wanted = [item for item in target if is_table(item.dtype) and item.key not in found]
    if not wanted:
        return {}
    used = {taken.key for one in found.values() for taken in one.sources}
    spare = [item for item in source if is_table(item.dtype) and item.key not in used]
    below, beside = _below(spare), _below(wanted)
    scopes = _scopes(found)
    pairs: dict[str, Item] = {}
    for item in wanted:
        for container in holders(item.key):
            scope = scopes.get(container)
            if scope is None:
                continue
            mine = [other for other in beside[container] if _alike(item, other)]
            theirs = [other for other in below.get(scope, ()) if _alike(item, other)]
            if len(mine) == len(theirs) == 1:
                pairs[item.key] = theirs[0]
            break
    taken = [one.key for one in pairs.values()]
    return {
        item.key: _assigned(pairs[item.key], item)
        for item in wanted
        if item.key in pairs and taken.count(pairs[item.key].key) == 1
    }


def constants(layers: Sequence[Layer]) -> set[int]:
    """Tensors of several axes that stand alone in blocks, of one shape where most beside them grow with the width."""
    families: dict[str, dict[str, list[Signature]]] = {}  # all blocks → what is in them → its signatures
    lone: dict[tuple[str, str], list[int]] = {}
    for index, layer in enumerate(layers):
        block = _BLOCK.match(layer.text)
        if block is not None:
            family, ending = _NUMBER.sub("#", block[0]), layer.text[block.end() :]
            families.setdefault(family, {}).setdefault(ending, []).append(layer.signature)
            if layer.parts.keys() == {""} and len(layer.signature[0][1]) > 1:
                lone.setdefault((family, ending), []).append(index)
    found: set[int] = set()
    for (family, ending), members in lone.items():
        grows = {each: len(set(signatures)) > 1 for each, signatures in families[family].items()}
        if not grows[ending] and sum(grows.values()) > _HALF * len(grows):
            found.update(members)
    return found


def _assigned(have: Item, want: Item) -> Assignment:
    steps = () if have.shape == want.shape else (Reshape(want.shape),)
    return Assignment(want.key, (Taken(have.key),), steps, "sibling", "beside layers that are paired")


def _alike(one: Item, other: Item) -> bool:
    return one.elements == other.elements and (one.dtype == "bool") is (other.dtype == "bool")


def _scopes(found: Mapping[str, Assignment]) -> dict[str, str]:
    """For each container of the target, the smallest container of the source that holds what goes into it."""
    scopes: dict[str, str] = {}
    for key, assignment in found.items():
        layers = [taken.key.rpartition(".")[0] for taken in assignment.sources]
        for depth, container in enumerate(holders(key)):
            for layer in layers:  # above a layer, what holds it is what counts
                holder = layer if depth == 0 else layer.rpartition(".")[0]
                scope = f"{holder}." if holder else ""
                scopes[container] = _common(scopes.get(container, scope), scope)
    return {container: scope.rstrip(".") for container, scope in scopes.items()}


def _common(one: str, other: str) -> str:
    """The longest common container, with its dot at the end."""
    while not other.startswith(one):
        one = one[:-1].rpartition(".")[0]
        one += "." if one else ""
    return one


def _below(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        for container in holders(item.key):
            found.setdefault(container, []).append(item)
    return found
