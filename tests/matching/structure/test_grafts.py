"""Real implementations with another head on either side: the backbone goes over, and no head is taken for the other."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from loadstone.matching.structure import Item, match

RECORD = Path(__file__).parents[2] / "data" / "pairs.json.xz"
EVERY = 4  # of the 106 pairs one in four


def linear(path: str, out: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (out, inputs)), Item(f"{path}.bias", (out,))]


def kernel(path: str, out: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (out, inputs, 3, 3))]


def grafts(width: int) -> dict[str, tuple[list[Item], list[Item]]]:
    """Two heads, one for each side, with one layer of the same shapes."""
    return {
        "in containers": (
            linear("headx.a", width, width) + linear("headx.b", 11, width),
            linear("fuse.p", width, width) + linear("fuse.q", 2 * width, width) + linear("fuse.r", 7, 2 * width),
        ),
        "beside the backbone": (
            linear("auxq", width, width) + linear("auxr", 13, width),
            linear("mix", width, width) + linear("mixo", 2 * width, width) + linear("mixp", 7, 2 * width),
        ),
        "in blocks": (
            kernel("dec.0.a", width, width) + kernel("dec.1.a", width, 2 * width) + linear("seg", 21, width),
            kernel("fpn.0.x", width, width) + kernel("fpn.1.x", width, 3 * width) + linear("det", 91, width),
        ),
    }


@pytest.mark.parametrize("where", grafts(8))
def test_other_heads_on_both_sides_are_kept_apart_and_the_backbones_are_matched(where: str) -> None:
    kept = whole = 0
    for pair in json.loads(lzma.decompress(RECORD.read_bytes()))[::EVERY]:
        source = [Item(key, tuple(shape), dtype) for key, shape, dtype in pair["source"]]
        target = [Item(key, tuple(shape), *rest) for key, shape, *rest in pair["target"]]
        alone = match(source, target)
        if alone.verdict != "complete":
            continue
        width = Counter(item.shape[0] for item in source if item.shape and item.shape[0] > 4).most_common(1)[0][0]
        ours, theirs = grafts(width)[where]
        grafted = match(source + ours, target + theirs)
        assert not {item.key for item in theirs} & grafted.assignments.keys(), pair["name"]
        for key, one in grafted.assignments.items():
            assert one.sources == alone.assignments[key].sources, (pair["name"], key)
        kept += len(grafted.assignments)
        whole += len(alone.assignments)
    assert kept >= 0.9 * whole, kept / whole
