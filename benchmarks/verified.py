"""A load that is proved by the file's digests, with nothing of the file in memory: against reading it bare."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import loadstone
from benchmarks import files
from benchmarks.cases import Bars, Figure
from benchmarks.loaders import bare_read, with_safetensors, with_torch
from benchmarks.timing import interleaved

BUDGET = 1.3
OTHERS = {".pth": ("torch.load", with_torch), ".safetensors": ("safetensors", with_safetensors)}


def load_verified(folder: Path) -> tuple[list[Figure], list[Bars]]:
    """Files that `loadstone.save` wrote, read from the device each time."""
    figures, bars = [], []
    for suffix, (other, beside) in OTHERS.items():
        path = folder / f"verified{suffix}"
        loadstone.save(files.model().state_dict(), path)
        model = files.model()
        contenders: dict[str, Callable[[], object]] = {
            "bare read": bare_read(model, path),
            "loadstone, verified": partial(loadstone.load, model, path, verify=True),
            "loadstone, not verified": partial(loadstone.load, model, path, verify=False),
            f"{other}, nothing is checked": partial(beside, model, str(path)),
        }
        timings = interleaved(contenders, before=partial(forget, path))
        floor = timings.pop("bare read")
        ratio = timings["loadstone, verified"].ratio_to(floor)
        others = {name: f"{timing.ratio_to(floor):.2f} ×" for name, timing in timings.items()}
        del others["loadstone, verified"]
        what = f"verified load, {suffix}, cold"
        figures.append(Figure(what, f"≤ {BUDGET} × the bare read", f"{ratio:.2f} ×", ratio <= BUDGET, others))
        seconds = {"bare read": floor.median} | {name: timing.median for name, timing in timings.items()}
        bars.append(Bars(f"from the device, {suffix}", "cold", seconds))
    return figures, bars


def forget(path: Path) -> None:
    """Drop the file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
