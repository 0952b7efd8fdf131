"""Generated networks under two engineers' names: nothing may be filled with anything but its own part."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from benchmarks.pairs.styles.judge import judged, wrong
from benchmarks.pairs.styles.kinds import BY_HEIGHT, KINDS, Sort, drawn

from loadstone.matching.structure import match

KINDS_AND_SORTS = [(kind, sort) for kind in KINDS for sort in get_args(Sort)]
FEW, MANY = range(4), range(4, 64)  # seeds
OPEN = 2  # of MANY: a name or a number that happens to contradict the truth


@pytest.mark.parametrize(("kind", "sort"), KINDS_AND_SORTS)
def test_nothing_is_filled_wrongly(kind: str, sort: Sort) -> None:
    for seed in FEW:
        pair = drawn(kind, sort, seed)
        finding = judged(pair, answers=0)
        assert not finding.wrong or pair.known, (seed, finding.wrong[:2])


@pytest.mark.parametrize(
    ("kind", "sort", "seed"),
    [
        ("crossing", "whole", 1009),  # `enc` is `encoder` elsewhere, and EncDecAttention lies in the decoder
        ("crossing", "partial", 401),
        ("towers", "whole", 9019),  # the `q` of `query_encoder` says nothing of what lies in it
        ("vision", "partial", 409),  # `proj` is `proj` elsewhere, and `v_proj` is not `c_proj`
    ],
)
def test_what_was_filled_wrongly_once_is_not(kind: str, sort: Sort, seed: int) -> None:
    assert not judged(drawn(kind, sort, seed)).wrong


@pytest.mark.long
@pytest.mark.parametrize(("kind", "sort"), KINDS_AND_SORTS)
def test_hardly_anything_is_filled_wrongly_after_right_answers(kind: str, sort: Sort) -> None:
    pairs = [drawn(kind, sort, seed) for seed in MANY]
    bad = [seed for seed, pair in zip(MANY, pairs, strict=True) if not pair.known and judged(pair).wrong]
    assert len(bad) <= OPEN, bad


@pytest.mark.parametrize("kind", ["residual", "dense", "inverted", "plain"])
def test_most_of_what_shapes_and_numbers_decide_needs_no_question(kind: str) -> None:
    findings = [judged(drawn(kind, "whole", seed), answers=0) for seed in range(10)]
    assert sum(finding.is_equal for finding in findings) >= 7


def test_the_judge_sees_two_parts_exchanged() -> None:
    pair = drawn("residual", "whole", 1)
    found = match(pair.source.items, pair.target.items)
    assert not list(wrong(pair, found))
    by_shape: dict[tuple[int, ...], str] = {}
    for item in pair.target.items:
        other = by_shape.setdefault(item.shape, item.key)
        if other != item.key and len(item.shape) == 4:
            break
    one, two = found.assignments[item.key], found.assignments[other]
    swapped = dict(found.assignments)
    swapped[item.key], swapped[other] = replace(one, sources=two.sources), replace(two, sources=one.sources)
    assert [each.target for each in wrong(pair, replace(found, assignments=swapped))] == sorted(
        [item.key, other], key=list(found.assignments).index
    )


def test_a_known_class_is_really_open() -> None:
    """Levels of one width that one side counts downwards; once this passes without it, the class is closed."""
    open_ones = [pair for seed in range(80) if (pair := drawn("unet", "whole", seed)).known == BY_HEIGHT]
    assert open_ones
    assert all(judged(pair, answers=0).wrong for pair in open_ones[:3])
