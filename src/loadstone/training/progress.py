"""Where a resume found the training, and what became of every part of it: Progress and its Report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadstone.errors import Diagnostic

Status = Literal["kept", "new", "dropped"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing: a part ("optimizer") or a parameter of it, and what became of it.

    `status` is "kept" (as the file has it), "new" (as the script made it) or "dropped" (the file's is not used).
    """

    status: Status
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.status:<8}{self.what}   {self.why}".rstrip()


@dataclass(frozen=True, slots=True)
class Report:
    """What a resume did, a line a thing.  Empty where there was nothing to resume.

    Attributes:
        head: one line: which checkpoint, and how.
        lines: parts of the training; parameters where they did not all fare alike.
        diagnostics: what else is to be said, such as a damaged checkpoint that was passed over.
        details: reports of the parts, as text.
    """

    head: str
    lines: tuple[Line, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def kept(self) -> list[str]:
        """What goes on as the file has it."""
        return self._named("kept")

    @property
    def new(self) -> list[str]:
        """What starts as the script made it."""
        return self._named("new")

    @property
    def dropped(self) -> list[str]:
        """What the file has and nothing here takes."""
        return self._named("dropped")

    def _named(self, status: Status) -> list[str]:
        return [line.what for line in self.lines if line.status == status]

    def __str__(self) -> str:
        counts = [f"{len(self._named(status))} {status}" for status in ("kept", "new", "dropped")]
        head = [self.head, *([f"  {', '.join(counts)}"] if self.lines else [])]
        return "\n".join(
            [*head, *(f"  {line}" for line in self.lines), *map(str, self.diagnostics), *self.details]
        ).rstrip()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands.

    Attributes:
        epoch: epochs that are finished; the next one is `epoch + 1`.
        step: batches done in all.
        batch: batches done in the unfinished epoch, 0 between two epochs.
        path: the checkpoint that it goes on from; None where there is none.
        report: what became of every part.
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    path: Path | None = None
    report: Report = Report("nothing to resume: the training starts at its beginning")

    def __bool__(self) -> bool:
        return self.path is not None

    def __str__(self) -> str:
        return str(self.report)


def describe(epoch: int, step: int, batch: int) -> str:
    """A place in the training in words."""
    inside = f", {batch:,} batches into epoch {epoch + 1:,}" if batch else ""
    return f"epoch {epoch:,}{inside}, step {step:,}"


def folded(status: Status, part: str, names: Sequence[str], why: str) -> list[Line]:
    """A line for every name, under its part."""
    return [Line(status, f"{part}.{name}", why) for name in names]
