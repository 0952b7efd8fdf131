"""The checksums of a zip, which torch.save writes and torch.load does not look at, compared record by record."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from loadstone.errors import Diagnostic, IntegrityError
from loadstone.formats.zips.archive import Archive, Record
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo

_MOST_NAMED = 3  # tensors in a message; `keys` has them all


def damaged_records(archive: Archive, holding: Mapping[str, tuple[str, ...]]) -> Iterator[Diagnostic]:
    """A bad-checksum for every record whose bytes have another CRC-32; `holding` are the tensors in each record."""
    for record in archive.records.values():
        if record.crc32 is None:
            continue
        keys = holding.get(record.name, ())
        try:
            found = _crc32(archive, record)
        except IntegrityError as error:
            if error.code != "bad-compression":
                raise
            yield from error.diagnostics
            continue
        if found != record.crc32:
            yield Diagnostic(
                "bad-checksum",
                f"record `{record.name}` of `{archive.source.name}` is damaged{_with(keys)}",
                evidence=(
                    ("written", f"crc32 {record.crc32:08x}"),
                    ("found", f"crc32 {found:08x}"),
                    ("where", f"{record.stored_nbytes:,} bytes at {record.data_offset:,}"),
                ),
                keys=keys,
            )


def tensors_by_record(tensors: Mapping[str, TensorInfo], source_name: str) -> dict[str, tuple[str, ...]]:
    """The keys of the tensors whose bytes lie in each record of the file."""
    keys: dict[str, list[str]] = {}
    for key, info in tensors.items():
        for storage in _storages(info):
            if storage.extents and storage.extents[0].source.name == source_name:
                keys.setdefault(storage.name, []).append(key)
    return {name: tuple(found) for name, found in keys.items()}


def _storages(info: TensorInfo) -> Iterator[Storage]:
    if info.storage is not None:
        yield info.storage
    for part in info.parts:
        yield from _storages(part.info)


def _crc32(archive: Archive, record: Record) -> int:
    running = 0
    for piece in archive.extent(record.name).expand():
        running = zlib.crc32(piece, running)
    return running


def _with(keys: tuple[str, ...]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _MOST_NAMED:,} more" if len(keys) > _MOST_NAMED else ""
    return ", and with it " + ", ".join(f"`{key}`" for key in keys[:_MOST_NAMED]) + more
