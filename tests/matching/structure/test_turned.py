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


# stacks without a bias ---------------------------------------------------------------------------------------------

PARTS = ("q", "k", "v", "o", "up", "down")
THEIRS = {"q": "mix.q", "k": "mix.k", "v": "mix.v", "o": "mix.last", "up": "feed.amber", "down": "feed.birch"}
OURS = {"q": "attn.q", "k": "attn.k", "v": "attn.v", "o": "attn.join", "up": "mlp.stone", "down": "mlp.tidal"}


class Stack:
    """Blocks of matrices, every one of which a side stores as it is or turned."""

    def __init__(self, depth: int = 2, width: int = 6, keys: int = 6, hidden: int = 24, is_gated: bool = False) -> None:
        shapes = {"q": (width, width), "k": (keys, width), "v": (keys, width), "o": (width, width)}
        shapes |= {"up": (hidden, width), "down": (width, hidden)} | ({"gate": (hidden, width)} if is_gated else {})
        made = numbers([Item(f"{n} {part}", shape) for n in range(depth) for part, shape in shapes.items()])
        self.matrices = {tuple(key.split()): matrix for key, matrix in made.items()}

    def written(self, block: str, names: Mapping[str, str], *, turned: bool = False) -> dict[str, Any]:
        """A state dict; parts of one name are joined."""
        whole: dict[str, list[Any]] = {}
        for (n, part), matrix in self.matrices.items():
            whole.setdefault(f"{block}.{n}.{names[part]}.weight", []).append(matrix)
        joined = {key: torch.cat(matrices) for key, matrices in whole.items()}
        return {key: matrix.T.contiguous() if turned else matrix for key, matrix in joined.items()}


def items_of(values: Mapping[str, Any]) -> list[Item]:
    return [Item(key, tuple(value.shape)) for key, value in values.items()]


def filled(source: Mapping[str, Any], target: Mapping[str, Any], answers: Mapping[str, str] | None = None) -> Match:
    """The match, after every tensor that it fills was found to be right."""
    result = match(items_of(source), items_of(target), answers=answers or {})
    for key in result.assignments:
        assert torch.equal(made(result, key, source), target[key]), key
    return result


@pytest.mark.parametrize("is_turned", [(False, False), (False, True), (True, False)])
def test_a_stack_that_fits_both_ways_is_one_question_and_its_answer_settles_all(is_turned: tuple[bool, bool]) -> None:
    stack = Stack()
    source = stack.written("h", THEIRS, turned=is_turned[0])
    target = stack.written("blocks", OURS, turned=is_turned[1])
    asked = filled(source, target)
    [question] = [each for each in asked.questions if each.kind == "turned"]
    assert asked.assignments == {}
    [answer] = [option for option in question.options if option.endswith("| t()") is (is_turned != (False, False))]
    assert filled(source, target, {question.target: answer}).verdict == "complete"


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("stack", "joins"),
    [
        (Stack(keys=3), {}),
        (Stack(is_gated=True), {}),
        (Stack(), {"q": "attn.qkv", "k": "attn.qkv", "v": "attn.qkv"}),
        (Stack(keys=2), {"k": "attn.kv", "v": "attn.kv"}),
    ],
    ids=["fewer keys", "gated", "joined", "keys and values joined"],
)
def test_shapes_that_fit_one_way_alone_turn_the_squares_beside_them(
    stack: Stack, joins: dict[str, str], which: int
) -> None:
    names = {**OURS, "gate": "mlp.gate", **joins}
    theirs = {**THEIRS, "gate": "feed.gate", **(joins if "q" in joins else {})}
    source = stack.written("h", theirs, turned=which == 0)
    target = stack.written("blocks", names, turned=which == 1)
    result = filled(source, target)
    assert result.verdict == "complete" or [each.kind for each in result.questions] == ["pick"]
    assert all(key in result.assignments for key in target if "attn" in key)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("w1", "w2"), ("0", "2")), (("fc_in", "fc_out"), ("in", "out")), (("wi", "wo"), ("w_in", "w_out"))],
)
def test_names_of_up_and_down_that_agree_leave_nothing_to_ask(one: tuple[str, str], other: tuple[str, str]) -> None:
    theirs, ours = ({**names, "up": pair[0], "down": pair[1]} for names, pair in ((THEIRS, one), (OURS, other)))
    assert filled(Stack().written("h", theirs), Stack().written("blocks", ours)).verdict == "complete"
    assert filled(Stack().written("h", theirs, turned=True), Stack().written("blocks", ours)).assignments == {}


def test_the_evidence_says_what_was_assumed_of_square_matrices() -> None:
    source = {f"h.{n}.{name}.weight": numbers([Item("", (4, 4))])[""] for n in range(3) for name in ("q", "k")}
    result = filled(source, {key.replace("h.", "layers."): value for key, value in source.items()})
    assert result.verdict == "complete"
    assert all(one.evidence.endswith("nothing shows") for one in result.assignments.values())
