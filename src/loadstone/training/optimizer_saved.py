"""An optimizer's saved state as data: groups, entries by position, and names where the file has them.

The forms in the wild: torch's own (numbers), torch's own with `param_names` (since 2.6), from before torch 1.5 with
the `id()` of each parameter, and torch.distributed.checkpoint's, whose numbers are names.  In all of them the lists
`params` of the groups say which entry is which, so that is all that is relied on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from loadstone.errors import Diagnostic, Fix, MatchError
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, Value

_PLACES = ("params", "param_names")


@dataclass(frozen=True, slots=True)
class SavedEntry:
    """What is saved for one parameter: its state by key, and the group it stands in.  Without state: an empty dict."""

    state: Mapping[str, Any]
    group: int


@dataclass(frozen=True, slots=True)
class SavedOptimizer:
    """A saved optimizer.

    Attributes:
        groups: the hyperparameters of every group.
        entries: one for each parameter, group after group.
        names: of the parameters, in the same order; None where the file has positions only.
        others: state of the optimizer that belongs to no parameter, by its key.
        extras: what stands beside `state` and `param_groups`.
    """

    groups: tuple[Mapping[str, Any], ...]
    entries: tuple[SavedEntry, ...]
    names: tuple[str, ...] | None
    others: Mapping[Any, Any]
    extras: Mapping[str, Any]

    @property
    def keys(self) -> frozenset[str]:
        """Every key that the state of some parameter has."""
        return frozenset(key for entry in self.entries for key in entry.state)

    def lengths(self) -> tuple[int, ...]:
        """How many parameters each group has."""
        counts = [0] * len(self.groups)
        for entry in self.entries:
            counts[entry.group] += 1
        return tuple(counts)


def is_optimizer_state(value: Any) -> bool:
    """A dict of the form that `Optimizer.state_dict()` gives, whatever is in it."""
    return isinstance(value, dict) and isinstance(value.get("param_groups"), (list, tuple)) and "state" in value


def read_saved(saved: Value) -> SavedOptimizer:
    """The parts of a saved optimizer, checked.

    Raises MatchError (optimizer-invalid) for what is no state of an optimizer, or contradicts itself.
    """
    if isinstance(saved, (str, os.PathLike)):
        fix = Fix(
            "open it, and keep it open until the plan was applied", "with loadstone.open(path) as checkpoint: ..."
        )
        raise MatchError(Diagnostic("optimizer-invalid", f"`{saved}` is a path, not an open checkpoint", fixes=(fix,)))
    if isinstance(saved, Opaque):
        raise _invalid(
            f"a whole {saved.class_name} was saved instead of its state_dict(), and is not built from a file"
        )
    groups, state = (saved.get("param_groups"), saved.get("state")) if isinstance(saved, Mapping) else (None, None)
    if not isinstance(groups, (list, tuple)) or not isinstance(state, Mapping):
        raise _invalid("no state of an optimizer: it needs a list `param_groups` and a dict `state`")
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple)) for group in groups):
        raise _invalid("a group of the saved optimizer has no list of parameters")
    if any(isinstance(value, Opaque) for group in groups for value in _leaves(group)):
        raise _invalid("a group of the saved optimizer holds an object that is no plain value")
    ids = [identity for group in groups for identity in group["params"]]
    if not all(isinstance(identity, (int, str)) for identity in ids):
        raise _invalid("the saved optimizer holds parameters where their numbers should be")
    if len(set(ids)) != len(ids):
        raise _invalid("the saved optimizer names a parameter twice")
    entries = []
    for number, group in enumerate(groups):
        for identity in group["params"]:
            entry = state.get(identity, {})
            if not isinstance(entry, Mapping):
                raise _invalid(f"the state of parameter {identity!r:.40} is {type(entry).__name__}, not a dict")
            if any(isinstance(value, Opaque) for value in _leaves(entry)):
                raise _invalid(f"the state of parameter {identity!r:.40} holds an object that is no plain value")
            entries.append(SavedEntry({str(key): value for key, value in entry.items()}, number))
    known = set(ids)
    others = {key: value for key, value in state.items() if key not in known}
    if any(isinstance(key, int) for key in others):
        raise _invalid("the saved optimizer has state for parameters that stand in none of its groups")
    return SavedOptimizer(
        tuple({str(key): copied(value) for key, value in group.items() if key not in _PLACES} for group in groups),
        tuple(entries),
        _names(groups, ids),
        others,
        {key: value for key, value in saved.items() if key not in ("state", "param_groups")},
    )


def _names(groups: list[Mapping[str, Any]] | tuple[Mapping[str, Any], ...], ids: list[Any]) -> tuple[str, ...] | None:
    if ids and all(isinstance(identity, str) for identity in ids):
        return tuple(ids)
    if not groups or not all("param_names" in group for group in groups):
        return None
    names: list[str] = []
    for number, group in enumerate(groups):
        own = group["param_names"]
        if not isinstance(own, (list, tuple)) or len(own) != len(group["params"]):
            raise _invalid(f"group {number} of the saved optimizer has other numbers of names and of parameters")
        names += [str(name) for name in own]
    if len(set(names)) != len(names):
        raise _invalid("two parameters of the saved optimizer have the same name")
    return tuple(names)


def copied(value: Any) -> Any:
    """The value with tensors of its own: read from the file, or cloned, so that training does not change the source."""
    if isinstance(value, TensorInfo):
        return value.read()
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(copied(child) for child in value)
    return value


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor, in memory or in a file; None for anything else."""
    return tuple(value.shape) if isinstance(value, (torch.Tensor, TensorInfo)) else None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for child in value.values():
            yield from _leaves(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _leaves(child)
    else:
        yield value


def _invalid(message: str) -> MatchError:
    return MatchError(Diagnostic("optimizer-invalid", message))
