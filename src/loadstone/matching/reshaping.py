"""Reshaping: what an adapter means for two shapes, as a Step and a line of words and numbers; nothing is read for it.

Each function takes what the checkpoint has and what the model wants, and returns the change, or a clause that says why
this adapter is none for these two.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadstone.dtypes import DTYPES
from loadstone.matching.adapters import Classes, Interpolate
from loadstone.matching.candidates import shape_text
from loadstone.matching.positions import resize_for, resize_text
from loadstone.matching.schema import Slot
from loadstone.matching.steps import Channels, Resize, Rows, Step

_MOST_NAMED = 4  # channels that are named one by one


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to the values: the name of the operation, in words and numbers, and as a Step where it is one."""

    name: str
    text: str
    step: Step | None = None


def change_for(adapter: str | Classes | Interpolate, slot: Slot, shape: tuple[int, ...], dtype: str) -> Change | str:
    """The change that brings a tensor of this shape and dtype into the slot; the reason where there is none.

    `adapter` is a word of ADAPTERS other than "fresh" and "cast", or an adapter with arguments.
    """
    if isinstance(adapter, Classes):
        return _classes(adapter, shape, slot.shape)
    if isinstance(adapter, Interpolate) or adapter == "interpolate":
        given = adapter if isinstance(adapter, Interpolate) else Interpolate()
        return _not_averaged("interpolate", dtype) or _interpolate(given, slot, shape)
    if adapter == "channels":
        return _not_averaged("channels", dtype) or _channels(slot, shape)
    if len(shape) != len(slot.shape):
        return f"`{adapter}` needs the same number of dimensions on both sides"
    if adapter == "vocabulary":
        return _vocabulary(shape, slot.shape)
    return _corner(adapter, shape, slot.shape)


def says_order(adapter: object) -> bool:
    """The adapter changes values between equal shapes too: it says which row or cell means what."""
    if isinstance(adapter, Interpolate):
        return adapter.old_grid is not None or adapter.new_grid is not None
    return isinstance(adapter, Classes)


def _corner(adapter: str, have: tuple[int, ...], want: tuple[int, ...]) -> Change | str:
    """`slice` and `pad`: the leading corner, of the one or of the other."""
    pairs = list(enumerate(zip(have, want, strict=True)))
    slices = adapter == "slice"
    wrong = [dim for dim, (old, new) in pairs if (old < new if slices else old > new)]
    if wrong:
        dims = ", ".join(f"dimension {dim}: {have[dim]} → {want[dim]}" for dim in wrong)
        return f"`{adapter}` cannot {'grow' if slices else 'shrink'} ({dims})"
    added = ", ".join(
        f"{new - old} {'rows' if dim == 0 else f'in dimension {dim}'}" for dim, (old, new) in pairs if old != new
    )
    did = "the leading corner" if slices else f"zeros added: {added}"
    return Change(adapter, f"{_arrow(have, want)}, {did}")


def _channels(slot: Slot, have: tuple[int, ...]) -> Change | str:
    want = slot.shape
    if slot.convolution in ("grouped", "transposed"):
        return f"`channels` would mix up the inputs of a {slot.convolution} convolution"
    if not 3 <= len(have) == len(want) <= 5:
        return "`channels` takes the weight of a convolution, which has 3 to 5 dimensions on both sides"
    others = [dim for dim in range(len(have)) if dim != 1 and have[dim] != want[dim]]
    if others or not (have[1] and want[1]):
        dims = ", ".join(f"dimension {dim}: {have[dim]} → {want[dim]}" for dim in others)
        return f"`channels` changes dimension 1 alone ({dims or 'which is empty'})"
    old, new = have[1], want[1]
    counts = f"{old} → {new} input channels"
    if new == 1:
        did = f"the sum of all {old}"
    elif new < old:
        did = f"added up, channel {_listed([f'{one} onto {one % new}' for one in range(new, old)])}"
    else:
        shared = {one: len(range(one, new, old)) for one in range(old)}
        parts = [f"channel {one} in {count}" for one, count in shared.items() if count > 1]
        did = f"split into equal parts: {_listed(parts)}"
    return Change("channels", f"{counts}, {did}; the sum over channels stays", Channels(old, new))


def _interpolate(given: Interpolate, slot: Slot, have: tuple[int, ...]) -> Change | str:
    resize = resize_for(given, slot.key, have, slot.shape)
    if isinstance(resize, str):
        return resize
    return Change("interpolate", f"{_arrow(have, slot.shape)}, {resize_text(resize)}", resize)


def _vocabulary(have: tuple[int, ...], want: tuple[int, ...]) -> Change | str:
    if not have or have[1:] != want[1:]:
        return "`vocabulary` changes the number of rows alone"
    if have[0] > want[0]:
        return f"`vocabulary` only adds rows, and {have[0]} → {want[0]} takes some away; `slice` keeps the first ones"
    own = want[0] - have[0]
    text = f"{have[0]} of {want[0]} rows from the file, {own} {_keep(own)} the model's own"
    return Change("vocabulary", text, Rows(((0, 0, have[0]),), own))


def _classes(adapter: Classes, have: tuple[int, ...], want: tuple[int, ...]) -> Change | str:
    if not have or have[1:] != want[1:]:
        return "`classes` takes tensors whose rows are the classes, alike in every other dimension"
    old, new = len(adapter.old), len(adapter.new)
    if (have[0], want[0]) != (old, new):
        hint = ", the two lists may be the wrong way round" if (have[0], want[0]) == (new, old) else ""
        return (
            f"`classes` has {old} old and {new} new labels, for {have[0]} rows in the checkpoint and "
            f"{want[0]} in the model{hint}"
        )
    both = adapter.both
    own, left = new - len(both), old - len(both)
    text = f"{len(both)} of {new} classes kept"
    text += f", {own} {_keep(own)} the model's own" if own else ""
    text += f", {left} of the file's left out" if left else ""
    return Change("classes", text, Rows(_runs(both), own))


def _runs(pairs: list[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Neighbouring rows that stay neighbours, as one."""
    runs: list[tuple[int, int, int]] = []
    for old, new in pairs:
        if runs and (old, new) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((old, new, 1))
    return tuple(runs)


def _not_averaged(name: str, dtype: str) -> str:
    if DTYPES[dtype].kind == "float" and not dtype.endswith("_x2"):  # two numbers in one element
        return ""
    return f"`{name}` averages values, which {dtype} does not allow; an index is the model's own to make: `fresh`"


def is_same(change: Change) -> bool:
    """The change leaves every value where it is: a grid of its own size, every class in its row."""
    if isinstance(change.step, Resize):
        return change.step.old == change.step.new
    return isinstance(change.step, Rows) and not change.step.own and all(old == new for old, new, _ in change.step.runs)


def _listed(parts: list[str]) -> str:
    more = [f"and {len(parts) - _MOST_NAMED} more"] if len(parts) > _MOST_NAMED else []
    return ", ".join((*parts[:_MOST_NAMED], *more))


def _keep(count: int) -> str:
    return "keeps" if count == 1 else "keep"


def _arrow(have: tuple[int, ...], want: tuple[int, ...]) -> str:
    return f"{shape_text(have)} → {shape_text(want)}"
