"""Checkpoint: an open file as a lazy tree of plain values and TensorInfos, and which part of it is the weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, final

from loadstone import collector
from loadstone.errors import Diagnostic, FormatError, LoadstoneError, worst_first
from loadstone.formats.contents import Contents, Context
from loadstone.formats.registry import open_path, open_source
from loadstone.io.limits import DEFAULT_LIMITS, Limits
from loadstone.io.sources import ByteSource, FileSource
from loadstone.manifest import Manifest
from loadstone.tensors import TensorInfo
from loadstone.tree import check_expansion, every_tensor, materialised
from loadstone.values import Value
from loadstone.weights import WeightSet, choose, find_weight_sets


@final
class Checkpoint:
    """An open checkpoint.  Nothing was run, and nothing but headers was read.

    Close it, or use it in a `with`.  Tensors that were read, and views that were mapped, stay valid afterwards.
    """

    def __init__(self, contents: Contents, *, name: str, sources: list[ByteSource], weights: str | None = None) -> None:
        self.name = name
        self._contents = contents
        self._sources = sources
        self._wanted = weights
        self._tensors: Mapping[str, TensorInfo] | None = None
        self._sets: list[WeightSet] | None = None
        if weights is not None:
            choose(self.sets, weights, name)  # an unknown name is an error now, not at the first use

    @property
    def format(self) -> str:
        """The file format: "torch-zip", "torch-legacy", "torch-tar", "torchscript", "safetensors", "sharded" …"""
        return self._contents.format

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the format says about the file: its version, byte order, free text."""
        return self._contents.metadata

    @property
    def manifest(self) -> Manifest | None:
        """What the file says about itself: digests, architecture, versions; None where Loadstone did not write it."""
        return self._contents.manifest

    @property
    def code(self) -> tuple[str, ...]:
        """Members of the file that are program code.  None of it was run."""
        return self._contents.code

    @property
    def tree(self) -> Value:
        """The file as plain values: dict, list, str, number, TensorInfo; other objects as Opaque."""
        return self._contents.tree

    @property
    def nbytes(self) -> int:
        """Bytes on disk of all the files that were opened."""
        return sum(source.size for source in self._sources)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were opened: one, or an index and its shards."""
        return tuple(source.name for source in self._sources)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor in the file by dotted key, in the order of the file."""
        if self._tensors is None:
            tree = self._contents.tree
            is_flat = isinstance(tree, dict) and all(isinstance(value, TensorInfo) for value in tree.values())
            same = is_flat and self.weight_sets == [""]  # a plain state dict: the set and the file are one
            self._tensors = MappingProxyType(dict(self.sets[0].tensors) if same else every_tensor(tree))
        return self._tensors

    @property
    def sets(self) -> list[WeightSet]:
        """Every part of the file that can be loaded into a model."""
        if self._sets is None:
            self._sets = find_weight_sets(self._contents.tree, self._contents.weights)
        return self._sets

    @property
    def weight_sets(self) -> list[str]:
        """The names of all the sets, for `open(path, weights=NAME)`; "" is the whole file."""
        return [weight_set.name for weight_set in self.sets]

    def choose(self, weights: str | None = None) -> tuple[WeightSet, tuple[Diagnostic, ...]]:
        """The set called `weights`, or the one that is meant, and what was noticed about the file and the choice.

        Raises FormatError (no-weights, unknown-weights) where the file has no such set.
        """
        chosen, notes = choose(self.sets, self._wanted if weights is None else weights, self.name)
        return chosen, worst_first((*self._contents.diagnostics, *notes))

    @property
    def chosen(self) -> WeightSet:
        """The set that `weights` gives.  Raises FormatError (no-weights) where the file has none."""
        return self.choose()[0]

    @property
    def weights(self) -> Mapping[str, TensorInfo]:
        """The model's state dict in the file.  Raises FormatError (no-weights) where it has none."""
        return MappingProxyType(dict(self.chosen.tensors))

    @property
    def modules(self) -> Mapping[str, str]:
        """Class names by dotted path, where the weights were saved as a whole module; else empty."""
        return self.chosen.modules if self.sets else {}

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was noticed, worst first; includes `several-models` where a set had to be chosen."""
        return self.choose()[1] if self.sets else worst_first(self._contents.diagnostics)

    def read(self, *path: str | int) -> Value:
        """A part of the tree with its tensors read: `read("optimizer_state_dict")`; all of it without a path.

        Needs torch.  Objects that are no plain values stay Opaque records.  Raises FormatError (unknown-part) where
        the tree has no such part, and what `TensorInfo.read` raises.
        """
        value = self._contents.tree
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError) as error:
                has = ", ".join(str(key) for key in list(value)[:12]) if isinstance(value, dict) else ""
                raise FormatError(
                    Diagnostic(
                        "unknown-part",
                        f"`{self.name}` has no part {'.'.join(map(str, path))!r}",
                        evidence=(("has", has),) if has else (),
                    )
                ) from error
        return materialised(value)

    def close(self) -> None:
        """Close the files.  Mapped views that are in use stay valid."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {self.name} {self.format}, {len(self.tensors):,} tensors>"


def open_checkpoint(
    path: str | os.PathLike[str], *, weights: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> Checkpoint:
    """Open a model file or directory without running anything in it; only headers are read.

    Args:
        path: a file of any of the formats, a directory of shards, an index file, or the http or https address of a
            file, which is downloaded into torch.hub's cache folder unless it is there.
        weights: the name of the set to use (see `Checkpoint.weight_sets`) where the file holds several.
        limits: what the file may ask of this machine.

    Raises:
        MissingFileError: there is no such file.
        FormatError: it is something else, damaged, or has no set of that name.
        UnsafeError: two readers would see different files in it, or it points outside itself.
        IntegrityError: it ends too early, cannot be read or downloaded, or is not what the hash in its name says.
        LimitError: opening it would need more than the limits allow.
        SaveError: a download cannot be kept.
    """
    name = os.fspath(path)
    if "://" in name:
        path = name = _local(name, limits)
    context = Context(open_source, limits)
    try:
        with collector.paused():
            contents = open_path(Path(path), context)
            check_expansion(contents.tree, limits)
        return Checkpoint(contents, name=name, sources=context.sources, weights=weights)
    except BaseException:
        for source in context.sources:
            source.close()
        raise


_SOMETHING_ELSE = frozenset(("not-a-checkpoint", "lfs-pointer", "empty-file"))


def _local(name: str, limits: Limits) -> str:
    """The path of a file whose address is given; any other name as it is."""
    from loadstone.io.addresses import is_address
    from loadstone.io.download import download

    def accept(path: Path, address: str) -> None:
        """Refuse what no reader takes and is known to be something else, such as a page; the rest may be looked at."""
        with contextlib.closing(FileSource(path)) as source:
            source.name = address
            try:
                open_source(source, Context(open_source, limits))
            except FormatError as error:
                if error.code in _SOMETHING_ELSE:
                    raise
            except LoadstoneError:
                pass

    return os.fspath(download(name, accept=accept)) if is_address(name) else name
