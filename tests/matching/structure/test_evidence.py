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
