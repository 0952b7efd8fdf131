"""Damages files and opens them, in a process of its own with a limit on memory; run by test_fuzz.py.

    python fuzz_worker.py SEEDS COUNT SEED MEGABYTES [FAMILY ...]

SEEDS holds a directory for each family, whose files are one checkpoint.  COUNT damaged ones are made of each family,
the same ones for the same SEED.  Everything that can be asked of a file is asked of each.  A line of JSON is written
for each finding: an exception that is no LoadstoneError, or more than two seconds.  The last line is the summary.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import resource
import shutil
import signal
import sys
import tarfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from typing import NoReturn

import numpy  # noqa: F401 - loaded before memory is limited
import torch  # noqa: F401

import loadstone as ls
from loadstone.cli.documents import inspection
from loadstone.screens.inspection import render_inspection

MOST_SECONDS = 2
STUCK_SECONDS = 20
MOST_TENSORS = 20
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
WORDS = (b"\\ud800", b"\\u0000", b"\xed\xa0\x80", b"\x1b[2J", b"\n", b"..", b"a/b", b"__class__", b"weight", b"a.b")
TEXTS = ("-1", "1e9", "NaN", "null", "true", '"x"', "[]", "{}", "1.5", "")
OPCODES = bytes(range(0x80, 0x99)) + b"(.012FIJKMLNPQRSTUVXabcdeghijlopqrstu}])"

Files = dict[str, bytes]
Damage = Callable[[bytes, Random], bytes]


class Stuck(BaseException):
    """A file took longer than any file may; no `except Exception` hides it."""


def place(data: bytes, random: Random) -> int:
    """Anywhere; half of the time near an end, where headers are."""
    edge = min(len(data), 200)
    near = random.choice((random.randrange(edge + 1), len(data) - random.randrange(edge + 1)))
    return random.choice((near, random.randrange(len(data) + 1)))


def flipped_bits(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[min(place(data, random), len(changed) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, random: Random) -> bytes:
    start, count = place(data, random), random.choice((1, 1, 2, 4, 8, 64))
    source = random.randrange(len(data) + 1)
    run = random.choice((bytes(count), b"\xff" * count, random.randbytes(count), data[source : source + count]))
    return data[:start] + run + data[start + len(run) :]


def cut(data: bytes, random: Random) -> bytes:
    start = place(data, random)
    return random.choice((data[:start], data[start:], data[:start] + data[start + random.choice((1, 4, 30)) :]))


def repeated(data: bytes, random: Random) -> bytes:
    start, count, source = place(data, random), random.choice((1, 4, 16, 100)), random.randrange(len(data) + 1)
    return data[:start] + data[source : source + count] * random.choice((1, 1, 2, 300)) + data[start:]


def other_number(data: bytes, random: Random) -> bytes:
    """A binary number, at any place and of any width, becomes one that is likely to break something."""
    number = random.choice((*NUMBERS, len(data), len(data) + 1, random.randrange(2**16)))
    width = random.choice((1, 2, 4, 8))
    start = max(0, min(place(data, random), len(data) - width))
    return data[:start] + (number % 2**64).to_bytes(8, "little")[:width] + data[start + width :]


def other_text(data: bytes, random: Random) -> bytes:
    """A number that is written out, in JSON or a header of text, becomes another or something else."""
    runs = list(islice(re.finditer(rb"\d+", data), 500))
    if not runs:
        return flipped_bits(data, random)
    run = random.choice(runs)
    text = random.choice((*TEXTS, *map(str, NUMBERS), "9" * random.choice((30, 5000))))
    return data[: run.start()] + text.encode() + data[run.end() :]


def other_word(data: bytes, random: Random) -> bytes:
    """A name becomes one that is hard on files, terminals or attributes; or one of the file's own names."""
    runs = list(islice(re.finditer(rb"[A-Za-z_.]{3,}", data), 1000))
    if not runs:
        return flipped_bits(data, random)
    run = random.choice(runs)
    word = random.choice((*WORDS, random.choice(runs).group()))
    if random.random() < 0.5:  # the same length, so that the numbers before it stay true
        word = word[: len(run.group())].ljust(len(run.group()), b"x")
    return data[: run.start()] + word + data[run.end() :]


def other_opcode(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + bytes([random.choice(OPCODES)]) + data[start + random.choice((0, 1)) :]


SIMPLE: tuple[Damage, ...] = (
    flipped_bits, overwritten, cut, repeated,
    other_number, other_number, other_text, other_word, other_word, other_opcode, other_opcode,
)  # fmt: skip


def simple(data: bytes, random: Random) -> bytes:
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(SIMPLE)(data, random)
    return data


def inside_zip(data: bytes, random: Random) -> bytes:
    """A member is damaged, lost, doubled, renamed or compressed, in an archive that is itself sound."""
    members = [(info.filename, zipfile.ZipFile(io.BytesIO(data)).read(info)) for info in _directory(data)]
    index = random.randrange(len(members))
    name, content = members[index]
    pickles = [number for number, (name, _) in enumerate(members) if name.endswith((".pkl", ".json"))]
    if random.random() < 0.8 and pickles:  # most of what can go wrong is in these
        index = random.choice(pickles)
        members[index] = (members[index][0], simple(members[index][1], random))
    else:
        members[index : index + 1] = random.choice(
            (
                [],
                [(name, simple(content, random))],
                members[index : index + 1] * 2,
                [(random.choice(members)[0], content)],
            )
        )
    if random.random() < 0.1:
        random.shuffle(members)
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream := io.BytesIO(), "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def zip_directory(data: bytes, random: Random) -> bytes:
    """The directory at the end of a zip is damaged, or the header of one member."""
    start = data.rfind(b"PK\1\2") if random.random() < 0.5 else data.find(b"PK\1\2")
    if random.random() < 0.3:
        start = random.choice(_directory(data)).header_offset
    part = data[start : start + random.choice((46, 120, len(data)))]
    damaged = random.choice((flipped_bits, overwritten, other_number))(part, random)
    return data[:start] + damaged + data[start + len(part) :]


def _directory(data: bytes) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.infolist()


def inside_gzip(data: bytes, random: Random) -> bytes:
    return gzip.compress(damaged(gzip.decompress(data), random), 1)


def inside_tar(data: bytes, random: Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(entry.name, archive.extractfile(entry).read()) for entry in archive if entry.isfile()]  # type: ignore[union-attr]
    index = random.randrange(len(members))
    members[index] = (members[index][0], simple(members[index][1], random))
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def damaged(data: bytes, random: Random) -> bytes:
    """The file with one kind of damage; half of the time inside what it is packed in."""
    if random.random() < 0.6:
        if data.startswith(b"PK\3\4"):
            return random.choice((inside_zip, inside_zip, zip_directory))(data, random)
        if data.startswith(b"\x1f\x8b"):
            return inside_gzip(data, random)
        if data[257:262] == b"ustar":
            return inside_tar(data, random)
    return simple(data, random)


def variant(files: Files, others: list[bytes], random: Random) -> Files:
    """One checkpoint with one of its files damaged, lost, or spliced with another file."""
    changed = dict(files)
    name = random.choice(list(files))
    if random.random() < 0.05:
        other = random.choice(others)
        changed[name] = files[name][: place(files[name], random)] + other[place(other, random) :]
    elif random.random() < 0.03 and len(files) > 1:
        del changed[name]
    else:
        changed[name] = damaged(files[name], random)
    return changed


def exercise(path: Path) -> None:
    """Everything that can be asked of a file without a model."""
    with ls.open(path) as checkpoint:
        names = checkpoint.weight_sets
        for tensors in (checkpoint.tensors, checkpoint.weights if names else {}):
            for info in islice(tensors.values(), MOST_TENSORS):
                for read in (info.read, info.numpy):
                    try:
                        read()
                    except ls.LoadstoneError as error:
                        str(error)
        for name in names[:5]:
            checkpoint.choose(name)
        render_inspection(checkpoint, width=80).encode()
        json.dumps(inspection(checkpoint), allow_nan=False).encode()


def attempt(path: Path) -> tuple[str, dict[str, object] | None]:
    """What came of it, "opened" or the code of the error, and the finding where that is no answer."""
    started = time.monotonic()
    outcome, trace = "opened", ""
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
    try:
        exercise(path)
    except ls.LoadstoneError as error:
        outcome = error.code
    except (Exception, Stuck) as error:
        outcome, trace = repr(error)[:200], "".join(traceback.format_exception(error)[-6:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - started
    if not trace and seconds <= MOST_SECONDS:
        return outcome, None
    return outcome, {"outcome": outcome, "seconds": round(seconds, 2), "trace": trace}


def write(files: Files, directory: Path) -> Path:
    """The files in an empty directory; what is to be opened: the file where it is one, an index, or the directory."""
    shutil.rmtree(directory, ignore_errors=True)
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return next(iter(directory.iterdir())) if len(files) == 1 else directory


def limit_memory(megabytes: int) -> None:
    """No more address space than now and so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(seeds: Path, count: int, seed: int, megabytes: int, *wanted: str) -> None:
    def stop(*_: object) -> NoReturn:
        raise Stuck

    signal.signal(signal.SIGALRM, stop)
    families = {
        family.name: {
            str(file.relative_to(family)): file.read_bytes() for file in sorted(family.rglob("*")) if file.is_file()
        }
        for family in sorted(seeds.iterdir())
    }
    others = [data for files in families.values() for data in files.values()]
    work = Path.cwd() / "work"
    outcomes: Counter[str] = Counter()
    limit_memory(megabytes)
    for family in wanted or families:
        random = Random(f"{family} {seed}")
        if attempt(write(families[family], work))[0] != "opened":
            print(
                json.dumps({"family": family, "number": 0, "outcome": "the seed itself cannot be opened"}), flush=True
            )
        for number in range(1, count + 1):
            files = variant(families[family], others, random)
            outcome, finding = attempt(write(files, work))
            outcomes[outcome] += 1
            if finding:
                kept = Path.cwd() / "found" / f"{family}-{number}"
                write(files, kept)
                print(json.dumps({"family": family, "number": number, **finding}), flush=True)
    print(json.dumps({"outcomes": outcomes.most_common()}))


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Duplicate name")  # zipfile's, of what is done here on purpose
    main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:5]), *sys.argv[5:])
