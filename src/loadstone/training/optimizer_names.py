"""Names for the parameters of a live optimizer: those the model gives them, found by identity.

torch numbers parameters in the order the optimizer got them.  The number means something else as soon as a layer is
added, frozen or moved; the name does not.  Wrappers leave no trace in the names: a parameter is called the same in a
model, in its DataParallel and in what torch.compile made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

# Names that wrappers put into keys of what is still the same parameter; loadstone/matching/wrappers.py has the sources.
_TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What the model calls its tensors.

    Attributes:
        parameters: every parameter by its first name.
        aliases: every name of a parameter, tied ones included, with the first name of the same parameter.
        buffers: names of the buffers.
    """

    parameters: Mapping[str, nn.Parameter]
    aliases: Mapping[str, str]
    buffers: frozenset[str]

    def first(self, name: str) -> str | None:
        """The model's first name for the parameter called `name`, as it is or without wrappers; else None."""
        found = self.aliases.get(name) or self.aliases.get(clean(name))
        if found is None and name.startswith("module."):
            return self.first(name.removeprefix("module."))
        return found


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch/_dynamo/eval_frame.py OptimizedModule
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        else:
            return model


def clean(name: str) -> str:
    """The name without what torch.compile, FSDP and activation checkpointing put into it."""
    return ".".join(token for token in name.split(".") if token not in _TRANSPARENT)


def model_names(model: nn.Module) -> ModelNames:
    """All names of the model's parameters and buffers, in the order of its state dict."""
    model = unwrapped(model)
    first: dict[int, str] = {}
    parameters: dict[str, nn.Parameter] = {}
    aliases: dict[str, str] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        name = clean(key)
        aliases[name] = first.setdefault(id(parameter), name)
        parameters.setdefault(aliases[name], parameter)
    buffers = frozenset(clean(key) for key, _ in model.named_buffers(remove_duplicate=False))
    return ModelNames(parameters, aliases, buffers)


def names_of(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """The name of every parameter in every group of the optimizer, in its order.

    A tied parameter has the first of its names.  A parameter that is not the model's is `#group.index`.
    """
    name = {id(parameter): name for name, parameter in model_names(model).parameters.items()}
    return [
        [name.get(id(parameter), f"#{number}.{index}") for index, parameter in enumerate(group["params"])]
        for number, group in enumerate(optimizer.param_groups)
    ]


def named_state(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """torch's own `optimizer.state_dict()`, with the names of the parameters in every group.

    They stand under `param_names`, the key that torch (since 2.6) uses for an optimizer that was made from
    `named_parameters()`; its `load_state_dict` takes them along and goes by position all the same.
    """
    state: dict[str, Any] = optimizer.state_dict()
    names = names_of(optimizer, model)
    groups = state["param_groups"]
    return {
        **state,
        "param_groups": [{**group, "param_names": own} for group, own in zip(groups, names, strict=True)],
    }
