"""Flattening: a linear layer over what a convolution of full size reads.

`Linear(c·h·w, n)` and `Conv2d(c, n, (h, w))` hold the same numbers in the same order, if the linear layer reads what
torch's `flatten` makes of (c, h, w).  Over features that is the custom; over the three channels of an image patch many
code bases write (h, w, c), which shapes cannot show: that is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from loadstone.matching.structure.layers import Layer, Part, Signature, outputs_last

_IMAGE_CHANNELS = 4  # at most: what looks like pixels may be flattened with channels last


def flattened(signature: Signature) -> Signature:
    """The signature with every axis after the first in one."""
    return tuple(
        (role, (shape[0], math.prod(shape[1:])) if len(shape) > 2 and role in ("weight", "") else shape)
        for role, shape in signature
    )


def pairs(
    source: Sequence[Layer], target: Sequence[Layer], left: Sequence[int], right: Sequence[int]
) -> list[tuple[int, int, str]]:
    """(source, target, assumption) for unpaired layers that are one and only when flattened; "" assumes nothing."""
    ours, theirs = _flat(source, left), _flat(target, right)
    found = []
    for signature, members in ours.items():
        others = theirs.get(signature, [])
        if len(members) == len(others) == 1:
            a, b = source[members[0]], target[others[0]]
            if a.signature == b.signature:
                continue
            shapes = [s for one in (a, b) for _, s in one.signature if len(s) > 2]
            pixels = any(shape[1] <= _IMAGE_CHANNELS for shape in shapes)
            deep = all(role != "" for role, _ in signature) and not pixels
            found.append(
                (members[0], others[0], "" if deep else "the flat axis counts channels, then rows, then columns")
            )
    return found


def turned(
    source: Sequence[Layer], target: Sequence[Layer], left: Sequence[int], right: Sequence[int]
) -> list[tuple[int, int, Layer]]:
    """(source, target, the source layer turned) for unpaired matrices that are one and only when turned."""
    ours, theirs = _matrices(source, left), _matrices(target, right)
    found = []
    for (rows, columns), members in ours.items():
        others = theirs.get((columns, rows), [])
        alike = (len(members), len(others), len(ours.get((columns, rows), ())), len(theirs.get((rows, columns), ())))
        if rows == columns or alike != (1, 1, 0, 0):
            continue
        [a], [b] = members, others
        [role], [other] = source[a].parts, target[b].parts
        if (role == "") is not (other == ""):
            [piece] = source[a].parts[role].pieces
            part = Part(*outputs_last(piece.item, (rows, columns)))
            found.append((a, b, replace(source[a], parts={role: part})))
    return found


def _matrices(layers: Sequence[Layer], members: Sequence[int]) -> dict[tuple[int, int], list[int]]:
    """Members that are one matrix and nothing else, stored as it is, by shape."""
    found: dict[tuple[int, int], list[int]] = {}
    for index in members:
        parts = list(layers[index].parts.values())
        if len(parts) == 1 and len(parts[0].pieces) == 1 and len(parts[0].shape) == 2:
            [piece] = parts[0].pieces
            if piece.item.shape == parts[0].shape and not piece.turned and piece.made_by is None:
                found.setdefault((parts[0].shape[0], parts[0].shape[1]), []).append(index)
    return found


def _flat(layers: Sequence[Layer], members: Sequence[int]) -> dict[Signature, list[int]]:
    found: dict[Signature, list[int]] = {}
    for index in members:
        found.setdefault(flattened(layers[index].signature), []).append(index)
    return found
