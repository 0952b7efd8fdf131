"""Notes beside the scores: one small JSON file for each pair and method, in the folder $LOADSTONE_PAIRS_NOTES."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

Note = dict[str, object]


def write(pair: str, method: str, note: Note) -> None:
    """Keep a note; methods run in processes of their own, so each has its own file."""
    folder = Path(os.environ["LOADSTONE_PAIRS_NOTES"])
    name = f"{zlib.crc32(f'{pair} {method}'.encode()):08x}.json"
    (folder / name).write_text(json.dumps({"pair": pair, "method": method, **note}))


def read(folder: Path) -> dict[tuple[str, str], Note]:
    """All notes, by pair and method."""
    notes = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {(note["pair"], note["method"]): note for note in notes}
