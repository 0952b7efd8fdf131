"""Runs: what the numbers of a family that are paired say about those that are not.

Layers that are numbered are numbered in order.  What lies between two of one block lies in that block; and nothing
that comes later here comes earlier there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from itertools import accumulate

from loadstone.matching.structure.words import Path


class Run:
    """The numbers of a family that are paired, in order, each with what holds its partners if one thing does."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._holders: dict[int, Path | None] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, holder: Path) -> None:
        if number in self._holders:
            self._holders[number] = _outer(self._holders[number], holder)
        else:
            insort(self._numbers, number)
            self._holders[number] = holder

    def around(self, number: int) -> Path:
        """What holds the partners of the next lower and the next higher number; () where neither holds the other's."""
        at = bisect_left(self._numbers, number)
        if number in self._holders or not 0 < at < len(self._numbers):
            return ()
        return _outer(*(self._holders[self._numbers[next_to]] for next_to in (at - 1, at))) or ()


def _outer(one: Path | None, other: Path | None) -> Path | None:
    """Of two containers the one that holds the other."""
    if one is None or other is None:
        return None
    shared = common(one, other)
    return shared if shared in (one, other) else None


class Bounds:
    """Of the numbers of two families that are paired: how far the partners of what comes before and after reach."""

    def __init__(self, orders: Mapping[int, tuple[int, int]]) -> None:
        self._keys = sorted(orders)
        self._before = list(accumulate((orders[key][0] for key in self._keys), max))
        self._after = list(accumulate((orders[key][1] for key in reversed(self._keys)), min))[::-1]

    def crosses(self, number: int, partner: int) -> bool:
        """A lower number has a higher partner, or a higher number a lower one."""
        below, above = bisect_left(self._keys, number), bisect_right(self._keys, number)
        return (below > 0 and self._before[below - 1] > partner) or (
            above < len(self._keys) and self._after[above] < partner
        )


def common(one: Path, other: Path) -> Path:
    """What two paths begin with."""
    depth = 0
    while depth < min(len(one), len(other)) and one[depth] == other[depth]:
        depth += 1
    return one[:depth]
