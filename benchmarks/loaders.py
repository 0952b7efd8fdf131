"""Ways to fill a model from a file, each with the same signature: (model, path)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

import loadstone

Loader = Callable[[nn.Module, str], object]


def with_loadstone(model: nn.Module, path: str) -> None:
    """What is measured."""
    loadstone.load(model, path)


def with_torch(model: nn.Module, path: str) -> None:
    """The usual way."""
    model.load_state_dict(torch.load(path))


def with_torch_mmap(model: nn.Module, path: str) -> None:
    """The usual way without a first copy; torch refuses legacy files here."""
    model.load_state_dict(torch.load(path, mmap=True))


def with_torch_mmap_assign(model: nn.Module, path: str) -> None:
    """The usual way for a model on meta: the parameters become views of the mapped file."""
    model.load_state_dict(torch.load(path, mmap=True), assign=True)


def with_safetensors(model: nn.Module, path: str) -> None:
    """The usual way for a safetensors file."""
    model.load_state_dict(safetensors.torch.load_file(path))


def with_safetensors_assign(model: nn.Module, path: str) -> None:
    """The same for a model on meta."""
    model.load_state_dict(safetensors.torch.load_file(path), assign=True)


LOADERS: dict[str, Loader] = {
    "loadstone": with_loadstone,
    "torch.load": with_torch,
    "torch.load(mmap=True)": with_torch_mmap,
    "torch.load(mmap=True), assign=True": with_torch_mmap_assign,
    "safetensors": with_safetensors,
    "safetensors, assign=True": with_safetensors_assign,
}


def bare_read(model: nn.Module, path: Path) -> Callable[[], None]:
    """readinto of the same bytes into the same memory, places and buffers looked up beforehand: the floor."""
    places = []
    with loadstone.open(path) as checkpoint:
        for key, tensor in model.state_dict().items():
            info = checkpoint.weights[key]
            assert info.is_plain
            assert info.storage is not None
            memory = (ctypes.c_ubyte * info.nbytes).from_address(tensor.data_ptr())
            places.append((info.storage.extents[0].offset + info.byte_range()[0], memoryview(memory).cast("B")))
    places.sort(key=lambda place: place[0])

    def read() -> None:
        with open(path, "rb", buffering=0) as file:
            for offset, memory in places:
                file.seek(offset)
                done = 0
                while done < memory.nbytes:  # one call reads at most 2 GiB
                    done += file.readinto(memory[done:])

    return read
