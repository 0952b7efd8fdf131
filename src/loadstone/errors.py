"""What can go wrong, as values: Diagnostic and Fix, and the exceptions that carry them.

Every exception inherits the builtin that people would catch::

    LoadstoneError
    ├── FormatError       (ValueError)         the bytes are not what a reader can accept
    ├── UnsafeError       (ValueError)         reading on would mean trusting what the file says
    ├── IntegrityError    (OSError)            bytes are missing, damaged or cannot be read
    │   └── MissingFileError (FileNotFoundError)
    ├── MatchError        (LookupError)        checkpoint and model do not fit; carries the plan
    ├── RecipeError       (ValueError)         an option or a recipe file is wrong
    ├── SaveError         (OSError)            nothing was written
    ├── SurgeryError      (ValueError)         a model cannot be edited like that; it is as it was
    └── LimitError        (MemoryError)        a limit that protects this machine was reached
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadstone.catalog import CATALOG, Severity

if TYPE_CHECKING:
    from loadstone.matching.plan import Plan  # for the annotation of MatchError.plan only

Safety = Literal["safe", "unsafe", "manual"]


@dataclass(frozen=True, slots=True)
class Fix:
    """One way out: what it does, and what to paste.

    `safety` is "safe" (cannot lose, does not guess), "unsafe" (a guess, its evidence stands in the diagnostic)
    or "manual" (only a person can do it).
    """

    does: str
    paste: str
    safety: Safety = "manual"

    def __str__(self) -> str:
        return f"{self.does}: {self.paste}" if self.paste else self.does


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: a code of the catalog, one line of message, the evidence, and the fixes.

    `evidence` holds (label, value) rows, for example ("checkpoint", "fc.weight  1000 × 512  float32").
    `keys` are the keys it is about.  Its severity is the catalog's, unless `level` says otherwise.
    """

    code: str
    message: str
    evidence: tuple[tuple[str, str], ...] = ()
    fixes: tuple[Fix, ...] = ()
    keys: tuple[str, ...] = ()
    level: Severity | None = None

    def __post_init__(self) -> None:
        if self.code not in CATALOG:
            raise KeyError(f"{self.code} is not in the catalog")

    @property
    def severity(self) -> Severity:
        """How bad it is: "error", "warning" or "note"."""
        return self.level or CATALOG[self.code].severity

    def __str__(self) -> str:
        lines = [f"{self.severity}[{self.code}]: {self.message}"]
        width = max((len(label) for label, _ in self.evidence), default=0)
        lines += [f"   │  {label:<{width}}  {value}".rstrip() for label, value in self.evidence]
        lines += [f"   = {'help' if fix.safety == 'manual' else f'fix, {fix.safety}'}: {fix}" for fix in self.fixes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """Plain values, ready for json.dumps."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "evidence": [list(row) for row in self.evidence],
            "fixes": [{"does": fix.does, "paste": fix.paste, "safety": fix.safety} for fix in self.fixes],
            "keys": list(self.keys),
        }


class LoadstoneError(Exception):
    """The root of all errors Loadstone raises on purpose; `diagnostics` holds what is wrong, worst first."""

    diagnostics: tuple[Diagnostic, ...]

    def __init__(self, *diagnostics: Diagnostic, summary: str = "") -> None:
        self.diagnostics = diagnostics
        text = "\n".join(str(diagnostic) for diagnostic in diagnostics)
        super().__init__(f"{summary}\n{text}" if summary else text)

    @property
    def code(self) -> str:
        """The code of the first diagnostic."""
        return self.diagnostics[0].code


class FormatError(LoadstoneError, ValueError):
    """The bytes are not what a reader can accept."""


class UnsafeError(LoadstoneError, ValueError):
    """Reading on would mean trusting what the file says."""


class IntegrityError(LoadstoneError, OSError):
    """Bytes are missing, damaged or cannot be read."""


class MissingFileError(IntegrityError, FileNotFoundError):
    """The path names no file."""


class MatchError(LoadstoneError, LookupError):
    """Checkpoint and model do not fit; `plan` says key by key why."""

    plan: Plan | None

    def __init__(self, *diagnostics: Diagnostic, summary: str = "", plan: Plan | None = None) -> None:
        super().__init__(*diagnostics, summary=summary)
        self.plan = plan


class RecipeError(LoadstoneError, ValueError):
    """An option or a recipe file is wrong."""


class SaveError(LoadstoneError, OSError):
    """Nothing was written, and what was there before is untouched."""


class SurgeryError(LoadstoneError, ValueError):
    """A model cannot be edited as asked, and is as it was."""


class LimitError(LoadstoneError, MemoryError):
    """A limit that protects this machine was reached."""


def worst_first(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Errors, then warnings, then notes; within each in the order they were found."""
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(diagnostics, key=lambda diagnostic: rank[diagnostic.severity]))
