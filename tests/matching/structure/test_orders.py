"""Answers that name no tensor: nothing of this belongs here; and go by the order of keys."""

from __future__ import annotations

from collections.abc import Sequence

from loadstone.matching.structure import GRADES, Item, Match, match


def layer(path: str, *shape: int) -> Item:
    return Item(f"{path}.weight", shape)


def sources(result: Match) -> dict[str, str]:
    return {key: one.sources[0].key for key, one in result.assignments.items()}


def blocks(path: str, names: Sequence[str]) -> list[Item]:
    return [layer(f"{path}.{n}.{name}", 8, 8) for n in range(3) for name in names] + [layer(f"{path}.out", 9, 8)]


def test_order_is_taken_where_it_was_asked_for() -> None:
    source, target = blocks("b", ["east", "west"]), blocks("l", ["zeta", "alpha"])
    assert [question.places for question in match(source, target).questions] == [3]
    result = match(source, target, answers={"*": "order"})
    assert sources(result)["l.1.zeta.weight"] == "b.1.east.weight"
    assert result.assignments["l.1.zeta.weight"].grade == "order"
    assert result.verdict == "complete"
    assert list(GRADES)[-1] == "order"


def test_order_is_wrong_where_the_two_list_their_layers_differently() -> None:
    """Which is why one has to ask for it: the same layers, listed the other way around, are crossed."""
    source = blocks("b", ["east", "west"])
    target = blocks("l", ["western", "eastern"])
    result = match(source, target, answers={"*": "order"})
    assert sources(result)["l.0.western.weight"] == "b.0.east.weight"


def test_order_pairs_nothing_where_one_side_has_more() -> None:
    source, target = blocks("b", ["east", "west", "south"]), blocks("l", ["x", "y"])
    assert sources(match(source, target, answers={"*": "order"})) == {}


def test_an_answer_comes_before_order() -> None:
    source, target = blocks("b", ["east", "west"]), blocks("l", ["x", "y"])
    result = match(source, target, answers={"*": "order", "l.0.x.weight": "b.0.west.weight"})
    assert sources(result)["l.2.x.weight"] == "b.2.west.weight"


def test_none_of_these_leaves_every_place_like_it() -> None:
    source, target = blocks("b", ["east", "west"]), blocks("l", ["x", "y"])
    question = match(source, target).questions[0]
    result = match(source, target, answers={question.target: ""})
    assert sources(result) == {"l.out.weight": "b.out.weight"}
    assert not result.questions
    assert {one.key for one in result.unmatched_target} == {f"l.{n}.{name}.weight" for n in range(3) for name in "xy"}


def test_a_doubt_can_be_denied() -> None:
    source = [layer("h.attention.query_key_value", 24, 8), layer("h.out", 80, 9), layer("h.end", 9, 9)]
    target = [layer("b.attn.qkv", 24, 8), layer("b.last", 80, 9), layer("b.tail", 9, 9)]
    assert match(source, target).questions
    result = match(source, target, answers={"b.attn.qkv.weight": ""})
    assert result.verdict == "partial"
    assert not result.questions
    assert "b.attn.qkv.weight" not in result.assignments
    assert len(result.assignments) == 2
