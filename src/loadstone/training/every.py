"""How often a run saves by itself: "500 steps", "10 minutes", "5 epochs"."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from loadstone.errors import Diagnostic, RecipeError

Unit = Literal["epochs", "steps", "seconds"]

_UNITS: dict[str, tuple[Unit, float]] = {
    "epoch": ("epochs", 1),
    "epochs": ("epochs", 1),
    "step": ("steps", 1),
    "steps": ("steps", 1),
    "s": ("seconds", 1),
    "sec": ("seconds", 1),
    "second": ("seconds", 1),
    "seconds": ("seconds", 1),
    "m": ("seconds", 60),
    "min": ("seconds", 60),
    "minute": ("seconds", 60),
    "minutes": ("seconds", 60),
    "h": ("seconds", 3600),
    "hour": ("seconds", 3600),
    "hours": ("seconds", 3600),
}
_TEXT = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[a-z]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Every:
    """An amount of training: so many epochs, steps (batches) or seconds."""

    amount: float
    unit: Unit


def parse_every(text: str | int) -> Every:
    """The amount that `text` says; a number alone counts epochs.  Raises RecipeError (invalid-option)."""
    if type(text) is int and text > 0:
        return Every(text, "epochs")
    match = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is not None and match["unit"] in _UNITS:
        unit, factor = _UNITS[match["unit"]]
        amount = float(match["number"]) * factor
        if amount > 0 and math.isfinite(amount) and (unit == "seconds" or amount == int(amount)):
            return Every(amount, unit)
    accepted = '"10 minutes", "30s", "2 h", "500 steps", "5 epochs", 5 (epochs)'
    raise RecipeError(Diagnostic("invalid-option", f"`every` is {text!r:.60}", (("accepted", accepted),)))


@final
class Due:
    """Whether it is time to save again; `saved` starts the count anew."""

    def __init__(self, every: Every | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self.saved(epoch=0, step=0)

    def saved(self, *, epoch: int, step: int) -> None:
        """A checkpoint was written, or training has begun, at this point."""
        self._last = {"epochs": epoch, "steps": step, "seconds": self._clock()}

    def after_batch(self, step: int) -> bool:
        """It is time, between two batches."""
        if self._every is None or self._every.unit == "epochs":
            return False
        now = step if self._every.unit == "steps" else self._clock()
        return now - self._last[self._every.unit] >= self._every.amount

    def after_epoch(self, epoch: int, step: int) -> bool:
        """It is time, at the end of an epoch."""
        if self._every is not None and self._every.unit == "epochs":
            return epoch - self._last["epochs"] >= self._every.amount
        return self.after_batch(step)
