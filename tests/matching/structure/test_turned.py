"""Matrices stored the other way round, and tensors of a layer that lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from loadstone.matching.step_shapes import carried_out
from loadstone.matching.structure import Item, Match, match

torch = pytest.importorskip("torch")


def numbers(items: list[Item]) -> dict[str, Any]:
    """Values that are all different."""
    counter = iter(range(10**9))
    return {item.key: torch.tensor([next(counter) for _ in range(item.elements)]).view(item.shape) for item in items}


def made(result: Match, key: str, values: Mapping[str, Any]) -> Any:
    one = result.assignments[key]
    return carried_out(torch.cat([carried_out(values[taken.key], taken.steps) for taken in one.sources]), one.steps)


def linear(path: str, outputs: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (outputs, inputs)), Item(f"{path}.bias", (outputs,))]


def turned(path: str, outputs: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (inputs, outputs)), Item(f"{path}.bias", (outputs,))]


def graph_layers(path: str, widths: list[int]) -> list[Item]:
    """The bias lies in the container, the matrix in a linear layer inside."""
    found = []
    for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
        found.append(Item(f"{path}{number}.bias", (outputs,)))
        found.append(Item(f"{path}{number}.lin.weight", (outputs, inputs)))
    return found


def test_a_bias_beside_the_container_of_its_weight_is_found_and_says_that_all_are_turned() -> None:
    widths = [24, 32, 32, 7]
    source = [item for number, (i, o) in enumerate(pairwise(widths), 1) for item in turned(f"gc{number}", o, i)]
    target = graph_layers("conv", widths)
    result = match(source, target)
    assert result.verdict == "complete"
    values = numbers(source)
    for number in (1, 2, 3):
        weight = values[f"gc{number}.weight"]
        assert torch.equal(made(result, f"conv{number}.lin.weight", values), weight.T)
        assert torch.equal(made(result, f"conv{number}.bias", values), values[f"gc{number}.bias"])
    values = numbers(target)
    back = match(target, source)
    assert torch.equal(made(back, "gc2.weight", values), values["conv2.lin.weight"].T)


def test_a_bias_of_a_container_with_two_bare_matrices_belongs_to_neither() -> None:
    source = [Item("mix.bias", (8,)), Item("mix.one.weight", (8, 8)), Item("mix.other.weight", (8, 8))]
    target = [*linear("first", 8, 8), Item("second.weight", (8, 8))]
    assert not any(one.sources[0].key.endswith("weight") for one in match(source, target).assignments.values())


def cell(number: int, inputs: int) -> list[Item]:
    return [
        Item(f"cells.{number}.kernel", (inputs, 96)), Item(f"cells.{number}.recurrent", (32, 96)),
        Item(f"cells.{number}.kernel_bias", (96,)), Item(f"cells.{number}.recurrent_bias", (96,)),
    ]  # fmt: skip


def level(number: int, inputs: int) -> list[Item]:
    return [
        Item(f"rnn.weight_ih_l{number}", (96, inputs)), Item(f"rnn.weight_hh_l{number}", (96, 32)),
        Item(f"rnn.bias_ih_l{number}", (96,)), Item(f"rnn.bias_hh_l{number}", (96,)),
    ]  # fmt: skip


def test_biases_named_after_their_matrices_leave_only_the_order_of_gates_open() -> None:
    source, target = [*level(0, 24), *level(1, 32)], [*cell(0, 24), *cell(1, 32)]
    asked = match(source, target)
    assert [(question.kind, question.places) for question in asked.questions] == [("gates", 4)]
    result = match(source, target, answers={asked.questions[0].target: asked.questions[0].options[0]})
    assert result.verdict == "complete"
    values = numbers(source)
    assert torch.equal(made(result, "cells.1.recurrent", values), values["rnn.weight_hh_l1"].T)
    assert torch.equal(made(result, "cells.1.kernel_bias", values), values["rnn.bias_ih_l1"])
