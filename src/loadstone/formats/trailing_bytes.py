"""What stands behind the end of a format: nothing, padding, a note, or a second file that other programs would read.

A zip is found by its end, so that a zip archive behind another format makes a file that is two files.
"""

from __future__ import annotations

import struct

from loadstone.errors import Diagnostic, UnsafeError
from loadstone.io.sources import ByteSource

_END_MAGIC = b"PK\x05\x06"
_END_NBYTES = 22
_LOCATOR_MAGIC = b"PK\x06\x07"  # of zip64, which torch always writes
_LOCATOR_NBYTES = 20
_DIRECTORY_MAGIC = b"PK\x01\x02"
_MAX_COMMENT_NBYTES = 65535
_PADDING = b"\0\r\n"


def check_end(source: ByteSource, end: int) -> tuple[Diagnostic, ...]:
    """A note where bytes follow `end` that are no padding.

    Raises UnsafeError (ambiguous-archive) where the file also ends like a zip archive.
    """
    if ends_like_zip(source):
        raise UnsafeError(
            Diagnostic(
                "ambiguous-archive",
                f"`{source.name}` is one file for programs that read its start and a zip archive for others",
            )
        )
    extra = source.size - end
    if extra <= 0 or is_padding(source, end):
        return ()
    return (Diagnostic("trailing-bytes", f"{extra:,} bytes follow the end of `{source.name}` as a checkpoint"),)


def is_padding(source: ByteSource, start: int) -> bool:
    """Whether only zeros and line ends stand between `start` and the end of the source."""
    step = 1 << 20
    return not any(
        source.read(place, min(step, source.size - place)).strip(_PADDING) for place in range(start, source.size, step)
    )


def ends_like_zip(source: ByteSource) -> bool:
    """Whether an end-of-directory record that reaches to the last byte points at a directory before it."""
    tail_nbytes = min(source.size, _END_NBYTES + _MAX_COMMENT_NBYTES)
    tail = source.read(source.size - tail_nbytes, tail_nbytes)
    place = tail.rfind(_END_MAGIC)
    while place >= 0:
        if len(tail) - place >= _END_NBYTES:
            directory_nbytes, _, comment_nbytes = struct.unpack_from("<IIH", tail, place + 12)
            start = source.size - tail_nbytes + place - directory_nbytes
            has_locator = tail[max(place - _LOCATOR_NBYTES, 0) : place].startswith(_LOCATOR_MAGIC)
            has_directory = directory_nbytes > 0 and start >= 0 and source.read(start, 4) == _DIRECTORY_MAGIC
            if place + _END_NBYTES + comment_nbytes == len(tail) and (has_locator or has_directory):
                return True
        place = tail.rfind(_END_MAGIC, 0, place)
    return False
