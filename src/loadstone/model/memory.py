"""A state dict in memory as a source of a plan: TensorInfos for its tensors, which stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from loadstone.errors import Diagnostic, FormatError
from loadstone.model.schema import EXTRA_STATE, dtype_name
from loadstone.storage import Storage
from loadstone.tensors import Layout, TensorInfo
from loadstone.tree import every_tensor
from loadstone.values import AnnotatedDict, Value
from loadstone.weights import WeightSet, choose, find_weight_sets

NAME = "the state dict"  # what messages call it
_DEPTH = 32  # of nested dicts; deeper ones are not looked into
_LAYOUTS: dict[torch.layout, Layout] = {
    torch.sparse_coo: "sparse_coo",
    torch.sparse_csr: "sparse_csr",
    torch.sparse_csc: "sparse_csc",
    torch.sparse_bsr: "sparse_bsr",
    torch.sparse_bsc: "sparse_bsc",
}


@dataclass(frozen=True, slots=True)
class InMemory:
    """The weights of a state dict in memory.

    Attributes:
        weights: the set that is used; its TensorInfos say what the tensors are, not where their bytes lie.
        tensors: the tensors themselves, by the same keys.
        extra_state: values for `set_extra_state`, by their key in the state dict.
        others: every other tensor of the mapping, by its place.
        notes: what is to be said about the choice of the set.
    """

    weights: WeightSet
    tensors: Mapping[str, torch.Tensor]
    extra_state: Mapping[str, object]
    others: Mapping[str, TensorInfo]
    notes: tuple[Diagnostic, ...] = ()


def from_memory(source: Mapping[str, object], name: str | None = None) -> InMemory:
    """The weights in a mapping: a state dict, or one of the dicts that training scripts put around it.

    Raises FormatError (no-weights, unknown-weights) as for a file.
    """
    reading = _Reading()
    tree = reading.convert(source, "", 0)
    sets = find_weight_sets(tree, None)
    if sets or source or name is not None:
        chosen, notes = choose(sets, name, NAME)
    else:
        chosen, notes = WeightSet("", {}), ()  # an empty state dict: the plan says what is missing
    return InMemory(
        chosen,
        {key: reading.tensors[_identity(info)] for key, info in chosen.tensors.items()},
        reading.extra_state.get(chosen.name, {}),
        outside(chosen, every_tensor(tree)),
        notes,
    )


def outside(chosen: WeightSet, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of a source that are not in the chosen set, by their place in the source."""
    prefix = f"{chosen.name}." if chosen.name else ""
    return {
        key: info
        for key, info in tensors.items()
        if not (key.startswith(prefix) and key.removeprefix(prefix) in chosen.tensors)
    }


class _Reading:
    """One walk through a mapping; tensors that share memory get infos that share a Storage."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[object, ...], torch.Tensor] = {}
        self.extra_state: dict[str, dict[str, object]] = {}
        self._storages: dict[int, Storage] = {}

    def convert(self, value: object, place: str, depth: int) -> Value:
        if isinstance(value, torch.Tensor):
            return self._info(place, value)
        if isinstance(value, nn.Module):
            value = value.state_dict()
        if depth == _DEPTH:
            return None
        if isinstance(value, Mapping):
            self.extra_state[place] = {
                key: child for key, child in value.items() if isinstance(key, str) and key.endswith(EXTRA_STATE)
            }
            metadata = getattr(value, "_metadata", None)
            return AnnotatedDict(
                {
                    key: self.convert(child, f"{place}.{key}" if place else f"{key}", depth + 1)
                    for key, child in value.items()
                },
                attributes={} if metadata is None else {"_metadata": metadata},
            )
        if isinstance(value, (list, tuple)):
            return [self.convert(child, f"{place}.{index}", depth + 1) for index, child in enumerate(value)]
        return value

    def _info(self, key: str, tensor: torch.Tensor) -> TensorInfo:
        if type(tensor).__name__ in ("DTensor", "ShardedTensor"):
            raise FormatError(
                Diagnostic("unsupported-feature", f"`{key}` is sharded over several processes, which is not supported")
            )
        tensor = tensor.detach()
        is_strided = tensor.layout == torch.strided and not tensor.is_nested
        # a storage of its own for what has no single one; `tensors` keeps it alive, so that no id is used twice
        owner = tensor.untyped_storage()._cdata if is_strided else id(tensor)
        storage = self._storages.setdefault(owner, Storage("memory", 0, ()))
        info = TensorInfo(
            key,
            dtype_name(tensor),
            tuple(tensor.shape) if not tensor.is_nested else (),
            tensor.stride() if is_strided else (),
            int(tensor.storage_offset()) if is_strided else 0,
            None if tensor.is_meta else storage,
            tensor.requires_grad,
            layout="strided" if is_strided else _LAYOUTS.get(tensor.layout, "nested"),
        )
        self.tensors[_identity(info)] = tensor
        return info


def _identity(info: TensorInfo) -> tuple[object, ...]:
    return id(info.storage), info.dtype, info.shape, info.stride, info.offset
