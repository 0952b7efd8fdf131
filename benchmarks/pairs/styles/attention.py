"""Stacks of attention blocks: alone, as vision transformer, as encoder and decoder, as two towers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from benchmarks.pairs.styles.parts import Part, Row, at, row, within

TOKENS = ("wte", "tok_emb", "embed", "word_embeddings", "embeddings.token", "token_embedding", "embed_tokens", "shared",
          "embedding.word", "embeddings.word_embeddings", "tok_embeddings")  # fmt: skip
POSITIONS = ("wpe", "pos_emb", "position_embeddings", "embeddings.position", "embed_positions", "positional_embedding",
             "embeddings.position_embeddings")  # fmt: skip
STACKS = ("h.{n}", "layers.{n}", "blocks.{n}", "encoder.layers.{n}", "resblocks.{n}", "block.{n}", "stack.{n}",
          "decoder.block.{n}.0", "body.{n}", "encoder.layer.{n:+1}", "block{n:+1}", "h.{n:+1}", "layer_{n}",
          "transformer.resblocks.{n}", "encoder.layers.encoder_layer_{n}")  # fmt: skip
TWO_NORMS = (
    ("ln_1", "ln_2"), ("norm1", "norm2"), ("input_layernorm", "post_attention_layernorm"),
    ("attention_norm", "ffn_norm"), ("attn.norm", "mlp.norm"), ("pre_attn_norm", "pre_mlp_norm"),
    ("norms.0", "norms.1"), ("ln_attn", "ln_ff"), ("layernorm_before", "layernorm_after"),
    ("self_attn_layer_norm", "final_layer_norm"), ("att_norm", "norm"), ("pre_norm", "post_norm"),
)  # fmt: skip
ATTENTIONS = ("attn", "attention", "self_attn", "att", "mixer", "attention.self", "self_attention")
FEEDS = ("mlp", "feed_forward", "ffn", "ff", "mlp.net", "feedforward")
QKV = (("q_proj", "k_proj", "v_proj"), ("wq", "wk", "wv"), ("query", "key", "value"), ("to_q", "to_k", "to_v"),
       ("linear_q", "linear_k", "linear_v"), ("q", "k", "v"),
       ("W_query", "W_key", "W_value"))  # fmt: skip
JOINED = ("c_attn", "qkv", "in_proj", "in_proj_{leaf}", "Wqkv", "to_qkv", "qkv_proj")
HALF_JOINED = (("to_q", "to_kv"), ("q", "kv"), ("q_proj", "kv_proj"))
OUTS = ("out_proj", "proj", "wo", "c_proj", "to_out.0", "dense", "output.dense", "out", "o_proj")
TWO_LINEARS = (("fc1", "fc2"), ("c_fc", "c_proj"), ("w1", "w2"), ("0", "2"), ("net.0", "net.3"),
               ("linear1", "linear2"), ("intermediate", "output"), ("dense_h_to_4h", "dense_4h_to_h"), ("in", "out"),
               ("fc_in", "fc_out"), ("expand", "shrink"), ("intermediate.dense", "output.dense"))  # fmt: skip
GATED = (  # gate, up, down
    ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("fc1_g", "fc1_x", "fc2"), ("gate", "value", "out"),
    ("fc_1", "fc_2", "proj"), ("linear", "linear_v", "linear_1"), ("wi_0", "wi_1", "wo"),
)  # fmt: skip
GATED_JOINED = (  # the stacked one, what it stacks, and the way back
    ("gate_up_proj", "gate up", "down_proj"), ("w12", "gate up", "w3"), ("net.0.proj", "up gate", "net.2"),
    ("fc1", "gate up", "fc2"), ("Wi", "gate up", "Wo"),
)  # fmt: skip
LAST = ("ln_f", "norm", "final_layer_norm", "ln_out", "final_norm", "ln_post")
LM_HEADS = ("lm_head", "output", "head", "to_logits", "embed_out")


def block(width: int, hidden: int, *, keys: int, bias: bool, norm_bias: bool, gated: bool, prefix: str = "",
          **numbers: int) -> list[Part]:  # fmt: skip
    """The parts of one block: attention, feed forward and two norms."""
    here = at(**numbers)
    matrices = {"q": (width, width), "k": (keys, width), "v": (keys, width), "o": (width, width)}
    matrices |= {"gate": (hidden, width)} if gated else {}
    matrices |= {"up": (hidden, width), "down": (width, hidden)}
    parts = [Part(prefix + role, shape, here, has_bias=bias) for role, shape in matrices.items()]
    return parts + [Part(prefix + role, (width,), here, "norm", norm_bias) for role in ("norm1", "norm2")]


def block_rows(dice: Random, container: str, *, gated: bool, heads: int, prefix: str = "") -> list[Row]:
    """The names of a block; every choice is one that goes with all others."""
    attention, feed = f"{container}.{dice.choice(ATTENTIONS)}", f"{container}.{dice.choice(FEEDS)}"
    norms = zip(dice.choice(TWO_NORMS), (f"{prefix}norm1", f"{prefix}norm2"), strict=True)
    named = within(container, *norms)
    named += attention_rows(dice, attention, heads=heads, prefix=prefix)
    if gated and dice.random() < 0.3:
        name, both, back = dice.choice(GATED_JOINED)
        named += within(feed, (name, " ".join(prefix + role for role in both.split())), (back, f"{prefix}down"))
    else:
        roles = ("gate", "up", "down") if gated else ("up", "down")
        names: tuple[str, ...] = dice.choice(GATED) if gated else dice.choice(TWO_LINEARS)
        named += within(feed, *zip(names, (prefix + role for role in roles), strict=True))
    return named


def attention_rows(dice: Random, container: str, *, heads: int, prefix: str = "") -> list[Row]:
    """q, k, v apart, stacked, or k and v stacked; and the way out."""
    how = dice.random()
    q, k, v = (prefix + role for role in "qkv")
    rows: list[tuple[str, str]]
    if how < 0.05:  # as in The Annotated Transformer
        names, last = [f"linears.{n}" for n in range(3)], "linears.3"
        return within(container, *zip(names, (q, k, v), strict=True), (last, f"{prefix}o"))
    if how < 0.5:
        rows = list(zip(dice.choice(QKV), (q, k, v), strict=True))
    elif how < 0.85:
        if how > 0.8 and heads:
            return [
                row(f"{container}.query_key_value", f"{q} {k} {v}", heads=heads),
                row(f"{container}.dense", f"{prefix}o"),
            ]
        rows = [(dice.choice(JOINED), f"{q} {k} {v}")]
    else:
        one, two = dice.choice(HALF_JOINED)
        rows = [(one, q), (two, f"{k} {v}")]
    return within(container, *rows, (dice.choice(OUTS), f"{prefix}o"))


# one stack -----------------------------------------------------------------------------------------------------------


def stack(dice: Random) -> list[Part]:
    """A language model: embeddings, blocks, last norm and perhaps a head."""
    width = dice.choice((16, 24, 32))
    hidden, keys = width * dice.choice((4, 4, 3, 2)), dice.choice((width, width, width // 2, width // 4))
    bias, norm_bias, gated = dice.random() < 0.6, dice.random() < 0.6, dice.random() < 0.4
    parts = [Part("tokens", (100, width), kind="embedding")]
    if dice.random() < 0.6:
        parts.append(Part("positions", (dice.choice((20, 50)), width), kind="embedding"))
    for n in range(dice.choice((2, 3, 4, 12))):
        parts += block(width, hidden, keys=keys, bias=bias, norm_bias=norm_bias, gated=gated, n=n)
    parts.append(Part("last_norm", (width,), kind="norm", has_bias=norm_bias))
    return parts + ([Part("head", (100, width), kind="embedding")] if dice.random() < 0.5 else [])


def stack_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    shapes = {part.role: part.shape for part in parts}
    heads = 4 if shapes["k"] == shapes["q"] else 0
    rows = block_rows(dice, dice.choice(STACKS), gated="gate" in shapes, heads=heads)
    outer = (TOKENS, "tokens"), (POSITIONS, "positions"), (LAST, "last_norm"), (LM_HEADS, "head")
    return rows + within("", *((dice.choice(names), role) for names, role in outer))


# vision --------------------------------------------------------------------------------------------------------------

CLASS_TOKENS = (  # with that of a distilled one
    ("cls_token", "dist_token"), ("class_token", "distill_token"), ("class_embedding", "distillation_embedding"),
    ("embeddings.cls_token", "embeddings.distillation_token"), ("cls_token", "distillation_token"),
)  # fmt: skip
PLACES = (
    "pos_embed",
    "encoder.pos_embedding",
    "embeddings.position_embeddings",
    "positional_embedding",
    "pos_embedding",
)
PATCHES = ("patch_embed.proj", "conv_proj", "embeddings.patch_embeddings.projection", "patch_embedding", "conv1",
           "to_patch_embedding")  # fmt: skip
SCALES = (("ls1.gamma", "ls2.gamma"), ("gamma_1", "gamma_2"), ("layer_scale1.lambda1", "layer_scale2.lambda1"),
          ("attn_scale", "mlp_scale"))  # fmt: skip
VISION_LAST = ("norm", "encoder.ln", "layernorm", "ln_post", "head_norm", "fc_norm")
VISION_HEADS = (("head", "head_dist"), ("heads.head", "heads.dist"), ("cls_classifier", "distillation_classifier"),
                ("classifier", "distillation_classifier"), ("mlp_head", "mlp_head_dist"), ("fc", "fc_dist"),
                ("classifier", "dist_classifier"))  # fmt: skip


def vision(dice: Random) -> list[Part]:
    """Patches, a class token and positions, blocks, norm and head; perhaps a second token, perhaps layer scale."""
    width, places, has_scale = dice.choice((16, 24, 32)), dice.choice((17, 50)), dice.random() < 0.3
    is_distilled = dice.random() < 0.2
    parts = [Part("patch", (width, 3, 4, 4)), Part("positions", (1, places, width), kind="table")]
    parts += [Part(role, (1, 1, width), kind="table") for role in ("cls", "dist") if role == "cls" or is_distilled]
    for n in range(dice.choice((2, 3, 6, 12))):
        parts += block(width, 4 * width, keys=width, bias=True, norm_bias=True, gated=False, n=n)
        parts += [Part(role, (width,), at(n=n), "table") for role in ("scale1", "scale2") if has_scale]
    parts.append(Part("last_norm", (width,), kind="norm"))
    return parts + [Part(role, (10, width)) for role in ("head", "dist_head") if role == "head" or is_distilled]


def vision_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    container = dice.choice(STACKS)
    outer = ((PLACES, "positions"), (PATCHES, "patch"), (VISION_LAST, "last_norm"))
    rows = block_rows(dice, container, gated=False, heads=4)
    rows += within(container, *zip(dice.choice(SCALES), ("scale1", "scale2"), strict=True))
    rows += within("", *zip(dice.choice(CLASS_TOKENS), ("cls", "dist"), strict=True))
    rows += within("", *zip(dice.choice(VISION_HEADS), ("head", "dist_head"), strict=True))
    return rows + within("", *((dice.choice(names), role) for names, role in outer))
