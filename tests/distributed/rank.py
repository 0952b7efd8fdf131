"""What each rank does, under torchrun; run by test_ranks.py.  What came out of it is left in the directory named.

torchrun --standalone --nproc-per-node 2 rank.py DIRECTORY
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import loadstone as ls


def network(seed: int) -> nn.Module:
    """Rows that two ranks share unevenly, a buffer, and a tensor with fewer rows than ranks."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))


def load_into_ddp(directory: Path, name: str, rank: int) -> None:
    """A rank that starts from weights of its own loads the file, and takes a step with the others."""
    model = DistributedDataParallel(network(seed=10 + rank))
    ls.load(model, directory / name)
    torch.save(model.module.state_dict(), directory / f"loaded-{name}-{rank}")
    model(torch.full((3, 4), float(rank)) + torch.arange(3.0)[:, None]).square().sum().backward()
    torch.save([parameter.grad for parameter in model.parameters()], directory / f"gradients-{name}-{rank}")


def save_sharded(directory: Path) -> None:
    """FSDP's shards of a model and its optimizer after one step, and tensors cut in other ways."""
    model = network(seed=3)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(12.0).reshape(3, 4)).square().sum().backward()
    optimizer.step()
    weights, moments = get_state_dict(model, optimizer)
    table = torch.arange(30.0).reshape(5, 6).to(torch.bfloat16)
    tables = {
        "columns": distribute_tensor(table, mesh, [Shard(1)]),
        "copies": distribute_tensor(table, mesh, [Replicate()]),
        "plain": table,
    }
    dcp.save({"model": weights, "optimizer": moments, "tables": tables, "step": 1}, checkpoint_id=directory / "sharded")


def main(directory: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for name in ("plain.pth", "module.pth"):
        load_into_ddp(directory, name, rank)
    save_sharded(directory)
    wait_for_all(directory, rank, dist.get_world_size())


def wait_for_all(directory: Path, rank: int, ranks: int) -> None:
    """No rank leaves while another may still talk to it."""
    (directory / f"done-{rank}").touch()
    for _ in range(600):
        if all((directory / f"done-{other}").exists() for other in range(ranks)):
            return
        time.sleep(0.05)
    raise TimeoutError("the other ranks did not come to their end")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    # All is on disk.  Taking gloo's threads down aborts a process now and then ("terminate called without an active
    # exception"), which says nothing about what is tested here: leave without it.
    os._exit(0)
