"""Reading a grid out of two shapes: which rows of a position embedding are prefix tokens, and how the rest is laid out.

The reading with the fewest assumptions: as many prefix tokens on both sides, none, one or two of them (class and
distillation token), and a square grid wherever nobody said otherwise.  No two numbers of prefix tokens give squares for
one number of rows, so that this reading is unique where it exists; where it does not, the person is asked.
"""

from __future__ import annotations

from math import isqrt

from loadstone.keys import leaf
from loadstone.matching.adapters import Grid, Interpolate
from loadstone.matching.candidates import shape_text
from loadstone.matching.steps import Layout, Resize

_PREFIXES = (0, 1, 2)
_TABLE_EXTRAS = (0, 3)  # BEiT: class to token, token to class, class to class, after the table (timm, pos_embed_rel.py)
_MOST_FACTORED = 10**8

Shape = tuple[int, ...]


def resize_for(given: Interpolate, key: str, have: Shape, want: Shape) -> Resize | str:
    """How `interpolate` gets from one shape to the other; a clause that says why it cannot."""
    if len(have) != len(want):
        return "`interpolate` needs the same number of dimensions on both sides"
    if 0 in have or 0 in want:
        return "`interpolate` has nothing to work on in a tensor without elements"
    if len(have) == 4 and have[:2] == want[:2] and leaf(key) == "weight":
        return _from_sizes(given, [("kernel", 2)], have, want)
    if len(have) == 4 and have[0] == want[0] == 1:
        layouts: list[tuple[Layout, int]] = []
        if have[1] == want[1]:
            layouts.append(("planes", 2))
        if have[3] == want[3]:
            layouts.append(("last", 1))
        return _from_sizes(given, layouts, have, want)
    grid = [dim for dim in range(len(have) - 1) if have[dim] != 1 or want[dim] != 1]
    if len(have) in (2, 3) and have[-1] == want[-1] and len(grid) == 1:
        return _from_rows(given, is_table(key), have[grid[0]], want[grid[0]])
    return "`interpolate` takes (N, D), (1, N, D), (1, D, H, W), (1, H, W, D) and the weight of a patch embedding"


def half_read(key: str, have: Shape, want: Shape) -> tuple[int, Grid] | None:
    """Tokens beside the grid and the grid itself of the checkpoint, where only the model's is no square."""
    differing = [dim for dim in range(len(have)) if len(have) == len(want) and have[dim] != want[dim]]
    if len(differing) != 1 or differing[0] == len(have) - 1 or len(have) > 3 or is_table(key):
        return None
    rows = have[differing[0]]
    squares = [(extra, square) for extra in _PREFIXES if (square := _square(rows - extra, False))]
    return squares[0] if len(squares) == 1 else None


def is_table(key: str) -> bool:
    """The key names a table of relative positions: of a window h × w, (2h - 1)(2w - 1) rows."""
    name = leaf(key)
    return "relative_position" in name or "rel_pos" in name


def resize_text(resize: Resize) -> str:
    """What is resized and how, in words and numbers."""
    old, new = resize.old, resize.new
    if resize.layout == "kernel":
        return f"patch {shape_text(old)} → {shape_text(new)}, by the pseudo-inverse of the resize of an image"
    method = "bicubic"
    if resize.layout == "table":
        windows = (f"{shape_text(((size[0] + 1) // 2, (size[1] + 1) // 2))}" for size in (old, new))
        text = f"window {' → '.join(windows)}, table {shape_text(old)} → {shape_text(new)}, {method}"
    else:
        text = f"grid {shape_text(old)} → {shape_text(new)}, {method} with antialiasing"
    if not resize.extra:
        return text
    return (
        f"{text}, {resize.extra} {'row' if resize.layout == 'table' else 'prefix token'}{'s'[: resize.extra > 1]} kept"
    )


def _from_sizes(given: Interpolate, layouts: list[tuple[Layout, int]], have: Shape, want: Shape) -> Resize | str:
    """The grid stands in the shape itself, from dimension `first` on."""
    readings = [
        Resize(layout, (have[first], have[first + 1]), (want[first], want[first + 1])) for layout, first in layouts
    ]
    fitting = [
        reading
        for reading in readings
        if given.old_grid in (None, reading.old) and given.new_grid in (None, reading.new) and not given.prefix_tokens
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        grids = " or ".join(f"{shape_text(one.old)} → {shape_text(one.new)}" for one in fitting)
        return f"`interpolate` cannot tell the grid: it may be {grids}; say old_grid and new_grid"
    if readings:
        grids = " or ".join(f"{shape_text(one.old)} → {shape_text(one.new)}" for one in readings)
        return f"`interpolate` was told another grid than the shapes have: {grids}, no prefix tokens"
    return "`interpolate` needs the same number of features on both sides"


def _from_rows(given: Interpolate, as_table: bool, have: int, want: int) -> Resize | str:
    """The grid is unrolled into `have` and `want` rows."""
    old_size = None if given.old_grid is None else _unrolled(given.old_grid, as_table)
    new_size = None if given.new_grid is None else _unrolled(given.new_grid, as_table)
    if given.prefix_tokens is not None:
        extras: tuple[int, ...] = (given.prefix_tokens,)
    elif old_size is not None:
        extras = (have - old_size[0] * old_size[1],)
    elif new_size is not None:
        extras = (want - new_size[0] * new_size[1],)
    else:
        extras = _TABLE_EXTRAS if as_table else _PREFIXES
    for extra in extras:
        old = old_size or _square(have - extra, as_table)
        new = new_size or _square(want - extra, as_table)
        if extra >= 0 and old and new and _rows(old, extra) == have and _rows(new, extra) == want:
            return Resize("table" if as_table else "tokens", old, new, extra)
    if old_size and new_size:
        counts = f"{_rows(old_size, 0)} and {_rows(new_size, 0)} positions"
        tokens = "as many" if given.prefix_tokens is None else f"{given.prefix_tokens}"
        return f"`interpolate` was told grids of {counts}, which do not leave {tokens} tokens of {have} and {want} rows"
    both = f"{_readings(have, extras, as_table)}; {_readings(want, extras, as_table)}"
    return f"`interpolate` cannot tell the grids: {both}; say prefix_tokens, old_grid and new_grid"


def _unrolled(grid: Grid, as_table: bool) -> Grid:
    """The size of the grid itself: a window h × w has 2h - 1 by 2w - 1 relative positions."""
    return (2 * grid[0] - 1, 2 * grid[1] - 1) if as_table else grid


def _rows(size: Grid, extra: int) -> int:
    return size[0] * size[1] + extra


def _square(rows: int, as_table: bool) -> Grid | None:
    side = isqrt(max(rows, 0))
    return (side, side) if rows > 0 and side * side == rows and (side % 2 or not as_table) else None


def _readings(rows: int, extras: tuple[int, ...], as_table: bool) -> str:
    """`197 rows are 14 × 14 + 1`, or what they may be; the rectangle nearest to a square for each number of extras."""
    squares = [(square, extra) for extra in extras if extra >= 0 and (square := _square(rows - extra, as_table))]
    found = squares or [(pair, extra) for extra in extras if extra >= 0 and (pair := _rectangle(rows - extra))]
    texts = [shape_text(size) + (f" + {extra}" if extra else "") for size, extra in found]
    if not texts:
        return f"{rows} rows are no grid"
    return f"{rows} rows {'are' if squares else 'may be'} {', '.join(texts)}"


def _rectangle(rows: int) -> Grid | None:
    if not 1 < rows <= _MOST_FACTORED:
        return None
    height = next(size for size in range(isqrt(rows), 0, -1) if rows % size == 0)
    return (height, rows // height) if height > 1 else None
