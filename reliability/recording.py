"""The journal of a contender's saves: through Loadstone's own disk, or from the system calls of another process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loadstone.io.disk import using
from reliability import tracing
from reliability.contenders import STEPS, Contender, step_of
from reliability.journal import Journal, Recorder, disagreements


class IncompleteRecordingError(Exception):
    """The journal is not what is on the disk: there were calls that it does not know."""


def record(contender: Contender, steps: int = STEPS) -> Journal:
    """The journal of so many saves into an empty directory.

    Raises IncompleteRecordingError where the saves did something that the journal missed, and MissingStraceError
    where a contender that is not ours cannot be watched.
    """
    with tempfile.TemporaryDirectory(prefix="loadstone-record-") as name:
        folder = Path(name).resolve() / "run"
        folder.mkdir()
        journal = (
            _through_disk(contender, folder, steps)
            if contender.is_ours
            else tracing.record(contender.name, folder, steps)
        )
        missed = disagreements(journal)  # before the load, which may write down that it went on from there
        if step_of(contender.load(folder)) != steps:
            raise IncompleteRecordingError(f"{contender.name}: what it saved does not load even without a crash")
    if missed:
        raise IncompleteRecordingError(f"{contender.name}: {', '.join(missed)}")
    return journal


def _through_disk(contender: Contender, folder: Path, steps: int) -> Journal:
    journal = Journal.of(folder)
    with using(Recorder(journal)):
        for step in range(1, steps + 1):
            contender.save(folder, step)
            journal.acknowledge(step)
    return journal
