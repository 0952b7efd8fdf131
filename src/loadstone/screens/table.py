"""Columns that line up.  One column, usually the keys, gives way where the line would be too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadstone.screens.lines import Line, Span
from loadstone.screens.text import cells, cut_end, visible

GAP = "  "
_LEAST = 16  # cells that the yielding column keeps


def tabulate(
    rows: Sequence[Sequence[Span]],
    *,
    width: int,
    right: Sequence[int] = (),
    yielding: int = 0,
    cut: Callable[[str, int], str] = cut_end,
) -> list[Line]:
    """Rows of spans as lines of at most `width` cells, as far as the yielding column allows it.

    `right` are the columns aligned to the right; a column that is empty everywhere takes no room.
    """
    if not rows:
        return []
    shown = [[(visible(text), style) for text, style in row] for row in rows]
    widths = _widths(shown)
    excess = _total(widths) - width
    if excess > 0:
        widths[yielding] = max(widths[yielding] - excess, min(widths[yielding], _LEAST))
    lines = []
    for row in shown:
        spans: list[Span] = []
        for at, (text, style) in enumerate(row):
            if not widths[at]:
                continue
            fitted = cut(text, widths[at])
            blank = " " * (widths[at] - cells(fitted))
            spans += [(GAP, "")] if spans else []
            spans += [(blank, ""), (fitted, style)] if at in right else [(fitted, style), (blank, "")]
        lines.append(tuple(spans))
    return lines


def natural_width(rows: Sequence[Sequence[Span]]) -> int:
    """Cells that the rows take when nothing is cut."""
    return _total(_widths([[(visible(text), style) for text, style in row] for row in rows]))


def _widths(rows: Sequence[Sequence[Span]]) -> list[int]:
    count = max(map(len, rows), default=0)
    return [max((cells(row[at][0]) for row in rows if at < len(row)), default=0) for at in range(count)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (sum(map(bool, widths)) - 1)
