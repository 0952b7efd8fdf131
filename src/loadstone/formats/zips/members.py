"""What else is in an archive: small records about it, program code, and pickles beside the one that was read.

A payload need not be in `data.pkl`.  Every other member that some program would unpickle is looked through too.
"""

from __future__ import annotations

from collections.abc import Collection

from loadstone.errors import Diagnostic, LoadstoneError
from loadstone.formats.contents import Context
from loadstone.formats.pickles.globals import judge
from loadstone.formats.pickles.vm import execute
from loadstone.formats.zips.archive import Archive, Record
from loadstone.formats.zips.directory import invalid

CODE_SUFFIXES = (".py", ".so", ".cpp", ".cu", ".cubin", ".ptx", ".dll", ".dylib", ".o", ".h", ".hip", ".hsaco", ".sh")
_PICKLE_SUFFIXES = (".pkl", ".pickle")
_DEBUG_SUFFIX = ".debug_pkl"  # line numbers of TorchScript, which only its own C++ reader opens
_ZIP_MAGIC = b"PK\3\4"
_HEAD_NBYTES = 4
_MAX_LISTED = 5

_METADATA = {
    "version": "version",
    "byteorder": "byteorder",
    "format_version": ".format_version",
    "storage_alignment": ".storage_alignment",
    "serialization_id": ".data/serialization_id",
}


def judge_others(archive: Archive, context: Context, *, read: Collection[str]) -> tuple[Diagnostic, ...]:
    """Findings about the members that are pickles or checkpoints, except those in `read`.

    Of a checkpoint inside the archive only warnings and errors are kept; one that cannot be read is an error too.
    """
    found: list[Diagnostic] = []
    for record in archive.records.values():
        if record.name in read or record.name.endswith(_DEBUG_SUFFIX) or not record.nbytes:
            continue
        try:
            found += _judge_member(archive, context, record)
        except LoadstoneError as error:
            found += error.diagnostics
    return tuple(found)


def _judge_member(archive: Archive, context: Context, record: Record) -> tuple[Diagnostic, ...]:
    where = f"{archive.source.name}/{record.name}"
    if record.name.endswith(_PICKLE_SUFFIXES):
        return judge(execute(archive.member(record.name), limits=context.limits), where)
    head = next(iter(archive.extent(record.name).expand()))[:_HEAD_NBYTES]
    is_pickle = len(head) > 1 and head[0] == 0x80 and head[1] <= 5
    if not (is_pickle or head == _ZIP_MAGIC):
        return ()
    if record.is_deflated and context.depth > 0:  # each level could expand a thousand times
        return (Diagnostic("resource-limit", f"`{where}` is a compressed file inside a file inside a file"),)
    contents = context.open(archive.member(record.name))
    return tuple(diagnostic for diagnostic in contents.diagnostics if diagnostic.severity != "note")


def code_of(archive: Archive) -> tuple[str, ...]:
    """The members that are program code, in the order of the archive."""
    return tuple(name for name in archive.records if name.endswith(CODE_SUFFIXES))


def code_note(archive: Archive, code: tuple[str, ...], kind: str) -> tuple[Diagnostic, ...]:
    """The note that says so, if there is any; `kind` is what writes such archives."""
    if not code:
        return ()
    listed = tuple(("code", name) for name in code[:_MAX_LISTED])
    if len(code) > _MAX_LISTED:
        listed += (("", f"and {len(code) - _MAX_LISTED:,} more"),)
    files = "1 file" if len(code) == 1 else f"{len(code):,} files"
    return (Diagnostic("contains-code", f"`{archive.source.name}` carries {files} of {kind}, not run", listed),)


def archive_metadata(archive: Archive) -> dict[str, str]:
    """What the small records say; raises FormatError for a byte order that is neither of the two."""
    texts = {key: archive.text(f"{archive.root}/{name}") for key, name in _METADATA.items()}
    metadata = {key: text for key, text in texts.items() if text is not None}
    if metadata.get("byteorder", "little") not in ("little", "big"):
        raise invalid(archive.source, f"its byte order is {metadata['byteorder']!r:.40}, not little or big")
    metadata["checksums"] = "crc32" if archive.has_checksums else "not recorded"
    return metadata


def archive_notes(archive: Archive, metadata: dict[str, str]) -> tuple[Diagnostic, ...]:
    """Notes on the container itself."""
    notes = []
    if metadata.get("byteorder") == "big":
        notes.append(Diagnostic("big-endian", f"`{archive.source.name}` stores its bytes big-endian"))
    if archive.trailing_nbytes:
        notes.append(
            Diagnostic("trailing-bytes", f"{archive.trailing_nbytes:,} bytes follow the end of `{archive.source.name}`")
        )
    return tuple(notes)
