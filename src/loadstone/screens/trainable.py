"""The screen of what trains and what is frozen: totals first, then a row for stages in the same state."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from loadstone.keys import fold
from loadstone.screens import quantities
from loadstone.screens.lines import EMPTY, Line, Span, draw, indented, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import cut_key, visible

if TYPE_CHECKING:
    from loadstone.model.trainable import Part, Trainable


def render_trainable(summary: Trainable, *, width: int = 100, color: bool = False) -> str:
    """Elements that train and that are frozen, with their shares; norms whose statistics would move are named."""
    total = summary.trained + summary.frozen
    rows = [_row(list(parts), summary.model) for _, parts in groupby(summary.parts, key=_state)]
    lines = [
        line(
            (visible(summary.model), "strong"),
            f"   {quantities.elements(total)} parameters",
            f"   {quantities.elements(summary.trained)} train ({_share(summary.trained, total)})",
            f"   {quantities.elements(summary.frozen)} frozen ({_share(summary.frozen, total)})",
        ),
        EMPTY,
        *(indented(2, row) for row in tabulate(rows, width=width - 2, right=(1,), cut=cut_key)),
        *_statistics(summary, width),
    ]
    return draw(lines, color=color)


def _state(part: Part) -> str:
    """Parts in the same state share a row; a part of which some trains and some does not has a row of its own."""
    if part.trained and part.frozen:
        return "\0".join(part.names)
    return "trains" if part.trained else "frozen"


def _row(parts: list[Part], model: str) -> list[Span]:
    names = ", ".join(fold(name or model for part in parts for name in part.names))
    trained, frozen = sum(part.trained for part in parts), sum(part.frozen for part in parts)
    if trained and frozen:
        state: Span = (f"{quantities.elements(trained)} train, {quantities.elements(frozen)} frozen", "good")
    else:
        state = ("trains", "good") if trained else ("frozen", "dim")
    held = sum(len(part.held) for part in parts)
    note = f"{quantities.counted(held, 'norm')} with fixed statistics" if held else ""
    return [(names, ""), (quantities.elements(trained + frozen), ""), state, (note, "dim")]


def _statistics(summary: Trainable, width: int) -> list[Line]:
    moving = [name for part in summary.parts for name in part.moving]
    if not moving:
        return []
    names = cut_key(", ".join(fold(moving)), width - 4)
    said = f"{quantities.counted(len(moving), 'frozen norm')} would change running statistics in training mode:"
    return [EMPTY, indented(2, line((said, "warning"))), indented(4, line(names))]


def _share(part: int, total: int) -> str:
    """A percentage that is 0 or 100 only where that is so."""
    if 0 < part < total:
        return "<0.1%" if part / total < 0.0005 else ">99.9%" if part / total >= 0.9995 else f"{part / total:.1%}"
    return "100%" if part else "0%"
