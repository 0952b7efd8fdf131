"""Which saved parameter is which parameter of the live optimizer, as data: one line for every name on either side.

A name pairs them, and nothing else.  What is paired is then compared: the shape of the parameter where the file says
it, the shape of every tensor of its state, and whether the next step would find all that it looks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.optim import Optimizer

from loadstone.as_torch import dtype_of
from loadstone.screens.quantities import shape as spelled_shape
from loadstone.tensors import TensorInfo
from loadstone.training.optimizer_apply import is_cast
from loadstone.training.optimizer_groups import GroupPlan, plan_groups
from loadstone.training.optimizer_kinds import is_flat, is_torchs, lacking, misfits
from loadstone.training.optimizer_names import ModelNames
from loadstone.training.optimizer_positions import Shapes
from loadstone.training.optimizer_saved import SavedEntry, SavedOptimizer

Status = Literal["kept", "reshaped", "new", "dropped"]


@dataclass(frozen=True, slots=True)
class OptimizerLine:
    """What becomes of the state of one parameter.

    Attributes:
        status: "kept"; "reshaped", in both but of another shape, so that it starts afresh; "new", nothing in the file;
            "dropped", nothing in the optimizer.
        name: the model's name; for what is dropped, the file's.
        source: the file's name; None for what is new.
        group_from, group_to: its group in the file and in the optimizer.
        why: the reason, one line.
    """

    status: Status
    name: str
    source: str | None
    group_from: int | None
    group_to: int | None
    why: str


@dataclass(frozen=True, slots=True)
class FileSide:
    """The saved optimizer with its parameters named, and what else the file says about them.

    Attributes:
        saved: as it was read.
        names: by position.
        how: what makes the names certain.
        shapes, dtypes: of the file's parameters, by the file's name, as far as they are known.
        targets: the model's name of every position; the file's own where the model has none.
    """

    saved: SavedOptimizer
    names: tuple[str, ...]
    how: str
    shapes: Shapes
    dtypes: Mapping[str, str]
    targets: tuple[str, ...]
    changed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matching:
    """Lines for every name, hyperparameters of every group, and for every live parameter its saved position.

    `positions` holds None for a parameter that keeps what the optimizer has; `keeps_dtype` says for which parameters
    state stays in the dtypes that the file has.
    """

    lines: tuple[OptimizerLine, ...]
    groups: tuple[GroupPlan, ...]
    positions: tuple[int | None, ...]
    keeps_dtype: tuple[bool, ...]


def match(optimizer: Optimizer, own_names: Sequence[Sequence[str]], file: FileSide, model: ModelNames) -> Matching:
    """Pair the parameters by name and compare what is paired."""
    saved = file.saved
    place: dict[str, int] = {}
    for at, target in enumerate(file.targets):
        place.setdefault(target, at)
    known = is_torchs(optimizer)
    flat_reason = _flat_reason(optimizer, own_names, file) if is_flat(optimizer) else None
    lines: list[OptimizerLine] = []
    sources = [sorted({saved.entries[place[name]].group for name in names if name in place}) for names in own_names]
    groups = plan_groups(optimizer.param_groups, sources, saved)
    positions: list[int | None] = []
    keeps: list[bool] = []
    for number, (live, names) in enumerate(zip(optimizer.param_groups, own_names, strict=True)):
        for name, parameter in zip(names, live["params"], strict=True):
            position = place.get(name)
            if position is None:
                why = file.changed.get(name, "not in the file's optimizer")
                lines.append(OptimizerLine("new", name, None, None, number, why))
                positions.append(None)
                keeps.append(False)
                continue
            entry, source = saved.entries[position], file.names[position]
            own_dtype = file.dtypes.get(source) == str(parameter.dtype).removeprefix("torch.")
            status, why = _compared(parameter, entry, source, file, known, flat_reason)
            missing = lacking(optimizer, entry.state, groups[number].options) if status == "kept" else []
            if missing:
                key, switch = missing[0]
                status, why = "new", f"its state lacks {key}" + (f", which {switch} needs" if switch != "lr" else "")
            if status == "kept":
                casts = [] if own_dtype else _casts(entry, parameter)
                why = "; ".join([why, *casts])
            lines.append(OptimizerLine(status, name, source, entry.group, number, why))
            positions.append(position if status == "kept" else None)
            keeps.append(own_dtype)
    lines += _dropped(own_names, file, place, model)
    return Matching(tuple(lines), tuple(groups), tuple(positions), tuple(keeps))


def _compared(
    parameter: torch.Tensor, entry: SavedEntry, source: str, file: FileSide, known: bool, flat_reason: str | None
) -> tuple[Status, str]:
    shape = tuple(parameter.shape)
    before = file.shapes.get(source)
    if before is not None and tuple(before) != shape:
        return "reshaped", f"{spelled_shape(before)} in the file, {spelled_shape(shape)} here"
    if flat_reason is not None:
        return ("reshaped", flat_reason) if flat_reason else ("kept", file.how)
    wrong = misfits(entry.state, shape, is_exact_shape=before is not None, known=known)
    if wrong:
        return "reshaped", f"{wrong[0]} in the file is no state of {spelled_shape(shape)}"
    return "kept", file.how if entry.state else f"{file.how}; without state in the file too"


def _flat_reason(optimizer: Optimizer, own_names: Sequence[Sequence[str]], file: FileSide) -> str:
    """Why a state that is one vector over all parameters cannot be carried; "" where it can."""
    names = [name for group in own_names for name in group]
    if names != list(file.targets):
        return "one vector over all parameters, and these are not the same in the same order"
    elements = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    for entry in file.saved.entries:
        for key in ("d", "prev_flat_grad"):
            value = entry.state.get(key)
            if isinstance(value, (torch.Tensor, TensorInfo)) and tuple(value.shape) != (elements,):
                return f"one vector of {value.shape[0]:,} elements over all parameters, which have {elements:,}"
    return ""


def _casts(entry: SavedEntry, parameter: torch.Tensor) -> list[str]:
    """What load_state_dict changes the dtype of, in words."""
    found = []
    for key, value in entry.state.items():
        if isinstance(value, (torch.Tensor, TensorInfo)):
            dtype = dtype_of(value.dtype) if isinstance(value, TensorInfo) else value.dtype
            if is_cast(key, dtype, parameter):
                to = str(parameter.dtype).removeprefix("torch.")
                found.append(f"{key} {str(dtype).removeprefix('torch.')} → {to}")
    return found


def _dropped(
    own_names: Sequence[Sequence[str]], file: FileSide, place: Mapping[str, int], model: ModelNames
) -> list[OptimizerLine]:
    live = {name for group in own_names for name in group}
    lines = []
    for position, (source, target) in enumerate(zip(file.names, file.targets, strict=True)):
        if target in live and place[target] == position:
            continue
        if source in file.changed:
            why = file.changed[source]
        elif place[target] != position:
            why = f"`{file.names[place[target]]}` stands for the same parameter"
        else:
            why = "not in this optimizer" if target in model.parameters else "not in the model"
        lines.append(OptimizerLine("dropped", source, source, file.saved.entries[position].group, None, why))
    return lines
