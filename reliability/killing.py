"""SIGKILL at every call to the disk, and at every system call that changes a file system.

A child is forked from a server that has imported torch once, saves one step more, and is killed on the way.  What was
acknowledged must load afterwards, and the next save must sweep what the dead one left.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loadstone.io.disk import using
from reliability.contenders import Contender, memory, step_of
from reliability.faults import Intercepted

_BEFORE = 3  # steps that were saved before; then retention has something to do
SYSTEM_CALLS = (
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "fchmod",
    "fsync",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
)


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill at a call, and what was wrong afterwards."""

    contender: str
    call: str
    number: int
    broken: tuple[str, ...]


def at_disk_calls(contender: Contender, *, every: int = 1) -> Iterator[Kill]:
    """Kill before every call to the disk, or every so manieth; needs nothing but fork."""
    yield from _served(contender, f"disk {every}")


def at_system_calls(contender: Contender, *, every: int = 1) -> Iterator[Kill]:
    """Kill at the n-th of each kind of system call, for every n, or every so manieth; needs strace."""
    yield from _served(contender, f"strace {every}")


def _served(contender: Contender, how: str) -> Iterator[Kill]:
    command = [sys.executable, "-m", "reliability.killing", contender.name, *how.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{contender.name}: {done.stderr[-800:]}")
    for line in done.stdout.splitlines():
        call, number, broken = line.split("\t")
        yield Kill(contender.name, call, int(number), tuple(filter(None, broken.split("; "))))


def _serve(contender: Contender, how: str, every: int) -> None:
    """Kill children until one lives; a line a child on stdout."""
    with tempfile.TemporaryDirectory(prefix="loadstone-kill-", dir=memory()) as name:
        start = Path(name).resolve() / "start"
        start.mkdir()
        for step in range(1, _BEFORE + 1):
            contender.save(start, step)
        for call in ("disk call",) if how == "disk" else SYSTEM_CALLS:
            number, was_killed = 1, True
            while was_killed:
                folder = Path(shutil.copytree(start, Path(name, "run"), copy_function=_linked_copy({})))
                was_killed = _killed(contender, folder.resolve(), call, number)
                print(call, number, "; ".join(_broken(contender, folder, was_killed)), sep="\t", flush=True)
                shutil.rmtree(folder)
                number += every


def _linked_copy(known: dict[int, str]) -> Callable[[str, str], str]:
    """A copy that keeps hard links."""

    def copy(source: str, target: str) -> str:
        inode = os.stat(source).st_ino
        if inode in known:
            os.link(known[inode], target)
        else:
            shutil.copy2(source, target)
            known[inode] = target
        return target

    return copy


def _killed(contender: Contender, folder: Path, call: str, number: int) -> bool:
    """Whether the child was killed before it had saved."""
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(ready, 1)
            if call == "disk call":
                with using(Intercepted(functools.partial(_die_at, number))):
                    contender.save(folder, _BEFORE + 1)
            else:
                contender.save(folder, _BEFORE + 1)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(3)
    tracer = None if call == "disk call" else _traced(child, call, number)
    os.write(go, b"!")
    _, status = os.waitpid(child, 0)
    os.close(ready)
    os.close(go)
    if tracer is not None:
        tracer.communicate()
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{contender.name}: the child failed without being killed")
    return os.WIFSIGNALED(status)


def _die_at(number: int, count: int, call: str) -> None:
    if count == number:
        os.kill(os.getpid(), signal.SIGKILL)


def _traced(child: int, call: str, number: int) -> subprocess.Popen[str]:
    """strace on the child, waited for until it holds it."""
    inject = f"inject={call}:signal=KILL:when={number}"
    command = ["strace", "-f", "-p", str(child), "-e", f"trace={call}", "-e", inject]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    if "attached" not in line:
        raise RuntimeError(f"strace: {line}")
    return tracer


def _broken(contender: Contender, folder: Path, was_killed: bool) -> list[str]:
    """Which promises do not hold after the kill, and after the next save."""
    broken = []
    step = step_of(contender.load(folder))
    if step not in ((_BEFORE, _BEFORE + 1) if was_killed else (_BEFORE + 1,)):
        broken.append(f"step {step} loads")
    elif contender.held and not set(contender.held(folder)).issuperset(contender.must_hold(step or 0)):
        broken.append("a step that retention keeps is gone")
    contender.save(folder, _BEFORE + 2)
    if step_of(contender.load(folder)) != _BEFORE + 2:
        broken.append("the next save is not what loads")
    return broken


if __name__ == "__main__":
    import torch

    from reliability.peers import contender_named

    torch.set_num_threads(1)
    _serve(contender_named(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
