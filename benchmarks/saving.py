"""Saves that are on the device when they return: against writing the same bytes bare and flushing them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import safetensors.torch
import torch

import loadstone
from benchmarks.cases import Bars, Figure
from benchmarks.timing import interleaved
from loadstone.as_torch import memory_of

BUDGETS = {"not read back": 1.25, "read back": 1.6}
OTHERS: dict[str, tuple[str, Callable[..., object]]] = {
    ".pth": ("torch.save", torch.save),
    ".safetensors": ("safetensors", safetensors.torch.save_file),
}
_TENSORS, _ELEMENTS = 50, 2_500_000  # 500 MB
_PIECE_NBYTES = 8 * 1024 * 1024


def save_durably(folder: Path) -> tuple[list[Figure], list[Bars]]:
    """Every contender writes 500 MB to a new file."""
    state = {f"layer{number}.weight": torch.randn(_ELEMENTS) for number in range(_TENSORS)}
    figures, bars = [], []
    for suffix, (other, write) in OTHERS.items():
        path = folder / f"saved{suffix}"
        contenders: dict[str, Callable[[], object]] = {
            "bare write and fsync": partial(bare_write, state, path),
            "not read back": partial(loadstone.save, state, path, verify=False),
            "read back": partial(loadstone.save, state, path),
            f"{other}, not flushed": partial(write, state, path),
            f"{other} and fsync": partial(flushed, write, state, path),
        }
        timings = interleaved(contenders, before=partial(path.unlink, missing_ok=True))
        floor = timings.pop("bare write and fsync")
        others = {name: f"{timings[name].ratio_to(floor):.2f} ×" for name in timings if name not in BUDGETS}
        for name, budget in BUDGETS.items():
            ratio = timings[name].ratio_to(floor)
            what = f"durable save, {suffix}, {name}"
            figures.append(
                Figure(what, f"≤ {budget} × the bare write and fsync", f"{ratio:.2f} ×", ratio <= budget, others)
            )
        seconds = {"bare write and fsync": floor.median} | {name: timing.median for name, timing in timings.items()}
        bars.append(Bars(f"to the device, {suffix}", "save", seconds))
    return figures, bars


def bare_write(state: dict[str, torch.Tensor], path: Path) -> None:
    """The same bytes, without a format, to the device."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for tensor in state.values():
            data = memory_of(tensor)
            for start in range(0, data.nbytes, _PIECE_NBYTES):
                os.write(descriptor, data[start : start + _PIECE_NBYTES])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flushed(write: Callable[..., object], state: dict[str, torch.Tensor], path: Path) -> None:
    """What another library writes, and fsync."""
    write(state, path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
