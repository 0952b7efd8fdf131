"""Which saved parameter is which parameter of the live optimizer, as data: one line for every name on either side.

A name pairs them, or the plan for the weights, where it makes one parameter of parts of others.  What is paired is then
compared: the shape of the parameter where the file says it, the shape of every tensor of its state, and whether the
next step would find all that it looks for.
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
from loadstone.training.optimizer_rearranging import Keys, Move, Rearranged, keys_of, why_not
from loadstone.training.optimizer_saved import SavedEntry, SavedOptimizer

_CARRIED = ("kept", "rearranged")
Status = Literal["kept", "rearranged", "reshaped", "new", "dropped"]


@dataclass(frozen=True, slots=True)
class OptimizerLine:
    """What becomes of the state of one parameter.

    Attributes:
        status: "kept"; "rearranged", kept, and moved as its weights are; "reshaped", in both but of another shape, so
            that it starts afresh; "new", nothing in the file to go on with; "dropped", nothing in the optimizer.
        name: the model's name; for what is dropped, the file's.
        source: the file's name, of several "q + k + v"; None where the file has none.
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
        targets: the model's name of every position; the file's own where the model has none; None for what is no
            parameter of the model as it is.
        moves: by the model's name, how a parameter is made of others, in the file's names.
        changed: why state is not carried over, by name on either side, where weights change on the way.
    """

    saved: SavedOptimizer
    names: tuple[str, ...]
    how: str
    shapes: Shapes
    dtypes: Mapping[str, str]
    targets: tuple[str | None, ...]
    moves: Mapping[str, Move] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matching:
    """Lines for every name, hyperparameters of every group, and for every live parameter where its state comes from.

    `sources` holds None for a parameter that keeps what the optimizer has, else a saved position or what is made of
    several; `keeps_dtype` says for which parameters state stays in the dtypes that the file has.
    """

    lines: tuple[OptimizerLine, ...]
    groups: tuple[GroupPlan, ...]
    sources: tuple[int | Rearranged | None, ...]
    keeps_dtype: tuple[bool, ...]


def match(optimizer: Optimizer, own_names: Sequence[Sequence[str]], file: FileSide, model: ModelNames) -> Matching:
    """Pair the parameters by name and compare what is paired."""
    saved = file.saved
    members = _members(own_names, file)
    known = is_torchs(optimizer)
    keys = keys_of(
        optimizer, zip((each.state for each in saved.entries), map(file.shapes.get, file.names), strict=True)
    )
    flat_reason = _flat_reason(optimizer, own_names, file) if is_flat(optimizer) else None
    from_groups = [
        sorted({saved.entries[at].group for name in names for at in members[name].values()}) for names in own_names
    ]
    groups = plan_groups(optimizer.param_groups, from_groups, saved)
    lines: list[OptimizerLine] = []
    sources: list[int | Rearranged | None] = []
    keeps: list[bool] = []
    for number, (live, names) in enumerate(zip(optimizer.param_groups, own_names, strict=True)):
        for name, parameter in zip(names, live["params"], strict=True):
            taken = {source: saved.entries[at] for source, at in members[name].items()}
            if not taken:
                why = file.changed.get(name, "not in the file's optimizer")
                lines.append(OptimizerLine("new", name, None, None, number, why))
                sources.append(None)
                keeps.append(False)
                continue
            source, entry = next(iter(taken.items()))
            move = file.moves.get(name)
            status, why = (
                _compared(parameter, entry, source, file, known, flat_reason)
                if move is None
                else _moved(parameter, taken, move, file, keys)
            )
            missing = lacking(optimizer, entry.state, groups[number].options) if status in _CARRIED else []
            if missing:
                key, switch = missing[0]
                status, why = "new", f"its state lacks {key}" + (f", which {switch} needs" if switch != "lr" else "")
            dtype = str(parameter.dtype).removeprefix("torch.")
            own_dtype = all(file.dtypes.get(each) == dtype for each in taken)
            if status in _CARRIED:
                casts = [] if own_dtype else _casts(entry, parameter)
                why = "; ".join([why, *casts])
            lines.append(OptimizerLine(status, name, " + ".join(taken), entry.group, number, why))
            whole = members[name][source] if move is None else Rearranged(move.assignment, taken, keys.each)
            sources.append(whole if status in _CARRIED else None)
            keeps.append(own_dtype)
    lines += _dropped(own_names, file, members, lines, model)
    return Matching(tuple(lines), tuple(groups), tuple(sources), tuple(keeps))


def _members(own_names: Sequence[Sequence[str]], file: FileSide) -> dict[str, dict[str, int]]:
    """The saved parameters that a live one goes on with: {name: {file's name: position}}; the first of several wins."""
    place: dict[str, int] = {}
    for at, target in enumerate(file.targets):
        if target is not None:
            place.setdefault(target, at)
    position = {name: at for at, name in enumerate(file.names)}
    found: dict[str, dict[str, int]] = {}
    for name in (name for group in own_names for name in group):
        if name in file.moves:
            sources = (taken.key for taken in file.moves[name].assignment.sources)
            found[name] = {source: position[source] for source in sources if source in position}
        else:
            found[name] = {file.names[place[name]]: place[name]} if name in place else {}
    return found


def _moved(
    parameter: torch.Tensor, taken: Mapping[str, SavedEntry], move: Move, file: FileSide, keys: Keys
) -> tuple[Status, str]:
    reason = why_not(move.assignment, taken, file.shapes, keys, tuple(parameter.shape))
    if reason:
        return "new", f"its weights are moved ({move.text}), its state cannot be: {reason}"
    has_state = any(entry.state for entry in taken.values())
    return "rearranged", f"{file.how}; {move.text if has_state else 'without state in the file too'}"


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
    if names != [*file.targets]:
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
    own_names: Sequence[Sequence[str]],
    file: FileSide,
    members: Mapping[str, Mapping[str, int]],
    lines: Sequence[OptimizerLine],
    model: ModelNames,
) -> list[OptimizerLine]:
    used = {at for name, taken in members.items() if name not in file.moves for at in taken.values()}
    into: dict[str, str] = {}  # a saved parameter that is a part of others: those whose state could not be made
    for line in lines:
        for source, at in members[line.name].items() if line.name in file.moves else ():
            if line.status in _CARRIED:
                used.add(at)
            else:
                into.setdefault(source, line.name)
    firsts = {name: next(iter(taken)) for name, taken in members.items() if taken}
    found = []
    for position, (source, target) in enumerate(zip(file.names, file.targets, strict=True)):
        if position in used:
            continue
        if source in into:
            why = f"its weights go into `{into[source]}`, whose state starts afresh"
        elif source in file.changed:
            why = file.changed[source]
        elif target in firsts:
            why = f"`{firsts[target]}` stands for the same parameter"
        else:
            why = "not in this optimizer" if target in model.parameters else "not in the model"
        found.append(OptimizerLine("dropped", source, source, file.saved.entries[position].group, None, why))
    return found
