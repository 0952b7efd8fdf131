"""A copy of a training state, into memory that is kept for the next copy.

Fresh memory costs more than the copying: the kernel hands out and clears every page first.  So there is one arena, as
large as the state, that all snapshots of a run share.  The first one fills it and pays for the pages; taking another
makes the one before invalid.

What is copied is the memory that tensors lie in, each stretch of it once: tensors that share memory share it in the
copy too, with the same shapes and strides, and of a large storage only what some tensor shows is taken.  A stretch is
a run of bytes of one storage that tensors show without a gap wider than a page::

    storage   ░░░░░░░░█████████████████████████░░░░░░░░░░░░░░░░░░░░████████░░░░
                      └ a ──────────┘└ c ─────┘                    └ d ───┘
                           └ b ─┘
    arena             █████████████████████████ ████████              two stretches, two storages

Memory of a CUDA device goes into a page-locked arena: all transfers are begun at once and waited for together, and the
copy is a CPU tensor.  That path has not run on a GPU yet.

From one save to the next a state keeps its tensors where they are.  So the addresses to copy from and to, and the
tensors that show the copy, are kept as well, and used again as long as every tensor still lies as it did.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import mmap
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

import torch
from torch import nn

from loadstone.as_torch import memory_of
from loadstone.model.threads import share

C = TypeVar("C")

_PLAIN_TYPES = (torch.Tensor, nn.Parameter)
THREADS = 2  # more do not raise the bandwidth of memory, and training wants its cores back
_BATCH_NBYTES = 16 * 1024 * 1024  # what a thread copies before it looks for more
_ALIGNMENT = 64  # of a stretch in the arena, as of torch's own memory
_GRAIN = 16  # a stretch begins at a multiple of this, so that offsets in the largest dtype stay whole
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of <linux/mman.h>, which the mmap module does not name
_GAP = 4096  # bytes that nobody shows and that are copied all the same, rather than to cut a storage in two


@final
class Snapshot:
    """Copies states one after the other into memory of its own, as much as the largest of them takes."""

    def __init__(self) -> None:
        self._arenas = {"cpu": _Arena(), "cuda": _Arena(is_pinned=True)}
        self._known: _Known | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory that are held for the next copy."""
        return sum(arena.nbytes for arena in self._arenas.values())

    def take(self, content: C) -> C:
        """A copy of nested dicts, lists and values, with tensors on the CPU; the copy before must not be used any more.

        Nothing in `content` may change while this runs, and everything may once it has returned.
        """
        tensors: dict[int, torch.Tensor] = {}
        _gather(content, tensors, set())
        marks = _marks(tensors.values())
        if self._known is not None and marks is not None and self._known.marks == marks:
            copies = dict(zip(tensors, self._known.copies, strict=True))
            share(self._known.batches, _move, threads=THREADS)
        else:
            self._known = None  # before its memory may be given up
            copies, batches = self._laid_out(tensors)
            if marks is not None:
                self._known = _Known(marks, [copies[name] for name in tensors], batches)
        return copy.deepcopy(content, copies)  # which meets every tensor as its copy

    def _laid_out(self, tensors: Mapping[int, torch.Tensor]) -> tuple[dict[int, torch.Tensor], list[_Batch]]:
        """Copies of the tensors in a new layout of the arena, and what was moved in the memory of the CPU."""
        copies: dict[int, torch.Tensor] = {}
        batches: list[_Batch] = []
        storages: dict[int, list[_Shown]] = {}
        for name, tensor in tensors.items():
            if _is_plain(tensor):
                storages.setdefault(tensor.untyped_storage()._cdata, []).append(_shown(name, tensor))
            else:
                copies[name] = _by_itself(tensor)
        stretches = [stretch for shown in storages.values() for stretch in _stretches(shown)]
        for kind, arena in self._arenas.items():
            mine = [each for each in stretches if tensors[each.shown[0].name].device.type == kind]
            places = arena.room_for([each.nbytes for each in mine])
            batches += _TRANSFERS[kind](arena, mine, places, tensors)
            for stretch, place in zip(mine, places, strict=True):
                storage = arena.storage(place, stretch.nbytes)
                for shown in stretch.shown:
                    copies[shown.name] = _rebuilt(tensors[shown.name], storage, shown.start - stretch.start)
        return copies, batches

    def release(self) -> None:
        """Give the memory back; it goes once the last copy is gone too."""
        self._known = None
        for arena in self._arenas.values():
            arena.release()


_Batch: TypeAlias = list[tuple[int, int, int]]  # target, source, bytes
_Mark: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """Where the tensors of a state lie, the tensors that show their copies, and what has to be moved."""

    marks: list[_Mark]
    copies: list[torch.Tensor]
    batches: list[_Batch]


def _marks(tensors: Iterable[torch.Tensor]) -> list[_Mark] | None:
    """How each tensor lies in memory; None where one of them is more than plain memory of the CPU."""
    marks: list[_Mark] = []
    for tensor in tensors:
        if not tensor.is_cpu or type(tensor) not in _PLAIN_TYPES or tensor.layout != torch.strided:
            return None
        if tensor.is_quantized or tensor.is_nested:
            return None
        marks.append(
            (
                type(tensor), tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad,
                tensor.is_conj(), tensor.is_neg(),
            )
        )  # fmt: skip
    return marks


@dataclass(frozen=True, slots=True)
class _Shown:
    """The bytes of its storage that a tensor shows: those from `start` to `stop`."""

    name: int
    start: int
    stop: int


@dataclass(slots=True)
class _Stretch:
    """A run of bytes of one storage, and the tensors in it."""

    start: int
    stop: int
    shown: list[_Shown]

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


def _gather(value: object, tensors: dict[int, torch.Tensor], seen: set[int]) -> None:
    """Every tensor in the containers, by its id."""
    if isinstance(value, torch.Tensor):
        tensors[id(value)] = value
    elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
        seen.add(id(value))
        for item in value.values() if isinstance(value, Mapping) else value:
            if isinstance(item, torch.Tensor):
                tensors[id(item)] = item
            elif isinstance(item, (Mapping, list, tuple)):
                _gather(item, tensors, seen)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Memory with a shape and strides, and nothing else to it."""
    return (
        type(tensor) in _PLAIN_TYPES
        and tensor.layout == torch.strided
        and tensor.device.type in _TRANSFERS
        and not tensor.is_quantized
        and not tensor.is_nested
    )


def _by_itself(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of what is not plain memory: sparse, quantised, nested tensors, subclasses, other devices."""
    copied = tensor.detach().clone()
    if copied.device.type not in ("cpu", "meta"):
        copied = copied.cpu()
    return copied.requires_grad_(tensor.requires_grad)


def _shown(name: int, tensor: torch.Tensor) -> _Shown:
    size = tensor.element_size()
    start = int(tensor.storage_offset()) * size
    if tensor.is_contiguous() or tensor.numel() == 0:
        return _Shown(name, start, start + tensor.numel() * size)
    span = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return _Shown(name, start, start + span * size)


def _stretches(shown: list[_Shown]) -> list[_Stretch]:
    """The stretches of one storage."""
    if len(shown) > 1:
        shown.sort(key=lambda each: (each.start, each.stop))
    stretches: list[_Stretch] = []
    for each in shown:
        if stretches and each.start <= stretches[-1].stop + _GAP:
            stretches[-1].stop = max(stretches[-1].stop, each.stop)
            stretches[-1].shown.append(each)
        else:
            stretches.append(_Stretch(each.start - each.start % _GRAIN, each.stop, [each]))
    return stretches


def _rebuilt(tensor: torch.Tensor, storage: torch.UntypedStorage, start: int) -> torch.Tensor:
    """The tensor as it was, over memory that holds its bytes from `start` on."""
    offset = start // tensor.element_size()
    copied = torch.empty(0, dtype=tensor.dtype, device="cpu").set_(storage, offset, tensor.shape, tensor.stride())
    if tensor.is_conj():
        copied = torch.conj(copied)
    if tensor.is_neg():
        copied = torch._neg_view(copied)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied.requires_grad_() if tensor.requires_grad else copied


@final
class _Arena:
    """Memory for one copy; it grows when a copy needs more, and never shrinks."""

    def __init__(self, *, is_pinned: bool = False) -> None:
        self._is_pinned = is_pinned
        self.release()

    def release(self) -> None:
        self.nbytes = 0
        self.pinned = torch.empty(0, dtype=torch.uint8, device="cpu")
        self._buffer: mmap.mmap | memoryview = memoryview(b"")

    def room_for(self, sizes: Sequence[int]) -> list[int]:
        """A place for each stretch, in a memory that is large enough for all of them."""
        places, end = [], 0
        for size in sizes:
            places.append(end)
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        if end > self.nbytes:
            self.release()  # first, so that the old memory and the new are never there together
            if self._is_pinned:
                self.pinned = torch.empty(end, dtype=torch.uint8, device="cpu", pin_memory=True)
                self._buffer = memory_of(self.pinned)
            else:
                self._buffer = _private_memory(end)
            self.nbytes = end
        return places

    def storage(self, place: int, nbytes: int) -> torch.UntypedStorage:
        """A storage over a part of the memory."""
        if not nbytes:
            return torch.empty(0, dtype=torch.uint8, device="cpu").untyped_storage()
        return torch.frombuffer(self._buffer, dtype=torch.uint8, count=nbytes, offset=place).untyped_storage()

    @property
    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._buffer)) if self.nbytes else 0


def _private_memory(nbytes: int) -> mmap.mmap:
    """Memory that the kernel hands out in large pages where it does so (512 times fewer, and a sixth of the time).

    A process that is forked finds zeros there: pages that it shared would be copied once more, while the workers of a
    loader live, as soon as the next snapshot is taken.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, nbytes)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        for advice in (mmap.MADV_HUGEPAGE, _WIPE_ON_FORK):
            with contextlib.suppress(OSError):  # a kernel without it
                memory.madvise(advice)
    return memory


def _from_cpu(
    arena: _Arena, stretches: Iterable[_Stretch], places: Iterable[int], tensors: Mapping[int, torch.Tensor]
) -> list[_Batch]:
    """Copy by two threads; memmove lets go of the interpreter's lock.  Gives what was moved."""
    base = arena.address
    batches: list[_Batch] = [[]]
    room = _BATCH_NBYTES
    for stretch, place in zip(stretches, places, strict=True):
        first = tensors[stretch.shown[0].name].untyped_storage().data_ptr() + stretch.start
        for start in range(0, stretch.nbytes, _BATCH_NBYTES):
            nbytes = min(stretch.nbytes - start, _BATCH_NBYTES)
            batches[-1].append((base + place + start, first + start, nbytes))
            room -= nbytes
            if room <= 0:
                batches.append([])
                room = _BATCH_NBYTES
    share(batches, _move, threads=THREADS)
    return batches


def _move(batch: _Batch) -> None:
    for target, source, nbytes in batch:
        ctypes.memmove(target, source, nbytes)


def _from_cuda(
    arena: _Arena, stretches: Iterable[_Stretch], places: Iterable[int], tensors: Mapping[int, torch.Tensor]
) -> list[_Batch]:
    """Begin every transfer, in the order of the work that is under way on each device; then wait for all."""
    devices = set()
    for stretch, place in zip(stretches, places, strict=True):
        tensor = tensors[stretch.shown[0].name]
        shape = (stretch.nbytes,)
        source = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        source.set_(tensor.untyped_storage(), stretch.start, shape, (1,))
        arena.pinned[place : place + stretch.nbytes].copy_(source, non_blocking=True)
        devices.add(tensor.device)
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return []


_TRANSFERS = {"cpu": _from_cpu, "cuda": _from_cuda}
