"""Additions: two narrow matrices beside a linear layer, whose product is added to it.

LoRA and its kin put them into every block of a network that somebody else trained without.  That they have no partner
says nothing against the network they are in: what gives them away is their shapes, (m, r) and (r, n) beside (m, n).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadstone.matching.structure.layers import Layer
from loadstone.matching.structure.reordering import main_part
from loadstone.matching.structure.words import holders


def additions(layers: Sequence[Layer]) -> set[int]:
    """The narrow matrices, by index: they share a container with the layer that they are added to, and nothing else."""
    inside: dict[str, list[int]] = {}
    for index, layer in enumerate(layers):
        for container in (layer.text, *holders(layer.text)):
            inside.setdefault(container, []).append(index)
    return {index for members in inside.values() if len(members) == 3 for index in _narrow(layers, members)}


def _narrow(layers: Sequence[Layer], members: Sequence[int]) -> Iterator[int]:
    shapes = [main_part(layers[index]).shape for index in members]
    if any(len(shape) != 2 for shape in shapes):
        return
    for at, (rows, columns) in enumerate(shapes):
        one, other = (other for other in range(3) if other != at)
        for up, down in ((one, other), (other, one)):
            rank = shapes[down][0]
            if shapes[up] == (rows, rank) and shapes[down] == (rank, columns) and rank < min(rows, columns):
                yield from (members[index] for index in (up, down) if len(layers[members[index]].parts) == 1)
