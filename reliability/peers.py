"""Checkpoint writers of other projects, those that are installed beside torch; the harnesses run without them.

They are looked for on the path and in the directory that LOADSTONE_PEERS names, where they can be put without their
dependencies (`pip install --no-deps --target DIR pytorch-ignite moonclip`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reliability.contenders import FOLK, OURS, Contender, content, newest, torch_load

if folder := os.environ.get("LOADSTONE_PEERS"):
    sys.path.append(folder)

_kept: dict[tuple[str, Path], Any] = {}  # a manager lives as long as its run


class _Holder:
    """What ignite asks of an object that it saves."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Tensor]:
        return self.tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors


def _ignite_save(folder: Path, step: int) -> None:
    engines, handlers = importlib.import_module("ignite.engine"), importlib.import_module("ignite.handlers")
    if ("ignite", folder) not in _kept:
        holder = _Holder()
        saver = handlers.DiskSaver(str(folder), require_empty=False)
        handler = handlers.Checkpoint({"model": holder}, saver, n_saved=1)
        _kept["ignite", folder] = holder, handler, engines.Engine(lambda engine, batch: None)
    holder, handler, engine = _kept["ignite", folder]
    holder.tensors = content(step)
    engine.state.iteration = engine.state.epoch = step
    handler(engine)


def _moonclip(folder: Path) -> Any:
    if ("moonclip", folder) not in _kept:
        manager = importlib.import_module("moonclip").MoonclipManager
        _kept["moonclip", folder] = manager(storage_root=str(folder / "store"), async_save=False)
    return _kept["moonclip", folder]


def _moonclip_save(folder: Path, step: int) -> None:
    _moonclip(folder).save_tensors(step, content(step))
    _moonclip(folder).flush()


def _moonclip_load(folder: Path) -> Mapping[str, Tensor]:
    manager = importlib.import_module("moonclip").MoonclipManager(storage_root=str(folder / "store"), async_save=False)
    _, values = manager.load_latest()
    return {
        key: torch.frombuffer(values[key], dtype=value.dtype).reshape(value.shape) for key, value in content(1).items()
    }


_PEERS = {
    "ignite": Contender(
        "ignite Checkpoint, n_saved=1",
        _ignite_save,
        lambda folder: torch_load(newest(folder, "model_*.pt")),
        package="pytorch-ignite",
    ),
    "moonclip": Contender("moonclip", _moonclip_save, _moonclip_load, package="moonclip"),
}


def installed() -> tuple[tuple[Contender, ...], tuple[str, ...]]:
    """The peers that can be imported, and a line for each one that cannot."""
    found, missing = [], []
    for module, contender in _PEERS.items():
        try:
            importlib.import_module(module)
            found.append(contender)
        except ImportError as error:
            missing.append(f"{contender.name}: {error}")
    return tuple(found), tuple(missing)


def contender_named(name: str) -> Contender:
    """The contender of that name."""
    return next(each for each in (*OURS, *FOLK, *_PEERS.values()) if each.name == name)
