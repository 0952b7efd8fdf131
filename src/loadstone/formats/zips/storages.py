"""The storages of a zip: from a persistent id in a pickle to the record that holds its bytes.

A persistent id is `("storage", storage class, key, location, numel)` (torch/serialization.py, `persistent_id`), and the
record is `<root>/data/<key>`; torch.package and the constants of TorchScript keep theirs in other places.
"""

from __future__ import annotations

import re
from typing import final

from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats.pickles.storage_classes import StorageRef, element_of
from loadstone.formats.pickles.values import Global, PickleValue
from loadstone.formats.zips.archive import Archive
from loadstone.storage import Storage
from loadstone.tensors import MAX_INT64

_MAX_KEY_CHARACTERS = 256
_MAX_TEXT_CHARACTERS = 1024

# pickle protocol 0 keeps the repr() of the tuple: ('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 12)
_TEXT = re.compile(
    r"\('storage', <class '(?P<module>[\w.]+)\.(?P<name>\w+)'>, '(?P<key>[^'\\]*)', '(?P<location>[^'\\]*)', "
    r"(?P<numel>\d{1,19})\)",
    re.ASCII,
)


@final
class ZipStorages:
    """Gives the Storage for a persistent id, the same one each time a key comes up; proves it against the archive.

    The record of `key` is called `prefix + key + suffix`.  `used` holds the names of the records that were asked for.
    """

    def __init__(self, archive: Archive, prefix: str, suffix: str = "", *, is_big_endian: bool = False) -> None:
        self._archive = archive
        self._prefix = prefix
        self._suffix = suffix
        self._is_big_endian = is_big_endian
        self._known: dict[str, tuple[str, int, StorageRef]] = {}
        self.used: set[str] = set()

    def __call__(self, persistent_id: PickleValue) -> StorageRef:
        """The storage for a persistent id.

        Raises IntegrityError ("missing-record") where its record is absent or short, FormatError where the id is
        malformed, names an unknown storage class, or contradicts an earlier one or the size of the record.
        """
        storage_class, key, location, numel = self._fields(persistent_id)
        known = self._known.get(key)
        if known is None:
            known = storage_class.path, numel, self._open(storage_class, key, location, numel)
            self._known[key] = known
        elif known[:2] != (storage_class.path, numel):
            raise self._malformed(
                f"storage `{key}` is {known[1]:,} × {known[0]} and, later, {numel:,} × {storage_class.path:.80}"
            )
        return known[2]

    def _fields(self, persistent_id: PickleValue) -> tuple[Global, str, str, int]:
        """Class, key, location and number of elements; a key may be a number (torch.package) or bytes (Python 2)."""
        if isinstance(persistent_id, str):
            return self._fields_of_text(persistent_id)
        if type(persistent_id) is not tuple or len(persistent_id) < 5 or _text(persistent_id[0]) != "storage":
            raise self._malformed(f"a persistent id is {_brief(persistent_id)}, and none of a storage")
        _, storage_class, key, location, numel = persistent_id[:5]
        key = str(key) if type(key) is int and 0 <= key <= MAX_INT64 else _text(key)
        location = _text(location)
        if not isinstance(storage_class, Global) or key is None or location is None:
            raise self._malformed("the persistent id of a storage has fields of wrong types")
        if type(numel) is not int or not 0 <= numel <= MAX_INT64:
            raise self._malformed(f"storage `{key}` has an impossible number of elements")
        return storage_class, key, location, numel

    def _fields_of_text(self, text: str) -> tuple[Global, str, str, int]:
        match = _TEXT.fullmatch(text) if len(text) <= _MAX_TEXT_CHARACTERS else None
        if match is None:
            raise self._malformed(f"a persistent id is the text {text!r:.60}, and none of a storage")
        return Global(match["module"], match["name"], 0), match["key"], match["location"], int(match["numel"])

    def _open(self, storage_class: Global, key: str, location: str, numel: int) -> StorageRef:
        element = element_of(storage_class)
        if element is None:
            raise FormatError(
                Diagnostic(
                    "unsupported-feature",
                    f"`{self._archive.source.name}` has a storage of the unknown class {storage_class.path!r:.80}",
                )
            )
        dtype, itemsize = element
        name = f"{self._prefix}{key}{self._suffix}"
        nbytes = numel * itemsize
        record = self._archive.records.get(name)
        if record is None or record.nbytes < nbytes:
            found = "no such record" if record is None else f"{record.nbytes:,} bytes"
            raise IntegrityError(
                Diagnostic(
                    "missing-record",
                    f"`{self._archive.source.name}` lacks bytes of storage `{name}`",
                    evidence=(("expected", f"{nbytes:,} bytes"), ("found", found)),
                )
            )
        if record.nbytes != nbytes:
            raise self._malformed(f"record `{name}` has {record.nbytes:,} bytes, its storage {nbytes:,}")
        self.used.add(name)
        extent = self._archive.extent(name)
        is_big_endian = self._is_big_endian
        return StorageRef(Storage(name, nbytes, (extent,), is_big_endian, location, record.crc32), dtype)

    def _malformed(self, why: str) -> FormatError:
        return FormatError(Diagnostic("tensor-out-of-bounds", f"`{self._archive.source.name}`: {why}"))


def _text(value: PickleValue) -> str | None:
    """A short string, or the ASCII bytes that Python 2 wrote for one."""
    if isinstance(value, bytes) and value.isascii():
        value = value.decode("ascii")
    return value if isinstance(value, str) and len(value) <= _MAX_KEY_CHARACTERS else None


def _brief(value: PickleValue) -> str:
    """What kind of value it is; its content could be of any depth."""
    return f"a tuple of {len(value)}" if type(value) is tuple else f"of type {type(value).__name__}"
