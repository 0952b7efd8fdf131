"""Background saving: how long the training is blocked, the memory that takes, and how it slows the steps beside it."""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import async_save

import loadstone
from benchmarks import memory
from benchmarks.cases import Figure
from benchmarks.timing import interleaved
from loadstone.training.background import Background
from loadstone.training.snapshot import Snapshot

WIDTH = 1024
PATIENCE = 200  # steps

SAVER = """
import sys, warnings
from pathlib import Path
from benchmarks import stall
saver, folder = sys.argv[1:]
state = stall.state(5)
save = stall.SAVERS[saver](Path(folder))
print("ready", flush=True)
sys.stdin.readline()
save(state)
print("done", flush=True)
sys.stdin.readline()
"""


def state(blocks: int, width: int = WIDTH) -> dict[str, Any]:
    """A model of blocks with two matrices each, and the state of Adam; five blocks of 1024 make 504 MB."""
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(width, 4 * width), nn.Linear(4 * width, width)) for _ in range(blocks))
    )
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}


def tensors(content: dict[str, Any]) -> list[torch.Tensor]:
    """All tensors of such a state."""
    parameters = content["optimizer_state_dict"]["state"].values()
    return [*content["model_state_dict"].values(), *(tensor for each in parameters for tensor in each.values())]


def memcpy(content: dict[str, Any]) -> Callable[[], object]:
    """The floor: the same bytes into memory that is there, in one thread, with all addresses looked up beforehand."""
    sources = tensors(content)
    targets = [torch.zeros_like(tensor) for tensor in sources]
    moves = [(a.data_ptr(), b.data_ptr(), b.nbytes) for a, b in zip(targets, sources, strict=True)]

    def run() -> object:
        for move in moves:
            ctypes.memmove(*move)
        return targets

    return run


def save_by_loadstone(folder: Path) -> Callable[[dict[str, Any]], object]:
    """In the background, and wait for it."""

    def run(content: dict[str, Any]) -> object:
        background = Background[object]()
        background.submit(content, lambda copied: loadstone.save(copied, folder / "a.pth"))
        background.wait()
        return background

    return run


def save_by_dcp(folder: Path) -> Callable[[dict[str, Any]], object]:
    """torch.distributed.checkpoint in one process, and wait for it."""
    return lambda content: begin_dcp(content, folder).result()


SAVERS = {"loadstone": save_by_loadstone, "dcp.async_save": save_by_dcp}


def begin_dcp(content: dict[str, Any], folder: Path) -> Any:
    """What async_save returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one process, of a checkpoint that is there
        return async_save(content, checkpoint_id=folder / "dcp", no_dist=True)


def stall(folder: Path) -> list[Figure]:
    """The time until the script goes on, against a bare copy of the same bytes."""
    figures = []
    for what, content in (("504 MB in 80 tensors", state(5)), ("505 MB in 2,160 tensors", state(135, 197))):
        snapshot = Snapshot()
        flights: list[Any] = []

        def settle(flights: list[Any] = flights) -> None:
            while flights:
                flights.pop().result()

        def by_dcp(content: dict[str, Any] = content, flights: list[Any] = flights) -> None:
            flights.append(begin_dcp(content, folder))

        contenders: dict[str, Callable[[], object]] = {
            "memcpy": memcpy(content),
            "loadstone": lambda content=content, snapshot=snapshot: snapshot.take(content),  # type: ignore[misc]
            "clone": lambda content=content: [tensor.clone() for tensor in tensors(content)],  # type: ignore[misc]
        }
        if len(tensors(content)) < 100:  # it writes every state whole, which takes its time
            contenders["dcp.async_save"] = by_dcp
        timings = interleaved(contenders, before=settle, rounds=5)
        settle()
        ratio = timings["loadstone"].ratio_to(timings["memcpy"])
        beside = {
            name: f"{timings[name].ratio_to(timings['memcpy']):.2f} ×"
            for name in contenders
            if name not in ("memcpy", "loadstone")
        }
        beside["memcpy"] = f"{timings['memcpy'].median * 1000:.0f} ms"
        figures.append(Figure(f"stall, {what}", "≤ 1.2 × memcpy", f"{ratio:.2f} ×", ratio <= 1.2, beside))
    return figures


def extra_memory(folder: Path) -> list[Figure]:
    """Peak anonymous memory of a whole background save on top of the state, as a share of the state."""
    nbytes = sum(tensor.nbytes for tensor in tensors(state(5)))
    shares = {saver: extra_anonymous(saver, folder) / nbytes for saver in SAVERS}
    here = shares.pop("loadstone")
    beside = {saver: f"{share:.2f} ×" for saver, share in shares.items()}
    return [Figure("background memory", "≤ 1.05 × the state", f"{here:.3f} ×", here <= 1.05, beside)]


def extra_anonymous(saver: str, folder: Path) -> int:
    """Peak anonymous memory of a save less what there was before it, in bytes."""
    command = [sys.executable, "-c", SAVER, saver, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        before = peak = memory.anonymous(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        while not memory.readable(child):
            peak = max(peak, memory.anonymous(child.pid))
            time.sleep(0.0005)
        child.stdin.write("end\n")
        child.stdin.flush()
    return peak - before


def slowdown(folder: Path) -> list[Figure]:
    """Steps of a small network while a save is under way, against steps without one.  Reported; the cores decide."""
    content = state(5)
    model = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.rand(64, 512)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        return time.perf_counter() - start

    background = Background[object]()
    quiet, busy = [step() for _ in range(PATIENCE)][10:], []
    for number in range(5):
        background.submit(content, lambda copied, number=number: loadstone.save(copied, folder / f"{number}.pth"))  # type: ignore[misc]
        while background.is_busy:
            busy.append(step())
        background.wait()
        (folder / f"{number}.pth").unlink()
    background.close()
    p50, p99 = (share(busy, part) / share(quiet, part) - 1 for part in (50, 99))
    return [
        Figure(
            "steps during a save", "reported", f"{p50:+.0%} (p50), {p99:+.0%} (p99)", True, {"steps": f"{len(busy)}"}
        )
    ]


def share(seconds: list[float], percent: int) -> float:
    """A percentile."""
    return statistics.quantiles(seconds, n=100)[percent - 1]


def all_figures(folder: Path) -> list[Figure]:
    """Every case of this file."""
    return [*stall(folder), *extra_memory(folder), *slowdown(folder)]
