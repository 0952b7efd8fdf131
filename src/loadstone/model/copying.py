"""Move values into the memory of a model: straight from the file where that is possible, in pieces where not.

    straight    same dtype, dense CPU memory on our side, contiguous in the file: `read_into` the parameter's memory.
                Neighbouring small tensors are read together and moved from there (one system call for hundreds).
    in pieces   casts, strided targets, GPUs: through a bounded buffer.
    at hand     the values are in memory already: adapted, migrated, or from a state dict in memory.

Reads are in the order of the file; large tensors are shared by a few threads.  What may fail for any other reason than
the disk was tried before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from loadstone import as_torch
from loadstone.dtypes import DTYPES
from loadstone.io.sources import ByteSource
from loadstone.model.pieces import Scratch, piece_nbytes, pieces_of
from loadstone.model.threads import share
from loadstone.tensors import TensorInfo

SMALL_NBYTES = 64 * 1024  # below this a system call of its own costs more than moving the bytes once more
PIECE_NBYTES = 16 * 1024 * 1024  # of a large tensor, read by one thread at a time
TOGETHER_NBYTES = 1024 * 1024  # how much of a file is read at once for the sake of small tensors


@dataclass(frozen=True, slots=True, eq=False)
class Fill:
    """One tensor to fill.

    Attributes:
        key: its key in the model, for messages.
        target: the tensor whose memory is written.
        info: where the values come from, unless they are at hand.
        value: the values, where they are at hand; of the target's shape.
    """

    key: str
    target: torch.Tensor
    info: TensorInfo | None = None
    value: torch.Tensor | None = None

    @property
    def is_straight(self) -> bool:
        """The file's bytes are the target's bytes."""
        return (
            self.info is not None
            and self.info.storage is not None
            and self.info.is_contiguous
            and not (self.info.is_conj or self.info.is_neg or self.info.quantization)
            and str(self.target.dtype) == f"torch.{self.info.dtype}"
            and is_plain_memory(self.target)
        )


def is_plain_memory(tensor: torch.Tensor) -> bool:
    """Dense, contiguous CPU memory without lazy bits, that belongs to no tensor subclass with ideas of its own."""
    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)
        and type(tensor).__torch_dispatch__ in (torch.Tensor.__torch_dispatch__, nn.Parameter.__torch_dispatch__)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Fills in the order they are done in, and the buffer that they need; made before the first write."""

    straight: tuple[Fill, ...]
    others: tuple[Fill, ...]
    scratch: Scratch


def work_for(fills: Iterable[Fill]) -> Work:
    """Sort out which values go straight, and take the memory that the others need."""
    straight: list[Fill] = []
    others: list[Fill] = []
    for fill in fills:
        (straight if fill.is_straight else others).append(fill)
    straight.sort(key=_place_in_file)
    nbytes = max((piece_nbytes(fill.info) for fill in others if fill.info is not None), default=0)
    is_pinned = any(fill.target.device.type == "cuda" for fill in others)
    return Work(tuple(straight), tuple(others), Scratch(max(nbytes, TOGETHER_NBYTES), is_pinned=is_pinned))


def fill_all(work: Work, started: Callable[[Fill], None]) -> None:
    """Fill every target; `started` is told of each one before its memory changes."""
    pieces: list[_Piece] = []
    for run in _runs(work.straight):
        if isinstance(run, Fill):
            pieces += _pieces(run)
        else:
            _read_together(run, work.scratch, started)
    share(pieces, lambda piece: _read_piece(piece, started))
    # keep autograd's notice of changed memory right, as copy_ does by itself
    torch.autograd.graph.increment_version([fill.target for fill in work.straight if not fill.target.is_inference()])
    for fill in work.others:
        started(fill)
        _copy(fill, work.scratch)


def write_values(target: torch.Tensor, values: torch.Tensor) -> None:
    """`target.copy_(values)` for parameters and for tensors that were made in inference mode."""
    with torch.inference_mode() if target.is_inference() else torch.no_grad():
        target.copy_(values)


def _copy(fill: Fill, scratch: Scratch) -> None:
    if fill.value is not None:
        write_values(fill.target, fill.value)
        return
    assert fill.info is not None  # a Fill has one or the other
    for row, piece in pieces_of(fill.info, scratch):
        place = fill.target if piece.shape == fill.target.shape else fill.target[row : row + piece.shape[0]]
        if _is_turned(place):  # transposed in the cache first: several times faster than a strided write
            place, piece = place.t(), piece.t().contiguous()
        with torch.inference_mode() if place.is_inference() else torch.no_grad():
            place.copy_(piece)


def _is_turned(place: torch.Tensor) -> bool:
    """A matrix whose columns lie one behind the other."""
    return place.dim() == 2 and place.stride(0) == 1 and place.stride(1) > 1


def _place_in_file(fill: Fill) -> tuple[str, int]:
    run = _run_of(fill)
    return (run.source.name, run.start) if run is not None else ("", 0)


@dataclass(slots=True)
class _Run:
    """Neighbours in a file that are read at once."""

    source: ByteSource
    start: int
    stop: int
    fills: list[Fill]
    starts: list[int]


def _run_of(fill: Fill) -> _Run | None:
    """A run of this one tensor; None where its bytes do not lie in the file as they are."""
    info = fill.info
    if info is None or info.storage is None or not info.storage.is_raw:
        return None
    extent = info.storage.extents[0]
    start = extent.offset + info.offset * DTYPES[info.dtype].bits // 8
    return _Run(extent.source, start, start + info.nbytes, [fill], [start])


def _runs(fills: Iterable[Fill]) -> Iterator[_Run | Fill]:
    """Runs of small neighbours; what is large, or not stored as it is, alone."""
    run: _Run | None = None
    for fill in fills:
        assert fill.info is not None  # straight
        one = _run_of(fill) if fill.info.nbytes <= SMALL_NBYTES else None
        if one is None:
            yield fill
        elif run is not None and one.source is run.source and one.stop - run.start <= TOGETHER_NBYTES:
            run.stop = max(run.stop, one.stop)
            run.fills.append(fill)
            run.starts.append(one.start)
        else:
            if run is not None:
                yield run
            run = one
    if run is not None:
        yield run


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a large tensor: `nbytes` bytes from `start` on."""

    fill: Fill
    start: int
    nbytes: int


def _pieces(fill: Fill) -> Iterator[_Piece]:
    """The tensor in parts that several threads can share."""
    assert fill.info is not None  # straight
    assert fill.info.storage is not None
    nbytes = fill.info.nbytes
    step = PIECE_NBYTES if fill.info.storage.is_raw else max(nbytes, 1)  # a deflate stream is read from its beginning
    for start in range(0, nbytes, step):
        yield _Piece(fill, start, min(step, nbytes - start))


def _read_piece(piece: _Piece, started: Callable[[Fill], None]) -> None:
    """Straight from the file into the parameter's memory."""
    info = piece.fill.info
    assert info is not None  # straight
    assert info.storage is not None
    started(piece.fill)
    memory = as_torch.memory_of(piece.fill.target)[piece.start : piece.start + piece.nbytes]
    info.storage.read_into(info.byte_range()[0] + piece.start, memory, swap=DTYPES[info.dtype].swap)


def _read_together(run: _Run, scratch: Scratch, started: Callable[[Fill], None]) -> None:
    """Small neighbours, by one read and a copy each."""
    memory, buffer = scratch.take(run.stop - run.start)
    run.source.read_into(run.start, buffer)
    address = memory.data_ptr() - run.start
    for fill, start in zip(run.fills, run.starts, strict=True):
        assert fill.info is not None  # straight
        started(fill)
        ctypes.memmove(fill.target.data_ptr(), address + start, fill.info.nbytes)
