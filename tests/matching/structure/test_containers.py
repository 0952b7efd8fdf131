"""A network inside another: found where exactly one container is as large, and fits whole."""

from __future__ import annotations

from loadstone.matching.structure import Item, Match, match
from loadstone.matching.structure.containers import inner


def tower(path: str, names: str, depth: int = 4, width: int = 8) -> list[Item]:
    mix, wide, narrow = names.split()
    found = [Item(f"{path}.stem.weight", (width, 3, 4, 4))]
    for number in range(depth):
        block = f"{path}.{'layers' if mix == 'mix' else 'blocks'}.{number}"
        found += [Item(f"{block}.{mix}.weight", (width, width)), Item(f"{block}.{wide}.weight", (4 * width, width))]
        found.append(Item(f"{block}.{narrow}.weight", (width, 4 * width)))
    return found


ENCODER = tower("model.encoder", "mix wide narrow")
DECODER = [Item(item.key.replace("encoder", "decoder"), item.shape) for item in ENCODER] + [
    Item(f"model.decoder.layers.{number}.cross.weight", (8, 8)) for number in range(4)
]
OURS = tower("net.tower", "att wide narrow")


def sources(result: Match) -> set[str]:
    return {assignment.sources[0].key.split(".")[1] for assignment in result.assignments.values()}


def test_the_encoder_of_an_encoder_and_decoder_fills_one_that_stands_alone() -> None:
    result = match([*ENCODER, *DECODER], [*OURS, Item("classes.weight", (5, 8))])
    assert result.verdict == "partial"
    assert sources(result) == {"encoder"}
    assert [unmatched.key for unmatched in result.unmatched_target] == ["classes.weight"]
    assert len(result.unmatched_source) == len(DECODER)


def test_an_encoder_fills_that_of_an_encoder_and_decoder() -> None:
    ours = [Item(item.key.replace("tower", "decoder"), item.shape) for item in OURS]
    ours += [Item(f"net.decoder.blocks.{number}.cross.weight", (8, 8)) for number in range(4)]
    result = match(ENCODER, [*OURS, *ours])
    assert {key.split(".")[1] for key in result.assignments} == {"tower"}


def test_of_two_towers_alike_neither_is_taken() -> None:
    twin = [Item(item.key.replace("encoder", "momentum"), item.shape) for item in ENCODER]
    assert inner([*ENCODER, *twin], OURS) == []
    assert match([*ENCODER, *twin], OURS).verdict != "complete"


def test_what_lies_outside_is_matched_by_itself() -> None:
    words = Item("shared.weight", (50, 8))
    result = match([*ENCODER, *DECODER, words], [*OURS, Item("tokens.weight", (50, 8))])
    assert result.assignments["tokens.weight"].sources[0].key == "shared.weight"


def test_as_many_numbers_in_other_shapes_are_no_match() -> None:
    share = sum(item.elements for item in ENCODER) // 8
    ours = [Item(f"net.tower.{name}.weight", (share,)) for name in "abcdefgh"] + [Item("net.head.weight", (5, 8))]
    assert inner([*ENCODER, *DECODER], ours) == [("model.encoder", "net.tower")]
    assert not match([*ENCODER, *DECODER], ours).assignments


def test_a_block_that_repeats_is_no_network_of_its_own() -> None:
    shallow = tower("net.tower", "att up down", depth=3)
    assert match(ENCODER, shallow).verdict == "refused"
