"""A network inside another: the encoder of an encoder and decoder, one tower of two, a backbone under a prefix.

As wholes the two sides differ, and what repeats in only one of them makes everything doubtful.  But where a container
of the source has exactly as many parameters as one of the target, these two may be the same network; whether they are,
the engine says when it is shown nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from loadstone.matching.structure.gathering import counts
from loadstone.matching.structure.items import Item

_SHARE = 0.5  # of the parameters of the smaller side, so that it is no mere part of a network
_LEAST = 8  # tensors in a container
_MOST = 4  # pairs; each costs a match


def inner(source: Sequence[Item], target: Sequence[Item]) -> list[tuple[str, str]]:
    """Pairs of containers with equally many parameters, "" for a whole side; the largest first.

    A container that has several partners is left out: of two towers alike nothing says which is meant.
    """
    ours, theirs = _totals(source), _totals(target)
    least = _SHARE * min(ours[""], theirs[""])
    have, want = _by_total(ours, least), _by_total(theirs, least)
    pairs = [
        (have[total][0], want[total][0])
        for total in sorted(have, reverse=True)
        if len(have[total]) == len(want.get(total, ())) == 1
    ]
    return [pair for pair in pairs if pair != ("", "")][:_MOST]


def within(items: Iterable[Item], container: str) -> tuple[list[Item], list[Item]]:
    """The items inside the container, and the others."""
    inside: list[Item] = []
    outside: list[Item] = []
    for item in items:
        (inside if not container or item.key.startswith(f"{container}.") else outside).append(item)
    return inside, outside


def _totals(items: Iterable[Item]) -> dict[str, int]:
    """Parameters of every container; one that is numbered is a repetition, and no network of its own."""
    totals = {"": 0}
    tensors: Counter[str] = Counter()
    for item in filter(counts, items):
        parts = item.key.split(".")
        for depth in range(len(parts)):
            if depth and any(character.isdigit() for character in parts[depth - 1]):
                break
            container = ".".join(parts[:depth])
            totals[container] = totals.get(container, 0) + item.elements
            tensors[container] += 1
    return {container: total for container, total in totals.items() if not container or tensors[container] >= _LEAST}


def _by_total(totals: dict[str, int], least: float) -> dict[int, list[str]]:
    """Containers by their parameters; of some that hold the same, the innermost."""
    found: dict[int, list[str]] = {}
    for container in sorted(totals, key=len, reverse=True):
        total = totals[container]
        alike = found.setdefault(total, []) if total >= least else []
        if total >= least and not any(not container or inner.startswith(f"{container}.") for inner in alike):
            alike.append(container)
    return found
