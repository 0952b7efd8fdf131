"""What an edit is given, before anything is looked at: a model that can be edited, a name in it, a sensible number."""

from __future__ import annotations

import torch
from torch import nn

from loadstone.errors import Diagnostic, Fix, SurgeryError
from loadstone.keys import nearest
from loadstone.model.schema import modules_of, walk

_WRAPPERS = {  # they have taken the parameters into buckets or compiled code, which an edit cannot reach
    "DistributedDataParallel": "edit the model, then wrap it",
    "FullyShardedDataParallel": "edit the model, then wrap it",
    "OptimizedModule": "edit the model, then compile it",
}


def check_editable(model: object) -> None:
    """Raise SurgeryError for what is no module, or one whose layers cannot be exchanged.

    Scripted and compiled modules are code, quantised ones packed memory, lazy ones without shapes yet.
    """
    if not isinstance(model, nn.Module):
        raise SurgeryError(Diagnostic("invalid-option", f"model is a {type(model).__name__}, not a torch.nn.Module"))
    for path, module in modules_of(model):
        where = f"`{path}`" if path else "the model"
        kind = type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            advice = Fix("edit the model it was made from, then script it again", "")
            raise _not_editable(f"{where} is a scripted module ({kind}), whose code is fixed", path, advice)
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            advice = Fix("edit the float model, then quantise it", "")
            raise _not_editable(f"{where} is quantised ({kind}), its weights are packed", path, advice)
        if kind in _WRAPPERS:
            raise _not_editable(f"{where} is wrapped in {kind}", path, Fix(_WRAPPERS[kind], ""))
    for place in walk(model).places:
        if torch.nn.parameter.is_lazy(place.tensor):
            raise SurgeryError(
                Diagnostic(
                    "uninitialised-parameter",
                    f"`{place.key}` has no shape yet, its lazy module has seen no input",
                    keys=(place.key,),
                )
            )


def check_layer(model: nn.Module, layer: object, name: str) -> None:
    """Raise SurgeryError unless `layer` is a module that can be put into the model."""
    if not isinstance(layer, nn.Module):
        said = f"{name} is a {type(layer).__name__}, not a torch.nn.Module"
        advice = (Fix("make one of it", f"{layer.__name__}(...)"),) if isinstance(layer, type) else ()
        raise SurgeryError(Diagnostic("invalid-option", said, fixes=advice))
    inside = {id(module) for _, module in modules_of(layer)}
    if id(model) in inside:
        raise SurgeryError(Diagnostic("invalid-option", f"{name} contains the model itself, which would be a circle"))


def check_number(value: object, name: str, least: int = 1) -> None:
    """Raise SurgeryError unless the value is an int of at least `least`; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SurgeryError(Diagnostic("invalid-option", f"{name}={value!r} is a {type(value).__name__}, not an int"))
    if value < least:
        raise SurgeryError(Diagnostic("invalid-option", f"{name}={value} is less than {least}"))


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module of that dotted name, "" for the model; raises SurgeryError (unknown-module) with the nearest names."""
    if not isinstance(path, str):
        raise SurgeryError(Diagnostic("invalid-option", f"a module is named by a str, not by a {type(path).__name__}"))
    module: nn.Module | None = model
    for token in path.split(".") if path else ():
        module = module._modules.get(token) if module is not None else None
    if module is None:
        near = nearest(path, (name for name, _ in modules_of(model) if name))
        fixes = (Fix("the nearest names", ", ".join(near)),) if near else ()
        said = f"{type(model).__name__} has no module `{path[:200]}`"
        raise SurgeryError(Diagnostic("unknown-module", said, fixes=fixes, keys=(path[:200],)))
    return module


def parent_of(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds the named one as a child, and the child's name in it."""
    module_at(model, path)
    if not path:
        raise SurgeryError(Diagnostic("invalid-option", "the model itself has no place to be exchanged in"))
    above, _, name = path.rpartition(".")
    return module_at(model, above), name


def _not_editable(said: str, path: str, advice: Fix) -> SurgeryError:
    return SurgeryError(Diagnostic("not-editable", said, fixes=(advice,), keys=(path,)))
