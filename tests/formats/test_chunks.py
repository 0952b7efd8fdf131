"""Boxes that fill a shape exactly, against counting every element."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import FormatError
from loadstone.formats.chunks import Box, assemble, tiles
from loadstone.io.sources import MemorySource
from loadstone.storage import Extent, Storage
from loadstone.tensors import Part, TensorInfo, contiguous_stride


def counted(shape: tuple[int, ...], boxes: list[Box]) -> bool:
    """The same question answered by counting."""
    cells = dict.fromkeys(itertools.product(*map(range, shape)), 0)
    for offsets, sizes in boxes:
        for cell in itertools.product(*(range(a, a + n) for a, n in zip(offsets, sizes, strict=True))):
            if cell not in cells:
                return False
            cells[cell] += 1
    return all(count == 1 for count in cells.values())


@st.composite
def shapes_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """Half of the time a real tiling (cut in two again and again), else with a box moved or resized."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    boxes: list[Box] = [(tuple(0 for _ in shape), shape)]
    for _ in range(draw(st.integers(0, 4))):
        offsets, sizes = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, sizes[axis]))
        moved = tuple(o + cut * (i == axis) for i, o in enumerate(offsets))
        first = tuple(cut if i == axis else n for i, n in enumerate(sizes))
        second = tuple(n - cut if i == axis else n for i, n in enumerate(sizes))
        boxes += [(offsets, first), (moved, second)]
    if draw(st.booleans()):
        offsets, sizes = boxes.pop()
        change = st.tuples(*(st.integers(0, 2) for _ in shape))
        boxes.append((tuple(map(sum, zip(offsets, draw(change), strict=True))), draw(change)))
    return shape, boxes


@given(shapes_and_boxes())
def test_tiling_is_what_counting_says(case: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, boxes = case
    assert tiles(shape, boxes) == counted(shape, boxes)


def test_scalar_needs_exactly_one_box() -> None:
    assert tiles((), [((), ())])
    assert not tiles((), [])
    assert not tiles((), [((), ()), ((), ())])


def test_hole_and_overlap_of_the_same_size_are_seen() -> None:
    assert not tiles((4,), [((0,), (2,)), ((1,), (2,))])


def test_many_chunks_take_linear_time() -> None:
    boxes = [((row, column), (1, 1)) for row in range(200) for column in range(200)]
    start = time.perf_counter()
    assert tiles((200, 200), boxes)
    assert time.perf_counter() - start < 5  # seconds; comparing pairs would be 800 million steps


def test_cuts_along_too_many_dimensions_are_refused() -> None:
    with pytest.raises(FormatError, match=r"cut along 30 dimensions"):
        tiles((2,) * 30, [((0,) * 30, (1,) * 30), ((1,) * 30, (1,) * 30)])


def part(offsets: tuple[int, ...], shape: tuple[int, ...], dtype: str = "int8") -> Part:
    nbytes = 1
    for size in shape:
        nbytes *= size
    storage = Storage("s", nbytes, (Extent.stored(MemorySource(bytes(nbytes), "x"), 0, nbytes),))
    return Part("p", TensorInfo("p", dtype, shape, contiguous_stride(shape), 0, storage), offsets)


def test_one_chunk_that_is_the_whole_is_a_plain_tensor() -> None:
    info = assemble("w", "int8", (2, 3), [part((0, 0), (2, 3))], source="d")
    assert (info.key, info.layout, info.is_plain) == ("w", "strided", True)


def test_chunks_become_one_chunked_tensor() -> None:
    info = assemble("w", "int8", (2, 3), [part((0, 0), (2, 1)), part((0, 1), (2, 2))], source="d")
    assert (info.layout, info.shape, info.nbytes) == ("chunked", (2, 3), 6)
    assert info.read().shape == (2, 3)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([part((0, 0), (2, 2))], "the 1 chunks of `w` in `d` do not fill its shape \\[2, 3\\] exactly"),
        ([part((0, 1), (2, 3))], "do not fill"),
        ([part((0, 0), (2, 3)), part((0, 0), (2, 3))], "do not fill"),
        ([part((0,), (6,))], "do not fill"),
        ([part((0, 0), (2, 3), "uint8")], "`w` in `d` is int8, a chunk of it is uint8"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(parts: list[Part], why: str) -> None:
    with pytest.raises(FormatError, match=rf"header-invalid.*{why}"):
        assemble("w", "int8", (2, 3), parts, source="d")
