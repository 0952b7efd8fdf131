"""Which weights made a value: every operation of a forward pass hands on where its arguments came from.

Operations that mix channels (a matrix product, a convolution, a look-up) with a weight of the model begin a new origin.
All others (activations, pooling, reshaping, dropout, softmax, adding) hand on the origin of their arguments; a weight
that takes part in them, as in a norm behind a layer, is remembered.  So the origin of the class scores is the head,
whatever the model calls it, and the first operations that mix the image are the input layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loadstone.model.lineage import WritesIntoModelError, storage_id, written_by

_aten = torch.ops.aten
_MIXING = {
    _aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm, _aten.addbmm, _aten.mv, _aten.addmv, _aten.dot, _aten.linear,
    _aten.convolution, _aten._convolution, _aten.embedding, _aten.embedding_bag, _aten._embedding_bag,
    _aten._transformer_encoder_layer_fwd, _aten._native_multi_head_attention,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        weights: keys of the weights that it is made of, where it is made of weights alone.
        mixed_by: keys of the weights that last mixed its channels.
        after: keys of the weights that have changed it since, channel by channel.
        inputs: numbers of the inputs whose channels are still unmixed in it.
    """

    weights: frozenset[str] = frozenset()
    mixed_by: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    inputs: frozenset[int] = frozenset()

    def __or__(self, other: Origin) -> Origin:
        return Origin(
            self.weights | other.weights,
            self.mixed_by | other.mixed_by,
            self.after | other.after,
            self.inputs | other.inputs,
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """An operation that mixed the channels of an input: with which weights, and which weights had touched it before."""

    input: int
    weights: frozenset[str]
    after: frozenset[str]


_NOTHING = Origin()


def _normed(func: Any, args: tuple[Any, ...]) -> tuple[torch.Tensor, ...] | None:
    """What a batch norm returns on meta, where torch would go through its arithmetic in Python, ten times as long."""
    if func.overloadpacket is not _aten.native_batch_norm or not args[0].is_meta:
        return None
    value, weight, _, mean = args[:4]
    if any(each is not None and each.shape != value.shape[1:2] for each in (weight, mean)):
        return None  # torch says what is wrong
    return torch.empty_like(value), value.new_empty(value.shape[1]), value.new_empty(value.shape[1])


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows weights (by key) and inputs through a forward pass; refuses to write into `protected` tensors."""

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        inputs: Sequence[torch.Tensor],
        protected: Sequence[torch.Tensor] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken: list[Taken] = []
        self._origins: dict[int, Origin] = {}
        for key, weight in weights.items():
            self._add(weight, Origin(weights=frozenset([key])))
        for number, tensor in enumerate(inputs):
            self._add(tensor, Origin(inputs=frozenset([number])))
        self._protected = {storage_id(tensor) for tensor in protected}
        self._alive: list[Any] = [weights, inputs, protected]  # so that the ids of their storages are not used again

    def origin_of(self, tensor: torch.Tensor) -> Origin:
        """Where the tensor came from; an empty Origin for a constant."""
        return self._origins.get(storage_id(tensor), _NOTHING)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._protected and not self._protected.isdisjoint(map(storage_id, written_by(func, args, kwargs))):
            raise WritesIntoModelError(f"its forward writes into its weights ({func})")
        origins = [self.origin_of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        result = _normed(func, args) or func(*args, **kwargs)
        origin = self._result(func.overloadpacket, [each for each in origins if each is not _NOTHING])
        if origin is not _NOTHING:
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self._add(leaf, origin)
                    self._alive.append(leaf)
        return result

    def _result(self, operation: Any, origins: list[Origin]) -> Origin:
        if not origins:
            return _NOTHING
        weights: frozenset[str] = frozenset().union(*(each.weights for each in origins))
        data = [each for each in origins if not each.weights]
        if not data:
            return Origin(weights=weights)
        merged = data[0]
        for each in data[1:]:
            merged |= each
        if not weights:
            return merged
        if operation not in _MIXING:
            return Origin(mixed_by=merged.mixed_by, after=merged.after | weights, inputs=merged.inputs)
        self.taken += [Taken(number, weights, merged.after) for number in sorted(merged.inputs)]
        return Origin(mixed_by=weights)

    def _add(self, tensor: torch.Tensor, origin: Origin) -> None:
        place = storage_id(tensor)
        known = self._origins.get(place)
        is_overwritten = known is not None and known.weights and not origin.weights  # a weight that holds data now
        self._origins[place] = origin if known is None or is_overwritten else known | origin
