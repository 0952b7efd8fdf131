"""Screens of version control: what `git setup` adds, and a file held against its text manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.screens import quantities
from loadstone.screens.lines import EMPTY, Line, Span, draw, indented, line
from loadstone.screens.text import cells, cut_middle, wrap

if TYPE_CHECKING:
    from loadstone.checks.manifest_text import Comparison, Difference
    from loadstone.cli.git_setup import Setting, Setup
    from loadstone.manifest import Fingerprint

_MARGIN = 2
_WORDS = {
    "values": "other values",
    "shape": "another shape",
    "dtype": "another dtype",
    "missing": "not in the file",
    "new": "not in the manifest",
}


def render_setup(setup: Setup, *, is_dry_run: bool, width: int = 100, color: bool = False) -> str:
    """Each setting in its file, and whether it was there."""
    lines: list[Line] = [line((str(setup.folder or "all repositories of this user"), "strong"))]
    room = width - 2 * _MARGIN - len("would be added") - 2
    file = ""
    for each in setup.settings:
        if each.file != file:
            file = each.file
            lines += [EMPTY, indented(_MARGIN, line(file))]
        name = f"{each.name} " if each.is_attribute else f"{each.name} = "
        text = name + cut_middle(each.value, room - cells(name))
        lines.append(indented(2 * _MARGIN, line(text, " " * (room - cells(text) + 2), _outcome(each, is_dry_run))))
        if each.found is not None and not each.is_there:
            lines.append(indented(3 * _MARGIN, line((f"instead of {each.found}", "warning"))))
    lines.append(EMPTY)
    if not setup.missing:
        last = "Everything is there already; nothing was changed."
    elif is_dry_run:
        last = f"{quantities.counted(len(setup.missing), 'line')} would be added; nothing was changed."
    else:
        last = f"{quantities.counted(len(setup.missing), 'line')} added."
    lines += [indented(_MARGIN, line(text)) for text in wrap(last, width - _MARGIN)]
    return draw(lines, color=color)


def _outcome(each: Setting, is_dry_run: bool) -> Span:
    if each.is_there:
        return "already there", "dim"
    return ("would be added", "") if is_dry_run else ("added", "good")


def render_comparison(compared: Comparison, *, width: int = 100, color: bool = False) -> str:
    """Which tensors differ and how, both sides; then the verdict."""
    lines: list[Line] = [line((compared.path, "strong"), f" against {compared.manifest}"), EMPTY]
    for each in compared.differences:
        lines += [indented(_MARGIN, row) for row in _difference(each, width - _MARGIN)]
    if compared.differences:
        lines.append(EMPTY)
    for key in compared.unproven:
        lines.append(indented(_MARGIN, line(("–", "dim"), f"  {cut_middle(key, width - 40)}  has no digest: unproven")))
    sign: Span
    if compared.ok:
        sign, words = ("✓", "good"), f"{quantities.counted(compared.same, 'tensor')} as the manifest says"
    else:
        differ = len(compared.differences)
        said = f"{quantities.counted(differ, 'tensor differs', 'tensors differ')}"
        sign, words = ("✗", "error"), f"{said}, {compared.same:,} as the manifest says"
    return draw([*lines, indented(_MARGIN, line(sign, f"  {words}"))], color=color)


def _difference(each: Difference, width: int) -> list[Line]:
    what = _WORDS[each.what]
    room = width - len(what) - 6
    rows = [line(("✗", "error"), "  ", (cut_middle(each.key, room), "key"), "  ", what)]
    for label, mark in (("manifest", each.written), ("file", each.found)):
        if mark is not None:
            rows.append(indented(3, line((f"{label:<10}", "dim"), cut_middle(_mark(mark), width - 13))))
    return rows


def _mark(mark: Fingerprint) -> str:
    return f"{mark.dtype}  {quantities.shape(mark.shape)}  {mark.digest}"
