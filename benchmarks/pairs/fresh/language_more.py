"""More language models: other places for norms and biases, heads joined one by one, experts."""

from __future__ import annotations

from typing import Any

from core import duo  # type: ignore[import-not-found]  # the folder's own
from oracle import op_per_head, op_rope  # type: ignore[import-not-found]

from benchmarks.pairs.fresh.decoders import Decoder
from benchmarks.pairs.fresh.kit import hf, last, own, tokens

TOKENS = tokens()
op_per_head("heads", 3)
op_rope("rope", 3)
_SIZE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3}
_H: dict[str, Any] = {"vocab_size": 100, "hidden_size": 48}

# --------------------------------------------------------------------------- GPT-Neo: no bias on q, k, v, no scaling
HF_NEO = """
    wte.@                             tok.@
    wpe.@                             pos.@
    h.#.ln_1.@                        #.n1.@
    h.#.attn.attention.k_proj.@       #.k.@
    h.#.attn.attention.v_proj.@       #.v.@
    h.#.attn.attention.q_proj.@       #.q.@
    h.#.attn.attention.out_proj.@     #.o.@
    h.#.ln_2.@                        #.n2.@
    h.#.mlp.c_fc.@                    #.up.@
    h.#.mlp.c_proj.@                  #.down.@
    ln_f.@                            nf.@
"""
JOINED = """
    embedding.word.@            tok.@
    embedding.position.@        pos.@
    stack.#.attention.norm.@    #.n1.@
    stack.#.attention.qkv.@     #.{q,k,v}.@
    stack.#.attention.out.@     #.o.@
    stack.#.feed.norm.@         #.n2.@
    stack.#.feed.inner.@        #.up.@
    stack.#.feed.outer.@        #.down.@
    norm.@                      nf.@
"""
duo(
    "gpt_neo",
    "gpt_neo",
    hf(
        "GPTNeoModel",
        HF_NEO,
        last,
        num_layers=4,
        num_heads=3,
        attention_types=[[["global"], 4]],
        max_position_embeddings=32,
        **_H,
    ),
    own(Decoder, JOINED, biased="o up down", scaled=False),
    TOKENS,
    tol=1e-5,
)

# ------------------------------------------------------------------ GPT-NeoX and BLOOM: q, k, v joined head by head
HF_NEOX = """
    gpt_neox.embed_in.@                              tok.@
    gpt_neox.layers.#.input_layernorm.@              #.n1.@
    gpt_neox.layers.#.post_attention_layernorm.@     #.n2.@
    gpt_neox.layers.#.attention.query_key_value.@    heads|#.{q,k,v}.@
    gpt_neox.layers.#.attention.dense.@              #.o.@
    gpt_neox.layers.#.mlp.dense_h_to_4h.@            #.up.@
    gpt_neox.layers.#.mlp.dense_4h_to_h.@            #.down.@
    gpt_neox.final_layer_norm.@                      nf.@
    lm_head.@                                        head.@
"""
NEOX_ALIKE = """
    embed.@                  tok.@
    blocks.#.ln_att.@        #.n1.@
    blocks.#.ln_mlp.@        #.n2.@
    blocks.#.att.in_proj.@   heads|#.{q,k,v}.@
    blocks.#.att.out_proj.@  #.o.@
    blocks.#.mlp.0.@         #.up.@
    blocks.#.mlp.2.@         #.down.@
    ln_out.@                 nf.@
    unembed.@                head.@
"""
NEOX_APART = NEOX_ALIKE.replace(
    "blocks.#.att.in_proj.@   heads|#.{q,k,v}.@",
    """
    blocks.#.att.q.@  #.q.@
    blocks.#.att.k.@  #.k.@
    blocks.#.att.v.@  #.v.@
""",
)
_NEOX: dict[str, Any] = {"parallel": True, "rotary": "halves", "turn": 4, "activation": "none"}
NEOX = hf("GPTNeoXForCausalLM", HF_NEOX, intermediate_size=128, max_position_embeddings=32, **_SIZE)
duo("gpt_neox", "gpt_neox", NEOX, own(Decoder, NEOX_ALIKE, hidden=128, **_NEOX), TOKENS, tol=1e-5)
duo(
    "gpt_neox apart",
    "gpt_neox",
    NEOX,
    own(Decoder, NEOX_APART, hidden=128, **_NEOX),
    TOKENS,
    tol=1e-5,
    tier="models",
    note="q, k and v are joined head by head there",
)
HF_BLOOM = """
    word_embeddings.@                       tok.@
    word_embeddings_layernorm.@             ne.@
    h.#.input_layernorm.@                   #.n1.@
    h.#.self_attention.query_key_value.@    heads|#.{q,k,v}.@
    h.#.self_attention.dense.@              #.o.@
    h.#.post_attention_layernorm.@          #.n2.@
    h.#.mlp.dense_h_to_4h.@                 #.up.@
    h.#.mlp.dense_4h_to_h.@                 #.down.@
    ln_f.@                                  nf.@
"""
BLOOM_ALIKE = """
    embed.@                  tok.@
    embed_norm.@             ne.@
    blocks.#.norm1.@         #.n1.@
    blocks.#.attn.qkv.@      heads|#.{q,k,v}.@
    blocks.#.attn.proj.@     #.o.@
    blocks.#.norm2.@         #.n2.@
    blocks.#.mlp.fc1.@       #.up.@
    blocks.#.mlp.fc2.@       #.down.@
    norm.@                   nf.@
"""
BLOOM = hf("BloomModel", HF_BLOOM, last, n_layer=4, n_head=3, **_H)
duo("bloom", "bloom", BLOOM, own(Decoder, BLOOM_ALIKE), TOKENS, tol=1e-5)
duo(
    "bloom apart",
    "bloom",
    BLOOM,
    own(Decoder, BLOOM_ALIKE.replace("heads|", "")),
    TOKENS,
    tol=1e-5,
    both=False,
    tier="models",
    note="q, k and v are joined head by head in one, part by part in the other",
)

# ----------------------------------------------------------------- GPT-J: one norm a block, rotary neighbours in both
HF_GPTJ = """
    transformer.wte.@                tok.@
    transformer.h.#.ln_1.@           #.n1.@
    transformer.h.#.attn.k_proj.@    #.k.@
    transformer.h.#.attn.v_proj.@    #.v.@
    transformer.h.#.attn.q_proj.@    #.q.@
    transformer.h.#.attn.out_proj.@  #.o.@
    transformer.h.#.mlp.fc_in.@      #.up.@
    transformer.h.#.mlp.fc_out.@     #.down.@
    transformer.ln_f.@               nf.@
    lm_head.@                        head.@
"""
GPTJ_OWN = """
    embedding.@                 tok.@
    layers.#.norm.@             #.n1.@
    layers.#.attention.query.@  #.q.@
    layers.#.attention.key.@    #.k.@
    layers.#.attention.value.@  #.v.@
    layers.#.attention.out.@    #.o.@
    layers.#.mlp.expand.@       #.up.@
    layers.#.mlp.shrink.@       #.down.@
    final.norm.@                nf.@
    final.words.@               headb.@
"""
duo(
    "gptj",
    "gptj",
    hf("GPTJForCausalLM", HF_GPTJ, vocab_size=100, n_positions=32, n_embd=48, n_layer=4, n_head=3, rotary_dim=8),
    own(Decoder, GPTJ_OWN.replace("headb", "head"), biased="up down head", parallel=True, rotary="neighbours", turn=8),
    TOKENS,
    tol=1e-5,
)

# --------------------------------------------------------------------------------------- OPT: positions shifted by 2
HF_OPT = """
    decoder.embed_tokens.@                     tok.@
    decoder.embed_positions.@                  pos.@
    decoder.final_layer_norm.@                 nf.@
    decoder.layers.#.self_attn.k_proj.@        #.k.@
    decoder.layers.#.self_attn.v_proj.@        #.v.@
    decoder.layers.#.self_attn.q_proj.@        #.q.@
    decoder.layers.#.self_attn.out_proj.@      #.o.@
    decoder.layers.#.self_attn_layer_norm.@    #.n1.@
    decoder.layers.#.fc1.@                     #.up.@
    decoder.layers.#.fc2.@                     #.down.@
    decoder.layers.#.final_layer_norm.@        #.n2.@
"""
OPT = hf(
    "OPTModel",
    HF_OPT,
    last,
    vocab_size=100,
    hidden_size=48,
    num_hidden_layers=4,
    ffn_dim=192,
    num_attention_heads=3,
    max_position_embeddings=32,
    word_embed_proj_dim=48,
    pad_token_id=1,
)
duo("opt", "opt", OPT, own(Decoder, JOINED, activation="relu", shift=2), TOKENS, tol=1e-5)

# ------------------------------------------------------------- Mixtral: experts in one tensor, or a list of three each
HF_MIXTRAL = """
    model.embed_tokens.@                         tok.@
    model.layers.#.self_attn.q_proj.@            #.q.@
    model.layers.#.self_attn.k_proj.@            #.k.@
    model.layers.#.self_attn.v_proj.@            #.v.@
    model.layers.#.self_attn.o_proj.@            #.o.@
    model.layers.#.mlp.gate.@                    #.router.@
    model.layers.#.mlp.experts.gate_up_proj      stack6|#.{0.gate,0.up,1.gate,1.up,2.gate,2.up}.weight
    model.layers.#.mlp.experts.down_proj         stack3|#.{0.down,1.down,2.down}.weight
    model.layers.#.input_layernorm.@             #.n1.@
    model.layers.#.post_attention_layernorm.@    #.n2.@
    model.norm.@                                 nf.@
    lm_head.@                                    head.@
"""
MIXTRAL_OWN = """
    tok_embeddings.@                               tok.@
    layers.#.attention.wq.@                        #.q.@
    layers.#.attention.wk.@                        #.k.@
    layers.#.attention.wv.@                        #.v.@
    layers.#.attention.wo.@                        #.o.@
    layers.#.attention_norm.@                      #.n1.@
    layers.#.ffn_norm.@                            #.n2.@
    layers.#.block_sparse_moe.gate.@               #.router.@
    layers.#.block_sparse_moe.experts.0.w1.@       #.0.gate.@
    layers.#.block_sparse_moe.experts.0.w2.@       #.0.down.@
    layers.#.block_sparse_moe.experts.0.w3.@       #.0.up.@
    layers.#.block_sparse_moe.experts.1.w1.@       #.1.gate.@
    layers.#.block_sparse_moe.experts.1.w2.@       #.1.down.@
    layers.#.block_sparse_moe.experts.1.w3.@       #.1.up.@
    layers.#.block_sparse_moe.experts.2.w1.@       #.2.gate.@
    layers.#.block_sparse_moe.experts.2.w2.@       #.2.down.@
    layers.#.block_sparse_moe.experts.2.w3.@       #.2.up.@
    norm.@                                         nf.@
    output.@                                       head.@
"""
"""Experts stacked in one tensor, as the oracle's joins want them: one below the other."""
from oracle import OPS, Op  # noqa: E402  # type: ignore[import-not-found]

for experts in (3, 6):
    OPS[f"stack{experts}"] = Op("reshape", lambda t: t.flatten(0, 1), lambda t: t)
MIXTRAL = hf(
    "MixtralForCausalLM",
    HF_MIXTRAL,
    num_key_value_heads=1,
    num_local_experts=3,
    intermediate_size=128,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    experts_implementation="eager",
    rope_theta=10000.0,
    **_SIZE,
)
duo(
    "mixtral",
    "mixtral",
    MIXTRAL,
    own(
        Decoder,
        MIXTRAL_OWN,
        heads=3,
        key_heads=1,
        hidden=128,
        bias=False,
        rms=True,
        eps=1e-6,
        gated=True,
        rotary="halves",
        experts=3,
    ),
    TOKENS,
    tol=1e-5,
)
