"""Packages (`torch.package`): pickles of objects beside the source code of their classes.

    <root>/.data/extern_modules     names the modules that the package does not carry
    <root>/.data/<key>.storage      the bytes of a storage; keys are numbers
    <root>/<package>/<name>.pkl     a pickled object (protocol 3)
    <root>/**.py                    source code, which is listed and never run

Source: torch/package/package_exporter.py, package_importer.py.
"""

from __future__ import annotations

from loadstone.formats.contents import Contents, Context
from loadstone.formats.pickles.interpret import interpret
from loadstone.formats.pickles.judged import JudgedPickles
from loadstone.formats.zips.archive import Archive
from loadstone.formats.zips.members import archive_metadata, archive_notes, code_note, code_of, judge_others
from loadstone.formats.zips.storages import ZipStorages
from loadstone.values import Value

FORMAT = "torch-package"


def read(archive: Archive, context: Context) -> Contents:
    """Every pickled object by its name in the package, "model/model.pkl"; classes of the package stay inert records."""
    prefix = f"{archive.root}/"
    metadata = archive_metadata(archive)
    storages = ZipStorages(archive, f"{prefix}.data/", ".storage", is_big_endian=metadata.get("byteorder") == "big")
    tree: dict[str, Value] = {}
    with JudgedPickles(context, archive.source.name) as pickles:
        for name in archive.records:
            if name.startswith(prefix) and name.endswith(".pkl"):
                source = archive.member(name)
                tree[name.removeprefix(prefix)] = interpret(
                    pickles.execute(source),
                    storages,
                    where=source.name,
                    limits=context.limits,
                    open_bytes=pickles.open_bytes,
                )
    code = code_of(archive)
    read_records = {prefix + name for name in tree} | storages.used
    diagnostics = (
        *pickles.findings,
        *judge_others(archive, context, read=read_records),
        *archive_notes(archive, metadata),
        *code_note(archive, code, "Python source"),
    )
    return Contents(FORMAT, tree, diagnostics, metadata, code=code)
