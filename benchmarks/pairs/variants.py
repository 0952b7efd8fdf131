"""The same checkpoint and model with other names, or in another order."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_TOKEN = re.compile(r"[^./]+")
_SEED = 20


def shuffled(given: dict[str, Any]) -> dict[str, Any]:
    """The tensors in a random order."""

    def shuffle(entries: dict[str, Any]) -> dict[str, Any]:
        order = list(entries)
        random.Random(_SEED).shuffle(order)
        return {key: entries[key] for key in order}

    return _in_state_dicts(given, shuffle)


def hashed(given: dict[str, Any]) -> dict[str, Any]:
    """Names that say nothing but where they are equal."""

    def blank(token: re.Match[str]) -> str:
        return hashlib.md5(token[0].encode()).hexdigest()[:6]

    return _in_state_dicts(given, lambda entries: {_TOKEN.sub(blank, key): entries[key] for key in entries})


def _in_state_dicts(given: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Change the dicts of tensors, wherever they are wrapped in other things."""
    if given and all(isinstance(value, torch.Tensor) for value in given.values()):
        return change(given)
    return {
        key: _in_state_dicts(value, change) if isinstance(value, dict) and value else value
        for key, value in given.items()
    }


@contextmanager
def registered_otherwise(model: nn.Module) -> Iterator[None]:
    """Submodules, parameters and buffers of every module in a random order; put back at the end.

    The model cannot be run meanwhile: a Sequential calls its modules in the order they are registered.
    """
    dice = random.Random(_SEED)
    tables = [table for each in model.modules() for table in (each._modules, each._parameters, each._buffers)]
    before = [dict(table) for table in tables]
    try:
        for table, entries in zip(tables, before, strict=True):
            order = list(entries)
            dice.shuffle(order)
            _refill(table, {key: entries[key] for key in order})
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            _refill(table, entries)


def _refill(table: Any, entries: dict[str, Any]) -> None:
    table.clear()
    table.update(entries)
