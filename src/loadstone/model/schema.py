"""The model's side of a plan: every tensor a live module would take from a state dict, as data.

The keys are those that `load_state_dict` asks for: parameters and persistent buffers of every module in turn, which is
what `state_dict()` gives wherever no hook changes it.  Walked once, so that time is linear in the number of modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, FormatError, MatchError
from loadstone.matching.schema import Schema, Slot

EXTRA_STATE = "_extra_state"  # torch.nn.modules.module._EXTRA_STATE_KEY_SUFFIX
Identity: TypeAlias = tuple[object, ...]

_NAMES = {getattr(torch, name): name for name in DTYPES if hasattr(torch, name)}


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a tensor of a model stands: `module._parameters[name]` or `module._buffers[name]`."""

    key: str
    module: nn.Module
    name: str
    kind: Literal["parameter", "buffer"]
    tensor: torch.Tensor  # that stood there when the model was walked
    is_persistent: bool = True

    def put(self, tensor: torch.Tensor) -> None:
        """Let another tensor stand there."""
        if self.kind == "parameter":
            self.module._parameters[self.name] = tensor  # type: ignore[assignment]  # always a Parameter
        else:
            self.module._buffers[self.name] = tensor


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A model walked once.

    Attributes:
        modules: (dotted path, module) in the order of `state_dict()`; one that is shared stands at each of its paths.
        places: every tensor, non-persistent buffers included, in the same order.
        identities: of the tensors of `places`, see `identity_of`.
    """

    modules: list[tuple[str, nn.Module]]
    places: list[Place]
    identities: list[Identity]


def walk(model: nn.Module) -> Walk:
    """All modules and tensors of a model."""
    modules: list[tuple[str, nn.Module]] = []
    places: list[Place] = []
    stack: list[tuple[str, nn.Module]] = [("", model)]
    while stack:
        path, module = stack.pop()
        modules.append((path, module))
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.append(Place(prefix + name, module, name, "parameter", parameter))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                is_persistent = name not in module._non_persistent_buffers_set
                places.append(Place(prefix + name, module, name, "buffer", buffer, is_persistent))
        if module._modules:
            children = [(prefix + name, child) for name, child in module._modules.items() if child is not None]
            stack.extend(reversed(children))
    return Walk(modules, places, [identity_of(place.tensor) for place in places])


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(dotted path, module) in the order of `state_dict()`; a module that is shared stands at each of its paths."""
    return walk(model).modules


def schema_of(model: nn.Module, walked: Walk | None = None) -> Schema:
    """What `model` wants, without its values; `walked` saves a walk where there has been one.

    Raises MatchError (uninitialised-parameter) for lazy modules that have seen no input, FormatError
    (unsupported-feature) for sharded parameters and for dtypes without a name here.
    """
    walked = walked or walk(model)
    _check_packs_nothing(walked)
    slots: dict[str, Slot] = {}
    non_persistent: dict[str, Slot] = {}
    first: dict[Identity, str] = {}
    for place, identity in zip(walked.places, walked.identities, strict=True):
        tensor = place.tensor
        _check_is_supported(place.key, tensor)
        tied_to = first.setdefault(identity, place.key) if place.is_persistent else place.key
        slot = Slot(
            place.key,
            dtype_name(tensor),
            tuple(tensor.shape),
            place.kind,
            None if tied_to == place.key else tied_to,
            tensor.is_meta,
            place.is_persistent,
            _convolution(place),
        )
        (slots if place.is_persistent else non_persistent)[place.key] = slot
    return Schema(
        type(model).__name__,
        slots,
        non_persistent,
        {path: type(module).__name__ for path, module in walked.modules},
    )


def is_described(walked: Walk, schema: Schema) -> bool:
    """The model is as it was when `schema` was made: the same tensors by key, dtype, shape, kind and ties.

    What `schema_of(model, walked) == schema` says, in a fraction of the time: nothing is made to be compared.
    """
    first: dict[Identity, str] = {}
    for place, identity in zip(walked.places, walked.identities, strict=True):
        slot = (schema.slots if place.is_persistent else schema.non_persistent).get(place.key)
        tensor = place.tensor
        if (
            slot is None
            or slot.shape != tensor.shape
            or slot.dtype != _NAMES.get(tensor.dtype)
            or slot.kind != place.kind
            or slot.is_meta != tensor.is_meta
        ):
            return False
        tied_to = first.setdefault(identity, place.key) if place.is_persistent else place.key
        if tied_to != (slot.tied_to or place.key):
            return False
    return len(walked.places) == len(schema.slots) + len(schema.non_persistent)


def extra_state_of(walked: Walk) -> dict[str, nn.Module]:
    """Modules that take extra state, by its key in the state dict."""
    return {
        joined(path, EXTRA_STATE): module
        for path, module in walked.modules
        if type(module).set_extra_state is not nn.Module.set_extra_state
    }


def identity_of(tensor: torch.Tensor) -> Identity:
    """Equal for tensors that are the very same memory; on meta, which has none, for the same object."""
    if not _has_memory(tensor) or tensor.is_meta or tensor.layout != torch.strided or tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _convolution(place: Place) -> Literal["", "plain", "grouped", "transposed"]:
    """What kind of convolution the tensor is the weight of."""
    module = place.module
    if place.name != "weight" or not isinstance(module, nn.modules.conv._ConvNd):
        return ""
    if module.transposed:
        return "transposed"
    return "plain" if module.groups == 1 else "grouped"


def dtype_name(tensor: torch.Tensor) -> str:
    """torch's word for its dtype; raises FormatError for one that files cannot hold."""
    name = _NAMES.get(tensor.dtype)
    if name is None:
        name = str(tensor.dtype).removeprefix("torch.")
        raise FormatError(Diagnostic("unsupported-feature", f"tensors of dtype {name} cannot be loaded"))
    return name


def joined(path: str, name: str) -> str:
    """`name` under `path`."""
    return f"{path}.{name}" if path else name


def _has_memory(tensor: torch.Tensor) -> bool:
    """False for lazy parameters, and for tensor subclasses that hold other tensors instead of memory."""
    if type(tensor) in (torch.Tensor, nn.Parameter):
        return True
    return not torch.nn.parameter.is_lazy(tensor) and not hasattr(tensor, "__tensor_flatten__")


def _check_is_supported(key: str, tensor: torch.Tensor) -> None:
    if type(tensor) in (torch.Tensor, nn.Parameter):
        return
    if torch.nn.parameter.is_lazy(tensor):
        raise MatchError(
            Diagnostic("uninitialised-parameter", f"`{key}` has no shape yet, its lazy module has seen no input")
        )
    names = {base.__name__ for base in type(tensor).__mro__}
    if names & {"DTensor", "ShardedTensor", "FlatParameter"}:
        raise FormatError(
            Diagnostic(
                "unsupported-feature",
                f"`{key}` is sharded over several processes ({type(tensor).__name__}), which is not supported yet",
            )
        )


def _check_packs_nothing(walked: Walk) -> None:
    """Quantised modules of torch.ao keep weights in script objects that only their own code can fill."""
    for path, module in walked.modules:
        kind = type(module)
        if kind.__module__.startswith("torch.ao.nn.") and "PackedParams" in kind.__name__:
            raise FormatError(
                Diagnostic(
                    "unsupported-feature",
                    f"`{path}` ({kind.__name__}) packs its weights, which only torch's own load_state_dict can fill",
                )
            )
