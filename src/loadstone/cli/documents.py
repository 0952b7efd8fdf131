"""What `--json` says, as plain values that any JSON parser takes: no NaN, no huge numbers, bounded everywhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadstone.screens.brief import name_of
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, Value

if TYPE_CHECKING:
    from loadstone.checkpoint import Checkpoint
    from loadstone.manifest import Manifest

_MOST_LEVELS = 8
_MOST_VALUES = 20_000  # in one document; tensors are listed on their own and do not count
_MOST_CHARACTERS = 2_000
_SAFE_BITS = 63  # integers of more bits are given as text: many parsers cannot hold them


def inspection(checkpoint: Checkpoint) -> dict[str, object]:
    """Everything `loadstone inspect` knows about one checkpoint."""
    chosen = checkpoint.chosen if checkpoint.sets else None
    return {
        "path": checkpoint.name,
        "format": checkpoint.format,
        "files": list(checkpoint.files),
        "nbytes": checkpoint.nbytes,
        "metadata": dict(checkpoint.metadata),
        "tensors": [_tensor(key, info) for key, info in checkpoint.tensors.items()],
        "weight_sets": [
            {
                "name": weight_set.name,
                "tensors": len(weight_set.tensors),
                "elements": weight_set.elements,
                "is_averaged": weight_set.is_averaged,
            }
            for weight_set in checkpoint.sets
        ],
        "weights": None
        if chosen is None
        else {"name": chosen.name, "tensors": [_tensor(key, info) for key, info in chosen.tensors.items()]},
        "modules": dict(checkpoint.modules),
        "manifest": None if checkpoint.manifest is None else _about(checkpoint.manifest),
        "code": list(checkpoint.code),
        "values": Plain().value(checkpoint.tree),
        "diagnostics": [diagnostic.to_json() for diagnostic in checkpoint.diagnostics],
    }


def _about(manifest: Manifest) -> dict[str, object]:
    """What the file says about itself; its digests by key, the rest bounded as everything else."""
    parts = ("model", "metadata", "training", "written", "parent")
    return {
        "digests": {key: mark.digest for key, mark in manifest.tensors.items()},
        **{part: Plain().value(getattr(manifest, part)) for part in parts},
        "has_probe": manifest.probe is not None,
    }


def _tensor(key: str, info: TensorInfo) -> dict[str, object]:
    return {
        "key": key,
        "dtype": info.dtype,
        "shape": list(info.shape),
        "elements": info.elements,
        "nbytes": info.nbytes,
        "requires_grad": info.requires_grad,
        "layout": info.layout,
    }


class _Nothing:
    """A tensor, or a container of nothing but tensors: listed elsewhere."""


_NOTHING = _Nothing()


class Plain:
    """Turns a tree into JSON values without its tensors; counts, so that no tree however shared gets out of hand."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def value(self, value: Value) -> object:
        """The value, `null` where there is nothing but tensors in it."""
        plain = self._plain(value, _MOST_LEVELS)
        return None if plain is _NOTHING else plain

    def _plain(self, value: Value, levels: int) -> object:
        if isinstance(value, TensorInfo):
            return _NOTHING
        if self._left <= 0:
            return {"$truncated": "values"}
        self._left -= 1
        if isinstance(value, str):
            return value if len(value) <= _MOST_CHARACTERS else value[:_MOST_CHARACTERS] + "…"
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, complex):
            return str(value)
        if isinstance(value, (bytes, bytearray)):
            return {"$bytes": len(value)}
        return self._container(value, levels)

    def _container(self, value: Value, levels: int) -> object:
        if isinstance(value, (dict, list, tuple, set, frozenset, Opaque)) and levels == 0:
            return {"$truncated": "depth"}
        if isinstance(value, dict):
            return self._entries(value, levels)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value, levels)
        if isinstance(value, Opaque):
            inside = {
                "args": self._items(value.args, levels),
                "state": self._plain(value.state, levels - 1),
                "items": self._items(value.items, levels),
                "entries": self._entries(value.entries, levels),
            }
            kept = {
                name: child for name, child in inside.items() if child is not _NOTHING and child not in (None, {}, [])
            }
            return {"$class": value.class_name, **kept}
        return {"$type": type(value).__name__}

    def _entries(self, value: dict[Value, Value], levels: int) -> object:
        plain: dict[str, object] = {}
        for key, child in value.items():
            if self._left <= 0:
                plain["$truncated"] = "values"
                break
            kept = self._plain(child, levels - 1)
            if kept is not _NOTHING:
                plain[name_of(key)[:_MOST_CHARACTERS]] = kept
        return plain if plain else _NOTHING if value else {}

    def _items(self, value: list[Value] | tuple[Value, ...] | set[Value] | frozenset[Value], levels: int) -> object:
        plain: list[object] = []
        for child in value:
            if self._left <= 0:
                plain.append({"$truncated": "values"})
                break
            kept = self._plain(child, levels - 1)
            if kept is not _NOTHING:
                plain.append(kept)
        return plain if plain else _NOTHING


def _integer(value: int) -> object:
    if value.bit_length() <= _SAFE_BITS:
        return value
    return str(value) if value.bit_length() <= 10_000 else {"$integer": f"{value.bit_length()} bits"}
