"""Manifest: what a file that Loadstone wrote says about itself, as plain values.

It travels inside the file, where other readers do not look: in a torch zip as the record `loadstone.json` under the
root, in safetensors as the entry `loadstone` of `__metadata__`, in a folder as the file `loadstone.json`.  Nothing that
it says is trusted: the digests are compared, the rest is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from loadstone.errors import Diagnostic, FormatError
from loadstone.io.digests import is_digest

VERSION = 1
RECORD = "loadstone.json"  # in a torch zip under the root, in a folder a file
ENTRY = "loadstone"  # of a safetensors file's __metadata__
FILE_ENTRY = "loadstone.file"  # of a safetensors file's __metadata__: the digest of the file
COMMENT = "loadstone "  # in front of the digest of the file, in a zip's comment

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a tensor is: its dtype's name, its shape, and the digest of its values.

    The digest is of the values in row-major order, little-endian, without gaps: the same for the same tensor in every
    format and with every stride.
    """

    dtype: str
    shape: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file says about itself.

    Attributes:
        tensors: by the tensor's dotted key in the whole file, as `Checkpoint.tensors` has it.
        model: {"class", "modules": {path: class}, "parameters", "trainable", "buffers"} (counts are elements);
            empty where the file was not written from a model.
        metadata: what the caller of `save` wrote.
        training: what a `Run` adds: epoch, step, batch, metrics, config, name.
        written: {"time" (UTC, ISO 8601), "loadstone", "torch", "python", "platform", "git": {"commit", "is_dirty"}}.
        parent: {"name", "digest" (of the file)} of the checkpoint this one came from.
        probe: an input's description and the output's values (model/probe.py).
    """

    tensors: Mapping[str, Fingerprint]
    model: Mapping[str, Plain] = field(default_factory=dict)
    metadata: Mapping[str, Plain] = field(default_factory=dict)
    training: Mapping[str, Plain] = field(default_factory=dict)
    written: Mapping[str, Plain] = field(default_factory=dict)
    parent: Mapping[str, Plain] | None = None
    probe: Mapping[str, Plain] | None = None

    def to_json(self) -> str:
        """One line of JSON, the same for the same manifest."""
        return json.dumps(
            {
                "version": VERSION,
                "tensors": {key: [mark.dtype, list(mark.shape), mark.digest] for key, mark in self.tensors.items()},
                **{name: getattr(self, name) for name in _PARTS},
            },
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=True,  # a loss may be NaN; Python and our own reader take the word back
        )


_PARTS = ("model", "metadata", "training", "written", "parent", "probe")
_MAY_BE_NONE = ("parent", "probe")


def from_json(value: object, name: str) -> Manifest:
    """A manifest out of parsed JSON.  Raises FormatError (invalid-manifest), which calls the file `name`."""
    if not isinstance(value, dict):
        raise _invalid(name, f"it is a {type(value).__name__} instead of an object")
    if value.get("version") != VERSION:
        raise _invalid(name, f"its version is {value.get('version')!r:.20}, this Loadstone reads {VERSION}")
    tensors = value.get("tensors")
    if not isinstance(tensors, dict):
        raise _invalid(name, "it lists no tensors")
    parts: dict[str, Any] = {part: value.get(part) for part in _PARTS}
    for part, content in parts.items():
        if not (isinstance(content, dict) or (content is None and part in _MAY_BE_NONE)):
            raise _invalid(name, f"its `{part}` is a {type(content).__name__}")
    return Manifest({key: _fingerprint(name, key, entry) for key, entry in tensors.items()}, **parts)


def _fingerprint(name: str, key: str, entry: object) -> Fingerprint:
    match entry:
        case [str(dtype), list(shape), str(text)] if is_digest(text) and all(type(size) is int for size in shape):
            return Fingerprint(dtype, tuple(shape), text)
    raise _invalid(name, f"its line for `{key:.200}` is {entry!r:.80}")


def _invalid(name: str, what: str) -> FormatError:
    return FormatError(Diagnostic("invalid-manifest", f"the manifest in `{name}` cannot be used: {what}"))
