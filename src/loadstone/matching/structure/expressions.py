"""Expressions: what a tensor of the target is made of, as a line of text.

q.weight + k.weight + v.weight                                joined along the first axis
c_proj.weight | t()                                           followed by what is done, in torch's words
(k.weight | t()) + (v.weight | t())                           brackets where parts change before they are joined
cell.ih.weight | blocks(0; 0, 1, 3, 2)                        the third and fourth quarter of axis 0 change places
fold(conv.weight, bn.weight, bn.running_var; 1e-05)           computed, see arithmetic
query_key_value.weight | regroup(0; -1, 3, 16; 1, 0, 2)       axis 0 as a grid, which is turned
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeGuard

from loadstone.matching.structure.arithmetic import COUNTS, Name, Sum
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Shape, Step, after, beside

Shapes: TypeAlias = Mapping[str, Shape]

SPECIAL = re.compile(r"[{}()|+*\s\0]")  # in a key: it cannot be told from the expression around it
STEP = re.compile(r"(reshape|permute|t|rows|chunk|regroup|blocks)\(([-\d,; ]*)\)")
_SUM = re.compile(r"(scaled|spectral|lengths|fold|fold_bias|around)\(([^();]+)(; [\d.]+(?:e-?\d+)?)?\)")
_SUMS = "scaled(v, g), spectral(w, u, v), lengths(w), around(q, v), fold(w, γ, var; eps), fold_bias(…; eps)"
_STEP_WORDS = (
    "t(), permute(dims), reshape(sizes), chunk(index, parts), rows(start, length), regroup(axis; sizes; order) and "
    "blocks(axis; order)"
)


def expression(assignment: Assignment, shapes: Shapes) -> str:
    """The right side of a rule for one tensor."""
    made = assignment.made_by
    if made is not None:
        keys = ", ".join(taken.key for taken in assignment.sources)
        eps = "" if made.eps is None else f"; {made.eps:g}"
        form = made.after([shapes[taken.key] for taken in assignment.sources])
        return f"{made.name}({keys}{eps})" + _steps_text(assignment.steps, form)
    if len(assignment.sources) == 1:
        (taken,) = assignment.sources
        return taken.key + _steps_text((*taken.steps, *assignment.steps), shapes[taken.key])
    parts: list[str] = []
    whole: Shape = (0,)
    for taken in assignment.sources:
        text = _steps_text(taken.steps, shapes[taken.key])
        parts.append(f"({taken.key}{text})" if text else taken.key)
        whole = beside(whole, after(shapes[taken.key], taken.steps))
    return " + ".join(parts) + _steps_text(assignment.steps, whole)


def sources_of(text: str) -> list[str]:
    """The keys of the checkpoint that an expression takes."""
    whole = _split(text, " | ")[0]
    if (found := _SUM.fullmatch(whole)) is not None:
        return found[2].split(", ")
    parts = _split(whole, " + ")
    return [_split(_inner(part), " | ")[0] for part in parts]


def parse(text: str, target: str, shapes: Shapes) -> Assignment:
    """The assignment that an expression stands for; ValueError, in words, where it is none.

    Args:
        shapes: of the keys that it takes; of others, everything is taken to fit.
    """
    keys = text.split(" + ")
    if all(key in shapes for key in keys):  # whatever stands in a key
        return Assignment(target, tuple(map(Taken, keys)), (), "answer", f"`{text}`")
    whole, *steps = _split(text, " | ")
    if (found := _SUM.fullmatch(whole)) is not None:
        return _computed(found, steps, target, text, shapes)
    sources: list[Taken] = []
    joined: Shape | None = ()
    for part in _split(whole, " + "):
        key, *before = _split(_inner(part), " | ")
        if not key or SPECIAL.search(key):
            raise ValueError(f"`{key}` is no key of a checkpoint")
        done, shape = _steps(before, shapes.get(key))
        if shape is None or joined is None:
            joined = None
        else:
            joined = beside(joined, shape) if sources else shape
        sources.append(Taken(key, done))
    done, _ = _steps(steps, joined)
    return Assignment(target, tuple(sources), done, "answer", f"`{text}`")


def _computed(found: re.Match[str], steps: Sequence[str], target: str, text: str, shapes: Shapes) -> Assignment:
    name: Name = found[1]  # type: ignore[assignment]
    keys = found[2].split(", ")
    eps = float(found[3].removeprefix("; ")) if found[3] else None
    fits = len(keys) in COUNTS[name] and (eps is not None) is name.startswith("fold")
    if not fits or any(SPECIAL.search(key) for key in keys):
        raise ValueError(f"`{found[0]}` is none of {_SUMS}")
    made = Sum(name, eps)
    known = [shapes[key] for key in keys if key in shapes]
    done, _ = _steps(steps, made.after(known) if len(known) == len(keys) else None)
    return Assignment(target, tuple(map(Taken, keys)), done, "answer", f"`{text}`", made)


def with_keys(text: str, names: Mapping[str, str]) -> str:
    """The expression over other names of its keys."""
    keys = text.split(" + ")
    if all(key in names for key in keys):
        return " + ".join(names[key] for key in keys)
    whole, *steps = _split(text, " | ")
    if (found := _SUM.fullmatch(whole)) is not None:
        made = f"{found[1]}({', '.join(names.get(key, key) for key in found[2].split(', '))}{found[3] or ''})"
        return " | ".join((made, *steps))
    parts = []
    for part in _split(whole, " + "):
        key, *before = _split(_inner(part), " | ")
        done = " | ".join((names.get(key, key), *before))
        parts.append(f"({done})" if before and part.startswith("(") else done)
    return " | ".join((" + ".join(parts), *steps))


def _steps_text(steps: Iterable[Step], shape: Shape) -> str:
    """What is done to a tensor of that shape."""
    text = ""
    for step in steps:
        text += f" | {_step_text(step, shape)}"
        shape = after(shape, (step,))
    return text


def _step_text(step: Step, shape: Shape) -> str:
    match step:
        case Reshape(new):
            return f"reshape({_listed(new)})"
        case Permute((1, 0)):
            return "t()"
        case Permute(dims):
            return f"permute({_listed(dims)})"
        case Narrow(start, length) if start % length == shape[0] % length == 0:
            return f"chunk({start // length}, {shape[0] // length})"
        case Narrow(start, length):
            return f"rows({start}, {length})"
        case Regroup(axis, sizes, order):
            return f"regroup({axis}; {_listed(sizes)}; {_listed(order)})"
        case Blocks(axis, order):
            return f"blocks({axis}; {_listed(order)})"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _steps(texts: Iterable[str], shape: Shape | None) -> tuple[tuple[Step, ...], Shape | None]:
    """The steps, and the shape they give; ValueError for one that is none, or that cannot be done to that shape."""
    steps: list[Step] = []
    for text in texts:
        step = _step(text, shape)
        steps.append(step)
        try:
            shape = None if shape is None else after(shape, (step,))
        except ValueError as error:
            raise ValueError(f"`{text}` cannot be done: {error}") from None
    return tuple(steps), shape


def _step(text: str, shape: Shape | None) -> Step:
    found = STEP.fullmatch(text.strip())
    lists = [_numbers(part) for part in found[2].split(";")] if found else []
    match found[1] if found else "", lists:
        case "reshape", [sizes] if sizes is not None and min(sizes, default=1) >= 0:
            return Reshape(sizes)
        case "t", [()]:
            return Permute((1, 0))
        case "permute", [dims] if _is_order(dims):
            return Permute(dims)
        case "rows", [(start, length)] if start >= 0 and length > 0:
            return Narrow(start, length)
        case "chunk", [(index, parts)] if 0 <= index < parts:
            if shape is None:
                return Narrow(0, 1)
            if shape[:1] and shape[0] % parts == 0:
                return Narrow(index * (shape[0] // parts), shape[0] // parts)
            raise ValueError(f"`{text}` cannot be done to {' × '.join(map(str, shape)) or 'a scalar'}")
        case "regroup", [(axis,), sizes, order] if axis >= 0 and _is_grid(sizes) and _is_order(order, sizes):
            return Regroup(axis, sizes, order)
        case "blocks", [(axis,), order] if axis >= 0 and order and _is_order(order):
            return Blocks(axis, order)
    raise ValueError(f"`{text}` is no step; they are {_STEP_WORDS}")


def _numbers(text: str) -> tuple[int, ...] | None:
    """The numbers of a list; None where it is none."""
    texts = [each.strip() for each in text.split(",") if each.strip()]
    return tuple(map(int, texts)) if all(re.fullmatch(r"-?\d+", each) for each in texts) else None


def _is_order(order: tuple[int, ...] | None, of: Sequence[int] | None = None) -> TypeGuard[tuple[int, ...]]:
    return order is not None and sorted(order) == list(range(len(order if of is None else of)))


def _is_grid(sizes: tuple[int, ...] | None) -> TypeGuard[tuple[int, ...]]:
    return bool(sizes) and sizes is not None and sizes.count(-1) <= 1 and all(size > 0 or size == -1 for size in sizes)


def _inner(part: str) -> str:
    return part[1:-1] if part.startswith("(") and part.endswith(")") else part


def _split(text: str, mark: str) -> list[str]:
    """The text at every mark that stands in no bracket."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and text.startswith(mark, at):
            parts.append(text[start:at])
            start = at + len(mark)
    return [*parts, text[start:]]
