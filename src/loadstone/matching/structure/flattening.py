"""Flattening: a linear layer over what a convolution of full size reads.

`Linear(c·h·w, n)` and `Conv2d(c, n, (h, w))` hold the same numbers in the same order, if the linear layer reads what
torch's `flatten` makes of (c, h, w).  Over features that is the custom; over the three channels of an image patch many
code bases write (h, w, c), which shapes cannot show: that is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadstone.matching.structure.layers import Layer, Signature

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


def _flat(layers: Sequence[Layer], members: Sequence[int]) -> dict[Signature, list[int]]:
    found: dict[Signature, list[int]] = {}
    for index in members:
        found.setdefault(flattened(layers[index].signature), []).append(index)
    return found
