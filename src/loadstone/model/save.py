"""The verb `save`: a model or a state dict into a .pth or .safetensors file that plain torch and safetensors open.

The file is written beside its place and takes its name when it is whole (see io/replace.py).  Every key of the state
dict is in the file; tensors that share memory stay shared in a .pth, and are written once for each key in safetensors,
whose format knows no sharing.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from loadstone import as_torch
from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, Fix, LoadstoneError, SaveError
from loadstone.io.replace import replacing

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # .tar and .pth.tar as PyTorch's tutorials call checkpoints
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_DEPTH = 100
_METADATA_ALIGNMENT = 8  # safetensors pads its header to this many bytes, so that tensors are aligned


def save(
    obj: nn.Module | Mapping[str, Any], path: str | os.PathLike[str], *, metadata: Mapping[str, object] | None = None
) -> None:
    """Write `obj` to `path`, whole or not at all.

    Args:
        obj: a model, of which `state_dict()` is written, or a state dict.  For .pth also a dict with other dicts,
            lists, tuples, numbers and strings in it.
        path: its suffix says the format: .pth, .pt, .bin, .ckpt or .tar (torch's zip), or .safetensors.
        metadata: for .safetensors, values that json can write; they go into the header's `__metadata__`.

    Raises:
        SaveError: no-space, save-failed, or unsaveable-value; a file that was at `path` is as it was.
    """
    target = Path(path)
    if target.suffix in _TORCH_SUFFIXES:
        if metadata:
            raise _unsaveable(
                f"`{target.suffix}` files take no metadata yet",
                Fix("keep it in the dict", 'loadstone.save({"state_dict": model.state_dict(), "epoch": 3}, path)'),
            )
        content = obj.state_dict() if isinstance(obj, nn.Module) else obj
        _check(content, "")
        with replacing(target) as file:
            _write_torch(content, file)
    elif target.suffix == ".safetensors":
        tensors = _tensors(obj.state_dict() if isinstance(obj, nn.Module) else obj)
        header = _header(tensors, metadata or {})
        with replacing(target) as file:
            file.write(header)
            for tensor in tensors.values():
                values = _dense(tensor)  # lives until its bytes are written
                file.write(as_torch.memory_of(values))
    else:
        raise _unsaveable(
            f"`{target.name}` has no suffix that names a format",
            Fix("give it one of these", ".pth .pt .bin .ckpt .tar .safetensors"),
        )


def _write_torch(content: object, file: BinaryIO) -> None:
    """`torch.save`, whose own errors about the file are RuntimeErrors that hide the OSError they came from."""
    failing = Watched(file)
    try:
        torch.save(content, failing)  # type: ignore[arg-type]  # all that it needs of a file is write and flush
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        if failing.error is not None:
            raise failing.error from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unsaveable(f"torch cannot write this: {reason}") from error


class Watched:
    """A file that remembers the error of the operating system that stopped it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _check(value: object, place: str, depth: int = 0) -> None:
    """Everything in it is plain data that `torch.load(weights_only=True)` opens again."""
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            raise _unsaveable(f"`{place}` is on the meta device and has no values")
    elif isinstance(value, Mapping):
        if type(value) not in (dict, OrderedDict):
            raise _unsaveable(f"`{place or 'the object'}` is a {type(value).__name__}, not a plain dict")
        for key, child in value.items():
            if not isinstance(key, (str, int, float, bool, bytes, type(None))):
                raise _unsaveable(f"a key of `{place or 'the object'}` is a {type(key).__name__}")
            _check_deeper(child, f"{place}.{key!s}" if place else str(key), depth)
    elif type(value) in (list, tuple, set):
        for index, child in enumerate(value):  # type: ignore[arg-type]
            _check_deeper(child, f"{place}.{index}", depth)
    elif type(value) not in _PLAIN:
        raise _unsaveable(f"`{place or 'the object'}` is a {type(value).__name__}, which is no plain data")


def _check_deeper(value: object, place: str, depth: int) -> None:
    if depth == _DEPTH:
        raise _unsaveable(f"`{place:.200}` is nested more than {_DEPTH} deep")
    _check(value, place, depth + 1)


def _tensors(content: object) -> dict[str, torch.Tensor]:
    """The state dict as safetensors can hold it; raises SaveError for the first value that it cannot."""
    if not isinstance(content, Mapping):
        raise _unsaveable(f"a {type(content).__name__} is neither a model nor a state dict")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or key == "__metadata__":
            raise _unsaveable(f"a .safetensors file cannot have the key {key!r:.100}")
        if not isinstance(value, torch.Tensor):
            raise _unsaveable(f"`{key}` is a {type(value).__name__}, a .safetensors file holds tensors only")
        dtype = DTYPES.get(str(value.dtype).removeprefix("torch."))
        kind = "on the meta device" if value.is_meta else str(value.layout).removeprefix("torch.")
        if value.is_meta or value.layout != torch.strided or value.is_nested:
            raise _unsaveable(f"`{key}` is {kind}, a .safetensors file holds dense tensors only")
        if dtype is None or dtype.safetensors is None or value.is_quantized:
            raise _unsaveable(f"`{key}` is {value.dtype}, which a .safetensors file has no name for")
        tensors[key] = value
    # widest dtype first, so that every tensor starts at a multiple of its element size, as the library does it
    return dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))


def _header(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, object]) -> bytes:
    """The length and the JSON of a .safetensors file; see formats/safetensors.py for the layout."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **_texts(metadata)}}
    place = 0
    for key, tensor in tensors.items():
        dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
        nbytes = tensor.numel() * tensor.element_size()
        shape = [*tensor.shape]
        if dtype.safetensors == "F4":  # counted in values there, in pairs in torch
            shape[-1] *= 2
        header[key] = {"dtype": dtype.safetensors, "shape": shape, "data_offsets": [place, place + nbytes]}
        place += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % _METADATA_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _texts(metadata: Mapping[str, object]) -> dict[str, str]:
    """Metadata as safetensors has it, text to text: strings as they are, all else as JSON."""
    try:
        return {
            str(key): value if isinstance(value, str) else json.dumps(value, allow_nan=False)
            for key, value in metadata.items()
        }
    except (TypeError, ValueError, RecursionError) as error:
        raise _unsaveable(f"the metadata cannot be written as JSON: {error}") from error


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The values in row-major CPU memory; the tensor itself where they are."""
    return tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()


def _unsaveable(message: str, *fixes: Fix) -> LoadstoneError:
    return SaveError(Diagnostic("unsaveable-value", message, fixes=fixes))
