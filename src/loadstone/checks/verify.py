"""Verify: is every byte of a checkpoint the one that was written.

What can be proved depends on what the writer left.  Loadstone's files carry a digest of the whole file and one of
every tensor: one pass compares the first, and where it differs the others say which tensor is damaged.  A zip carries
a CRC-32 for each record.  Of anything else only the structure can be proved, and that is said (no-digest).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from loadstone.checkpoint import Checkpoint, open_checkpoint
from loadstone.checks.fingerprints import differing
from loadstone.checks.folders import verify_folder
from loadstone.checks.holes import holes
from loadstone.checks.marks import digest_now, mark_of
from loadstone.checks.records import damaged_records, tensors_by_record
from loadstone.checks.report import FileCheck, Proof, VerifyReport
from loadstone.errors import Diagnostic, LoadstoneError, worst_first
from loadstone.formats.zips.archive import Archive, open_archive
from loadstone.io.sources import FileSource
from loadstone.manifest import ENTRY, RECORD

# opening says these of a path that is no checkpoint, or when the machine is in the way: nothing was verified
_COULD_NOT = frozenset(
    ("file-not-found", "io-error", "not-a-checkpoint", "unknown-format", "lfs-pointer", "resource-limit",
     "unsupported-feature", "address-refused", "download-failed", "hash-mismatch")
)  # fmt: skip
# what opening notices that has to do with bytes being those that were written
_NOTICED = frozenset(("invalid-manifest", "index-mismatch", "trailing-bytes", "missing-shard"))


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Compare a checkpoint, a file or a folder of files, with the digests or checksums it carries.

    Damage is in the report.  Raises MissingFileError, and LoadstoneError where there is no checkpoint or it cannot be
    read for another reason than damage.
    """
    place = Path(path)
    if place.is_dir() and (place / RECORD).is_file():
        return verify_folder(place)
    try:
        checkpoint = open_checkpoint(path)
    except LoadstoneError as error:
        return _unopened(place, error)
    with checkpoint:
        checks: list[FileCheck] = []
        found = [noticed for noticed in checkpoint.diagnostics if noticed.code in _NOTICED]
        for name in checkpoint.files:
            proof, findings = _prove(name, checkpoint)
            is_ok = not any(finding.severity == "error" for finding in findings)
            checks.append(FileCheck(name, os.stat(name).st_size, proof, is_ok))
            found += findings
        return VerifyReport(
            checkpoint.name, checkpoint.format, tuple(checks), len(checkpoint.tensors), worst_first(_once(found))
        )


def _unopened(path: Path, error: LoadstoneError) -> VerifyReport:
    """Damage that keeps the file from being opened; raises the error where it is no damage, or nobody can tell."""
    mark = mark_of(path) if path.is_file() else None
    found = mark and digest_now(path, mark)
    is_damaged = mark is not None and found != mark.digest
    if error.code in _COULD_NOT and not is_damaged:
        raise error
    damage = (_damaged(str(path), (("written", mark.digest), ("found", str(found)))),) if mark and is_damaged else ()
    nbytes = path.stat().st_size if path.is_file() else 0
    checks = (FileCheck(str(path), nbytes, "digest" if mark else "structure", False),)
    return VerifyReport(str(path), "", checks, 0, (*damage, *error.diagnostics))


def _prove(name: str, checkpoint: Checkpoint) -> tuple[Proof, list[Diagnostic]]:
    """What could be compared in one file, and what differs."""
    mark = mark_of(name)
    is_ours = len(checkpoint.files) == 1 and (checkpoint.manifest is not None or ENTRY in checkpoint.metadata)
    if mark is not None:
        found = digest_now(name, mark)
        if found == mark.digest:
            return "digest", []
        if len(checkpoint.files) > 1:  # the digests of its tensors are in the shard
            return "digest", list(verify(name).diagnostics)
        return "digest", _located(name, checkpoint, (("written", mark.digest), ("found", found)))
    if is_ours:
        return "digest", _located(name, checkpoint, (("found", "no digest of the file, where its writer put one"),))
    with _archive(name) as archive:
        if archive is not None and archive.has_checksums:
            return "checksums", list(_records(archive, checkpoint))
    said = Diagnostic("no-digest", f"`{name}` carries no digests: its values cannot be proved")
    return "structure", [said, *holes(checkpoint.tensors, name)]


def _located(name: str, checkpoint: Checkpoint, evidence: tuple[tuple[str, str], ...]) -> list[Diagnostic]:
    """Where the damage is: which tensors, or which part of the file besides."""
    marks = {} if checkpoint.manifest is None else checkpoint.manifest.tensors
    damaged, _ = differing(marks, checkpoint.tensors.values(), name)
    if damaged:
        return damaged
    with _archive(name) as archive:
        records = [] if archive is None else list(_records(archive, checkpoint))
    if records:
        return records
    where = "outside the bytes of its tensors" if marks else "unknown: the digests of its tensors cannot be read"
    return [_damaged(name, (*evidence, ("where", where)))]


def _damaged(name: str, evidence: tuple[tuple[str, str], ...]) -> Diagnostic:
    return Diagnostic("bad-digest", f"`{name}` is damaged: its bytes are not those that were written", evidence)


def _records(archive: Archive, checkpoint: Checkpoint) -> Iterable[Diagnostic]:
    return damaged_records(archive, tensors_by_record(checkpoint.tensors, archive.source.name))


@contextlib.contextmanager
def _archive(name: str) -> Iterator[Archive | None]:
    """The file as a zip; None where it is none, or several in one file as DCP has them."""
    with contextlib.closing(FileSource(name)) as source:
        try:
            archive = open_archive(source)
        except LoadstoneError:
            archive = None
        yield archive


def _once(found: Iterable[Diagnostic]) -> Iterable[Diagnostic]:
    return dict.fromkeys(found)
