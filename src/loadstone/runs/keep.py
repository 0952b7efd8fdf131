"""Which checkpoints of a run stay, and why: a pure function from a list to decisions.

What holds whatever the options say: only whole, verified checkpoints count; the newest whole one, the best, the pinned
and the one the run went on from stay; the order is that of training (epoch, step, number), never of file times; what
no run wrote is not touched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadstone.errors import Diagnostic, RecipeError

if TYPE_CHECKING:
    from loadstone.runs.listing import Entry

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Keep:
    """How many checkpoints a run keeps; what any of the options keeps, stays.

    Attributes:
        last: the newest ones, at least 1.
        best: those with the best `metric`; a metric that is NaN or missing ranks last, an infinite one before it.
        metric, mode: which metric, and whether a small ("min") or a large one ("max") is good.
        every: the checkpoint at the end of every so manieth epoch, for good.

    Raises RecipeError (invalid-option) for anything else.
    """

    last: int = 3
    best: int = 0
    metric: str | None = None
    mode: Mode = "min"
    every: int | None = None

    def __post_init__(self) -> None:
        if not _is_count(self.last) or self.last < 1:
            raise _invalid(f"`last` is {self.last!r:.40}", "1 or more: the newest whole checkpoint always stays")
        if not _is_count(self.best):
            raise _invalid(f"`best` is {self.best!r:.40}", "0 or more")
        if self.every is not None and (not _is_count(self.every) or self.every < 1):
            raise _invalid(f"`every` is {self.every!r:.40}", "a number of epochs, 1 or more, or None")
        if self.mode not in ("min", "max"):
            raise _invalid(f"`mode` is {self.mode!r:.40}", '"min" or "max"')
        if self.metric is not None and (not isinstance(self.metric, str) or not self.metric):
            raise _invalid(f"`metric` is {self.metric!r:.40}", 'the name of a metric, as in metric="val_acc"')
        if self.best and self.metric is None:
            raise _invalid(f"`best` is {self.best} and no metric is named", 'metric="val_loss", for example')
        if self.metric is not None and not self.best:
            raise _invalid(f"`metric` is {self.metric!r:.40} and `best` is 0", "best=1, or no metric")


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a checkpoint, and the reasons, one at least."""

    entry: Entry
    is_kept: bool
    reasons: tuple[str, ...]


def retain(entries: Sequence[Entry], keep: Keep, protect: Collection[str] = ()) -> list[Decision]:
    """A decision for every entry, in the order given.

    Checkpoints of runs with different names in one folder are counted apart.  `protect` are file names that stay.
    A damaged checkpoint goes once a whole newer one exists; one that is not verified stays and does not count.
    """
    reasons: dict[int, list[str]] = {}
    for name in dict.fromkeys(entry.name for entry in entries):
        whole = [at for at, entry in enumerate(entries) if entry.name == name and entry.state == "whole"]
        whole.sort(key=lambda at: entries[at].order)
        for at, reason in _kept_by_count(entries, whole, keep):
            reasons.setdefault(at, []).append(reason)
    return [_decided(entry, entries, reasons.get(at, []), protect) for at, entry in enumerate(entries)]


def best_of(entries: Iterable[Entry], metric: str, mode: Mode) -> Entry | None:
    """The whole checkpoint with the best metric; the newer of equal ones, None where there is no whole one."""
    whole = [entry for entry in entries if entry.state == "whole"]
    return min(whole, key=lambda entry: _rank(entry, metric, mode), default=None)


def _kept_by_count(entries: Sequence[Entry], whole: Sequence[int], keep: Keep) -> Iterable[tuple[int, str]]:
    """Places of the checkpoints that the options keep; `whole` are those of one run, oldest first."""
    for age, at in enumerate(reversed(whole[-keep.last :])):
        yield at, "the newest whole one" if age == 0 else f"one of the last {keep.last}"
    if keep.metric is not None:
        metric, mode = keep.metric, keep.mode
        for rank, at in enumerate(sorted(whole, key=lambda at: _rank(entries[at], metric, mode))[: keep.best]):
            yield at, f"the best {metric}" if rank == 0 else f"one of the best {keep.best} by {metric}"
    if keep.every is not None:
        for at in whole:
            entry = entries[at]
            if entry.epoch and entry.epoch % keep.every == 0 and not entry.batch:
                yield at, f"every {keep.every} epochs"


def _decided(entry: Entry, entries: Sequence[Entry], reasons: list[str], protect: Collection[str]) -> Decision:
    if entry.is_pinned:
        reasons.append("pinned")
    if entry.is_resumed_from:
        reasons.append("the run went on from it")
    if entry.path.name in protect:
        reasons.append("in use")
    if entry.state == "foreign":
        reasons.append("no run wrote it")
    if entry.state == "unfinished":
        reasons.append("it is being written, or its writer died")
    if entry.state == "unverified":
        reasons.append("not verified")
    if reasons:
        return Decision(entry, True, tuple(reasons))
    if entry.state == "damaged":
        if any(_is_whole_and_newer(other, entry) for other in entries):
            return Decision(entry, False, ("damaged, and a newer one is whole",))
        return Decision(entry, True, ("damaged, but no newer one is whole",))  # parts of it may be all there is
    return Decision(entry, False, ("no rule keeps it",))


def _is_whole_and_newer(other: Entry, entry: Entry) -> bool:
    return other.state == "whole" and other.name == entry.name and other.order > entry.order


def _rank(entry: Entry, metric: str, mode: Mode) -> tuple[int, float, tuple[int, ...]]:
    """Smaller is better.  No measurement gives an infinity, so that a run that blew up does not push out the best."""
    value = entry.metrics.get(metric, math.nan)
    newer = tuple(-part for part in entry.order)
    if math.isnan(value):
        return 2, 0.0, newer
    signed = value if mode == "min" else -value
    return (1 if math.isinf(value) else 0), signed, newer


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _invalid(what: str, accepted: str) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", f"ls.Keep: {what}", (("accepted", accepted),)))
