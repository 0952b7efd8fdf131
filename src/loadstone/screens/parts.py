"""What is in a file besides the weights that were chosen: optimizer state, other sets of weights, plain values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from loadstone.screens import quantities
from loadstone.screens.brief import brief
from loadstone.tensors import TensorInfo
from loadstone.tree import children, join
from loadstone.values import Opaque, SavedModule, Value

_BRIEF_WIDTH = 200  # cells of a value before the screen cuts it
_MOST_PARTS = 10_000  # of one container; no training checkpoint has more


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of the file beside the weights.  `tensors` and `nbytes` are those inside it."""

    name: str
    text: str
    tensors: int = 0
    nbytes: int = 0


def other_parts(
    tree: Value, chosen: str | None, sets: Mapping[str, bool], tensors: Mapping[str, TensorInfo]
) -> list[Part]:
    """Everything outside the chosen set (None: no set was found), in the order of the file.

    `sets` are the names of all sets of weights, and whether each is an average; `tensors` is `Checkpoint.tensors`.
    """
    places = dict(_places(tree, "", chosen, sets))
    totals = _totals(places, tensors)
    return [Part(name, _described(name, value, sets, totals[name][0]), *totals[name]) for name, value in places.items()]


def _places(value: Value, prefix: str, chosen: str | None, sets: Collection[str]) -> Iterator[tuple[str, Value]]:
    """The largest parts of the tree that do not contain the chosen set, by dotted place."""
    inside = [] if isinstance(value, SavedModule) else children(value)
    for name, child in inside[:_MOST_PARTS]:
        place = join(prefix, name)
        if place == chosen or (chosen == "" and (isinstance(child, TensorInfo) or place in sets)):
            continue
        if chosen is None and isinstance(child, TensorInfo):
            continue
        if chosen and chosen.startswith(place + "."):
            yield from _places(child, place, chosen, sets)
        else:
            yield place, child


def _totals(places: Collection[str], tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, int]]:
    """Tensors and bytes below each place, in one pass over the keys."""
    totals = dict.fromkeys(places, (0, 0))
    longest = max(map(len, places), default=0)  # a key may be megabytes of dots
    for key, info in tensors.items():
        end = len(key) if len(key) <= longest else key.rfind(".", 0, longest + 1)
        while end >= 0:
            if key[:end] in totals:
                count, nbytes = totals[key[:end]]
                totals[key[:end]] = count + 1, nbytes + info.nbytes
                break
            end = key.rfind(".", 0, end)
    return totals


def _described(name: str, value: Value, sets: Mapping[str, bool], tensors: int) -> str:
    inside = [other for other in sets if other == name or other.startswith(name + ".")]
    if inside:
        average = "a moving average of weights" if sets[inside[0]] else "another set of weights"
        return f"{average}: --weights {inside[0]}"
    if isinstance(value, dict) and "param_groups" in value and "state" in value:
        return _optimizer(value)
    if tensors and isinstance(value, Opaque):
        return value.class_name
    return "" if tensors else brief(value, _BRIEF_WIDTH)


def _optimizer(value: Mapping[Value, Value]) -> str:
    state, groups = value["state"], value["param_groups"]
    text = "optimizer"
    if isinstance(state, dict):
        text += f" of {quantities.counted(len(state), 'parameter')}"
    first = groups[0] if isinstance(groups, list) and groups else None
    if isinstance(first, dict) and isinstance(first.get("lr"), (int, float)):
        text += f", lr {brief(first['lr'], 20)}"
    return text
