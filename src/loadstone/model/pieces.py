"""Tensors of a file in pieces of bounded size, for values that cannot go straight to where they belong.

A cast, a strided target or a GPU needs the values in memory for a moment.  Pieces are runs of rows of at most
PIECE_NBYTES, so that the memory they take does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch

from loadstone import as_torch
from loadstone.dtypes import DTYPES
from loadstone.tensors import TensorInfo

PIECE_NBYTES = 4 * 1024 * 1024  # a larger row comes whole


@final
class Scratch:
    """One buffer that all pieces go through; pinned when it feeds a GPU (that path is untested here: no GPU)."""

    def __init__(self, nbytes: int, *, is_pinned: bool = False) -> None:
        self._is_pinned = is_pinned
        self._allocate(nbytes)

    def take(self, nbytes: int) -> tuple[torch.Tensor, memoryview]:
        """The buffer as a tensor, and its first `nbytes` as a buffer; what was taken before is overwritten."""
        if nbytes > self._tensor.numel():
            self._allocate(nbytes)
        return self._tensor, self._buffer[:nbytes]

    def _allocate(self, nbytes: int) -> None:
        self._tensor = torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=self._is_pinned)
        self._buffer = as_torch.memory_of(self._tensor)


def can_be_cut(info: TensorInfo) -> bool:
    """Rows of it can be read one after the other at no extra cost."""
    storage = info.storage
    return (
        storage is not None
        and info.is_contiguous
        and info.quantization is None
        and not (info.is_conj or info.is_neg)
        and DTYPES[info.dtype].bits % 8 == 0
        and not any(extent.is_deflated for extent in storage.extents)
    )


def piece_nbytes(info: TensorInfo) -> int:
    """The most bytes that one piece of it takes."""
    if not info.shape or not can_be_cut(info):
        return info.nbytes
    return max(min(info.nbytes, PIECE_NBYTES), info.nbytes // max(info.shape[0], 1))


def pieces_of(info: TensorInfo, scratch: Scratch) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, rows) of a tensor; each piece is valid until the next one is asked for."""
    if not info.shape or info.elements == 0 or not can_be_cut(info):
        yield 0, info.read()
        return
    assert info.storage is not None  # can_be_cut
    rows = info.shape[0]
    row_nbytes = info.nbytes // rows
    rows_at_once = max(PIECE_NBYTES // row_nbytes, 1)
    first = info.byte_range()[0]
    for row in range(0, rows, rows_at_once):
        count = min(rows_at_once, rows - row)
        memory, buffer = scratch.take(count * row_nbytes)
        info.storage.read_into(first + row * row_nbytes, buffer, swap=DTYPES[info.dtype].swap)
        yield row, as_torch.strided(memory, info.dtype, (count, *info.shape[1:]), info.stride)
