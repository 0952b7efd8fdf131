"""Measure everything, print it, and write docs/benchmarks.md; the exit status is 1 where a budget does not hold."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import cases, files, report, saving, stall, structural, verified


def main() -> int:
    """Run all cases; some minutes."""
    with tempfile.TemporaryDirectory(prefix="loadstone-bench-") as name:
        folder = Path(name)
        paths = files.write(folder)
        figures = []
        built, bars = cases.load_built(paths)
        figures += show(built)
        figures += show(cases.load_built_memory(paths))
        meta, meta_bars = cases.load_meta(paths)
        figures += show(meta)
        proved, proved_bars = verified.load_verified(folder)
        figures += show(proved)
        other, other_bars = structural.load_other_implementation(folder)
        figures += show(other)
        saved, saving_bars = saving.save_durably(folder)
        figures += show(saved)
        figures += show(cases.inspect(folder))
        figures += show(cases.plan(folder))
        figures += show(structural.plan_by_structure())
        figures += show(stall.all_figures(folder))
    parameters = sum(tensor.numel() for tensor in files.model_on_meta().state_dict().values())
    all_bars = bars + meta_bars + proved_bars + other_bars + saving_bars
    report.write(figures, all_bars, layers=files.LAYERS, parameters=parameters)
    print("written: docs/benchmarks.md, docs/benchmarks.svg")
    return 0 if all(figure.holds for figure in figures) else 1


def show(figures: list[cases.Figure]) -> list[cases.Figure]:
    """Print figures as they come."""
    for each in figures:
        print(
            f"{'✓' if each.holds else '✗'} {each.what}: {each.here} ({each.budget})  {report.beside(each)}", flush=True
        )
    return figures


if __name__ == "__main__":
    sys.exit(main())
