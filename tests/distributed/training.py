"""What each rank does in test_training.py, under torchrun: trainings that are stopped and go on, and one that is not.

torchrun --standalone --nproc-per-node 2 training.py DIRECTORY
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank import wait_for_all
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import loadstone as ls

EPOCHS = 3


class Training:
    """A model with dropout, which draws from another generator on every rank, and a part of the data for each."""

    def __init__(self, folder: Path, rank: int, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 7), nn.Dropout(0.3), nn.Linear(7, 1)))
        torch.manual_seed(100 + rank)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        data = TensorDataset(torch.arange(48.0).reshape(24, 2).repeat(1, 2) / 48)
        loader = DataLoader(data, batch_size=3, sampler=DistributedSampler(data, seed=5))
        self.optimizer = optimizer
        self.run = ls.Run(folder, name="net", model=self.model, optimizer=optimizer, data=loader, **options)
        self.seen: list[torch.Tensor] = []

    def steps(self) -> Iterator[int]:
        """The numbers of the batches, each after its step."""
        for _ in self.run.epochs(EPOCHS):
            for (x,) in self.run.batches():
                self.seen.append(x)
                self.optimizer.zero_grad()
                self.model(x).square().sum().backward()
                self.optimizer.step()
                yield self.run.step
            self.run.save(loss=1.0)

    def leave(self, path: Path) -> None:
        torch.save({"weights": self.model.module.state_dict(), "seen": self.seen}, path)


def stopped_and_resumed(directory: Path, rank: int) -> None:
    """One that is never stopped, and one that stops in the middle of its second epoch."""
    whole = Training(directory / "whole", rank)
    for _ in whole.steps():
        pass
    whole.run.close()
    whole.leave(directory / f"whole-{rank}.pth")

    first = Training(directory / "parted", rank)
    for step in first.steps():
        if step == 6:
            path = first.run.save()
            break
    first.run.close()
    (directory / f"path-{rank}").write_text(str(path))

    second = Training(directory / "parted", rank)
    at = second.run.resume()
    (directory / f"resumed-{rank}").write_text(f"{at.epoch} {at.step} {at.batch}")
    for _ in second.steps():
        pass
    second.run.close()
    second.seen = [*first.seen, *second.seen]
    second.leave(directory / f"parted-{rank}.pth")


def asked_to_end(directory: Path, rank: int) -> None:
    """Rank 1 alone gets SIGTERM; a handler of before keeps the processes alive, and notes that it was called."""
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: calls.append(training.run.step))
    training = Training(directory / "ended", rank, every="1000 steps")
    for step in training.steps():
        if step == 2 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if step == 4:
            break
    training.run.close()
    (directory / f"ended-{rank}").write_text(str(calls))


def apart(directory: Path, rank: int) -> None:
    """Each rank has a directory of its own, and so a training of its own."""
    training = Training(directory / f"apart-{rank}", rank)
    for _ in training.run.epochs(1):
        training.run.save()
    training.run.close()


def refused(directory: Path, rank: int) -> None:
    try:
        Training(directory / "whole", rank).run.resume(checkpoint="nothing.pth")
    except ls.LoadstoneError as error:
        (directory / f"refused-{rank}").write_text(error.code)


def sharded(directory: Path, rank: int) -> None:
    """A rank of FSDP has a part of every weight."""
    model = nn.Linear(4, 8)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    try:
        ls.Run(directory / "sharded", model=model, name="net")
    except ls.RecipeError as error:
        (directory / f"sharded-{rank}").write_text(str(error))


def main(directory: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for each in (stopped_and_resumed, asked_to_end, apart, refused, sharded):
        each(directory, rank)
    wait_for_all(directory, rank, dist.get_world_size())


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    os._exit(0)  # as in rank.py
