"""What a plan for an optimizer has to say: every difference for an exact resume, notes for a transfer."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from loadstone.errors import Diagnostic
from loadstone.keys import fold
from loadstone.training.optimizer_groups import differences, spelled
from loadstone.training.optimizer_matching import FileSide, Matching

_MOST_NAMES = 2  # folded names in one row of evidence


def exact_differences(
    optimizer: Optimizer, own_names: Sequence[Sequence[str]], file: FileSide, matching: Matching
) -> list[Diagnostic]:
    """All that keeps the optimizer from going on as the one that was saved, in one diagnostic; else notes on its rates.

    State that the optimizer would cast to another dtype is a difference, as it is not the state that was saved.
    """
    rows: list[tuple[str, str]] = []
    for status in ("new", "rearranged", "reshaped", "dropped"):
        by_reason: dict[str, list[str]] = {}
        for line in matching.lines:
            if line.status == status:
                by_reason.setdefault(line.why, []).append(line.name)
        rows += [(status, f"{_some(names)}   {why}") for why, names in by_reason.items()]
    cast = {
        line.why.partition("; ")[2]: line.name for line in matching.lines if line.status == "kept" and "→" in line.why
    }
    rows += [("dtype", f"`{name}`   {why}") for why, name in cast.items()]
    saved, groups = file.saved, optimizer.param_groups
    if len(saved.groups) != len(groups):
        rows.append(("groups", f"{len(saved.groups)} in the file, {len(groups)} in the optimizer"))
    elif not rows:
        rows += _order(own_names, file)
    for number, (live, group) in enumerate(zip(groups, saved.groups, strict=False)):
        rows += [
            (f"group {number}", f"{change.key}   {spelled(change.saved)} in the file, {spelled(change.own)} here")
            for change in differences(live, group)
        ]
    if not rows:
        return hyperparameter_notes(matching)
    keys = tuple(line.name for line in matching.lines if line.status != "kept")
    count = len(rows)
    said = "one thing about the optimizer differs" if count == 1 else f"{count} things about the optimizer differ"
    return [Diagnostic("optimizer-differs", f"{said} from the file", tuple(rows), keys=keys)]


def _some(names: Sequence[str]) -> str:
    folded = fold(names)
    more = len(folded) - _MOST_NAMES
    return ", ".join(folded if more <= 0 else [*folded[:_MOST_NAMES], f"… {more} more"])


def _order(own_names: Sequence[Sequence[str]], file: FileSide) -> list[tuple[str, str]]:
    targets: list[list[str]] = [[] for _ in file.saved.groups]
    for entry, target, name in zip(file.saved.entries, file.targets, file.names, strict=True):
        targets[entry.group].append(target or name)
    rows = []
    for number, (own, saved) in enumerate(zip(own_names, targets, strict=True)):
        at = next((at for at, pair in enumerate(zip(own, saved, strict=False)) if pair[0] != pair[1]), None)
        if at is not None:
            rows.append((f"group {number}", f"parameter {at} is `{saved[at]}` in the file, `{own[at]}` here"))
        elif len(own) != len(saved):
            rows.append((f"group {number}", f"{len(saved)} parameters in the file, {len(own)} here"))
    return rows


def hyperparameter_notes(matching: Matching) -> list[Diagnostic]:
    """What changes in the groups, and what does not although the file has something else."""
    taken = tuple(
        (f"group {group.number}", ", ".join(map(str, group.taken))) for group in matching.groups if group.taken
    )
    kept = tuple(
        (
            f"group {group.number}",
            f"{change.key} stays {spelled(change.own)}   {', '.join(map(spelled, change.saved))} in the file's "
            f"{'groups' if len(group.sources) > 1 else 'group'} {', '.join(map(str, group.sources))}",
        )
        for group in matching.groups
        for change in group.kept
    )
    found = []
    if kept:
        message = "saved groups were split or came together; where they differ, the optimizer keeps its own values"
        found.append(Diagnostic("optimizer-regrouped", message, kept))
    if taken:
        found.append(Diagnostic("optimizer-hyperparameters", "hyperparameters are taken from the file", taken))
    return found


def nothing_kept(matching: Matching) -> list[Diagnostic]:
    """A warning where the transfer would carry over nothing at all."""
    if not matching.lines or any(line.status in ("kept", "rearranged") for line in matching.lines):
        return []
    own = [line.name for line in matching.lines if line.status == "new"][:3]
    saved = [line.name for line in matching.lines if line.status == "dropped"][:3]
    return [
        Diagnostic(
            "optimizer-nothing-kept",
            "no parameter of the optimizer finds its state in the file",
            evidence=(("file", ", ".join(saved)), ("optimizer", ", ".join(own))),
        )
    ]
