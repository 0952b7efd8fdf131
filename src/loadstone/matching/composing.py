"""Composing: a tensor of the model made of tensors of the checkpoint: reshaped, turned, cut or joined.

What the engine says as steps becomes a function over keys of the checkpoint, and the words a plan has for it.  The
function uses methods that every tensor has, so that this floor needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadstone.dtypes import DTYPES
from loadstone.matching.candidates import Candidate, shape_text
from loadstone.matching.casts import cast_between
from loadstone.matching.migration import Compute, Read
from loadstone.matching.schema import Slot
from loadstone.matching.settle import Computed
from loadstone.matching.step_shapes import carried_out
from loadstone.matching.structure.arithmetic import WORDS
from loadstone.matching.structure.items import Assignment
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup


def is_plain(assignment: Assignment) -> bool:
    """One tensor, as it is."""
    return (
        len(assignment.sources) == 1
        and not (assignment.sources[0].steps or assignment.steps)
        and assignment.made_by is None
    )


def composed(assignment: Assignment, named: Mapping[str, Candidate], slot: Slot) -> Computed | None:
    """The tensor that goes to the slot; None where its parts have no values, or no dtype that holds them all.

    Args:
        named: candidates by the names that the assignment has for them.
    """
    members = [named[taken.key] for taken in assignment.sources]
    dtypes = list(dict.fromkeys(member.info.dtype for member in members))
    dtype = max(dtypes, key=lambda name: DTYPES[name].bits)
    if any(cast_between(each, dtype).effect not in ("none", "exact") for each in dtypes):
        return None
    if any(member.info.is_meta and member.info.elements for member in members):
        return None
    function = _function(assignment, {name: candidate.key for name, candidate in named.items()}, dtype, dtypes)
    op = "compose" if assignment.made_by is None else "compute"
    return Computed(function, dtype, slot.shape, op, _text(assignment, members, slot), assignment.evidence)


def _function(assignment: Assignment, keys: Mapping[str, str], dtype: str, dtypes: list[str]) -> Compute:
    sources = [(keys[taken.key], taken.steps) for taken in assignment.sources]
    steps = assignment.steps

    def compute(read: Read) -> Any:
        parts = [carried_out(read(key), before) for key, before in sources]
        if len(dtypes) > 1:  # the widest comes first, because it gives the memory its dtype
            widest = next(part for part in parts if str(part.dtype).endswith(dtype))
        else:
            widest = parts[0]
        if assignment.made_by is not None:
            return carried_out(assignment.made_by(parts).to(widest.dtype), steps)
        return carried_out(parts[0] if len(parts) == 1 else _joined(parts, widest), steps)

    return compute


def _joined(parts: list[Any], widest: Any) -> Any:
    """The parts one behind the other along the first axis, in new memory."""
    whole = widest.new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]))
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _text(assignment: Assignment, members: list[Candidate], slot: Slot) -> str:
    """What happens to the values, in words."""
    shapes = [member.info.shape for member in members]
    steps = [step for taken in assignment.sources for step in taken.steps] + list(assignment.steps)
    words = []
    if assignment.made_by is not None:
        eps = "" if assignment.made_by.eps is None else f", eps {assignment.made_by.eps:g}"
        return f"{WORDS[assignment.made_by.name]}{eps}: {', '.join(map(shape_text, shapes))} → {shape_text(slot.shape)}"
    if any(isinstance(step, Permute) for step in steps):
        words.append("transposed")
    if any(isinstance(step, (Regroup, Blocks)) for step in steps):
        words.append("reordered")
    if len(shapes) > 1:
        words.append(f"{len(shapes)} tensors joined")
    elif any(isinstance(step, Narrow) for step in steps):
        words.append("a part of it")
    have = " + ".join(map(shape_text, shapes if len(shapes) <= 3 else dict.fromkeys(shapes)))
    return f"{' and '.join(words) or 'reshaped'}: {have} → {shape_text(slot.shape)}"
