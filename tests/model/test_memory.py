"""Loading takes no second copy: what it needs beside the model does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
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

path, dtype = sys.argv[1:3]
model = nn.Module()
for number in range(6):
    parameter = nn.Parameter(torch.zeros(25, 500_000, dtype=getattr(torch, dtype)))
    model.register_parameter(f"p{number}", parameter)
ls.plan(model, path)  # imports and first uses
before = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
ls.load(model, path)
done.set()
watcher.join()
assert all(float(parameter.min()) == 1.0 for parameter in model.parameters())
print(peak - before)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 MB of ones in three formats."""
    folder = tmp_path_factory.mktemp("large")
    state = {f"p{number}": torch.ones(25, 500_000) for number in range(6)}
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "m.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("zip.pth", "float32"), ("legacy.pth", "float32"), ("m.safetensors", "float32"), ("zip.pth", "bfloat16")],
)
def test_extra_memory_of_a_load_stays_below_64_mib(folder: Path, name: str, dtype: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(folder / name), dtype]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 2**20
