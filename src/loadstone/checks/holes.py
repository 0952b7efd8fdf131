"""Stretches of zeros inside tensors that look like what a power cut leaves of a file that was not flushed.

Evidence, not proof, and so only where little else explains it: whole blocks of the disk, in the middle of floating
point numbers that are not zero, in a tensor that has no other such stretch, and not coinciding with its rows (a layer
may well have zero rows: padding, pruned channels).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import accumulate, islice
from operator import mul

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic
from loadstone.tensors import TensorInfo

_SECTOR = 512  # bytes; the least that a device writes
_LEAST_NBYTES = 4096  # a page: what the operating system writes at a time
_SLACK = 8  # bytes beside a hole that are zero by chance
_PIECE_NBYTES = 1024 * 1024
_LEAST_ROW = 64  # bytes; shorter ones end anywhere
_ZEROS = bytes(_SECTOR)
_NONZERO = re.compile(rb"[^\0]")
_FLOATS = frozenset(name for name, dtype in DTYPES.items() if dtype.kind in ("float", "complex"))


def holes(tensors: Mapping[str, TensorInfo], source_name: str) -> Iterator[Diagnostic]:
    """A zero-hole for every tensor of the file that seems to have one."""
    for key, info in tensors.items():
        storage = info.storage
        if storage is None or not info.is_plain or info.nbytes < 3 * _LEAST_NBYTES:
            continue
        if info.dtype not in _FLOATS or storage.extents[0].source.name != source_name:
            continue
        first = storage.extents[0].offset + info.byte_range()[0]
        runs = list(islice(zero_runs(info), 2))
        if len(runs) == 1 and _is_hole(info, first, *runs[0]):
            start, stop = runs[0]
            yield Diagnostic(
                "zero-hole",
                f"`{key}` in `{source_name}` has {stop - start:,} bytes of zeros among other numbers",
                evidence=(("where", f"{stop - start:,} bytes at {first + start:,}, whole blocks of the disk"),),
                keys=(key,),
            )


def zero_runs(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """Stretches of at least 512 zero bytes, as [start, stop) in the bytes of the tensor, whose storage is raw."""
    assert info.storage is not None
    base, nbytes = info.byte_range()
    start: int | None = None
    tail = b""  # the end of the piece before, so that no stretch is cut in two
    for position in range(0, nbytes, _PIECE_NBYTES):
        piece = bytearray(min(_PIECE_NBYTES, nbytes - position))
        info.storage.read_into(base + position, memoryview(piece))
        data, offset = tail + piece, position - len(tail)
        at = len(tail) if start is not None else 0
        while at < len(data):
            if start is None:
                at = data.find(_ZEROS, at)
                if at < 0:
                    break
                start = offset + at
            match = _NONZERO.search(data, at)
            if match is None:
                break
            yield start, offset + match.start()
            start, at = None, match.start()
        tail = data[-_SECTOR + 1 :] if start is None else b""
    if start is not None:
        yield start, nbytes


def _is_hole(info: TensorInfo, first: int, start: int, stop: int) -> bool:
    """`first` is where the tensor starts in the file, [start, stop) where the zeros lie in the tensor."""
    if start == 0 or stop == info.nbytes:
        return False
    begin = -(-(first + start) // _SECTOR) * _SECTOR
    end = (first + stop) // _SECTOR * _SECTOR
    if end - begin < _LEAST_NBYTES or begin - first - start > _SLACK or first + stop - end > _SLACK:
        return False
    rows = accumulate(reversed(info.shape[1:]), mul, initial=DTYPES[info.dtype].bits // 8)
    return not any(row >= _LEAST_ROW and _is_near(start, row) and _is_near(stop, row) for row in rows)


def _is_near(place: int, row: int) -> bool:
    """Whether a row starts there, or a few bytes away."""
    return min(place % row, -place % row) <= _SLACK
