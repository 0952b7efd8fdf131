"""docs/benchmarks.md and docs/benchmarks.svg from the figures of one run."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import matplotlib
import torch

matplotlib.use("svg")

from benchmarks.cases import Bars, Figure

DOCS = Path(__file__).resolve().parent.parent / "docs"
HERE, OTHERS, FLOOR = "#0b6e4f", "#b8bec7", "#5c6773"

PAGE = """# Benchmarks

Written by `make bench`; every figure is from one run of it, on {machine}.
The page cache is warm: every file was read just before, so this is the cost of the software, not of a disk.
A ratio is the median of the ratios within each round; contenders take turns in every round, and who is first changes.

The model is {layers} blocks of LayerNorm, Linear 1024 → 4096, GELU and Linear 4096 → 1024: {parameters:.1f} M float32
parameters, {nbytes:.0f} MB, in three file formats with the same values.
*Bare read* is `readinto` of the same bytes into the same memory, with places and buffers looked up beforehand.

| what | budget | here | | beside it, in the same run |
| --- | --- | --- | --- | --- |
{rows}

![Seconds by way of loading](benchmarks.svg)

- *Extra memory* is the peak of anonymous memory during the load less what the process had before it, polled from
  outside every half millisecond.
- *Onto meta*: all of these map the file; bytes come from the disk when a parameter is first used.
- *Inspect* is the wall time and peak memory of the whole process, interpreter included. The 5 GB files have a real
  header and holes for data, which nothing here reads.
- *Plan* is for a model on meta from a file already open, every key under `module.`.
- *Stall* is how long a background save blocks the training: the copy of a model and its Adam state into memory that
  is kept. *memcpy* is a bare copy of the same bytes, in one thread, with all addresses looked up beforehand.
- Measured on the CPU only. Nothing here says anything about a GPU.
"""


def write(figures: list[Figure], bars: list[Bars], *, layers: int, parameters: int) -> None:
    """Write both files."""
    rows = "\n".join(
        f"| {each.what} | {each.budget} | **{each.here}** | {'✓' if each.holds else '✗ over'} | {beside(each)} |"
        for each in figures
    )
    page = PAGE.format(
        machine=machine(), layers=layers, parameters=parameters / 1e6, nbytes=parameters * 4 / 1e6, rows=rows
    )
    (DOCS / "benchmarks.md").write_text(page, encoding="utf-8")
    plot(bars, DOCS / "benchmarks.svg")


def beside(figure: Figure) -> str:
    """What else was measured, in one cell."""
    return "; ".join(f"{name}: {value}" for name, value in figure.beside.items())


def machine() -> str:
    """This machine in words, without its name."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}) with {gib:.0f} GiB of memory, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    )


def plot(bars: list[Bars], path: Path) -> None:
    """Horizontal bars, one panel a group, the time written at every bar."""
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "loadstone", "font.family": "sans-serif", "font.size": 9})
    heights = [len(group.seconds) + 1 for group in bars]
    figure, panels = pyplot.subplots(
        len(bars), 1, figsize=(7.5, 0.3 * sum(heights)), gridspec_kw={"height_ratios": heights}, layout="constrained"
    )
    for panel, group in zip(panels, bars, strict=True):
        names = list(group.seconds)
        values = [group.seconds[name] * 1000 for name in names]
        colors = [HERE if "loadstone" in name else FLOOR if name == "bare read" else OTHERS for name in names]
        panel.barh(names, values, color=colors, height=0.7)
        panel.invert_yaxis()
        panel.set_title(group.title, loc="left", fontsize=10, fontweight="bold")
        longest = 1000 * max(max(other.seconds.values()) for other in bars if other.scale == group.scale)
        panel.set_xlim(0, longest * 1.15)
        panel.xaxis.set_visible(False)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        for place, value in enumerate(values):
            text = f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
            panel.text(value + longest * 0.01, place, text, va="center")
    figure.savefig(path, metadata={"Date": None})
