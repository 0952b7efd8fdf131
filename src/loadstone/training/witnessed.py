"""What witnesses wrote, read back; free of torch, so that the test which reads it need not import it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "LOADSTONE_RESUME_TEST"
"""The variable that names the test's folder."""

KILL = "LOADSTONE_RESUME_TEST_KILL"
"""The variable that says at which step the process dies."""

RUNS = "runs"
"""Below the test's folder: the directories of the script's runs."""

WITNESS = "witness-{:04}.jsonl"
"""In the test's folder: what one run did in one life of the process."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One batch as it was handed out; epoch, batch and step are counted from 1, the others are digests.

    Attributes:
        data: of what the loader gave.
        rates: the learning rates, one a group.
        weights, optimizer: of the state that the batch met.
        random: of the generators that all code shares, by the module that has them.
    """

    epoch: int
    batch: int
    step: int
    data: str
    rates: tuple[float, ...]
    weights: str
    optimizer: str
    random: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Life:
    """What one run did in one life of the process; `ended_with` holds digests by name, None where it did not end."""

    run: str
    seen: tuple[Seen, ...]
    ended_with: Mapping[str, str] | None


def lives(folder: Path, known: Iterable[Path] = ()) -> list[tuple[Path, Life]]:
    """What the witnesses in the folder wrote, in order, but for the files already known."""
    skipped = set(known)
    return [(path, _life(path)) for path in sorted(folder.glob("witness-*.jsonl")) if path not in skipped]


def _life(path: Path) -> Life:
    run, seen, ended_with = "", [], None
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not text.endswith("\n"):
            break  # the process died while it wrote this line
        line = json.loads(text)
        if "run" in line:
            run = line["run"]
        elif "finished" in line:
            ended_with = line["finished"]
        else:
            seen.append(Seen(**{**line, "rates": tuple(line["rates"])}))
    return Life(run, tuple(seen), ended_with)
