"""What a save gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loadstone.errors import Diagnostic


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is written and on the device.

    Attributes:
        path: as it was given.
        nbytes: its size; of a folder, of all its files.
        digest: of the whole file; it stands in the file too, and counts as zeros there.  Of a folder it is that of its
            loadstone.json, which holds those of all other files.
        diagnostics: what was noticed, such as a storage that was written only in part, or an old shard that is damaged.
        linked_nbytes: of a folder, how many of its bytes are links to the one before, and took no room.
    """

    path: Path
    nbytes: int
    digest: str
    diagnostics: tuple[Diagnostic, ...] = ()
    linked_nbytes: int = 0

    @property
    def written_nbytes(self) -> int:
        """Bytes that were written for it."""
        return self.nbytes - self.linked_nbytes
