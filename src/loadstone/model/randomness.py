"""The state of every source of random numbers that a model may draw from: torch, its GPUs, Python, numpy."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch


def random_state() -> tuple[Any, ...]:
    """What `restore` takes."""
    numpy = sys.modules.get("numpy")
    return (
        torch.random.get_rng_state(),
        torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        random.getstate(),
        None if numpy is None else numpy.random.get_state(),
    )


def restore(state: tuple[Any, ...]) -> None:
    """Every source gives the numbers again that it gave after `random_state`."""
    cpu, gpus, python, numpy = state
    torch.random.set_rng_state(cpu)
    if gpus:
        torch.cuda.set_rng_state_all(gpus)
    random.setstate(python)
    if numpy is not None:
        sys.modules["numpy"].random.set_state(numpy)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Whatever the block draws, the numbers after it are those that would have come without it."""
    state = random_state()
    try:
        yield
    finally:
        restore(state)
