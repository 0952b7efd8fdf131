"""The n-th call to the disk fails, for every n and every error, as SQLite tests itself.

A save that is told of an error must say so in an error of its own, and leave what was there; one that gets around it
must have saved.  Nothing is left beside the checkpoints, and the next save works.
"""

from __future__ import annotations

import errno
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadstone.errors import LoadstoneError
from loadstone.io.disk import Disk, using
from reliability.contenders import Contender, memory, step_of

ERRORS = ("ENOSPC", "EIO", "EINTR", "EROFS", "EACCES", "EDQUOT", "EMFILE", "ESTALE")
SHORT = "short write"
CALLS = tuple(name for name in vars(Disk) if not name.startswith("_"))
_WRITES = ("write", "write_at")


class Intercepted(Disk):
    """The disk, with `before` called ahead of each call: its number from 1, and its name."""

    def __init__(self, before: Callable[[int, str], None]) -> None:
        self.count = 0
        self._before = before

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return functools.partial(self._counted, name, found) if name in CALLS else found

    def _counted(self, name: str, call: Callable[..., object], *arguments: Any) -> object:
        self.count += 1
        self._before(self.count, name)
        return call(*arguments)


@dataclass(frozen=True, slots=True)
class Fault:
    """An error at a call, and what became of the save; `broken` is empty where all promises held."""

    contender: str
    call: str
    number: int
    error: str
    was_raised: bool
    broken: tuple[str, ...]


def faults(contender: Contender, errors: Sequence[str] = ERRORS) -> Iterator[Fault]:
    """One fault after the other, each in a directory of its own that holds one checkpoint."""
    with tempfile.TemporaryDirectory(prefix="loadstone-fault-", dir=memory()) as name:
        scratch = Path(name).resolve()
        start = scratch / "start"
        start.mkdir()
        contender.save(start, 1)
        calls = _calls_of_a_save(contender, _copy(start, scratch / "counted"))
        named = calls.index("rename") + 1  # what fails later is told of, and the new checkpoint is there
        for number, call in enumerate(calls, 1):
            for error in (*errors, *((SHORT,) if call in _WRITES else ())):
                folder = _copy(start, scratch / f"{number}-{error}")
                yield _tried(contender, folder, number, call, error, is_named=number > named)
                shutil.rmtree(folder)


def _copy(start: Path, folder: Path) -> Path:
    return Path(shutil.copytree(start, folder))


def _calls_of_a_save(contender: Contender, folder: Path) -> list[str]:
    calls: list[str] = []
    with using(Intercepted(lambda number, call: calls.append(call))):
        contender.save(folder, 2)
    return calls


def _tried(contender: Contender, folder: Path, number: int, call: str, error: str, *, is_named: bool) -> Fault:
    """Save the second step with this fault, then the third without."""
    before = _bytes(folder)
    raised: BaseException | None = None
    with using(_Short(number) if error == SHORT else Intercepted(functools.partial(_fail, number, error))):
        try:
            contender.save(folder, 2)
        except Exception as other:
            raised = other
    broken = []
    if raised is not None and not isinstance(raised, LoadstoneError):
        broken.append(f"untyped {type(raised).__name__}")
    after = _bytes(folder)  # before the load, which may write down that it went on from there
    loaded = step_of(contender.load(folder))
    if raised is None and loaded != 2:
        broken.append(f"reported as saved, and {loaded} loads")
    if raised is not None and loaded != (2 if is_named else 1):
        broken.append(f"reported as not saved, and {loaded} loads")
    if loaded == 1 and any(after.get(path) != data for path, data in before.items()):
        broken.append("the old checkpoint changed")
    if call not in ("remove", "remove_folder") and any(_is_litter(path) for path in after):
        broken.append("litter")
    contender.save(folder, 3)
    if step_of(contender.load(folder)) != 3:
        broken.append("the next save is not what loads")
    if any(_is_litter(path) for path in _bytes(folder)):
        broken.append("litter after the next save")
    return Fault(contender.name, call, number, error, raised is not None, tuple(broken))


def _fail(number: int, error: str, count: int, call: str) -> None:
    if count == number:
        code = getattr(errno, error)
        raise OSError(code, f"{error} made by a test")


class _Short(Disk):
    """Half of the bytes of the n-th call are written."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._count = 0

    def __getattribute__(self, name: str) -> Any:
        if name in CALLS:
            self._count += 1
            if self._count == self._number and name in _WRITES:
                return super().__getattribute__(f"_half_{name}")
        return super().__getattribute__(name)

    def _half_write(self, descriptor: int, data: memoryview | bytes) -> int:
        return Disk.write(self, descriptor, _half(data))

    def _half_write_at(self, descriptor: int, data: memoryview | bytes, offset: int) -> int:
        return Disk.write_at(self, descriptor, _half(data), offset)


def _half(data: memoryview | bytes) -> memoryview:
    view = memoryview(data).cast("B")
    return view[: max(1, view.nbytes // 2)]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _is_litter(path: str) -> bool:
    return ".partial" in path or ".trash" in path
