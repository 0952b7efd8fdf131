"""Save beside the training: the state is copied while the script waits, and written by a thread while it goes on.

    training   ──submit──┤ copy ├── batch ── batch ── batch ──submit──┤ copy ├──
    writer                      └── job(copy) ───────────┘                   └── job(copy) ──

The copy is complete when `submit` returns, so that the next forward pass may change buffers (the statistics of a batch
norm change there, not in `optimizer.step`).  There is one copy at most: a save that comes while another is being
written waits for it.

What goes wrong in the writer is raised by the next call here, once, as the error it is.  Where no call follows, the
interpreter's exit waits for the writer, prints the error and ends with status 120, the one Python has for an error on
its way out.  In a process forked while a save is under way (a DataLoader's worker) there is no writer: nothing is
written there, and nothing waits for it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Generic, TextIO, TypeVar, final

from loadstone.training.snapshot import Snapshot

C = TypeVar("C")
T = TypeVar("T")

_NOTE = "(raised by a save in the background; training had gone on in the meantime)"


@final
class Background(Generic[T]):
    """One save at a time, in a thread; `last` is the result of the latest one that succeeded."""

    def __init__(self) -> None:
        self.last: T | None = None
        self._snapshot = Snapshot()
        self._flight: _Flight[T] | None = None

    @property
    def is_busy(self) -> bool:
        """A save is under way."""
        return self._flight is not None and self._flight.is_here and not self._flight.done.is_set()

    def submit(self, content: C, job: Callable[[C], T]) -> None:
        """Copy `content` and have `job(copy)` run in the background; the copy is the job's until it returns.

        Waits for the save before this one, and raises its error instead of beginning another.
        """
        self.wait()
        copied = self._snapshot.take(content)
        flight = _Flight[T](self._snapshot)
        self._flight = flight
        _flights.add(flight)
        thread = threading.Thread(target=flight.run, args=(job, [copied]), name="loadstone-save")
        del copied  # so that the writer can let go of it
        try:
            thread.start()  # no daemon: the interpreter waits for it
        except RuntimeError:  # no thread can be started any more: the interpreter is on its way out
            flight.run(job, [content])

    def check(self) -> None:
        """Raise what went wrong in the background, if a save has ended with an error that was not raised yet."""
        if self._flight is not None and not self.is_busy:
            flight, self._flight = self._flight, None
            if flight.is_here:
                self.last = flight.outcome()

    def wait(self) -> None:
        """Return when no save is under way; raises as `check` does.  An interrupt leaves the save under way."""
        if self._flight is not None and self.is_busy:
            self._flight.done.wait()  # not Thread.join: interrupted, it may take the thread for ended
        self.check()

    def close(self) -> None:
        """Wait, and give the memory of the copy back; raises as `check` does."""
        try:
            self.wait()
        finally:
            if not self.is_busy:
                self._snapshot.release()


class _Flight(Generic[T]):
    """One save: under way until `done` is set."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.done = threading.Event()
        self._snapshot = snapshot  # kept as long as its copy is read
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Its thread belongs to this process, and not to the one that this process was forked from."""
        return self._pid == os.getpid()

    def run(self, job: Callable[[C], T], content: list[C]) -> None:
        """Do the job; the list holds the only reference to the copy, which ends with it."""
        try:
            self._result.append(job(content.pop()))
        except BaseException as error:
            error.add_note(_NOTE)
            self._error = error
        finally:
            self.done.set()

    def outcome(self) -> T:
        """What the job returned, or the error that it raised; nobody else will ask."""
        _flights.discard(self)
        if self._error is not None:
            raise self._error
        return self._result[0]


_flights: set[_Flight[Any]] = set()  # whose outcome nobody has asked for yet


@atexit.register
def _say_what_nobody_asked() -> None:
    """Print the errors that no call raised, and have the interpreter end with an error status."""
    has_failed = False
    for flight in [each for each in _flights if each.is_here]:
        flight.done.wait()
        try:
            flight.outcome()
        except BaseException:
            traceback.print_exc()
            has_failed = True
    if has_failed and sys.stderr is not None:
        sys.stderr = _Unflushable(sys.stderr)


class _Unflushable:
    """Standard error, of which the interpreter's last flush fails.

    An error in an exit handler changes no exit status; that of the last flush does, to 120, and by then every other
    exit handler has run.  https://docs.python.org/3/library/sys.html#sys.exit
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def flush(self) -> None:
        self._stream.flush()
        with contextlib.suppress(ValueError):
            sys._getframe(1)
            return
        raise OSError("a checkpoint was not saved")  # called by no Python code: the interpreter's own, last flush
