"""The names of a run's checkpoints: `resnet18_epoch0050.pth`, or `resnet18_epoch0003_step000450.pth` inside an epoch.

The epoch is how many are finished, the step how many batches were done in all.  A name that is taken gets `-2`, `-3`
before its suffix: no run ever writes over a checkpoint.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from loadstone.errors import Diagnostic, RecipeError

_NAME = re.compile(
    r"(?P<name>.+)_epoch(?P<epoch>\d{4,12})(?:_step(?P<step>\d{6,15}))?(?:-(?P<number>\d{1,9}))?(?P<suffix>(?:\.\w+)*)",
    re.ASCII | re.DOTALL,
)
_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f]")  # in the name of a run: it would leave the folder, or break a line
_LONGEST = 180  # bytes of UTF-8; a file name has 255, and a hidden one for writing is 27 longer


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a checkpoint says; `number` is 1 where the name has none."""

    name: str
    epoch: int
    step: int | None
    number: int
    suffix: str


def checkpoint_name(name: str, *, epoch: int, step: int | None = None, suffix: str = ".pth", number: int = 1) -> str:
    """The file name of a checkpoint; `suffix` is empty for a folder.

    Raises RecipeError (invalid-option) where `name` cannot be part of a file name.
    """
    if not name or _FORBIDDEN.search(name) or name.startswith(".") or len(name.encode()) > _LONGEST:
        raise RecipeError(
            Diagnostic(
                "invalid-option",
                f"a run cannot be called {name!r:.60}: its checkpoints are files of that name in one folder",
            )
        )
    middle = "" if step is None else f"_step{step:06d}"
    ending = "" if number == 1 else f"-{number}"
    return f"{name}_epoch{epoch:04d}{middle}{ending}{suffix}"


def parse(file_name: str) -> Named | None:
    """What a file name says; None for a name that `checkpoint_name` does not give."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        return None
    step, number = match["step"], match["number"]
    return Named(
        match["name"], int(match["epoch"]), None if step is None else int(step), int(number or 1), match["suffix"]
    )


def free_path(folder: Path, name: str, *, epoch: int, step: int | None = None, suffix: str = ".pth") -> Path:
    """The first path of that name, or of that name and a number, where nothing is."""
    for number in count(1):
        path = folder / checkpoint_name(name, epoch=epoch, step=step, suffix=suffix, number=number)
        if not os.path.lexists(path):
            return path
    raise AssertionError("count has no end")
