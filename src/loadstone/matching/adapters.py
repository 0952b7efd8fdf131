"""Adapters: what a person can say in `adapt={glob: how}` about a tensor of another shape, as plain values.

A word of ADAPTERS, a function of their own, or one of the two adapters that take arguments: `classes` and
`interpolate`.  What a word means for two shapes is worked out in reshaping, from headers alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from loadstone.errors import Diagnostic, Fix, RecipeError
from loadstone.keys import nearest

ADAPTERS = ("fresh", "slice", "pad", "channels", "interpolate", "vocabulary", "cast")
Label: TypeAlias = str | int
Grid: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Classes:
    """Rows are classes, and these are their labels, in the order of the rows; see `classes`."""

    old: tuple[Label, ...]
    new: tuple[Label, ...]

    @property
    def both(self) -> list[tuple[int, int]]:
        """(old row, new row) of every label that stands on both sides, in the new order."""
        rows = {label: row for row, label in enumerate(self.old)}
        return [(rows[label], row) for row, label in enumerate(self.new) if label in rows]


@dataclass(frozen=True, slots=True)
class Interpolate:
    """What is known about a grid of positions; None where it is to be derived from the shapes; see `interpolate`."""

    prefix_tokens: int | None = None
    old_grid: Grid | None = None
    new_grid: Grid | None = None


Adapter: TypeAlias = str | Classes | Interpolate | Callable[..., Any]  # a callable: (tensor, target_shape) -> tensor


def classes(old_labels: Iterable[Label], new_labels: Iterable[Label]) -> Classes:
    """An adapter that keeps what was learned about classes which both label lists have; order does not matter.

    Rows of other classes keep the values that the model has.  `adapt={"fc": classes(old, new)}` does so for weight and
    bias alike.

    Args:
        old_labels: one label for each row in the checkpoint, in its order: text or whole numbers.
        new_labels: one label for each row in the model, in its order.

    Raises RecipeError (invalid-option) for labels that stand twice, for empty lists and for lists with no label in
    common.
    """
    made = Classes(_labels("old_labels", old_labels), _labels("new_labels", new_labels))
    if not made.both:
        fix = Fix("keep the fresh layer", 'fresh=["HEAD"]')
        raise _invalid(f"`classes`: none of the {len(made.new)} new labels is among the {len(made.old)} old ones", fix)
    return made


def interpolate(
    *, prefix_tokens: int | None = None, old_grid: Sequence[int] | None = None, new_grid: Sequence[int] | None = None
) -> Interpolate:
    """An adapter that resizes a grid of positions, where the two shapes alone do not tell the grid.

    Args:
        prefix_tokens: class, distillation and register tokens before the grid, which are kept as they are.
        old_grid, new_grid: (height, width) in patches; for tables of relative positions, of the window.

    Raises RecipeError (invalid-option) for a number that cannot be one.
    """
    if prefix_tokens is not None and not (_is_whole(prefix_tokens) and prefix_tokens >= 0):
        raise _invalid(f"`prefix_tokens` is {prefix_tokens!r:.40}, it takes a whole number from 0 on")
    return Interpolate(prefix_tokens, _grid("old_grid", old_grid), _grid("new_grid", new_grid))


def check_adapters(adapt: Mapping[str, object]) -> None:
    """Raises RecipeError (invalid-option) for an adapter that is neither a known word nor anything that adapts."""
    for pattern, adapter in adapt.items():
        if callable(adapter) or isinstance(adapter, (Classes, Interpolate)):
            continue
        if isinstance(adapter, str) and adapter in ADAPTERS:
            continue
        near = nearest(adapter, ADAPTERS, 1) if isinstance(adapter, str) else []
        raise _invalid(
            f"`adapt` for `{pattern}` is {adapter!r:.80}, it takes {', '.join(ADAPTERS)}, loadstone.classes(…), "
            "loadstone.interpolate(…) or a callable (tensor, target_shape) -> tensor",
            *(Fix("did you mean", name) for name in near),
        )


def adapter_table(adapter: Classes | Interpolate) -> dict[str, dict[str, object]]:
    """The adapter as a recipe has it: its name, and its arguments by name where they were given."""
    arguments: dict[str, object] = {}
    for field in fields(adapter):
        value = getattr(adapter, field.name)
        if value is not None:
            arguments[field.name] = list(value) if isinstance(value, tuple) else value
    return {type(adapter).__name__.lower(): arguments}


def adapter_of(table: Mapping[str, Any]) -> Classes | Interpolate:
    """The adapter of `adapter_table`.  Raises RecipeError (invalid-option) where the table is none."""
    name, arguments = next(iter(table.items()), ("", None))
    if len(table) == 1 and isinstance(arguments, Mapping):
        if name == "classes" and arguments.keys() == {"old", "new"}:
            return classes(arguments["old"], arguments["new"])
        if name == "interpolate" and arguments.keys() <= {field.name for field in fields(Interpolate)}:
            return interpolate(**arguments)
    raise _invalid(
        f"{dict(table)!r:.80} is no adapter; it takes {{classes = {{old = [...], new = [...]}}}} or "
        "{interpolate = {prefix_tokens = 1, old_grid = [14, 14], new_grid = [16, 16]}}"
    )


def _labels(name: str, labels: object) -> tuple[Label, ...]:
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise _invalid(f"`{name}` is {labels!r:.40}, it takes a list of labels")
    found = tuple(labels)
    if not found:
        raise _invalid(f"`{name}` is empty")
    for label in found:
        if not (isinstance(label, str) or _is_whole(label)):
            raise _invalid(f"`{name}` holds {label!r:.40}, a label is text or a whole number")
    twice = [label for label, count in Counter(found).items() if count > 1]
    if twice:
        rows = [row for row, label in enumerate(found) if label == twice[0]]
        raise _invalid(f"`{name}` has {twice[0]!r:.40} twice, in rows {rows[0]} and {rows[1]}")
    return found


def _grid(name: str, grid: object) -> Grid | None:
    if grid is None:
        return None
    if isinstance(grid, Sequence) and len(grid) == 2 and all(_is_whole(size) and size > 0 for size in grid):
        return (grid[0], grid[1])
    raise _invalid(f"`{name}` is {grid!r:.40}, it takes (height, width)")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _invalid(message: str, *fixes: Fix) -> RecipeError:
    return RecipeError(Diagnostic("invalid-option", message, fixes=fixes))
