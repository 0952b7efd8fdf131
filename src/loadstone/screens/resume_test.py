"""What a resume-test found: the verdict, where the script was killed, what was compared, and the first difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines
from loadstone.screens.lines import EMPTY, Line, Span, draw, indented, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import visible, wrap

if TYPE_CHECKING:
    from loadstone.training.resume_test import Failure, Kill, ResumeTest

_ELSEWHERE = (
    "The run's checkpoints were kept in a scratch folder that is gone now; what the script writes by itself, "
    "it has written."
)


def render_resume_test(found: ResumeTest, *, width: int = 100, color: bool = False) -> str:
    """One screen, the verdict in its first line."""
    lines: list[Line] = [_head(found), EMPTY]
    if found.steps:
        rows = [_whole(found), *map(_kill, found.kills)]
        if found.failure and found.kills:
            rows[-1][-1] = ("and did not come back", "dim")
        lines += [indented(2, row) for row in tabulate(rows, width=width - 2, yielding=2)]
        lines.append(EMPTY)
    if found.failure:
        lines += _failed(found.failure, width)
    elif found.difference:
        lines += [*diagnostic_lines(found.difference.diagnostic, width), EMPTY]
    else:
        lines += [*_equal(found, width), EMPTY]
    lines += [line((text, "dim")) for text in wrap(_ELSEWHERE, width)]
    return draw(lines, color=color)


def _head(found: ResumeTest) -> Line:
    script: Span = (visible(" ".join(found.script)), "strong")
    if found.failure:
        return line(script, "   ", ("SCRIPT FAILED", "error"), f"   it {found.failure.how}")
    if found.difference:
        where = f"from step {found.difference.step} on" if found.difference.epoch else "at the end"
        return line(script, "   ", ("DIFFERS", "error"), f"   {found.difference.what}, {where}")
    times = quantities.counted(len(found.kills), "time")
    if found.verdict == "not-resumed":
        return line(script, "   ", ("NOT RESUMED", "warning"), f"   killed {times}, and never after a checkpoint")
    return line(script, "   ", ("PASS", "good"), f"   killed {times}, and the same to the bit")


def _whole(found: ResumeTest) -> list[Span]:
    size = f"{quantities.counted(found.epochs, 'epoch')}, {quantities.counted(found.steps, 'step')}"
    return [("in one go", ""), (size, ""), (f"{found.seconds:,.1f} s", "dim")]


def _kill(kill: Kill) -> list[Span]:
    if not kill.went_on_at:
        after = "and had nothing left to do"
    elif kill.went_on_at == 1:
        after = "began again: there was no checkpoint yet"
    else:
        after = f"went on at step {kill.went_on_at:,}"
    return [("killed at", ""), (f"step {kill.step:,} (epoch {kill.epoch}, batch {kill.batch})", ""), (after, "dim")]


def _equal(found: ResumeTest, width: int) -> list[Line]:
    batches = quantities.counted(found.compared, "batch", "batches")
    rows: list[list[Span]] = [
        [("=", "good"), (batches, ""), ("the same data in the same order", "")],
        [("=", "good"), ("learning rates", ""), ("the same at every step", "")],
        [("=", "good"), ("weights, optimizer", ""), ("the same at every step", "")],
        [("=", "good"), (quantities.counted(found.values, "value"), ""), ("equal at the end, tensor by tensor", "")],
    ]  # fmt: skip
    return [indented(2, row) for row in tabulate(rows, width=width - 2, yielding=2)]


def _failed(failure: Failure, width: int) -> list[Line]:
    times = f"after it was killed {quantities.counted(failure.life, 'time')}" if failure.life else "before any kill"
    lines: list[Line] = [indented(2, line(f"It {failure.how}, {times}; the last lines it printed:")), EMPTY]
    lines += [indented(4, line((part, "dim"))) for text in failure.output for part in wrap(visible(text), width - 4)]
    return [*lines, EMPTY]
