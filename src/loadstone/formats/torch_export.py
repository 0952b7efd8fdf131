"""Exported programs (`torch.export.save`): the weights of a .pt2 archive.

Since torch 2.9, raw records and an index of them for each model M; `sizes` and the like are tagged unions:

    <root>/archive_format                           "pt2"
    <root>/models/M.json                            the graph
    <root>/data/weights/M_weights_config.json       {"config": {fqn: {path_name, is_param, use_pickle, tensor_meta}}}
    <root>/data/weights/weight_N                    raw bytes, or a torch.save file where `use_pickle` says so
    <root>/data/constants/M_constants_config.json   the same for constants and non-persistent buffers

torch 2.8 wrote torch.save files in their place, `data/weights/M.pt` and `data/constants/M.pt`, and before it there was
no root: `serialized_state_dict.pt`, `serialized_constants.pt`.

Source: torch/export/pt2_archive (_package.py, constants.py), torch/_export/serde/schema.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, final

from loadstone.dtypes import BY_SCALAR_TYPE
from loadstone.errors import Diagnostic, FormatError, UnsafeError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.strict_json import parse
from loadstone.formats.zips.archive import Archive
from loadstone.formats.zips.members import archive_metadata, archive_notes, code_note, code_of, judge_others
from loadstone.storage import Storage
from loadstone.tensors import TensorInfo, dense
from loadstone.values import SavedModule, Value

FORMAT = "torch-export"

_CLASS_NAME = "torch.export.ExportedProgram"
_STRIDED = 7  # torch/_export/serde/schema.py `Layout`
_FOLDERS = ("weights", "constants")
_CONFIG_SUFFIX = {folder: f"_{folder}_config.json" for folder in _FOLDERS}
_OLD_MEMBERS = {"weights": "serialized_state_dict.pt", "constants": "serialized_constants.pt"}
_MAX_JSON_DEPTH = 12  # a tensor's sizes lie at depth 6


def read(archive: Archive, context: Context) -> Contents:
    """Each program as a SavedModule: its weights as the state dict, its constants as `non_persistent`.

    The tree is the module itself, or a dict of them by name where the archive holds several.  Raises UnsafeError for a
    path that leaves the archive, FormatError and IntegrityError for an index that contradicts its records.
    """
    reader = _Reader(archive, context)
    programs = reader.programs()
    metadata = archive_metadata(archive)
    for key in ("archive_format", "archive_version"):
        if (text := archive.text(f"{archive.root}/{key}")) is not None:
            metadata[key] = text
    code = code_of(archive)
    diagnostics = (
        *reader.diagnostics,
        *judge_others(archive, context, read=reader.used),
        *archive_notes(archive, metadata),
        *code_note(archive, code, "compiled or generated code"),
    )
    if len(programs) == 1:
        return Contents(FORMAT, next(iter(programs.values())), diagnostics, metadata, weights=(), code=code)
    return Contents(FORMAT, programs, diagnostics, metadata, code=code)


@final
class _Reader:
    """Collects the tensors of an archive, and what was noticed on the way."""

    def __init__(self, archive: Archive, context: Context) -> None:
        self.archive = archive
        self.context = context
        self.used: set[str] = set()
        self.diagnostics: list[Diagnostic] = []
        self._storages: dict[str, Storage] = {}
        self._is_big_endian = archive.text(f"{archive.root}/byteorder") == "big"

    def programs(self) -> dict[str, SavedModule]:
        """Every program by its name."""
        programs: dict[str, SavedModule] = {}
        for folder in _FOLDERS:
            for name, tensors in self._tensors_in(folder).items():
                program = programs.setdefault(name, SavedModule(_CLASS_NAME))
                (program.state_dict if folder == "weights" else program.non_persistent).update(tensors)
        return programs or {"": SavedModule(_CLASS_NAME)}  # an archive of nothing but compiled code

    def _tensors_in(self, folder: str) -> dict[str, dict[str, TensorInfo]]:
        """The tensors of a folder by the name of their program and their own."""
        found: dict[str, dict[str, TensorInfo]] = {}
        if _OLD_MEMBERS[folder] in self.archive:
            found[""] = self._from_pickle(_OLD_MEMBERS[folder])
        prefix = f"{self.archive.root}/data/{folder}/"
        for name in self.archive.records:
            member = name.removeprefix(prefix)
            if member == name or "/" in member:
                continue
            if member.endswith(_CONFIG_SUFFIX[folder]):
                found[member.removesuffix(_CONFIG_SUFFIX[folder])] = self._from_config(name, prefix)
            elif member.endswith(".pt"):
                found[member.removesuffix(".pt")] = self._from_pickle(name)
        return found

    def _from_pickle(self, name: str) -> dict[str, TensorInfo]:
        """The tensors of a dict that lies in the archive as a file of torch.save."""
        tree = self._open(name)
        if not isinstance(tree, dict):
            raise self._invalid(name, "holds no dict of tensors")
        return {str(key): info for key, info in tree.items() if isinstance(info, TensorInfo)}

    def _from_config(self, name: str, prefix: str) -> dict[str, TensorInfo]:
        """The tensors that an index lists; what it lists besides tensors is noted."""
        index = parse(self.archive.read(name), name=name, limits=self.context.limits, max_depth=_MAX_JSON_DEPTH)
        config = index.get("config") if isinstance(index, dict) else None
        if not isinstance(config, dict):
            raise self._invalid(name, "has no `config`")
        tensors = {}
        for key, entry in config.items():
            path = entry.get("path_name") if isinstance(entry, dict) else None
            if not isinstance(path, str):
                raise self._invalid(name, f"has no path for `{key:.80}`")
            if "/" in path or "\\" in path or path in ("", ".", ".."):
                raise UnsafeError(
                    Diagnostic("unsafe-path", f"`{name}` names {path!r:.80} for `{key:.80}`", keys=(key,))
                )
            meta = entry.get("tensor_meta")
            if meta is None:
                self.diagnostics.append(
                    Diagnostic("not-extracted", f"`{key:.80}` is an object, no tensor", keys=(key,))
                )
            elif not isinstance(meta, dict):
                raise self._invalid(name, f"describes `{key:.80}` with something else than an object")
            elif entry.get("use_pickle") is True:
                tensors[key] = self._pickled(key, prefix + path)
            else:
                tensors[key] = self._raw(key, prefix + path, meta)
            if key in tensors:
                tensors[key] = replace(tensors[key], is_parameter=entry.get("is_param") is True)
        return tensors

    def _pickled(self, key: str, name: str) -> TensorInfo:
        tree = self._open(name)
        if not isinstance(tree, TensorInfo):
            raise FormatError(
                *self.diagnostics,
                Diagnostic("header-invalid", f"`{name}` should hold the tensor `{key:.80}` and does not", keys=(key,)),
            )
        return tree.with_key(key)

    def _raw(self, key: str, name: str, meta: Mapping[str, object]) -> TensorInfo:
        """A tensor over a record of raw bytes; several may view one record."""
        scalar_type, layout = meta.get("dtype"), meta.get("layout", _STRIDED)
        dtype = BY_SCALAR_TYPE.get(scalar_type) if type(scalar_type) is int else None
        if dtype is None or layout != _STRIDED:
            raise FormatError(
                Diagnostic(
                    "unsupported-feature",
                    f"`{key:.80}` has the unknown dtype {scalar_type!r:.20} or layout {layout!r:.20}",
                    keys=(key,),
                )
            )
        shape, stride = _ints(meta.get("sizes")), _ints(meta.get("strides"))
        offset = _ints([meta.get("storage_offset")])
        if shape is None or stride is None or offset is None:
            raise self._invalid(name, f"is described by sizes that are no numbers, for `{key:.80}`")
        storage = self._storages.get(name)
        if storage is None:
            extent = self.archive.extent(name)
            record = self.archive.records[name]
            storage = Storage(name, record.nbytes, (extent,), is_big_endian=self._is_big_endian, crc32=record.crc32)
            self._storages[name] = storage
            self.used.add(name)
        return dense(
            key, dtype.name, shape, stride, offset[0], storage, requires_grad=meta.get("requires_grad") is True
        )

    def _open(self, name: str) -> Value:
        """What a file of torch.save inside the archive holds."""
        contents = self.context.open(self.archive.member(name))
        self.diagnostics.extend(contents.diagnostics)
        self.used.add(name)
        return contents.tree

    def _invalid(self, name: str, why: str) -> FormatError:
        return FormatError(*self.diagnostics, Diagnostic("header-invalid", f"`{name}` {why}"))


def _ints(values: object) -> tuple[int, ...] | None:
    """Numbers that the schema wraps as {"as_int": 3}; None where one is symbolic or something else."""
    if not isinstance(values, list):
        return None
    numbers = tuple(value.get("as_int") if isinstance(value, dict) else None for value in values)
    return cast(tuple[int, ...], numbers) if all(type(number) is int for number in numbers) else None
