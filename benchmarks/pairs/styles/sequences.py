"""Encoder and decoder, two towers, and recurrent stacks: their parts, and how engineers name them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from benchmarks.pairs.styles.attention import (
    LAST,
    POSITIONS,
    TOKENS,
    TWO_LINEARS,
    block,
    block_rows,
)
from benchmarks.pairs.styles.parts import Part, Row, at, row, within

# encoder and decoder -------------------------------------------------------------------------------------------------

# Blocks of encoder and decoder, self attention and norm in both, cross attention and norm, feed forward and its norm.
SIDES = (
    ("encoder.layers.{n}", "decoder.layers.{n}", "self_attn", "norm1", "multihead_attn", "norm2", "", "norm2", "norm3"),
    ("encoder.layers.{n}", "decoder.layers.{n}", "self_attn", "self_attn_layer_norm", "encoder_attn",
     "encoder_attn_layer_norm", "", "final_layer_norm", "final_layer_norm"),
    ("encoder.block.{n}", "decoder.block.{n}", "layer.0.SelfAttention", "layer.0.layer_norm", "layer.1.EncDecAttention",
     "layer.1.layer_norm", "layer.{f}.DenseReluDense", "layer.{f}.layer_norm", "layer.{f}.layer_norm"),
    ("encoder.layers.{n}", "decoder.layers.{n}", "self_attn", "sublayer.0.norm", "src_attn", "sublayer.1.norm",
     "feed_forward", "sublayer.{f}.norm", "sublayer.{f}.norm"),
    ("encoder.{n}", "decoder.{n}", "attn", "attn_norm", "cross_attn", "cross_attn_norm", "mlp", "mlp_norm", "mlp_norm"),
    ("enc_blocks.{n}", "dec_blocks.{n}", "self_attention", "norms.0", "cross_attention", "norms.1", "ffn", "norms.{f}",
     "norms.{f}"),
    ("encoder.blocks.{n}", "decoder.blocks.{n}", "attn", "attn_ln", "cross_attn", "cross_attn_ln", "mlp", "mlp_ln",
     "mlp_ln"),
    ("model.encoder.{n}", "model.decoder.{n}", "attention", "ln1", "memory_attention", "ln2", "feed", "ln2", "ln3"),
)  # fmt: skip
EMBEDDINGS = (("encoder.embed_tokens", "decoder.embed_tokens"), ("src_embed.0", "tgt_embed.0"), ("src_emb", "tgt_emb"),
              ("encoder.embed", "decoder.embed"), ("src_tok_emb.embedding", "tgt_tok_emb.embedding"))  # fmt: skip
ENDS = (("encoder.layer_norm", "decoder.layer_norm"), ("encoder.norm", "decoder.norm"), ("enc_norm", "dec_norm"),
        ("encoder.final_norm", "decoder.final_norm"))  # fmt: skip
GENERATORS = ("generator", "generator.proj", "lm_head", "head", "final_proj", "output_projection")
WAYS = (  # q, k, v and the way out
    ("q_proj", "k_proj", "v_proj", "out_proj"), ("q", "k", "v", "o"), ("wq", "wk", "wv", "wo"),
    ("linears.0", "linears.1", "linears.2", "linears.3"), ("query", "key", "value", "out"),
    ("to_q", "to_k", "to_v", "to_out.0"), ("linear_q", "linear_k", "linear_v", "linear_out"),
    ("w_qs", "w_ks", "w_vs", "fc"), ("W_Q", "W_K", "W_V", "linear"),
)  # fmt: skip
JOINED = ("in_proj", "in_proj_{leaf}", "qkv", "c_attn")


def crossing(dice: Random) -> list[Part]:
    """An encoder and a decoder that looks at it; the vocabularies are one or two, the depths equal or not."""
    width, bias = dice.choice((16, 24)), dice.random() < 0.7
    depth = dice.choice((2, 3, 6))
    depths = depth, depth if dice.random() < 0.7 else depth + 2
    hidden, vocabularies = width * dice.choice((2, 4)), dice.choice(((100, 100), (100, 120)))
    parts = [Part("source", (vocabularies[0], width), kind="embedding")]
    parts.append(Part("target", (vocabularies[1], width), kind="embedding"))
    for side, count in zip(("enc_", "dec_"), depths, strict=True):
        is_decoder = side == "dec_"
        for n in range(count):
            numbers = {"n": n, "f": 1 + is_decoder}
            parts += block(width, hidden, keys=width, bias=bias, norm_bias=bias, gated=False, prefix=side, **numbers)
            if is_decoder:
                here = at(**numbers)
                parts += [Part(f"cross_{role}", (width, width), here, has_bias=bias) for role in "qkvo"]
                parts.append(Part("cross_norm", (width,), here, "norm", bias))
        parts.append(Part(f"{side}last", (width,), kind="norm", has_bias=bias))
    return [*parts, Part("head", (vocabularies[1], width), kind="embedding")]


def crossing_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    *blocks, own, norm1, cross, cross_norm, feed, norm2, dec_norm2 = dice.choice(SIDES)
    is_joined = dice.random() < 0.3
    *names, out = dice.choice(WAYS)
    joined, linears = dice.choice(JOINED), dice.choice(TWO_LINEARS)

    def attention(prefix: str) -> list[tuple[str, str]]:
        roles = [prefix + role for role in "qkv"]
        rows = [(joined, " ".join(roles))] if is_joined else list(zip(names, roles, strict=True))
        return [*rows, (out, f"{prefix}o")]

    rows = []
    for side, container, last in zip(("enc_", "dec_"), blocks, (norm2, dec_norm2), strict=True):
        rows += within(f"{container}.{own}", *attention(side))
        rows += within(container, (norm1, f"{side}norm1"), (last, f"{side}norm2"))
        inside = f"{container}.{feed}" if feed else container
        rows += within(inside, *zip(linears, (f"{side}up", f"{side}down"), strict=True))
    rows += within(f"{blocks[1]}.{cross}", *attention("cross_"))
    rows.append(row(f"{blocks[1]}.{cross_norm}", "cross_norm"))
    rows += within("", *zip(dice.choice(EMBEDDINGS), ("source", "target"), strict=True))
    rows += within("", *zip(dice.choice(ENDS), ("enc_last", "dec_last"), strict=True))
    return [*rows, row(dice.choice(GENERATORS), "head")]


# two towers ----------------------------------------------------------------------------------------------------------

TOWERS = (
    ("visual", "text"), ("vision_model", "text_model"), ("image_encoder", "text_encoder"), ("visual", "transformer"),
    ("towers.0", "towers.1"), ("image_tower", "text_tower"), ("vit", "bert"), ("encoder_a", "encoder_b"),
    ("query_encoder", "passage_encoder"), ("question_encoder", "ctx_encoder"), ("query_model", "doc_model"),
    ("net1", "net2"), ("left", "right"),
)  # fmt: skip
PROJECTIONS = (  # inside of each tower, or outside by the place of the tower
    ("{tower}.proj", "{tower}.proj"), ("visual_projection", "text_projection"), ("projections.0", "projections.1"),
    ("proj_a", "proj_b"), ("image_proj", "text_proj"), ("{tower}.head", "{tower}.head"),
)  # fmt: skip


def towers(dice: Random) -> list[Part]:
    """Two stacks of equal or different width and depth, each with embedding, last norm and projection."""
    widths = dice.choice(((16, 16), (16, 16), (16, 24), (32, 24)))
    depth = dice.choice((2, 3, 4))
    depths = depth, depth + dice.choice((0, 0, 1))
    bias, heads = dice.random() < 0.8, dice.choice((16, 32))
    parts: list[Part] = []
    for side, width, count in zip(("one_", "two_"), widths, depths, strict=True):
        parts.append(
            Part(f"{side}tokens", (100 if side == "one_" else dice.choice((100, 80)), width), kind="embedding")
        )
        parts.append(Part(f"{side}positions", (20, width), kind="embedding"))
        for n in range(count):
            parts += block(width, 4 * width, keys=width, bias=bias, norm_bias=True, gated=False, prefix=side, n=n)
        parts.append(Part(f"{side}last", (width,), kind="norm"))
        parts.append(Part(f"{side}proj", (heads, width), has_bias=False))
    return parts


def towers_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    names, projections = dice.choice(TOWERS), dice.choice(PROJECTIONS)
    container = dice.choice(("blocks.{n}", "layers.{n}", "encoder.layers.{n}", "transformer.resblocks.{n}", "h.{n}"))
    outer = (TOKENS, "tokens"), (POSITIONS, "positions"), (LAST, "last")
    same = [(dice.choice(words), role) for words, role in outer]
    state, rows = dice.getstate(), []
    for tower, side, projection in zip(names, ("one_", "two_"), projections, strict=True):
        dice.setstate(state)  # one engineer writes both towers
        rows += block_rows(dice, f"{tower}.{container}", gated=False, heads=4, prefix=side)
        rows += within(tower, *((name, side + role) for name, role in same))
        rows.append(row(projection.replace("{tower}", tower), f"{side}proj"))
    return rows


# recurrent -----------------------------------------------------------------------------------------------------------

TORCH_CELLS = ("rnn", "lstm", "gru", "encoder.rnn", "encoder.lstm")
OWN_CELLS = (  # input and hidden matrix of layer n, and of layer n backwards; how LSTM and GRU stack their gates
    ("cells.{n}.x2h", "cells.{n}.h2h", "cells_reverse.{n}.x2h", "cells_reverse.{n}.h2h", "ifgo", "rzn"),
    ("layers.{n}.i2h", "layers.{n}.h2h", "layers.{n}.back_i2h", "layers.{n}.back_h2h", "ifog", "zrn"),
    ("forward_cells.{n}.input", "forward_cells.{n}.hidden", "backward_cells.{n}.input", "backward_cells.{n}.hidden",
     "ifgo", "zrn"),
    ("rnn{n:+1}.w_in", "rnn{n:+1}.w_rec", "rnn{n:+1}_rev.w_in", "rnn{n:+1}_rev.w_rec", "ifgo", "rzn"),
    ("layers.{n}.fwd.W", "layers.{n}.fwd.U", "layers.{n}.bwd.W", "layers.{n}.bwd.U", "ifog", "rzn"),
)  # fmt: skip
GATES = {"lstm": "ifgo", "gru": "rzn"}  # as torch stacks them
RNN_TOKENS = ("embedding", "embed", "emb", "word_emb", "encoder.embedding", "token_embedding")
RNN_HEADS = ("fc", "linear", "out", "decoder", "classifier", "head")


def recurrent(dice: Random) -> list[Part]:
    """Layers of LSTM or GRU cells, perhaps in both directions, with every gate a part of its own."""
    gates = GATES[dice.choice(("lstm", "gru"))]
    inputs, hidden = dice.choice(((16, 24), (24, 24), (12, 16)))
    is_double = dice.random() < 0.4
    parts = [Part("tokens", (100, inputs), kind="embedding")]
    for n in range(dice.choice((1, 2, 3))):
        for direction in ("", "back_") if is_double else ("",):
            for kind, columns in (("ih", inputs), ("hh", hidden)):
                parts += [Part(f"{direction}{kind}_{gate}", (hidden, columns), at(n=n)) for gate in gates]
        inputs = hidden * (1 + is_double)
    return [*parts, Part("head", (10, inputs))]


def recurrent_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    kind = "lstm" if any(part.role == "ih_f" for part in parts) else "gru"
    outer = within("", (dice.choice(RNN_TOKENS), "tokens"), (dice.choice(RNN_HEADS), "head"))
    if dice.random() < 0.5:
        cell, gates, rows = dice.choice(TORCH_CELLS), GATES[kind], []
        for direction, end in (("", ""), ("back_", "_reverse")):
            for matrix in ("ih", "hh"):
                name = f"{cell}.{{leaf}}_{matrix}_l{{n}}{end}"
                rows.append(row(name, _stacked(f"{direction}{matrix}_", gates)))
        return rows + outer
    *names, lstm, gru = dice.choice(OWN_CELLS)
    gates = lstm if kind == "lstm" else gru
    roles = ("ih_", "hh_", "back_ih_", "back_hh_")
    return outer + [row(name, _stacked(role, gates)) for name, role in zip(names, roles, strict=True)]


def _stacked(prefix: str, gates: str) -> str:
    return " ".join(prefix + gate for gate in gates)
