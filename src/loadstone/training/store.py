"""The directory of a run: checkpoints written under names that are free, listed, and given up when others replace them.

A checkpoint is given up only when the new one is on the device and was read back.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from torch import nn

from loadstone.errors import Diagnostic, IntegrityError, RecipeError, SaveError
from loadstone.io.disk import disk
from loadstone.manifest import RECORD
from loadstone.model.folder import write_folder
from loadstone.model.save import write_checkpoint
from loadstone.runs.facts import read_facts, record_resume
from loadstone.runs.keep import Keep, Mode, best_of, retain
from loadstone.runs.lease import Lease, hold
from loadstone.runs.listing import Entry, checkpoints, newest_first, verified_now
from loadstone.runs.names import checkpoint_name, free_path
from loadstone.runs.prune import prune
from loadstone.runs.seen import Verified
from loadstone.training.background import Background
from loadstone.training.parts import MODEL

Layout = Literal["file", "folder"]


@final
class Store:
    """The checkpoints of one run in one directory."""

    def __init__(self, folder: Path, name: str, *, keep: Keep | None, layout: str, wait: bool) -> None:
        if layout not in ("file", "folder"):
            accepted = (("accepted", '"file", "folder"'),)
            raise RecipeError(Diagnostic("invalid-option", f"`layout` is {layout!r:.40}", accepted))
        checkpoint_name(name, epoch=0)  # refuses a name that no file can have
        self.folder = folder
        self.name = name
        self._keep = keep
        self._suffix = "" if layout == "folder" else ".pth"
        self._background: Background[Path] | None = None if wait else Background()
        self._verified = Verified()
        self._lease: Lease | None = None
        self._last: Path | None = None  # that was written, or that the run went on from

    def write(self, content: dict[str, Any], training: Mapping[str, Any], model: nn.Module | None) -> Path | None:
        """Write a checkpoint; its path, or None where that is done in the background."""
        if self._background is None:
            return self._written(content, training, model)
        self._background.submit(content, lambda copied: self._written(copied, training, model))
        return None

    def check(self) -> None:
        """Raise what went wrong in the background."""
        if self._background is not None:
            self._background.check()

    def wait(self) -> Path | None:
        """Return when nothing is being written any more: the last checkpoint.  Raises what went wrong."""
        if self._background is not None:
            self._background.wait()
        return self._last

    def close(self) -> None:
        """Wait, and give back memory and the right to write."""
        try:
            if self._background is not None:
                self._background.close()
        finally:
            lease, self._lease = self._lease, None
            if lease is not None:
                lease.release()

    def _written(self, content: dict[str, Any], training: Mapping[str, Any], model: nn.Module | None) -> Path:
        _make(self.folder)
        self._lease = self._lease or hold(self.folder, self.name)
        epoch, step = training["epoch"], training["step"] if training["batch"] else None
        path = free_path(self.folder, self.name, epoch=epoch, step=step, suffix=self._suffix)
        parent = self._last if self._last is not None and self._last.exists() else None
        if self._suffix:
            weights_at = (MODEL,) if model is not None else ()
            write_checkpoint(content, path, model=model, weights_at=weights_at, training=training, parent=parent)
        else:
            previous = parent if parent is not None and (parent / RECORD).exists() else None
            write_folder(content, path, model=model, training=training, parent=parent, previous=previous)
        self._verified.add(path)  # it was read back
        self._last = path
        self._retain(path)
        return path

    def _retain(self, newest: Path) -> None:
        if self._keep is None:
            return
        own = [entry for entry in self.entries() if entry.name == self.name]
        decisions = retain(verified_now(own, self._verified), self._keep, protect=(newest.name,))
        if all(decision.is_kept for decision in decisions):
            return
        for diagnostic in prune(self.folder, decisions).diagnostics:
            warnings.warn(str(diagnostic), stacklevel=2)

    def entries(self) -> list[Entry]:
        """Every checkpoint in the directory, oldest first; none where there is no directory yet."""
        return checkpoints(self.folder, verified=self._verified) if self.folder.exists() else []

    def best(self, metric: str | None, mode: Mode | None) -> Entry | None:
        """The whole checkpoint with the best metric, by default the one that `keep` names."""
        if metric is None and self._keep is not None:
            metric, mode = self._keep.metric, mode or self._keep.mode
        if metric is None:
            raise RecipeError(Diagnostic("invalid-option", "no metric is named, neither here nor in `keep`"))
        own = [entry for entry in self.entries() if entry.name == self.name]
        return best_of(verified_now(own, self._verified), metric, mode or "min")

    def newest(self) -> tuple[Entry | None, list[Diagnostic]]:
        """The newest whole checkpoint, and a warning for each damaged one that is newer.

        Raises IntegrityError (damaged-checkpoint) where there are checkpoints and none is whole.
        """
        passed: list[Diagnostic] = []
        for found in newest_first(self.entries(), self.name):
            (entry,) = verified_now([found], self._verified)
            if entry.state == "whole":
                return entry, passed
            passed.append(damaged(entry))
        if passed:
            raise IntegrityError(*(_as_error(each) for each in passed), summary="no checkpoint of this run is whole")
        return None, []

    def one(self, checkpoint: str | Path) -> Entry:
        """The checkpoint at that path, or of that name in the directory; read and compared with its digests.

        Raises IntegrityError (file-not-found, damaged-checkpoint).
        """
        path = Path(checkpoint)
        if not path.exists() and (self.folder / path).exists():
            path = self.folder / path
        if not path.exists():
            names = ", ".join(entry.path.name for entry in self.entries()[-5:])
            evidence = (("there are", names),) if names else ()
            raise IntegrityError(Diagnostic("file-not-found", f"there is no checkpoint `{checkpoint}`", evidence))
        found = next((each for each in checkpoints(path.parent) if each.path.name == path.name), Entry(path))
        if found.state == "foreign":
            return found
        (entry,) = verified_now([found], self._verified)
        if entry.state == "damaged":
            raise IntegrityError(_as_error(damaged(entry)))
        return entry

    def go_on_from(self, path: Path) -> None:
        """Remember that the run goes on from this checkpoint, which is then never deleted."""
        self._last = path
        if path.parent.resolve() == self.folder.resolve():
            record_resume(self.folder, name=self.name, resumed_from=path.name)

    def is_usable(self) -> None:
        """Raise IntegrityError (invalid-run-facts) before any training where `run.json` cannot be read."""
        facts = read_facts(self.folder)
        if facts.diagnostics:
            raise IntegrityError(*facts.diagnostics)


def damaged(entry: Entry) -> Diagnostic:
    """That a checkpoint is not what was written, and why."""
    why = entry.diagnostics[0].message if entry.diagnostics else "it could not be verified"
    return Diagnostic("damaged-checkpoint", f"`{entry.path.name}` is damaged and was passed over: {why}")


def _as_error(diagnostic: Diagnostic) -> Diagnostic:
    return Diagnostic(diagnostic.code, diagnostic.message, diagnostic.evidence, diagnostic.fixes, level="error")


def _make(folder: Path) -> None:
    """The directory and those above it, each on the device before the next.  Raises SaveError (save-failed)."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        try:
            disk().make_folder(each)
            disk().sync_folder(each.parent)
        except FileExistsError:
            continue  # another process was faster
        except OSError as error:
            raise SaveError(Diagnostic("save-failed", f"making `{each}`: {error.strerror or error}")) from error
