"""The header of a safetensors file, with the file's own digest first and the manifest in `__metadata__`.

Layout: see formats/safetensors.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from loadstone.dtypes import DTYPES, nbytes_of
from loadstone.io.digests import UNKNOWN
from loadstone.io.hashed import ZEROS
from loadstone.manifest import ENTRY, FILE_ENTRY, Manifest

_METADATA_ALIGNMENT = 8  # the header is padded to this many bytes, so that tensors are aligned
_START = f'{{"__metadata__":{{"{FILE_ENTRY}":"{UNKNOWN}'
MARK = 8 + len(_START) - len(ZEROS)
"""Where the digits of the file's own digest stand."""


def header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], texts: Mapping[str, str], manifest: Manifest) -> bytes:
    """The length and the JSON, with zeros for the file's digest; `tensors` are dtype and shape, in order."""
    return plain_header(tensors, {FILE_ENTRY: UNKNOWN, "format": "pt", **texts, ENTRY: manifest.to_json()})


def plain_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON of a file of these tensors, with nothing of Loadstone's own."""
    content: dict[str, object] = {"__metadata__": dict(metadata)}
    place = 0
    for key, (name, shape) in tensors.items():
        stop = place + nbytes_of(name, shape)
        dtype = DTYPES[name]
        if dtype.safetensors == "F4":  # counted in values there, in pairs in torch
            shape = (*shape[:-1], shape[-1] * 2)
        content[key] = {"dtype": dtype.safetensors, "shape": shape, "data_offsets": [place, stop]}
        place = stop
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % _METADATA_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
