"""What an export wrote and how it was checked: one line for `print`, a row an input for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines
from loadstone.screens.lines import EMPTY, Line, Span, draw, indented, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.errors import Diagnostic
    from loadstone.model.export import Exported
    from loadstone.model.exporting.comparing import Comparison


def one_line(exported: Exported) -> str:
    """The file, its format and size, and how near it is to the model."""
    inputs = quantities.counted(len(exported.comparisons), "input")
    near = "equal to" if exported.is_equal else f"within {exported.max_difference:.2g} of"
    return visible(f"{_head(exported)}   {near} the model on {inputs}")


def render_export(
    exported: Exported, *, width: int = 100, color: bool = False, diagnostics: Sequence[Diagnostic] | None = None
) -> str:
    """The file, then how near to the model it is for each input, then what is to be said about it."""
    rows = [_row(each) for each in exported.comparisons]
    lines: list[Line] = [
        line((_head(exported), "strong")),
        EMPTY,
        *(indented(2, row) for row in tabulate(rows, width=width - 2)),
    ]
    for diagnostic in exported.diagnostics if diagnostics is None else diagnostics:
        lines += [EMPTY, *diagnostic_lines(diagnostic, width)]
    return draw(lines, color=color)


def _head(exported: Exported) -> str:
    return f"{exported.path}   {exported.format}   {quantities.nbytes(exported.nbytes)}"


def _row(each: Comparison) -> list[Span]:
    if each.is_equal:
        return [("=", "good"), (each.input, ""), ("equal to the model", ""), ("", "")]
    share = f"{each.max_relative:.2g} of the largest value, {each.tolerance:.2g} allowed"
    return [("~", "note"), (each.input, ""), (f"differs by up to {each.max_difference:.2g}", ""), (share, "dim")]
