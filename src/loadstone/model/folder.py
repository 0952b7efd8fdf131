"""A checkpoint as a folder of shards, in which unchanged tensors are links to those of the checkpoint before.

What is in the folder is told by formats/folder.py, which reads it; how it becomes one whole or nothing by
writing/folder.py.  Here tensors become pieces, pieces become a layout (writing/folder_plan.py), and a layout bytes.

A tensor is unchanged when its key, dtype, shape and the digest of its values are.  Each folder is complete by itself:
a link is a second name for the same bytes, and stays when the folder that it came from is deleted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from loadstone.errors import Diagnostic, LoadstoneError
from loadstone.formats.contents import Context
from loadstone.formats.folder import INDEX, TREE, Listing, read_listing
from loadstone.formats.registry import open_source
from loadstone.io.digests import Digest
from loadstone.io.replace import check_space
from loadstone.manifest import RECORD, Fingerprint, Manifest
from loadstone.model.folder_leaves import Leaf, TakenApart, aliases, pieces, taken_apart
from loadstone.model.saving import described
from loadstone.model.saving.saved import Saved
from loadstone.writing.folder import DamagedLinkError, NewFolder, new_folder, sealed
from loadstone.writing.folder_plan import Layout, Name, Piece, planned
from loadstone.writing.safetensors import plain_header


@dataclass(frozen=True, slots=True)
class _Before:
    """The folder before: what is known of its tensors, and the shards of it that can be linked."""

    path: Path = Path()
    listing: Listing | None = None
    marks: Mapping[Name, Fingerprint] = field(default_factory=dict)
    shards: Mapping[str, tuple[Name, ...]] = field(default_factory=dict)


def write_folder(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    metadata: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    parent: str | os.PathLike[str] | None = None,
    probe: Mapping[str, Any] | None = None,
    previous: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Saved:
    """Write `content` as the new folder `path`, whole or not at all.

    Args:
        content: a state dict, or a dict of plain values and tensors with a state dict in it (`model_state_dict`).
        path: a name that nothing has yet.
        model: described in the manifest; its frozen parameters, trained parameters and buffers get shards of their
            own, so that the next save finds them apart.
        metadata, training, parent, probe: for the manifest (manifest.py).
        previous: the folder of the checkpoint before; shards that did not change are linked to it, after their bytes
            were read and compared.  One that is damaged is written anew, and the result says so.
        verify: read back what was written.

    Raises:
        SaveError: destination-exists, no-space, save-failed, verification-failed, unsaveable-value; nothing is left.
    """
    target = Path(path)
    apart = taken_apart(content)
    notes: list[Diagnostic] = []
    before = _Before() if previous is None else _before(Path(previous), notes)
    marks = {
        name: leaf.mark()
        for name, leaf in apart.leaves.items()
        if (old := before.marks.get(name)) is not None and (old.dtype, old.shape) == (leaf.dtype, leaf.shape)
    }
    unchanged = frozenset(name for name, mark in marks.items() if mark == before.marks[name])
    manifest = Manifest(
        {},
        {} if model is None else described.model_of(model, filter(None, [apart.weights])),
        described.plain_object(metadata, "metadata"),
        described.plain_object(training, "training"),
        described.written_now(),
        described.parent_of(parent or (previous if before.listing else None)),
        probe,
    )
    with new_folder(target, verify=verify) as folder:
        layout = _linked(folder, pieces(apart.leaves, model), before, unchanged, notes)
        check_space(target, layout.nbytes)
        for shard, members in layout.written.items():
            marks |= _write_shard(folder, shard, [apart.leaves[piece.name] for piece in members])
        _write_json_files(folder, apart, _places(layout, before))
        tensors = {leaf.place: marks[name] for name, leaf in apart.leaves.items()}
        own = _write_record(folder, replace(manifest, tensors=tensors), apart)
    linked = sum(folder.files[shard].nbytes for shard in layout.linked)
    return Saved(target, sum(file.nbytes for file in folder.files.values()), own, tuple(notes), linked)


def _before(path: Path, notes: list[Diagnostic]) -> _Before:
    """What the folder `path` says; one that cannot be used is noted, and nothing is linked to it."""
    context = Context(open_source)
    try:
        listing = read_listing(path, context)
    except (LoadstoneError, OSError) as error:
        found = error.diagnostics[0].message if isinstance(error, LoadstoneError) else str(error)
        notes.append(_not_linked(f"nothing is linked to `{path}`: {found}", is_damage=True))
        return _Before()
    finally:
        for source in context.sources:
            source.close()
    if listing.manifest is None:
        notes += listing.diagnostics
        return _Before()
    shards: dict[str, list[Name]] = {}
    marks: dict[Name, Fingerprint] = {}
    for name, shard in listing.shards.items():
        place = f"{listing.weights}.{name[1]}" if name[0] == "model" and listing.weights else name[1]
        if place in listing.manifest.tensors:
            marks[name] = listing.manifest.tensors[place]
        shards.setdefault(shard, []).append(name)
    linkable = {shard: tuple(names) for shard, names in shards.items() if shard in listing.files}
    return _Before(path, listing, marks, linkable)


def _linked(
    folder: NewFolder, wanted: Sequence[Piece], before: _Before, unchanged: Collection[Name], notes: list[Diagnostic]
) -> Layout:
    """A layout whose links are made; what turned out to be damaged, or not to be linkable, is to be written."""
    old = dict(before.shards)
    while True:
        layout = planned(wanted, old, unchanged)
        failed: list[str] = []
        for name, shard in layout.linked.items():
            assert before.listing is not None  # or there would be no shards to link
            try:
                folder.link(before.path / shard, name, before.listing.files[shard])
            except DamagedLinkError as error:
                failed.append(shard)
                notes.append(_not_linked(f"{error}; its tensors were written anew", is_damage=True))
            except OSError as error:
                failed = list(old)  # what is refused once is refused for every file of this disk
                notes.append(_not_linked(f"no links to `{before.path}`: {error.strerror or error}; all was written"))
                break
        if not failed:
            return layout
        folder.empty()
        for shard in failed:
            old.pop(shard)


def _write_shard(folder: NewFolder, shard: str, leaves: Sequence[Leaf]) -> dict[Name, Fingerprint]:
    """A shard of these tensors; what they were when they were written."""
    start = plain_header({leaf.name[1]: (leaf.dtype, leaf.shape) for leaf in leaves}, {"format": "pt"})
    marks: dict[Name, Fingerprint] = {}

    def parts() -> Iterator[bytes | memoryview]:
        yield start
        for leaf in leaves:
            running = Digest()
            for piece in leaf.pieces():
                running.update(piece)
                yield piece
            marks[leaf.name] = Fingerprint(leaf.dtype, leaf.shape, str(running))

    folder.write(shard, len(start) + sum(leaf.nbytes for leaf in leaves), parts(), is_shared=True)
    return marks


def _places(layout: Layout, before: _Before) -> dict[Name, str]:
    """The shard of each tensor."""
    linked = {name: new for new, shard in layout.linked.items() for name in before.shards[shard]}
    return linked | {piece.name: shard for shard, members in layout.written.items() for piece in members}


def _write_json_files(folder: NewFolder, apart: TakenApart, shards: Mapping[Name, str]) -> None:
    """The index of the model's shards as Hugging Face has it, and the tree with that of the others."""
    leaves = apart.leaves
    weights = {key: shards[section, key] for section, key in leaves if section == "model"}
    if weights:
        total = sum(leaf.nbytes for name, leaf in leaves.items() if name[0] == "model")
        _write_json(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": weights}, indent=2)
    if not apart.is_bare:
        others = {key: shards[section, key] for section, key in leaves if section == "training"}
        _write_json(folder, TREE, {"version": 1, "weight_map": others, "tree": apart.tree})


def _write_json(folder: NewFolder, name: str, document: object, indent: int | None = None) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=indent)
    data = text.encode("utf-8", "surrogatepass")
    folder.write(name, len(data), [data])


def _write_record(folder: NewFolder, manifest: Manifest, apart: TakenApart) -> str:
    """loadstone.json, the last file; its own digest."""
    document = json.loads(manifest.to_json()) | {
        "weights": apart.weights,
        "aliases": aliases(apart.leaves),
        "files": {name: [listed.nbytes, listed.digest] for name, listed in folder.files.items()},
    }
    data, own = sealed(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    folder.write(RECORD, len(data), [data])
    return own


def _not_linked(message: str, *, is_damage: bool = False) -> Diagnostic:
    return Diagnostic("not-linked", message, level="warning" if is_damage else None)
