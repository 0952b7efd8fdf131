"""The inputs that a model is exported with and tried on: the example, and others made from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, RecipeError

_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Arguments of one call of the model."""

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] | None = None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All the tensors in it, nested ones too."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]

    def mapped(self, change: Callable[[torch.Tensor], object]) -> Example:
        """The same with every tensor changed; one that is given twice stays one: attention asks `key is query`."""
        changed = {id(tensor): change(tensor) for tensor in self.tensors}
        args, kwargs = tree_map(lambda leaf: changed.get(id(leaf), leaf), (self.args, self.kwargs))
        return Example(args, kwargs)

    def given_to(self, function: Callable[..., object]) -> object:
        """What the function returns for it; the tensors it gets are copies, as a model may write into its input."""
        own = self.mapped(lambda tensor: tensor.detach().clone())
        torch.manual_seed(_SEED)  # layers that draw even in eval mode draw the same each time
        with torch.no_grad():
            return function(*own.args, **(own.kwargs or {}))


def example_of(value: object) -> Example:
    """A tensor is the one argument, a tuple the positional ones, a dict the named ones.

    Raises RecipeError (invalid-option) where there is no tensor in it.
    """
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        example = Example((), dict(value))
    else:
        example = Example(value if isinstance(value, tuple) else (value,))
    if not example.tensors:
        raise _invalid(f"`example_input` is a {type(value).__name__} without a tensor in it", _ACCEPTED)
    return example


_ACCEPTED = "a tensor; a tuple of positional arguments; a dict of named ones"


def varied(example: Example) -> Example:
    """The same shapes and dtypes with other values: floats of the same mean and spread, all else shuffled."""
    generator = torch.Generator().manual_seed(_SEED)

    def other(tensor: torch.Tensor) -> torch.Tensor:
        values = tensor.detach().cpu()
        if values.is_floating_point() or values.is_complex():
            values = values.to(torch.complex128 if values.is_complex() else torch.float64)
            spread = float(values.std(correction=0)) if values.numel() else 0.0
            noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
            made = noise * (spread if 0 < spread < math.inf else 1) + values.mean()
        else:
            made = values.flatten()[torch.randperm(values.numel(), generator=generator)].reshape(values.shape)
        return made.to(tensor.device, tensor.dtype)

    return example.mapped(other)


def negated(example: Example) -> Example:
    """The same with every float of the other sign."""
    return example.mapped(
        lambda tensor: -tensor.detach() if tensor.is_floating_point() or tensor.is_complex() else tensor
    )


def batch_of(example: Example) -> int:
    """The size that all tensors have in dimension 0.  Raises RecipeError (invalid-option) where there is none."""
    sizes = {tuple(tensor.shape[:1]) for tensor in example.tensors}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        shown = ", ".join(" × ".join(map(str, tensor.shape)) or "scalar" for tensor in example.tensors)
        raise _invalid("`dynamic_batch` wants inputs of one batch size, in dimension 0", f"not {shown}")
    return int(sizes.pop()[0])


def in_batches_of(size: int, example: Example) -> Example:
    """The same rows, as often as it takes to fill a batch of `size`."""
    return example.mapped(lambda tensor: tensor[torch.arange(size, device=tensor.device) % tensor.shape[0]])


def random_example(shapes: Sequence[Sequence[int]], dtype: str) -> tuple[torch.Tensor, ...]:
    """Tensors of these shapes: normally distributed floats, zeros and ones of any other dtype; always the same ones.

    Raises RecipeError (invalid-option) for a dtype that torch does not have.
    """
    found: Any = getattr(torch, dtype, None) if dtype in DTYPES else None
    if not isinstance(found, torch.dtype):
        raise _invalid(f"`dtype` is {dtype!r:.60}", "float32, float16, bfloat16, int64, bool, …")
    generator = torch.Generator().manual_seed(_SEED)
    if found.is_floating_point or found.is_complex:
        return tuple(torch.randn(tuple(shape), generator=generator).to(found) for shape in shapes)
    return tuple(torch.randint(0, 2, tuple(shape), generator=generator).to(found) for shape in shapes)


def _invalid(message: str, accepted: str) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", message, (("accepted", accepted),)))
