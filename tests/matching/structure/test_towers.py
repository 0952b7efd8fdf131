"""Networks of two parts, and networks with something beside each layer: what is asked, and what is not."""

from __future__ import annotations

import random

import pytest

from loadstone.matching.structure import Item, Match, match
from loadstone.matching.structure.blocks import inside
from loadstone.matching.structure.words import Path

WIDTH = 12


def linear(path: str, out: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (out, inputs)), Item(f"{path}.bias", (out,))]


def norm(path: str, width: int = WIDTH) -> list[Item]:
    return [Item(f"{path}.weight", (width,)), Item(f"{path}.bias", (width,))]


def sources(result: Match) -> dict[str, str]:
    return {key: one.sources[0].key for key, one in result.assignments.items()}


def shuffled(items: list[Item], seed: int) -> list[Item]:
    return random.Random(seed).sample(items, len(items))


# a projection that is a bare matrix here and a module there --------------------------------------------------------


def tower(path: str, names: str, width: int) -> list[Item]:
    mix, wide, narrow, first, last = names.split()
    found = [
        *norm(f"{path}{first}", width),
        Item(f"{path}stem.weight", (width, 3, 4, 4)),
        *norm(f"{path}{last}", width),
    ]
    for number in range(2):
        block = f"{path}blocks.{number}"
        found += [Item(f"{block}.{mix}.weight", (3 * width, width)), Item(f"{block}.{wide}.weight", (4 * width, width))]
        found.append(Item(f"{block}.{narrow}.weight", (width, 4 * width)))
    return found


def theirs() -> list[Item]:
    return [*tower("visual.", "mix wide narrow ln_pre ln_post", 16), Item("visual.proj", (16, WIDTH))]


def ours() -> list[Item]:
    return [*tower("vision.", "att up down before after", 16), Item("projection.weight", (WIDTH, 16))]


@pytest.mark.parametrize("is_back", [False, True])
def test_a_bare_matrix_is_the_module_of_its_turned_shape_and_so_nothing_is_left_over_to_ask_about(
    is_back: bool,
) -> None:
    given, wanted = (ours(), theirs()) if is_back else (theirs(), ours())
    one, other = ("visual.proj", "projection.weight") if is_back else ("projection.weight", "visual.proj")
    found = match(shuffled(given, 1), shuffled(wanted, 2)).assignments[one]
    assert [taken.key for taken in found.sources] == [other]
    assert "Permute" in repr(found.sources[0].steps + found.steps)


def test_two_bare_matrices_of_one_shape_and_square_ones_are_not_turned() -> None:
    for shape, extra in (((16, WIDTH), [Item("visual.more", (16, WIDTH))]), ((16, 16), [])):
        given = [*tower("visual.", "mix wide narrow ln_pre ln_post", 16), Item("visual.proj", shape), *extra]
        wanted = [*tower("vision.", "att up down before after", 16), Item("projection.weight", shape[::-1])]
        assert "projection.weight" not in match(given, wanted).assignments


# blocks beside what lies outside of all blocks -----------------------------------------------------------------------


def bart(words: tuple[str, str, str], *, is_nested: bool) -> list[Item]:
    """Norms behind the embeddings, which one side keeps in the halves and the other beside them."""
    found: list[Item] = []
    for half, depth in (("encoder", 2), ("decoder", 2)):
        for number in range(depth):
            block = f"{half}.layers.{number}"
            found += [
                *linear(f"{block}.{words[0]}", 4 * WIDTH, WIDTH),
                *linear(f"{block}.{words[1]}", WIDTH, 4 * WIDTH),
            ]
            found += (
                [*norm(f"{block}.{words[2]}"), *norm(f"{block}.last")] if half == "decoder" else norm(f"{block}.last")
            )
            found += linear(f"{block}.cross", WIDTH, WIDTH) if half == "decoder" else []
        found += norm(f"{half}.at_first" if is_nested else f"{half[0]}_at_first")
    return found


def test_what_lies_in_blocks_is_settled_though_what_lies_outside_is_open() -> None:
    given, wanted = bart(("wide", "narrow", "one"), is_nested=True), bart(("up", "down", "two"), is_nested=False)
    result = match(shuffled(given, 1), shuffled(wanted, 2))
    for number in range(2):
        assert sources(result)[f"encoder.layers.{number}.last.weight"] == f"encoder.layers.{number}.last.weight"
    assert "e_at_first.weight" not in result.assignments
    assert any(question.target.startswith(("e_at", "d_at")) for question in result.questions)


def test_blocks_that_leave_one_layer_on_either_side_say_nothing_because_it_may_be_two_things() -> None:
    places = {("layers", n): ("blocks", n) for n in range(3)}
    back = {there: here for here, there in places.items()}

    def scope(side: int, container: Path) -> tuple[int, Path]:
        return 2, (places if side == 0 else back).get(container, ())

    left = {block: [n] for n, block in enumerate(places)}
    right = {block: [n] for n, block in enumerate(back)}
    assert len(inside(left, right, scope)) == 3
    assert len(inside({**left, (): [3, 4]}, {**right, (): [3, 4]}, scope)) == 3
    assert inside({**left, (): [3]}, {**right, (): [3]}, scope) == []


# additions to every layer --------------------------------------------------------------------------------------------


def stack(words: tuple[str, str, str], rank: int = 0) -> list[Item]:
    found = [Item("embed.weight", (50, WIDTH))]
    for number in range(3):
        block = f"{words[0]}.{number}"
        for name, out, inputs in ((words[1], 3 * WIDTH, WIDTH), (words[2], WIDTH, 4 * WIDTH)):
            base = f"{block}.{name}.base" if rank else f"{block}.{name}"
            found.append(Item(f"{base}.weight", (out, inputs)))
            if rank:
                found += [
                    Item(f"{block}.{name}.a.weight", (rank, inputs)),
                    Item(f"{block}.{name}.b.weight", (out, rank)),
                ]
    return found


def test_low_rank_additions_are_missing_and_everything_else_is_filled() -> None:
    result = match(stack(("layers", "mix", "down")), stack(("blocks", "mixed", "narrow"), rank=2))
    assert result.verdict == "partial"
    assert not result.questions
    assert len(result.assignments) == 7
    assert all(unmatched.key.split(".")[-2] in "ab" for unmatched in result.unmatched_target)
    back = match(stack(("layers", "mix", "down"), rank=2), stack(("blocks", "mixed", "narrow")))
    assert back.verdict == "partial"
    assert len(back.assignments) == 7


@pytest.mark.parametrize("change", ["wider", "lone"])
def test_what_is_no_low_rank_addition_still_refuses(change: str) -> None:
    wanted = stack(("blocks", "mixed", "narrow"), rank=2)
    if change == "wider":
        wanted = [
            Item(item.key, tuple(5 if size == 2 else size for size in item.shape)) if ".a." in item.key else item
            for item in wanted
        ]
    else:
        wanted = [item for item in wanted if ".a." not in item.key]
    assert match(stack(("layers", "mix", "down")), wanted).verdict == "refused"


# positions -----------------------------------------------------------------------------------------------------------


def decoder(words: tuple[str, str, str, str], table: tuple[int, int] | None) -> list[Item]:
    found = [Item("words.weight", (50, WIDTH))]
    found += [Item(f"{words[0]}.relative.weight", table)] if table else []
    for number in range(3):
        block = f"{words[0]}.{number}"
        found += [Item(f"{block}.{name}.weight", (WIDTH, WIDTH)) for name in words[1:4]]
        found.append(Item(f"{block}.up.weight", (4 * WIDTH, WIDTH)))
    return found


@pytest.mark.parametrize(("table", "is_asked"), [(None, True), ((32, 3), False), ((32, 8), True), ((2, 3), True)])
def test_a_table_with_a_bias_for_each_head_says_that_positions_are_not_rotary(
    table: tuple[int, int] | None, is_asked: bool
) -> None:
    given, wanted = (
        decoder((name, *(f"{part}{end}" for part in "qkv")), table) for name, end in (("h", ""), ("block", "_proj"))
    )
    result = match(given, wanted)
    assert any(question.kind == "rotary" for question in result.questions) is is_asked
