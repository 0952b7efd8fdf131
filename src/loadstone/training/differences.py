"""What is not as it was when a checkpoint was written: every difference, as diagnostics with both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadstone.errors import Diagnostic

# What a scheduler counts and computes while it runs; the rest of its state is how it was made.
# torch/optim/lr_scheduler.py
_RUNNING = frozenset(
    {
        "last_epoch",
        "_step_count",
        "_last_lr",
        "_get_lr_called_within_step",
        "_is_initial",
        "best",  # ReduceLROnPlateau, and the two below
        "num_bad_epochs",
        "cooldown_counter",
        "T_cur",  # CosineAnnealingWarmRestarts, and the one below
        "T_i",
    }
)
_ABSENT = "nothing"


def differs(what: str, rows: Iterable[tuple[str, object, object]]) -> list[Diagnostic]:
    """A diagnostic (resume-differs) with a row for everything that is not the same; rows are (label, file, here)."""
    evidence = tuple(
        (label, f"{spelled(saved)} in the checkpoint, {spelled(own)} here")
        for label, saved, own in rows
        if not is_same(saved, own)
    )
    if not evidence:
        return []
    return [Diagnostic("resume-differs", f"{what} is not what it was: {len(evidence)} differ", evidence)]


def by_key(saved: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object, object]]:
    """Rows for all keys of both sides, those of nested dicts with dots."""
    rows: list[tuple[str, object, object]] = []
    for key in dict.fromkeys((*saved, *own)):
        label = f"{prefix}{key}"
        one, other = saved.get(key, MISSING), own.get(key, MISSING)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            rows += by_key(one, other, f"{label}.")
        else:
            rows.append((label, one, other))
    return rows


def scheduler_rows(saved: object, own: object, label: str = "") -> list[tuple[str, object, object]]:
    """Rows for how a scheduler was made: its state without what changes while it runs."""
    if isinstance(saved, Mapping) and isinstance(own, Mapping):
        rows: list[tuple[str, object, object]] = []
        for key in dict.fromkeys((*saved, *own)):
            if key not in _RUNNING:
                inner = f"{label}.{key}" if label else str(key)
                rows += scheduler_rows(saved.get(key, MISSING), own.get(key, MISSING), inner)
        return rows
    if _is_list(saved) and _is_list(own) and len(saved) == len(own):  # type: ignore[arg-type]
        pairs = zip(saved, own, strict=True)  # type: ignore[call-overload]
        return [row for at, (one, other) in enumerate(pairs) for row in scheduler_rows(one, other, f"{label}.{at}")]
    return [(label, saved, own)]


class _Missing:
    def __repr__(self) -> str:
        return _ABSENT


MISSING = _Missing()


def is_same(one: object, other: object) -> bool:
    """Equal as plain values; a tuple and a list with the same in them are, and NaN is NaN."""
    if _is_list(one) and _is_list(other):
        left: Sequence[object] = one  # type: ignore[assignment]
        right: Sequence[object] = other  # type: ignore[assignment]
        return len(left) == len(right) and all(map(is_same, left, right))
    if hasattr(one, "tolist") and hasattr(other, "tolist"):
        return bool(one.tolist() == other.tolist())
    return bool(one == other) or (one != one and other != other)


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def spelled(value: object) -> str:
    """A value in a row of evidence."""
    return f"{value!r:.60}"
