"""A checkpoint taken apart for a folder: its tensors under their names, and the tree that refers to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from loadstone.dtypes import DTYPES
from loadstone.io.digests import Digest
from loadstone.manifest import Fingerprint
from loadstone.model.saving.memory import pieces_of
from loadstone.model.saving.plain import refuse_sharded
from loadstone.writing.folder_plan import Name, Piece
from loadstone.writing.folder_tree import TENSOR, WEIGHT, Json, encode, unsaveable

_USUAL_PLACES = ("model_state_dict", "state_dict", "model", "net")  # of the weights in a training checkpoint
_PLAIN_NAMES = (torch.dtype, torch.device)  # become their names, as in what Loadstone reads of a .pth


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor of the content.

    Attributes:
        name: its series of shards, and its key there.
        place: its dotted key in the whole, as `Checkpoint.tensors` and the manifest have it.
        tensor, dtype: as given; torch's word for the dtype.
    """

    name: Name
    place: str
    tensor: torch.Tensor
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.tensor.numel() * self.tensor.element_size()

    def pieces(self) -> Iterator[memoryview]:
        """Its values in row-major order, as bytes."""
        return pieces_of(self.tensor)

    def mark(self) -> Fingerprint:
        """What it is now."""
        running = Digest()
        for piece in self.pieces():
            running.update(piece)
        return Fingerprint(self.dtype, self.shape, str(running))


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A content as its tensors and the tree around them; `weights` is the dotted place of the state dict in it."""

    leaves: Mapping[Name, Leaf]
    tree: Json
    weights: str
    is_bare: bool  # a flat state dict that the index alone describes


def taken_apart(content: Mapping[str, Any]) -> TakenApart:
    """Raises SaveError (unsaveable-value), which names the place of what a folder cannot hold."""
    if not isinstance(content, Mapping):
        raise unsaveable(f"a {type(content).__name__} is neither a state dict nor a dict with one in it")
    collector = _Collector(_weights_in(content))
    tree = encode(content, collector)
    is_bare = (
        len(content) > 0
        and all(isinstance(value, torch.Tensor) and isinstance(key, str) for key, value in content.items())
        and getattr(content, "_metadata", None) is None
        and all(not leaf.tensor.requires_grad for leaf in collector.leaves.values())
    )
    return TakenApart(collector.leaves, tree, collector.weights_at or "", is_bare)


def pieces(leaves: Mapping[Name, Leaf], model: nn.Module | None) -> list[Piece]:
    """The tensors as the plan of shards takes them; those that are expected to change together in one group."""
    groups: dict[str, str] = {}
    if model is not None:
        groups |= {key: "buffers" for key, _ in model.named_buffers(remove_duplicate=False)}
        for key, parameter in model.named_parameters(remove_duplicate=False):
            groups[key] = "trained" if parameter.requires_grad else "frozen"
    return [
        Piece(
            name,
            leaf.nbytes,
            leaf.tensor.element_size(),
            groups.get(name[1], "") if name[0] == "model" else leaf.place.partition(".")[0],
        )
        for name, leaf in leaves.items()
    ]


def aliases(leaves: Mapping[Name, Leaf]) -> list[list[str]]:
    """Places that show the same elements of the same memory: tied weights."""
    shown: dict[object, list[str]] = {}
    for leaf in leaves.values():
        tensor = leaf.tensor
        if leaf.nbytes:
            view = (tensor.device, tensor.data_ptr(), leaf.dtype, leaf.shape, tensor.stride())
            shown.setdefault(view, []).append(leaf.place)
    return [places for places in shown.values() if len(places) > 1]


@final
class _Collector:
    """What `encode` asks about every value: gives tensors their names, and remembers them."""

    def __init__(self, weights: Mapping[str, Any] | None) -> None:
        self.leaves: dict[Name, Leaf] = {}
        self.weights_at: str | None = None
        self._weights = weights
        self._is_inside = False
        self._places: set[str] = set()

    def __call__(self, value: object, place: str) -> Json | None:
        if isinstance(value, torch.Tensor):
            return self._reference(value, place)
        if isinstance(value, _PLAIN_NAMES):
            return str(value)
        if value is self._weights and self.weights_at is None:
            self.weights_at, self._is_inside = place, True
            encoded = encode(value, self, place)
            self._is_inside = False
            return encoded
        return None

    def _reference(self, tensor: torch.Tensor, place: str) -> Json:
        place = next(free for free in _numbered(place) if free not in self._places)
        self._places.add(place)
        name: Name = ("training", place)
        if self._is_inside and self.weights_at is not None:
            name = ("model", place[len(self.weights_at) + 1 :] if self.weights_at else place)
        self.leaves[name] = Leaf(name, place, tensor, _checked_dtype(tensor, place))
        reference: dict[str, Json] = {WEIGHT if name[0] == "model" else TENSOR: name[1]}
        if tensor.requires_grad:
            reference["requires_grad"] = True
        return reference


def _numbered(place: str) -> Iterator[str]:
    """Where two places come out as the same dotted key, as in tree.every_tensor."""
    number = 1
    while True:
        yield place
        number += 1
        place = f"{place}#{number}"


def _weights_in(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The content itself where it is a state dict, or the first part of a usual name that is one."""
    for part in (content, *(content.get(name) for name in _USUAL_PLACES)):
        if (
            isinstance(part, Mapping)
            and any(isinstance(value, torch.Tensor) for value in part.values())
            and sum(isinstance(value, torch.Tensor) for value in part.values()) * 2 >= len(part)
        ):
            return part
    return None


def _checked_dtype(tensor: torch.Tensor, place: str) -> str:
    """torch's word for the dtype of a tensor that a shard can hold."""
    word = str(tensor.dtype).removeprefix("torch.")
    dtype = DTYPES.get(word)
    refuse_sharded(tensor, place)
    if tensor.is_meta:
        raise unsaveable(f"`{place}` is on the meta device and has no values")
    if tensor.layout != torch.strided or tensor.is_nested:
        raise unsaveable(f"`{place}` is {str(tensor.layout).removeprefix('torch.')}, a folder holds dense tensors only")
    if dtype is None or dtype.safetensors is None or tensor.is_quantized:
        raise unsaveable(f"`{place}` is {tensor.dtype}, which safetensors has no name for")
    if place == "__metadata__":
        raise unsaveable("a shard cannot have the key '__metadata__'")
    return word
