"""Orders inside a layer: asked for, answered by steps, and carried to every tensor and every place alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from loadstone.matching.step_shapes import carried_out
from loadstone.matching.structure import Item, Match, match


class Array:
    """An array with the few methods of a tensor that steps need."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape = values.shape

    def reshape(self, shape: tuple[int, ...]) -> Array:
        return Array(self.values.reshape(shape))

    def permute(self, dims: tuple[int, ...]) -> Array:
        return Array(self.values.transpose(dims))

    def narrow(self, axis: int, start: int, length: int) -> Array:
        return Array(self.values.take(range(start, start + length), axis))

    def __getitem__(self, index: tuple[object, ...]) -> Array:
        return Array(self.values[index])


def numbers(items: list[Item]) -> dict[str, np.ndarray]:
    """Values that are all different."""
    found, start = {}, 0
    for item in items:
        found[item.key] = np.arange(start, start + item.elements).reshape(item.shape)
        start += item.elements
    return found


def made(result: Match, key: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
    one = result.assignments[key]
    parts = [carried_out(Array(values[taken.key]), taken.steps).values for taken in one.sources]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return carried_out(Array(whole), one.steps).values


def linear(path: str, outputs: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (outputs, inputs)), Item(f"{path}.bias", (outputs,))]


# gates ---------------------------------------------------------------------------------------------------------------

CELL = [*linear("rnn.x", 16, 3), *linear("rnn.h", 16, 4)]
TORCH = [
    Item("lstm.weight_ih_l0", (16, 3)), Item("lstm.weight_hh_l0", (16, 4)),
    Item("lstm.bias_ih_l0", (16,)), Item("lstm.bias_hh_l0", (16,)),
]  # fmt: skip


def test_the_gates_of_one_cell_are_one_question() -> None:
    [question] = match(CELL, TORCH).questions
    assert (question.kind, question.places) == ("gates", 2)


def test_gates_in_another_order_change_places_in_weights_and_biases_of_both_matrices() -> None:
    [question] = match(CELL, TORCH).questions
    text = f"{question.options[0]} | blocks(0; 0, 1, 3, 2)"
    result = match(CELL, TORCH, answers={question.target: text})
    assert result.verdict == "complete"
    values = numbers(CELL)
    order = [*range(8), *range(12, 16), *range(8, 12)]
    for word, name in (("ih", "x"), ("hh", "h")):
        for leaf in ("weight", "bias"):
            assert np.array_equal(made(result, f"lstm.{leaf}_{word}_l0", values), values[f"rnn.{name}.{leaf}"][order])


# heads and rotary positions ------------------------------------------------------------------------------------------


def stacked(path: str, layers: int) -> list[Item]:
    return [item for number in range(layers) for item in linear(path.format(number), 24, 8)]


def test_heads_become_parts_in_every_block() -> None:
    source, target = stacked("h.{}.query_key_value", 2), stacked("blocks.{}.qkv", 2)
    [question] = match(source, target).questions
    assert question.kind == "heads"
    text = f"{question.options[0]} | regroup(0; -1, 3, 4; 1, 0, 2)"
    result = match(source, target, answers={question.target: text})
    values = numbers(source)
    for number in range(2):
        rows = np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2).reshape(24)
        for leaf in ("weight", "bias"):
            expected = values[f"h.{number}.query_key_value.{leaf}"][rows]
            assert np.array_equal(made(result, f"blocks.{number}.qkv.{leaf}", values), expected)


def test_heads_are_cut_into_q_k_and_v() -> None:
    source = linear("attention.query_key_value", 24, 8)
    target = [item for name in "qkv" for item in linear(f"attn.{name}_proj", 8, 8)]
    [question] = match(source, target).questions
    text = f"{question.options[0]} | regroup(0; -1, 3, 4; 1, 0, 2)"
    result = match(source, target, answers={question.target: text})
    values = numbers(source)
    for part, name in enumerate("qkv"):
        whole = values["attention.query_key_value.bias"].reshape(2, 3, 4)[:, part].reshape(8)
        assert np.array_equal(made(result, f"attn.{name}_proj.bias", values), whole)


def decoder(names: str, kv: int) -> list[Item]:
    found = [Item("embed.weight", (50, 16))]
    for number in range(2):
        rows = (16, kv, kv)
        for name, outputs in zip(("q", "k", "v"), rows, strict=True):
            found.append(Item(f"layers.{number}.{names.format(name)}.weight", (outputs, 16)))
    return found


def test_rotary_halves_become_neighbours_in_q_and_k_of_every_block_and_v_stays() -> None:
    source, target = decoder("w{}", 16), decoder("{}_proj", 16)
    source = [Item(item.key.replace("wq", "q").replace("wk", "k").replace("wv", "v"), item.shape) for item in source]
    [question] = match(source, target).questions
    assert question.kind == "rotary"
    text = f"{question.options[0]} | regroup(0; -1, 2, 4; 0, 2, 1)"
    result = match(source, target, answers={question.target: text})
    assert result.verdict == "complete"
    values = numbers(source)
    rows = np.arange(16).reshape(2, 2, 4).transpose(0, 2, 1).reshape(16)
    for number in range(2):
        for name, order in (("q", rows), ("k", rows), ("v", np.arange(16))):
            expected = values[f"layers.{number}.{name}.weight"][order]
            assert np.array_equal(made(result, f"layers.{number}.{name}_proj.weight", values), expected)


def test_parts_of_a_stacked_projection_are_reordered_alone() -> None:
    source = [*linear("a.wqkv", 48, 16), Item("embed.weight", (50, 16))]
    target = [*[item for name in "qkv" for item in linear(f"b.{name}_proj", 16, 16)], Item("tokens.weight", (50, 16))]
    [question] = match(source, target).questions
    key = question.options[0]
    turned = "regroup(0; -1, 2, 4; 0, 2, 1)"
    text = f"({key} | chunk(0, 3) | {turned}) + ({key} | chunk(1, 3) | {turned}) + ({key} | chunk(2, 3))"
    result = match(source, target, answers={question.target: text})
    rows = np.arange(16).reshape(2, 2, 4).transpose(0, 2, 1).reshape(16)
    values = numbers(source)
    for part, (name, order) in enumerate((("q", rows), ("k", rows), ("v", np.arange(16)))):
        for leaf in ("weight", "bias"):
            expected = values[f"a.wqkv.{leaf}"][16 * part :][:16][order]
            assert np.array_equal(made(result, f"b.{name}_proj.{leaf}", values), expected)


# gate and up ---------------------------------------------------------------------------------------------------------


def gated(*names: str, blocks: int = 2) -> list[Item]:
    """Blocks of a gated MLP: the layers into it apart, or in one, and the layer out of it, which is named last."""
    into = 12 if len(names) == 3 else 24
    items = [Item("norm.weight", (8,))]
    for number in range(blocks):
        for name in names[:-1]:
            items += linear(f"layers.{number}.mlp.{name}", into, 8)
        items += linear(f"layers.{number}.mlp.{names[-1]}", 8, 12)
    return items


@pytest.mark.parametrize(
    ("apart", "joined", "order"),
    [
        (("gate_proj", "up_proj", "down"), "gate_up_proj", (0, 1)),
        (("up_proj", "gate_proj", "down"), "gate_up_proj", (1, 0)),
        (("w1", "w2", "w3"), "w12", (0, 1)),
    ],
)
def test_gate_and_up_are_joined_in_the_order_that_the_joined_name_says(apart, joined, order) -> None:
    source, target = gated(*apart), gated(joined, "out")
    result = match(source, target)
    assert (result.verdict, result.questions) == ("complete", ())
    values = numbers(source)
    parts = [values[f"layers.1.mlp.{apart[at]}.bias"] for at in order]
    assert np.array_equal(made(result, f"layers.1.mlp.{joined}.bias", values), np.concatenate(parts))
    back = match(target, source)
    assert back.verdict == "complete"
    values = numbers(target)
    half = values[f"layers.1.mlp.{joined}.weight"][:12]
    assert np.array_equal(made(back, f"layers.1.mlp.{apart[order[0]]}.weight", values), half)


@pytest.mark.parametrize(("apart", "joined"), [(("w1", "w3", "w2"), "w12"), (("fc1_g", "fc1_x", "fc2"), "fc1")])
def test_where_the_joined_name_does_not_say_the_order_both_are_offered_once_for_all_blocks(apart, joined) -> None:
    source, target = gated(*apart), gated(joined, "out")
    for one, other in ((source, target), (target, source)):
        [question] = match(one, other).questions
        assert (question.kind, question.places, len(question.options)) == ("order", 2, 2)
        values, found = numbers(one), []
        for option in question.options:
            result = match(one, other, answers={question.target: option})
            assert result.verdict == "complete"
            found.append(made(result, question.target.replace("0", "1"), values))
        assert not np.array_equal(*found)
    assert np.array_equal(found[0], values[f"layers.1.mlp.{joined}.weight"][:12])
    assert np.array_equal(found[1], values[f"layers.1.mlp.{joined}.weight"][12:])


def test_which_half_is_the_gate_is_asked_where_both_sides_stack_them_under_other_names() -> None:
    assert not match(gated("fc1", "fc2"), gated("fc1", "out")).questions
    source, target = gated("fc1", "fc2"), gated("w12", "out")
    [question] = match(source, target).questions
    assert (question.kind, question.places, len(question.options)) == ("order", 2, 2)
    result = match(source, target, answers={question.target: question.options[1]})
    values = numbers(source)
    turned = np.roll(values["layers.1.mlp.fc1.bias"], 12)
    assert np.array_equal(made(result, "layers.1.mlp.w12.bias", values), turned)


def test_k_and_v_in_one_are_no_gated_layer() -> None:
    source, target = (linear(f"{path}.kv", 16, 8) + linear(f"{path}.out", 8, 8) for path in ("cross", "attention"))
    assert match(source, [Item(item.key.replace("kv", "to_kv"), item.shape) for item in target]).verdict == "complete"


def test_three_siblings_of_one_shape_are_no_pair() -> None:
    source = [*gated("a", "b", "c"), *linear("layers.0.mlp.d", 12, 8), *linear("layers.1.mlp.d", 12, 8)]
    assert not any(len(one.sources) > 1 for one in match(source, gated("fc1", "out")).assignments.values())


# experts -------------------------------------------------------------------------------------------------------------


def experts(bias: bool = False) -> list[Item]:
    shapes = {"up": (12, 8), "down": (8, 12)}
    items = [Item(f"layers.{block}.router.weight", (3, 8)) for block in range(2)]
    for block, number, name in ((b, n, name) for b in range(2) for n in range(3) for name in shapes):
        items.append(Item(f"layers.{block}.experts.{number}.{name}.weight", shapes[name]))
        items += [Item(f"layers.{block}.experts.{number}.{name}.bias", shapes[name][:1])] if bias else []
    return items


def in_one(up: tuple[int, ...], down: tuple[int, ...], bias: bool = False) -> list[Item]:
    items = [Item(f"blocks.{block}.gate.weight", (3, 8)) for block in range(2)]
    for block in range(2):
        items += [Item(f"blocks.{block}.mlp.wi", (3, *up)), Item(f"blocks.{block}.mlp.wo", (3, *down))]
        if bias:
            items += [Item(f"blocks.{block}.mlp.wi_bias", (3, 12)), Item(f"blocks.{block}.mlp.wo_bias", (3, 8))]
    return items


@pytest.mark.parametrize("turned", [False, True])
def test_biases_of_experts_say_which_way_their_matrices_are_stored(turned) -> None:
    source = experts(bias=True)
    target = in_one((8, 12), (12, 8), bias=True) if turned else in_one((12, 8), (8, 12), bias=True)
    result = match(source, target)
    assert (result.verdict, result.questions) == ("complete", ())
    values = numbers(source)
    rows = [values[f"layers.1.experts.{number}.up.weight"] for number in range(3)]
    assert np.array_equal(made(result, "blocks.1.mlp.wi", values), np.stack([row.T if turned else row for row in rows]))
    biases = np.stack([values[f"layers.1.experts.{number}.down.bias"] for number in range(3)])
    assert np.array_equal(made(result, "blocks.1.mlp.wo_bias", values), biases)
    back, values = match(target, source), numbers(target)
    assert back.verdict == "complete"
    stored = values["blocks.1.mlp.wi"][2]
    assert np.array_equal(made(back, "layers.1.experts.2.up.weight", values), stored.T if turned else stored)
    assert np.array_equal(made(back, "layers.1.experts.2.up.bias", values), values["blocks.1.mlp.wi_bias"][2])


def test_experts_without_a_bias_and_without_a_gate_may_be_stored_either_way_and_are_asked_about() -> None:
    result = match(experts(), in_one((12, 8), (8, 12)))
    assert not any("mlp" in key for key in result.assignments)
    assert result.questions


def test_another_number_of_experts_is_not_stacked() -> None:
    fewer = [item for item in experts(bias=True) if ".experts.2." not in item.key]
    assert match(fewer, in_one((12, 8), (8, 12), bias=True)).verdict == "refused"


# what was not asked --------------------------------------------------------------------------------------------------


def up_path(word: str, convolution: str) -> list[Item]:
    return [Item(f"{word}{number}.{convolution}.weight", (8, 16, 3, 3)) for number in (1, 2)]


def test_halves_of_a_joined_input_change_places_though_nothing_was_asked() -> None:
    source, target = up_path("up", "conv"), up_path("decoder.", "double")
    assert not match(source, target).questions
    text = "up1.conv.weight | blocks(1; 1, 0)"
    result = match(source, target, answers={"decoder.1.double.weight": text})
    values = numbers(source)
    for number in (1, 2):
        weight = values[f"up{number}.conv.weight"]
        expected = np.concatenate([weight[:, 8:], weight[:, :8]], 1)
        assert np.array_equal(made(result, f"decoder.{number}.double.weight", values), expected)


def test_a_place_where_the_order_does_not_fit_is_asked_about_and_not_taken_as_it_is() -> None:
    source = [*up_path("up", "conv"), Item("up3.conv.weight", (8, 15, 3, 3))]
    target = [*up_path("decoder.", "double"), Item("decoder.3.double.weight", (8, 15, 3, 3))]
    text = "up1.conv.weight | blocks(1; 1, 0)"
    result = match(source, target, answers={"decoder.1.double.weight": text})
    assert "decoder.3.double.weight" not in result.assignments
    assert [question.target for question in result.questions] == ["decoder.3.double.weight"]


def test_two_orders_said_of_places_alike_hold_for_those_two_alone() -> None:
    source = [*up_path("up", "conv"), Item("up3.conv.weight", (8, 16, 3, 3))]
    target = [*up_path("decoder.", "double"), Item("decoder.3.double.weight", (8, 16, 3, 3))]
    answers = {"decoder.1.double.weight": "up1.conv.weight | blocks(1; 1, 0)"}
    result = match(source, target, answers={**answers, "decoder.2.double.weight": "up2.conv.weight"})
    assert result.assignments.keys() == {"decoder.1.double.weight", "decoder.2.double.weight"}
    assert not result.assignments["decoder.2.double.weight"].steps


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ([Item("p.weight", (5, 48))], [Item("c.weight", (5, 3, 4, 4))], "p.weight | regroup(1; 4, 4, 3; 2, 0, 1)"),
        ([Item("c.weight", (5, 3, 4, 4))], [Item("p.weight", (5, 48))], "c.weight | permute(0, 2, 3, 1)"),
    ],
)
def test_a_flat_axis_that_counts_pixels_first_is_said_with_steps(source, target, text) -> None:
    assert match(source, target).questions[0].kind == "flatten"
    result = match(source, target, answers={target[0].key: text})
    values = numbers(source)[source[0].key]
    if values.ndim == 2:
        expected = values.reshape(5, 4, 4, 3).transpose(0, 3, 1, 2)
    else:
        expected = values.transpose(0, 2, 3, 1).reshape(5, 48)
    assert np.array_equal(made(result, target[0].key, numbers(source)), expected)


def test_a_matrix_that_is_stored_turned_is_turned_by_the_answer_or_the_answer_is_not_taken() -> None:
    source = [Item("c_attn.weight", (24, 24)), Item("c_attn.bias", (24,)), *turned("c_fc", 30, 24)]
    target = [*linear("qkv", 24, 24), *linear("fc", 30, 24)]
    values = numbers(source)
    rows = np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2).reshape(24)
    step = "regroup(0; -1, 3, 4; 1, 0, 2)"
    result = match(source, target, answers={"qkv.weight": f"c_attn.weight | t() | {step}"})
    assert np.array_equal(made(result, "qkv.weight", values), values["c_attn.weight"].T[rows])
    assert np.array_equal(made(result, "qkv.bias", values), values["c_attn.bias"][rows])
    result = match(source, target, answers={"qkv.weight": f"c_attn.weight | {step}"})
    assert "qkv.weight" not in result.assignments


def turned(path: str, outputs: int, inputs: int) -> list[Item]:
    return [Item(f"{path}.weight", (inputs, outputs)), Item(f"{path}.bias", (outputs,))]
