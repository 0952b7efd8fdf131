"""A journal from the system calls of another process, as strace prints them: for code that is not Loadstone's.

The process saves step after step, and says so by writing to a file of its own outside of the watched directory.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from reliability.journal import Journal

_CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,rename,renameat,renameat2,fsync,fdatasync,unlink,unlinkat,"
    "link,linkat,mkdir,mkdirat,rmdir,ftruncate,fallocate,lseek,sendfile,copy_file_range"
)
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(-?\d+|AT_FDCWD)<([^>]*)>")
_SAVED = "saved"  # the name of the file that says which step is done


class MissingStraceError(Exception):
    """There is no strace on this machine."""


def record(name: str, folder: Path, steps: int) -> Journal:
    """The journal of a process of its own, which saves as the contender of that name does."""
    if shutil.which("strace") is None:
        raise MissingStraceError("strace is not installed")
    journal = Journal.of(folder)
    with tempfile.TemporaryDirectory(prefix="loadstone-trace-") as scratch:
        trace, saved = Path(scratch, "trace"), Path(scratch, _SAVED)
        command = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-o", str(trace), "-e", f"trace={_CALLS}"]
        child = [sys.executable, "-m", "reliability.tracing", name, str(folder), str(steps), str(saved)]
        done = subprocess.run(command + child, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-500:]}")
        with trace.open() as lines:
            feed(journal, joined(lines), saved)
    return journal


def joined(lines: Iterable[str]) -> Iterable[str]:
    """Lines with calls that another thread interrupted put together again."""
    unfinished: dict[str, str] = {}
    for line in lines:
        thread = line.split(" ", 1)[0]
        if " <unfinished ...>" in line:
            unfinished[thread] = line.split(" <unfinished ...>")[0]
        elif " resumed>" in line:
            yield unfinished.pop(thread, "") + line.split(" resumed>", 1)[1]
        else:
            yield line


def feed(journal: Journal, lines: Iterable[str], saved: Path) -> None:
    """Write the calls into the journal.  Calls that failed changed nothing."""
    ends: dict[int, int] = {}  # descriptor -> where `write` goes on
    for line in lines:
        match = _LINE.match(line)
        if match is None or int(match[3]) < 0:
            continue
        call, arguments, result = match[1], match[2], int(match[3])
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        paths = [Path(text.decode(errors="replace")) for text in texts]
        held = _DESCRIPTOR.match(arguments)
        descriptor = int(held[1]) if held and held[1] != "AT_FDCWD" else -1
        place = Path(_unescaped(held[2])) if held else Path()
        if (
            descriptor < 0 or call.endswith("at") or call == "renameat2"
        ):  # relative to a directory or to the current one
            paths = [path if path.is_absolute() else place / path for path in paths]
        match call:
            case "openat" | "open" | "creat":
                ends[result] = 0
                found = journal.find(paths[0])
                if found is None and ("O_CREAT" in arguments or call == "creat"):
                    journal.create(paths[0])
                elif found is not None and ("O_TRUNC" in arguments or call == "creat"):
                    journal.resize(found, 0)
            case "write" | "writev" if place == saved:
                journal.acknowledge(int(b"".join(texts)))
            case "write" | "writev":
                inode = journal.find(place)
                if inode is not None:
                    journal.write(inode, ends.get(descriptor, 0), b"".join(texts)[:result])
                    ends[descriptor] = ends.get(descriptor, 0) + result
            case "pwrite64" | "pwritev" | "pwritev2":
                inode = journal.find(place)
                if inode is not None:
                    offset = int(arguments.rsplit(", ", 1)[1])
                    journal.write(inode, offset, b"".join(texts)[:result])
            case "lseek":
                ends[descriptor] = result
            case "ftruncate":
                inode = journal.find(place)
                if inode is not None:
                    journal.resize(inode, int(arguments.rsplit(", ", 1)[1]))
            case "fallocate":
                inode = journal.find(place)
                if inode is not None:
                    offset, nbytes = (int(part) for part in arguments.rsplit(", ", 2)[1:])
                    journal.resize(inode, offset + nbytes)
            case "fsync" | "fdatasync":
                inode = journal.find(place)
                if inode is not None:
                    journal.sync(inode)
            case "rename" | "renameat" | "renameat2":
                journal.rename(*paths)
            case "link" | "linkat":
                journal.link(*paths)
            case "unlink" | "unlinkat" | "rmdir":
                journal.remove(paths[0])
            case "mkdir" | "mkdirat":
                journal.make_folder(paths[0])


def _unescaped(text: str) -> str:
    """A path as `-xx -y` prints it."""
    return bytes.fromhex(text.replace("\\x", "")).decode(errors="replace") if text.startswith("\\x") else text


def main(name: str, folder: str, steps: str, saved: str) -> None:
    """What the watched process does."""
    from reliability.peers import contender_named

    contender = contender_named(name)
    with tempfile.TemporaryDirectory() as warm:  # imports that wait for the first save are no part of the record
        contender.save(Path(warm), 1)
    with open(saved, "wb", buffering=0) as file:
        for step in range(1, int(steps) + 1):
            contender.save(Path(folder), step)
            file.write(str(step).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
