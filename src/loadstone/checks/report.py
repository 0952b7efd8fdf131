"""What verification found, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadstone.errors import Diagnostic

Proof = Literal["digest", "checksums", "structure"]
_STRONGEST_FIRST: tuple[Proof, ...] = ("digest", "checksums", "structure")


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file of a checkpoint: what was compared (`proof`), and whether it fits."""

    name: str
    nbytes: int
    proof: Proof
    ok: bool


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification found.  `print(report)` is the screen.

    Attributes:
        path: what was verified.
        format: as `Checkpoint.format`; "" where it could not be opened.
        files: every file of the checkpoint.
        tensors: how many there are in it.
        diagnostics: what was found, worst first.
    """

    path: str
    format: str
    files: tuple[FileCheck, ...]
    tensors: int
    diagnostics: tuple[Diagnostic, ...]

    @property
    def ok(self) -> bool:
        """Nothing is damaged, as far as could be proved: see `checked`."""
        return not self.errors

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The damage."""
        return tuple(found for found in self.diagnostics if found.severity == "error")

    @property
    def checked(self) -> Proof:
        """The weakest proof among the files."""
        proofs = {file.proof for file in self.files}
        return (
            "structure" if "structure" in proofs or not proofs else "checksums" if "checksums" in proofs else "digest"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all the files."""
        return sum(file.nbytes for file in self.files)

    def to_json(self) -> dict[str, object]:
        """Plain values, ready for json.dumps."""
        return {
            "path": self.path,
            "format": self.format,
            "ok": self.ok,
            "checked": self.checked,
            "tensors": self.tensors,
            "nbytes": self.nbytes,
            "files": [
                {"name": file.name, "nbytes": file.nbytes, "checked": file.proof, "ok": file.ok} for file in self.files
            ],
            "diagnostics": [found.to_json() for found in self.diagnostics],
        }

    def __str__(self) -> str:
        from loadstone.screens.verification import render_verification

        return render_verification(self).rstrip("\n")
