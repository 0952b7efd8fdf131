"""Rules say exactly what was found: written, read and expanded, every assignment comes back."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.matching.key_rules import check_rules, expand, rules_for
from loadstone.matching.step_shapes import carried_out, tidied
from loadstone.matching.structure.expressions import expression, parse
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Step, inverse

words = st.sampled_from(["conv", "norm", "layer1", "block-2", "a.b", "0", "10", "07", "x{y", "q + r", "*"])
keys = st.lists(words, min_size=1, max_size=4).map(".".join)


@st.composite
def steps_for(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["reshape", "permute", "narrow", "regroup", "blocks"]))
        if kind == "reshape":
            steps.append(Reshape((shape[0], prod(shape[1:]))))
            shape = (shape[0], prod(shape[1:]))
        elif kind == "permute":
            dims = tuple(draw(st.permutations(range(len(shape)))))
            steps.append(Permute(dims))
            shape = tuple(shape[dim] for dim in dims)
        elif kind == "regroup":
            axis = draw(st.integers(0, len(shape) - 1))
            part = draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
            sizes = draw(st.sampled_from([(part, -1), (-1, part), (-1, 1, part), (part, shape[axis] // part)]))
            steps.append(Regroup(axis, sizes, tuple(draw(st.permutations(range(len(sizes)))))))
        elif kind == "blocks":
            axis = draw(st.integers(0, len(shape) - 1))
            count = draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
            steps.append(Blocks(axis, tuple(draw(st.permutations(range(count))))))
        else:
            start = draw(st.integers(0, shape[0] - 1))
            length = draw(st.integers(1, shape[0] - start))
            steps.append(Narrow(start, length))
            shape = (length, *shape[1:])
    return tuple(steps)


@st.composite
def found(draw: st.DrawFn) -> tuple[dict[str, Assignment], dict[str, tuple[int, ...]], list[str]]:
    """Assignments, the shapes of the checkpoint's keys, and keys of the model that nothing fills."""
    shapes = {key: (draw(st.integers(1, 6)), 4, 3) for key in draw(st.lists(keys, min_size=1, max_size=8, unique=True))}
    assignments = {}
    for target in draw(st.lists(keys, max_size=8, unique=True)):
        names = draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=3, unique=True))
        sources = [Taken(name) for name in names]
        steps = draw(steps_for((sum(shapes[name][0] for name in names), 4, 3)))
        assignments[target] = tidied(Assignment(target, tuple(sources), steps, "forced", ""), shapes)
    others = [key for key in draw(st.lists(keys, max_size=4, unique=True)) if key not in assignments]
    return assignments, shapes, others


@given(found())
def test_rules_give_back_what_they_were_made_of_and_no_more(made) -> None:
    assignments, shapes, others = made
    rules = rules_for(assignments, shapes, [*assignments, *others])
    if not rules:
        return
    check_rules(rules, "a recipe")
    said = expand(rules, [*assignments, *others])
    assert said.keys() == assignments.keys()
    for target, (text, rule) in said.items():
        read = rule.read(text, target, shapes)
        assert (read.sources, read.steps) == (assignments[target].sources, assignments[target].steps)


def test_plain_keys_are_always_written() -> None:
    shapes = {f"layer{stage}.{block}.conv.weight": (4, 3) for stage in (1, 2) for block in (0, 1)}
    assignments = {
        f"stages.{stage - 1}.{block}.weight": Assignment(
            f"stages.{stage - 1}.{block}.weight", (Taken(f"layer{stage}.{block}.conv.weight"),), (), "forced", ""
        )
        for stage in (1, 2)
        for block in (0, 1)
    }
    assert rules_for(assignments, shapes, assignments) == {"stages.{a}.{b}.weight": "layer{a+1}.{b}.conv.weight"}


def test_parts_are_counted_where_they_are_equal_and_named_by_rows_where_not() -> None:
    def text(*steps: Step) -> str:
        return expression(Assignment("t", (Taken("s"),), steps, "forced", ""), {"s": (12, 4)})

    assert text(Narrow(4, 4)) == "s | chunk(1, 3)"
    assert text(Narrow(3, 4)) == "s | rows(3, 4)"
    assert text(Permute((1, 0)), Reshape((2, 24))) == "s | t() | reshape(2, 24)"


@given(st.data())
def test_what_can_be_undone_leads_back(data) -> None:
    shape = (data.draw(st.integers(1, 6)), 4, 3)
    steps = tuple(step for step in data.draw(steps_for(shape)) if not isinstance(step, Narrow))
    values = np.arange(prod(shape)).reshape(shape)
    try:
        back = inverse(steps, shape)
    except ValueError:  # without the part that was cut out, the rest does not fit
        return
    assert np.array_equal(carried_out(carried_out(Turnable(values), steps), back).values, values)


class Turnable:
    """An array with the few methods of a tensor that steps need."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape = values.shape

    def reshape(self, shape: tuple[int, ...]) -> Turnable:
        return Turnable(self.values.reshape(shape))

    def permute(self, dims: tuple[int, ...]) -> Turnable:
        return Turnable(self.values.transpose(dims))

    def __getitem__(self, index: tuple[object, ...]) -> Turnable:
        return Turnable(self.values[index])


def test_rows_that_are_left_out_do_not_come_back() -> None:
    with pytest.raises(ValueError, match="3 of 4 rows"):
        inverse([Narrow(0, 3)], (4, 2))


@pytest.mark.parametrize(
    "text",
    [
        "blocks(0; 0, 2)", "blocks(0; 1, 1)", "blocks(0)", "blocks(0; )", "blocks(-1; 1, 0)", "blocks(0, 1)",
        "regroup(0; -1, -1; 1, 0)", "regroup(0; 2, 2; 1)", "regroup(0; 0, 2; 1, 0)", "regroup(0; 2 2; 1, 0)",
        "reshape(-1, 4)", "rows(-1, 2)", "chunk(3, 3)", "t(0)", "permute(0; 1)", "blocks(0; --1)",
    ],
)  # fmt: skip
def test_a_step_that_means_nothing_is_refused(text) -> None:
    with pytest.raises(ValueError, match="is no step"):
        parse(f"key | {text}", "target", {})


@pytest.mark.parametrize("text", ["blocks(0; 4, 3, 2, 1, 0)", "blocks(2; 1, 0)", "regroup(1; 5, -1; 1, 0)"])
def test_a_step_that_cannot_be_done_to_this_shape_is_refused(text) -> None:
    with pytest.raises(ValueError, match="cannot be done"):
        parse(f"key | {text}", "target", {"key": (6, 4)})
