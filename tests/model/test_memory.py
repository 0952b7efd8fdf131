"""Loading takes no second copy: what it needs beside the model does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

PROGRAM = """
import sys, threading
import torch
from torch import nn
import loadstone as ls
import loadstone.model.load

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

def extra(path, dtype):
    model = nn.Module()
    for number in range(6):
        parameter = nn.Parameter(torch.zeros(25, 500_000, dtype=getattr(torch, dtype)))
        model.register_parameter(f"p{number}", parameter)
    ls.plan(model, path)  # imports and first uses
    before = peak = anonymous()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    ls.load(model, path)
    done.set()
    watcher.join()
    assert all(float(parameter.min()) == 1.0 for parameter in model.parameters())
    return peak - before

for case in sys.argv[1:]:
    print(extra(*case.split("=")))
"""


def test_extra_memory_of_a_load_stays_below_64_mib(tmp_path: Path) -> None:
    state = {f"p{number}": torch.ones(25, 500_000) for number in range(6)}  # 300 MB
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "m.safetensors")
    cases = ["zip.pth=float32", "legacy.pth=float32", "m.safetensors=float32", "zip.pth=bfloat16"]
    command = [sys.executable, "-c", PROGRAM, *(str(tmp_path / case) for case in cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    for path in tmp_path.iterdir():
        path.unlink()
    assert done.returncode == 0, done.stderr
    peaks = dict(zip(cases, map(int, done.stdout.split()), strict=True))
    assert {case: peak for case, peak in peaks.items() if peak >= 64 * 2**20} == {}
