"""Run all harnesses and write docs/reliability.md; the exit status is 1 where Loadstone broke a promise."""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch

from reliability import crashes, damage, faults, full_disk, killing, peers, power, report
from reliability.contenders import FOLK, OURS, STEPS, Contender
from reliability.recording import IncompleteRecordingError, record
from reliability.tracing import MissingStraceError

_SAMPLE = 20  # of other people's crash states one in so many is loaded: far more of them are visible


def main() -> int:
    """The quick harnesses first; some minutes."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer kills, faults and damaged files; some two minutes")
    is_quick: bool = parser.parse_args().quick
    torch.set_num_threads(1)
    logging.disable()
    warnings.simplefilter("ignore")  # of other people's code over damaged files
    others, missing = peers.installed()
    results = report.Results([*OURS, *FOLK, *others], not_run=[*missing])
    _step("errors at every call", lambda: _faults(results, is_quick))
    _step("kills at every call", lambda: _kills(results, is_quick))
    report.write(results, is_quick=is_quick)  # a run that is broken off leaves what it has
    _step("full disk", lambda: _full(results, is_quick))
    _step("power cuts, mounted", lambda: _power(results))
    _step("damage", lambda: results.damages.extend(damage.all_damages(300 if is_quick else 3400)))
    _step("power cuts, recorded", lambda: _crashes(results, is_quick))
    for line in results.not_run:
        print(f"not run: {line}")
    for line in results.broken:
        print(f"✗ {line}")
    report.write(results, is_quick=is_quick)
    print("written: docs/reliability.md")
    return 1 if results.broken else 0


def _step(name: str, run: Callable[[], None]) -> None:
    start = time.monotonic()
    run()
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def _crashes(results: report.Results, is_quick: bool) -> None:
    for contender in results.contenders:
        try:
            one_in = 1 if contender.is_ours else _SAMPLE * (5 if is_quick else 1)
            journal = record(contender, STEPS if contender.is_ours else 2)
            results.crashes[contender.name] = crashes.explore(journal, contender, one_in=one_in)
        except (IncompleteRecordingError, MissingStraceError, subprocess.SubprocessError, RuntimeError) as error:
            results.not_run.append(f"recording {contender.name}: {error}")


def _faults(results: report.Results, is_quick: bool) -> None:
    for contender in OURS:
        results.faults += faults.faults(contender, ["EIO"] if is_quick else faults.ERRORS)


def _kills(results: report.Results, is_quick: bool) -> None:
    every = 4 if is_quick else 1
    for contender in OURS:
        results.kills += killing.at_disk_calls(contender, every=every)
        if shutil.which("strace"):
            results.kills += killing.at_system_calls(contender, every=every)
    if not shutil.which("strace"):
        results.not_run.append("kills at system calls: strace is not installed")


def _full(results: report.Results, is_quick: bool) -> None:
    try:
        results.filled += [full_disk.fill(contender, every=6 if is_quick else 1) for contender in OURS]
    except full_disk.NotRootError as error:
        results.not_run.append(f"full disk: {error}")


def _power(results: report.Results) -> None:
    contenders: tuple[Contender, ...] = tuple(results.contenders)
    for system, command in power.SYSTEMS.items():
        if not shutil.which(command[0]):
            results.not_run.append(f"power cuts on {system}: {command[0]} is not installed")
            continue
        try:
            results.cuts += power.cuts(contenders, system)
        except full_disk.NotRootError as error:
            results.not_run.append(f"power cuts on {system}: {error}")


if __name__ == "__main__":
    sys.exit(main())
