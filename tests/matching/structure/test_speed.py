"""Time grows with the number of keys, not with its square, whatever becomes of them."""

from __future__ import annotations

import hashlib
from time import process_time

import pytest

from loadstone import collector
from loadstone.matching.structure import Item, match


def block(path: str, names: str, width: int = 64) -> list[Item]:
    shapes = [(width, width), (width, width), (width,), (4 * width, width), (width, 4 * width)]
    return [Item(f"{path}.{name}.weight", shape) for name, shape in zip(names.split(), shapes, strict=True)]


def blocks(count: int) -> tuple[list[Item], list[Item]]:
    ours = [item for n in range(count) for item in block(f"encoder.layer.{n}", "mix.q mix.out norm up down")]
    return ours, [item for n in range(count) for item in block(f"blocks.{n}", "attn.q attn.proj ln fc1 fc2")]


def blocks_of_another_kind(count: int) -> tuple[list[Item], list[Item]]:
    ours, theirs = blocks(count)
    return ours + [Item(f"encoder.layer.{n}.gate.weight", (8, 64)) for n in range(count)], theirs


def nothing_alike(count: int) -> tuple[list[Item], list[Item]]:
    ours = [Item(f"a.{n}.weight", (64, n + 3)) for n in range(3 * count)]
    return ours, [Item(f"b.{n}.weight", (64, n + 9 + 3 * count)) for n in range(3 * count)]


def names_that_say_nothing(count: int) -> tuple[list[Item], list[Item]]:
    ours = [Item(f"{hashlib.md5(bytes(str(n), 'ascii')).hexdigest()[:8]}.weight", (8, 8)) for n in range(5 * count)]
    return ours, [Item(f"layers.{n}.weight", (8, 8)) for n in range(5 * count)]


def doubtful_layers(count: int) -> tuple[list[Item], list[Item]]:
    ours = [Item(f"h.{n}.attention.query_key_value.weight", (192, 64)) for n in range(3 * count)]
    return ours, [Item(f"b.{n}.attn.qkv.weight", (192, 64)) for n in range(3 * count)]


def experts(count: int) -> tuple[list[Item], list[Item]]:
    shapes = (16, 8), (8, 16), (16, 8)
    ours, theirs = (
        [
            Item(f"{path}.{layer}.experts.{expert}.{name}.weight", shape)
            for layer in range(count // 20)
            for expert in range(30)
            for name, shape in zip(names, shapes, strict=True)
        ]
        for path, names in (("model.layers", ("gate", "down", "up")), ("blocks", ("w1", "w2", "w3")))
    )
    return ours, theirs


@pytest.mark.parametrize(
    "case",
    [blocks, blocks_of_another_kind, nothing_alike, names_that_say_nothing, doubtful_layers, experts],
    ids=lambda case: case.__name__,
)
def test_four_times_the_keys_take_about_four_times_the_time(case: object) -> None:
    assert seconds(case, 240) < 10 * seconds(case, 60) + 0.1


def seconds(case: object, count: int) -> float:
    ours, theirs = case(count)  # type: ignore[operator]
    took = []
    for _ in range(4):
        with collector.paused():  # as `plan` has it: what the other tests left in memory is not this one's time
            start = process_time()
            match(ours, theirs)
            took.append(process_time() - start)
    return min(took)
