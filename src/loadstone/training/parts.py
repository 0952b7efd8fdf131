"""The live objects of a training: what a checkpoint holds of them, and how each is put back where a resume breaks off.

The names in a checkpoint are those of PyTorch's tutorials: `model_state_dict`, `optimizer_state_dict` …  Of several
optimizers, `optimizer_state_dict` is a dict of their states by the name that the script gave them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.training.optimizer_names import model_names, unwrapped
from loadstone.training.optimizers import named_state

Several: TypeAlias = "Any | Mapping[str, Any] | Sequence[Any] | None"

KEYS = {  # part: its key in a checkpoint, as PyTorch's tutorials and forums spell them
    "optimizer": "optimizer_state_dict",
    "scheduler": "scheduler_state_dict",
    "scaler": "scaler_state_dict",
    "state": "state",
}
MODEL = "model_state_dict"
RANKS = "ranks"  # of several processes, what those behind the first have for themselves
OWN = ("rng_state", "data", "gradients")
_ONE = ""  # the name of an object that is the only one of its part


@dataclass(frozen=True, slots=True)
class Parts:
    """The live objects.

    Attributes:
        model: without its wrappers; None where there is none.
        others: by part ("optimizer", "scheduler", "scaler", "state") the objects by name, "" for a single one.
    """

    model: nn.Module | None
    others: Mapping[str, Mapping[str, Any]]

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """By name."""
        return self.others.get("optimizer", {})

    def each(self) -> Iterator[tuple[str, str, Any]]:
        """(part, name, object) of everything but the model, in the order in which a resume restores them."""
        for part, objects in self.others.items():
            for name, value in objects.items():
                yield part, name, value

    def learning_rates(self) -> list[float]:
        """Of every group of every optimizer."""
        groups = (group for each in self.optimizers.values() for group in getattr(each, "param_groups", ()))
        return [float(group["lr"]) for group in groups if "lr" in group]


def gather(model: object, optimizer: Several, scheduler: Several, scaler: Several, state: Several) -> Parts:
    """The objects that the script gave.  Raises RecipeError (invalid-option) for one that has no state to save."""
    if isinstance(model, Mapping):
        model = nn.ModuleDict(model)
    if model is not None and not isinstance(model, nn.Module):
        raise RecipeError(
            Diagnostic("invalid-option", f"`model` is a {type(model).__name__}; it has to be a torch.nn.Module")
        )
    if model is not None:
        _check_whole(model)
    given = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, "state": state}
    others = {part: _named(part, value) for part, value in given.items() if value is not None}
    return Parts(None if model is None else unwrapped(model), {part: each for part, each in others.items() if each})


def _check_whole(model: nn.Module) -> None:
    """Raise RecipeError for FSDP and the like: what this process has is a part, and a checkpoint would be one too."""
    for name, parameter in model.named_parameters():
        placements, mesh = getattr(parameter, "placements", ()), getattr(parameter, "device_mesh", None)
        is_cut = any(not each.is_replicate() for each in placements) and mesh is not None and mesh.size() > 1
        if is_cut or type(parameter).__name__ == "FlatParameter":  # FSDP2's and tensor parallel's, FSDP1's
            message = f"`{name}` lies in parts on several processes, and a run saves what one of them has"
            help_ = "save it with torch.distributed.checkpoint; `loadstone.load` reads that"
            fix = Fix(help_, "torch.distributed.checkpoint.save(state, checkpoint_id=folder)")
            raise RecipeError(Diagnostic("invalid-option", message, fixes=(fix,)))


def _named(part: str, value: Several) -> dict[str, Any]:
    if isinstance(value, Mapping) and not _is_stateful(value):
        objects = {str(name): each for name, each in value.items()}
    elif isinstance(value, (list, tuple)):
        objects = {str(number): each for number, each in enumerate(value)}
    else:
        objects = {_ONE: value}
    for name, each in objects.items():
        if not _is_stateful(each):
            place = f"{part}[{name!r}]" if name else part
            message = f"`{place}` is a {type(each).__name__}, which has no state_dict and load_state_dict"
            fixes = (Fix("give an object that has both", f"{part}={part}"),)
            raise RecipeError(Diagnostic("invalid-option", message, fixes=fixes))
    if part == "state" and _ONE in objects:
        message = "`state` is one object; it has to be a dict of objects by name"
        raise RecipeError(Diagnostic("invalid-option", message, fixes=(Fix("give it a name", 'state={"ema": ema}'),)))
    return objects


def _is_stateful(value: object) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def content_of(parts: Parts, accumulating: Sequence[str] = ()) -> dict[str, Any]:
    """The states of all parts, under their keys; and of the optimizers in `accumulating`, the gradients so far."""
    content: dict[str, Any] = {}
    if parts.model is not None:
        content[MODEL] = parts.model.state_dict()
    for part, objects in parts.others.items():
        states = {name: _state(parts, each) for name, each in objects.items()}
        content[KEYS[part]] = states.get(_ONE, states)
    content["kinds"] = kinds(parts)
    gradients = _gradients(parts, accumulating)
    if gradients:
        content["gradients"] = gradients
    return content


def _state(parts: Parts, value: Any) -> Any:
    if isinstance(value, Optimizer):
        return named_state(value, parts.model if parts.model is not None else nn.Module())
    return value.state_dict()


def kinds(parts: Parts) -> dict[str, Any]:
    """The class of every object, as "module.Class"."""
    found: dict[str, Any] = {} if parts.model is None else {"model": kind(parts.model)}
    for part, objects in parts.others.items():
        found[part] = kind(objects[_ONE]) if _ONE in objects else {name: kind(each) for name, each in objects.items()}
    return found


def kind(value: object) -> str:
    """The class of an object."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _gradients(parts: Parts, accumulating: Sequence[str]) -> dict[str, torch.Tensor]:
    """Gradients that wait for their optimizer's step, by the name of the parameter."""
    if parts.model is None or not accumulating:
        return {}
    owned = {
        id(parameter)
        for name in accumulating
        for group in parts.optimizers[name].param_groups
        for parameter in group["params"]
    }
    named = model_names(parts.model).parameters.items()
    return {
        name: parameter.grad.detach()
        for name, parameter in named
        if id(parameter) in owned and parameter.grad is not None
    }


def put_gradients(parts: Parts, saved: Mapping[str, torch.Tensor]) -> None:
    """Give the parameters the gradients that were saved, and the others none."""
    if parts.model is None:
        return
    for name, parameter in model_names(parts.model).parameters.items():
        parameter.grad = saved[name].to(parameter.device) if name in saved else None


def undo_for(parts: Parts) -> Callable[[], None]:
    """What puts every part back as it is now, to the bit."""
    steps: list[Callable[[], None]] = []
    if parts.model is not None:
        steps.append(_undo_model(parts.model))
    for _, _, each in parts.each():
        steps.append(_undo_optimizer(each) if isinstance(each, Optimizer) else _undo_other(each))

    def undo() -> None:
        for step in steps:
            step()

    return undo


def _undo_model(model: nn.Module) -> Callable[[], None]:
    live: list[dict[str, Any]] = [table for each in model.modules() for table in (each._parameters, each._buffers)]
    tables = [(table, dict(table)) for table in live]
    tensors = {id(value): value for _, table in tables for value in table.values() if value is not None}
    copies = [(value, None if value.is_meta else value.detach().clone(), value.grad) for value in tensors.values()]

    def undo() -> None:
        for table, content in tables:
            table.clear()
            table.update(content)
        with torch.no_grad():
            for value, values, gradient in copies:
                if values is not None:
                    value.copy_(values)
                value.grad = gradient

    return undo


def _undo_optimizer(optimizer: Optimizer) -> Callable[[], None]:
    """torch's optimizers take new tensors in `load_state_dict`, so that keeping the old ones is enough."""
    attributes = dict(vars(optimizer))
    state = {parameter: dict(each) for parameter, each in optimizer.state.items()}
    groups = [(group, {**group, "params": list(group["params"])}) for group in optimizer.param_groups]

    def undo() -> None:
        vars(optimizer).update(attributes)
        optimizer.state.clear()
        optimizer.state.update(state)
        optimizer.param_groups[:] = [group for group, _ in groups]
        for group, content in groups:
            group.clear()
            group.update(content)

    return undo


def _undo_other(value: Any) -> Callable[[], None]:
    before = copy.deepcopy(value.state_dict())
    return lambda: value.load_state_dict(before)
