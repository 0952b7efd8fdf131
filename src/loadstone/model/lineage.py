"""What tensors were made of: every operation that runs under a Lineage passes on where its arguments came from.

Also a guard: an operation that would write into the memory of the real model is refused before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class WritesIntoModelError(RuntimeError):
    """A hook reached around its shadow and was stopped."""


class Lineage(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows `tensors` (by name) and the stand-ins of a model's own tensors through the operations of a hook."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.changed: set[str] = set()  # names of tensors that were written to in place
        self._names = {storage_id(tensor): name for name, tensor in tensors.items()}
        self._sources: dict[int, set[str]] = {place: {name} for place, name in self._names.items()}
        self._own: dict[int, set[int]] = {}
        self._model_storages = {
            storage_id(tensor) for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_meta
        }
        self._alive: list[torch.Tensor] = [*tensors.values(), *model.parameters(), *model.buffers()]

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """A stand-in on meta for a tensor of the model itself."""
        made: torch.Tensor = torch.empty_like(tensor.detach(), device="meta")
        if isinstance(tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=tensor.requires_grad)
        self._own[storage_id(made)] = {id(tensor)}
        self._alive += [made, tensor]
        return made

    def sources_of(self, tensor: torch.Tensor) -> set[str]:
        """Names of the tensors that went into this one."""
        return self._sources.get(storage_id(tensor), set())

    def own_of(self, tensor: torch.Tensor) -> set[int]:
        """Ids of the model's own tensors that went into this one."""
        return self._own.get(storage_id(tensor), set())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = {storage_id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        written = {storage_id(tensor) for tensor in written_by(func, args, kwargs)}
        if written & self._model_storages:
            raise WritesIntoModelError(f"it writes into the model itself ({func})")
        self.changed.update(self._names[place] for place in written if place in self._names)
        result = func(*args, **kwargs)
        sources = set().union(*(self._sources.get(place, ()) for place in inputs))
        own = set().union(*(self._own.get(place, ()) for place in inputs))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._alive.append(leaf)
                self._sources.setdefault(storage_id(leaf), set()).update(sources)
                self._own.setdefault(storage_id(leaf), set()).update(own)
        return result


def storage_id(tensor: torch.Tensor) -> int:
    """Equal for tensors that share memory, on meta too; for what has no single storage, of the object itself."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def written_by(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The arguments that this operation writes to."""
    if not func._schema.is_mutable:
        return []
    found = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return found
