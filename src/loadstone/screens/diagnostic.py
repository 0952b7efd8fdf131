"""One diagnostic as a screen: what is wrong, the evidence, and what to paste."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadstone.errors import Diagnostic, Fix
from loadstone.screens.lines import EMPTY, Line, Style, draw, line
from loadstone.screens.text import cells, visible, wrap

_STYLES: dict[str, Style] = {"error": "error", "warning": "warning", "note": "note"}
_RAIL = "   │"
_MOST_EVIDENCE = 12  # rows; a diagnostic that has more says how many are left out
_LABEL_WIDTH = 24


def render_diagnostic(diagnostic: Diagnostic, *, width: int = 100, color: bool = False) -> str:
    """The diagnostic with its evidence and fixes, at most `width` cells wide as far as its words allow."""
    return draw(diagnostic_lines(diagnostic, width), color=color)


def render_error(diagnostics: Sequence[Diagnostic], *, width: int = 100, color: bool = False) -> str:
    """All the diagnostics of an error, one after the other, and where to read more."""
    lines: list[Line] = []
    for diagnostic in diagnostics:
        lines += [*diagnostic_lines(diagnostic, width), EMPTY]
    return draw(lines[:-1], color=color)


def diagnostic_lines(diagnostic: Diagnostic, width: int) -> list[Line]:
    """A headline, the evidence beside a rail, the fixes below it."""
    lines = headline(diagnostic, width)
    evidence = [*_evidence(diagnostic.evidence, width)]
    fixes = [found for fix in diagnostic.fixes for found in _fix(fix, width)]
    if evidence:
        lines += [line((_RAIL, "dim")), *evidence]
    if evidence and fixes:
        lines.append(line((_RAIL, "dim")))
    return lines + fixes


def headline(diagnostic: Diagnostic, width: int) -> list[Line]:
    """Severity, code and message; what does not fit on one line goes on below it, indented."""
    head = f"{diagnostic.severity}[{diagnostic.code}]"
    first, *_ = wrap(visible(f"{head}: {diagnostic.message}"), width)
    rest = visible(f"{head}: {diagnostic.message}")[len(first) :].removeprefix(" ")
    lines = [line((head, _STYLES[diagnostic.severity]), (first[len(head) :], "strong"))]
    return lines + [line("   ", (text, "strong")) for text in wrap(rest, width - 3) if rest]


def _evidence(rows: Sequence[tuple[str, str]], width: int) -> Iterable[Line]:
    labels = [visible(label) for label, _ in rows]
    values = _aligned([visible(value) for _, value in rows])
    label_width = min(max(map(cells, labels), default=0), _LABEL_WIDTH)
    room = max(width - cells(_RAIL) - label_width - 4, 24)
    for label, value in list(zip(labels, values, strict=True))[:_MOST_EVIDENCE]:
        blank = " " * (label_width - cells(label))
        first, *more = wrap(value, room)
        yield line((_RAIL, "dim"), "  ", (label, "dim"), blank, "  ", first)
        for text in more:
            yield line((_RAIL, "dim"), "  ", " " * label_width, "  ", text)
    if len(rows) > _MOST_EVIDENCE:
        yield line((_RAIL, "dim"), f"  … and {len(rows) - _MOST_EVIDENCE:,} more")


def _aligned(values: Sequence[str]) -> list[str]:
    """Values that hold columns, three spaces apart, with the columns of neighbours below each other."""
    rows = [value.split("   ") for value in values]
    widths = [
        max((cells(row[at]) for row in rows if at < len(row) - 1), default=0)
        for at in range(max(map(len, rows), default=0))
    ]
    return ["   ".join(text + " " * (widths[at] - cells(text)) for at, text in enumerate(row)).rstrip() for row in rows]


def _fix(fix: Fix, width: int) -> Iterable[Line]:
    """`= help: what it does   what to paste`; the paste gets a line of its own where both do not fit on one."""
    kind = "help" if fix.safety == "manual" else f"fix, {fix.safety}"
    style: Style = "note" if fix.safety == "manual" else "good"
    start = f"   = {kind}: "
    does, paste = visible(fix.does), visible(fix.paste)
    if cells(start) + cells(does) + 3 + cells(paste) <= width or not paste:
        first, *more = wrap(does, max(width - cells(start), 24))
        paste_spans = ("   ", (paste, "code")) if paste else ()
        yield line("   = ", (kind, style), ": ", first, *(paste_spans if not more else ()))
        yield from (line(" " * cells(start), text) for text in more)
        return
    for number, text in enumerate(wrap(does, max(width - cells(start), 24))):
        yield line("   = ", (kind, style), ": ", text) if number == 0 else line(" " * cells(start), text)
    yield line("        ", (paste, "code"))  # never broken: it is there to be copied
