"""What a diagnostic code means, from the catalog."""

from __future__ import annotations

from difflib import get_close_matches

from loadstone.catalog import CATALOG
from loadstone.screens.lines import EMPTY, Line, Span, Style, draw, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import wrap

_STYLES: dict[str, Style] = {"error": "error", "warning": "warning", "note": "note"}


def render_explanation(code: str, *, width: int = 100, color: bool = False) -> str:
    """The catalog's row of a code, which must be one of the catalog."""
    entry = CATALOG[code]
    lines: list[Line] = [
        line((entry.code, "strong"), "   ", (entry.severity, _STYLES[entry.severity]), "   ", entry.title),
        EMPTY,
        *(line("  ", text) for text in wrap(entry.meaning, width - 2)),
        EMPTY,
        *(line("  ", text) for text in wrap(entry.advice, width - 2)),
    ]
    return draw(lines, color=color)


def render_codes(*, width: int = 100, color: bool = False) -> str:
    """All codes with their titles, in the order of the catalog."""
    rows: list[list[Span]] = [
        [(entry.code, "strong"), (entry.severity, _STYLES[entry.severity]), (entry.title, "")]
        for entry in CATALOG.values()
    ]
    return draw(tabulate(rows, width=width, yielding=2), color=color)


def codes_near(code: str) -> list[str]:
    """The codes a person may have meant."""
    return get_close_matches(code, CATALOG, n=3, cutoff=0.5)
