"""Work shared by threads: each item once, the first error raised, nothing begun after it."""

from __future__ import annotations

import threading
import time

import pytest

from loadstone.model.threads import share


@pytest.mark.parametrize("threads", [1, 2, 4, 50])
def test_every_item_is_done_once(threads: int) -> None:
    done: list[int] = []
    share(range(30), done.append, threads=threads)
    assert sorted(done) == list(range(30))


def test_several_threads_take_part() -> None:
    seen: set[int] = set()

    def slow(item: int) -> None:
        time.sleep(0.005)
        seen.add(threading.get_ident())

    share(range(20), slow, threads=2)
    assert len(seen) == 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, MemoryError])
def test_an_error_in_any_thread_ends_the_work(threads: int, kind: type[BaseException]) -> None:
    begun: list[int] = []

    def fails_at_five(item: int) -> None:
        begun.append(item)
        if item == 5:
            raise kind("five")
        time.sleep(0.001)

    with pytest.raises(kind, match="five"):
        share(range(1000), fails_at_five, threads=threads)
    assert len(begun) < 20
    assert threading.active_count() == 1


def test_nothing_to_do_is_done() -> None:
    share([], print)
