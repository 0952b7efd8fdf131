"""Folding loses no key and shows none that does not exist."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadstone.keys import unfold
from loadstone.matching.schema import Slot
from loadstone.screens.folding import fold, rows


def tensors(shapes):
    return {key: Slot(key, "float32", shape) for key, shape in shapes.items()}


def fold_shapes(shapes):
    return fold(tensors(shapes), dict.fromkeys(shapes, "f32"))


def spelled_out(groups, prefix=""):
    """Every key that the groups stand for."""
    keys = []
    for group in groups:
        if group.children:
            keys += spelled_out(group.children, prefix + group.label + ".")
        else:
            keys += unfold([prefix + group.label])
    return keys


parts = st.sampled_from(
    ["0", "1", "2", "3", "10", "01", "h", "fc", "fc1", "fc2", "weight", "bias", "a{b", "a,b", "", "é"]
)
shapes = st.dictionaries(
    st.lists(parts, min_size=1, max_size=5).map(".".join), st.sampled_from([(1,), (2,), (2, 3)]), max_size=40
)


@given(shapes)
def test_the_groups_stand_for_exactly_the_keys(shapes):
    assert sorted(spelled_out(fold_shapes(shapes))) == sorted(shapes)


@given(shapes)
def test_totals_are_those_of_the_tensors(shapes):
    groups = fold_shapes(shapes)
    slots = tensors(shapes).values()
    assert sum(group.tensors for group in groups) == len(shapes)
    assert sum(group.nbytes for group in groups) == sum(slot.nbytes for slot in slots)
    assert sum(group.elements for group in groups) == sum(slot.elements for slot in slots)


@given(shapes, st.integers(1, 30))
def test_rows_stay_within_the_limit_and_lose_nothing(shapes, limit):
    groups = fold_shapes(shapes)
    drawn = rows(groups, limit)
    assert len(drawn) <= max(limit, len(groups))
    tops = [row for row in drawn if not row.rails]
    assert sum(row.group.tensors for row in tops) == len(shapes)


def test_equal_blocks_become_one(made):
    (*_, block, last) = fold_shapes(made.gpt2())
    assert (block.label, block.repeats, block.tensors) == ("h.{0..11}", 12, 156)
    assert last.label == "ln_f.{weight,bias}"


def test_a_block_that_differs_stays_apart(made):
    shapes = made.gpt2() | {"h.5.mlp.c_fc.bias": (3073,)}
    labels = [group.label for group in fold_shapes(shapes)[2].children] + [fold_shapes(shapes)[2].label]
    assert "{0..4,6..11}" in labels
    assert "5" in labels


def test_one_other_dtype_keeps_a_block_apart(made):
    slots = tensors(made.gpt2())
    kinds = dict.fromkeys(slots, "f32") | {"h.5.mlp.c_fc.bias": "bf16"}
    assert "5" in [child.label for group in fold(slots, kinds) for child in group.children]


def test_the_largest_blocks_are_opened_first():
    shapes = {f"small.{n}": (n + 1,) for n in range(20)} | {f"large.{n}": (n + 1000,) for n in range(20)}
    labels = [row.label for row in rows(fold_shapes(shapes), 25)]
    assert "large.0" in labels
    assert "small" in labels


def test_a_key_of_a_thousand_parts_does_not_exhaust_the_stack():
    assert sum(group.tensors for group in fold_shapes({"a." * 100_000 + "b": (1,), "a." * 99_999 + "c": (1,)})) == 2
