"""Interleaved rounds: every contender runs once a round, so that a slow moment of the machine hits all of them.

Who goes first moves on by one each round, because what ran just before leaves its traces in caches and free memory.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender, one a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds, in seconds."""
        return statistics.median(self.seconds)

    def ratio_to(self, other: Timing) -> float:
        """The median of the ratios within a round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleaved(
    contenders: dict[str, Callable[[], object]], *, before: Callable[[], object] = lambda: None, rounds: int = 7
) -> dict[str, Timing]:
    """Time each contender in `rounds` rounds after one that does not count; `before` runs untimed before each."""
    os.sync()  # what was written to be measured is on the device before anything is timed
    time.sleep(1)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for each in range(rounds + 1):
        first = each % len(contenders)
        for name, run in (order := list(contenders.items()))[first:] + order[:first]:
            before()
            gc.collect()
            start = time.perf_counter()
            result = run()
            stop = time.perf_counter()
            del result
            if each:
                seconds[name].append(stop - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
