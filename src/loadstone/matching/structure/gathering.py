"""Gathering: which tensors are one layer.

Most lie in one container under names of their roles: `fc.weight`, `fc.bias`.  Two other ways to write a layer are as
plain, and no shape or order is needed to see them:

    named after the weight     `cell.recurrent` and `cell.recurrent_bias`
    bias of the container      `conv.bias` beside `conv.lin.weight`, where no other matrix in `conv` lacks one
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from loadstone.matching.structure.items import Item
from loadstone.matching.structure.words import Path, holders, place, tokens

_COUNTED_DTYPES = ("float", "bfloat", "complex", "half", "double")


@dataclass(slots=True)
class Gathered:
    """The tensors of a layer by role, "" for one that stands alone."""

    text: str
    roles: dict[str, Item] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return tokens(self.text)


def counts(item: Item) -> bool:
    """The tensor has values that matter: counters and index tables are the model's own."""
    return item.dtype.startswith(_COUNTED_DTYPES) and not item.key.endswith("num_batches_tracked")


def gathered(items: Iterable[Item]) -> list[Gathered]:
    """The layers of a state dict, in order of first appearance."""
    found: dict[str, Gathered] = {}
    for item in items:
        _, text, role = place(item.key)
        if role == "count" or counts(item):
            roles = found.setdefault(text, Gathered(text)).roles
            roles[role if role not in roles else item.key] = item
    _name_after_weights(found)
    _hand_biases_down(found)
    return [one for one in found.values() if any(role != "count" for role in one.roles)]


def _name_after_weights(found: dict[str, Gathered]) -> None:
    """`recurrent` is the weight of what `recurrent_bias` is the bias of."""
    of_key = {
        item.key.replace("/", "."): (one, role)
        for one in found.values()
        for role, item in one.roles.items()
        if role in ("", "weight") and len(item.shape) > 1
    }
    for one in list(found.values()):
        owner, role = of_key.get(one.text, (None, ""))
        if owner is not None and "bias" in one.roles and "weight" not in one.roles:
            one.roles = {"weight": owner.roles.pop(role), **one.roles}


def _hand_biases_down(found: dict[str, Gathered]) -> None:
    """A bias alone in a container is that of the one matrix inside which has none, and as many rows or columns."""
    alone = {one.text: one for one in found.values() if one.roles.keys() == {"bias"}}
    inside: dict[str, list[Gathered]] = {}
    for one in found.values() if alone else ():
        for container in holders(one.text):
            if container in alone:
                inside.setdefault(container, []).append(one)
    for text, below in inside.items():
        bias = alone[text].roles["bias"]
        bare = [one for one in below if one.roles.keys() == {"weight"} and len(one.roles["weight"].shape) > 1]
        if len(bare) == 1 and len(bias.shape) == 1 and bias.shape[0] in bare[0].roles["weight"].shape:
            bare[0].roles["bias"] = alone[text].roles.pop("bias")
