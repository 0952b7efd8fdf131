"""One shard of a folder: the header of a safetensors file, out of plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable

from loadstone.dtypes import DTYPES, nbytes_of

_ALIGNMENT = 8  # the package pads its header to this many bytes, so that tensors are aligned


def header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The first bytes of a file that holds these (key, dtype, shape), one behind the other.

    Format: https://github.com/huggingface/safetensors#format
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for key, dtype, shape in tensors:
        nbytes = nbytes_of(dtype, shape)
        name = DTYPES[dtype].safetensors
        sizes = [*shape[:-1], shape[-1] * 2] if name == "F4" else list(shape)  # pairs in torch, values there
        entries[key] = {"dtype": name, "shape": sizes, "data_offsets": [place, place + nbytes]}
        place += nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
