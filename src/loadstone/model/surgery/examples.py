"""Inputs to try a model with, where the caller gives none: made from its first layer and the sizes it names itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from loadstone.errors import Diagnostic, SurgeryError
from loadstone.model.schema import modules_of
from loadstone.screens.quantities import shape

ExampleInput: TypeAlias = torch.Tensor | tuple[object, ...] | list[object] | Mapping[str, object]

_BATCH = 2  # a batch norm in training refuses a single value per channel
_IMAGE_SIZES = (224, 299, 32, 64, 28, 256, 384, 512)
_LENGTHS = (16_000, 1024, 128)
_SIZE_NAMES = ("image_size", "img_size", "input_size")  # torchvision and transformers, timm, timm's pretrained_cfg
_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Example:
    """Arguments of a forward call, on meta."""

    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = field(default_factory=dict)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its tensors, in order."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]

    def on(self, device: torch.device) -> Example:
        """Fresh tensors of the same shapes, of zeros, on that device."""

        def made(leaf: object) -> object:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return torch.zeros(leaf.shape, dtype=leaf.dtype, device=device)

        args, kwargs = tree_map(made, (self.args, self.kwargs))
        return Example(args, kwargs)

    def with_channels(self, number: int, channels: int) -> Example:
        """The same, with other channels (dimension 1) in one of the tensors."""
        wanted = self.tensors[number]

        def changed(leaf: object) -> object:
            if leaf is not wanted:
                return leaf
            return torch.empty(wanted.shape[0], channels, *wanted.shape[2:], dtype=wanted.dtype, device="meta")

        args, kwargs = tree_map(changed, (self.args, self.kwargs))
        return Example(args, kwargs)

    def __str__(self) -> str:
        return " and ".join(shape(tensor.shape) for tensor in self.tensors)


def example_of(given: ExampleInput) -> list[Example]:
    """What the caller gave, on meta; and with a batch of two where it is a batch of one."""
    args, kwargs = _arguments(given)
    examples = [Example(*tree_map(_on_meta, (args, kwargs)))]
    tensors = examples[0].tensors
    if not tensors:
        said = f"example_input is a {type(given).__name__} without a tensor in it"
        raise SurgeryError(Diagnostic("invalid-option", said))
    if all(tensor.dim() > 1 and tensor.shape[0] == 1 for tensor in tensors):
        examples.append(Example(*tree_map(_doubled, (examples[0].args, examples[0].kwargs))))
    return examples


def made_up(model: nn.Module) -> Iterator[Example]:
    """Inputs that the model may take, the likeliest first: as its first layer of each kind wants."""
    layers: dict[str, nn.Module] = {}
    for _, module in modules_of(model):
        for kind in (nn.Conv2d, nn.Conv1d, nn.Conv3d, nn.Embedding, nn.Linear):
            if isinstance(module, kind):
                layers.setdefault(kind.__name__, module)
    for layer in layers.values():
        if isinstance(layer, nn.Conv2d):
            sizes = [*_own_sizes(model), *_IMAGE_SIZES]
            for channels in dict.fromkeys((layer.in_channels, 3, 1)):
                yield from (_zeros(layer, channels, *size) for size in dict.fromkeys(map(_pair, sizes)))
        elif isinstance(layer, nn.Conv1d):
            yield from (_zeros(layer, layer.in_channels, length) for length in _LENGTHS)
        elif isinstance(layer, nn.Conv3d):
            yield from (_zeros(layer, layer.in_channels, 16, size, size) for size in (112, 224, 32))
        elif isinstance(layer, nn.Embedding):
            yield Example((torch.zeros(_BATCH, _TOKENS, dtype=torch.int64, device="meta"),))
        elif isinstance(layer, nn.Linear):
            yield _zeros(layer, layer.in_features)
            yield _zeros(layer, _TOKENS, layer.in_features)
            side = round(layer.in_features**0.5)
            if side * side == layer.in_features:  # a flattened grey image, as of MNIST
                yield _zeros(layer, 1, side, side)
            for size in (*_own_sizes(model), 224):  # of a patch, that the model cuts out of the image itself
                yield _zeros(layer, 3, *_pair(size))


def _own_sizes(model: nn.Module) -> Iterator[object]:
    """Image sizes that the model or its configuration names."""
    for source in (model, getattr(model, "config", None), getattr(model, "pretrained_cfg", None)):
        for name in _SIZE_NAMES:
            value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
            if isinstance(value, (list, tuple)):
                value = tuple(value[-2:])
            sizes = value if isinstance(value, tuple) else (value,)
            if sizes and all(type(size) is int and 0 < size <= 4096 for size in sizes):
                yield value


def _pair(size: object) -> tuple[int, int]:
    return (size[0], size[-1]) if isinstance(size, tuple) else (size, size)  # type: ignore[return-value]


def _zeros(layer: nn.Module, *sizes: int) -> Example:
    weight = layer.weight
    dtype = weight.dtype if isinstance(weight, torch.Tensor) else torch.float32
    return Example((torch.zeros(_BATCH, *sizes, dtype=dtype, device="meta"),))


def _arguments(given: ExampleInput) -> tuple[tuple[object, ...], dict[str, object]]:
    if isinstance(given, Mapping):
        return (), dict(given)
    return (tuple(given) if isinstance(given, (list, tuple)) else (given,)), {}


def _on_meta(leaf: object) -> object:
    return torch.empty_like(leaf, device="meta") if isinstance(leaf, torch.Tensor) else leaf


def _doubled(leaf: object) -> object:
    return leaf.repeat(2, *[1] * (leaf.dim() - 1)) if isinstance(leaf, torch.Tensor) else leaf
