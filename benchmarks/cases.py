"""What is measured, each case with its budget and with what a person would use today beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

import loadstone
from benchmarks import files, memory
from benchmarks.loaders import LOADERS, bare_read
from benchmarks.timing import interleaved

MIB = 1024**2


@dataclass(frozen=True)
class Figure:
    """One line of the table: a figure against its budget, and what else was measured in the same run."""

    what: str
    budget: str
    here: str
    holds: bool
    beside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bars:
    """One group of the plot: seconds by contender.  Groups of one scale are drawn to the same length."""

    title: str
    scale: str
    seconds: dict[str, float]


def load_built(paths: dict[str, Path]) -> tuple[list[Figure], list[Bars]]:
    """Into a model that has its memory, against reading the same bytes into that memory."""
    figures, bars = [], []
    for name, path in paths.items():
        model = files.model()
        expected = next(iter(torch.load(paths["torch zip"], mmap=True).values())).clone()
        contenders: dict[str, Callable[[], object]] = {
            "bare read": bare_read(model, path),
            **{
                loader: partial(LOADERS[loader], model, str(path))
                for loader in LOADERS
                if usable(loader, name, assign=False)
            },
        }
        timings = interleaved(contenders, before=partial(zero, model))
        assert torch.equal(next(iter(model.state_dict().values())), expected)
        ratio = timings["loadstone"].ratio_to(timings["bare read"])
        beside = {f"{other}": f"{timing.ratio_to(timings['bare read']):.2f} ×" for other, timing in timings.items()}
        del beside["loadstone"], beside["bare read"]
        figures.append(Figure(f"load, {name}", "≤ 1.25 × the bare read", f"{ratio:.2f} ×", ratio <= 1.25, beside))
        bars.append(
            Bars(f"into a built model, {name}", "built", {key: timing.median for key, timing in timings.items()})
        )
    return figures, bars


def load_built_memory(paths: dict[str, Path]) -> list[Figure]:
    """The memory a load into a built model takes on top of the model."""
    figures = []
    for name, path in paths.items():
        peaks = {
            loader: memory.extra_anonymous(loader, path) / MIB
            for loader in LOADERS
            if usable(loader, name, assign=False)
        }
        here = peaks.pop("loadstone")
        beside = {loader: f"{peak:.0f} MiB" for loader, peak in peaks.items()}
        figures.append(Figure(f"extra memory, {name}", "≤ 64 MiB", f"{here:.0f} MiB", here <= 64, beside))
    return figures


def load_meta(paths: dict[str, Path]) -> tuple[list[Figure], list[Bars]]:
    """Onto a model on meta, against mapping a torch zip with assign=True, which is as lazy as torch gets."""
    reference = "torch.load(mmap=True), assign=True"
    target: dict[str, nn.Module] = {}

    def onto(loader: str, path: Path) -> Callable[[], object]:
        return lambda: LOADERS[loader](target["model"], str(path))

    contenders = {f"loadstone, {name}": onto("loadstone", path) for name, path in paths.items()}
    contenders[reference] = onto(reference, paths["torch zip"])
    contenders["safetensors, assign=True"] = onto("safetensors, assign=True", paths["safetensors"])
    timings = interleaved(contenders, before=lambda: target.update(model=files.model_on_meta()), rounds=15)
    floor = timings[reference]
    beside = {"safetensors, assign=True": f"{timings['safetensors, assign=True'].ratio_to(floor):.2f} ×"}
    figures = []
    for name in paths:
        ratio = timings[f"loadstone, {name}"].ratio_to(floor)
        budget = "≤ 1.1 × torch.load(mmap=True) of the torch zip, assign=True"
        figures.append(Figure(f"load onto meta, {name}", budget, f"{ratio:.2f} ×", ratio <= 1.1, beside))
    return figures, [Bars("onto a model on meta", "meta", {key: timing.median for key, timing in timings.items()})]


def inspect(folder: Path) -> list[Figure]:
    """The whole process `loadstone inspect` on 5 GB, beside a process that lists the keys with torch."""
    figures = []
    for name, path in files.write_5_gb(folder).items():
        seconds, nbytes = memory.whole_process([sys.executable, "-m", "loadstone", "inspect", str(path)])
        beside = {}
        if name == "torch zip":
            listing = f"import torch; print(*torch.load({str(path)!r}, mmap=True))"
            other, other_nbytes = memory.whole_process([sys.executable, "-c", listing], rounds=3)
            beside["torch.load(mmap=True)"] = f"{other * 1000:,.0f} ms, {other_nbytes / MIB:.0f} MiB"
        holds = seconds <= 0.25 and nbytes <= 60 * MIB
        here = f"{seconds * 1000:.0f} ms, {nbytes / MIB:.0f} MiB"
        figures.append(Figure(f"inspect of 5 GB, whole process, {name}", "≤ 250 ms, ≤ 60 MiB", here, holds, beside))
    return figures


def plan(folder: Path) -> list[Figure]:
    """A plan of 30,000 keys from an open file for a model on meta, and how it grows."""
    contenders: dict[str, Callable[[], object]] = {}
    for keys in (7_500, 30_000):
        with torch.device("meta"):
            model = files.ManyKeys(keys)
        path = folder / f"{keys}.pth"
        torch.save({f"module.{key}": torch.zeros(tensor.shape) for key, tensor in model.state_dict().items()}, path)
        checkpoint = loadstone.open(path)
        assert len(checkpoint.weights) == keys
        contenders[str(keys)] = partial(loadstone.plan, model, checkpoint)
    timings = interleaved(contenders, rounds=5)
    seconds, growth = timings["30000"].median, timings["30000"].ratio_to(timings["7500"])
    return [
        Figure("plan of 30,000 keys", "≤ 1 s", f"{seconds:.2f} s", seconds <= 1),
        Figure("plan, 4 times the keys", "linear: ≤ 5 × the time", f"{growth:.1f} ×", growth <= 5),
    ]


def usable(loader: str, name: str, *, assign: bool) -> bool:
    """The loader can read this format; torch maps no legacy file."""
    if ("assign" in loader) != assign and loader != "loadstone":
        return False
    if name == "safetensors":
        return loader.startswith(("loadstone", "safetensors"))
    return not loader.startswith("safetensors") and not (name == "torch legacy" and "mmap" in loader)


def zero(model: nn.Module) -> None:
    """Make sure that a load that did nothing would show."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
