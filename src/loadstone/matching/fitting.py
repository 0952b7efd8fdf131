"""How the values of one tensor get into one slot: adapters where shapes differ, then the cast."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from loadstone.dtypes import DTYPES
from loadstone.matching.adapters import Adapter, check_adapters
from loadstone.matching.candidates import Candidate, shape_text
from loadstone.matching.casts import Cast, cast_between
from loadstone.matching.options import Options
from loadstone.matching.plan import Op
from loadstone.matching.reshaping import change_for, is_same, says_order
from loadstone.matching.schema import Slot
from loadstone.matching.selection import Patterns


@dataclass(frozen=True, slots=True)
class Fit:
    """What it takes to put one tensor into one slot.

    Attributes:
        ops: what happens to the values.
        problem: "shape" or "dtype" where it cannot be done, "fresh" where the slot is to keep its own values.
        why: the reason, one clause.
        cast: the change of dtype.
    """

    ops: tuple[Op, ...] = ()
    problem: str = ""
    why: str = ""
    cast: Cast = Cast("none", "")  # noqa: RUF009  frozen


class Fitter:
    """Answers, slot by slot, under one set of options.  `unused` lists patterns that fit no slot, with their option."""

    def __init__(self, options: Options, keys: Collection[str]) -> None:
        check_adapters(options.adapt)
        self.options = options
        self._adapt = Patterns(options.adapt, keys)
        self._fresh = Patterns(options.fresh, keys)
        self.unused = [("fresh", pattern) for pattern in self._fresh.unused]
        self.unused += [("adapt", pattern) for pattern in self._adapt.unused]

    def fresh_pattern(self, key: str) -> str | None:
        """The pattern of `fresh` that says this slot keeps its values."""
        return self._fresh.first(key)

    def is_decided(self, key: str) -> bool:
        """A person said what happens to this slot: it keeps its values, or is adapted."""
        return self._fresh.first(key) is not None or self._adapt.first(key) is not None

    def is_adapted(self, key: str) -> bool:
        """A person said how this slot takes a tensor of another size."""
        pattern = self._adapt.first(key)
        return pattern is not None and self._fresh.first(key) is None and self.options.adapt[pattern] != "fresh"

    def fit(
        self, slot: Slot, candidate: Candidate, dtype: str | None = None, shape: tuple[int, ...] | None = None
    ) -> Fit:
        """What to do with the candidate; `dtype` and `shape` replace the file's where a hook changes them first."""
        info = candidate.info
        dtype, shape = dtype or info.dtype, info.shape if shape is None else shape
        pattern = self._adapt.first(slot.key)
        adapter = self.options.adapt[pattern] if pattern is not None else None
        shaped = _reshaped(slot, shape, dtype, adapter, pattern)
        if shaped.problem:
            return shaped
        if adapter is not None and callable(adapter) and shape != slot.shape:
            dtype = slot.dtype  # whatever the callable returns is cast when it is copied
        cast = cast_between(dtype, self._target_dtype(slot, dtype))
        if cast.effect == "none":
            return shaped
        if cast.effect == "breaks" and adapter != "cast":
            return replace(shaped, problem="dtype", why=cast.text, cast=cast)
        is_checked = cast.can_overflow and adapter != "cast"
        op = Op("cast", cast.text, is_checked=is_checked)
        why = f"cast as `adapt` says for `{pattern}`" if adapter == "cast" else shaped.why
        return Fit((*shaped.ops, op), why=why, cast=cast)

    def _target_dtype(self, slot: Slot, source: str) -> str:
        if self.options.dtype is not None and DTYPES[slot.dtype].kind == "float":
            return self.options.dtype
        return source if self.options.assign else slot.dtype


def _reshaped(slot: Slot, shape: tuple[int, ...], dtype: str, adapter: Adapter | None, pattern: str | None) -> Fit:
    if shape == slot.shape and not says_order(adapter):
        return Fit()
    if adapter is None or adapter == "cast":
        return Fit(problem="shape")
    why = f"`adapt` for `{pattern}`"
    if callable(adapter):
        name = getattr(adapter, "__name__", type(adapter).__name__)
        arrow = f"{shape_text(shape)} → {shape_text(slot.shape)}"
        return Fit((Op("call", f"{name}: {arrow}", function=adapter),), why=why)
    if adapter == "fresh":
        return Fit(problem="fresh", why=why)
    change = change_for(adapter, slot, shape, dtype)
    if isinstance(change, str):
        return Fit(problem="shape", why=change)
    if shape == slot.shape and is_same(change):
        return Fit(why=why)
    return Fit((Op(change.name, change.text, step=change.step),), why=why)
