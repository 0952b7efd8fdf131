"""Calls in a second thread, one after the other, while the first goes on: digests of what is being written.

Plain threads, and not the pools of concurrent.futures: those refuse work once the interpreter is on its way out, and a
save may be made by an exit handler.  Where no thread can be started any more, the calls are made at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final

T = TypeVar("T")


@final
class Call(Generic[T]):
    """A call that is made, or will be."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._is_done = threading.Event()
        self._result: list[T] = []
        self._error: BaseException | None = None

    def make(self) -> None:
        """Make the call, and let go of what it needed."""
        try:
            self._result.append(self._function())
        except BaseException as error:
            self._error = error
        finally:
            del self._function
            self._is_done.set()

    def result(self) -> T:
        """What it returned; waits for that, and raises what it raised."""
        self._is_done.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]


@final
class SideThread:
    """Takes calls until the `with` ends, which waits for those that were taken."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def take(self, function: Callable[[], T]) -> Call[T]:
        """Have the call made."""
        call = Call(function)
        if self._thread is None:
            call.make()
        else:
            self._calls.put(call)
        return call

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call.make()
            del call  # so that nothing is kept while it waits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.put(None)
        if self._thread is not None:
            self._thread.join()
