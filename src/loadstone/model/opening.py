"""A source in the form that plans are made of: a file, an open Checkpoint, or a state dict in memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import nn

from loadstone.checkpoint import Checkpoint, open_checkpoint
from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.model.memory import NAME, InMemory, from_memory, outside
from loadstone.tensors import TensorInfo
from loadstone.weights import WeightSet

Source: TypeAlias = str | os.PathLike[str] | Checkpoint | Mapping[str, object]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Opened:
    """A source that can be read.  A file that was opened for it stays open until this is gone.

    Attributes:
        weights: the set of weights that is used.
        others: every other tensor of the source.
        name: what messages call it.
        notes: what is to be said about the source.
        memory: the tensors and values of a state dict in memory.
        checkpoint: the file, where the source is one.
        is_owned: it was opened here and is to be closed here.
    """

    weights: WeightSet
    others: Mapping[str, TensorInfo]
    name: str
    notes: tuple[Diagnostic, ...] = ()
    memory: InMemory | None = None
    checkpoint: Checkpoint | None = None
    is_owned: bool = False

    def close(self) -> None:
        """Close a file that was opened here.  Tensors that are mapped from it stay valid."""
        if self.checkpoint is not None and self.is_owned:
            self.checkpoint.close()


def opened(source: object, weights: str | None) -> Opened:
    """The source, and which of its weights are meant.  Raises RecipeError where it is none of the three."""
    if isinstance(source, Mapping):
        memory = from_memory(source, weights)
        return Opened(memory.weights, memory.others, NAME, memory.notes, memory)
    if isinstance(source, Checkpoint):
        return _from_checkpoint(source, weights, is_owned=False)
    if not isinstance(source, (str, os.PathLike)):
        fixes = (Fix("pass what it holds", "model.state_dict()"),) if isinstance(source, nn.Module) else ()
        message = f"the source is a {type(source).__name__}; it may be a path, a Checkpoint or a state dict"
        raise RecipeError(Diagnostic("invalid-option", message, fixes=fixes))
    checkpoint = open_checkpoint(source, weights=weights)
    try:
        found = _from_checkpoint(checkpoint, None, is_owned=True)
    except BaseException:
        checkpoint.close()
        raise
    weakref.finalize(found, checkpoint.close)
    return found


def _from_checkpoint(checkpoint: Checkpoint, weights: str | None, *, is_owned: bool) -> Opened:
    chosen, found = checkpoint.choose(weights)
    # what another part of the file asks for is no reason not to read its weights, of which every bound is proved
    notes = (replace(finding, level="warning") if finding.severity == "error" else finding for finding in found)
    return Opened(
        chosen,
        outside(chosen, checkpoint.tensors),
        checkpoint.name,
        tuple(notes),
        checkpoint=checkpoint,
        is_owned=is_owned,
    )
