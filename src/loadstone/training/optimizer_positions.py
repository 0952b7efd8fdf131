"""Names for an optimizer state that has positions only, where the file's own parameters leave no doubt.

Two things are certain.  One group of as many parameters as the file has, every shape agreeing at its place, is
`Optimizer(model.parameters())`, which is in the order of the state dict.  And where the optimizer was given a part of
the parameters, or several groups, its groups are taken to keep the order of the file, each for itself; if the shapes
allow that in exactly one way, that way it is.  The ways are counted, not searched: `c(i, j, …)`, the number of ways for
what follows after `i` parameters of the first group, `j` of the second …, is the sum over where the next parameter of
the file can go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadstone.training.optimizer_kinds import misfits, shape_evidence
from loadstone.training.optimizer_saved import SavedEntry, SavedOptimizer

# Buffers of torch's norms, torch/nn/modules/batchnorm.py: in a state dict, never in an optimizer.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_MOST_STATES = 300_000  # of the count; what needs more is refused
_MOST_WAYS = 10**9

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Named:
    """Names by position, and why they are certain; or no names, and why not.

    Attributes:
        names: of the saved parameters in their order; None where they are not certain.
        how: what makes them certain, or what stands against it.
        ways: in how many ways the shapes allow it; 0 for none, or where they were not counted.
    """

    names: tuple[str, ...] | None
    how: str
    ways: int = 0


def candidates(
    file_names: Sequence[str], is_parameter: Callable[[str], bool], is_buffer: Callable[[str], bool]
) -> list[str]:
    """Names of the file that can be parameters: the model knows them as such, or does not know them as buffers."""
    return [
        name
        for name in file_names
        if is_parameter(name) or not (is_buffer(name) or name.rpartition(".")[2] in _BUFFERS)
    ]


def by_position(saved: SavedOptimizer, names: Sequence[str], shapes: Shapes, *, is_known: bool) -> Named:
    """The file's names for the saved parameters; `is_known` says that the state is of an optimizer of torch."""
    entries = saved.entries
    agreeing = [entry for entry in entries if shape_evidence(entry.state)]
    if not agreeing:
        return Named(None, "the saved state has no tensors whose shapes could be compared")

    def fits(entry: SavedEntry, name: str) -> bool:
        shape = tuple(shapes[name])
        return not misfits(entry.state, shape, is_exact_shape=False, known=is_known)

    if len(saved.groups) == 1 and len(entries) == len(names):
        wrong = [at for at, (entry, name) in enumerate(zip(entries, names, strict=True)) if not fits(entry, name)]
        if not wrong:
            said = f"{len(agreeing)} of {len(entries)} shapes agree"
            rest = f", {len(entries) - len(agreeing)} have no state" if len(agreeing) < len(entries) else ""
            return Named(tuple(names), f"by the file's own order: {said}{rest}", 1)
        first = wrong[0]
        return Named(None, f"position {first} has state of another shape than `{names[first]}` of the file")
    return _only_way(saved, names, fits)


def _only_way(saved: SavedOptimizer, names: Sequence[str], fits: Callable[[SavedEntry, str], bool]) -> Named:
    groups: list[list[tuple[int, SavedEntry]]] = [[] for _ in saved.groups]
    for position, entry in enumerate(saved.entries):
        groups[entry.group].append((position, entry))
    spare = len(names) - len(saved.entries)
    if spare < 0:
        return Named(None, f"{len(saved.entries)} positions, and only {len(names)} parameters in the file")
    may_go = [[[fits(entry, name) for _, entry in group] for group in groups] for name in names]

    # Forward: the states that can be reached; backward: the number of ways from each to the end.
    start = tuple(0 for _ in groups)
    layers: list[set[tuple[int, ...]]] = [{start}]
    total = 1
    for at in range(len(names)):
        following: set[tuple[int, ...]] = set()
        for done in layers[-1]:
            following.update(state for _, state in _moves(done, at, may_go[at], spare))
        total += len(following)
        if total > _MOST_STATES:
            return Named(None, "there are too many ways to put its groups in order to count them")
        layers.append(following)
    end = tuple(map(len, groups))
    ways: dict[tuple[int, ...], int] = {end: 1} if end in layers[-1] else {}
    counts = [ways]
    for at in range(len(names) - 1, -1, -1):
        before: dict[tuple[int, ...], int] = {}
        for done in layers[at]:
            number = sum(ways.get(state, 0) for _, state in _moves(done, at, may_go[at], spare))
            if number:
                before[done] = min(number, _MOST_WAYS)
        ways = before
        counts.append(ways)
    counts.reverse()
    number = ways.get(start, 0)
    if number != 1:
        many = "more than a billion" if number == _MOST_WAYS else f"{number:,}"
        said = "in no order that the shapes allow" if not number else f"in {many} orders that the shapes allow alike"
        return Named(None, f"its positions stand for parameters of the file {said}", number)
    found = [""] * len(saved.entries)
    done = start
    for at, name in enumerate(names):
        group, state = next(move for move in _moves(done, at, may_go[at], spare) if counts[at + 1].get(move[1]))
        if group is not None:
            found[groups[group][done[group]][0]] = name
        done = state
    return Named(tuple(found), f"by shape: the only order of {len(found)} of the file's {len(names)} parameters", 1)


def _moves(
    done: tuple[int, ...], at: int, may_go: list[list[bool]], spare: int
) -> list[tuple[int | None, tuple[int, ...]]]:
    """(group, state after it) for the parameter at place `at` of the file; None leaves it out of the optimizer."""
    moves: list[tuple[int | None, tuple[int, ...]]] = []
    if at - sum(done) < spare:
        moves.append((None, done))
    for group, place in enumerate(done):
        if place < len(may_go[group]) and may_go[group][place]:
            moves.append((group, (*done[:group], place + 1, *done[group + 1 :])))
    return moves
