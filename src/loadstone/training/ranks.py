"""The processes of one training, as torchrun starts them: one of them writes, and all go on from the same place.

With DistributedDataParallel every process has the same weights and the same optimizer state, and generators and a part
of the data of its own.  So rank 0 writes for all, and what is each one's own is gathered into its checkpoint.  Clocks
and signals differ: whether it is time to save or to end is asked between two batches, and one yes is everybody's.

What they say to each other goes over gloo, beside the gradients, so that no GPU is waited for.  Processes that do not
share a directory have nothing to do with each other, and neither have those that only ever call `save`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
import torch.distributed as dist

from loadstone.errors import Diagnostic, Fix, IntegrityError, LoadstoneError

T = TypeVar("T")


@final
class Ranks:
    """This process among those that train together; alone until `join` finds others.

    Attributes:
        rank: its number; 0 writes.
        count: how many there are.
    """

    def __init__(self) -> None:
        self.rank = 0
        self.count = 1
        self._group: Any = None
        self._is_asked = False

    def join(self, run: str) -> None:
        """Find the other processes that have the same `run`; all of them have to call it.  Once, and not again."""
        if self._is_asked or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            return
        self._is_asked = True
        group: Any = dist.new_group(backend="gloo")
        runs: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(runs, run, group)
        if all(each == run for each in runs):
            self._group, self.rank, self.count = group, dist.get_rank(), len(runs)

    def any_of(self, *claims: bool) -> tuple[bool, ...]:
        """For each claim, whether it holds in some process."""
        if self._group is None:
            return claims
        found = torch.tensor(claims, dtype=torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX, self._group)
        return tuple(bool(each) for each in found)

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, by rank, for the one that writes; for the others their own."""
        if self._group is None:
            return [value]
        found: list[Any] = [None] * self.count
        dist.gather_object(value, found if self.rank == 0 else None, dst=0, group=self._group)
        return found if self.rank == 0 else [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, for all; what it raises is raised everywhere."""
        if self._group is None:
            return make()
        said: list[Any] = [None, None]
        error: LoadstoneError | None = None
        if self.rank == 0:
            try:
                said[0] = make()
            except LoadstoneError as raised:
                error, said[1] = raised, raised.diagnostics
        dist.broadcast_object_list(said, src=0, group=self._group)
        if error is not None:
            raise error
        if said[1] is not None:
            raise IntegrityError(*said[1], summary="as rank 0 says")
        made: T = said[0]
        return made

    def wait(self) -> None:
        """For all the others."""
        if self._group is not None:
            dist.barrier(self._group)


def other_count(saved: int, here: int) -> Diagnostic | None:
    """That a checkpoint is of another number of processes, each with generators and data of its own."""
    if saved == here:
        return None
    message = f"the checkpoint is of {saved} process{'es' * (saved > 1)} that train together, here {_are(here)}"
    fix = Fix("go on with another number; the unfinished epoch begins anew", 'run.resume(strict="transfer")')
    return Diagnostic("resume-differs", message, fixes=(fix,))


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
