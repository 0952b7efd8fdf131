"""Every state that a power cut may leave behind, made from a journal, and what a contender makes of it.

The model is that of ALICE (Pillai et al., OSDI 2014).  What was flushed is there.  Of what was not,

* the bytes of a file may be lost, whole, cut or zeroed at any 512 or 4096 bytes, or there but for one page;
* the names of a directory are there up to some point in time (`journaled`: ext4, xfs, btrfs), or any of them and not
  the others (`strict`: all that POSIX promises).

No file system is given credit for more: that ext4 flushes a file which is renamed over another is its kindness.
"""

from __future__ import annotations

import itertools
import math
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import xxhash

from reliability.contenders import Contender, memory, step_of
from reliability.journal import (
    Acknowledged,
    Entry,
    Journal,
    Names,
    Resize,
    Sync,
    SyncFolder,
    Write,
    apply_data,
    apply_names,
    paths_of,
)

Model = Literal["journaled", "strict"]
MODELS: tuple[Model, ...] = ("journaled", "strict")
SECTOR, PAGE = 512, 4096
_PRODUCT = 400  # states of one moment; past this the files take turns and the rest is sampled
_SUBSETS = 8  # names that wait to be flushed; past this subsets are sampled
_SEED = 20
_LOADED_IN_FULL = 37  # every so many-th state is loaded with its hidden files, see `_visible`


@dataclass(frozen=True, slots=True)
class State:
    """What a crash left: the files by path (None is a directory), and the last step that was acknowledged before."""

    acknowledged: int
    files: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a contender.

    Attributes:
        states: how many different ones there were.
        lost: in how many of them the acknowledged step did not load.
        all_lost: in how many of them nothing loaded, though a step had been acknowledged.
        wrong: in how many of them something loaded that was never saved.
        unkept: in how many of them a step was gone that retention had promised to keep.
        is_sampled: whether there were more states than were tried.
    """

    states: int
    lost: int
    all_lost: int
    wrong: int
    unkept: int
    is_sampled: bool
    example: str = ""


def explore(journal: Journal, contender: Contender, models: Iterable[Model] = MODELS, *, one_in: int = 1) -> Outcome:
    """Load every crash state of the journal, or one in so many, by the contender's own rule."""
    seen: set[tuple[object, ...]] = set()
    verdicts: dict[tuple[object, ...], _Verdict] = {}
    counts = dict.fromkeys(("lost", "all_lost", "wrong", "unkept"), 0)
    sampled = ["states"] if one_in > 1 else []
    example = ""
    with tempfile.TemporaryDirectory(prefix="loadstone-crash-", dir=memory()) as name:
        for state in itertools.chain.from_iterable(crash_states(journal, model, sampled) for model in models):
            key = (state.acknowledged, *sorted((path, _mark(data)) for path, data in state.files.items()))
            if key in seen or (one_in > 1 and xxhash.xxh3_64_intdigest(repr(key).encode(), _SEED) % one_in):
                continue
            seen.add(key)
            visible = {path: data for path, data in state.files.items() if _visible(path)}
            short = tuple(sorted((path, _mark(data)) for path, data in visible.items()))
            if short not in verdicts:
                verdicts[short] = _judge(visible, contender, Path(name))
            verdict = verdicts[short]
            if len(seen) % _LOADED_IN_FULL == 0:
                full = _judge(state.files, contender, Path(name))
                if full != verdict:
                    raise AssertionError(f"hidden files change what loads: {sorted(state.files)}")
            broken = verdict.broken(state.acknowledged, contender)
            for what in broken:
                counts[what] += 1
            if broken and not example:
                example = f"{', '.join(broken)} with {', '.join(sorted(state.files)) or 'no file at all'}"
    return Outcome(len(seen), **counts, is_sampled=bool(sampled), example=example)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What loads: a step, None for something never saved, -1 for nothing; and the steps that a listing shows."""

    step: int | None
    held: frozenset[int]

    def broken(self, acknowledged: int, contender: Contender) -> list[str]:
        """The promises that do not hold."""
        found = []
        if self.step is None or -1 in self.held:
            found.append("wrong")
        elif acknowledged and self.step < acknowledged:
            found.append("lost")
            if self.step < 0:
                found.append("all_lost")
        newest = max(acknowledged, self.step or 0)  # a save that was not acknowledged may be done, and retention too
        if contender.held and acknowledged and not self.held.issuperset(contender.must_hold(newest)):
            found.append("unkept")
        return found


def _judge(files: Mapping[str, bytes | None], contender: Contender, scratch: Path) -> _Verdict:
    """Put the files there and load."""
    folder = scratch / "state"
    folder.mkdir()
    try:
        for path, data in sorted(files.items()):
            if data is None:
                (folder / path).mkdir(parents=True, exist_ok=True)
            else:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
        try:
            step = step_of(contender.load(folder))
        except Exception:  # other people's code may raise anything over a damaged file
            step = -1
        held = frozenset(contender.held(folder)) if contender.held else frozenset()
        return _Verdict(step, held)
    finally:
        shutil.rmtree(folder)


def _visible(path: str) -> bool:
    """Whether a reader can see the file.  What Loadstone hides is left out, so that states that differ only there
    are loaded once; that it makes no difference is checked on every so many-th state."""
    return not any(part.startswith(".") and (".partial" in part or ".trash" in part) for part in path.split("/"))


@lru_cache(maxsize=65536)
def _mark(data: bytes | None) -> bytes:
    return b"" if data is None else xxhash.xxh3_128(data).digest()


def crash_states(journal: Journal, model: Model, sampled: list[str]) -> Iterator[State]:
    """Every state that a crash at any moment may leave; says in `sampled` where there were too many to go through."""
    chance = random.Random(_SEED)
    durable = dict(journal.contents)  # bytes on the device
    current = dict(journal.contents)  # bytes as the process sees them
    entries = dict(journal.before)
    waiting: list[Names] = []
    acknowledged = 0
    yield from _moment(journal, model, acknowledged, durable, current, entries, waiting, chance, sampled)
    for operation in journal.operations:
        match operation:
            case Write(inode) | Resize(inode):
                current[inode] = apply_data(current.get(inode, b""), operation)
            case Sync(inode):
                durable[inode] = current.get(inode, b"")
            case Names():
                waiting.append(operation)
            case SyncFolder(inode):
                waiting = _flush_names(entries, waiting, inode, model)
            case Acknowledged(step):
                acknowledged = step
        yield from _moment(journal, model, acknowledged, durable, current, entries, waiting, chance, sampled)


def _flush_names(entries: dict[Entry, int], waiting: list[Names], folder: int, model: Model) -> list[Names]:
    """Make the names of a directory durable; the changes that still wait.  A journal is written in order."""
    touches = [any(entry[0] == folder for entry, _ in change.changes) for change in waiting]
    if model == "journaled":
        count = max((index + 1 for index, touched in enumerate(touches) if touched), default=0)
        touches = [index < count for index in range(len(waiting))]
    for change, touched in zip(waiting, touches, strict=True):
        if touched:
            apply_names(entries, change.changes)
    return [change for change, touched in zip(waiting, touches, strict=True) if not touched]


def _moment(
    journal: Journal,
    model: Model,
    acknowledged: int,
    durable: Mapping[int, bytes],
    current: Mapping[int, bytes],
    entries: Mapping[Entry, int],
    waiting: Sequence[Names],
    chance: random.Random,
    sampled: list[str],
) -> Iterator[State]:
    """The states of a crash at one moment."""
    for changes in _kept_changes(waiting, model, chance, sampled):
        kept = dict(entries)
        for change in changes:
            apply_names(kept, change.changes)
        paths = paths_of(kept, journal.folders)
        inodes = sorted({inode for inode in paths.values() if inode is not None})
        choices = [survivals(durable.get(inode, b""), current.get(inode, b"")) for inode in inodes]
        for contents in _combinations(choices, chance, sampled):
            held = dict(zip(inodes, contents, strict=True))
            yield State(acknowledged, {path: None if inode is None else held[inode] for path, inode in paths.items()})


def _kept_changes(
    waiting: Sequence[Names], model: Model, chance: random.Random, sampled: list[str]
) -> Iterator[Sequence[Names]]:
    """Which changes of names may have reached the device."""
    if model == "journaled":
        yield from (waiting[:count] for count in range(len(waiting) + 1))
    elif len(waiting) <= _SUBSETS:
        for chosen in itertools.product((False, True), repeat=len(waiting)):
            yield list(itertools.compress(waiting, chosen))
    else:
        sampled.append("names")
        yield from (waiting[:count] for count in range(len(waiting) + 1))
        for _ in range(2**_SUBSETS):
            yield [change for change in waiting if chance.random() < 0.5]


def _combinations(
    choices: Sequence[Sequence[bytes]], chance: random.Random, sampled: list[str]
) -> Iterator[Sequence[bytes]]:
    """One survival for each file; the last of each row is the whole file."""
    if math.prod(map(len, choices)) <= _PRODUCT:
        yield from itertools.product(*choices)
        return
    sampled.append("contents")
    for rest in (0, -1):  # one file takes each of its turns while the others are lost, then while they are whole
        for index, row in enumerate(choices):
            for content in row:
                yield [content if other == index else choices[other][rest] for other in range(len(choices))]
    for _ in range(_PRODUCT // 10):
        yield [chance.choice(row) for row in choices]


@lru_cache(maxsize=1024)
def survivals(before: bytes, after: bytes) -> tuple[bytes, ...]:
    """What a file may hold after a crash that had `before` on the device and `after` in memory; `after` is last.

    A prefix of the new bytes, the rest cut off, zero, or as it was; a suffix; all but one page; one page alone.
    """
    if before == after:
        return (after,)
    size = len(after)
    old = before[:size].ljust(size, b"\0")
    found = dict.fromkeys((before, b"", bytes(size)))
    for place in range(SECTOR, size, SECTOR):
        found[after[:place]] = None
        found[after[:place].ljust(size, b"\0")] = None
        found[after[:place] + old[place:]] = None
        found[old[:place] + after[place:]] = None
    for place in range(0, size, PAGE):
        end = min(place + PAGE, size)
        found[after[:place] + old[place:end] + after[end:]] = None
        found[after[:place] + bytes(end - place) + after[end:]] = None
        found[old[:place] + after[place:end] + old[end:]] = None
    found.pop(after, None)
    return (*found, after)
