"""What may be in a file: plain data that `torch.load(weights_only=True)` opens again, and dense tensors in safetensors.

Everything is looked through before a file is touched; the first value that does not fit is named by its place.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping

import torch

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, SaveError
from loadstone.tree import free_key, join

_PLAIN = frozenset(
    (bool, int, float, complex, str, bytes, bytearray, type(None), torch.dtype, torch.device, torch.Size)
)
_DICTS = frozenset((dict, OrderedDict, Counter))
_KEYS = (str, int, float, bool, bytes, type(None))
_SHARDED = frozenset(("DTensor", "ShardedTensor", "FlatParameter"))
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_DEPTH = 100


def check(value: object) -> None:
    """Raise SaveError (unsaveable-value) for the first value that torch would not open with `weights_only=True`."""
    _check(value, "", 0)


def tensors_by_key(content: object) -> dict[str, torch.Tensor]:
    """All tensors by the dotted key that `Checkpoint.tensors` will have for them."""
    found: dict[str, torch.Tensor] = {}
    for key, tensor in _tensors("", content):
        found[free_key(key, found)] = tensor
    return found


def dense_tensors(content: object) -> dict[str, torch.Tensor]:
    """The state dict as safetensors can hold it; raises SaveError for the first value that it cannot."""
    if not isinstance(content, Mapping):
        raise unsaveable(f"a {type(content).__name__} is neither a model nor a state dict")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or key == "__metadata__":
            raise unsaveable(f"a .safetensors file cannot have the key {key!r:.100}")
        if not isinstance(value, torch.Tensor):
            raise unsaveable(f"`{key}` is a {type(value).__name__}, a .safetensors file holds tensors only")
        dtype = DTYPES.get(str(value.dtype).removeprefix("torch."))
        refuse_sharded(value, key)
        kind = "on the meta device" if value.is_meta else str(value.layout).removeprefix("torch.")
        if not is_dense(value):
            raise unsaveable(f"`{key}` is {kind}, a .safetensors file holds dense tensors only")
        if dtype is None or dtype.safetensors is None or value.is_quantized:
            raise unsaveable(f"`{key}` is {value.dtype}, which a .safetensors file has no name for")
        tensors[key] = value
    # widest dtype first, so that every tensor starts at a multiple of its element size, as the library does it
    return dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))


def is_dense(tensor: torch.Tensor) -> bool:
    """It has a storage with its values."""
    return not tensor.is_meta and tensor.layout == torch.strided and not tensor.is_nested


def refuse_sharded(tensor: torch.Tensor, place: str) -> None:
    """Raise SaveError for a tensor of which this process holds a part: a file of parts looks whole and is not."""
    if type(tensor).__name__ in _SHARDED:
        message = f"`{place}` is sharded over several processes ({type(tensor).__name__}); this one holds a part of it"
        way = "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))"
        raise unsaveable(message, Fix("gather it on every rank, and save on one", way))


def unsaveable(message: str, *fixes: Fix) -> SaveError:
    """The error for what no file can hold."""
    return SaveError(Diagnostic("unsaveable-value", message, fixes=fixes))


def _check(value: object, place: str, depth: int) -> None:
    if depth > _DEPTH:
        raise unsaveable(f"`{place:.200}` is nested more than {_DEPTH} deep")
    if isinstance(value, torch.Tensor):
        _check_tensor(value, place)
    elif isinstance(value, Mapping):
        if type(value) not in _DICTS:
            message = f"`{place or 'the object'}` is a {type(value).__name__}, not a plain dict"
            raise unsaveable(message, Fix("make it one", "dict(value)"))
        for key, child in value.items():
            if not isinstance(key, _KEYS) or type(key).__module__ == "numpy":
                raise unsaveable(f"a key of `{place or 'the object'}` is a {type(key).__name__}")
            _check(child, join(place, str(key)), depth + 1)
    elif isinstance(value, (list, tuple, set)) and type(value) in (list, tuple, set):
        for index, child in enumerate(value):
            _check(child, join(place, str(index)), depth + 1)
    elif type(value) not in _PLAIN:
        message = f"`{place or 'the object'}` is a {type(value).__name__}, which is no plain data"
        raise unsaveable(message, *_way_out(value))


def _check_tensor(value: torch.Tensor, place: str) -> None:
    refuse_sharded(value, place)
    if value.is_meta:
        raise unsaveable(f"`{place}` is on the meta device and has no values")
    if type(value) not in _TENSORS and type(value) not in torch.serialization.get_safe_globals():
        message = f"`{place}` is a {type(value).__name__}, which `weights_only=True` does not open"
        raise unsaveable(message, Fix("save its values", "value.as_subclass(torch.Tensor)"))


def _way_out(value: object) -> tuple[Fix, ...]:
    if type(value).__module__ != "numpy":
        return ()
    if type(value).__name__ == "ndarray":
        return (Fix("save a tensor", "torch.from_numpy(value)"),)
    return (Fix("save a plain number", "value.item()"),)


def _tensors(key: str, value: object) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield key, value
    elif isinstance(value, Mapping):
        for name, child in value.items():
            text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
            yield from _tensors(join(key, text), child)
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _tensors(join(key, str(index)), child)
