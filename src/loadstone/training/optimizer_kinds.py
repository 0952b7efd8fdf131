"""What kinds of state the optimizers of torch keep, and which shapes they have beside their parameter.

A state dict does not say which optimizer it was made by.  Its keys do: those of the state, and those of the groups.
The tables are read off torch/optim/*.py of torch 2.6 to 2.14.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from loadstone.training.optimizer_saved import SavedOptimizer, shape_of

# The keys of a parameter's state, by class; the first class of the MRO that stands here counts.
_KEYS: Mapping[str, frozenset[str]] = {
    "Adadelta": frozenset({"step", "square_avg", "acc_delta"}),
    "Adafactor": frozenset({"step", "row_var", "col_var", "variance"}),
    "Adagrad": frozenset({"step", "sum"}),
    "Adam": frozenset({"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
    "Adamax": frozenset({"step", "exp_avg", "exp_inf"}),
    "ASGD": frozenset({"step", "eta", "mu", "ax"}),
    "LBFGS": frozenset(
        {"func_evals", "n_iter", "d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss", "al"}
    ),
    "Muon": frozenset({"momentum_buffer"}),
    "NAdam": frozenset({"step", "mu_product", "exp_avg", "exp_avg_sq"}),
    "RAdam": frozenset({"step", "exp_avg", "exp_avg_sq"}),
    "RMSprop": frozenset({"step", "square_avg", "momentum_buffer", "grad_avg"}),
    "Rprop": frozenset({"step", "prev", "step_size"}),
    "SGD": frozenset({"momentum_buffer"}),
    "SparseAdam": frozenset({"step", "exp_avg", "exp_avg_sq"}),
}
# (class, hyperparameter that switches it on, key of the state that it then cannot do without)
_NEEDED: tuple[tuple[str, str, str], ...] = (
    ("Adam", "lr", "step"),
    ("Adam", "lr", "exp_avg"),
    ("Adam", "lr", "exp_avg_sq"),
    ("Adam", "amsgrad", "max_exp_avg_sq"),
    ("Adagrad", "lr", "sum"),
    ("RMSprop", "lr", "square_avg"),
    ("RMSprop", "momentum", "momentum_buffer"),
    ("RMSprop", "centered", "grad_avg"),
)
# State of torch's own optimizers that has the shape of its parameter.
LIKE_PARAMETER = frozenset(
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "exp_inf",
     "sum", "prev", "step_size", "ax", "variance"}
)  # fmt: skip
# How a step is computed on this machine, and what makes Adam AdamW: the optimizer's own, whatever a file says.
# torch's load_state_dict takes them from the file, and so makes an AdamW of an Adam.
SWITCHES = frozenset({"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"})
# Hyperparameters that came with later versions of torch: a file without them is not another kind of optimizer.
_LATER = SWITCHES | {"amsgrad", "maximize", "nesterov", "initial_lr"}


def kind_of(optimizer: Optimizer) -> str:
    """The class of torch.optim that it is or comes from; else its own."""
    names = [base.__name__ for base in type(optimizer).__mro__]
    return next((name for name in names if name in _KEYS), names[0])


def is_torchs(optimizer: Optimizer) -> bool:
    """One of torch.optim, whose state is known."""
    return type(optimizer).__module__.startswith("torch.optim") and kind_of(optimizer) in _KEYS


def is_flat(optimizer: Optimizer) -> bool:
    """Its state is one vector over all parameters, kept with the first of them, as L-BFGS does."""
    return kind_of(optimizer) == "LBFGS"


def foreign_state(optimizer: Optimizer, saved: SavedOptimizer) -> tuple[str, ...]:
    """Why the saved state is that of another kind of optimizer, as names of its keys; empty where it is not."""
    known = _KEYS.get(kind_of(optimizer)) if is_torchs(optimizer) else _live_keys(optimizer)
    strange = sorted(saved.keys - known) if known else []
    if strange:
        return tuple(strange)
    wanted = optimizer.defaults.keys() - _LATER
    for group in saved.groups:
        missing = [key for key in wanted if key not in group]
        other = [key for key in group if key not in optimizer.defaults and key in _HYPERPARAMETERS]
        if missing and other:
            return tuple(sorted(other))
    return ()


# What distinguishes the groups of one kind of optimizer from those of another.
_HYPERPARAMETERS = frozenset(
    {"betas", "momentum", "dampening", "alpha", "centered", "rho", "lambd", "t0", "etas", "step_sizes", "lr_decay",
     "initial_accumulator_value", "momentum_decay", "max_iter", "max_eval", "tolerance_grad", "history_size",
     "ns_coefficients", "ns_steps", "adjust_lr_fn", "beta2_decay", "d", "beta1", "decay_rate"}
)  # fmt: skip


def _live_keys(optimizer: Optimizer) -> frozenset[str]:
    return frozenset(key for state in optimizer.state.values() if isinstance(state, dict) for key in state)


def misfits(state: Mapping[str, Any], shape: tuple[int, ...], *, is_exact_shape: bool, known: bool) -> list[str]:
    """Keys of tensors that cannot be the state of a parameter of that shape, with their shapes.

    Args:
        state: of one parameter.
        shape: of the parameter.
        is_exact_shape: the parameter is known to have had that very shape when the state was saved.
        known: the state is that of an optimizer of torch.
    """
    found = []
    for key, value in state.items():
        own = shape_of(value)
        if own is None or own in ((), (1,)) or own == shape:
            continue
        is_shaped = known and key in LIKE_PARAMETER
        if is_shaped or not (is_exact_shape or _is_factor(own, shape)):
            found.append(f"{key} {own}")
    return found


def _is_factor(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """A second moment in factors, as Adafactor keeps it: some dimensions of the parameter are 1 or left out."""
    if len(own) == len(shape):
        return all(size in (1, full) for size, full in zip(own, shape, strict=True))
    return any(shape[:at] + shape[at + 1 :] == own for at in range(len(shape)))


def shape_evidence(state: Mapping[str, Any]) -> bool:
    """Some tensor of the state says something about the shape of its parameter."""
    return any(shape_of(value) not in (None, (), (1,)) for value in state.values())


def lacking(optimizer: Optimizer, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, hyperparameter) of state that the optimizer's next step would look for in vain."""
    kind = kind_of(optimizer)
    return [
        (key, switch)
        for name, switch, key in _NEEDED
        if name == kind and state and group.get(switch) and key not in state
    ]
