"""The manifest of a file, read and held against the tensors that are in it.

A manifest that cannot be used is a warning: the weights can be read without it.
"""

from __future__ import annotations

from collections.abc import Callable
from json import dumps

from loadstone.errors import Diagnostic, LoadstoneError
from loadstone.formats import strict_json
from loadstone.io.limits import Limits
from loadstone.manifest import Manifest, from_json
from loadstone.tree import every_tensor
from loadstone.values import Value

_MOST_LISTED = 5
_MAX_DEPTH = 100


def read_manifest(
    data: Callable[[], bytes], tree: Value, *, name: str, limits: Limits
) -> tuple[Manifest | None, tuple[Diagnostic, ...]]:
    """The manifest that `data` reads, or None; and what is wrong with it (invalid-manifest, a warning)."""
    try:
        manifest = from_json(_parsed(data(), name, limits), name)
    except LoadstoneError as error:
        return None, (Diagnostic("invalid-manifest", error.diagnostics[0].message, level="warning"),)
    differing = _differing(manifest, tree)
    if not differing:
        return manifest, ()
    rows = tuple(list(differing.items())[:_MOST_LISTED])
    what = "1 tensor is" if len(differing) == 1 else f"{len(differing):,} tensors are"
    message = f"{what} not what the manifest in `{name}` says"
    return manifest, (Diagnostic("invalid-manifest", message, rows, keys=tuple(differing), level="warning"),)


def _parsed(data: bytes, name: str, limits: Limits) -> object:
    return strict_json.parse(
        data, name=f"the manifest in `{name}`", limits=limits, max_depth=_MAX_DEPTH, allow_nan=True
    )


def texts_of(manifest: Manifest | None) -> dict[str, str]:
    """What the caller of `save` wrote, text to text as safetensors has it."""
    metadata = manifest.metadata if manifest else {}
    return {key: value if isinstance(value, str) else dumps(value) for key, value in metadata.items()}


def _differing(manifest: Manifest, tree: Value) -> dict[str, str]:
    """By key, in what way the file has something else; tensors of which the manifest says nothing are passed over."""
    found: dict[str, str] = {}
    infos = every_tensor(tree)
    for key, mark in manifest.tensors.items():
        info = infos.get(key)
        if info is None:
            found[key] = "it is not in the file"
        elif (info.dtype, info.shape) != (mark.dtype, mark.shape):
            found[key] = f"{info.dtype} {info.shape} in the file, {mark.dtype} {mark.shape} in the manifest"
    return found
