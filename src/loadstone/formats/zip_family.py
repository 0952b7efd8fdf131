"""Which kind of checkpoint a zip is: torch.save, TorchScript, torch.export, torch.package or npz, all of them zips.

The archive is opened and proved once, here; its reader is chosen by the records that only that kind has.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from loadstone.errors import Diagnostic, Fix, FormatError, IntegrityError
from loadstone.formats.contents import Contents, Context
from loadstone.formats.zips.archive import Archive, open_archive
from loadstone.formats.zips.directory import ambiguous
from loadstone.io.sources import ByteSource

# reader, and a record under the root that only its archives have; the first that fits is taken.  torch.load looks for
# data.pkl and nothing else, so an archive of another kind must not have one (`_refuse_two_kinds`)
_MARKS = (
    ("torch_export", "archive_format"),  # since torch 2.8
    ("torch_package", ".data/extern_modules"),
    ("torchscript", "constants.pkl"),
    ("torchscript", "model.json"),  # torch 1.0 to 1.3
    ("torch_zip", "data.pkl"),
)
_OLD_EXPORT_MARKS = ("serialized_exported_program.json", "serialized_state_dict.pt")  # torch 2.1 to 2.7, no root
_HAS_DATA_PKL = ("torch_zip", "torchscript")

_IGNORED_ROOT = "__MACOSX/"  # what macOS adds to every zip it makes: attributes of the files, no files

# a member, by the end of its name, that tells what another kind of zip is
_OTHER_KINDS = (
    ("model.weights.h5", "a Keras model"),
    ("[Content_Types].xml", "an Office document"),
    ("META-INF/MANIFEST.MF", "a Java archive"),
    ("MAR-INF/MANIFEST.json", "a TorchServe archive (.mar)"),
    (".dist-info/WHEEL", "a Python wheel"),
    ("coremldata.bin", "a Core ML package"),
)
_CHECKPOINT_SUFFIXES = (
    ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".pt2", ".jit", ".npz", ".tar", ".h5", ".onnx", ".gguf",
)  # fmt: skip
_MAX_LISTED = 5


def recognises(head: bytes, source: ByteSource) -> bool:
    """Whether the file starts with the header of a zip entry."""
    return head.startswith(b"PK\3\4")


def read(source: ByteSource, context: Context) -> Contents:
    """The contents of any zip checkpoint.

    Raises what `open_archive` raises, and FormatError ("not-a-checkpoint") for a zip of another kind.
    """
    try:
        archive = open_archive(source, context.limits)
    except IntegrityError as error:
        raise _with_expected_size(error, source, context) from error
    kind = kind_of(archive)
    if kind is None:
        raise _not_a_checkpoint(archive)
    reader = import_module(f"loadstone.formats.{kind}")
    read_archive = reader.read_npz_archive if kind == "npz" else reader.read
    return read_archive(archive, context)  # type: ignore[no-any-return]


def kind_of(archive: Archive) -> str | None:
    """The name of the reader for this archive, or None for a zip of another kind.

    Raises UnsafeError where an archive could pass for two kinds, or holds files outside its root.
    """
    if archive.records and all(name.endswith(".npy") for name in archive.records):
        return "npz"
    if any(mark in archive for mark in _OLD_EXPORT_MARKS):
        return "torch_export"
    _refuse_case_variants(archive)
    kinds = [reader for reader, mark in _MARKS if f"{archive.root}/{mark}" in archive]
    if not kinds:
        return None
    if kinds[0] not in _HAS_DATA_PKL and "torch_zip" in kinds:
        raise ambiguous(archive.source, f"it is laid out for {kinds[0]} and has a `data.pkl` for torch.load too")
    for name in archive.records:
        if not name.startswith((f"{archive.root}/", _IGNORED_ROOT)):
            raise ambiguous(archive.source, f"`{name:.80}` lies outside its root folder `{archive.root}`")
    return kinds[0]


def _refuse_case_variants(archive: Archive) -> None:
    """miniz finds records without regard to case, so that `DATA.PKL` is `data.pkl` to torch and not to others."""
    marks = {f"{archive.root}/{mark}".casefold(): mark for _, mark in _MARKS}
    for name in archive.records:
        mark = marks.get(name.casefold())
        if mark is not None and not name.endswith(mark):
            raise ambiguous(archive.source, f"torch would take `{name}` for `{mark}`")


def _with_expected_size(error: IntegrityError, source: ByteSource, context: Context) -> IntegrityError:
    """The error for an archive that is cut off, with the size it should have had where that can be told."""
    from loadstone.formats.zips.truncated import least_nbytes  # the pickle machine, only where something is wrong

    first, *others = error.diagnostics
    expected = least_nbytes(source, context.limits) if error.code == "truncated-file" else None
    if expected is None or expected <= source.size:
        return error
    evidence = (("expected", f"{expected:,} bytes or more"), *first.evidence)
    return IntegrityError(replace(first, evidence=evidence), *others)


def _not_a_checkpoint(archive: Archive) -> FormatError:
    """The error for a zip that is none of ours, saying what is in it."""
    names = list(archive.records)
    evidence = tuple(("contains", name) for name in names[:_MAX_LISTED])
    if len(names) > _MAX_LISTED:
        evidence += (("", f"and {len(names) - _MAX_LISTED:,} more"),)
    for suffix, kind in _OTHER_KINDS:
        if any(name.endswith(suffix) for name in names):
            return FormatError(Diagnostic("not-a-checkpoint", f"`{archive.source.name}` is {kind}", evidence))
    if "data.pkl" in names:
        message = f"`{archive.source.name}` was zipped without the folder that torch.save puts around its records"
        return FormatError(Diagnostic("not-a-checkpoint", message, evidence))
    inside = [name for name in names if name.endswith(_CHECKPOINT_SUFFIXES)]
    if inside:
        message = f"`{archive.source.name}` is a zip archive with a checkpoint inside, `{inside[0]}`"
        return FormatError(
            Diagnostic("not-a-checkpoint", message, evidence, (Fix("unpack it first", f"unzip {archive.source.name}"),))
        )
    return FormatError(
        Diagnostic("not-a-checkpoint", f"`{archive.source.name}` is a zip archive without a checkpoint", evidence)
    )
