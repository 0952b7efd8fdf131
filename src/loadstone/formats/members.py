"""The files of a checkpoint in several files: names from an index, resolved inside its directory and nowhere else."""

from __future__ import annotations

from pathlib import Path

from loadstone.errors import Diagnostic, UnsafeError


def member_path(directory: Path, name: object) -> Path:
    """The path of a member that an index calls `name`.

    Raises UnsafeError ("unsafe-path") unless `name` is a plain file name (no separator, no `..`) and, where it is a
    symbolic link, leads to a file inside the directory, or into the `blobs` of the same repository in a Hugging Face
    cache (snapshots/REVISION/NAME -> ../../blobs/HASH).  The file need not exist.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\:"):
        raise _unsafe(directory, name, "which is no plain file name")
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in name):
        raise _unsafe(directory, name, "which has control characters or half a character")
    path = directory / name
    home = directory.resolve()
    target = path.resolve()
    blobs = home.parent.parent / "blobs"
    in_hub_cache = home.parent.name == "snapshots" and target.parent == blobs
    if not (target.is_relative_to(home) or in_hub_cache):
        raise _unsafe(directory, name, f"a link that leads to `{target}`")
    return path


def _unsafe(directory: Path, name: object, why: str) -> UnsafeError:
    return UnsafeError(Diagnostic("unsafe-path", f"the index of `{directory}` names {name!r:.120}, {why}"))
