"""Tar archives: the first format of `torch.save` (0.1.1 to 0.1.9), and NeMo's models.

    sys_info    a pickle
    storages    n, then n times: pickle (key, location, storage class), int64 numel, elements
                then a pickle of views [(key, key of the whole, offset, numel), …]
    tensors     n, then n times: pickle (key, storage key, tensor class), int32 dimensions, 4 bytes of nothing,
                int64 sizes, int64 strides, int64 offset
    pickle      what was saved; its persistent ids are keys of tensors and storages, or (class, file, source text)

Source: torch/serialization.py (`legacy_load` inside `_legacy_load`).  Some programs leave out `tensors` and the views,
and write the persistent ids of the stream format.
"""

from __future__ import annotations

import struct
from typing import Final, final

from loadstone.dtypes import nbytes_of
from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.pickles.interpret import interpret
from loadstone.formats.pickles.judged import JudgedPickles
from loadstone.formats.pickles.storage_classes import StorageRef, element_of
from loadstone.formats.pickles.values import Execution, Global, PersistentId, PickleValue
from loadstone.formats.tar_members import BLOCK_NBYTES, Member, is_header, members
from loadstone.formats.trailing_bytes import check_end
from loadstone.io.sources import ByteSource, SliceSource
from loadstone.storage import Extent, Storage
from loadstone.tensors import TensorInfo, dense

FORMAT = "torch-tar"
ARCHIVE_FORMAT = "nemo"
MAX_DIMENSIONS = 64

_CHECKPOINTS: Final = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
_CODE: Final = (".py", ".so", ".sh")


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the first block is a tar header with the right checksum; zeros, which tar takes for an end, are none."""
    return is_header(head[:BLOCK_NBYTES])


def read(source: ByteSource, context: Context) -> Contents:
    """What was saved, or the checkpoints inside a NeMo archive; tensors as places in the file.

    Raises FormatError (header-invalid, corrupt-pickle, tensor-out-of-bounds, or not-a-checkpoint where no member is
    one), IntegrityError (truncated-file, missing-record), UnsafeError (unsafe-path, ambiguous-archive).
    """
    found, end = members(source, context.limits)
    trailing = check_end(source, end)
    if "pickle" in found and "storages" in found:
        return _read_torch(source, found, trailing, context)
    return _read_archive(source, found, trailing, context)


def _read_torch(
    source: ByteSource, found: dict[str, Member], trailing: tuple[Diagnostic, ...], context: Context
) -> Contents:
    with JudgedPickles(context, source.name) as pickles:
        if "sys_info" in found:
            pickles.execute(found["sys_info"].open(source))
        known = _Tensors(source, pickles)
        known.read_storages(found["storages"].open(source))
        if "tensors" in found:
            known.read_tensors(found["tensors"].open(source))
        main = pickles.execute(found["pickle"].open(source))
        _mark_storages(main)
        tree = interpret(main, known, where=source.name, limits=context.limits, open_bytes=pickles.open_bytes)
    note = Diagnostic("legacy-format", f"`{source.name}` is in the tar format of PyTorch before 0.1.10")
    return Contents(FORMAT, tree, (*pickles.findings, *trailing, note), {"protocol": str(main.protocol)})


def _mark_storages(main: Execution) -> None:
    """Some programs write the id of a storage as a plain tuple: make it the persistent id that it is meant to be."""
    for call in main.calls:
        match call.args:
            case (("storage", Global(), _, _, _, *_) as storage_id, *rest):
                call.args = (PersistentId(storage_id, call.offset), *rest)


def _read_archive(
    source: ByteSource, found: dict[str, Member], trailing: tuple[Diagnostic, ...], context: Context
) -> Contents:
    """The checkpoints among the members, each opened in its place: a single one is the tree itself."""
    opened: dict[str, Contents] = {}
    for name, member in found.items():
        if member.is_file and name.endswith(_CHECKPOINTS):
            opened[name] = context.open(member.open(source))
    if not opened:
        listed = tuple(("member", repr(name)[:80]) for name in list(found)[:8])
        raise FormatError(
            Diagnostic("not-a-checkpoint", f"`{source.name}` is a tar archive with no checkpoint in it", listed)
        )
    trees = {name: contents.tree for name, contents in opened.items()}
    diagnostics = [finding for contents in opened.values() for finding in contents.diagnostics]
    return Contents(
        ARCHIVE_FORMAT,
        trees if len(trees) > 1 else next(iter(trees.values())),
        (*diagnostics, *trailing),
        {"members": ", ".join(opened)},
        code=tuple(name for name in found if name.endswith(_CODE)),
    )


@final
class _Tensors:
    """What the persistent ids of the main pickle stand for: storages and tensors by key, and classes."""

    def __init__(self, source: ByteSource, pickles: JudgedPickles) -> None:
        self._source = source
        self._pickles = pickles
        self._storages: dict[str, StorageRef] = {}
        self._tensors: dict[str, TensorInfo] = {}

    def __call__(self, value: PickleValue) -> StorageRef | TensorInfo | Global:
        """Raises FormatError for a malformed id, IntegrityError (missing-record) where there is nothing of that key."""
        match value:
            case (Global() as storage_class, _, _):
                return storage_class
            case ("storage", Global() as storage_class, raw_key, _, int() as elements, *_):
                key, element = _key(raw_key), element_of(storage_class)
                ref = self._storages.get(key) if key is not None else None
                if ref is not None and (element is None or elements * element[1] != ref.storage.nbytes):
                    raise self._corrupt(f"the storage {key!r:.80} is described in two ways")
            case _:
                key = _key(value)
                if key is None:
                    raise self._corrupt("a persistent id is malformed")
                if key in self._tensors:
                    return self._tensors[key]
                ref = self._storages.get(key)
        if ref is None:
            raise IntegrityError(
                Diagnostic("missing-record", f"`{self._source.name}` has no tensor or storage {key!r:.80}")
            )
        return ref

    def read_storages(self, member: SliceSource) -> None:
        """Prove every storage to lie inside the member."""
        count, position = self._count(member)
        for _ in range(count):
            entry = self._pickles.execute(member, position)
            match entry.value:
                case (raw_key, str() | bytes() as location, storage_class):
                    key, element = _key(raw_key), element_of(storage_class)
                case _:
                    raise self._corrupt("the description of a storage is malformed")
            if key is None or element is None or key in self._storages:
                raise self._corrupt("the description of a storage is malformed, or stands twice")
            dtype, itemsize = element
            (elements,) = struct.unpack("<q", member.read(entry.stop, 8))
            position = entry.stop + 8
            if not 0 <= elements <= (member.size - position) // itemsize:
                raise IntegrityError(
                    Diagnostic(
                        "truncated-file",
                        f"the storage {key!r:.80} of `{self._source.name}` reaches beyond its member",
                        evidence=(
                            ("expected", f"{elements:,} elements"), ("found", f"{member.size - position:,} bytes"),
                        ),
                    )
                )  # fmt: skip
            place = location if isinstance(location, str) else location.decode("latin-1")
            extent = Extent.stored(member, position, elements * itemsize)
            self._storages[key] = StorageRef(Storage(key, elements * itemsize, (extent,), location=place), dtype)
            position += elements * itemsize
        if position < member.size:
            self._read_views(self._pickles.execute(member, position).value, member)

    def _read_views(self, views: PickleValue, member: SliceSource) -> None:
        """Parts of storages that have keys of their own: (key, key of the whole, offset, elements)."""
        if type(views) is not list:
            raise self._corrupt("the list of views is none")
        for view in views:
            match view:
                case (raw_key, raw_root, int() as offset, int() as elements):
                    key, root = _key(raw_key), self._storages.get(_key(raw_root) or "")
                case _:
                    raise self._corrupt("a view of a storage is malformed")
            if key is None or root is None or min(offset, elements) < 0:
                raise self._corrupt("a view of a storage is malformed")
            itemsize = nbytes_of(root.dtype or "uint8", (1,))
            if (offset + elements) * itemsize > root.storage.nbytes:
                raise FormatError(
                    Diagnostic("tensor-out-of-bounds", f"`{self._source.name}`: a view leaves its storage")
                )
            start = root.storage.extents[0].offset + offset * itemsize
            extent = Extent.stored(member, start, elements * itemsize)
            self._storages[key] = StorageRef(Storage(key, elements * itemsize, (extent,)), root.dtype)

    def read_tensors(self, member: SliceSource) -> None:
        """Prove every tensor to lie inside its storage."""
        count, position = self._count(member)
        for _ in range(count):
            entry = self._pickles.execute(member, position)
            match entry.value:
                case (raw_key, raw_storage, _):
                    key, ref = _key(raw_key), self._storages.get(_key(raw_storage) or "")
                case _:
                    raise self._corrupt("the description of a tensor is malformed")
            if key is None or ref is None:
                raise self._corrupt("the description of a tensor names no storage")
            dimensions, _ = struct.unpack("<ii", member.read(entry.stop, 8))
            if not 0 <= dimensions <= MAX_DIMENSIONS:
                raise self._corrupt(f"the tensor {key!r:.80} has {dimensions:,} dimensions")
            numbers = struct.unpack(f"<{2 * dimensions + 1}q", member.read(entry.stop + 8, 16 * dimensions + 8))
            position = entry.stop + 16 + 16 * dimensions
            shape, stride, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
            self._tensors[key] = dense(key, ref.dtype or "uint8", shape, stride, offset, ref.storage)

    def _count(self, member: SliceSource) -> tuple[int, int]:
        """The number that a member starts with, and where what it counts begins."""
        execution = self._pickles.execute(member)
        if type(execution.value) is not int or not 0 <= execution.value <= member.size:
            raise self._corrupt(f"`{member.name}` does not start with a number of entries")
        return execution.value, execution.stop

    def _corrupt(self, why: str) -> FormatError:
        return FormatError(Diagnostic("corrupt-pickle", f"`{self._source.name}`: {why}"))


def _key(value: PickleValue) -> str | None:
    """A key as text: numbers where it was written, their text in persistent ids."""
    if type(value) is int:
        return str(value)
    if type(value) is bytes:
        return value.decode("latin-1")
    return value if type(value) is str else None
