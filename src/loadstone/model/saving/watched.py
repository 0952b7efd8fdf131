"""A file for torch's own writers, whose errors about a file are RuntimeErrors that hide the OSError behind them."""

from __future__ import annotations

from typing import BinaryIO, final


@final
class Watched:
    """A file that remembers the error of the operating system that stopped it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
