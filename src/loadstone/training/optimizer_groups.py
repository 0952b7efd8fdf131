"""Hyperparameters of the groups of an optimizer: which come from the file, which stay, and what differs.

A group whose parameters all come from one saved group goes on with that group's hyperparameters.  Where several saved
groups came together, what they agree on comes from the file, and for the rest the optimizer keeps its own values.  It
keeps them too where a saved group was split and its parts differ on purpose, as with no weight decay for biases.  How
a step is computed (`SWITCHES`) and the label of a group are never taken from a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loadstone.training.optimizer_kinds import SWITCHES
from loadstone.training.optimizer_saved import SavedOptimizer

_OWN = SWITCHES | {"params", "param_names", "name"}
# What schedulers leave in groups (torch/optim/lr_scheduler.py, swa_utils.py): values of a schedule, not the user's.
_SCHEDULED = frozenset({"lr", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"})
_CYCLED = frozenset({"momentum", "betas"})  # by OneCycleLR and CyclicLR, which then leave `base_momentum`


@dataclass(frozen=True, slots=True)
class Change:
    """A hyperparameter whose value the file and the optimizer disagree on."""

    key: str
    own: Any
    saved: Any

    def __str__(self) -> str:
        return f"{self.key} {spelled(self.own)} → {spelled(self.saved)}"


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What becomes of one group of the optimizer.

    Attributes:
        number: its place in the optimizer.
        sources: the saved groups that its parameters come from.
        options: its hyperparameters, complete.
        taken: those that change to what the file has.
        kept: those for which the file has not one value for this group; `saved` is the tuple of what it has.
    """

    number: int
    sources: tuple[int, ...]
    options: Mapping[str, Any]
    taken: tuple[Change, ...] = ()
    kept: tuple[Change, ...] = ()


def plan_groups(
    live: Sequence[Mapping[str, Any]], sources: Sequence[Sequence[int]], saved: SavedOptimizer
) -> list[GroupPlan]:
    """The hyperparameters of every group; the parameters of group `i` come from the saved groups `sources[i]`."""
    found = []
    for number, (group, own) in enumerate(zip(live, sources, strict=True)):
        parts = [other for other, theirs in zip(live, sources, strict=True) if len(own) == 1 and own == theirs]
        found.append(_plan_group(number, group, own, saved, parts))
    return found


def _plan_group(
    number: int,
    live: Mapping[str, Any],
    sources: Sequence[int],
    saved: SavedOptimizer,
    parts: Sequence[Mapping[str, Any]],
) -> GroupPlan:
    options = {key: value for key, value in live.items() if key not in ("params", "param_names")}
    groups = [saved.groups[source] for source in sources]
    taken: list[Change] = []
    kept: list[Change] = []
    for key in dict.fromkeys(key for group in groups for key in group if key not in _OWN):
        values = [group.get(key) for group in groups]
        is_one = all(key in group and same(group[key], values[0]) for group in groups)
        is_split = any(key in part and key in live and not same(part[key], live[key]) for part in parts)
        value = _in_form_of(options.get(key), values[0])
        if is_one and key in options and same(options[key], value):
            continue
        if not is_one or is_split:
            kept.append(Change(key, options.get(key), tuple(values)))
            continue
        taken.append(Change(key, options.get(key), value))
        options[key] = value
    return GroupPlan(number, tuple(sources), options, tuple(taken), tuple(kept))


def differences(live: Mapping[str, Any], saved: Mapping[str, Any]) -> list[Change]:
    """Hyperparameters that an exact resume does not accept; what a schedule moves is not among them."""
    moved = _SCHEDULED | (_CYCLED if "base_momentum" in live or "base_momentum" in saved else frozenset())
    found = []
    for key in dict.fromkeys((*live, *saved)):
        if key in ("params", "param_names", "name") or key in moved - {"initial_lr"}:
            continue
        if key in live and key in saved:
            if not same(live[key], _in_form_of(live[key], saved[key])):
                found.append(Change(key, live[key], saved[key]))
        elif key in saved and key not in moved:
            found.append(Change(key, None, saved[key]))
    return found


def same(one: Any, other: Any) -> bool:
    """Equal values; a tensor equals a tensor with the same bits."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and same_bits(one, other)
    return (type(one) is type(other) and one == other) or (_is_number(one) and _is_number(other) and one == other)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same dtype, shape and bits; NaN is equal to itself."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.layout != torch.strided or other.layout != torch.strided:
        return bool(torch.equal(one.to_dense(), other.to_dense()))
    if torch.equal(one, other.to(one.device)):
        return True
    flat = [each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, other)]
    return bool(torch.equal(*flat))


def spelled(value: Any) -> str:
    """A hyperparameter for people: 0.001, [0.9, 0.999], `nothing` for none."""
    if value is None:
        return "nothing"
    if isinstance(value, torch.Tensor):
        return spelled(value.item()) if value.numel() == 1 else f"a tensor {tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return f"{value}"


def _in_form_of(own: Any, value: Any) -> Any:
    """The value as the optimizer keeps it: a list from a file as a tuple, a number as a tensor or the other way."""
    if isinstance(own, torch.Tensor) and _is_number(value):
        return torch.full_like(own, value)
    if isinstance(value, torch.Tensor) and _is_number(own) and value.numel() == 1:
        return value.item()
    if isinstance(own, tuple) and isinstance(value, list):
        return tuple(value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
