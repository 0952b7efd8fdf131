"""What a run remembers beside its checkpoints, in `run.json`: which are pinned, and which one it went on from.

The file is replaced in one step, and a change is read, made and written under a lock, so that two processes that pin
at the same time both get their pin.  A `run.json` that cannot be read says so, and nothing is deleted until somebody
has looked: any checkpoint could be pinned.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from loadstone.errors import Diagnostic, Fix, IntegrityError, SaveError
from loadstone.io.disk import disk
from loadstone.io.replace import replacing
from loadstone.io.sources import missing_file

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]

FILE = "run.json"
LOCK = ".run.lock"
VERSION = 1
_MOST_NBYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What `run.json` says.

    Attributes:
        name: of the run; None where nobody has said.
        pinned: names of files in the folder that are never deleted.
        resumed_from: name of the file the run went on from.
        diagnostics: why the file cannot be used; then the rest is empty.
    """

    name: str | None = None
    pinned: tuple[str, ...] = ()
    resumed_from: str | None = None
    diagnostics: tuple[Diagnostic, ...] = ()


def read_facts(folder: Path) -> Facts:
    """The facts of the run in that folder; without any where there is no `run.json`."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_NBYTES)
    except FileNotFoundError:
        return Facts()
    except OSError as error:
        return _unusable(path, error.strerror or str(error))
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _unusable(path, "it is no JSON")
    match value:
        case {"version": int(version)} if version != VERSION:
            return _unusable(path, f"its version is {version}, this Loadstone reads {VERSION}")
        case {"name": str() | None as name, "pinned": list(pinned), "resumed_from": str() | None as resumed} if all(
            isinstance(entry, str) for entry in pinned
        ):
            return Facts(name, tuple(dict.fromkeys(pinned)), resumed)
    return _unusable(path, "it has not the entries name, pinned and resumed_from")


def pin(checkpoint: str | os.PathLike[str]) -> Facts:
    """Keep this checkpoint whatever retention says; the facts as they are now.

    Raises MissingFileError, IntegrityError (invalid-run-facts), SaveError.
    """
    path = Path(os.path.abspath(checkpoint))
    if not path.exists():
        raise missing_file(Path(checkpoint))
    with locked(path.parent):
        facts = _usable(path.parent)
        return _write(path.parent, replace(facts, pinned=tuple(dict.fromkeys((*facts.pinned, path.name)))))


def unpin(checkpoint: str | os.PathLike[str]) -> Facts:
    """Leave this checkpoint to retention again; the facts as they are now.  Raises what `pin` raises."""
    path = Path(os.path.abspath(checkpoint))
    with locked(path.parent):
        facts = _usable(path.parent)
        if path.name not in facts.pinned:
            return facts
        return _write(path.parent, replace(facts, pinned=tuple(name for name in facts.pinned if name != path.name)))


def record_resume(folder: Path, *, name: str, resumed_from: str | None) -> Facts:
    """Remember which checkpoint the run called `name` went on from; pins stay.  Raises what `pin` raises."""
    with locked(folder):
        facts = _usable(folder)
        changed = replace(facts, name=name, resumed_from=resumed_from)
        return facts if changed == facts else _write(folder, changed)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else who asks for this lock changes pins or deletes checkpoints of the folder meanwhile.

    Raises SaveError (save-failed) where the lock cannot be had.
    """
    path = folder / LOCK
    try:
        with contextlib.suppress(FileExistsError):
            disk().close(disk().create(path))
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks only what is open for writing
    except OSError as error:
        raise SaveError(Diagnostic("save-failed", f"locking `{path}`: {error.strerror or error}")) from error
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def protected(facts: Facts) -> frozenset[str]:
    """Names of files that are never deleted."""
    return frozenset((*facts.pinned, *_names(facts.resumed_from)))


def _names(name: str | None) -> Iterable[str]:
    return () if name is None else (name,)


def _usable(folder: Path) -> Facts:
    facts = read_facts(folder)
    if facts.diagnostics:
        raise IntegrityError(*facts.diagnostics)
    return facts


def _write(folder: Path, facts: Facts) -> Facts:
    document = {
        "version": VERSION,
        "name": facts.name,
        "pinned": list(facts.pinned),
        "resumed_from": facts.resumed_from,
    }
    with replacing(folder / FILE) as file:
        file.write((json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode())
    return facts


def _unusable(path: Path, why: str) -> Facts:
    fixes = (Fix("move it away, and pin again what is to be kept", f"mv {path} {path}.damaged"),)
    message = f"`{path}` cannot be used: {why}; any checkpoint could be pinned, so none is deleted"
    return Facts(diagnostics=(Diagnostic("invalid-run-facts", message, fixes=fixes),))
