"""Names that are alike by chance: what begins or ends like another is not for that its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from loadstone.matching.structure import Item, Match, match


def layer(path: str, *shape: int) -> Item:
    return Item(f"{path}.weight", shape)


def attention(path: str, names: Sequence[str]) -> list[Item]:
    return [layer(f"{path}.{n}.attn.{name}", 8, 8) for n in range(3) for name in names]


def taken(result: Match, key: str) -> str | None:
    found = result.assignments.get(f"{key}.weight")
    return found.sources[0].key.removesuffix(".weight") if found else None


def test_a_container_is_no_word_of_one_of_two_that_both_have_it() -> None:
    source = [layer("embeddings.word", 50, 8), layer("embeddings.position", 20, 8), layer("to_logits", 50, 8)]
    target = [
        layer("net.token_embedding", 50, 8),
        layer("net.embeddings.position", 20, 8),
        layer("net.embed_out", 50, 8),
    ]
    result = match([*source, layer("norm", 8)], [*target, layer("net.last", 8)])
    assert taken(result, "net.embed_out") in (None, "to_logits")


def test_one_pair_that_may_be_read_in_two_ways_is_no_rule() -> None:
    source = [layer(f"layers.0.{way}.{matrix}", 24, 8) for way in ("fwd", "bwd") for matrix in "WU"]
    target = [Item(f"lstm.weight_{matrix}_l0{way}", (24, 8)) for way in ("", "_reverse") for matrix in ("ih", "hh")]
    rest = [layer("head", 5, 16)]
    result = match([*source, *rest], [*target, *rest], answers={"lstm.weight_hh_l0": "layers.0.fwd.U.weight"})
    others = {key for key in result.assignments if "lstm" in key} - {"lstm.weight_hh_l0"}
    assert not others


def test_what_layers_of_other_shapes_are_called_says_nothing_against_those_of_these() -> None:
    """`down_proj` is `down_proj`; but `q_proj` and `k_proj` are no `proj` there, so that `v_proj` is not `o_proj`."""
    source = [
        *attention("blocks", ["q_proj", "k_proj", "v_proj", "wo"]),
        *(layer(f"blocks.{n}.mlp.down_proj", 8, 32) for n in range(3)),
    ]
    target = [
        *attention("layers", ["to_q", "to_k", "to_v", "o_proj"]),
        *(layer(f"layers.{n}.ff.down_proj", 8, 32) for n in range(3)),
    ]
    result = match(source, target)
    assert taken(result, "layers.0.attn.o_proj") in (None, "blocks.0.attn.wo")
    assert taken(result, "layers.0.attn.to_v") in (None, "blocks.0.attn.v_proj")


def cells(path: str, names: tuple[str, str]) -> list[Item]:
    sizes = {names[0]: (32, 6), names[1]: (32, 8)}
    return [Item(f"{path}.0.{name}.{leaf}", shape) for name, size in sizes.items()
            for leaf, shape in (("weight", size), ("bias", size[:1]))]  # fmt: skip


@pytest.mark.parametrize("names", [("input", "hidden"), ("i2h", "h2h")])
def test_cells_of_two_code_bases_are_asked_for_the_order_of_their_gates(names: tuple[str, str]) -> None:
    result = match(cells("layers", ("x2h", "h2h")), cells("cells", names))
    assert not result.assignments
    assert [question.kind for question in result.questions] == ["gates"]


def test_halves_are_asked_though_the_way_back_lies_in_another_module() -> None:
    ours, theirs = (("net.0.proj", "net.2"), ("fc1", "fc2"))
    source, target = (
        [
            item
            for n in range(3)
            for item in (layer(f"{path}.{n}.ff.{up}", 64, 8), layer(f"{path}.{n}.ff.{down}", 8, 32))
        ]
        for path, (up, down) in (("blocks", ours), ("layers", theirs))
    )
    result = match([*source, layer("head", 5, 8)], [*target, layer("head", 5, 8)])
    assert taken(result, "layers.0.ff.fc1") is None
    assert taken(result, "layers.0.ff.fc2") == "blocks.0.ff.net.2"


@pytest.mark.parametrize("head", ["head", "output"])
def test_a_name_that_goes_on_is_not_the_word_it_begins_with(head: str) -> None:
    """`embed_out` may be the way out: nothing says which of two is the table that `embed` is."""
    result = match(
        [layer("embed", 50, 8), layer(head, 50, 8), layer("norm", 8)],
        [layer("wte", 50, 8), layer("embed_out", 50, 8), layer("last", 8)],
    )
    assert taken(result, "embed_out") is None
    assert taken(result, "wte") is None
    assert [question.target for question in result.questions] == ["embed_out.weight"]


def test_a_name_that_goes_on_is_the_word_where_the_others_share_one_too() -> None:
    result = match([layer("embed", 50, 8), layer("head", 50, 8)], [layer("embed_in", 50, 8), layer("lm_head", 50, 8)])
    assert (taken(result, "embed_in"), taken(result, "lm_head")) == ("embed", "head")


def test_an_ending_that_both_sides_have_means_itself() -> None:
    """That `proj` is `out` in the feed-forward does not make `q_proj` the attention's `out`, beside another `out`."""
    source = [*attention("a", ["q_proj", "out"]), *(layer(f"a.{n}.ff.proj", 8, 32) for n in range(3))]
    target = [*attention("b", ["W_query", "out"]), *(layer(f"b.{n}.mlp.out", 8, 32) for n in range(3))]
    result = match(source, target)
    assert taken(result, "b.0.attn.out") in (None, "a.0.attn.out")
    assert taken(result, "b.0.attn.W_query") in (None, "a.0.attn.q_proj")


def test_a_rule_of_endings_takes_no_part_for_another_layer() -> None:
    """`proj` is `proj` elsewhere, but `v_proj` is not `c_proj` where something else is called v."""
    source = [*attention("a", ["W_value", "c_proj"]), layer("patch.proj", 8, 3, 4, 4)]
    target = [*attention("b", ["v_proj", "dense"]), layer("embeddings.proj", 8, 3, 4, 4)]
    result = match(source, target)
    assert taken(result, "b.0.attn.v_proj") in (None, "a.0.attn.W_value")
    assert taken(result, "b.0.attn.dense") in (None, "a.0.attn.c_proj")


def test_one_of_q_k_and_v_is_not_joined_with_what_lies_beside_it() -> None:
    """q and o have as many rows together as q, k and v, and k and v as o."""
    sizes = {"q": (32, 32), "k": (16, 32), "v": (16, 32), "wo": (32, 32), "gate": (64, 32), "up": (64, 32)}
    joined = {"qkv": (64, 32), "c_proj": (32, 32), "fc1": (128, 32)}
    source, target = (
        [layer(f"{path}.{n}.attn.{name}", *shape) for n in range(3) for name, shape in rows.items()]
        for path, rows in (("a", sizes), ("b", joined))
    )
    result = match(source, target)
    sources = [one.key for one in result.assignments["b.0.attn.qkv.weight"].sources]
    assert sources == [f"a.0.attn.{name}.weight" for name in "qkv"]
    assert taken(result, "b.0.attn.c_proj") == "a.0.attn.wo"


def test_an_answer_about_one_block_leaves_the_only_family_known_by_its_size() -> None:
    source = [layer(f"layers.{n}.{name}", 8) for n in range(4) for name in ("input_norm", "post_attention_norm")]
    target = [layer(f"blocks.{n}.{name}", 8) for n in range(4) for name in ("ln_a", "ln_m")]
    answers = {"blocks.0.ln_a.weight": "layers.0.input_norm.weight"}
    result = match([*source, layer("final", 8)], [*target, layer("ln_out", 8)], answers=answers)
    assert taken(result, "blocks.3.ln_m") == "layers.3.post_attention_norm"
    assert taken(result, "ln_out") == "final"
