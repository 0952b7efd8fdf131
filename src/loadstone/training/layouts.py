"""Which part of anybody's training checkpoint is what: weights, optimizers, schedulers, scaler, epoch, step, loss.

Parts are known by what they hold: a dict of `state` and `param_groups` is an optimizer's, whatever it is called.  Names
decide only about what has no form of its own, which is the numbers.  Nothing is read but the tree of plain values, and
where two places could be meant and differ, that is said instead of decided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loadstone.errors import Diagnostic
from loadstone.tensors import TensorInfo
from loadstone.training.optimizer_saved import is_optimizer_state
from loadstone.values import Opaque, Value
from loadstone.weights import WeightSet, find_weight_sets

Kind = Literal["optimizer", "scheduler", "scaler", "rng", "epoch", "step", "loss", "metric"]
Path = tuple[Any, ...]

_DEPTH = 4  # containers around a part; the deepest known is Lightning's loops
# Forms: kind, keys of which all are there, keys of which one is there.
_FORMS: tuple[tuple[Kind, frozenset[str], frozenset[str]], ...] = (
    # torch/optim/lr_scheduler.py: every scheduler's __dict__; ReduceLROnPlateau has no base_lrs
    ("scheduler", frozenset({"last_epoch"}), frozenset({"_step_count", "base_lrs", "_last_lr", "num_bad_epochs"})),
    # torch/amp/grad_scaler.py state_dict
    ("scaler", frozenset({"scale", "growth_factor"}), frozenset({"backoff_factor", "_growth_tracker"})),
    # NVIDIA apex, amp/frontend.py state_dict
    ("scaler", frozenset({"loss_scaler0"}), frozenset({"loss_scaler0"})),
)
# Names of what is a dict without a form, or a number.  Collected from the tutorials, torchvision, timm, Lightning,
# transformers, mmengine, detectron2, fairseq, nanoGPT, ultralytics and the files of packages that ship checkpoints.
_NAMES: Mapping[Kind, re.Pattern[str]] = {
    "scheduler": re.compile(r"(lr_?)?schedulers?(_state(_dict)?)?|lr_schedulers?"),
    "scaler": re.compile(r"(amp|grad|loss)?_?scaler(_state(_dict)?)?|amp(_state)?|native_amp_scaling_state"),
    "rng": re.compile(r"((torch|cpu|cuda|python|numpy|np|py)_?)?(rng|random)(_states?(_dict)?)?"),
    "epoch": re.compile(r"epochs?|current_epoch|start_epoch|epoch_num|n_epochs?|epoch_idx|cur_epoch"),
    "step": re.compile(
        r"(global_|current_|train_|total_)?(steps?|iters?|iterations?|itr)(_num|_idx)?|n_iter|num_updates|global_iter"
    ),
    "loss": re.compile(r"(train_|training_|avg_|running_)?loss"),
    "metric": re.compile(
        r"(best|val|valid|validation|test|eval)_\w+|acc(uracy)?|fitness|metric|best|psnr|ssim|miou|map"
    ),
}
_NUMBERS: tuple[Kind, ...] = ("epoch", "step", "loss", "metric")
# Where training codes keep their numbers one level further in: `meta` of mmengine, `trainer_state` of transformers
_INNER = re.compile(r"meta|trainer_state|training|train_state|state|info|extra_state|metrics|progress")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a training checkpoint.

    Attributes:
        kind: what it is.
        path: its keys from the root of the tree, for `Checkpoint.read(*path)`.
        value: it, tensors as TensorInfos.
        how: what it was known by.
    """

    kind: Kind
    path: Path
    value: Value
    how: str

    @property
    def place(self) -> str:
        """Its dotted place in the file; "the whole file" for the root."""
        return ".".join(map(str, self.path)) or "the whole file"

    @property
    def name(self) -> str:
        """What tells it from others of its kind: its key, or for one in a list that and its number."""
        return ".".join(map(str, self.path[-2:] if self.path and isinstance(self.path[-1], int) else self.path[-1:]))


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a training checkpoint.

    `weights` are the sets of weights, `found` everything else in the order of the file.
    """

    weights: tuple[WeightSet, ...]
    found: tuple[Part, ...]

    def all(self, kind: Kind) -> tuple[Part, ...]:
        """Every part of that kind."""
        return tuple(part for part in self.found if part.kind == kind)

    def one(self, kind: Kind) -> Part | None:
        """The part of that kind; None where there is none, or where several differ (see `diagnostics`)."""
        parts = self._nearest(kind)
        return parts[0] if parts and all(_equal(part.value, parts[0].value) for part in parts) else None

    @property
    def metrics(self) -> dict[str, float]:
        """Loss and other numbers by name, where they are plain numbers."""
        numbers = (*self.all("loss"), *self.all("metric"))
        return {part.name: part.value for part in numbers if isinstance(part.value, (int, float))}

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """One for each kind of which several differ and only one can be meant: optimizers may be several."""
        found = []
        for kind in ("scaler", "epoch", "step"):
            if self.one(kind) is None and self.all(kind):
                evidence = tuple((part.place, _brief(part.value)) for part in self._nearest(kind))
                places = ", ".join(f"`{place}`" for place, _ in evidence)
                found.append(Diagnostic("ambiguous-part", f"the {kind} could be any of {places}", evidence))
        return tuple(found)

    def lines(self) -> list[str]:
        """A line for each part: what it is, where it stands, what it was known by."""
        rows = [("weights", each.name or "the whole file", f"{len(each.tensors):,} tensors") for each in self.weights]
        for part in self.found:
            said = _brief(part.value) if part.kind in _NUMBERS else part.how
            if part.kind == "epoch":
                said += ", as the file has it: it may be the last one done, or the next"
            rows.append((part.kind, part.place, said))
        widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
        return [f"{kind:<{widths[0]}}  {place:<{widths[1]}}  {said}" for kind, place, said in rows]

    def _nearest(self, kind: Kind) -> list[Part]:
        """Those nearest to the root: a file's own `epoch` comes before the one that its scheduler counts."""
        parts = self.all(kind)
        depth = min((len(part.path) for part in parts), default=0)
        return [part for part in parts if len(part.path) == depth]


def find_parts(tree: Value, sets: Sequence[WeightSet] | None = None) -> Parts:
    """The parts of a checkpoint's tree; `sets` are its sets of weights, where they are known (`Checkpoint.sets`)."""
    weights = tuple(find_weight_sets(tree, None) if sets is None else sets)
    inside = {each.name for each in weights if each.name}
    return Parts(weights, tuple(_search((), tree, inside, 0)))


def _search(path: Path, value: Value, weights: set[str], depth: int) -> Iterator[Part]:
    found = _by_form(path, value)
    if found is not None:
        yield found
        return
    if ".".join(map(str, path)) in weights or depth == _DEPTH:
        return
    key = str(path[-1]).lower() if path else ""
    for kind, is_one in _BY_NAME:
        if key and is_one(value) and _NAMES[kind].fullmatch(key) and (depth == 1 or _is_inner(path)):
            if kind in ("scheduler", "scaler") and any(_by_form(path, child) for _, child in _children(value)):
                continue  # several of them, in a list or by name
            yield Part(kind, path, value, "its name")
            return
    for name, child in _children(value):
        yield from _search((*path, name), child, weights, depth + 1)


def _by_form(path: Path, value: Value) -> Part | None:
    if is_optimizer_state(value):
        return Part("optimizer", path, value, "`state` and `param_groups`")
    if isinstance(value, Opaque) and is_optimizer_state(value.state):
        return Part("optimizer", path, value, f"a whole {value.class_name}, of which names cannot be told")
    if isinstance(value, dict):
        for kind, every, some in _FORMS:
            if every <= value.keys() and not some.isdisjoint(value.keys()):
                return Part(kind, path, value, " and ".join(f"`{key}`" for key in sorted(every)))
    return None


def _is_number(value: Value) -> bool:
    if isinstance(value, TensorInfo):
        return value.elements == 1
    if isinstance(value, Opaque):  # a number of numpy
        return "numpy" in value.class_name
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_BY_NAME: tuple[tuple[Kind, Callable[[Value], bool]], ...] = (
    ("scheduler", lambda value: isinstance(value, dict) and bool(value)),
    ("scaler", lambda value: isinstance(value, dict) and bool(value)),
    ("rng", lambda value: value is not None and not _is_number(value)),
    *((kind, _is_number) for kind in _NUMBERS),
)


def _is_inner(path: Path) -> bool:
    return len(path) == 2 and isinstance(path[0], str) and bool(_INNER.fullmatch(path[0].lower()))


def _children(value: Value) -> Iterator[tuple[Any, Value]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)) and len(value) <= 64:
        yield from enumerate(value)


def _equal(one: Value, other: Value) -> bool:
    return one is other or (not isinstance(one, TensorInfo) and type(one) is type(other) and bool(one == other))


def _brief(value: Value) -> str:
    if isinstance(value, (int, float)):
        return f"{value:.6g}" if isinstance(value, float) else f"{value:,}"
    return "a number in a tensor" if isinstance(value, TensorInfo) else type(value).__name__
