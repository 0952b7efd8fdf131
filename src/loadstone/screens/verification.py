"""What verification found: a line a checkpoint, a line a file where there are several, then the damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines
from loadstone.screens.lines import EMPTY, Line, Span, draw, indented, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import cut_middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.checks.report import FileCheck, VerifyReport
    from loadstone.errors import Diagnostic

_HOW = {
    "digest": "every byte is the one that was written",
    "checksums": "every record has the checksum it was written with",
    "structure": "its structure is in order, its values cannot be proved",
}


def render_verification(
    report: VerifyReport, *, width: int = 100, color: bool = False, diagnostics: Sequence[Diagnostic] | None = None,
    is_one_of_many: bool = False,
) -> str:  # fmt: skip
    """The verdict on one checkpoint, at most `width` cells wide as far as its words allow.

    One of many takes a line as long as nothing is to be said about it.
    """
    said = report.diagnostics if diagnostics is None else diagnostics
    lines: list[Line] = [_verdict(report)]
    if not is_one_of_many or said:
        lines.append(indented(2, line(_how(report))))
    if len(report.files) > 1 and (not is_one_of_many or not report.ok):
        rows = tabulate([_row(file) for file in report.files], width=width - 2, right=(2,), yielding=1, cut=cut_middle)
        lines += [EMPTY, *(indented(2, row) for row in rows)]
    for found in said:
        lines += [EMPTY, *diagnostic_lines(found, width)]
    return draw([*lines, EMPTY] if is_one_of_many and said else lines, color=color)


def _verdict(report: VerifyReport) -> Line:
    word: Span = ("damaged", "error")
    if report.ok:
        word = ("not proved", "warning") if report.checked == "structure" else ("whole", "good")
    facts = [report.format, quantities.counted(report.tensors, "tensor")] if report.format else []
    facts.append(quantities.nbytes(report.nbytes))
    return line((report.path, "strong"), "   ", word, *(f"   {fact}" for fact in facts))


def _how(report: VerifyReport) -> str:
    if report.ok:
        return _HOW[report.checked]
    wrong = [file for file in report.files if not file.ok]
    keys = dict.fromkeys(key for found in report.errors for key in found.keys)
    parts = []
    if len(report.files) > 1 and wrong:
        parts.append(f"{len(wrong)} of {quantities.counted(len(report.files), 'file')}")
    if keys:
        parts.append(f"{quantities.counted(len(keys), 'tensor')} of {report.tensors:,}")
    return ", ".join(parts) + " damaged" if parts else "not all of its bytes are those that were written"


def _row(file: FileCheck) -> list[Span]:
    sign: Span = ("✓", "good") if file.ok else ("✗", "error")
    word = {"digest": "digest", "checksums": "checksums", "structure": "structure only"}[file.proof]
    return [sign, (file.name, ""), (quantities.nbytes(file.nbytes), ""), (word if file.ok else "damaged", "dim")]
