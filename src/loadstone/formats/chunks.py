"""One tensor from chunks: the proof that boxes fill a shape exactly, each element once.

Shared by the formats that keep a tensor in pieces (torch.distributed.checkpoint, sharded safetensors).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import product
from math import prod

from loadstone.errors import Diagnostic, FormatError
from loadstone.tensors import MAX_INT64, Part, TensorInfo, contiguous_stride

MAX_SPLIT_DIMENSIONS = 12  # along which a tensor is cut; corners grow with 2 to this power

Box = tuple[tuple[int, ...], tuple[int, ...]]  # offsets, sizes


def tiles(shape: tuple[int, ...], boxes: Iterable[Box]) -> bool:
    """Whether the boxes fill the shape with no hole and no overlap.

    A box is determined by its corners, each with the sign of inclusion and exclusion: the mixed difference of its
    indicator function.  The boxes tile the whole if and only if their signed corners add up to those of the whole,
    which takes time linear in the number of boxes.  Dimensions that every box spans fully do not matter, and are left
    out.  Raises FormatError for more than 12 others.
    """
    boxes = list(boxes)
    if any(len(offsets) != len(shape) or len(sizes) != len(shape) for offsets, sizes in boxes):
        return False
    split = [
        axis
        for axis, size in enumerate(shape)
        if any(offsets[axis] != 0 or sizes[axis] != size for offsets, sizes in boxes)
    ]
    if len(split) > MAX_SPLIT_DIMENSIONS:
        raise FormatError(Diagnostic("unsupported-feature", f"a tensor is cut along {len(split)} dimensions"))
    corners: dict[tuple[int, ...], int] = defaultdict(int)
    whole = (tuple(0 for _ in shape), shape)
    for sign, (offsets, sizes) in [(-1, whole), *((1, box) for box in boxes)]:
        edges = (((offsets[axis], 1), (offsets[axis] + sizes[axis], -1)) for axis in split)
        for corner in product(*edges):
            corners[tuple(place for place, _ in corner)] += sign * prod(side for _, side in corner)
    return not any(corners.values()) or 0 in shape


def assemble(key: str, dtype: str, shape: tuple[int, ...], parts: list[Part], *, source: str) -> TensorInfo:
    """The tensor that the parts make up: the one part itself where it is the whole, else a "chunked" one.

    Raises FormatError ("header-invalid") where the parts differ in dtype or do not fill the shape exactly.
    """
    if prod(size or 1 for size in shape) > MAX_INT64:  # strides count an empty dimension as 1
        raise FormatError(Diagnostic("header-invalid", f"`{key}` in `{source}` has more than 2^63 elements"))
    for part in parts:
        if part.info.dtype != dtype:
            raise FormatError(
                Diagnostic("header-invalid", f"`{key}` in `{source}` is {dtype}, a chunk of it is {part.info.dtype}")
            )
    if len(parts) == 1 and parts[0].info.shape == shape and not any(parts[0].offsets):
        return parts[0].info.with_key(key)
    if any(part.info.layout != "strided" or part.info.quantization for part in parts):
        raise FormatError(
            Diagnostic("unsupported-feature", f"the chunks of `{key}` in `{source}` are sparse, nested or quantised")
        )
    if any(part.info.repeats > 1 for part in parts):  # no writer expands a chunk, and it would be copied
        raise FormatError(
            Diagnostic("header-invalid", f"a chunk of `{key}` in `{source}` has fewer bytes than it shows")
        )
    if not tiles(shape, [(part.offsets, part.info.shape) for part in parts]):
        raise FormatError(
            Diagnostic(
                "header-invalid",
                f"the {len(parts)} chunks of `{key}` in `{source}` do not fill its shape {list(shape)} exactly",
                evidence=tuple((f"chunk at {list(p.offsets)}", f"shape {list(p.info.shape)}") for p in parts[:8]),
                keys=(key,),
            )
        )
    requires_grad = any(part.info.requires_grad for part in parts)
    stride = contiguous_stride(shape)
    return TensorInfo(key, dtype, shape, stride, layout="chunked", parts=tuple(parts), requires_grad=requires_grad)
