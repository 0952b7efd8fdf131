"""Which reader takes a file: by what is in it, never by its name.

The order matters where one format's test is weaker than another's; it is that of the table.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Protocol

from loadstone.errors import Diagnostic, Fix, FormatError, IntegrityError, LoadstoneError
from loadstone.formats.contents import Contents, Context
from loadstone.io.sources import ByteSource

HEAD_NBYTES = 4096

# readers are imported when their turn comes, so that opening a safetensors file loads no pickle machine
_FILE_READERS = ("safetensors", "zip_family", "torch_legacy", "torch_tar", "gguf", "npz", "compressed")
_DIRECTORY_READERS = ("folder", "dcp", "sharded", "deepspeed")


class FileReader(Protocol):
    """A module that reads one kind of file."""

    def recognises(self, head: bytes, source: ByteSource) -> bool:
        """Whether the first bytes are of this format."""

    def read(self, source: ByteSource, context: Context) -> Contents:
        """The file's contents, headers only."""


def open_source(source: ByteSource, context: Context) -> Contents:
    """Read a file with the reader that recognises it; raises FormatError naming what it is where none does."""
    head = source.read(0, min(HEAD_NBYTES, source.size))
    for name in _FILE_READERS:
        reader = import_module(f"loadstone.formats.{name}")
        if reader.recognises(head, source):
            return reader.read(source, context)  # type: ignore[no-any-return]
    from loadstone.formats.identify import (
        identify,
        unknown_format,
    )  # its signatures are for when nothing reads the file

    something_else = identify(head, source, source.name)
    if something_else is not None:
        raise FormatError(something_else)
    pickles = import_module("loadstone.formats.plain_pickle")
    if pickles.recognises(head, source):
        return pickles.read(source, context)  # type: ignore[no-any-return]
    raise FormatError(unknown_format(head, source.name))


def open_path(path: Path, context: Context) -> Contents:
    """Read a file or a directory."""
    is_directory = os.path.isdir(path)  # unlike Path.is_dir, these raise for no name whatever
    if is_directory or (path.name.endswith(".index.json") and os.path.isfile(path)):
        for name in _DIRECTORY_READERS:
            reader = import_module(f"loadstone.formats.{name}")
            if reader.recognises_directory(path):
                return reader.read_directory(path, context)  # type: ignore[no-any-return]
        if is_directory:
            raise _no_checkpoint_in(path)
    return open_source(context.open_path(path), context)


def _no_checkpoint_in(directory: Path) -> LoadstoneError:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        return IntegrityError(Diagnostic("io-error", f"listing `{directory}`: {error.strerror or error}"))
    return FormatError(
        Diagnostic(
            "unknown-format",
            f"`{directory}` is a directory without an index, a `.metadata` or a single model file",
            evidence=tuple(("holds", name) for name in names[:8]),
            fixes=(Fix("name the file", f"loadstone inspect {directory / names[0]}"),) if names else (),
        )
    )
