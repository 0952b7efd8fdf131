"""The random generators that training draws from, as values that `torch.load(weights_only=True)` opens.

Python's, numpy's (where the script uses numpy), torch's on the CPU and on every GPU, and the generators that loaders
and samplers own.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch

_OWNERS = ("sampler", "batch_sampler")  # attributes of loaders and samplers that may hold a generator of their own


def generators_state(loader: object = None) -> dict[str, Any]:
    """Where every generator stands: `python`, `numpy`, `torch`, `cuda`, and `loader` for those that it owns."""
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": {"version": version, "state": torch.tensor(internal, dtype=torch.int64), "gauss": gauss},
        "torch": torch.random.get_rng_state(),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, key, position, has_gauss, gauss = numpy.random.get_state()
        state["numpy"] = {
            "name": str(name),
            "state": torch.tensor(key.tolist(), dtype=torch.int64),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    own = [generator.get_state() for generator in own_generators(loader)]
    if own:
        state["loader"] = own
    return state


def put_generators(state: dict[str, Any]) -> None:
    """Set the generators that all code shares; those of a loader stay (`put_own_generators`)."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["state"].tolist()), python["gauss"]))
    torch.random.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy

        saved = state["numpy"]
        key = numpy.array(saved["state"].tolist(), dtype=numpy.uint32)
        numpy.random.set_state((saved["name"], key, saved["position"], saved["has_gauss"], saved["gauss"]))
    if state.get("cuda") and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def put_own_generators(loader: object, states: Sequence[torch.Tensor]) -> None:
    """Set the generators that the loader and its samplers own."""
    for generator, state in zip(own_generators(loader), states, strict=True):
        generator.set_state(state)


def own_generators(loader: object) -> list[torch.Generator]:
    """Every `torch.Generator` of the loader, its samplers and what they wrap, each once."""
    found: dict[int, torch.Generator] = {}
    for owner in _owners(loader):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            found.setdefault(id(generator), generator)
    return list(found.values())


def _owners(loader: object) -> Iterable[object]:
    seen: set[int] = set()
    waiting = [loader]
    while waiting:
        owner = waiting.pop(0)
        if owner is None or id(owner) in seen:
            continue
        seen.add(id(owner))
        yield owner
        waiting += [getattr(owner, name, None) for name in _OWNERS]
