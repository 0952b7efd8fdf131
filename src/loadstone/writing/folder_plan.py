"""Which tensors of a folder checkpoint go into which shard, and which shards of the one before are linked: as data.

A shard is linked where all its tensors are still wanted and unchanged.  Where some are, it falls in two: what changed
and what did not are written apart, so that the next save can link the second part.  A first save knows no changes; it
goes by groups (frozen, trained, buffers, optimizer), and keeps large tensors apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Section = Literal["model", "training"]
Name: TypeAlias = "tuple[Section, str]"  # a tensor: in which series of shards, and its key there

SECTIONS: tuple[Section, ...] = ("model", "training")
SHARD_NBYTES = 2_000_000_000  # a shard is closed before it grows beyond
ALONE_NBYTES = 64_000_000  # a tensor of this size has a shard of its own: it may change alone


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor to be saved; tensors of one `group` are expected to change together."""

    name: Name
    nbytes: int
    alignment: int  # bytes of an element
    group: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The shards of a folder, by their new names: `linked` to old names, `written` with these tensors in this order."""

    linked: Mapping[str, str]
    written: Mapping[str, tuple[Piece, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that have to be written."""
        return sum(piece.nbytes for pieces in self.written.values() for piece in pieces)


def planned(
    pieces: Sequence[Piece], old: Mapping[str, Collection[Name]], unchanged: Collection[Name] = frozenset()
) -> Layout:
    """The layout for `pieces`; `old` are the shards that can be linked, `unchanged` names what is as it was."""
    wanted = {piece.name for piece in pieces}
    kept = {shard: set(names) for shard, names in old.items() if _is_kept(names, wanted, unchanged)}
    there = set().union(*kept.values())
    linked: dict[str, str] = {}
    written: dict[str, tuple[Piece, ...]] = {}
    for section in SECTIONS:
        links = [shard for shard, names in kept.items() if next(iter(names))[0] == section]
        rest = [piece for piece in pieces if piece.name[0] == section and piece.name not in there]
        shards = _packed(rest, unchanged)
        count = len(links) + len(shards)
        names = [shard_name(section, number, count) for number in range(1, count + 1)]
        linked |= dict(zip(names, links, strict=False))
        written |= dict(zip(names[len(links) :], shards, strict=True))
    return Layout(linked, written)


def shard_name(section: str, number: int, count: int) -> str:
    """The usual name of one shard of several."""
    return f"{section}-{number:05d}-of-{count:05d}.safetensors"


def _is_kept(names: Collection[Name], wanted: Collection[Name], unchanged: Collection[Name]) -> bool:
    """All of it is wanted as it is, and it is of one section."""
    return bool(names) and all(name in wanted and name in unchanged for name in names)


def _packed(pieces: Sequence[Piece], unchanged: Collection[Name]) -> list[tuple[Piece, ...]]:
    """Shards of what belongs together, none larger than it has to be."""
    groups: dict[object, list[Piece]] = {}
    for piece in pieces:
        is_alone = piece.nbytes >= ALONE_NBYTES
        groups.setdefault(piece.name if is_alone else (piece.name in unchanged, piece.group), []).append(piece)
    shards: list[tuple[Piece, ...]] = []
    for group in groups.values():
        shard: list[Piece] = []
        nbytes = 0
        for piece in group:
            if shard and nbytes + piece.nbytes > SHARD_NBYTES:
                shards.append(_aligned(shard))
                shard, nbytes = [], 0
            shard.append(piece)
            nbytes += piece.nbytes
        shards.append(_aligned(shard))
    return shards


def _aligned(shard: list[Piece]) -> tuple[Piece, ...]:
    """Widest elements first, so that every tensor starts at a multiple of its element size."""
    return tuple(sorted(shard, key=lambda piece: -piece.alignment))
