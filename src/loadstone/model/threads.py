"""Work that a few threads share: reading a file releases the interpreter's lock, so two fill memory sooner than one."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

MOST_THREADS = 4  # memory is the limit, and more do not raise it


def share(items: Iterable[T], do: Callable[[T], None], *, threads: int | None = None) -> None:
    """Call `do` for every item, in several threads, each item once; the order is that of the items, more or less.

    Where a call raises, no further one is begun; when all threads have ended, the first error is raised again.  An
    interrupt of the main thread ends them the same way.
    """
    queue = deque(items)
    failures: list[BaseException] = []

    def run() -> None:
        while not failures:
            try:
                item = queue.popleft()
            except IndexError:
                return
            try:
                do(item)
            except BaseException as error:
                failures.append(error)

    count = min(threads or min(os.cpu_count() or 1, MOST_THREADS), len(queue))
    others = [threading.Thread(target=run, name="loadstone-read", daemon=True) for _ in range(count - 1)]
    try:
        for other in others:
            other.start()
        run()
    except BaseException as error:
        failures.append(error)
    for other in others:
        if other.ident is not None:
            other.join()
    if failures:
        raise failures[0]
