"""Alternatives: what else may answer a question, where none of its options is right, the likeliest first.

A question about the order inside a layer offers "as it is".  The other orders that code bases use are few, and written
as expressions, see matching.structure.expressions:

    gates     stacked in another order: i, f, o, g for i, f, g, o
    heads     q, k and v stacked head by head, or part by part
    rotary    positions turn halves, or neighbours
    flatten   rows and columns counted before channels, or behind them
    order     the same parts joined in another order

Which size a head has stands in no state dict.  Numbers that modules call by that name are tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations
from typing import TypeAlias

from torch import nn

from loadstone.keys import parent
from loadstone.matching.plan import Plan
from loadstone.matching.structure.items import Kind, Question

Shape: TypeAlias = tuple[int, ...]

_GATES = {  # how many → the orders that are in use, as places in torch's: TensorFlow's, ONNX's, Keras', flax's …
    4: ((0, 1, 3, 2), (0, 2, 1, 3), (0, 3, 1, 2), (0, 2, 3, 1), (1, 0, 2, 3), (1, 0, 3, 2), (2, 0, 1, 3), (3, 0, 1, 2)),
    3: ((1, 0, 2),),
}
_HEADS = (64, 128, 32, 80, 96, 16, 48, 40, 256, 8, 4, 2)  # sizes, the commonest first
_MOST_PARTS = 4


def alternatives(question: Question, option: str, plan: Plan, models: Iterable[nn.Module | None]) -> Iterator[str]:
    """Other answers than this option of a question, as expressions over its keys.

    Args:
        plan: the one that asks.
        models: where to look for the sizes of heads.
    """
    family = _FAMILIES.get(question.kind)
    keys = option.split(" + ")
    if family is None or not all(key in plan.sources for key in keys):
        return
    shapes = [plan.sources[key].shape for key in keys]
    if any(len(shape) == 0 for shape in shapes):
        return
    target = plan.schema.slots[question.target].shape
    sizes = _sizes(models)
    seen = {option}
    for answer in family(keys, shapes, target, _Around(plan, question.target, keys[0], sizes)):
        if answer not in seen:
            seen.add(answer)
            yield answer


class _Around:
    """What lies around a question: numbers that are called heads, and how many gates there are."""

    def __init__(self, plan: Plan, target: str, source: str, named: Mapping[str, set[int]]) -> None:
        self._plan, self._target, self._source, self._named = plan, target, source, named

    def heads(self, rows: int) -> list[int]:
        """Sizes that a head may have among so many rows."""
        counted = {rows // each for each in self._named["count"] if rows % each == 0}
        said = sorted(each for each in self._named["size"] | counted if rows % each == 0)
        others = [each for each in _HEADS if rows % each == 0 and each < rows]
        return list(dict.fromkeys([*said, *others]))

    def gates(self) -> Iterator[int]:
        """How many gates are stacked: rows of a recurrent matrix per column."""
        beside = [slot.shape for key, slot in self._plan.schema.slots.items() if parent(key) == parent(self._target)]
        beside += [info.shape for info in self._plan.sources.values()]
        ratios = [shape[0] // shape[1] for shape in beside if len(shape) == 2 and shape[1] and shape[0] % shape[1] == 0]
        yield from sorted(_GATES, key=lambda count: -ratios.count(count))


Family: TypeAlias = Callable[[list[str], list[Shape], Shape, _Around], Iterator[str]]


def _gates(keys: list[str], shapes: list[Shape], target: Shape, around: _Around) -> Iterator[str]:
    whole, rows = " + ".join(keys), sum(shape[0] for shape in shapes)
    for count in around.gates():
        if rows % count == 0:
            others = (order for order in permutations(range(count)) if order not in _GATES[count])
            for order in (*_GATES[count], *others):
                if order != tuple(range(count)):
                    yield f"{whole} | blocks(0; {', '.join(map(str, order))})"


def _heads(keys: list[str], shapes: list[Shape], target: Shape, around: _Around) -> Iterator[str]:
    whole, rows = " + ".join(keys), sum(shape[0] for shape in shapes)
    if rows % 3 == 0:
        for size in around.heads(rows // 3):
            yield f"{whole} | regroup(0; -1, 3, {size}; 1, 0, 2)"
            yield f"{whole} | regroup(0; 3, -1, {size}; 1, 0, 2)"


def _rotary(keys: list[str], shapes: list[Shape], target: Shape, around: _Around) -> Iterator[str]:
    """q and k are turned, and v beside them is not."""
    rows = shapes[0][0]
    is_joined = len(keys) == 1 and len(shapes[0]) == 2 and rows == 3 * shapes[0][1]
    for size in around.heads(rows // 3 if is_joined else rows):
        if size % 2:
            continue
        for step in (f"regroup(0; -1, 2, {size // 2}; 0, 2, 1)", f"regroup(0; -1, {size // 2}, 2; 0, 2, 1)"):
            if is_joined:
                turned = (f"({keys[0]} | chunk({part}, 3) | {step})" for part in (0, 1))
                yield " + ".join((*turned, f"({keys[0]} | chunk(2, 3))"))
            elif len(keys) == 1:
                yield f"{keys[0]} | {step}"
            else:
                turned = (f"({key} | {step})" for key in keys[:2])
                yield " + ".join((*turned, *keys[2:]))


def _flatten(keys: list[str], shapes: list[Shape], target: Shape, around: _Around) -> Iterator[str]:
    """The convolution's shape says how many channels, rows and columns there are."""
    (key, shape) = keys[0], shapes[0]
    if len(keys) == 1 and len(target) == 4 and len(shape) == 2:
        channels, rows, columns = target[1:]
        yield f"{key} | regroup(1; {rows}, {columns}, {channels}; 2, 0, 1)"
        yield f"{key} | regroup(1; {columns}, {rows}, {channels}; 2, 1, 0)"
        yield f"{key} | regroup(1; {channels}, {columns}, {rows}; 0, 2, 1)"
    elif len(keys) == 1 and len(shape) == 4 and len(target) == 2:
        flat = f"{key} | reshape({shape[0]}, {shape[1] * shape[2] * shape[3]})"
        channels, rows, columns = shape[1:]
        for order in ("1, 2, 0", "2, 1, 0", "0, 2, 1"):
            yield f"{flat} | regroup(1; {channels}, {rows}, {columns}; {order})"


def _order(keys: list[str], shapes: list[Shape], target: Shape, around: _Around) -> Iterator[str]:
    if 1 < len(keys) <= _MOST_PARTS:
        for parts in permutations(keys):
            yield " + ".join(parts)
    elif len(keys) == 1:
        for count in (2, 3):
            if shapes[0][0] % count == 0:
                for order in permutations(range(count)):
                    if order != tuple(range(count)):
                        yield f"{keys[0]} | blocks(0; {', '.join(map(str, order))})"


_FAMILIES: Mapping[Kind, Family] = {
    "gates": _gates,
    "heads": _heads,
    "rotary": _rotary,
    "flatten": _flatten,
    "order": _order,
}


def _sizes(models: Iterable[nn.Module | None]) -> dict[str, set[int]]:
    """Numbers that modules, or their configurations, call heads: how many there are, or how large one is."""
    found: dict[str, set[int]] = {"count": set(), "size": set()}
    for model in models:
        if model is None:
            continue
        held = [*model.modules(), *(config for config in [getattr(model, "config", None)] if config is not None)]
        for each in held:
            for name, value in vars(each).items():
                if "head" in name and type(value) is int and 0 < value < 10_000:
                    found["size" if "dim" in name or "size" in name else "count"].add(value)
    return found
