"""A place in the middle of an epoch, exact for any loader: what came before is drawn again and thrown away.

When an epoch begins, the generators are noted, before the loader's iterator draws from them.  To go on at batch k they
are set back, the iterator is made, and k batches are drawn: the samplers shuffle as they did, the workers get the same
seeds and draw as often.  Only then the shared generators are set to where they stood at batch k.  A loader that knows
its own place (`state_dict` and `load_state_dict`, as torchdata's StatefulDataLoader) is asked for it instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from loadstone.errors import Diagnostic, MatchError
from loadstone.training.generators import put_generators, put_own_generators


@dataclass(frozen=True, slots=True)
class Place:
    """Where an unfinished epoch is to go on.

    Attributes:
        batch: batches that are done.
        start: the generators before the epoch's iterator was made.
        now: the generators at that batch.
        loader: the loader's own state, if it has one.
    """

    batch: int
    start: dict[str, Any]
    now: dict[str, Any]
    loader: dict[str, Any] | None = None


def is_stateful(loader: object) -> bool:
    """The loader knows its place itself."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def begin(loader: Iterable[Any], epoch: int) -> Iterator[Any]:
    """The iterator of a new epoch; samplers are told its number."""
    _announce(loader, epoch)
    return iter(loader)


def go_on(loader: Iterable[Any], epoch: int, place: Place) -> Iterator[Any]:
    """The iterator of an epoch of which `place.batch` batches are done; the generators stand where they stood then.

    Raises MatchError (resume-differs) where the loader ends earlier than it did.
    """
    _announce(loader, epoch)
    put_own_generators(loader, place.start.get("loader", ()))
    put_generators(place.start)
    if place.loader is not None and is_stateful(loader):
        loader.load_state_dict(place.loader)  # type: ignore[attr-defined]
        batches = iter(loader)
    else:
        batches = iter(loader)
        for done in range(place.batch):
            if next(batches, batches) is batches:
                raise MatchError(
                    Diagnostic(
                        "resume-differs",
                        f"the loader ends after {done:,} batches, and the checkpoint has {place.batch:,} of them done",
                    )
                )
    put_generators(place.now)
    return batches


def _announce(loader: object, epoch: int) -> None:
    """Tell samplers that shuffle by the number of the epoch (DistributedSampler) which one comes."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for tell in {id(each): getattr(each, "set_epoch", None) for each in samplers}.values():
        if callable(tell):
            tell(epoch)
    if getattr(loader, "persistent_workers", False):
        loader._iterator = None  # type: ignore[attr-defined]  # new ones: old workers go on with generators of their own


def saved_place(loader: Any, start: dict[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint says of the loader; `start` are the generators before the iterator of an unfinished epoch."""
    data: dict[str, Any] = {"loader": fingerprint(loader)}
    if start is not None:
        data["start"] = start
        if is_stateful(loader):
            data["state"] = loader.state_dict()
    return data


def fingerprint(loader: object) -> dict[str, Any]:
    """What tells this loader from another one, as far as it shows from outside."""
    dataset, batch_sampler = getattr(loader, "dataset", None), getattr(loader, "batch_sampler", None)
    marks = {
        "loader": type(loader).__name__,
        "dataset": None if dataset is None else type(dataset).__name__,
        "length": _length(dataset if dataset is not None else loader),
        "batch_size": getattr(loader, "batch_size", None) or getattr(batch_sampler, "batch_size", None),
        "sampler": _kind(getattr(loader, "sampler", None)),
        "batch_sampler": _kind(batch_sampler),
        "drop_last": getattr(loader, "drop_last", None),
        "num_workers": getattr(loader, "num_workers", None),
        "collate": getattr(getattr(loader, "collate_fn", None), "__name__", None),
    }
    return {name: mark for name, mark in marks.items() if mark is not None}


def _kind(value: object) -> str | None:
    return None if value is None else type(value).__name__


def _length(value: object) -> int | None:
    try:
        return len(value)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # an IterableDataset
        return None
