"""Orienting: which way round weights are stored, where a layer itself does not say it.

torch stores (outputs, inputs, kernel), others (kernel, inputs, outputs).  The length of a bias or a name such as
`kernel` says it of one layer, see layers.  Of the others the two sides say it together, because whoever writes a file
writes all its matrices one way, and all its convolutions:

    convolutions    the way in which more of them have a partner of their shape
    matrices        those in blocks that repeat, all of one side or none are turned: the way in which fewest layers are
                    left over once projections are joined; a joined (d, 3d) or fewer rows of k and v decide it
    alone           a bare tensor (a, b) where the other side has (b, a) left, and both as many

A stack without biases, joins and gates fits both ways: up (4d, d) is the other's up, or its down turned.  Then the
names of up and down may say it, see `crossing`; else a question says it for the whole model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from loadstone.matching.structure.fusing import fuse
from loadstone.matching.structure.items import Assignment
from loadstone.matching.structure.layers import Layer, Part, Piece, in_order, orientation, outputs_last
from loadstone.matching.structure.stacking import stack
from loadstone.matching.structure.steps import Permute, Step
from loadstone.matching.structure.words import blank, holders

Sides = tuple[list[Layer], list[Layer]]
Keys = frozenset[str]


@dataclass(frozen=True, slots=True)
class Oriented:
    """Both sides with all weights read the way they are stored.

    Attributes:
        answers: those that were given, without turns that are in the layers now.
        unsaid: keys of matrices of either side that fit the other side both ways; nothing where they fit one way.
        is_open: some of them are not square, so that the other way pairs other layers.
    """

    source: list[Layer]
    target: list[Layer]
    answers: dict[str, Assignment]
    unsaid: tuple[Keys, Keys]
    is_open: bool


def oriented(source: Sequence[Layer], target: Sequence[Layer], answers: Mapping[str, Assignment]) -> Oriented:
    """Layers as they are stored, as far as shapes, or what a person said of one matrix, show it."""
    sides, ways = _convolutions(source, target)
    free = _free(sides[0], sides[1]), _free(sides[1], sides[0])
    best = _fewest_left(sides, free) if any(free) else [(False, False)]
    unsaid = _keys(sides[0], free[0]), _keys(sides[1], free[1])
    if len({one is not other for one, other in best}) == 1:
        unsaid = frozenset(), frozenset()
    else:
        known = [_way(layers) if way is None else way for layers, way in zip(sides, ways, strict=True)]
        is_apart = _are_said_apart(unsaid, answers)
        if is_apart or None not in known:
            is_apart = is_apart or known[0] is not known[1]
            unsaid = frozenset(), frozenset()
        best = [each for each in best if (each[0] is not each[1]) is is_apart]
    flips = min(best, key=lambda each: (sum(each), each[1]))
    is_open = any(id(layer) in free[side] and not _is_square(layer) for side in (0, 1) for layer in sides[side])
    if flips[1]:  # what an answer turns is turned for the target already
        theirs = _keys(sides[1], free[1])
        answers = {key: _unturned(answer) if key in theirs else answer for key, answer in answers.items()}
    return Oriented(*_alone(*_flipped(sides, free, flips)), dict(answers), unsaid, is_open)


def joined(source: Sequence[Layer], target: Sequence[Layer]) -> Sides:
    """Both sides with experts in one and projections joined, wherever the other side has them so."""
    left, right = stack(source, target)
    right, left = stack(right, left)
    left = fuse(left, right)
    return left, fuse(right, left)


# convolutions --------------------------------------------------------------------------------------------------------


def _convolutions(source: Sequence[Layer], target: Sequence[Layer]) -> tuple[Sides, list[bool | None]]:
    """Both sides with the axes of kernels as torch has them; and whether these show that a side stores outputs last."""
    ways: list[bool | None] = [None, None]
    sides = list(source), list(target)
    for side in (0, 1):
        want = Counter(layer.signature for layer in sides[1 - side])
        kernels = [layer for layer in sides[side] if len(_stored(layer)) > 2]
        fitting = {
            id(layer): (layer, forms[0])
            for layer in kernels
            if (forms := [form for form in _forms(layer) if want[form.signature]])
        }
        plain = Counter(layer.signature for layer in kernels if not _is_turned(layer))
        turned = Counter(form.signature for layer, form in fitting.values() if not _is_turned(layer))
        as_they_are, the_other_way = (plain & want).total(), (turned & want).total()
        are_turned = the_other_way > as_they_are
        if are_turned:
            ways[side], ways[1 - side] = True, ways[1 - side] or False
        elif ways[side] is None and as_they_are - the_other_way > sum(map(_is_matrix, sides[side])):
            ways[side] = False  # mostly convolutions: they speak for the matrices between them
        changed = {
            at: form
            for at, (layer, form) in fitting.items()
            if (not want[layer.signature] if _is_turned(layer) else are_turned)
        }
        sides[side][:] = [changed.get(id(layer), layer) for layer in sides[side]]
    return sides, ways


def _forms(layer: Layer) -> list[Layer]:
    """What else a stored kernel may be, the likeliest first."""
    shape, item = _stored(layer), _part(layer).pieces[0].item
    axes = len(shape)
    made = [Part(*in_order(item, shape, (axes - 1, axes - 2, *range(axes - 2))))]
    if axes > 3:  # depthwise, with several outputs of every input
        depthwise = (axes - 2, axes - 1, *range(axes - 2))
        rows = shape[-2] * shape[-1]
        made.append(Part((rows, *shape[:-2]), (Piece(item, rows, depthwise, shape),)))
    elif _is_turned(layer):  # outputs in two axes, as heads and what is in a head
        made.append(Part(*outputs_last(item, (shape[0], shape[1] * shape[2]))))
    return [_with(layer, part) for part in made]


# matrices ------------------------------------------------------------------------------------------------------------


def _free(mine: Sequence[Layer], other: Sequence[Layer]) -> frozenset[int]:
    """Layers, by identity, of one matrix in a block that repeats, of which nothing on this side tells the way."""
    says = _evidence(mine)
    found = [layer for layer in mine if _is_matrix(layer) and _said_around(layer, says) is None]
    often = Counter(blank(layer.path) for layer in found)
    most = max(often.values(), default=0)
    shapes = {_part(layer).shape for layers in (mine, other) for layer in layers if _is_matrix(layer)}
    return frozenset(
        id(layer)
        for layer in found
        if (often[blank(layer.path)] > 1 or most == 1)  # what only the first block has is a table
        and (not _is_bare(layer) or _part(layer).shape[::-1] in shapes)  # so is what has no other way at all
    )


def _evidence(layers: Sequence[Layer]) -> dict[str, set[bool]]:
    """Container → the ways that layers in it prove, true for outputs last."""
    says: dict[str, set[bool]] = {}
    for layer in layers:
        proven = orientation({role: part.pieces[0].item for role, part in layer.parts.items()})
        if proven is not None:
            for scope in holders(layer.text):
                says.setdefault(scope, set()).add(proven)
    return says


def _said_around(layer: Layer, says: Mapping[str, set[bool]]) -> bool | None:
    """What the layers around one prove; inside its block, where it has no bias: what lies outside may be a table."""
    scopes = [scope for scope in holders(layer.text) if "bias" in layer.parts or any(map(str.isdigit, scope))]
    ways = next((says[scope] for scope in scopes if scope in says), set())
    return next(iter(ways)) if len(ways) == 1 else None


def _way(layers: Sequence[Layer]) -> bool | None:
    """The one way that layers in blocks prove."""
    ways = {
        way
        for scope, proven in _evidence([layer for layer in layers if _is_numbered(layer)]).items()
        if not scope
        for way in proven
    }
    return next(iter(ways)) if len(ways) == 1 else None


def _fewest_left(sides: Sides, free: tuple[frozenset[int], frozenset[int]]) -> list[tuple[bool, bool]]:
    """Which sides to turn, in all ways that leave fewest layers without a partner of their shape."""
    left: dict[tuple[bool, bool], int] = {}
    one_side, other_side = ((False, True) if each else (False,) for each in free)
    for flips in product(one_side, other_side):
        one, other = (Counter(layer.signature for layer in side) for side in joined(*_flipped(sides, free, flips)))
        left[flips] = ((one - other) + (other - one)).total()
    return [flips for flips, count in left.items() if count == min(left.values())]


def _flipped(sides: Sides, free: tuple[frozenset[int], frozenset[int]], flips: tuple[bool, bool]) -> Sides:
    return tuple(  # type: ignore[return-value]
        [_turned(layer) if flip and id(layer) in some else layer for layer in side]
        for side, some, flip in zip(sides, free, flips, strict=True)
    )


def _are_said_apart(free: tuple[Keys, Keys], answers: Mapping[str, Assignment]) -> bool:
    """A person said of one of these matrices that it is turned on its way."""
    return any(
        (key in free[1] or free[0].issuperset(taken.key for taken in answer.sources)) and _unturned(answer) != answer
        for key, answer in answers.items()
    )


def _unturned(answer: Assignment) -> Assignment:
    sources = tuple(replace(taken, steps=_unturned_steps(taken.steps)) for taken in answer.sources)
    return replace(answer, sources=sources, steps=_unturned_steps(answer.steps))


def _unturned_steps(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step != Permute((1, 0)))


def _alone(source: Sequence[Layer], target: Sequence[Layer]) -> Sides:
    """Bare matrices turned, where only then the other side has as many of their shape."""
    sides = list(source), list(target)
    have = [Counter(layer.signature for layer in side) for side in sides]
    over = have[0] - have[1], have[1] - have[0]
    for side in (0, 1):
        for at, layer in enumerate(sides[side]):
            if not (_is_bare(layer) and len(_stored(layer)) == len(_part(layer).shape) == 2):
                continue
            made = _turned(layer)
            mine, others = layer.signature, made.signature
            is_odd = over[side][mine] == have[side][mine] == over[1 - side][others] == have[1 - side][others] > 0
            if is_odd and not have[side][others] and not have[1 - side][mine]:
                sides[side][at] = made
    return sides


# one layer -----------------------------------------------------------------------------------------------------------


def _is_matrix(layer: Layer) -> bool:
    """A matrix in a block, of which the layer itself does not tell the way."""
    if not _is_numbered(layer) or len(_stored(layer)) != 2 or len(_part(layer).shape) != 2:
        return False
    return orientation({role: part.pieces[0].item for role, part in layer.parts.items()}) is None


def _is_numbered(layer: Layer) -> bool:
    return any(isinstance(token, int) for token in layer.path)


def _is_square(layer: Layer) -> bool:
    return len(set(_part(layer).shape)) == 1


def _is_bare(layer: Layer) -> bool:
    return layer.parts.keys() == {""}


def _is_turned(layer: Layer) -> bool:
    return _part(layer).pieces[0].turned


def _part(layer: Layer) -> Part:
    return layer.parts.get("weight") or layer.parts[""]


def _stored(layer: Layer) -> tuple[int, ...]:
    """The shape of its weight in the file; () where it has none."""
    return _part(layer).pieces[0].item.shape if layer.parts.keys() & {"weight", ""} else ()


def _turned(layer: Layer) -> Layer:
    """The layer with its matrix read the other way round."""
    part = _part(layer)
    item = part.pieces[0].item
    plain = Part(item.shape, (Piece(item, item.shape[0]),))
    return _with(layer, plain if part.pieces[0].turned else Part(*outputs_last(item, item.shape)))


def _with(layer: Layer, weight: Part) -> Layer:
    role = "weight" if "weight" in layer.parts else ""
    return replace(layer, parts={**layer.parts, role: weight})


def _keys(layers: Sequence[Layer], some: frozenset[int]) -> Keys:
    return frozenset(_part(layer).pieces[0].item.key for layer in layers if id(layer) in some)
