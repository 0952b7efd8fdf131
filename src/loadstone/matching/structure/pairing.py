"""Pairing: of a graph of what may belong together, the parts that do, whatever becomes of the rest.

Left and right are numbered for themselves; `edges` says for each left one which right ones it may belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Part = tuple[list[int], list[int]]


def parts(edges: Mapping[int, Sequence[int]]) -> list[Part]:
    """The connected parts; a left one without edges is a part of its own."""
    back: dict[int, list[int]] = {}
    for a, places in edges.items():
        for b in places:
            back.setdefault(b, []).append(a)
    found: list[Part] = []
    seen: set[int] = set()
    for start in edges:
        if start in seen:
            continue
        left, right, queue = [], dict[int, None](), [start]
        seen.add(start)
        while queue:
            a = queue.pop()
            left.append(a)
            for b in edges[a]:
                if b not in right:
                    right[b] = None
                    queue += [other for other in back[b] if other not in seen]
                    seen.update(back[b])
        found.append((sorted(left), sorted(right)))
    return found


def forced(left: Sequence[int], right: Sequence[int], edges: Mapping[int, Sequence[int]]) -> list[Part]:
    """A part, less the pairs that are in every way to pair all of it: what has one place takes it, and so on.

    Edges that lead out of the part do not count.  Where there is no such way, the part comes back whole.
    """
    open_ones: tuple[dict[int, dict[int, None]], dict[int, dict[int, None]]] = (
        {a: {} for a in left},
        {b: {} for b in right},
    )
    for a in left:
        for b in edges[a]:
            if b in open_ones[1]:
                open_ones[0][a][b] = open_ones[1][b][a] = None
    queue = [(side, one) for side, places in enumerate(open_ones) for one in places if len(places[one]) < 2]
    pairs: list[Part] = []
    while queue:
        side, one = queue.pop()
        if one not in open_ones[side]:
            continue
        if not open_ones[side][one]:
            return [(list(left), list(right))]
        [other] = open_ones[side][one]
        a, b = (one, other) if side == 0 else (other, one)
        pairs.append(([a], [b]))
        for which, gone in ((0, a), (1, b)):
            for neighbour in open_ones[which].pop(gone):
                rest = open_ones[1 - which].get(neighbour)
                if rest is not None:
                    del rest[gone]
                    if len(rest) < 2:
                        queue.append((1 - which, neighbour))
    rest_of_it = list(open_ones[0]), list(open_ones[1])
    return [*sorted(pairs), rest_of_it] if rest_of_it[0] else sorted(pairs)
