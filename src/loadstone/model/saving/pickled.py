"""The pickle of a torch file, and the storages that belong to it.

It is what `torch.save` writes: tensors reduce themselves, and a storage becomes a persistent id (`_save` in
torch/serialization.py).  Two things differ.  A storage of which less than half is shown by the tensors of this save is
stored without the rest, and offsets are shifted; one seen with two dtypes, which torch refuses, is stored twice.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch.serialization import location_tag, normalize_storage_type

from loadstone.errors import Diagnostic
from loadstone.model.saving.plain import unsaveable

Spans: TypeAlias = tuple[tuple[int, int], ...]  # first byte and stop, ascending, with gaps between
_Identity: TypeAlias = tuple[int, torch.dtype]

_PROTOCOL = 2  # the only one that `weights_only=True` reads besides 4, and torch's own
_REBUILD = (torch._utils._rebuild_tensor_v2, torch._utils._rebuild_tensor_v3)
_GRAIN = 64  # spans start at a multiple of it, so that offsets stay whole in every dtype
_WORTHWHILE_NBYTES = 4096  # what must be saved before a storage is cut


@dataclass(frozen=True, slots=True)
class Pickled:
    """The record data.pkl, the bytes of each storage in order, and what is to be said about it."""

    data: bytes
    storages: tuple[tuple[torch.UntypedStorage, Spans], ...]
    notes: tuple[Diagnostic, ...]


@dataclass(slots=True)
class _Stored:
    """A storage in the order of its first use: which of its bytes tensors show, and whether somebody needs them all."""

    storage: torch.UntypedStorage
    number: int
    shown: list[tuple[int, int]] = field(default_factory=list)
    is_whole: bool = False


def pickled(content: object) -> Pickled:
    """Raises SaveError (unsaveable-value) where a value cannot be pickled, though everything in it is plain."""
    first = _dumped(content, {})
    cuts = {identity: spans for identity, stored in first.stored.items() if (spans := _cut(stored)) is not None}
    second = _dumped(content, cuts) if cuts else first
    storages = tuple(
        (stored.storage, cuts.get(identity, ((0, stored.storage.nbytes()),)))
        for identity, stored in second.stored.items()
    )
    return Pickled(second.buffer.getvalue(), storages, tuple(_notes(first.stored, cuts)))


def _dumped(content: object, cuts: dict[_Identity, Spans]) -> _Pickler:
    pickler = _Pickler(cuts)
    try:
        pickler.dump(content)
    except (pickle.PicklingError, RuntimeError, AttributeError, TypeError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise unsaveable(f"torch cannot write this: {reason}") from error
    return pickler


@final
class _Pickler(pickle.Pickler):
    """torch's pickler, which also notes what of each storage is shown."""

    def __init__(self, cuts: dict[_Identity, Spans]) -> None:
        self.buffer = io.BytesIO()
        self.stored: dict[_Identity, _Stored] = {}
        self._cuts = cuts
        self._expected: set[int] = set()  # storages inside of what reducer_override just gave
        self._kept: list[object] = []
        super().__init__(self.buffer, protocol=_PROTOCOL)

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        return self._shifted(value.__reduce_ex__(_PROTOCOL))  # type: ignore[no-untyped-call]

    def persistent_id(self, value: object) -> tuple[object, ...] | None:
        if not isinstance(value, (torch.storage.TypedStorage, torch.UntypedStorage)):
            return None
        stored, spans = self._noted(value)
        stored.is_whole |= id(value) not in self._expected
        nbytes = sum(stop - first for first, stop in spans)
        if isinstance(value, torch.storage.TypedStorage):
            kind = getattr(torch, value._pickle_storage_type())  # type: ignore[no-untyped-call]
            numel = nbytes // value.dtype.itemsize
        else:
            kind, numel = normalize_storage_type(type(value)), nbytes  # type: ignore[no-untyped-call]
        return "storage", kind, str(stored.number), location_tag(stored.storage), numel

    def _noted(self, value: torch.storage.TypedStorage | torch.UntypedStorage) -> tuple[_Stored, Spans]:
        if isinstance(value, torch.storage.TypedStorage):
            storage, dtype = value._untyped_storage, value.dtype
        else:
            storage, dtype = value, torch.uint8
        identity = (storage._cdata, dtype)
        stored = self.stored.setdefault(identity, _Stored(storage, len(self.stored)))
        return stored, self._cuts.get(identity, ((0, storage.nbytes()),))

    def _shifted(self, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
        """How a tensor is rebuilt, with its offset in what is stored of its storage."""
        function, args = reduced[:2]
        if function is torch._tensor._rebuild_from_type_v2:
            inner, inner_args = self._shifted((args[0], args[2]))
            return (function, (inner, args[1], inner_args, *args[3:]), *reduced[2:])
        if function not in _REBUILD:
            return reduced
        storage, offset, shape, stride = args[:4]
        itemsize = storage.dtype.itemsize if function is _REBUILD[0] else args[6].itemsize
        stored, spans = self._noted(storage)
        self._expected.add(id(storage))
        self._kept.append(storage)  # so that no other object gets its id
        if 0 in shape:
            offset = 0
        else:
            first = offset * itemsize
            reach = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
            stored.shown.append((first, first + (reach + 1) * itemsize))
            offset -= _before(spans, first) // itemsize
        return (function, (storage, offset, *args[2:]), *reduced[2:])


def _before(spans: Spans, place: int) -> int:
    """How many bytes in front of `place` are left out."""
    left_out = end = 0
    for first, stop in spans:
        if first > place:
            break
        left_out += first - end
        end = stop
    return left_out


def _cut(stored: _Stored) -> Spans | None:
    """What to store of a storage that is mostly not shown; None where it is stored as it is."""
    nbytes = stored.storage.nbytes()
    if stored.is_whole:
        return None
    spans: list[tuple[int, int]] = []
    for first, stop in sorted(stored.shown):
        first -= first % _GRAIN
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], stop))
        else:
            spans.append((first, stop))
    # the stretch behind a span must start at the grain too
    spans = [(first, min(stop + -stop % _GRAIN, nbytes)) for first, stop in spans]
    kept = sum(stop - first for first, stop in spans)
    return tuple(spans) if kept * 2 < nbytes and nbytes - kept >= _WORTHWHILE_NBYTES else None


def _notes(stored: dict[_Identity, _Stored], cuts: dict[_Identity, Spans]) -> Sequence[Diagnostic]:
    if not cuts:
        return ()
    whole = sum(stored[identity].storage.nbytes() for identity in cuts)
    kept = sum(stop - first for spans in cuts.values() for first, stop in spans)
    what = "1 storage is" if len(cuts) == 1 else f"{len(cuts):,} storages are"
    message = f"{what} mostly not shown by any tensor saved: {kept:,} of {whole:,} bytes were written"
    return (Diagnostic("oversized-storage", message),)
