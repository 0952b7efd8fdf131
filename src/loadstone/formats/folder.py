"""A checkpoint that Loadstone wrote as a folder: shards of safetensors, and JSON for all that is no tensor.

model-00001-of-00002.safetensors, …     the model's tensors, by the keys of its state dict
model.safetensors.index.json            {"weight_map": {key: shard}}, as Hugging Face has it
training-00001-of-00001.safetensors, …  all other tensors, by their dotted place
training.json                           {"weight_map": …, "tree": …}: the plain values, tensors by reference
loadstone.json                          the manifest, and every file with its size and digest

A folder of a state dict alone has no training.json.  The digests of the JSON files are compared on opening, those of
the shards by `loadstone verify`.  Reference: docs/reference/folder-layout.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats import strict_json
from loadstone.formats.contents import Contents, Context
from loadstone.formats.members import member_path
from loadstone.io.digests import digest, is_digest
from loadstone.manifest import RECORD, Manifest, from_json
from loadstone.tensors import TensorInfo
from loadstone.values import AnnotatedDict, Value
from loadstone.writing.folder import Listed, own_digest
from loadstone.writing.folder_plan import Name, Section
from loadstone.writing.folder_tree import JSON_DEPTH, TENSOR, WEIGHT, decode

FORMAT = "folder"
INDEX = "model.safetensors.index.json"
TREE = "training.json"
_MANIFEST_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Listing:
    """What the JSON files of a folder say.

    Attributes:
        manifest: None where loadstone.json is damaged; then `files` is empty.
        digest: of loadstone.json itself.
        weights: the dotted place of the model's state dict in the tree.
        files: every file but loadstone.json, by name.
        shards: which shard each tensor is in, in the order of the tree.
        tree: the encoded tree of training.json; None where the folder holds a state dict alone.
        diagnostics: what was noticed.
    """

    manifest: Manifest | None
    digest: str | None
    weights: str
    files: Mapping[str, Listed]
    shards: Mapping[Name, str]
    tree: Any
    diagnostics: tuple[Diagnostic, ...]


def recognises_directory(path: Path) -> bool:
    """Whether this is a directory with a loadstone.json, and a tree or an index to go with it."""
    return os.path.isfile(path / RECORD) and any(os.path.isfile(path / name) for name in (INDEX, TREE))


def read_directory(path: Path, context: Context) -> Contents:
    """The same tree as a .pth of that content would give; its weights are a state dict in it.

    Raises IntegrityError (missing-shard, truncated-file, bad-digest) for a file that is not there or not what was
    written, FormatError for a folder that contradicts itself, UnsafeError (unsafe-path) for a name that leads out.
    """
    listing = read_listing(path, context)
    diagnostics = list(listing.diagnostics)
    tensors = _tensors(path, listing.shards, context, diagnostics)
    if listing.tree is None:
        tree: Value = {key: tensors["model", key] for _, key in listing.shards}
    else:
        sections: dict[str, Section] = {WEIGHT: "model", TENSOR: "training"}

        def referred(tag: str, reference: Mapping[str, Any]) -> TensorInfo:
            info = tensors.get((sections[tag], reference[tag]))
            if info is None:
                message = f"`{path / TREE}` refers to `{reference[tag]!s:.200}`, which is in no shard"
                raise FormatError(Diagnostic("index-mismatch", message))
            return replace(info, requires_grad=True) if reference.get("requires_grad") is True else info

        tree = decode(listing.tree, referred, AnnotatedDict, f"`{path / TREE}`")
    metadata = {} if listing.manifest is None else _texts(listing.manifest.metadata)
    weights = () if listing.tree is None else None
    return Contents(FORMAT, tree, tuple(diagnostics), metadata, weights, manifest=listing.manifest)


def read_listing(path: Path, context: Context) -> Listing:
    """What the JSON files say; every file they list is there in the size they say."""
    manifest, own, weights, files, diagnostics = _read_manifest(path, context)
    for name, listed in files.items():
        _check_size(path, name, listed)
    extra = [name for name in sorted(os.listdir(path)) if files and name.endswith(".safetensors") and name not in files]
    if extra:
        message = f"{len(extra):,} shards in `{path}` are not in its list, and are not read"
        diagnostics.append(
            Diagnostic("index-mismatch", message, tuple(("not listed", name) for name in extra[:8]), level="warning")
        )
    shards: dict[Name, str] = {}
    tree = None
    if TREE in files or os.path.isfile(path / TREE):
        document = _parsed(path, TREE, files, context, JSON_DEPTH)
        tree = document.get("tree")
        shards |= {("training", key): shard for key, shard in _weight_map(path, TREE, document)}
    if INDEX in files or os.path.isfile(path / INDEX):
        document = _parsed(path, INDEX, files, context, 32)
        shards |= {("model", key): shard for key, shard in _weight_map(path, INDEX, document)}
    return Listing(manifest, own, weights, files, shards, tree, tuple(diagnostics))


def _read_manifest(
    path: Path, context: Context
) -> tuple[Manifest | None, str | None, str, dict[str, Listed], list[Diagnostic]]:
    """loadstone.json; a damaged one is said, and is no reason not to read the weights."""
    source = context.open_path(member_path(path, RECORD))
    name = f"`{source.name}`"
    context.limits.check("header_nbytes", source.size, name)
    data = source.read(0, source.size)
    found = own_digest(data)
    try:
        if found is None or found[0] != found[1]:
            raise FormatError(Diagnostic("invalid-manifest", f"{name} is damaged: its own digest is another"))
        value = strict_json.parse(data, name=name, limits=context.limits, max_depth=_MANIFEST_DEPTH, allow_nan=True)
        manifest = from_json(value, source.name)
        assert isinstance(value, dict)  # as from_json has found
        return manifest, found[0], str(value.get("weights", "")), dict(_listed(name, value.get("files"))), []
    except FormatError as error:
        return None, None, "", {}, [Diagnostic("invalid-manifest", error.diagnostics[0].message, level="warning")]


def _listed(name: str, files: object) -> Iterable[tuple[str, Listed]]:
    for file, entry in files.items() if isinstance(files, dict) else ():
        match entry:
            case [int(nbytes), str(text)] if is_digest(text) and type(nbytes) is int:
                yield file, Listed(nbytes, text)
            case _:
                raise FormatError(Diagnostic("invalid-manifest", f"{name} lists `{file:.200}` as {entry!r:.80}"))


def _check_size(path: Path, name: str, listed: Listed) -> None:
    try:
        size = os.stat(member_path(path, name)).st_size
    except FileNotFoundError as error:
        raise IntegrityError(Diagnostic("missing-shard", f"`{name}` is not in `{path}`, which lists it")) from error
    except OSError as error:
        raise IntegrityError(Diagnostic("io-error", f"`{path / name}`: {error.strerror or error}")) from error
    if size != listed.nbytes:
        raise IntegrityError(
            Diagnostic(
                "truncated-file" if size < listed.nbytes else "bad-digest",
                f"`{name}` in `{path}` has {size:,} bytes and was written with {listed.nbytes:,}",
                evidence=(("written", f"{listed.nbytes:,} bytes"), ("found", f"{size:,} bytes")),
            )
        )


def _parsed(path: Path, name: str, files: Mapping[str, Listed], context: Context, depth: int) -> dict[str, Any]:
    source = context.open_path(member_path(path, name))
    context.limits.check("header_nbytes", source.size, f"`{source.name}`")
    data = source.read(0, source.size)
    if name in files and (found := digest(data)) != files[name].digest:
        raise IntegrityError(
            Diagnostic(
                "bad-digest",
                f"`{source.name}` is damaged: its bytes are not those that were written",
                evidence=(("written", files[name].digest), ("found", found)),
            )
        )
    value = strict_json.parse(data, name=f"`{source.name}`", limits=context.limits, max_depth=depth)
    if not isinstance(value, dict):
        raise FormatError(Diagnostic("header-invalid", f"`{source.name}` holds no object"))
    return value


def _weight_map(path: Path, name: str, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Which shard each key is in; every name of a shard is proved to lie in the folder."""
    shards = document.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise FormatError(Diagnostic("header-invalid", f"`{path / name}` has no `weight_map` from keys to files"))
    for shard in dict.fromkeys(shards.values()):
        member_path(path, shard)
    return shards.items()


def _tensors(
    path: Path, shards: Mapping[Name, str], context: Context, diagnostics: list[Diagnostic]
) -> dict[Name, TensorInfo]:
    """Every tensor that the indexes name, out of its shard."""
    holding: dict[str, list[Name]] = {}
    for name, shard in shards.items():
        holding.setdefault(shard, []).append(name)
    tensors: dict[Name, TensorInfo] = {}
    for shard, names in holding.items():
        member = member_path(path, shard)
        if not os.path.isfile(member):
            message = f"`{shard}` is not in `{path}`: {len(names):,} of {len(shards):,} tensors are in it"
            raise IntegrityError(Diagnostic("missing-shard", message))
        contents = context.open(context.open_path(member))
        diagnostics += contents.diagnostics
        found = contents.tree if isinstance(contents.tree, dict) else {}
        absent = tuple(key for _, key in names if not isinstance(found.get(key), TensorInfo))
        if absent:
            message = f"{len(absent):,} tensors are not in `{path / shard}`, where the index says"
            raise FormatError(Diagnostic("index-mismatch", message, keys=absent))
        tensors |= {name: found[name[1]] for name in names}
        unlisted = tuple(map(str, found.keys() - {key for _, key in names}))
        if unlisted:
            message = f"{len(unlisted):,} tensors in `{path / shard}` are in no index, and are not read"
            diagnostics.append(Diagnostic("index-mismatch", message, keys=unlisted, level="warning"))
    return {name: tensors[name] for name in shards}


def _texts(metadata: Mapping[str, object]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
