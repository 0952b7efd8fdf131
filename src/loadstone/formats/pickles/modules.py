"""Whole models: from the attributes of a pickled `nn.Module` to the state dict that it would have given.

A module is any object whose state has dict-like `_parameters`, `_buffers` and `_modules`, whatever its class.  The
order is that of `Module.state_dict()`: parameters, persistent buffers, then the children.

Source: torch/nn/modules/module.py (`_save_to_state_dict`, `state_dict`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from loadstone.formats.pickles.values import Call, PickledDict, PickleValue
from loadstone.io.limits import Limits
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, SavedModule, Value

_MARKS: Final = frozenset({"_parameters", "_buffers", "_modules"})
_ENTRY_NODES: Final = 10  # an entry of a state dict takes the memory of about ten plain values
_SCRIPT_OBJECT: Final = "torch.ScriptObject"  # packed weights of quantised layers, which only C++ can unpack


@final
@dataclass(slots=True)
class Budget:
    """How many entries the state dicts of a file have in all: modules that share children could multiply them."""

    limits: Limits
    where: str
    entries: int = 0

    def spend(self, entries: int) -> None:
        """Raises LimitError where it is used up."""
        self.entries += entries
        self.limits.check("nodes", self.entries * _ENTRY_NODES, f"the state dicts of the modules in `{self.where}`")


def has_module_state(call: Call) -> bool:
    """Whether an object was given the attributes of an nn.Module."""
    candidates = call.state if type(call.state) is tuple else (call.state,)
    return any(type(candidate) is PickledDict and _text_keys(candidate) >= _MARKS for candidate in candidates[:2])


def _text_keys(attributes: PickledDict) -> set[PickleValue]:
    return {key for key, _ in attributes.entries if type(key) is str}


def complete(module: SavedModule, budget: Budget) -> None:
    """Fill in state dict, class names and the rest from the module's own state and its completed children."""
    state = module.state if isinstance(module.state, dict) else {}
    module.modules[""] = module.class_name
    version = state.get("_version")
    if isinstance(version, int):  # normally an attribute of the class, which is not in the file
        module.metadata[""] = {"version": version}
    transient = state.get("_non_persistent_buffers_set")  # absent before torch 1.6
    transient = transient if isinstance(transient, set) else set()
    _add_own(module, _entries(state.get("_parameters")))
    buffers = _entries(state.get("_buffers"))
    _add_own(module, {name: value for name, value in buffers.items() if name not in transient})
    module.non_persistent.update(
        {name: value for name, value in buffers.items() if name in transient and isinstance(value, TensorInfo)}
    )
    _add_packed(module, state)
    budget.spend(len(module.state_dict) + len(module.modules))
    for name, child in _entries(state.get("_modules")).items():
        if isinstance(child, SavedModule):
            budget.spend(len(child.state_dict) + len(child.modules))
            _add_child(module, name, child)
        elif child is not None:
            module.skipped[name] = _kind(child)


def _add_own(module: SavedModule, entries: Mapping[str, Value]) -> None:
    for name, value in entries.items():
        if isinstance(value, TensorInfo):
            module.state_dict[name] = value
        elif value is not None:
            module.skipped[name] = _kind(value)


def _add_packed(module: SavedModule, state: Mapping[str, Value]) -> None:
    """Attributes that state_dict() would have unpacked: they are opaque to everything but the code that packed them."""
    for name, value in state.items():
        if isinstance(value, Opaque) and value.class_name == _SCRIPT_OBJECT:
            module.skipped[str(name)] = _SCRIPT_OBJECT


def _add_child(module: SavedModule, name: str, child: SavedModule) -> None:
    for key, info in child.state_dict.items():
        module.state_dict[f"{name}.{key}"] = info
    for key, info in child.non_persistent.items():
        module.non_persistent[f"{name}.{key}"] = info
    for key, kind in child.skipped.items():
        module.skipped[f"{name}.{key}"] = kind
    for path, class_name in child.modules.items():
        module.modules[f"{name}.{path}" if path else name] = class_name
    for path, values in child.metadata.items():
        module.metadata[f"{name}.{path}" if path else name] = values


def _entries(value: Value) -> dict[str, Value]:
    """The named entries of a dict, or of an object that was filled like one; names of Python 2 may be bytes."""
    entries = value.entries if isinstance(value, Opaque) else value
    if not isinstance(entries, dict):
        return {}
    return {name if isinstance(name, str) else str(name): entry for name, entry in entries.items()}


def _kind(value: Value) -> str:
    return value.class_name if isinstance(value, Opaque) else type(value).__name__
