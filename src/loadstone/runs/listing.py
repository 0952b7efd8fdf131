"""The checkpoints of a folder, in the order of training, from what each says about itself: headers only.

Whether one is whole is another question, which costs reading it: `Verified` knows the ones this process has read.
Files that no run wrote are listed as foreign, and what a writer left behind as unfinished; neither is ever touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from loadstone.checkpoint import open_checkpoint
from loadstone.checks.verify import verify
from loadstone.errors import Diagnostic, IntegrityError, LoadstoneError
from loadstone.io.sources import missing_file
from loadstone.manifest import RECORD, Manifest
from loadstone.runs.facts import FILE, Facts, read_facts
from loadstone.runs.names import parse
from loadstone.runs.seen import Stamp, Verified, stamp_of

State = Literal["whole", "damaged", "unverified", "unfinished", "foreign"]
Verify = Callable[[Path], tuple[Diagnostic, ...]]

TRASH = ".trash-"  # what a checkpoint is called between being given up and being removed
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ".pkl", ".pt2", ".npz", ".gguf")


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint of a folder.

    Attributes:
        path: of the file, or of the folder with `layout="folder"`.
        name: of the run; "" for what no run wrote.
        epoch, step, batch: epochs finished, batches done in all, and in the unfinished epoch.
        number: what stands behind the dash of a name that was taken; 1 without one.
        metrics: numbers by name.
        nbytes: on the disk; what several folders share counts in each.
        time: when it was written, as its writer says: UTC, ISO 8601; "" where nothing says so.
        state: "whole" (read and compared with its digests), "damaged", "unverified" (its header is in order),
            "unfinished" (being written, or its writer died) or "foreign" (no run wrote it).
        diagnostics: what is wrong with it.
        stamp: what tells the file from one that takes its place.
    """

    path: Path
    name: str = ""
    epoch: int = 0
    step: int = 0
    batch: int = 0
    number: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)
    nbytes: int = 0
    time: str = ""
    is_pinned: bool = False
    is_resumed_from: bool = False
    state: State = "unverified"
    diagnostics: tuple[Diagnostic, ...] = ()
    stamp: Stamp = ()

    @property
    def order(self) -> tuple[int, int, int]:
        """Its place in the training: a greater one is newer."""
        return self.epoch, self.step, self.number

    @property
    def title(self) -> str:
        """The name of the file; of an unfinished one the name that it would have taken."""
        unfinished = _UNFINISHED.fullmatch(self.path.name)
        return unfinished["name"] if unfinished else self.path.name


def checkpoints(
    folder: str | os.PathLike[str], *, verified: Verified | None = None, facts: Facts | None = None
) -> list[Entry]:
    """Every checkpoint in the folder, oldest first; what no run wrote comes before, by name.

    A file that goes away meanwhile is left out.  Raises MissingFileError, IntegrityError (io-error) where the folder
    cannot be listed.
    """
    place = Path(folder)
    known = Verified() if verified is None else verified
    facts = read_facts(place) if facts is None else facts
    found = (_entry(path, known) for path in _candidates(place))
    entries = [_with_facts(entry, facts) for entry in found if entry is not None]
    return sorted(entries, key=lambda entry: (bool(entry.name), *entry.order, entry.path.name))


def is_run(folder: Path) -> bool:
    """Whether it is a directory with checkpoints of runs in it, rather than a checkpoint in several files."""
    if not folder.is_dir() or (folder / RECORD).exists():
        return False
    return (folder / FILE).exists() or any(parse(path.name) is not None for path in _candidates(folder))


def verified_now(entries: Iterable[Entry], verified: Verified, *, check: Verify | None = None) -> list[Entry]:
    """The same entries, those that were not verified read and compared with their digests; what goes away, left out."""
    look = check or _findings
    judged = (_verified(entry, verified, look) if entry.state == "unverified" else entry for entry in entries)
    return [entry for entry in judged if entry is not None]


def newest_first(entries: Iterable[Entry], name: str | None = None) -> list[Entry]:
    """The checkpoints of runs (or of the run called `name`) that may be read, newest first; damaged ones among them."""
    return sorted(
        (entry for entry in entries if entry.name and name in (None, entry.name) and entry.state != "unfinished"),
        key=lambda entry: entry.order,
        reverse=True,
    )


def _candidates(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_file(folder) from error
    except OSError as error:
        raise IntegrityError(Diagnostic("io-error", f"listing `{folder}`: {error.strerror or error}")) from error
    return [folder / name for name in names if _is_candidate(folder, name)]


def _is_candidate(folder: Path, name: str) -> bool:
    unfinished = _UNFINISHED.fullmatch(name)
    if unfinished:
        return unfinished["name"].endswith(_SUFFIXES) or parse(unfinished["name"]) is not None
    if name.startswith("."):  # `.trash-…` and the lock among them
        return False
    path = folder / name
    if path.is_dir():
        return (path / RECORD).exists() or parse(name) is not None
    return name.endswith(_SUFFIXES)


def _entry(path: Path, verified: Verified) -> Entry | None:
    """The checkpoint at that path; None where it has gone."""
    unfinished = _UNFINISHED.fullmatch(path.name)
    try:
        stamp = stamp_of(path)
        if unfinished:
            return replace(_named(path, unfinished["name"]), state="unfinished", stamp=stamp, nbytes=_nbytes(stamp))
        entry = replace(_opened(path), stamp=stamp, nbytes=_nbytes(stamp))
    except FileNotFoundError:
        if path.is_symlink():
            return Entry(path, state="foreign")
        return None
    except OSError as error:
        if isinstance(error, LoadstoneError):
            raise
        found = Diagnostic("io-error", f"`{path}`: {error.strerror or error}")
        return replace(_named(path, path.name), state="foreign", diagnostics=(found,))
    findings = verified.findings(path, stamp)
    if entry.state != "unverified" or findings is None:
        return entry
    return _judged(entry, findings)


def _opened(path: Path) -> Entry:
    """What a checkpoint says about itself.  Its name speaks only where its inside cannot."""
    if path.is_symlink():
        return Entry(path, state="foreign")  # another name of something that is judged where it lies
    try:
        with open_checkpoint(path) as checkpoint:
            manifest, noticed = checkpoint.manifest, checkpoint.diagnostics
    except LoadstoneError as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        named = _named(path, path.name)
        return replace(named, state="damaged" if named.name else "foreign", diagnostics=error.diagnostics)
    if manifest is not None and manifest.training:
        return _of_manifest(path, manifest)
    broken = tuple(found for found in noticed if found.code == "invalid-manifest")
    named = _named(path, path.name)
    if broken and named.name:
        return replace(named, state="damaged", diagnostics=broken)
    return Entry(path, state="foreign", diagnostics=broken, time=_time(manifest))


def _named(path: Path, name: str) -> Entry:
    named = parse(name)
    if named is None:
        return Entry(path)
    return Entry(path, named.name, named.epoch, named.step or 0, number=named.number)


def _of_manifest(path: Path, manifest: Manifest) -> Entry:
    training = manifest.training
    metrics = training.get("metrics")
    named = parse(path.name)
    return Entry(
        path,
        str(training.get("name") or "?"),
        _count(training.get("epoch")),
        _count(training.get("step")),
        _count(training.get("batch")),
        1 if named is None else named.number,
        {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        if isinstance(metrics, dict)
        else {},
        time=_time(manifest),
    )


def _time(manifest: Manifest | None) -> str:
    time = None if manifest is None else manifest.written.get("time")
    return time if isinstance(time, str) else ""


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0


def _nbytes(stamp: Stamp) -> int:
    return sum(size for _, size, *_ in stamp)


def _with_facts(entry: Entry, facts: Facts) -> Entry:
    name = entry.path.name
    is_pinned, is_resumed_from = name in facts.pinned, name == facts.resumed_from
    return replace(entry, is_pinned=is_pinned, is_resumed_from=is_resumed_from)


def _verified(entry: Entry, verified: Verified, check: Verify) -> Entry | None:
    """The entry with what its bytes say; None where somebody removed it meanwhile, which is no damage."""
    try:
        findings = check(entry.path)
    except OSError:
        if os.path.lexists(entry.path):
            raise
        return None
    if findings and not os.path.lexists(entry.path):
        return None
    verified.add(entry.path, findings, stamp=entry.stamp)
    return _judged(entry, findings)


def _findings(path: Path) -> tuple[Diagnostic, ...]:
    return verify(path).errors


def _judged(entry: Entry, findings: tuple[Diagnostic, ...]) -> Entry:
    return replace(entry, state="damaged" if findings else "whole", diagnostics=findings)
