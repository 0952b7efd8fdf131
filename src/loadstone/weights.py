"""Which part of a file is the model's weights.

Checkpoints wrap the state dict in all manner of ways: under `state_dict`, `model`, `net` …, two levels deep, as a whole
module, inside an EMA object, as a list of (name, tensor) pairs, next to the optimizer's tensors.  `find_weight_sets`
lists every part that could be meant; `choose` takes one, and says so where that is a decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from loadstone.errors import Diagnostic, Fix, FormatError
from loadstone.tensors import TensorInfo
from loadstone.tree import children, every_tensor, join
from loadstone.values import AnnotatedDict, Opaque, SavedModule, Value

# What a training script calls the weights, the likeliest first.  Collected from the checkpoints of torchvision, timm,
# Lightning, mmengine, DeepSpeed, BasicSR, ultralytics, Megatron, the PyTorch tutorials and the files of weights.md.
_USUAL = (
    "state_dict", "model_state_dict", "model", "model_state", "net", "network", "module", "params", "weights",
    "net_state_dict", "network_state_dict", "model_weights", "parameters", "generator", "backbone", "encoder",
)  # fmt: skip
_AVERAGED = re.compile(r"(^|[._-])(ema|swa|avg|averaged?|shadow|polyak|teacher|momentum_encoder|target)([._-]|$)|ema$")
_NOT_A_MODEL = re.compile(
    r"(^|_)(optim|optimizers?|optimizer_states?|opt|scheduler|lr_schedulers?|scaler|amp|rng|random|loops|callbacks|"
    r"hyper_parameters|hparams|args|config|cfg|metrics?|loss|history|criterion|sampler)(_|$)"
)
_SEARCH_DEPTH = 6  # containers around the weights; the deepest seen in the wild is 3


@dataclass(frozen=True, slots=True)
class WeightSet:
    """One part of a file that can be loaded into a model.

    Attributes:
        name: its dotted place in the file, "" for the whole file.
        tensors: by the keys that the model would use.
        modules: class names by dotted path, where the file holds a whole module.
        metadata: layer versions by dotted path, `state_dict()._metadata`.
        skipped: entries that are no tensors, by key: what they are.
        is_averaged: a moving average of weights (EMA, SWA, a teacher), by its name.
    """

    name: str
    tensors: Mapping[str, TensorInfo]
    modules: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    is_averaged: bool = False

    @property
    def elements(self) -> int:
        """Number of elements of all its tensors."""
        return sum(info.elements for info in self.tensors.values())


def find_weight_sets(tree: Value, defined: tuple[str, ...] | None) -> list[WeightSet]:
    """Every part of the tree that looks like a state dict, in the order of the file.

    `defined` is the place that the format itself gives to the weights; then that is the only set.
    """
    if defined is not None:
        for name in defined:
            tree = tree[name]
        return [_as_set(".".join(defined), tree)]
    sets: list[WeightSet] = []
    _search("", tree, sets, _SEARCH_DEPTH)
    if len(sets) > 1 and not any(_usual_rank(weight_set.name) is not None for weight_set in sets):
        # encoder and decoder side by side can be two models or the two halves of one: the whole is offered too
        whole = _as_set("", tree, only={weight_set.name for weight_set in sets})
        sets = [whole] if all(map(_is_layer, sets)) else [whole, *sets]
    return [weight_set for weight_set in sets if weight_set.tensors]


def choose(sets: list[WeightSet], name: str | None, file: str) -> tuple[WeightSet, tuple[Diagnostic, ...]]:
    """The set called `name`, or without a name the one that is meant, and what should be said about the choice.

    Raises FormatError where there is none, or none of that name.
    """
    if name is not None:
        for weight_set in sets:
            if weight_set.name == name:
                return weight_set, ()
        listed = tuple(("has", _named(weight_set)) for weight_set in sets)
        raise FormatError(Diagnostic("unknown-weights", f"`{file}` has no weights called `{name}`", listed))
    if not sets:
        raise FormatError(
            Diagnostic(
                "no-weights",
                f"no model weights were found in `{file}`",
                fixes=(Fix("look at what is in it", f"loadstone inspect {file}"),),
            )
        )
    chosen = min(enumerate(sets), key=lambda item: _preference(item[1], item[0]))[1]
    others = [other for other in sets if other is not chosen and not _is_inside(other, chosen)]
    least = chosen.elements / 10
    rivals = [other for other in others if other.elements >= least]
    if not rivals:
        return chosen, ()
    return chosen, (
        Diagnostic(
            "several-models",
            f"`{file}` holds {len(rivals) + 1} sets of weights; `{chosen.name or 'all of it'}` is used",
            evidence=tuple(("used" if one is chosen else "not used", _named(one)) for one in [chosen, *rivals]),
            fixes=tuple(Fix(f"use `{other.name}` instead", f'weights="{other.name}"') for other in rivals),
        ),
    )


def _search(name: str, value: Value, sets: list[WeightSet], depth: int) -> None:
    if isinstance(value, SavedModule) or _is_pairs(value):
        sets.append(_as_set(name, value))
        return
    if isinstance(value, (list, tuple)):
        # [epoch, model.state_dict(), …]; what is no whole model stands in lists for other reasons
        sets += [_as_set(join(name, place), each) for place, each in children(value) if _is_whole_model(each)]
        return
    if depth == 0 or not isinstance(value, (dict, Opaque)) or _is_optimizer(value):
        return
    if isinstance(value, dict) and _is_state_dict(value):
        sets.append(_as_set(name, value))
        return
    for child_name, child in children(value):
        last = child_name.rpartition(".")[2]
        if _NOT_A_MODEL.search(last) and not _AVERAGED.search(last):
            continue
        _search(join(name, child_name), child, sets, depth - 1)


def _is_optimizer(value: Value) -> bool:
    """An optimizer, or its state dict, whatever its name."""
    attributes = value.state if isinstance(value, Opaque) else value
    return isinstance(attributes, dict) and "param_groups" in attributes and "state" in attributes


def _is_whole_model(value: Value) -> bool:
    """A module, or the state dict of one that has more than a layer."""
    if isinstance(value, SavedModule):
        return True
    return isinstance(value, dict) and _is_state_dict(value) and not _is_layer(_as_set("", value))


def _is_state_dict(value: Mapping[Value, Value]) -> bool:
    """Text keys, tensors for most values; extra state and a few numbers may stand between them."""
    if not value or not all(isinstance(key, str) for key in value):
        return False
    tensors = sum(isinstance(child, TensorInfo) for child in value.values())
    if isinstance(value, AnnotatedDict) and "_metadata" in value.attributes:
        return tensors > 0
    containers = sum(isinstance(child, (dict, Opaque)) and bool(children(child)) for child in value.values())
    return tensors > 0 and tensors * 2 >= len(value) and tensors > containers


def _is_pairs(value: Value) -> bool:
    """A list of (name, tensor) pairs, as `list(model.named_parameters())` gives."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], TensorInfo)
            for pair in value
        )
    )


def _is_layer(weight_set: WeightSet) -> bool:
    """A dict of `weight` and `bias` alone: one layer of a state dict that is kept as nested dicts.

    What `state_dict()` itself made has metadata, and is a model however small.
    """
    return not weight_set.metadata and not any("." in key for key in weight_set.tensors)


def _as_set(name: str, value: Value, only: set[str] | None = None) -> WeightSet:
    is_averaged = bool(_AVERAGED.search(name.lower()))
    if isinstance(value, SavedModule):
        return WeightSet(
            name,
            {key: info.with_key(key) for key, info in value.state_dict.items()},
            value.modules, value.metadata, value.skipped, is_averaged,
        )  # fmt: skip
    if _is_pairs(value):
        return WeightSet(name, {key: info.with_key(key) for key, info in value}, is_averaged=is_averaged)
    tensors = every_tensor(value)
    if only is not None:
        longest = max(map(len, only), default=0)
        tensors = {key: info for key, info in tensors.items() if not only.isdisjoint(_places(key, longest))}
    metadata = value.attributes.get("_metadata", {}) if isinstance(value, AnnotatedDict) else {}
    skipped = {}
    if isinstance(value, dict) and only is None:
        skipped = {
            str(key): child.class_name if isinstance(child, Opaque) else type(child).__name__
            for key, child in value.items()
            if not isinstance(child, (TensorInfo, dict))
        }
    return WeightSet(
        name, tensors, metadata=metadata if isinstance(metadata, dict) else {}, skipped=skipped, is_averaged=is_averaged
    )


def _preference(weight_set: WeightSet, position: int) -> tuple[bool, int, int]:
    """Raw before averaged, the usual names first, then the order of the file."""
    rank = _usual_rank(weight_set.name)
    return weight_set.is_averaged, len(_USUAL) if rank is None else rank, position


def _usual_rank(name: str) -> int | None:
    """How usual the name is, 0 the most; any of its words counts (`model.state_dict`, `state_dict.model`)."""
    if name == "":
        return 0
    words = name.lower().split(".")
    ranks = [_USUAL.index(word) for word in words if word in _USUAL[:-3]]
    return min(ranks) if ranks else None


def _is_inside(inner: WeightSet, outer: WeightSet) -> bool:
    return _is_under(inner.name, outer.name) and outer.name != ""


def _is_under(key: str, place: str) -> bool:
    return place == "" or key == place or key.startswith(place + ".")


def _places(key: str, longest: int) -> Iterator[str]:
    """The key and what it is under, "a.b.c", "a.b", "a" and the whole, as far as they have `longest` characters."""
    end = len(key) if len(key) <= longest else key.rfind(".", 0, longest + 1)
    while end > 0:
        yield key[:end]
        end = key.rfind(".", 0, end)
    yield ""


def _named(weight_set: WeightSet) -> str:
    kind = ", an average" if weight_set.is_averaged else ""
    name = weight_set.name or "(all of it)"
    return f"{name}   {len(weight_set.tensors):,} tensors, {weight_set.elements:,} elements{kind}"
