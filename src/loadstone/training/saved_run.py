"""What a checkpoint on disk says of a training: its parts and where they stand, whoever wrote it; tensors unread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadstone.checkpoint import Checkpoint
from loadstone.errors import Diagnostic
from loadstone.training.layouts import find_parts
from loadstone.training.parts import KEYS, MODEL, RANKS


@dataclass(frozen=True, slots=True)
class Stored:
    """One saved state: its path in the tree for `Checkpoint.read`, and its value with tensors as TensorInfos."""

    path: tuple[Any, ...]
    value: Any

    @property
    def place(self) -> str:
        """Its dotted place."""
        return ".".join(map(str, self.path))


@dataclass(frozen=True, slots=True)
class SavedRun:
    """The parts of a training in a file.

    Attributes:
        checkpoint: open.
        is_own: a Run wrote it, so that everything that is not there did not exist.
        weights: the name of the set of weights that is the model's; None where that is left to be found, or none is.
        has_model: there are weights.
        others: by part, the states by name.
        kinds: classes of the objects, as `parts.kinds` gave them.
        epoch, step, batch: where it stood.
        diagnostics: what is not certain about a file that somebody else wrote.
        rank: which of the processes that trained together is asked for; the first stands at the top of the file.
    """

    checkpoint: Checkpoint
    is_own: bool
    weights: str | None
    has_model: bool
    others: Mapping[str, Mapping[str, Stored]]
    kinds: Mapping[str, Any]
    epoch: int = 0
    step: int = 0
    batch: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()
    rank: int = 0

    @property
    def processes(self) -> int:
        """How many trained together."""
        tree = self.checkpoint.tree
        return 1 + len(tree.get(RANKS, ())) if self.is_own and isinstance(tree, Mapping) else 1

    def own(self, key: str) -> Any:
        """What each process has for itself (`parts.OWN`), its tensors read; None where there is none."""
        if self.rank == 0:
            return self.get(key)
        if self.rank >= self.processes or key not in self.checkpoint.tree[RANKS][self.rank - 1]:
            return None
        return self.checkpoint.read(RANKS, self.rank - 1, key)

    def get(self, key: str) -> Any:
        """A top-level value of the file, its tensors read; None where there is none."""
        tree = self.checkpoint.tree
        return self.checkpoint.read(key) if isinstance(tree, Mapping) and key in tree else None


def read_run(checkpoint: Checkpoint) -> SavedRun:
    """The training in the file."""
    tree = checkpoint.tree
    if isinstance(tree, Mapping) and "kinds" in tree and isinstance(tree["kinds"], Mapping):
        return _own(checkpoint, tree)
    return _foreign(checkpoint)


def _own(checkpoint: Checkpoint, tree: Mapping[Any, Any]) -> SavedRun:
    kinds = tree["kinds"]
    others: dict[str, dict[str, Stored]] = {}
    for part, key in KEYS.items():
        if key not in tree:
            continue
        if isinstance(kinds.get(part), Mapping):
            others[part] = {name: Stored((key, name), tree[key].get(name)) for name in kinds[part]}
        else:
            others[part] = {"": Stored((key,), tree[key])}
    counts = (tree.get(name) for name in ("epoch", "step", "batch"))
    epoch, step, batch = (value if type(value) is int else 0 for value in counts)
    has_model = MODEL in tree
    return SavedRun(checkpoint, True, MODEL if has_model else None, has_model, others, kinds, epoch, step, batch)


def _foreign(checkpoint: Checkpoint) -> SavedRun:
    found = find_parts(checkpoint.tree, checkpoint.sets)
    others: dict[str, dict[str, Stored]] = {}
    for part in ("optimizer", "scheduler", "scaler"):
        each = found.all(part)
        if each:
            others[part] = {one.name if len(each) > 1 else "": Stored(one.path, one.value) for one in each}
    epoch, step = found.one("epoch"), found.one("step")
    counts = [one.value if one is not None and type(one.value) is int else 0 for one in (epoch, step)]
    notes = list(found.diagnostics)
    if epoch is not None:
        message = (
            f"`{checkpoint.name}` was written by other code: its `{epoch.place}` of {counts[0]} is taken as it stands"
        )
        evidence = (("taken as", f"{counts[0]} finished epochs; some scripts count the last one from 0"),)
        notes.append(Diagnostic("foreign-count", message, evidence))
    return SavedRun(checkpoint, False, None, bool(checkpoint.sets), others, {}, counts[0], counts[1], 0, tuple(notes))
