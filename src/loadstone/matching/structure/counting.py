"""Counting: in how many ways what stays open could be paired, if nothing more were said.

A group of n layers that fit n places leaves n! ways; with more layers than places, the arrangements of as many.  A
doubt leaves two at least: it is so, or it is not.  What went by the order of keys leaves as many as before.  One way
left means that no other pairing holds to the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadstone.matching.structure.doubts import Doubt, template
from loadstone.matching.structure.solve import Group, State


def log10_ways(state: State, doubts: Sequence[Doubt]) -> float:
    """log10 of the number of ways; 0.0 where there is one."""
    yes_or_no = len({template(state, doubt) for doubt in doubts}) * math.log10(2)
    return sum(map(_log10_arrangements, (*state.groups, *state.taken_by_order))) + yes_or_no


def _log10_arrangements(group: Group) -> float:
    few, many = sorted((len(group.left), len(group.right)))
    return (math.lgamma(many + 1) - math.lgamma(many - few + 1)) / math.log(10)
