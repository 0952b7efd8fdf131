"""What words and numbers of two code bases say about each other, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence

from loadstone.matching.structure import Item, Match, match
from loadstone.matching.structure.words import tokens


def layer(path: str, *shape: int) -> Item:
    return Item(f"{path}.weight", shape)


def sources(result: Match) -> dict[str, str]:
    return {key: one.sources[0].key for key, one in result.assignments.items()}


def decoder(path: str, names: Sequence[str]) -> list[Item]:
    first, second, attention, feed = names
    return [
        item
        for n in range(3)
        for item in (
            layer(f"{path}.{n}.{first}", 8),
            layer(f"{path}.{n}.{second}", 8),
            layer(f"{path}.{n}.{attention}.out", 8, 8),
            layer(f"{path}.{n}.{feed}", 32, 8),
        )
    ]


def test_what_lies_behind_the_attention_is_not_the_norm_of_the_attention() -> None:
    source = decoder("layers", ["input_norm", "post_attention_norm", "self_attn", "mlp"])
    target = decoder("blocks", ["attention_norm", "ffn_norm", "attention", "feed_forward"])
    result = match(source, target)
    assert not any("norm" in key for key in result.assignments)
    assert [question.places for question in result.questions] == [3]


def test_a_word_is_the_same_in_another_form() -> None:
    assert tokens("tok_embeddings") == tokens("tok_embed")
    source = [layer("model.embed_tokens", 50, 8), layer("head", 50, 8), layer("model.out", 8, 9)]
    target = [layer("tok_embeddings", 50, 8), layer("output", 50, 8), layer("proj", 8, 9)]
    assert sources(match(source, target))["tok_embeddings.weight"] == "model.embed_tokens.weight"


def test_what_lies_between_two_layers_of_a_block_in_a_run_lies_in_that_block() -> None:
    source = [
        layer("layers.0", 8, 3), layer("layers.1", 8), layer("layers.3", 8, 1, 3, 3), layer("layers.4", 8),
        layer("layers.6", 9, 8),
    ]  # fmt: skip
    target = [
        layer("stem", 8, 3), layer("bn", 8), layer("block.dw", 8, 1, 3, 3), layer("block.bn", 8),
        layer("block.pw", 9, 8),
    ]  # fmt: skip
    found = sources(match(source, target))
    assert (found["block.bn.weight"], found["bn.weight"]) == ("layers.4.weight", "layers.1.weight")


def test_layers_that_begin_with_the_same_word_are_in_no_container_of_that_name() -> None:
    def encoder(path: str, block: str, norm: str, last: str) -> list[Item]:
        blocks = [
            each
            for n in range(3)
            for each in (layer(f"{path}.{block}.{n}.{norm}", 8), layer(f"{path}.{block}.{n}.out", 8, n + 2))
        ]
        return [layer(f"{path}.stem", 8, 9), *blocks, layer(f"{path}.{last}", 8)]

    result = match(encoder("encoder", "layers", "final_norm", "layer_norm"), encoder("net", "blocks", "ln", "post"))
    assert sources(result)["net.post.weight"] == "encoder.layer_norm.weight"
    assert result.verdict == "complete"


def test_several_blocks_may_be_parts_of_one() -> None:
    shapes = {0: ("attn", 9, 8), 1: ("mlp", 7, 8)}
    source = [layer(f"layers.{2 * n + part}.f", *shape) for n in range(3) for part, (_, *shape) in shapes.items()]
    target = [layer(f"blocks.{n}.{name}", *shape) for n in range(3) for name, *shape in shapes.values()]
    assert sources(match(source, target)) == {
        f"blocks.{n}.{name}.weight": f"layers.{2 * n + part}.f.weight"
        for n in range(3)
        for part, (name, *_) in shapes.items()
    }


def test_all_of_a_name_is_another_ending_than_its_last_word() -> None:
    source = [layer("embed.norm", 4), layer("down.norm", 8), layer("last", 8), layer("embed.proj", 4, 3)]
    target = [layer("patch.norm", 4), layer("later.down.norm", 8), layer("norm", 8), layer("patch.proj", 4, 3)]
    assert sources(match(source, target)).get("norm.weight") != "down.norm.weight"


def test_what_only_waits_for_an_answer_is_no_sign_of_another_network() -> None:
    source = [layer(f"h.{n}.attention.query_key_value", 24, 8) for n in range(3)] + [layer("embed", 9, 8)]
    target = [layer(f"b.{n}.attn.qkv", 24, 8) for n in range(3)] + [layer("words", 9, 8)]
    result = match(source, target)
    assert (result.verdict, len(result.questions), list(result.assignments)) == ("partial", 1, ["words.weight"])


def test_letters_behind_numbers_count() -> None:
    names = ["5b", "5c", "6a", "6b", "6c"]
    source = [layer(f"mixed_{name}.conv", 8, 8) for name in names]
    target = [layer(f"stages.{s}.{u}.conv", 8, 8) for s, units in enumerate((2, 3)) for u in range(units)]
    assert list(sources(match(source, target)).values()) == [f"mixed_{name}.conv.weight" for name in names]


def test_letters_of_a_hash_count_nothing() -> None:
    source = [layer(f"{name}.conv", 8, 8) for name in ("3f", "4a", "9c")]
    assert not sources(match(source, [layer(f"blocks.{n}.conv", 8, 8) for n in range(3)]))


def test_a_kernel_of_one_row_is_not_one_of_one_column() -> None:
    source = [layer("a", 8, 8, 1, 3), layer("b", 8, 8, 3, 1)]
    target = [layer("tall", 8, 8, 3, 1), layer("wide", 8, 8, 1, 3)]
    assert sources(match(source, target)) == {"tall.weight": "b.weight", "wide.weight": "a.weight"}


def test_scale_and_shift_are_weight_and_bias() -> None:
    source = [layer("ln", 8), Item("ln.bias", (8,)), layer("out", 9, 8)]
    target = [Item("norm.scale", (8,)), Item("norm.shift", (8,)), layer("head", 9, 8)]
    assert sources(match(source, target))["norm.shift"] == "ln.bias"


def test_a_word_that_two_names_begin_with_is_no_evidence_where_they_go_on_differently() -> None:
    source = [Item("embeddings.token.weight", (50, 8)), Item("head.weight", (50, 8)), Item("fc.weight", (3, 8))]
    target = [Item("embed_out.weight", (50, 8)), Item("words.weight", (50, 8)), Item("last.weight", (3, 8))]
    result = match(source, target)
    assert not {"embed_out.weight", "words.weight"} & result.assignments.keys()
    assert len(result.questions) == 1


def test_the_same_word_with_other_numbers_is_no_evidence() -> None:
    source = [Item("mix.lin.3.weight", (8, 8)), Item("mix.query.weight", (8, 8)), Item("fc.weight", (3, 8))]
    target = [Item("att.lin.0.weight", (8, 8)), Item("att.dense.weight", (8, 8)), Item("last.weight", (3, 8))]
    assert not {"att.lin.0.weight", "att.dense.weight"} & match(source, target).assignments.keys()


def test_a_word_that_both_sides_use_is_not_translated_into_another() -> None:
    """`attention` is `attention` in every block, so that it cannot be the `output` of a norm."""
    source = [Item(f"layer.{n}.{name}.weight", shape) for n in range(3) for name, shape in SOURCE_BLOCK]
    target = [Item(f"blocks.{n}.{name}.weight", shape) for n in range(3) for name, shape in TARGET_BLOCK]
    result = match(source, target)
    assert not [key for key in result.assignments if "norm" in key]


SOURCE_BLOCK = [
    ("attention.output.dense", (8, 8)), ("attention.output.norm", (8,)), ("output.dense", (8, 32)),
    ("output.norm", (8,)), ("intermediate.dense", (32, 8)),
]  # fmt: skip
TARGET_BLOCK = [
    ("attention.output_linear", (8, 8)), ("input_sublayer.norm", (8,)), ("feed_forward.w_2", (8, 32)),
    ("output_sublayer.norm", (8,)), ("feed_forward.w_1", (32, 8)),
]  # fmt: skip
