"""The verb `save`: a model, a state dict or a checkpoint into a .pth or .safetensors file that others can open.

The file is written beside its place, flushed, read back from the device and compared, and takes its name when it is
proved (io/replace.py).  Every key is in the file; tensors that share memory stay shared in a .pth, and are written once
for each key in safetensors, whose format knows no sharing.  What the file says about itself is its manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.io.hashed import Hashed, check_written
from loadstone.io.replace import new_file
from loadstone.io.side import SideThread
from loadstone.manifest import ENTRY, FILE_ENTRY, Manifest, Plain
from loadstone.model.folder import write_folder
from loadstone.model.saving import described
from loadstone.model.saving.memory import pieces_of, storage_pieces
from loadstone.model.saving.pickled import pickled
from loadstone.model.saving.plain import check, dense_tensors, tensors_by_key, unsaveable
from loadstone.model.saving.saved import Saved as Saved
from loadstone.writing import safetensors, torch_zip

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # .tar and .pth.tar as PyTorch's tutorials call checkpoints


def save(
    obj: nn.Module | Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, object] | None = None,
    probe: object = None,
    parent: str | os.PathLike[str] | None = None,
    layout: Literal["file", "folder"] = "file",
    previous: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Saved:
    """Write `obj` to `path`, whole or not at all.

    Args:
        obj: a model, of which `state_dict()` is written, or a state dict.  For .pth also a dict with other dicts,
            lists, tuples, numbers and strings in it.
        path: its suffix says the format: .pth, .pt, .bin, .ckpt or .tar (torch's zip), or .safetensors.
        metadata: values that JSON can write; `Checkpoint.manifest.metadata` gives them back.
        probe: an example input of the model: what the model computes for one like it is kept, so that whoever loads
            the file can prove that their model computes the same.
        parent: the file that this one came from; its name and digest are kept.
        layout: "folder" for a directory of safetensors shards and JSON, under a name that nothing has yet.
        previous: for a folder, the one before: shards that did not change are linked to it instead of written.
        verify: read the file back from the device, and compare, before it takes the name.

    Raises:
        SaveError: no-space, save-failed, verification-failed, or unsaveable-value; a file that was at `path` is as
            it was.
        RecipeError: invalid-option, for a probe without a model, or an unknown layout.
    """
    model = obj if isinstance(obj, nn.Module) else None
    if probe is not None and model is None:
        message = "a probe needs a model that can be run, and a state dict is given"
        raise RecipeError(
            Diagnostic("invalid-option", message, fixes=(Fix("save the model", "loadstone.save(model, path)"),))
        )
    recorded = None
    if probe is not None and model is not None:
        from loadstone.model.probe import record  # with what it takes to run a model

        recorded = record(model, probe)
    content = obj.state_dict() if isinstance(obj, nn.Module) else obj
    if layout == "folder":
        return write_folder(
            content, path, model=model, metadata=metadata, parent=parent, probe=recorded, previous=previous,
            verify=verify,
        )  # fmt: skip
    if layout != "file" or previous is not None:
        given = f'layout="{layout}"' if layout != "file" else "previous="
        message = f'{given} is given; a layout is "file" or "folder", and only a folder has a previous one'
        fix = Fix("save a folder", 'loadstone.save(model, "name", layout="folder")')
        raise RecipeError(Diagnostic("invalid-option", message, fixes=(fix,)))
    return write_checkpoint(content, path, model=model, metadata=metadata, parent=parent, probe=recorded, verify=verify)


def write_checkpoint(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    weights_at: tuple[str, ...] = (),
    metadata: Mapping[str, object] | None = None,
    training: Mapping[str, object] | None = None,
    parent: str | os.PathLike[str] | None = None,
    probe: Mapping[str, Plain] | None = None,
    verify: bool = True,
) -> Saved:
    """Write a checkpoint, whole or not at all; may be called from any thread while nothing changes `content`.

    Args:
        content: a state dict, or a dict of plain values and tensors on any device.
        path: see `save`.
        model: described in the manifest; its values are not looked at.
        weights_at: where in `content` the model's state dict is.
        metadata, parent, verify: see `save`.
        training: the manifest's `training`.
        probe: the manifest's `probe`, finished.

    Raises SaveError: see `save`.
    """
    target = Path(path)
    manifest = Manifest(
        {},
        model=described.model_of(model, weights_at) if model is not None else {},
        metadata=described.plain_object(metadata, "metadata"),
        training=described.plain_object(training, "training"),
        written=described.written_now(),
        parent=described.parent_of(parent),
        probe=probe,
    )
    if target.suffix in _TORCH_SUFFIXES:
        return _write_torch(content, target, manifest, verify)
    if target.suffix == ".safetensors":
        return _write_safetensors(content, target, manifest, _texts(metadata or {}), verify)
    raise unsaveable(
        f"`{target.name}` has no suffix that names a format",
        Fix("give it one of these", ".pth .pt .bin .ckpt .tar .safetensors"),
    )


def _write_torch(content: object, path: Path, manifest: Manifest, verify: bool) -> Saved:
    """The digests of the tensors are computed by a second thread, and go into the last record."""
    check(content)
    tensors = tensors_by_key(content)
    pickle = pickled(content)
    blank = replace(manifest, tensors=described.fingerprints(tensors, are_computed=False))
    manifest_nbytes = len(_encoded(blank))  # every digest is equally long
    with SideThread("loadstone-fingerprints") as thread:
        marks = thread.take(partial(described.fingerprints, tensors))

        def manifest_pieces() -> list[memoryview]:
            return [memoryview(_encoded(replace(manifest, tensors=marks.result())))]

        storages = [
            (sum(stop - first for first, stop in spans), partial(storage_pieces, storage, spans))
            for storage, spans in pickle.storages
        ]
        plan = torch_zip.layout(_root(path), pickle.data, storages, (manifest_nbytes, manifest_pieces))
        digest = ""

        def prove(partial_path: Path) -> None:
            if verify:
                check_written(partial_path, digest, plan.mark, os.fspath(path))

        with new_file(path, nbytes=plan.nbytes, check=prove) as file, Hashed(file) as out:
            digest = torch_zip.write(plan, out)
    return Saved(path, plan.nbytes, digest, pickle.notes)


def _write_safetensors(
    content: object, path: Path, manifest: Manifest, texts: Mapping[str, str], verify: bool
) -> Saved:
    """The header stands in front, so that the digests of the tensors come first, and then the bytes."""
    tensors = dense_tensors(content)
    marks = described.fingerprints(tensors)
    places = {key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for key, tensor in tensors.items()}
    header = safetensors.header(places, texts, replace(manifest, tensors=marks))
    nbytes = len(header) + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    digest = ""

    def prove(partial_path: Path) -> None:
        if verify:
            check_written(partial_path, digest, safetensors.MARK, os.fspath(path))

    with new_file(path, nbytes=nbytes, check=prove) as file, Hashed(file) as out:
        out.put(header)
        for tensor in tensors.values():
            out.stream(pieces_of(tensor))
        digest = out.put_digest_at(safetensors.MARK)
    return Saved(path, nbytes, digest)


def _encoded(manifest: Manifest) -> bytes:
    return manifest.to_json().encode("utf-8", "surrogatepass")


def _root(path: Path) -> str:
    """The folder inside the zip, as torch calls it: the file's name without its last suffix."""
    return path.stem.replace("\\", "_") or "archive"


def _texts(metadata: Mapping[str, object]) -> dict[str, str]:
    """Metadata as safetensors has it, text to text: strings as they are, all else as JSON."""
    for name in (ENTRY, FILE_ENTRY):
        if name in metadata:
            raise unsaveable(f"`{name}` in the metadata is Loadstone's own entry")
    return {
        str(key): value if isinstance(value, str) else json.dumps(described.plain(value, f"metadata.{key}"))
        for key, value in metadata.items()
    }
