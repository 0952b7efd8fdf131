"""What match by structure reaches on pairs of real implementations may not fall, and nothing may be wrong.

There are 106 pairs that the rules were made with, and fresh ones of other families, which came later.
The pairs are keys, shapes and dtypes, with the certified origin of certain elements of every target tensor; there are
no values, and neither torch nor the libraries are needed.  `python -m benchmarks.pairs --record` writes them, and
docs/matching.md has the figures with real weights.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
from benchmarks.pairs.origin import MADE_UP, origin

from loadstone.matching.structure import Item, Match, Taken, match

DATA = Path(__file__).parent.parent / "data"
FLOOR = 71  # EQUAL without a question, of the 89 that names and shapes decide
FLOOR_ANSWERED = 85  # after at most three answers, by someone who knows the certified transfer
FRESH_FLOOR = 74  # the same for the fresh ones, of 123
FRESH_FLOOR_ANSWERED = 121
MOST_PLACES = 6  # as in benchmarks/pairs/record.py


@pytest.mark.parametrize(("record", "floor"), [("pairs", FLOOR), ("fresh", FRESH_FLOOR)])
def test_totals_do_not_fall(record: str, floor: int) -> None:
    outcomes = {pair["name"]: outcome(pair, found(pair["name"])) for pair in recorded(record) if is_positive(pair)}
    equal = [name for name, word in outcomes.items() if word == "equal"]
    assert len(equal) >= floor, sorted(set(outcomes) - set(equal))


@pytest.mark.parametrize(("record", "floor"), [("pairs", FLOOR_ANSWERED), ("fresh", FRESH_FLOOR_ANSWERED)])
def test_totals_after_three_answers_do_not_fall(record: str, floor: int) -> None:
    outcomes = {}
    for pair in filter(is_positive, recorded(record)):
        word = outcome(pair, found(pair["name"]))
        outcomes[pair["name"]] = outcome(pair, answered(pair)) if word == "refused" else word
    assert "wrong" not in outcomes.values()
    equal = [name for name, word in outcomes.items() if word == "equal"]
    assert len(equal) >= floor, sorted(set(outcomes) - set(equal))


@pytest.mark.parametrize("kind", ["full", "partial"])
def test_no_tensor_is_filled_wrongly(kind: str) -> None:
    for pair in pairs():
        if pair["kind"] == kind and pair["decidable"] and pair["places"]:
            assert not list(wrong(pair, found(pair["name"]))), pair["name"]


@pytest.mark.parametrize(("record", "number"), [("pairs", 9), ("fresh", 24)])
def test_no_negative_is_complete(record: str, number: int) -> None:
    negatives = [pair for pair in recorded(record) if pair["kind"] == "negative" and pair["decidable"]]
    complete = [pair["name"] for pair in negatives if found(pair["name"]).verdict == "complete"]
    assert len(negatives) == number
    assert not complete


def test_order_of_keys_changes_nothing() -> None:
    for pair in every(5):
        source, target = items(pair)
        dice = random.Random(pair["name"])
        again = match(dice.sample(source, len(source)), dice.sample(target, len(target)))
        assert dict(again.assignments) == dict(found(pair["name"]).assignments), pair["name"]


def test_hashed_names_are_refused_or_right() -> None:
    for pair in every(3):
        source, target = items(pair)
        names = {item.key: re.sub(r"[^./]+", blank, item.key) for item in source}
        hashed = match([replace(item, key=names[item.key]) for item in source], target)
        if pair["places"] and pair["decidable"]:
            assert not list(wrong(pair, hashed, names)), pair["name"]
        if pair["kind"] == "negative" and pair["decidable"]:
            assert hashed.verdict != "complete", pair["name"]


def blank(token: re.Match[str]) -> str:
    return hashlib.md5(token[0].encode()).hexdigest()[:6]


@cache
def recorded(record: str) -> list[dict[str, Any]]:
    return json.loads(lzma.decompress((DATA / f"{record}.json.xz").read_bytes()))


def pairs() -> list[dict[str, Any]]:
    return recorded("pairs") + recorded("fresh")


def every(nth: int) -> list[dict[str, Any]]:
    """Some of the pairs, of every kind."""
    return [pair for n, pair in enumerate(pairs()) if n % nth == 0 or pair["kind"] != "full"]


def is_positive(pair: dict[str, Any]) -> bool:
    return pair["kind"] == "full" and pair["decidable"]


def items(pair: dict[str, Any]) -> tuple[list[Item], list[Item]]:
    same = pair["same"]
    source = [Item(key, tuple(shape), dtype, storage=same.get(key, key)) for key, shape, dtype in pair["source"]]
    target = [Item(key, tuple(shape), *rest) for key, shape, *rest in pair["target"]]
    return source, target


@cache
def found(name: str) -> Match:
    return match(*items(next(pair for pair in pairs() if pair["name"] == name)))


def answered(pair: dict[str, Any]) -> Match:
    """The match after at most three answers; right is what gives the one tensor that is asked about its values."""
    source, target = items(pair)
    answers: dict[str, str] = {}
    passed: set[str] = set()
    result = found(pair["name"])
    for _ in range(3):
        question = next((each for each in result.questions if each.target not in passed), None)
        if question is None:
            break
        passed.add(question.target)
        for option in question.options:
            attempt = match(source, target, answers={**answers, question.target: option})
            if question.target in attempt.assignments and not any(
                text.startswith(f"{question.target}[") for text in wrong(pair, attempt)
            ):
                answers[question.target], result = option, attempt
                break
    return result


def outcome(pair: dict[str, Any], result: Match) -> str:
    if not pair["places"]:
        return "not certified"
    if list(wrong(pair, result)):
        return "wrong"
    return "equal" if result.assignments.keys() >= pair["places"].keys() else "refused"


def wrong(pair: dict[str, Any], result: Match, names: dict[str, str] | None = None) -> Iterator[str]:
    """Target keys that get elements from elsewhere than the certified transfer takes them."""
    shapes = {key: tuple(shape) for key, shape, _ in pair["source"]}
    own = {(names or {}).get(key, key): key for key in shapes}
    known = {name: shapes[key] for name, key in own.items()}
    same = pair["same"]  # a tied tensor of a file has two keys: either is right
    for target, shape, *_ in pair["target"]:
        certified = pair["places"].get(target)
        if certified is None or target not in result.assignments:
            continue
        for n, place in enumerate(places(prod(shape))):
            want = (certified, place) if isinstance(certified, str) else tuple(certified[n])
            want = want if want[1] >= 0 else MADE_UP
            key, element = origin(result.assignments[target], tuple(shape), place, known)
            mine = own.get(key, key)
            if (same.get(mine, mine), element) != want:
                yield f"{target}[{place}] is {mine}[{element}], not {want}"
                break


def places(elements: int) -> list[int]:
    return sorted({*(elements * k // (MOST_PLACES - 1) for k in range(MOST_PLACES - 1)), max(elements - 1, 0)})


def test_a_swap_inside_a_match_is_seen() -> None:
    """The certificate has power: two tensors of one shape exchanged are both named."""
    pair = next(pair for pair in pairs() if pair["name"] == "resnet18 reordered tv->own")
    result = found(pair["name"])
    one, other = "stage1.0.conv_a.weight", "stage1.1.conv_a.weight"
    swapped = dict(result.assignments)
    swapped[one], swapped[other] = (
        replace(swapped[key], sources=(Taken(swapped[peer].sources[0].key),))
        for key, peer in ((one, other), (other, one))
    )
    assert [text.split("[")[0] for text in wrong(pair, replace(result, assignments=swapped))] == [one, other]
