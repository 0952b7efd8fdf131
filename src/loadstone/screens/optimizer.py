"""The screen of a plan for an optimizer: names by what becomes of them, then groups, then what is to be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.keys import fold
from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines
from loadstone.screens.lines import EMPTY, Line, Span, Style, draw, indented, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import cut_key, visible

if TYPE_CHECKING:
    from loadstone.training.optimizers import OptimizerPlan

_SIGNS: dict[str, tuple[str, Style]] = {
    "kept": ("=", "good"),
    "rearranged": ("⤨", "good"),
    "reshaped": ("≠", "warning"),
    "new": ("+", "note"),
    "dropped": ("∅", "dim"),
}
_MOST_ROWS = 4  # of folded names that have one reason


def render_optimizer(plan: OptimizerPlan, *, width: int = 100, color: bool = False) -> str:
    """Counts of what is kept, rearranged, reshaped, new and dropped, each with its names and its reason."""
    counts = "   ".join(f"{len(plan.named(status)):,} {status}" for status in _SIGNS if plan.named(status))
    lines: list[Line] = [line((visible(plan.kind), "strong"), f"   {plan.strict}   {counts}")]
    lines += [line("  ", (f"parameters {plan.names_from}", "dim"))] if plan.names_from else []
    lines.append(EMPTY)
    rows: list[list[Span]] = []
    for status, sign in _SIGNS.items():
        alike: dict[tuple[str, str], list[str]] = {}
        for each in plan.lines:
            if each.status == status:
                alike.setdefault((_moved(each.group_from, each.group_to), each.why), []).append(each.name)
        for (groups, why), names in alike.items():
            folded = fold(names)
            count, reason = quantities.elements(len(names)), why.removeprefix(plan.names_from).removeprefix("; ")
            if len(folded) > _MOST_ROWS:
                folded = [*folded[: _MOST_ROWS - 1], f"… {len(folded) - _MOST_ROWS + 1} more"]
            rows.append([sign, (status, ""), (count, ""), (folded[0], "key"), (groups, ""), (reason, "dim")])
            rows += [[("", ""), ("", ""), ("", ""), (name, "key"), ("", ""), ("", "")] for name in folded[1:]]
    lines += [indented(2, row) for row in tabulate(rows, width=width - 2, right=(2,), yielding=3, cut=cut_key)]
    for diagnostic in plan.diagnostics:
        lines += [EMPTY, *diagnostic_lines(diagnostic, width)]
    return draw(lines, color=color)


def _moved(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return f"group {after if before is None else before}"
    return f"group {before}" if before == after else f"group {before} → {after}"
