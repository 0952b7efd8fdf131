"""A model that can be exported, and a copy of it to work on, so that the model itself is never run."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from loadstone.errors import Diagnostic, Fix, RecipeError, SaveError
from loadstone.model.schema import Place, walk

_WRAPPERS = {  # class name: what stands for the model inside
    "DataParallel": "model.module",
    "DistributedDataParallel": "model.module",
    "OptimizedModule": "model._orig_mod",
}
_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
_SHARDED = {"DTensor", "ShardedTensor", "FlatParameter"}


def check_exportable(model: object) -> nn.Module:
    """The model; raises for one whose code or values are not at hand.

    Raises RecipeError (invalid-option) for what is no module; SaveError (unsupported-feature) for scripted, wrapped,
    quantised and sharded ones, (uninitialised-parameter) for lazy ones, (unsaveable-value) for those on meta.
    """
    if not isinstance(model, nn.Module):
        message = f"the model is a {type(model).__name__}; it has to be a torch.nn.Module"
        raise RecipeError(Diagnostic("invalid-option", message))
    walked = walk(model)
    for path, module in walked.modules:
        name = f"`{path}`" if path else "the model"
        kind = type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise _unsupported(f"{name} is TorchScript already", Fix("write it", 'torch.jit.save(model, "model.pt")'))
        if kind in _WRAPPERS:
            raise _unsupported(f"{name} is wrapped in {kind}", Fix("export what is inside", _WRAPPERS[kind]))
        if type(module).__module__.startswith(_QUANTISED):
            fix = Fix("export the float model, and quantise the exported program with torchao", "")
            raise _unsupported(f"{name} is quantised ({kind}), its weights are packed", fix)
    for place in walked.places:
        _check_has_values(place)
    return model


def _check_has_values(place: Place) -> None:
    tensor, keys = place.tensor, (place.key,)
    if torch.nn.parameter.is_lazy(tensor):
        message = f"`{place.key}` has no shape yet, its lazy module has seen no input"
        fix = Fix("run the model once", "model(example_input)")
        raise SaveError(Diagnostic("uninitialised-parameter", message, fixes=(fix,), keys=keys))
    if {base.__name__ for base in type(tensor).__mro__} & _SHARDED:
        raise _unsupported(f"`{place.key}` is sharded over several processes ({type(tensor).__name__})")
    if tensor.is_meta:
        fix = Fix("fill it from a file first", "ls.load(model, path)")
        message = f"`{place.key}` is on the meta device and has no values"
        raise SaveError(Diagnostic("unsaveable-value", message, fixes=(fix,), keys=keys))
    if tensor.is_quantized:
        raise _unsupported(f"`{place.key}` is quantised ({tensor.dtype})")


class Twin:
    """A copy of a model in eval mode, which shares no memory with it and can be set back after each run."""

    def __init__(self, model: nn.Module) -> None:
        """Raises SaveError (export-failed) for a model that cannot be copied."""
        try:
            with torch.inference_mode(False):
                self.module: nn.Module = copy.deepcopy(model, _computed(model))
        except Exception as error:  # whatever __deepcopy__ of some attribute raises
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise SaveError(Diagnostic("export-failed", f"the model cannot be copied: {reason}")) from error
        self.module.eval()
        self._buffers = [
            (place, place.tensor.detach().clone()) for place in walk(self.module).places if place.kind == "buffer"
        ]

    def set_back(self) -> None:
        """Give the buffers the values of the model again, as a forward pass may have changed them."""
        with torch.no_grad():
            for place, values in self._buffers:
                place.tensor.detach().copy_(values)
                place.put(place.tensor)


def _computed(model: nn.Module) -> dict[int, Any]:
    """Copies of tensors that a forward pass left in modules (old weight norms do), which deepcopy refuses."""
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def _unsupported(message: str, *fixes: Fix) -> SaveError:
    return SaveError(Diagnostic("unsupported-feature", message, fixes=fixes))
