"""torch.distributed.checkpoint: a directory of `.distcp` files and a `.metadata` that says where each tensor lies.

`.metadata` is a pickle, which torch itself loads with plain `pickle`; here it is read as inert records.  A tensor is
cut into chunks, one or more a rank; each chunk is a complete `torch.save` file at an offset of a `.distcp` file.

Source: torch/distributed/checkpoint/metadata.py (the classes), filesystem.py (`_StorageInfo`), planner_helpers.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadstone.dtypes import DTYPES
from loadstone.errors import Diagnostic, FormatError, IntegrityError
from loadstone.formats.chunks import assemble
from loadstone.formats.contents import Contents, Context
from loadstone.formats.members import member_path
from loadstone.formats.pickles.globals import judge
from loadstone.formats.pickles.values import Call, Global, PickledDict, PickleValue
from loadstone.formats.pickles.vm import execute
from loadstone.io.sources import ByteSource, SliceSource
from loadstone.tensors import MAX_INT64, Part, TensorInfo
from loadstone.values import Value

FORMAT = "dcp"

_METADATA = ".metadata"
_DATA_SUFFIX = ".distcp"
_CLASSES = "torch.distributed.checkpoint.metadata."
_STORAGE_INFO = "torch.distributed.checkpoint.filesystem._StorageInfo"

_Place = tuple[int, ...] | None  # of a chunk in its tensor; None for an object


@dataclass(frozen=True, slots=True)
class _Blob:
    """A `torch.save` file inside a `.distcp` file."""

    file: str
    offset: int
    nbytes: int


def recognises_directory(path: Path) -> bool:
    """Whether the directory holds `.metadata` or `.distcp` files."""
    try:
        return (path / _METADATA).is_file() or any(entry.suffix == _DATA_SUFFIX for entry in path.iterdir())
    except OSError:
        return False


def read_directory(path: Path, context: Context) -> Contents:
    """The nested state dict that was saved, tensors in chunks where several files hold them.

    Raises FormatError ("header-invalid") where the metadata contradicts itself or the chunks do not fill a tensor,
    IntegrityError ("missing-shard") where a file is not there, UnsafeError ("unsafe-path") where one lies elsewhere.
    """
    if not (path / _METADATA).is_file():
        raise IntegrityError(
            Diagnostic("missing-shard", f"`{path}` has no `{_METADATA}`: the save did not finish, or it was not copied")
        )
    source = context.open_path(member_path(path, _METADATA))
    execution = execute(source, 0, limits=context.limits)
    reader = _Reader(path, context, list(judge(execution, source.name)))
    fields = reader.fields(execution.value, "Metadata")
    blobs = reader.blobs(fields.get("storage_data"))
    entries = reader.pairs(fields.get("state_dict_metadata"), "state_dict_metadata")
    flat = {key: reader.entry(key, value, blobs) for key, value in entries.items()}
    planner_data = fields.get("planner_data")
    paths = reader.pairs(planner_data, "planner_data") if isinstance(planner_data, PickledDict) else {}
    version = fields.get("version")
    metadata = {"version": version} if isinstance(version, str) else {}
    return Contents(FORMAT, _nested(flat, paths), tuple(reader.diagnostics), metadata, code=tuple(reader.code))


class _Reader:
    """Takes the records of one `.metadata` apart, opening data files as they are named."""

    def __init__(self, directory: Path, context: Context, diagnostics: list[Diagnostic]) -> None:
        self.diagnostics = diagnostics
        self.code: list[str] = []
        self._directory = directory
        self._context = context
        self._files: dict[str, ByteSource] = {}
        self._checked_names: set[str] = set()

    def fields(self, record: PickleValue, class_name: str) -> dict[str, PickleValue]:
        """The attributes of an instance of this dataclass of torch's."""
        if not _is_instance(record, _CLASSES + class_name):
            raise self._invalid(f"a {class_name} is expected, not {_named(record)}")
        return self.pairs(record.state, class_name) if isinstance(record.state, PickledDict) else {}

    def pairs(self, value: PickleValue, what: str) -> dict[str, PickleValue]:
        """A dict with text for keys."""
        if not isinstance(value, PickledDict) or not all(isinstance(key, str) for key, _ in value.entries):
            raise self._invalid(f"`{what}` is no dict of names")
        pairs = dict(value.entries)
        if len(pairs) != len(value.entries):
            raise self._invalid(f"`{what}` has a name twice")
        return pairs

    def sizes(self, value: PickleValue, what: str) -> tuple[int, ...]:
        """A torch.Size, or the tuple or list that older versions wrote."""
        if isinstance(value, Call) and _path(value.function) == "torch.Size" and isinstance(value.args, tuple):
            value = value.args[0] if len(value.args) == 1 else None
        if isinstance(value, tuple | list) and all(type(size) is int and 0 <= size <= MAX_INT64 for size in value):
            return tuple(value)
        raise self._invalid(f"{what} is {_named(value)}")

    def blobs(self, storage_data: PickleValue) -> dict[tuple[str, _Place], _Blob]:
        """Where each chunk of each tensor lies, and each object."""
        if not isinstance(storage_data, PickledDict):
            raise self._invalid("`storage_data` is no dict")
        found: dict[tuple[str, _Place], _Blob] = {}
        for index_record, info_record in storage_data.entries:
            index = self.fields(index_record, "MetadataIndex")
            key, offset = index.get("fqn"), index.get("offset")
            if not isinstance(key, str):
                raise self._invalid(f"an index names {_named(key)}")
            place = None if offset is None else self.sizes(offset, f"the offset of a chunk of `{key}`")
            if (key, place) in found:
                raise self._invalid(f"a chunk of `{key}` is listed twice")
            found[key, place] = self._blob(key, info_record)
        return found

    def entry(self, key: str, record: PickleValue, blobs: Mapping[tuple[str, _Place], _Blob]) -> Value:
        """The tensor, or the tree of the object, that the state dict has under `key`."""
        if _is_instance(record, _CLASSES + "BytesStorageMetadata"):
            return self._load(key, None, blobs)
        fields = self.fields(record, "TensorStorageMetadata")
        shape = self.sizes(fields.get("size"), f"the size of `{key}`")
        dtype = self._dtype(key, fields.get("properties"))
        chunks = fields.get("chunks")
        if not isinstance(chunks, list) or not chunks:
            raise self._invalid(f"`{key}` has no chunks")
        parts: list[Part] = []
        for chunk in chunks:
            claim = self.fields(chunk, "ChunkStorageMetadata")
            place = self.sizes(claim.get("offsets"), f"the offset of a chunk of `{key}`")
            sizes = self.sizes(claim.get("sizes"), f"the size of a chunk of `{key}`")
            info = self._load(key, place, blobs)
            if not isinstance(info, TensorInfo) or info.shape != sizes:
                raise self._invalid(
                    f"the chunk of `{key}` at {list(place)} is {_named(info)}, not of shape {list(sizes)}"
                )
            parts.append(Part(str(list(place)), info, place))
        return assemble(key, dtype, shape, parts, source=str(self._directory))

    def _load(self, key: str, place: _Place, blobs: Mapping[tuple[str, _Place], _Blob]) -> Value:
        blob = blobs.get((key, place))
        if blob is None:
            where = "" if place is None else f" at {list(place)}"
            raise self._invalid(f"`storage_data` does not say where `{key}`{where} lies")
        file = self._files.get(blob.file)
        if file is None:
            file = self._files[blob.file] = self._open(blob.file)
        contents = self._context.open(SliceSource(file, blob.offset, blob.nbytes, f"{file.name}:{key}"))
        self.diagnostics += contents.diagnostics
        self.code += contents.code
        return contents.tree

    def _open(self, name: str) -> ByteSource:
        path = member_path(self._directory, name)
        if not os.path.isfile(path):  # unlike Path.is_file, it takes names that are too long
            raise IntegrityError(
                Diagnostic("missing-shard", f"`{name}` is not in `{self._directory}`, its `{_METADATA}` names it")
            )
        return self._context.open_path(path)

    def _blob(self, key: str, record: PickleValue) -> _Blob:
        if not _is_instance(record, _STORAGE_INFO) or not isinstance(record.state, PickledDict):
            raise self._invalid(f"the place of `{key}` is {_named(record)}")
        state = self.pairs(record.state, "_StorageInfo")
        if state.get("transform_descriptors"):
            raise FormatError(
                Diagnostic("unsupported-feature", f"`{key}` in `{self._directory}` was compressed by an extension")
            )
        file, offset, nbytes = state.get("relative_path"), state.get("offset"), state.get("length")
        if not isinstance(file, str) or file not in self._checked_names:
            member_path(self._directory, file)
            self._checked_names.add(str(file))
        if not isinstance(file, str) or type(offset) is not int or type(nbytes) is not int:
            raise self._invalid(f"the place of `{key}` is {file!r:.60}, {offset!r:.30}, {nbytes!r:.30}")
        return _Blob(file, offset, nbytes)

    def _dtype(self, key: str, properties: PickleValue) -> str:
        """TensorProperties pickles itself as (dtype, layout, requires_grad, memory format, pin_memory)."""
        if _is_instance(properties, _CLASSES + "TensorProperties"):
            state = properties.state
            name = _path(state[0]) if isinstance(state, tuple) and state else ""
            if name.startswith("torch.") and name.removeprefix("torch.") in DTYPES:
                return name.removeprefix("torch.")
        raise self._invalid(f"the dtype of `{key}` is not told")

    def _invalid(self, why: str) -> FormatError:
        return FormatError(Diagnostic("header-invalid", f"`{self._directory / _METADATA}` is invalid: {why}"))


def _nested(flat: dict[str, Value], paths: dict[str, PickleValue]) -> dict[str, Value]:
    """The state dict as it was before torch flattened it: `planner_data` keeps the path of each key.

    A place in a list becomes its number as text, so that a list with gaps stays one.  A key whose path is missing, or
    runs through something that is no dict, stays at the top.
    """
    tree: dict[str, Value] = {}
    made: set[int] = {id(tree)}  # the dicts made here, as against dicts that were saved as objects
    for key, value in flat.items():
        path = paths.get(key)
        names = _names(path) or [key]
        here = tree
        for name in names[:-1]:
            child = here.setdefault(name, {})
            if type(child) is dict and not child:
                made.add(id(child))
            if id(child) not in made:
                here, names = tree, [key]
                break
            here = child
        if names[-1] in here:
            here, names = tree, [key]
        here[names[-1]] = value
    return tree


def _names(path: PickleValue) -> list[str]:
    """The steps of a path as text; none where it is no path."""
    if not isinstance(path, tuple) or not all(type(step) in (str, int) for step in path):
        return []
    return [str(step) for step in path]


def _path(function: PickleValue) -> str:
    return function.path if isinstance(function, Global) else ""


def _is_instance(record: PickleValue, path: str) -> bool:
    return isinstance(record, Call) and _path(record.function) == path


def _named(value: object) -> str:
    """What a value is, without its contents."""
    if isinstance(value, Call):
        return _path(value.function) or "the result of a call"
    if isinstance(value, TensorInfo):
        return f"a tensor of shape {list(value.shape)}"
    return f"{value!r:.40}" if value is None or isinstance(value, str | int) else f"a {type(value).__name__}"
