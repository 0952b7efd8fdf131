"""What is found, what is asked and what is refused, on state dicts small enough to read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from loadstone.matching.structure import Item, Match, match
from loadstone.matching.structure.rules import induce
from loadstone.matching.structure.steps import Narrow, Permute, Reshape, Step


def items(**shapes: tuple[int, ...]) -> list[Item]:
    return [Item(key.replace("__", "."), shape) for key, shape in shapes.items()]


def layer(path: str, weight: tuple[int, ...], bias: int = 0) -> list[Item]:
    found = [Item(f"{path}.weight", weight)]
    return [*found, Item(f"{path}.bias", (bias,))] if bias else found


def sources(result: Match) -> dict[str, list[str]]:
    return {key: [taken.key for taken in one.sources] for key, one in result.assignments.items()}


def filled(result: Match, source: Sequence[Item]) -> dict[str, np.ndarray]:
    """The target's tensors, made from arrays that hold where each number comes from."""
    arrays, start = {}, 0
    for item in source:
        arrays[item.key] = np.arange(start, start + item.elements).reshape(item.shape)
        start += item.elements

    def after(array: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
        for step in steps:
            match step:
                case Reshape(shape):
                    array = array.reshape(shape)
                case Permute(dims):
                    array = array.transpose(dims)
                case Narrow(first, length):
                    array = array[first : first + length]
        return array

    return {
        key: after(np.concatenate([after(arrays[taken.key], taken.steps) for taken in one.sources]), one.steps)
        if len(one.sources) > 1
        else after(after(arrays[one.sources[0].key], one.sources[0].steps), one.steps)
        for key, one in result.assignments.items()
    }


def attention(path: str, names: Sequence[str], width: int = 8) -> list[Item]:
    return [item for name in names for item in layer(f"{path}.{name}", (width, width), width)]


# transformations -----------------------------------------------------------------------------------------------------


def test_named_projections_fill_a_stacked_one_in_the_order_of_their_names() -> None:
    source = attention("block.attention", ["value", "key", "query"])
    target = layer("block.attn.qkv", (24, 8), 24)
    result = match(source, target)
    assert sources(result)["block.attn.qkv.weight"] == [
        f"block.attention.{n}.weight" for n in ("query", "key", "value")
    ]
    assert result.verdict == "complete"


def test_a_stacked_projection_is_cut_into_named_ones() -> None:
    source = layer("attn.in_proj", (24, 8), 24)
    target = attention("attention", ["q_proj", "k_proj", "v_proj"])
    values = filled(match(source, target), source)
    whole = np.arange(24 * 8).reshape(24, 8)
    assert (values["attention.k_proj.weight"] == whole[8:16]).all()
    assert (values["attention.v_proj.weight"] == whole[16:]).all()


def test_numbered_projections_are_asked_about() -> None:
    source = attention("attention.linears", ["0", "1", "2"])
    target = layer("attn.in_proj", (24, 8), 24)
    result = match(source, target)
    assert not result.assignments
    [question] = result.questions
    assert question.options == (" + ".join(f"attention.linears.{n}.weight" for n in range(3)),)
    answered = match(source, target, answers={question.target: question.options[0]})
    assert answered.verdict == "complete"


def test_a_head_by_head_projection_is_asked_about() -> None:
    result = match(layer("attention.query_key_value", (24, 8), 24), layer("attn.qkv", (24, 8), 24))
    assert result.verdict != "complete"
    assert "head by head" in result.questions[0].text


def test_weights_stored_in_out_are_turned_where_the_bias_shows_it() -> None:
    source = [*layer("mlp.c_fc", (8, 32), 32), *layer("mlp.c_proj", (32, 8), 8)]
    target = [*layer("fc1", (32, 8), 32), *layer("fc2", (8, 32), 8)]
    values = filled(match(source, target), source)
    assert (values["fc1.weight"] == np.arange(256).reshape(8, 32).T).all()


def test_a_square_matrix_is_turned_as_all_of_its_block_are() -> None:
    source = [*layer("h.0.attn.c_proj", (8, 8), 8), *layer("h.0.mlp.c_fc", (8, 32), 32)]
    target = [*layer("blocks.0.proj", (8, 8), 8), *layer("blocks.0.fc", (32, 8), 32)]
    values = filled(match(source, target), source)
    assert (values["blocks.0.proj.weight"] == np.arange(64).reshape(8, 8).T).all()


def test_kernels_of_flax_and_tensorflow_are_turned() -> None:
    source = items(conv__kernel=(3, 3, 4, 6), conv__bias=(6,), dense__kernel=(6, 6), dense__bias=(6,))
    target = [*layer("stem", (6, 4, 3, 3), 6), *layer("head", (6, 6), 6)]
    values = filled(match(source, target), source)
    assert (values["stem.weight"] == np.arange(216).reshape(3, 3, 4, 6).transpose(3, 2, 0, 1)).all()
    assert (values["head.weight"] == np.arange(222, 258).reshape(6, 6).T).all()


def test_a_linear_layer_fits_a_1_by_1_convolution() -> None:
    result = match(layer("fc", (5, 8), 5), layer("conv", (5, 8, 1, 1), 5))
    assert result.assignments["conv.weight"].steps == (Reshape((5, 8, 1, 1)),)


def test_a_linear_layer_over_features_fits_a_full_size_convolution() -> None:
    result = match(layer("fc", (5, 8 * 49), 5), layer("conv", (5, 8, 7, 7), 5))
    assert result.verdict == "complete"


def test_a_linear_layer_over_pixels_is_asked_about() -> None:
    result = match(layer("patch", (5, 3 * 16), 5), layer("conv", (5, 3, 4, 4), 5))
    assert not result.assignments
    assert "channels" in result.questions[0].text


def test_old_weight_norm_fills_the_new_parametrization() -> None:
    source = items(conv__weight_g=(4, 1, 1), conv__weight_v=(4, 2, 3), conv__bias=(4,))
    target = items(
        c__parametrizations__weight__original0=(4, 1, 1), c__parametrizations__weight__original1=(4, 2, 3), c__bias=(4,)
    )
    assert sources(match(source, target))["c.parametrizations.weight.original1"] == ["conv.weight_v"]


# evidence ------------------------------------------------------------------------------------------------------------


def test_a_norm_goes_with_its_convolution_whatever_the_order_of_keys() -> None:
    source = [Item(f"{n}.{leaf}.weight", s) for n in ("a", "b") for leaf, s in (("norm", (8,)), ("conv", shape(n)))]
    target = [Item(f"{n}.bn.weight", (8,)) for n in ("y", "x")] + [Item(f"{n}.c.weight", shape(n)) for n in ("x", "y")]
    result = match(source, target)
    assert sources(result) == {
        "y.bn.weight": ["b.norm.weight"], "x.bn.weight": ["a.norm.weight"],
        "x.c.weight": ["a.conv.weight"], "y.c.weight": ["b.conv.weight"],
    }  # fmt: skip


def shape(name: str) -> tuple[int, ...]:
    return (8, 3, 3, 3) if name in "ax" else (8, 4, 3, 3)


def test_two_branches_that_nothing_tells_apart_are_asked_about_and_one_answer_settles_every_block() -> None:
    source = [item for i in range(4) for side in ("p", "q") for item in layer(f"b.{i}.{side}", (8, 8))]
    target = [item for i in range(4) for side in ("left", "right") for item in layer(f"l.{i}.{side}", (8, 8))]
    result = match(source, target)
    assert not result.assignments
    [question] = result.questions
    assert question.places == 4
    answered = match(source, target, answers={"l.0.left.weight": "b.0.q.weight"})
    assert sources(answered) == {
        f"l.{i}.{b}.weight": [f"b.{i}.{a}.weight"] for i in range(4) for a, b in (("q", "left"), ("p", "right"))
    }


def test_numbers_of_a_hash_order_nothing() -> None:
    source = [Item(f"{hashlib.md5(str(i).encode()).hexdigest()[:4]}.weight", (8, 8)) for i in range(6)]
    target = [Item(f"layers.{i}.weight", (8, 8)) for i in range(6)]
    assert not match(source, target).assignments


def test_a_numbering_that_runs_backwards_is_not_believed() -> None:
    sizes = (3, 4, 5)
    source = [i for n, s in enumerate(sizes) for i in (*layer(f"enc.{n}.a", (8, s)), *layer(f"enc.{n}.m", (8, 8)))]
    target = [
        i for n, s in enumerate(sizes) for i in (*layer(f"dec.{2 - n}.a", (8, s)), *layer(f"dec.{2 - n}.m", (8, 8)))
    ]
    found = sources(match(source, target))
    assert all(
        found[f"dec.{2 - n}.m.weight"] == [f"enc.{n}.m.weight"] for n in range(3) if f"dec.{2 - n}.m.weight" in found
    )


def test_the_backbone_of_a_larger_model_is_found_behind_its_prefix() -> None:
    backbone = [i for n in range(12) for i in layer(f"layers.{n}.conv", (8, 8, 3, 3))] + layer("stem", (8, 3, 7, 7))
    target = [Item(f"encoder.{item.key}", item.shape) for item in backbone]
    target += [i for n in range(2) for i in layer(f"decoder.{n}.conv", (8, 8, 3, 3))]
    result = match([*backbone, *layer("fc", (10, 8), 10)], target)
    assert sources(result) == {f"encoder.{item.key}": [item.key] for item in backbone}
    assert result.verdict == "partial"


def test_other_blocks_that_leave_layers_without_partner_are_refused() -> None:
    plain = [i for n in range(3) for i in layer(f"layer.{n}.conv", (8, 8, 3, 3))]
    gated = [i for n in range(3) for i in (*layer(f"b.{n}.conv", (8, 8, 3, 3)), *layer(f"b.{n}.se", (2, 8), 2))]
    assert match(gated, plain).verdict == "refused"


def test_what_a_profiler_left_in_every_block_refuses_nothing() -> None:
    blocks = [i for n in range(3) for i in layer(f"layer.{n}.conv", (8, 8, 3, 3))]
    counted = [Item(f"layer.{n}.conv.total_ops", (1,), "float64") for n in range(3)]
    result = match([*blocks, *counted], blocks)
    assert result.verdict == "partial"
    assert len(result.assignments) == 3


def test_a_tied_head_gets_the_values_of_its_embedding() -> None:
    target = [Item("wte.weight", (10, 4), storage="1"), Item("head.weight", (10, 4), storage="1")]
    result = match(items(embed__weight=(10, 4)), target)
    assert sources(result) == {"wte.weight": ["embed.weight"], "head.weight": ["embed.weight"]}


def test_another_number_of_classes_is_a_near_miss() -> None:
    result = match(
        [*layer("stem", (8, 4), 8), *layer("fc", (10, 8), 10)], [*layer("in", (8, 4), 8), *layer("head", (5, 8), 5)]
    )
    assert [one.near for one in result.unmatched_target] == [
        "`fc.weight` is 10 × 8, this is 5 × 8",
        "`fc.bias` is 10, this is 5",
    ]


def backbone(word: str, convolution: str) -> list[Item]:
    blocks = [i for n in range(3) for i in layer(f"{word}.{n}.{convolution}", (8, 8, 3, 3), 8)]
    return [*blocks, *layer(f"{word}.{convolution}", (8, 3, 7, 7), 8)]


def test_a_backbone_goes_into_a_model_with_another_head_though_one_layer_of_the_heads_looks_alike() -> None:
    source = [*backbone("trunk", "conv"), *layer("head.a", (16, 16), 16), *layer("head.b", (10, 16), 10)]
    target = [*backbone("body", "c"), *layer("top.x", (16, 16), 16), *layer("top.y", (32, 16), 32)]
    target += layer("top.z", (5, 32), 5)
    result = match(source, target)
    assert len(result.assignments) == len(backbone("body", "c"))
    assert all(key.startswith("body.") for key in result.assignments)
    assert result.verdict == "partial"
    [question] = result.questions
    assert (question.target, question.options) == ("top.x.weight", ("head.a.weight",))


def test_a_layer_that_both_lack_differently_is_asked_about_and_an_answer_takes_it() -> None:
    source = [*backbone("trunk", "conv"), *layer("aux", (16, 16), 16), *layer("auxiliary", (10, 16), 10)]
    target = [*backbone("body", "c"), *layer("mix", (16, 16), 16), *layer("fuse", (5, 32), 5)]
    result = match(source, target)
    assert "mix.weight" not in result.assignments
    answered = match(source, target, answers={"mix.weight": "aux.weight"})
    assert sources(answered)["mix.weight"] == ["aux.weight"]


def test_the_last_layer_of_equal_width_goes_along_with_its_backbone_past_an_extra_neck() -> None:
    source = [*backbone("trunk", "conv"), *layer("fc", (10, 8), 10)]
    target = [*backbone("body", "c"), *layer("neck.a", (8, 9), 8), *layer("neck.b", (9, 8), 9)]
    target += layer("classifier", (10, 8), 10)
    result = match(source, target)
    assert sources(result)["classifier.weight"] == ["fc.weight"]
    assert len(result.assignments) == len(source)
    assert not result.questions


def test_a_single_number_beside_what_is_missing_is_no_layer_and_no_trouble() -> None:
    source = [*layer("body.conv", (8, 3, 3, 3), 8), Item("scales.temperature", ())]
    result = match(source, [Item("heat.factor", ()), *layer("other", (4, 2), 4)])
    assert result.verdict == "refused"


# results -------------------------------------------------------------------------------------------------------------


def test_rules_shift_numbers_and_say_so() -> None:
    pairs = {f"stages.{s - 1}.{b}.w": f"layer{s}.{b}.conv.w" for s in (1, 2) for b in (0, 1, 2)}
    [rule] = induce(pairs)
    assert (rule.source, rule.target) == ("layer{a}.{b}.conv.w", "stages.{a-1}.{b}.w")
    assert len(rule.pairs) == 6


def test_the_result_is_the_same_under_any_hash_seed() -> None:
    code = (
        "from loadstone.matching.structure import Item, match\n"
        "a = [Item(f'b.{i}.{n}.weight', (8, 8)) for i in range(3) for n in ('q', 'k', 'x', 'y')]\n"
        "b = [Item(f'l.{i}.{n}.weight', (8, 8)) for i in range(3) for n in ('query', 'key', 'u', 'v')]\n"
        "print(match(a, b))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


def decoder(names: Sequence[str], positions: bool) -> list[Item]:
    found = [item for i in range(2) for name in names for item in layer(f"layers.{i}.{name}", (8, 8))]
    return [*found, *layer("embed", (50, 8)), *(layer("positions", (16, 8)) if positions else [])]


def test_rotary_positions_are_asked_about_once_where_nothing_else_says_where_a_token_is() -> None:
    source, target = decoder(["wq", "wk"], False), decoder(["q_proj", "k_proj"], False)
    renamed = [Item(item.key.replace("wq", "q").replace("wk", "k"), item.shape) for item in source]
    result = match(renamed, target)
    [question] = result.questions
    assert "rotary" in question.text
    assert match(renamed, target, answers={question.target: question.options[0]}).verdict == "complete"


def test_a_table_of_positions_leaves_no_doubt_about_rotary_ones() -> None:
    assert match(decoder(["q", "k"], True), decoder(["q_proj", "k_proj"], True)).verdict == "complete"
