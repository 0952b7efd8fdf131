"""Runs on disk, made by the real writer of folders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from loadstone.model.folder import write_folder
from loadstone.runs.names import free_path


def write(folder: Path, epoch: int, *, step: int | None = None, batch: int = 0, name: str = "net", **metrics: float):
    """One checkpoint of a run as a folder; its values are those of its epoch."""
    path = free_path(folder, name, epoch=epoch, step=step, suffix="")
    done = epoch * 100 if step is None else step
    training = {"name": name, "epoch": epoch, "step": done, "batch": batch, "metrics": metrics, "config": {}}
    state = {"fc.weight": torch.full((64, 50), float(epoch)), "fc.bias": torch.full((64,), float(epoch))}
    write_folder({"epoch": epoch, "model_state_dict": state}, path, training=training)
    return path


def flip(path: Path, at: int) -> None:
    """Turn one bit of a file, as a device does: whatever its permissions, and for every name that it has."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        bits = file.read(1)[0]
        file.seek(at)
        file.write(bytes([bits ^ 4]))
    path.chmod(mode)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The makers above, for tests to call."""
    return SimpleNamespace(write=write, flip=flip)


@pytest.fixture
def run(tmp_path):
    """A run of four epochs; the second has the smallest loss."""
    for epoch, loss in enumerate((0.9, 0.1, 0.5, 0.4), start=1):
        write(tmp_path, epoch, loss=loss)
    return tmp_path
