"""SIGTERM, as schedulers and clouds send it before they take a machine away: noted at once, acted on between batches.

with-handler      SIGTERM ──► is_asked = True      ... the batch is finished, the run saves ...
`go_on`           the handler of before is back, and gets the signal: without one, the process ends as it would have
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, final


@final
class Termination:
    """Whether this process was asked to end.  Works in the main thread; elsewhere it never is."""

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None
        self._pid = 0

    def install(self) -> None:
        """Take the signal over, if nobody from outside Python has it; doing it again changes nothing."""
        if self._pid == os.getpid() or threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is None or before == signal.SIG_IGN:  # C code's, or not wanted at all
            return
        self._before, self._pid = before, os.getpid()
        signal.signal(signal.SIGTERM, self._note)

    def restore(self) -> None:
        """Give the signal back to who had it, unless somebody else took it over meanwhile."""
        if self._pid == os.getpid() and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGTERM) == self._note:
                signal.signal(signal.SIGTERM, self._before)
            self._pid = 0

    def go_on(self) -> None:
        """Let the signal take its usual course now; returns where a handler of before lets the process live."""
        self.restore()
        self.is_asked = False
        os.kill(os.getpid(), signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:
            self.is_asked = True
        else:  # a worker of the data loader, forked with this handler
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
