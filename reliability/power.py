"""Power cuts on real file systems: an image is mounted, saved to, and copied as it is on the device at that moment.

The copy is what a power cut would leave: all that the file system had sent to the device, and nothing of what it still
held in memory.  It is mounted, which replays its journal, and the contender loads by its own rule.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadstone.io.disk import using
from reliability.contenders import Contender, step_of
from reliability.faults import Intercepted
from reliability.full_disk import mounted

SYSTEMS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
_NBYTES = {"ext4": 48 * 1024**2, "xfs": 300 * 1024**2}  # the least that each of them takes
_OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}  # xfs refuses a copy of what is mounted
_LATER_SECONDS = 7  # ext4 writes its journal every 5 seconds
MOMENTS = ("at once", f"{_LATER_SECONDS} s later", "after an unrelated fsync", "in the middle of a save")


@dataclass(frozen=True, slots=True)
class Cut:
    """One power cut: which step was acknowledged, and which one loaded; None is what was never saved, -1 nothing."""

    contender: str
    system: str
    moment: str
    acknowledged: int
    loaded: int | None

    @property
    def is_lost(self) -> bool:
        """Whether what was acknowledged is not there, or what is there was never saved."""
        return self.loaded is None or self.loaded < self.acknowledged


def cuts(contenders: tuple[Contender, ...], system: str) -> Iterator[Cut]:
    """Power cuts for each contender, all of them on one waiting time."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="loadstone-power-") as name:
        disks = [_disk(stack, Path(name), system, number) for number in range(len(contenders))]
        for contender, (image, folder) in zip(contenders, disks, strict=True):
            contender.save(folder, 1)
            os.sync()
            contender.save(folder, 2)
            yield _cut(contender, system, MOMENTS[0], image, 2)
        time.sleep(_LATER_SECONDS)
        for contender, (image, _) in zip(contenders, disks, strict=True):
            yield _cut(contender, system, MOMENTS[1], image, 2)
        for contender, (image, folder) in zip(contenders, disks, strict=True):
            os.sync()
            contender.save(folder, 3)
            with (folder.parent / "unrelated").open("wb") as file:
                file.write(b"of another program")
                file.flush()
                os.fsync(file.fileno())
            yield _cut(contender, system, MOMENTS[2], image, 3)
        for contender, (image, folder) in zip(contenders, disks, strict=True):
            if contender.is_ours:
                yield from _in_the_middle(contender, system, image, folder)


def _disk(stack: ExitStack, scratch: Path, system: str, number: int) -> tuple[Path, Path]:
    """An image and a directory in it."""
    image = scratch / f"{number}.image"
    with image.open("wb") as file:
        file.truncate(_NBYTES[system])
    subprocess.run([*SYSTEMS[system], str(image)], check=True, capture_output=True)
    folder = stack.enter_context(mounted("-o", "loop", str(image))) / "run"
    folder.mkdir()
    return image, folder


def _in_the_middle(contender: Contender, system: str, image: Path, folder: Path) -> Iterator[Cut]:
    """A cut before every second call to the disk, while the call waits."""
    copies: list[Path] = []

    def copy(number: int, call: str) -> None:
        if number % 2:
            copies.append(_copy(image, f"{image.name}.{number}"))

    with using(Intercepted(copy)):
        contender.save(folder, 4)
    for taken in copies:
        yield Cut(contender.name, system, MOMENTS[3], 3, _loaded(contender, system, taken))


def _cut(contender: Contender, system: str, moment: str, image: Path, acknowledged: int) -> Cut:
    return Cut(
        contender.name, system, moment, acknowledged, _loaded(contender, system, _copy(image, f"{image.name}.copy"))
    )


def _copy(image: Path, name: str) -> Path:
    target = image.with_name(name)
    subprocess.run(["cp", "--sparse=always", str(image), str(target)], check=True)
    return target


def _loaded(contender: Contender, system: str, image: Path) -> int | None:
    """The step that loads from the copy, on another machine as it were."""
    try:
        with mounted("-o", _OPTIONS[system], str(image)) as place, tempfile.TemporaryDirectory() as name:
            folder = Path(shutil.copytree(place / "run", Path(name, "run")))
            try:
                return step_of(contender.load(folder))
            except Exception:  # other people's code may raise anything over a damaged file
                return -1
    finally:
        image.unlink()
