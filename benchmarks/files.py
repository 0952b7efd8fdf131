"""The model and the files that are measured: made afresh, so that nothing has to be downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

LAYERS = 12
WIDTH = 1024


def model() -> nn.Module:
    """A stack of transformer-like blocks, 100.8 M float32 parameters, initialised (so its memory is touched)."""
    blocks = []
    for _ in range(LAYERS):
        blocks += [nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)]
    return nn.Sequential(*blocks)


def model_on_meta() -> nn.Module:
    """The same without memory."""
    with torch.device("meta"):
        return model()


def write(folder: Path) -> dict[str, Path]:
    """One set of values in the three file formats, by the format's name."""
    torch.manual_seed(0)
    state = model().state_dict()
    paths = {name: folder / f"{name}.{'safetensors' if name == 'safetensors' else 'pth'}" for name in FORMATS}
    torch.save(state, paths["torch zip"])
    torch.save(state, paths["torch legacy"], _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, paths["safetensors"])
    return paths


FORMATS = ("torch zip", "torch legacy", "safetensors")


def write_5_gb(folder: Path) -> dict[str, Path]:
    """A torch zip and a safetensors file of 5 GB, real headers and holes for data; they take no space on the disk."""
    shapes = {f"layers.{layer}.weight": (4096, 3052) for layer in range(100)}
    zip_path, safetensors_path = folder / "5GB.pth", folder / "5GB.safetensors"
    with torch.serialization.skip_data():
        torch.save({key: torch.empty(shape) for key, shape in shapes.items()}, zip_path)
    header, position = {}, 0
    for key, (rows, columns) in shapes.items():
        stop = position + 4 * rows * columns
        header[key] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(safetensors_path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
    return {"torch zip": zip_path, "safetensors": safetensors_path}


class ManyKeys(nn.Module):
    """A model of `keys` small tensors, nested as real ones are."""

    def __init__(self, keys: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(4, 4) for name in ("query", "key", "value", "out", "up")})
            for _ in range(keys // 10)
        )
