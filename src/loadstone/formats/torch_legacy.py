"""The stream format of `torch.save` before 1.6, or with `_use_new_zipfile_serialization=False`.

Five pickles, one after the other, then the storages:

    0x1950a86a20f9469cfc6c      a literal number; a file that computes it is not taken for one of these
    1001                        protocol version
    {little_endian, type_sizes, protocol_version}
    what was saved              persistent ids ("storage", class, key, location, numel, view) and ("module", class, …)
    [key, …]                    then for each key: int64 numel, and numel elements, little-endian

Source: torch/serialization.py (`_legacy_save`, `_legacy_load`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.pickles.interpret import interpret
from loadstone.formats.pickles.judged import JudgedPickles
from loadstone.formats.pickles.storage_classes import STREAM_MAGIC, StorageRef, element_of
from loadstone.formats.pickles.values import Execution, Global, PickleValue
from loadstone.formats.trailing_bytes import check_end
from loadstone.io.sources import ByteSource
from loadstone.storage import Extent, Storage
from loadstone.tensors import MAX_INT64

FORMAT = "torch-legacy"
PROTOCOL_VERSION = 1001

# the number as LONG1, LONG4 or text, behind an optional PROTO and FRAME, and nothing else before STOP
_LITERAL = re.compile(
    rb"(?:\x80[\x02-\x05](?:\x95.{8})?)?(?:\x8a\x0a%(n)s|\x8b\x0a\0\0\0%(n)s|[LI]%(text)sL?\n)\."
    % {b"n": re.escape(STREAM_MAGIC.to_bytes(10, "little")), b"text": str(STREAM_MAGIC).encode()},
    re.DOTALL,
)
_NUMEL_NBYTES = 8


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the first pickle is the magic number, written as a literal."""
    return _LITERAL.match(head) is not None


def read(source: ByteSource, context: Context) -> Contents:
    """What was given to `torch.save`, tensors as places in the file.

    Raises FormatError where the stream contradicts itself, IntegrityError (truncated-file, missing-record) where bytes
    are missing, UnsafeError (ambiguous-archive) where a zip archive follows.
    """
    with JudgedPickles(context, source.name) as pickles:
        executions: list[Execution] = []
        position = 0
        for _ in range(5):
            executions.append(pickles.execute(source, position))
            position = executions[-1].stop
        magic, version, _, main, keys = executions
        if magic.value != STREAM_MAGIC or magic.calls or magic.globals:
            raise _corrupt(source, "its magic number is not written as a number")
        if version.value != PROTOCOL_VERSION or type(version.value) is not int:
            raise FormatError(
                Diagnostic("unsupported-feature", f"`{source.name}` has another version of the stream than 1001")
            )
        storages = _Storages(source, main, keys.value, position)
        tree = interpret(main, storages, where=source.name, limits=context.limits, open_bytes=pickles.open_bytes)
        diagnostics = [*pickles.findings, *check_end(source, storages.end)]
    diagnostics.append(Diagnostic("legacy-format", f"`{source.name}` is in the stream format of PyTorch before 1.6"))
    if storages.classes_with_source:
        listed = tuple(("class", name) for name in storages.classes_with_source[:5])
        diagnostics.append(Diagnostic("contains-code", f"`{source.name}` carries the source text of classes", listed))
    return Contents(
        FORMAT, tree, tuple(diagnostics), {"protocol": str(main.protocol)}, code=tuple(storages.classes_with_source)
    )


@dataclass(frozen=True, slots=True)
class _Claim:
    """A storage as the pickle describes it, before its bytes have been found."""

    dtype: str | None
    itemsize: int
    elements: int
    location: str

    @property
    def nbytes(self) -> int:
        return self.elements * self.itemsize


@final
class _Storages:
    """Gives the storage, or the class, for a persistent id; `end` is where the last storage ends."""

    def __init__(self, source: ByteSource, main: Execution, keys: PickleValue, start: int) -> None:
        self._source = source
        self._claims: dict[str, _Claim] = {}
        self.classes_with_source: list[str] = []
        for persistent_id in main.persistent_ids:
            self._collect(persistent_id.value)
        self._refs: dict[str, StorageRef] = {}
        self._places: dict[str, int] = {}
        self._views: dict[tuple[str, str, int, int], StorageRef] = {}
        self.end = self._find_all(keys, start)

    def __call__(self, value: PickleValue) -> StorageRef | Global:
        """Raises FormatError where the id is malformed, IntegrityError (missing-record) where its storage is absent."""
        if _kind_of(value) == "module" and len(value) > 1 and isinstance(value[1], Global):
            return value[1]
        key, claim, view = self._parsed(value)
        ref = self._refs.get(key)
        if ref is None:
            raise IntegrityError(
                Diagnostic("missing-record", f"`{self._source.name}` has no data for the storage `{key:.80}`")
            )
        return ref if view is None else self._view(key, claim, view)

    def _collect(self, value: PickleValue) -> None:
        if _kind_of(value) == "module":
            if len(value) != 4 or not isinstance(value[1], Global):
                raise _corrupt(self._source, "a persistent id of a module is malformed")
            if value[3]:  # source text, which is neither shown nor compiled
                self.classes_with_source.append(value[1].path)
            return
        key, claim, _ = self._parsed(value)
        known = self._claims.setdefault(key, claim)
        if known.nbytes != claim.nbytes or (known.dtype or claim.dtype) != (claim.dtype or known.dtype):
            raise _corrupt(self._source, f"the storage `{key:.80}` is described in two ways")

    def _parsed(self, value: PickleValue) -> tuple[str, _Claim, PickleValue]:
        """Key, description and view of a storage's persistent id."""
        if _kind_of(value) != "storage" or len(value) not in (5, 6):
            raise _corrupt(self._source, "a persistent id is neither that of a storage nor of a module")
        _, storage_class, raw_key, raw_location, elements, *rest = value
        key, location, element = _text(raw_key), _text(raw_location), element_of(storage_class)
        if element is None:
            name = storage_class.path if isinstance(storage_class, Global) else type(storage_class).__name__
            raise FormatError(
                Diagnostic("unsupported-feature", f"`{self._source.name}` has a storage of the class {name!r:.80}")
            )
        if key is None or location is None or type(elements) is not int or not 0 <= elements <= MAX_INT64:
            raise _corrupt(self._source, "the persistent id of a storage is malformed")
        return key, _Claim(*element, elements, location), rest[0] if rest else None

    def _find_all(self, keys: PickleValue, position: int) -> int:
        """Walk over the data, and prove every storage to be in the file; returns where the last one ends."""
        if type(keys) is not list:
            raise _corrupt(self._source, "the list of its storages is none")
        for raw_key in keys:
            key = _text(raw_key)
            claim = self._claims.get(key) if key is not None else None
            if key is None or claim is None or key in self._refs:
                raise _corrupt(self._source, "the list of its storages has one that is unknown, or one twice")
            elements = int.from_bytes(self._source.read(position, _NUMEL_NBYTES), "little", signed=True)
            position += _NUMEL_NBYTES
            if elements != claim.elements:
                raise _corrupt(
                    self._source, f"the storage `{key:.80}` has {claim.elements:,} and {elements:,} elements"
                )
            if claim.nbytes > self._source.size - position:
                raise self._cut_off(key, position + claim.nbytes)
            extent = Extent.stored(self._source, position, claim.nbytes)
            self._refs[key] = StorageRef(Storage(key, claim.nbytes, (extent,), location=claim.location), claim.dtype)
            self._places[key] = position
            position += claim.nbytes
        return position

    def _view(self, key: str, claim: _Claim, view: PickleValue) -> StorageRef:
        """A part of a storage as a storage of its own: (key of the view, offset, size), in elements (torch 0.3)."""
        match view:
            case (str() | bytes() | int() as raw_key, int() as offset, int() as size):
                view_key = _text(raw_key)
            case _:
                raise _corrupt(self._source, f"a view of the storage `{key:.80}` is malformed")
        if view_key is None or offset < 0 or size < 0 or offset + size > claim.elements:
            raise FormatError(
                Diagnostic("tensor-out-of-bounds", f"`{self._source.name}`: a view leaves the storage `{key:.80}`")
            )
        place = (key, view_key, offset, size)
        if place not in self._views:
            start, nbytes = self._places[key] + offset * claim.itemsize, size * claim.itemsize
            extent = Extent.stored(self._source, start, nbytes)
            self._views[place] = StorageRef(Storage(view_key, nbytes, (extent,), location=claim.location), claim.dtype)
        return self._views[place]

    def _cut_off(self, key: str, end: int) -> IntegrityError:
        return IntegrityError(
            Diagnostic(
                "truncated-file",
                f"`{self._source.name}` ends inside the storage `{key:.80}`",
                evidence=(("expected", f"{end:,} bytes or more"), ("found", f"{self._source.size:,} bytes")),
            )
        )


def _kind_of(value: PickleValue) -> str | None:
    return _text(value[0]) if type(value) is tuple and value else None


def _text(value: PickleValue) -> str | None:
    """A name as text: Python 2 wrote bytes, and some versions numbers."""
    if type(value) is bytes:
        return value.decode("latin-1")
    if type(value) is int:
        return str(value)
    return value if type(value) is str else None


def _corrupt(source: ByteSource, why: str) -> FormatError:
    return FormatError(Diagnostic("corrupt-pickle", f"`{source.name}`: {why}"))
