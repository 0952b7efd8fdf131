"""The current format of `torch.save`: a zip with one pickle, `data.pkl`, and a record for each storage (torch >= 1.6).

    <root>/data.pkl               what was saved, its storages as persistent ids
    <root>/data/<key>             the bytes of a storage
    <root>/byteorder              "little" or "big"; absent before torch 2.1
    <root>/version                of the container; torch needs it, we do not
    <root>/.format_version, .storage_alignment, .data/serialization_id
    <root>/loadstone.json         what a file of Loadstone's says about itself

Source: torch/serialization.py (`_save`, `_load`).
"""

from __future__ import annotations

from loadstone.errors import Diagnostic
from loadstone.formats.contents import Contents, Context
from loadstone.formats.manifests import read_manifest, texts_of
from loadstone.formats.pickles.interpret import interpret
from loadstone.formats.pickles.judged import JudgedPickles
from loadstone.formats.zips.archive import Archive
from loadstone.formats.zips.members import archive_metadata, archive_notes, code_note, code_of, judge_others
from loadstone.formats.zips.storages import ZipStorages
from loadstone.manifest import RECORD, Manifest

FORMAT = "torch-zip"


def read(archive: Archive, context: Context) -> Contents:
    """What was given to `torch.save`, tensors as places in the file.

    Raises IntegrityError ("missing-record") where the record of a storage is absent or short, FormatError where the
    pickle is malformed or a tensor leaves its storage, LimitError.
    """
    name = f"{archive.root}/data.pkl"
    metadata = archive_metadata(archive)
    storages = ZipStorages(archive, f"{archive.root}/data/", is_big_endian=metadata.get("byteorder") == "big")
    with JudgedPickles(context, archive.source.name) as pickles:
        source = archive.member(name)
        execution = pickles.execute(source)
        tree = interpret(execution, storages, where=source.name, limits=context.limits, open_bytes=pickles.open_bytes)
    code = code_of(archive)
    record = f"{archive.root}/{RECORD}"
    manifest: Manifest | None = None
    notes: tuple[Diagnostic, ...] = ()
    if record in archive:
        manifest, notes = read_manifest(
            lambda: archive.read(record), tree, name=archive.source.name, limits=context.limits
        )
        metadata = texts_of(manifest) | metadata
    diagnostics = (
        *pickles.findings,
        *notes,
        *judge_others(archive, context, read={name, record, *storages.used}),
        *archive_notes(archive, metadata),
        *code_note(archive, code, "program code"),
    )
    return Contents(
        FORMAT, tree, diagnostics, metadata | {"protocol": str(execution.protocol)}, code=code, manifest=manifest
    )
