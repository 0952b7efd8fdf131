"""Construct a model without the work of initialising it, and know afterwards which of its tensors hold nothing.

Random initialisation is what makes construction slow.  Under `Uninitialised` random fills are left out, together with
what is computed from them, and everything else runs: masks, position indices and constants come out as always.
Memory that is never written costs next to nothing, as the operating system gives it out when it is first touched.

Where the outcome would depend on what was left out (a value is looked at, a tensor goes to numpy), `is_certain` is
False and the model has to be constructed again in full.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from loadstone.model.lineage import storage_id, written_by

_aten = torch.ops.aten
_LOOKS = {_aten._local_scalar_dense, _aten.equal, _aten.is_nonzero, _aten.nonzero, _aten.masked_select, _aten.item}
_OVERWRITES = {_aten.copy_, _aten.fill_, _aten.zero_}
_LEAVES = {
    torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.data_ptr, torch.Tensor.__dlpack__,
}  # fmt: skip


class Uninitialised(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves out random fills and what follows from them.

    Attributes:
        is_certain: nothing that was left out was looked at.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_certain = True
        self._empty: set[int] = set()  # storages without values
        self._alive: list[torch.Tensor] = []  # so that their ids are not used again
        self._exits = _Exits(self)

    def is_empty(self, tensor: torch.Tensor) -> bool:
        """Its values were left out."""
        return storage_id(tensor) in self._empty

    def __enter__(self) -> Uninitialised:
        self._exits.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._exits.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        reads_empty = any(self.is_empty(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        written = written_by(func, args, kwargs)
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        if packet in _LOOKS and reads_empty:
            return self._looked(func, args, kwargs)
        if written and is_random:
            return self._left_out(written, args)
        if written and reads_empty:
            if packet in _OVERWRITES and _covers_its_storage(written[0]) and not _any_empty(self, args[1:]):
                result = func(*args, **kwargs)
                self._empty.discard(storage_id(written[0]))
                return result
            return self._left_out(written, args)
        if (is_random or reads_empty) and not _is_view(func):
            return self._without_values(func, args, kwargs)
        return func(*args, **kwargs)

    def _left_out(self, written: list[torch.Tensor], args: tuple[Any, ...]) -> Any:
        for tensor in written:
            self._mark(tensor)
        return args[0] if len(written) == 1 else tuple(written)

    def _without_values(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Memory of the shape that the operation would give."""
        device = kwargs.get("device") or next(
            (leaf.device for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)), torch.device("cpu")
        )
        meta_args, meta_kwargs = tree_map(_on_meta, (args, dict(kwargs)))
        if any(argument.name == "device" for argument in func._schema.arguments):
            meta_kwargs["device"] = torch.device("meta")
        try:
            shaped = func(*meta_args, **meta_kwargs)
        except (NotImplementedError, RuntimeError):  # its shape depends on values
            self.is_certain = False
            return func(*args, **kwargs)
        return tree_map(lambda leaf: self._like(leaf, device), shaped)

    def _like(self, leaf: Any, device: torch.device) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        made = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=device)
        self._mark(made)
        return made

    def _looked(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """torch's own initialisers may look at what they fill (trunc_normal_ draws again until all fits); it fits."""
        if func.overloadpacket is _aten._local_scalar_dense and args[0].dtype == torch.bool and _in_torch_init():
            return False
        self.is_certain = False
        return func(*args, **kwargs)

    def _mark(self, tensor: torch.Tensor) -> None:
        self._empty.add(storage_id(tensor))
        self._alive.append(tensor)


class _Exits(TorchFunctionMode):
    """Sees tensors leave torch, for numpy or as addresses, where no operation would show it."""

    def __init__(self, mode: Uninitialised) -> None:
        super().__init__()
        self._mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LEAVES and self._mode.is_empty(args[0]):
            self._mode.is_certain = False
        return func(*args, **(kwargs or {}))


def _any_empty(mode: Uninitialised, values: Any) -> bool:
    return any(mode.is_empty(leaf) for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


def _covers_its_storage(tensor: torch.Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _is_view(func: Any) -> bool:
    return any(result.alias_info is not None for result in func._schema.returns)


def _on_meta(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf


def _in_torch_init() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.nn.init":
            return True
        frame = frame.f_back
    return False
