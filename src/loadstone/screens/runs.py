"""The screens of a run on disk: its checkpoints as a table, and what retention keeps and lets go, with the reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines
from loadstone.screens.lines import EMPTY, Line, Span, Style, draw, indented, line
from loadstone.screens.table import natural_width, tabulate
from loadstone.screens.text import cut_middle, visible, wrap_words

if TYPE_CHECKING:
    from loadstone.errors import Diagnostic
    from loadstone.runs.keep import Decision, Mode
    from loadstone.runs.listing import Entry
    from loadstone.runs.prune import Pruned

_STATES: dict[str, tuple[str, Style]] = {
    "whole": ("whole", "good"),
    "damaged": ("damaged", "error"),
    "unverified": ("not verified", "dim"),
    "unfinished": ("unfinished", "warning"),
    "foreign": ("no run wrote it", "dim"),
}


def render_listing(
    folder: str, entries: Sequence[Entry], diagnostics: Sequence[Diagnostic] = (), *, metric: str | None = None,
    mode: Mode = "min", width: int = 100, color: bool = False,
) -> str:  # fmt: skip
    """The checkpoints, oldest first, one a row; what is wrong with some, below."""
    nbytes = quantities.nbytes(sum(entry.nbytes for entry in entries))
    lines: list[Line] = [line((folder, "strong"), f"   {quantities.counted(len(entries), 'checkpoint')}   {nbytes}")]
    if entries:
        lines += [EMPTY, *_table(entries, best_by(entries, metric, mode), width)]
    for found in (*diagnostics, *(each for entry in entries for each in entry.diagnostics)):
        lines += [EMPTY, *diagnostic_lines(found, width)]
    return draw(lines, color=color)


def best_by(entries: Sequence[Entry], metric: str | None, mode: Mode) -> dict[int, str]:
    """Places of the best checkpoint of each run by the metric, among those that are not known to be damaged."""
    best: dict[str, tuple[float, int]] = {}
    for at, entry in enumerate(entries):
        value = math.nan if metric is None else entry.metrics.get(metric, math.nan)
        if entry.state in ("whole", "unverified") and math.isfinite(value):
            rank = (value if mode == "min" else -value), -at  # of equal ones the newer
            best[entry.name] = min(rank, best.get(entry.name, rank))
    return {-place: metric or "" for _, place in best.values()}


def next_step(folder: str, entries: Sequence[Entry]) -> str:
    """What to type next; nothing where all is known."""
    if any(entry.state == "unverified" for entry in entries):
        return f"`loadstone list {folder} --verify` reads them, and says which are whole"
    return ""


def listing_document(
    folder: str, entries: Sequence[Entry], metric: str | None, mode: Mode, diagnostics: Sequence[Diagnostic]
) -> dict[str, object]:
    """The list as plain values."""
    best = best_by(entries, metric, mode)
    return {
        "path": folder,
        "checkpoints": [_document(entry) | {"is_best": at in best} for at, entry in enumerate(entries)],
        "diagnostics": [found.to_json() for found in diagnostics],
    }


def render_pruning(
    folder: str, decisions: Sequence[Decision], done: Pruned, diagnostics: Sequence[Diagnostic] = (), *,
    is_done: bool, width: int = 100, color: bool = False,
) -> str:  # fmt: skip
    """What goes and what stays, each with its reasons, and the bytes that are freed."""
    gone = set(done.removed)
    going = [each for each in decisions if (each.entry.path in gone if is_done else not each.is_kept)]
    staying = [each for each in decisions if each not in going]
    verb, freed = ("removed", "freed") if is_done else ("would go", "would be freed")
    said = f"{quantities.counted(len(going), 'checkpoint')} {verb}, {quantities.nbytes(done.nbytes)} {freed}"
    lines: list[Line] = [line((folder, "strong"), f"   {said}, {len(staying)} {'kept' if is_done else 'would stay'}")]
    for title, chosen in ((verb, going), ("kept" if is_done else "would stay", staying)):
        if chosen:
            rows = tabulate([_decided(each) for each in chosen], width=width - 4, right=(1,), cut=cut_middle)
            lines += [EMPTY, indented(2, line((title, "strong"))), *(indented(4, row) for row in rows)]
    for found in diagnostics:
        lines += [EMPTY, *diagnostic_lines(found, width)]
    return draw(lines, color=color)


def pruning_document(folder: str, decisions: Sequence[Decision], done: Pruned, *, is_done: bool) -> dict[str, object]:
    """The decisions as plain values; `removed` are those that are gone."""
    return {
        "path": folder,
        "is_done": is_done,
        "nbytes": done.nbytes,
        "removed": [str(path) for path in done.removed],
        "decisions": [
            _document(decision.entry) | {"is_kept": decision.is_kept, "reasons": list(decision.reasons)}
            for decision in decisions
        ],
        "diagnostics": [found.to_json() for found in done.diagnostics],
    }


def render_pins(file: str, pinned: Sequence[str], *, is_pinned: bool, color: bool = False) -> str:
    """What became of one file, and which are pinned now."""
    said = "pinned, it stays" if is_pinned else "not pinned, retention decides"
    lines = [line((file, "strong"), f"   {said}")]
    if pinned:
        lines += [EMPTY, *(indented(2, line("pinned  ", name)) for name in pinned)]
    return draw(lines, color=color)


def _table(entries: Sequence[Entry], best: dict[int, str], width: int) -> list[Line]:
    """Metrics have a column each or, where the line would be too long, a line of their own below each row."""
    metrics = list(dict.fromkeys(name for entry in entries for name in entry.metrics))
    rows = _rows(entries, metrics, best)
    has_columns = natural_width(rows) <= width
    if not has_columns:
        metrics, rows = [], _rows(entries, [], {}, has_notes=False)
    title, *table = tabulate(rows, width=width, right=(1, 2, *range(3, 4 + len(metrics))), cut=cut_middle)
    lines = [title]
    for at, (row, entry) in enumerate(zip(table, entries, strict=True)):
        lines.append(row)
        if not has_columns:
            facts = wrap_words(_facts(entry, best.get(at)), width - 2, "   ")
            lines += [indented(2, line((text, "dim"))) for text in facts]
    return lines


def _rows(
    entries: Sequence[Entry], metrics: Sequence[str], best: dict[int, str], *, has_notes: bool = True
) -> list[list[Span]]:
    names = ("checkpoint", "epoch", "step", *metrics, "size", "state", "")
    rows: list[list[Span]] = [[(name, "dim") for name in names]]
    for at, entry in enumerate(entries):
        values: list[Span] = [(_number(entry.metrics[name]) if name in entry.metrics else "", "") for name in metrics]
        rows.append(
            [
                (entry.title, ""),
                (str(entry.epoch) if entry.name else "", ""),
                (f"{entry.step:,}" if entry.name else "", ""),
                *values,
                (quantities.nbytes(entry.nbytes), ""),
                _STATES[entry.state],
                (", ".join(_notes(entry, best.get(at))) if has_notes else "", "note"),
            ]
        )
    return rows


def _notes(entry: Entry, best_metric: str | None) -> list[str]:
    notes = [f"★ best {visible(best_metric)}"] if best_metric else []
    notes += ["pinned"] if entry.is_pinned else []
    return notes + (["resumed from"] if entry.is_resumed_from else [])


def _facts(entry: Entry, best_metric: str | None) -> list[str]:
    """What has no column: notes and metrics."""
    metrics = [f"{visible(name)} {_number(value)}" for name, value in entry.metrics.items()]
    return [*_notes(entry, best_metric), *metrics]


def _decided(decision: Decision) -> list[Span]:
    entry = decision.entry
    return [(entry.title, ""), (quantities.nbytes(entry.nbytes), ""), ("; ".join(decision.reasons), "dim")]


def _number(value: float) -> str:
    return f"{value:.5g}"


def _document(entry: Entry) -> dict[str, object]:
    return {
        "path": str(entry.path),
        "name": entry.name,
        "epoch": entry.epoch,
        "step": entry.step,
        "batch": entry.batch,
        "metrics": {name: value if math.isfinite(value) else str(value) for name, value in entry.metrics.items()},
        "nbytes": entry.nbytes,
        "time": entry.time,
        "is_pinned": entry.is_pinned,
        "is_resumed_from": entry.is_resumed_from,
        "state": entry.state,
        "diagnostics": [found.to_json() for found in entry.diagnostics],
    }
