"""docs/reliability.md, from the results of a run."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reliability.contenders import Contender
from reliability.crashes import Outcome
from reliability.damage import Damaged
from reliability.faults import SHORT, Fault
from reliability.full_disk import Filled
from reliability.killing import Kill
from reliability.power import MOMENTS, Cut

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"

_HEAD = """# Reliability: what is left after a crash

This page is written by `make reliability`; the figures are those of one run, and nothing in it is written by hand.
Loadstone and other ways to save a checkpoint are put through the same harnesses (`reliability/`).
A save counts as acknowledged when the call returned.

```bash
make reliability                    # everything, some minutes; mounting needs root, tracing needs strace
python -m reliability --quick       # a part of it
```
"""

_LIMITS = """## What this does not cover

* Devices that say that bytes are safe and hold them in a cache without power. The protocol stands on `fsync`.
* Network file systems: what NFS, SMB, Lustre and object stores make of `rename`, `link` and locks was not tried.
* Devices that write requests in another order, below the file system: the images keep what was sent to them.
* A digest says that bytes changed by accident. It is no proof against a person who changes bytes and digest together.
* Small tensors: the harnesses try many states, not large files. `make bench` saves large ones.
"""


@dataclass(slots=True)
class Results:
    """What a run found; a harness that could not run says why in `not_run`."""

    contenders: list[Contender] = field(default_factory=list)
    crashes: dict[str, Outcome] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    filled: list[Filled] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    damages: list[Damaged] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """What Loadstone did not keep, a line each."""
        ours = {each.name for each in self.contenders if each.is_ours}
        found = [f"{name}: {it.example}" for name, it in self.crashes.items() if name in ours and it.example]
        found += [str(fault) for fault in self.faults if fault.broken]
        found += [str(kill) for kill in self.kills if kill.broken]
        found += [str(each) for each in self.filled if each.example]
        found += [str(each) for each in self.cuts if each.contender in ours and each.is_lost]
        found += [
            str(each)
            for each in self.damages
            if each.unnamed is not None or each.not_survived is not None
            if each.example
        ]
        return found


def write(results: Results, *, is_quick: bool) -> None:
    """Write the page."""
    PAGE.write_text("\n".join([_HEAD, *_sections(results, is_quick), _LIMITS]))


def _sections(results: Results, is_quick: bool) -> Iterable[str]:
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = dict.fromkeys(f"{each.package} {each.version}" for each in results.contenders)
    kind = "A quick run" if is_quick else "A whole run"
    yield f"{kind} on {now}, Linux {platform.release()}, Python {platform.python_version()}: {', '.join(versions)}.\n"
    if results.not_run:
        yield "Not run: " + "; ".join(results.not_run) + ".\n"
    if results.crashes:
        yield _crashes(results.crashes)
    if results.cuts:
        yield _power(results.cuts)
    if results.kills or results.faults:
        yield _calls(results.faults, results.kills)
    if results.filled:
        yield _filled(results.filled)
    if results.damages:
        yield _damages(results.damages)


def _crashes(crashes: Mapping[str, Outcome]) -> str:
    rows = [
        (
            name,
            _count(it.states) + (" of more" if it.is_sampled else ""),
            *map(_count, (it.lost, it.all_lost, it.wrong, it.unkept)),
        )
        for name, it in crashes.items()
    ]
    return _section(
        "Power cuts, every state that one may leave",
        "The calls of five saves in a row are recorded; of two for other ways to save, which leave far more states,"
        " and of those a share is loaded. What was not flushed before the cut is lost, whole, cut, zeroed"
        " or torn at 512 and 4096 bytes; names reach the disk in order (as with a journal), or any without the others"
        " (all that POSIX promises). Each state is put together again and loaded. *Wrong* is what loads and was never"
        " saved; *not kept* what retention had promised to keep; where there are too many states, a sample with a fixed"
        " seed is taken of them.",
        ("saved with", "states", "acknowledged lost", "everything lost", "wrong", "not kept"),
        rows,
    )


def _power(cuts: Sequence[Cut]) -> str:
    columns = list(dict.fromkeys((each.system, moment) for each in cuts for moment in MOMENTS))
    rows = []
    for name in dict.fromkeys(each.contender for each in cuts):
        cells = [[each for each in cuts if (each.contender, each.system, each.moment) == (name, *at)] for at in columns]
        rows.append((name, *("; ".join(_cell(cell)) for cell in cells)))
    return _section(
        "Power cuts, on real file systems",
        "An image is mounted, and copied as it is on the device at that moment; the copy is mounted, which replays its"
        " journal, and loaded. *ok* is that the acknowledged step loads. For Loadstone, copies are also made in the"
        f" middle of a save, while a call to the disk waits. {len(cuts)} power cuts in all.",
        ("saved with", *(f"{system}, {moment}" for system, moment in columns)),
        rows,
    )


def _cell(cuts: Sequence[Cut]) -> Iterable[str]:
    lost = [each for each in cuts if each.is_lost]
    if not cuts:
        yield "–"
    elif not lost:
        yield "ok" if len(cuts) == 1 else f"{len(cuts)} ok"
    for each in lost:
        if each.loaded is None:
            yield "**loads what was never saved**"
        else:
            yield "**all lost**" if each.loaded < 0 else f"**step {each.acknowledged} lost**, {each.loaded} loads"


def _calls(faults: Sequence[Fault], kills: Sequence[Kill]) -> str:
    rows = []
    for name in dict.fromkeys([*(each.contender for each in faults), *(each.contender for each in kills)]):
        failed = [each for each in faults if each.contender == name]
        killed = [each for each in kills if each.contender == name]
        broken = sum(bool(each.broken) for each in failed), sum(bool(each.broken) for each in killed)
        rows.append((name, *map(_count, (len(failed), broken[0], len(killed), broken[1]))))
    errors = dict.fromkeys(each.error for each in faults if each.error != SHORT)
    return _section(
        "Errors and kills at every call",
        f"Each call to the disk fails with {', '.join(errors)}, and"
        " each write takes half of its bytes once. The save must work, or raise an error of Loadstone's with the old"
        " checkpoint as it was and nothing left beside it; the next save must work. And SIGKILL comes before each call"
        " to the disk, and each system call that changes a file system.",
        ("saved with", "errors", "promises broken", "kills", "promises broken"),
        rows,
    )


def _filled(filled: Sequence[Filled]) -> str:
    return _section(
        "A full disk",
        "A small file system with room for 0, 1, 2 … pages, until a save fits.",
        ("saved with", "saves", "refused", "old checkpoint lost", "litter", "other errors"),
        [
            (each.contender, *map(_count, (each.tried, each.refused, each.lost, each.litter, each.untyped)))
            for each in filled
        ],
    )


def _damages(damages: Sequence[Damaged]) -> str:
    return _section(
        "Damage",
        "A bit flips, the end is missing, 512 bytes are zero, two blocks change places, a block is the older file's,"
        " there are bytes behind the end. *Unnoticed* is what is called whole or loads, and is not what was saved;"
        " *not named*, that the message does not name the file, or not the tensor whose bytes were hit.",
        ("read with", "damaged", "unnoticed", "not named", "resumed from another than the newest whole"),
        [
            (each.name, *(_count(it) for it in (each.files, each.unnoticed, each.unnamed, each.not_survived)))
            for each in damages
        ],
    )


def _section(title: str, text: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join([f"## {title}\n", f"{text}\n", *(f"| {' | '.join(row)} |" for row in table), ""])


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
