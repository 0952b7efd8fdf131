"""The contract between a reader and everything above it: what a reader is given, and what it gives back.

A reader is a module with `read(source, context) -> Contents` (a file) or `read_directory(path, context)`.  Readers are
independent siblings: one that finds another file inside its own asks `context.open`, and never imports its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadstone.errors import Diagnostic
from loadstone.io.limits import DEFAULT_LIMITS, Limits
from loadstone.io.sources import ByteSource, FileSource
from loadstone.manifest import Manifest
from loadstone.values import Value


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a file.

    Attributes:
        format: the name users see, "torch-zip", "safetensors" …
        tree: plain values; tensors as TensorInfo (their `key` is given later, by their place in the tree).
        diagnostics: what the reader noticed, notes and warnings and, for what a payload asks for, errors.
        metadata: what the format says about the file: version, byte order, free text.
        weights: place in the tree (a tuple of dict keys) of the weights, where the format itself defines it.
        code: members of the file that are program code, which was not run.
        manifest: what the file says about itself, where Loadstone wrote it.
    """

    format: str
    tree: Value
    diagnostics: tuple[Diagnostic, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[str, ...] | None = None
    code: tuple[str, ...] = ()
    manifest: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a reader may use: limits, and a way to open what it finds inside.

    Attributes:
        opener: opens a source of any format.
        limits: what a file may ask of this machine.
        depth: how many files this one is inside of.
        sources: every file opened on the way; the Checkpoint closes them.
    """

    opener: Callable[[ByteSource, Context], Contents]
    limits: Limits = DEFAULT_LIMITS
    depth: int = 0
    sources: list[ByteSource] = field(default_factory=list)

    def open(self, source: ByteSource) -> Contents:
        """Read a source that was found inside another one."""
        self.limits.check("nested_files", self.depth + 1, f"`{source.name}`, a file inside a file,")
        return self.opener(source, replace(self, depth=self.depth + 1))

    def open_path(self, path: Path) -> FileSource:
        """A file of a checkpoint in several files; closed with the Checkpoint."""
        source = FileSource(path)
        self.sources.append(source)
        return source
