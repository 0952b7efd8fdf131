"""Steps: what an adapter will do to the values of one tensor, settled from shapes, carried out by model/adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

# Where the grid lies in the tensor:
#   tokens   (N, D), or with dimensions of one around N: prefix tokens, then the grid row by row
#   table    (N, heads): relative positions row by row, then what stands for class tokens
#   planes   (1, D, height, width)
#   last     (1, height, width, D)
#   kernel   (out, in, height, width): weights that meet an image patch
Layout: TypeAlias = Literal["tokens", "table", "planes", "last", "kernel"]


@dataclass(frozen=True, slots=True)
class Channels:
    """Weights (out, have, ...) become (out, want, ...), with the same sum over the input channels."""

    have: int
    want: int


@dataclass(frozen=True, slots=True)
class Resize:
    """A grid of positions, or of weights over them, gets another size; `extra` tokens beside it stay as they are."""

    layout: Layout
    old: tuple[int, int]
    new: tuple[int, int]
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the source go to rows of the target; `own` other rows of the target keep the values they have.

    Attributes:
        runs: (first row in the source, first row in the target, number of rows).
        own: rows that no run fills.
    """

    runs: tuple[tuple[int, int, int], ...]
    own: int


Step: TypeAlias = Channels | Resize | Rows
