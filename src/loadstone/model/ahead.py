"""Reading far ahead: the kernel is told which bytes will be asked for, so that the device is never idle.

By itself the kernel reads ahead of one reader who goes through a file from its beginning.  Several threads, each with a
tensor of its own, look like somebody who jumps about; cold files are then read at half the speed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import final

from loadstone.io.sources import expect
from loadstone.tensors import TensorInfo

WINDOW_NBYTES = 64 * 1024 * 1024


@final
class Ahead:
    """Announces tensors in the order given, as far as WINDOW_NBYTES ahead of what is being read."""

    def __init__(self, infos: Iterable[TensorInfo]) -> None:
        self._infos = iter([info for info in infos if info.storage is not None and info.storage.is_raw])
        self._left = WINDOW_NBYTES  # how much may be announced
        self._lock = threading.Lock()
        self.goes_on(0)

    def goes_on(self, nbytes: int) -> None:
        """So many bytes more are being read."""
        with self._lock:
            self._left += nbytes
            while self._left > 0 and (info := next(self._infos, None)) is not None:
                first, length = info.byte_range()
                assert info.storage is not None  # as chosen above
                extent = info.storage.extents[0]
                expect(extent.source, extent.offset + first, length)
                self._left -= length
