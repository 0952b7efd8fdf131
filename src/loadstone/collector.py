"""Python's garbage collector, paused while many small objects are made and none of them is garbage.

Headers, pickles and plans are hundreds of thousands of small values that all stay alive: looking for cycles among them
again and again takes from a third to two thirds of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing inside; afterwards as before.  May be nested."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
