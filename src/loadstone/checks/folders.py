"""Verify a folder checkpoint: every file that its loadstone.json lists, and what lies beside them.

loadstone.json carries its own digest, and the size and digest of every other file.  Where a shard is damaged, the
digests of its tensors say which ones.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from loadstone.checkpoint import Checkpoint, open_checkpoint
from loadstone.checks.fingerprints import differing
from loadstone.checks.marks import digest_now
from loadstone.checks.report import FileCheck, VerifyReport
from loadstone.errors import Diagnostic, IntegrityError, LoadstoneError, worst_first
from loadstone.manifest import RECORD
from loadstone.tensors import TensorInfo
from loadstone.writing.folder import Listed, own_digest

FORMAT = "folder"
_OF_A_FILE = frozenset(("missing-shard", "truncated-file", "bad-digest"))


def verify_folder(path: Path) -> VerifyReport:
    """The report of one folder; raises IntegrityError (io-error) where it cannot be read at all."""
    checks: list[FileCheck] = []
    found: list[Diagnostic] = []
    data = _read(path / RECORD)
    own = own_digest(data)
    listed = _listed(data)
    is_own_right = own is not None and own[0] == own[1] and listed is not None
    checks.append(FileCheck(RECORD, len(data), "digest", is_own_right))
    if not is_own_right:
        evidence: tuple[tuple[str, str], ...] = () if own is None else (("written", own[0]), ("found", own[1]))
        found.append(_damaged(path, RECORD, evidence))
    with _opened(path, found) as checkpoint:
        for name, entry in (listed or {}).items():
            findings = _compared(path, name, entry, checkpoint)
            checks.append(FileCheck(name, _nbytes(path / name), "digest", not findings))
            found += findings
        tensors = 0 if checkpoint is None else len(checkpoint.tensors)
    extra = [name for name in sorted(os.listdir(path)) if name != RECORD and name not in (listed or {})]
    if listed is not None and extra:
        message = f"`{path}` holds {len(extra):,} files that its {RECORD} does not list"
        evidence = tuple(("not listed", name) for name in extra)
        found.append(Diagnostic("index-mismatch", message, evidence, level="warning"))
    return VerifyReport(os.fspath(path), FORMAT, tuple(checks), tensors, worst_first(dict.fromkeys(found)))


def _compared(path: Path, name: str, entry: Listed, checkpoint: Checkpoint | None) -> list[Diagnostic]:
    """What is wrong with one file of the folder."""
    file = path / name
    if not file.is_file():
        return [Diagnostic("missing-shard", f"`{name}` is not in `{path}`, which lists it")]
    nbytes = _nbytes(file)
    if nbytes != entry.nbytes:
        evidence = (("written", f"{entry.nbytes:,} bytes"), ("found", f"{nbytes:,} bytes"))
        if nbytes > entry.nbytes:
            return [_damaged(path, name, evidence)]
        return [Diagnostic("truncated-file", f"`{file}` ends {entry.nbytes - nbytes:,} bytes early", evidence)]
    found = digest_now(file)
    if found == entry.digest:
        return []
    if checkpoint is not None and checkpoint.manifest is not None:
        inside = [info for info in checkpoint.tensors.values() if _source_of(info) == os.fspath(file)]
        damaged, _ = differing(checkpoint.manifest.tensors, inside, os.fspath(file))
        if damaged:
            return damaged
    return [_damaged(path, name, (("written", entry.digest), ("found", found)))]


@contextlib.contextmanager
def _opened(path: Path, found: list[Diagnostic]) -> Iterator[Checkpoint | None]:
    """The folder as a checkpoint; None where it does not open, which is said in `found` where no file will."""
    try:
        checkpoint = open_checkpoint(path)
    except LoadstoneError as error:
        found += [each for each in error.diagnostics if each.code not in _OF_A_FILE]
        yield None
        return
    with checkpoint:
        yield checkpoint


def _listed(data: bytes) -> dict[str, Listed] | None:
    """The files that loadstone.json lists; None where it cannot be read."""
    try:
        value = json.loads(data)
        files = {str(name): Listed(int(nbytes), str(text)) for name, (nbytes, text) in value["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return files if all(name == os.path.basename(name) and name not in ("", ".", "..") for name in files) else None


def _damaged(path: Path, name: str, evidence: tuple[tuple[str, str], ...]) -> Diagnostic:
    return Diagnostic("bad-digest", f"`{path / name}` is damaged: its bytes are not those that were written", evidence)


def _source_of(info: TensorInfo) -> str | None:
    return info.storage.extents[0].source.name if info.storage is not None and info.storage.extents else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(Diagnostic("io-error", f"reading `{path}`: {error.strerror or error}")) from error


def _nbytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
