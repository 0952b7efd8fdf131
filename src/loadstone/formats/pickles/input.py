"""The bytes of a pickle, fetched a window at a time: behind a legacy checkpoint's pickles lie gigabytes of tensors.

The machine's loop reads `data` at `at` on its own and calls `attend` only once `at` has passed `pause`.  One comparison
an instruction thus serves three ends: the window must move, the source ends, a FRAME ends.
"""

from __future__ import annotations

from typing import final

from loadstone.io.limits import Limits
from loadstone.io.sources import ByteSource

FIRST_WINDOW = 1024 * 1024
LARGEST_WINDOW = 16 * 1024 * 1024
MARGIN = 16  # an opcode and its fixed operand take at most 9 bytes


class EndOfSourceError(Exception):
    """The source ends before the pickle does; the argument is the offset it would have to reach."""


@final
class PickleInput:
    """A window on the source.

    Attributes:
        data: the window; where the source ends, zeros follow so that a fixed operand can always be read.
        held: how many bytes of it are the source's.
        base: offset in the source of `data[0]`.
        at: place in the window of the next byte, kept by the machine's loop.
        pause: the last place at which an instruction may start without a call of `attend`.
        oddities: (offset, what), shared with the machine.
    """

    data: bytes
    base: int
    at: int
    held: int
    pause: int

    __slots__ = (
        "_frame_end",
        "_limits",
        "_source",
        "_start",
        "_window",
        "at",
        "base",
        "data",
        "held",
        "oddities",
        "pause",
    )

    def __init__(self, source: ByteSource, start: int, limits: Limits, oddities: list[tuple[int, str]]) -> None:
        self._source = source
        self._start = start
        self._limits = limits
        self._window = FIRST_WINDOW
        self._frame_end = -1
        self.oddities = oddities
        self.data, self.base, self.at, self.held, self.pause = b"", start, 0, 0, -1

    def attend(self) -> None:
        """Make `data` hold the instruction at `at`; raises EndOfSourceError where there is none."""
        offset = self.base + self.at
        self._leave_frame(offset)
        if offset >= self._source.size:
            raise EndOfSourceError(offset + 1)
        if self.at + MARGIN > self.held and self.base + self.held < self._source.size:
            self._limits.check("header_nbytes", offset - self._start, self._whose())
            nbytes = min(self._window, self._source.size - offset)
            self.data, self.base, self.at, self.held = self._source.read(offset, nbytes), offset, 0, nbytes
            self._window = min(self._window * 2, LARGEST_WINDOW)
            if offset + nbytes == self._source.size:
                self.data += bytes(MARGIN)
        ends_here = self.base + self.held == self._source.size
        self.pause = self.held - 1 if ends_here else self.held - MARGIN
        if self._frame_end >= 0:
            self.pause = min(self.pause, self._frame_end - self.base - 1)

    def unsigned(self, nbytes: int) -> int:
        """The fixed operand of an instruction, little-endian."""
        self.at += nbytes
        return int.from_bytes(self.data[self.at - nbytes : self.at], "little")

    def take(self, nbytes: int) -> bytes:
        """The next bytes; their number is held against what is left, and against the limit, before they are read."""
        start, stop = self.at, self.at + nbytes
        if stop <= self.held:
            self.at = stop
            return self.data[start:stop]
        offset = self.base + start
        if offset + nbytes > self._source.size:
            raise EndOfSourceError(offset + nbytes)
        self._limits.check("header_nbytes", offset + nbytes - self._start, self._whose())
        self._move_to(offset + nbytes)
        return self._source.read(offset, nbytes)

    def line(self) -> bytes:
        """The bytes up to the next newline, which is taken but not returned."""
        stop = self.data.find(b"\n", self.at, self.held)
        if stop >= 0:
            start, self.at = self.at, stop + 1
            return self.data[start:stop]
        offset, seen = self.base + self.at, self.base + max(self.at, self.held)
        while True:  # look for the end of the line first, so that only the line itself is held
            nbytes = min(FIRST_WINDOW, self._source.size - seen)
            if nbytes <= 0:
                raise EndOfSourceError(self._source.size + 1)
            self._limits.check("header_nbytes", seen - self._start, self._whose())
            stop = self._source.read(seen, nbytes).find(b"\n")
            if stop >= 0:
                return self.take(seen + stop + 1 - offset)[:-1]
            seen += nbytes

    def enter_frame(self, nbytes: int) -> None:
        """A FRAME of protocol 4 starts at `at`.  Data is read as if frames were not there; only their ends are held
        against the instructions, because CPython's readers disagree about frames that lie (python/cpython#154848)."""
        offset = self.base + self.at
        if offset + nbytes > self._source.size:
            raise EndOfSourceError(offset + nbytes)
        if self._frame_end > offset:
            self.oddities.append((offset, "a FRAME starts inside another one"))
        self._frame_end = offset + nbytes
        self.pause = -1

    def finish(self) -> int:
        """The offset behind STOP, with the last frame and the length of the whole checked."""
        offset = self.base + self.at
        self._leave_frame(offset)
        if self._frame_end > offset:
            self.oddities.append((offset, "a FRAME goes on behind STOP"))
        self._limits.check("header_nbytes", offset - self._start, self._whose())
        return offset

    def _leave_frame(self, offset: int) -> None:
        if 0 <= self._frame_end <= offset:
            if self._frame_end < offset:
                self.oddities.append((self._frame_end, "a FRAME ends inside an instruction"))
            self._frame_end = -1

    def _move_to(self, offset: int) -> None:
        """Leave the window empty, so that the next instruction fetches one."""
        self.data, self.base, self.at, self.held, self.pause = b"", offset, 0, 0, -1

    def _whose(self) -> str:
        return f"the pickle at {self._start:,} of `{self._source.name}`"
