"""What the modules of a model do to a state dict by themselves, found out without touching the model.

torch lets every module change the dict before it is compared: pre-hooks, an overridden `_load_from_state_dict`, layers
that know their own older versions.  Here all of that runs on a shadow of the model with stand-ins on meta, and what it
did is read off: a stand-in under another key was moved, one that is gone was removed, a tensor that is no stand-in was
computed.  Computed tensors are made again, from real values, before the first write.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from loadstone.errors import Diagnostic, MatchError
from loadstone.matching.migration import Compute, Migrate, Migration, Read
from loadstone.model.lineage import Lineage, WritesIntoModelError
from loadstone.model.schema import joined, modules_of
from loadstone.model.shadow import shadow_of
from loadstone.tensors import TensorInfo

Metadata = Mapping[str, Mapping[str, object]]

# torch's own overrides that only add `num_batches_tracked` or word an error; matching does both for every model
_BENIGN = {
    nn.Module._load_from_state_dict,
    nn.modules.batchnorm._NormBase._load_from_state_dict,
    nn.modules.instancenorm._InstanceNorm._load_from_state_dict,
}


def migration_for(model: nn.Module, metadata: Metadata, read: Read) -> Migrate | None:
    """The migration of this model; None where no module has anything to say, as in most models.

    Args:
        model: the live module; nothing in it is touched.
        metadata: layer versions of the state dict, by the module paths of the file.
        read: gives the tensor of a checkpoint key, for hooks that have to see values.
    """
    if type(model).load_state_dict is nn.Module.load_state_dict and not any(map(_has_a_say, model.modules())):
        return None

    def migrate(sources: Mapping[str, TensorInfo]) -> Migration:
        return _migration(model, sources, versions_for(metadata, sources), read)

    return migrate


def _has_a_say(module: nn.Module) -> bool:
    return bool(module._load_state_dict_pre_hooks) or (
        getattr(module._load_from_state_dict, "__func__", None) not in _BENIGN
    )


@dataclass(slots=True)
class _Outcome:
    """What a state dict has become.

    Attributes:
        final: every key with the tensor under it, as the module that owns the key saw it last.
        taken_by: keys that are gone → what happened to them, in words.
        failed: what a hook raised, and the path of its module.
    """

    final: dict[str, Any] = field(default_factory=dict)
    taken_by: dict[str, str] = field(default_factory=dict)
    failed: tuple[str, Diagnostic] | None = None


def _migration(model: nn.Module, sources: Mapping[str, TensorInfo], versions: Metadata, read: Read) -> Migration:
    tensors = {key: _stand_in(info) for key, info in sources.items()}
    seen: set[str] = set()
    while True:
        lineage = Lineage(tensors, model)
        outcome = _run(model, tensors, versions, lineage, lineage.own)
        if outcome.failed is None or outcome.failed[0] in seen or not _wants_values(outcome.failed[1]):
            break
        # the hook looks at values, which stand-ins do not have: those under its module are read for it
        path = outcome.failed[0]
        seen.add(path)
        for key in tensors:
            if not path or key.startswith(f"{path}."):
                tensors[key] = read(sources[key].key)
    if outcome.failed is not None:
        return Migration(failed=(outcome.failed[1],))
    return _compared(model, sources, versions, tensors, outcome, lineage)


def _compared(
    model: nn.Module,
    sources: Mapping[str, TensorInfo],
    versions: Metadata,
    tensors: dict[str, torch.Tensor],
    outcome: _Outcome,
    lineage: Lineage,
) -> Migration:
    """The difference between the state dict that went in and what became of it."""
    origin = {id(tensor): key for key, tensor in tensors.items()}
    recipe = _Recipe(model, versions, lineage, tensors)
    moved: dict[str, str] = {}
    computed: dict[str, Compute] = {}
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    still_there: set[str] = set()
    for key, tensor in outcome.final.items():
        source = origin.get(id(tensor))
        if source is not None:
            still_there.add(source)
        if source is not None and source not in lineage.changed:
            if source != key:
                moved[key] = source
        elif isinstance(tensor, torch.Tensor) and not _is_new_counter(key, sources):
            computed[key] = recipe.step(key, tensor)
            shapes[key] = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    removed = {key: outcome.taken_by.get(key, "taken by the model") for key in sources if key not in still_there}
    return Migration(moved, computed, shapes, removed)


class _Recipe:
    """Makes the computed tensors again from real values: one run of the hooks for all of them."""

    def __init__(
        self, model: nn.Module, versions: Metadata, lineage: Lineage, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self._model = model
        self._versions = versions
        self._lineage = lineage
        self._tensors = tensors
        self._keys: list[str] = []
        self._needed: set[str] = set()
        self._needed_own: set[int] = set()
        self._done: dict[str, torch.Tensor] = {}

    def step(self, key: str, tensor: torch.Tensor) -> Compute:
        """The function that gives this tensor from real values."""
        self._keys.append(key)
        self._needed |= self._lineage.sources_of(tensor)
        self._needed_own |= self._lineage.own_of(tensor)

        def compute(read: Read) -> torch.Tensor:
            if key not in self._done:
                self._done = self._all(read)
            return self._done.pop(key)

        return compute

    def _all(self, read: Read) -> dict[str, torch.Tensor]:
        tensors = {key: read(key) if key in self._needed else tensor for key, tensor in self._tensors.items()}
        guard = Lineage({}, self._model)

        def own(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in self._needed_own:
                return guard.own(tensor)
            copied = tensor.detach().clone()
            return nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied

        outcome = _run(self._model, tensors, self._versions, guard, own)
        if outcome.failed is not None:
            raise MatchError(outcome.failed[1])
        return {key: outcome.final[key] for key in self._keys}


def _run(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    versions: Metadata,
    lineage: Lineage,
    own: Callable[[torch.Tensor], torch.Tensor],
) -> _Outcome:
    """Let the shadow of the model load a state dict, and see what becomes of it.

    The traversal is that of `Module.load_state_dict`, except that keys are handed down by module instead of being
    searched by prefix: linear in the number of keys.
    """
    outcome = _Outcome()
    with warnings.catch_warnings(), torch.no_grad(), lineage:
        warnings.simplefilter("ignore")  # that a copy to meta does nothing is meant here
        path = ""
        try:
            shadow = shadow_of(model, own)
            structure = [(path, id(module)) for path, module in modules_of(shadow)]
            stack: list[tuple[str, nn.Module, dict[str, Any]]] = [("", shadow, _entered(shadow, tensors))]
            while stack:
                path, module, local = stack.pop()
                after = _after_hooks(path, module, local, versions) if _has_a_say(module) else local
                for key in local.keys() - after.keys():
                    outcome.taken_by.setdefault(key, f"taken by `{path}`" if path else "taken by the model")
                below = {name: OrderedDict[str, Any]() for name, child in module._modules.items() if child is not None}
                start = len(path) + 1 if path else 0
                for key, value in after.items():
                    name, dot, _ = key[start:].partition(".")
                    (below[name] if dot and name in below else outcome.final)[key] = value
                stack += [(joined(path, name), module._modules[name], below[name]) for name in below]  # type: ignore[misc]
        except Exception as error:
            name = type(dict(modules_of(model)).get(path, model)).__name__
            reason = next(iter(str(error).splitlines()), "")
            message = f"a hook of `{path or name}` ({name}) raised {type(error).__name__}: {reason}"
            outcome.failed = (path, Diagnostic("hook-failed", message))
            return outcome
    if structure != [(path, id(module)) for path, module in modules_of(shadow)]:
        message = f"{type(model).__name__} replaces some of its own modules for this older file, which is not supported"
        outcome.failed = ("", Diagnostic("hook-failed", message))
    return outcome


class _EnteredError(Exception):
    """Carries the state dict out of an overridden `load_state_dict`."""


def _entered(shadow: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The state dict as the root module gets it: after the model's own `load_state_dict`, where it has one."""
    if type(shadow).load_state_dict is nn.Module.load_state_dict:
        return OrderedDict(tensors)

    def enter(state_dict: dict[str, Any], *rest: object) -> None:
        raise _EnteredError(state_dict)

    vars(shadow)["_load_from_state_dict"] = enter
    try:
        shadow.load_state_dict(OrderedDict(tensors))
    except _EnteredError as entered:
        return OrderedDict(entered.args[0])
    finally:
        vars(shadow).pop("_load_from_state_dict")
    return OrderedDict(tensors)


def _after_hooks(path: str, module: nn.Module, local: Mapping[str, Any], versions: Metadata) -> dict[str, Any]:
    """The part of a state dict under `path` after the module's own hooks and overrides.

    torch gives a module without metadata the version None.  Where that makes it raise, it is tried as being current:
    safetensors files have no metadata, whatever they were made from.
    """
    given = versions.get(path)
    try:
        return _hooked(path, module, local, dict(given or {}))
    except WritesIntoModelError:
        raise
    except Exception:
        if given is not None or not hasattr(module, "_version"):
            raise
        return _hooked(path, module, local, {"version": module._version})


def _hooked(path: str, module: nn.Module, local: Mapping[str, Any], metadata: dict[str, object]) -> dict[str, Any]:
    prefix = f"{path}." if path else ""
    state_dict: dict[str, Any] = OrderedDict(local)
    seen: dict[str, Any] | None = None

    def see(at_last: dict[str, Any], *rest: object) -> None:
        nonlocal seen
        seen = dict(at_last)

    handle = module._register_load_state_dict_pre_hook(see)  # type: ignore[no-untyped-call]  # the last one: it sees what the module will load
    module._load_from_state_dict(state_dict, prefix, metadata, True, [], [], [])
    handle.remove()
    if seen is None:  # an override that never calls torch's own
        return state_dict
    own = {key: value for key, value in seen.items() if "." not in key[len(prefix) :]}
    return {**{key: value for key, value in state_dict.items() if "." in key[len(prefix) :]}, **own}


def versions_for(metadata: Metadata, sources: Mapping[str, TensorInfo]) -> dict[str, Mapping[str, object]]:
    """Layer versions by the module paths of the model, which may have another prefix than the file's."""
    found: dict[str, Mapping[str, object]] = {}
    for key, info in sources.items():
        here, there = key.split("."), info.key.split(".")
        while here and there and here[-1] == there[-1]:
            here.pop()
            there.pop()
            path = ".".join(here)
            if path in found:
                break
            versions = metadata.get(".".join(there))
            if isinstance(versions, Mapping):
                found[path] = versions
    return found


def _stand_in(info: TensorInfo) -> torch.Tensor:
    dtype = getattr(torch, info.dtype, torch.uint8)
    if info.layout == "strided" and len(info.stride) == len(info.shape):
        return torch.empty_strided(info.shape, info.stride, dtype=dtype, device="meta")
    return torch.empty(info.shape, dtype=dtype, device="meta")


def _is_new_counter(key: str, sources: Mapping[str, TensorInfo]) -> bool:
    """`num_batches_tracked`, which torch adds to old state dicts; the matching has a rule for it."""
    return key.rpartition(".")[2] == "num_batches_tracked" and key not in sources


def _wants_values(failure: Diagnostic) -> bool:
    return "meta" in failure.message.lower()
