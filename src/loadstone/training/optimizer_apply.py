"""An optimizer's state put in place: built whole, given to torch's load_state_dict, compared, and taken back on error.

What load_state_dict gets is ours: complete, in the optimizer's own order, with every hyperparameter, so that its rules
of position have nothing to decide.  One thing it does is undone: it casts every tensor but `step` to the dtype of the
parameter, which loses bits of state that was kept in another dtype on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from loadstone.errors import Diagnostic, MatchError
from loadstone.training.optimizer_groups import same, same_bits
from loadstone.training.optimizer_saved import copied


def put_state(
    optimizer: Optimizer,
    states: Sequence[Mapping[str, Any]],
    options: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    keep_dtype: Sequence[bool],
    rest: Mapping[str, Any],
    others: Mapping[Any, Any],
) -> None:
    """Give the optimizer new state, or leave it as it is and raise.

    Args:
        optimizer: the live one.
        states: of every parameter, group after group; empty for none.
        options: the hyperparameters of every group.
        names: of the parameters, for messages and for an optimizer that was made with names.
        keep_dtype: for every parameter, whether its state keeps the dtypes that it has in `states`.
        rest: other parts of the optimizer's state dict.
        others: state that belongs to no parameter.

    Raises MatchError (optimizer-invalid) where the optimizer is then not what it was told to be, and whatever its
    load_state_dict raises.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups, first = [], 0
    for live, own in zip(optimizer.param_groups, options, strict=True):
        group = {**own, "params": list(range(first, first + len(live["params"])))}
        if "param_names" in live:
            group["param_names"] = list(names[first : first + len(live["params"])])
        groups.append(group)
        first += len(live["params"])
    state = {**others, **{number: dict(each) for number, each in enumerate(states) if each}}
    if has_own_loading(optimizer):
        state = copied(state)  # so that what it does to them shows when they are compared
    before = _Before(optimizer)
    try:
        optimizer.load_state_dict({**rest, "state": state, "param_groups": groups})
        for parameter, wanted, is_kept in zip(parameters, states, keep_dtype, strict=True):
            if is_kept and wanted:
                _undo_casts(optimizer.state[parameter], wanted, parameter)
        _verify(optimizer, parameters, states, options, names)
    except BaseException:
        before.put_back()
        raise


def has_own_loading(optimizer: Optimizer) -> bool:
    """Its class has a load_state_dict of its own, of which nothing is known."""
    return type(optimizer).load_state_dict is not Optimizer.load_state_dict


class _Before:
    """An optimizer as it is: its attributes, its state and groups with all they hold.

    torch's own load_state_dict replaces tensors and never writes into them; for one that a class has of its own, the
    values are kept too.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._attributes = dict(vars(optimizer))
        self._state = dict(optimizer.state)
        self._entries = [(entry, dict(entry)) for entry in optimizer.state.values() if isinstance(entry, dict)]
        self._groups = [(group, dict(group), list(group["params"])) for group in optimizer.param_groups]
        tensors = [value for _, entry in self._entries for value in entry.values() if isinstance(value, torch.Tensor)]
        self._values = [(tensor, tensor.clone()) for tensor in tensors] if has_own_loading(optimizer) else []

    def put_back(self) -> None:
        vars(self._optimizer).clear()
        vars(self._optimizer).update(self._attributes)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)
        for entry, content in self._entries:
            entry.clear()
            entry.update(content)
        for group, content, parameters in self._groups:
            group.clear()
            group.update(content)
            group["params"][:] = parameters
        self._optimizer.param_groups[:] = [group for group, _, _ in self._groups]
        for tensor, value in self._values:
            tensor.copy_(value)


def is_cast(key: str, dtype: torch.dtype, parameter: torch.Tensor) -> bool:
    """torch's load_state_dict would give that tensor of a parameter's state another dtype."""
    return key != "step" and parameter.is_floating_point() and dtype != parameter.dtype


def _undo_casts(state: dict[str, Any], wanted: Mapping[str, Any], parameter: torch.Tensor) -> None:
    for key, value in wanted.items():
        if isinstance(value, torch.Tensor) and is_cast(key, value.dtype, parameter):
            state[key] = value.to(device=parameter.device)


def _verify(
    optimizer: Optimizer,
    parameters: Sequence[torch.Tensor],
    states: Sequence[Mapping[str, Any]],
    options: Sequence[Mapping[str, Any]],
    names: Sequence[str],
) -> None:
    for parameter, wanted, name in zip(parameters, states, names, strict=True):
        live = optimizer.state.get(parameter, {})
        for key, value in wanted.items():
            if key not in live or not _is_taken(live[key], value):
                raise _not_taken(optimizer, f"`{key}` of `{name}`")
    for number, (group, own) in enumerate(zip(optimizer.param_groups, options, strict=True)):
        for key, value in own.items():
            if key not in group or not same(group[key], value):
                raise _not_taken(optimizer, f"`{key}` of group {number}")


def _is_taken(live: Any, wanted: Any) -> bool:
    """The same value, a tensor perhaps in another dtype or on another device; older files have numbers for tensors."""
    if isinstance(live, torch.Tensor) and isinstance(wanted, torch.Tensor):
        return same_bits(live, wanted.to(dtype=live.dtype, device=live.device))
    if isinstance(live, torch.Tensor):
        return live.numel() == 1 and bool(live.item() == wanted)
    if isinstance(live, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return len(live) == len(wanted) and all(map(_is_taken, live, wanted))
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        return live.keys() == wanted.keys() and all(_is_taken(live[key], wanted[key]) for key in live)
    return bool(live == wanted) or live is wanted


def _not_taken(optimizer: Optimizer, what: str) -> MatchError:
    name = type(optimizer).__name__
    return MatchError(Diagnostic("optimizer-invalid", f"{name}.load_state_dict did not take {what} as it was given"))
