"""What two shapes that differ have to do with each other, in words, and the adapters that would bring them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod

from loadstone.errors import Fix
from loadstone.keys import leaf
from loadstone.matching.candidates import Candidate, shape_text
from loadstone.matching.offers import offer_for, rounded_up_to
from loadstone.matching.schema import Slot

_FEWEST_FEATURES = 8  # of query, key and value each


@dataclass(frozen=True, slots=True)
class Shapes:
    """The two shapes of one tensor: what the checkpoint has, what the model wants, and why an adapter did not do."""

    slot: Slot
    source: str
    have: tuple[int, ...]
    dtype: str
    why: str = ""

    @property
    def target(self) -> str:
        """Its key in the model."""
        return self.slot.key

    @property
    def want(self) -> tuple[int, ...]:
        """Its shape in the model."""
        return self.slot.shape


def shapes_of(slot: Slot, candidate: Candidate, why: str) -> Shapes:
    """The shapes of a slot and the candidate that was meant for it."""
    return Shapes(slot, candidate.key, candidate.info.shape, candidate.info.dtype, why)


def explain(members: list[Shapes]) -> Iterator[str]:
    """What can be noticed about the shapes, each once, at most four."""
    seen: dict[str, None] = {}
    for one in members[:100]:
        for text in (one.why, *_noticed(one)):
            if text:
                seen[text] = None
    yield from list(seen)[:4]


def _noticed(one: Shapes) -> Iterator[str]:
    have, want = one.have, one.want
    if len(have) != len(want):
        if prod(have) == prod(want):
            yield f"the same number of elements in {len(have)} and in {len(want)} dimensions"
        return
    if len(have) == 2 and have == want[::-1]:
        yield "the shapes are each other's transpose"
        return
    if prod(have) == prod(want):
        yield "the same number of elements, in other dimensions"
    for dim, (few, many) in enumerate(zip(have, want, strict=True)):
        if few != many:
            yield from _arithmetic(one, dim, few, many)


def _arithmetic(one: Shapes, dim: int, have: int, want: int) -> Iterator[str]:
    small, large = sorted((have, want))
    side = "model" if want > have else "checkpoint"
    if small >= _FEWEST_FEATURES and large == 3 * small:
        yield f"{large} is 3 × {small}: query, key and value may be one tensor in the {side}"
        return
    multiple = rounded_up_to(have, want)
    if multiple:
        yield f"{large} is {small} rounded up to a multiple of {multiple}"
        return
    if dim == 0 and leaf(one.target) in ("weight", "bias") and len(one.have) <= 2:
        yield f"{have} outputs in the checkpoint, {want} in the model: another number of classes or features"
    elif dim == 1 and len(one.have) == 4:
        yield f"{have} input channels in the checkpoint, {want} in the model"
    else:
        yield f"dimension {dim} is {have} in the checkpoint and {want} in the model"


def reshaping_fixes(members: list[Shapes], globs: Callable[[Iterable[str]], list[str]]) -> Iterator[Fix]:
    """Adapters that would take these tensors, as lines to paste; `globs` names targets in few words."""
    everything = globs([one.target for one in members])
    if all(len(one.have) != len(one.want) and prod(one.have) == prod(one.want) == 1 for one in members):
        how = "lambda tensor, shape: tensor.reshape(shape)"
        yield Fix("reshape the one element", f"adapt={_table(everything, how)}", "safe")
        return
    if not all(len(one.have) == len(one.want) != 0 and one.have != one.want for one in members):
        return
    offers = [offer_for(one.slot, one.have, one.dtype) for one in members]
    named = next((offer for offer in offers if offer is not None and offer.does), None)
    if named is not None and None not in offers:
        targets: dict[str, list[str]] = {}  # by adapter
        for one, offer in zip(members, offers, strict=True):
            if offer is not None:
                targets.setdefault(offer.how, []).append(one.target)
        rows = ", ".join(f'"{glob}": {how}' for how, keys in targets.items() for glob in globs(keys))
        yield Fix(named.does, f"adapt={{{rows}}}", named.safety)
    if all(offer is None or offer.allows_corner for offer in offers):
        yield from _corner_fixes(members, everything)
    if all(_may_be_classes(one) for one in members) and named is None:
        how = "ls.classes(old_labels, new_labels)"
        yield Fix("keep the classes that both have, by their labels", f"adapt={_table(everything, how)}")


def _corner_fixes(members: list[Shapes], globs: list[str]) -> Iterator[Fix]:
    dims = [(have, want) for one in members for have, want in zip(one.have, one.want, strict=True)]
    example = f"{shape_text(members[0].have)} → {shape_text(members[0].want)}"
    if all(have >= want for have, want in dims):
        yield Fix(f"keep the leading corner ({example})", "adapt=" + _table(globs, '"slice"'), "unsafe")
    elif all(have <= want for have, want in dims):
        yield Fix(f"fill up with zeros ({example})", "adapt=" + _table(globs, '"pad"'), "unsafe")


def _may_be_classes(one: Shapes) -> bool:
    return leaf(one.target) in ("weight", "bias") and len(one.have) <= 2 and one.have[1:] == one.want[1:]


def _table(globs: list[str], how: str) -> str:
    return "{" + ", ".join(f'"{glob}": {how}' for glob in globs) + "}"
