"""Writing a match down in the files' own keys: what is taken, joined, cut and turned for each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadstone.matching.structure.items import Assignment, Grade, Item, Taken
from loadstone.matching.structure.layers import Part, Piece
from loadstone.matching.structure.reordering import Recipe, cut
from loadstone.matching.structure.solve import State
from loadstone.matching.structure.steps import Narrow, Reshape, Step

ORDERED = "in the order that was said"  # ends the evidence of what an answer reorders


def assignments(
    state: State, target: Sequence[Item], orders: Mapping[int, Mapping[str, Recipe]], copies: Mapping[int, int]
) -> dict[str, Assignment]:
    """By target key, in the target's order.

    Args:
        orders: how tensors of a source layer are reordered first, by role.
        copies: target layers that get the values of a source layer which is paired with another.
    """
    found: dict[str, Assignment] = {}
    pairs: list[tuple[int, int, Grade, str]] = [(a, *pair) for a, pair in state.pairs.items()]
    pairs += [(a, b, "answer", "tied in the checkpoint, as was said") for b, a in copies.items()]
    for a, b, grade, evidence in pairs:
        ours, theirs = state.source[a].parts, state.target[b].parts
        if len(theirs) == len(ours) == 1:
            roles = [(next(iter(ours)), next(iter(theirs)))]
        else:
            roles = [(role, role) for role in theirs if role in ours]
        for one, other in roles:
            have, want, start = ours[one], theirs[other], 0
            for piece in want.pieces:
                key = piece.item.key
                start += piece.skipped
                if a in orders and one in orders[a]:
                    made = cut(orders[a][one], have, start, piece.rows, piece.from_canonical())
                    found[key] = Assignment(key, *made, "answer", f"{evidence}, {ORDERED}")
                else:
                    found[key] = _assigned(have, want, piece, start, grade, evidence)
                start += piece.rows
    return {item.key: found[item.key] for item in target if item.key in found}


def _assigned(have: Part, want: Part, piece: Piece, start: int, grade: Grade, evidence: str) -> Assignment:
    """Rows `start` to `start + piece.rows` of the canonical tensor, in the form the target stores."""
    if have.pieces[0].made_by is not None:
        [one] = have.pieces
        part = () if piece.rows == one.rows else (Narrow(start, piece.rows),)
        form = (Reshape(have.shape), *part, *piece.from_canonical())
        return Assignment(piece.item.key, tuple(map(Taken, one.keys)), form, grade, evidence, one.made_by)
    rows = piece.rows if want.shape else 1
    taken, first, at = [], None, 0
    for one in have.pieces:
        if at < start + rows and start < at + one.rows:
            first = at if first is None else first
            shape = (one.rows, *have.shape[1:]) if have.shape else ()
            taken.append((one, one.to_canonical(shape)))
        at += one.rows
    total = sum(one.rows for one, _ in taken)
    steps: list[Step] = []
    if total != rows:
        steps.append(Narrow(start - (first or 0), rows))
    steps += piece.from_canonical()
    if len(taken) == 1 and not any(isinstance(step, Narrow) for step in steps):
        one = taken[0][0]
        if one.turning == piece.turning and one.middle == piece.middle:
            same = one.item.shape == piece.item.shape
            return Assignment(
                piece.item.key,
                (Taken(one.item.key),),
                () if same else (Reshape(piece.item.shape),),
                grade,
                evidence,
            )
    sources = tuple(Taken(one.item.key, change) for one, change in taken)
    return Assignment(piece.item.key, sources, _tidy(steps, (rows, *have.shape[1:])), grade, evidence)


def _tidy(steps: list[Step], shape: tuple[int, ...]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step != Reshape(shape))
