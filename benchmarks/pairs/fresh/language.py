"""Language models: transformers' against hand-written ones in the style of well-known repositories."""

from __future__ import annotations

from typing import Any

from core import duo  # type: ignore[import-not-found]  # the folder's own
from oracle import op_per_head, op_rope  # type: ignore[import-not-found]

from benchmarks.pairs.fresh.decoders import Decoder
from benchmarks.pairs.fresh.kit import hf, own, tokens

TOKENS = tokens()
op_per_head("heads", 3)
op_rope("rope", 3)
_SIZE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3}
_LLAMA: dict[str, Any] = {**_SIZE, "intermediate_size": 128, "max_position_embeddings": 64}

# ------------------------------------------------------------------------------------- GPT-2: Conv1D, tied head
HF_GPT2 = """
    transformer.wte.@                tok.@
    transformer.wpe.@                pos.@
    transformer.h.#.ln_1.@           #.n1.@
    transformer.h.#.attn.c_attn.@    T|#.{q,k,v}.@
    transformer.h.#.attn.c_proj.@    T|#.o.@
    transformer.h.#.ln_2.@           #.n2.@
    transformer.h.#.mlp.c_fc.@       T|#.up.@
    transformer.h.#.mlp.c_proj.@     T|#.down.@
    transformer.ln_f.@               nf.@
    lm_head.weight                   tok.weight
"""
NANO = """
    transformer.wte.@                tok.@
    transformer.wpe.@                pos.@
    transformer.h.#.ln_1.@           #.n1.@
    transformer.h.#.attn.c_attn.@    #.{q,k,v}.@
    transformer.h.#.attn.c_proj.@    #.o.@
    transformer.h.#.ln_2.@           #.n2.@
    transformer.h.#.mlp.c_fc.@       #.up.@
    transformer.h.#.mlp.c_proj.@     #.down.@
    transformer.ln_f.@               nf.@
    lm_head.@                        tok.@
"""
MINI = """
    tok_emb.@             tok.@
    pos_emb.@             pos.@
    blocks.#.ln1.@        #.n1.@
    blocks.#.ln2.@        #.n2.@
    blocks.#.attn.key.@   #.k.@
    blocks.#.attn.query.@ #.q.@
    blocks.#.attn.value.@ #.v.@
    blocks.#.attn.proj.@  #.o.@
    blocks.#.mlp.0.@      #.up.@
    blocks.#.mlp.2.@      #.down.@
    ln_f.@                nf.@
    head.@                head.@
"""
MINI_TIED = MINI.replace("head.@                head.@", "head.@  tok.@")
FROM_SCRATCH = """
    tok_emb.@                       tok.@
    pos_emb.@                       pos.@
    trf_blocks.#.att.W_query.@      #.q.@
    trf_blocks.#.att.W_key.@        #.k.@
    trf_blocks.#.att.W_value.@      #.v.@
    trf_blocks.#.att.out_proj.@     #.o.@
    trf_blocks.#.ff.layers.0.@      #.up.@
    trf_blocks.#.ff.layers.2.@      #.down.@
    trf_blocks.#.norm1.scale        #.n1.weight
    trf_blocks.#.norm1.shift        #.n1.bias
    trf_blocks.#.norm2.scale        #.n2.weight
    trf_blocks.#.norm2.shift        #.n2.bias
    final_norm.scale                nf.weight
    final_norm.shift                nf.bias
    out_head.@                      tok.@
"""
GPT2 = hf("GPT2LMHeadModel", HF_GPT2, vocab_size=100, n_positions=32, n_embd=48, n_layer=4, n_head=3)
duo("gpt2", "gpt2", GPT2, own(Decoder, NANO, tied=True), TOKENS, nb="nano")
duo("gpt2", "gpt2", GPT2, own(Decoder, MINI_TIED, tied=True), TOKENS, nb="mini")
duo("gpt2", "gpt2", GPT2, own(Decoder, FROM_SCRATCH, tied=True), TOKENS, nb="scratch", both=False)
duo(
    "gpt2",
    "gpt2",
    own(Decoder, NANO, tied=True),
    own(Decoder, FROM_SCRATCH, tied=True),
    TOKENS,
    na="nano",
    nb="scratch",
    both=False,
)

# ---------------------------------------------------------------------------- Llama and its kin: gated, rotary, GQA
HF_LLAMA = """
    model.embed_tokens.@                         tok.@
    model.layers.#.self_attn.q_proj.@            #.q.@
    model.layers.#.self_attn.k_proj.@            #.k.@
    model.layers.#.self_attn.v_proj.@            #.v.@
    model.layers.#.self_attn.o_proj.@            #.o.@
    model.layers.#.mlp.gate_proj.@               #.gate.@
    model.layers.#.mlp.up_proj.@                 #.up.@
    model.layers.#.mlp.down_proj.@               #.down.@
    model.layers.#.input_layernorm.@             #.n1.@
    model.layers.#.post_attention_layernorm.@    #.n2.@
    model.norm.@                                 nf.@
    lm_head.@                                    head.@
"""
HF_PHI3 = """
    model.embed_tokens.@                         tok.@
    model.layers.#.self_attn.o_proj.@            #.o.@
    model.layers.#.self_attn.qkv_proj.@          #.{q,k,v}.@
    model.layers.#.mlp.gate_up_proj.@            #.{gate,up}.@
    model.layers.#.mlp.down_proj.@               #.down.@
    model.layers.#.input_layernorm.@             #.n1.@
    model.layers.#.post_attention_layernorm.@    #.n2.@
    model.norm.@                                 nf.@
    lm_head.@                                    head.@
"""
META = """
    tok_embeddings.@             tok.@
    layers.#.attention.wq.@      #.q.@
    layers.#.attention.wk.@      #.k.@
    layers.#.attention.wv.@      #.v.@
    layers.#.attention.wo.@      #.o.@
    layers.#.feed_forward.w1.@   #.gate.@
    layers.#.feed_forward.w2.@   #.down.@
    layers.#.feed_forward.w3.@   #.up.@
    layers.#.attention_norm.@    #.n1.@
    layers.#.ffn_norm.@          #.n2.@
    norm.@                       nf.@
    output.@                     head.@
"""
META_TURNED = META.replace("#.q.@", "rope|#.q.@").replace("#.k.@", "rope1|#.k.@")
LIT = """
    lm_head.@                  head.@
    transformer.wte.@          tok.@
    transformer.h.#.norm_1.@   #.n1.@
    transformer.h.#.attn.qkv.@  #.{q,k,v}.@
    transformer.h.#.attn.proj.@ #.o.@
    transformer.h.#.norm_2.@   #.n2.@
    transformer.h.#.mlp.fc_1.@ #.gate.@
    transformer.h.#.mlp.fc_2.@ #.up.@
    transformer.h.#.mlp.proj.@ #.down.@
    transformer.ln_f.@         nf.@
"""
op_rope("rope1", 1)
_GQA: dict[str, Any] = {
    "heads": 3,
    "key_heads": 1,
    "hidden": 128,
    "bias": False,
    "rms": True,
    "eps": 1e-6,
    "gated": True,
}
_HALVES: dict[str, Any] = {**_GQA, "rotary": "halves"}
LLAMA = hf("LlamaForCausalLM", HF_LLAMA, num_key_value_heads=1, **_LLAMA)
PHI3 = hf("Phi3ForCausalLM", HF_PHI3, num_key_value_heads=1, pad_token_id=0, rms_norm_eps=1e-6, **_LLAMA)
MISTRAL = hf("MistralForCausalLM", HF_LLAMA, num_key_value_heads=1, **_LLAMA)
QWEN2 = hf("Qwen2ForCausalLM", HF_LLAMA, num_key_value_heads=1, **_LLAMA)
TOL: dict[str, Any] = {"tol": 1e-5}
duo("llama grouped", "llama", LLAMA, own(Decoder, META, **_HALVES), TOKENS, nb="meta", **TOL)
duo("llama grouped", "llama", LLAMA, own(Decoder, LIT, **_HALVES), TOKENS, nb="lit", **TOL)
duo(
    "llama neighbours",
    "llama",
    LLAMA,
    own(Decoder, META_TURNED, **_GQA, rotary="neighbours"),
    TOKENS,
    nb="meta",
    tier="models",
    note="rotary positions turn neighbours there, halves here: rows of q and k permuted",
    **TOL,
)
duo("phi3", "phi3", LLAMA, PHI3, TOKENS, na="llama", nb="phi3", **TOL)
duo("phi3", "phi3", PHI3, own(Decoder, LIT, **_HALVES), TOKENS, nb="lit", **TOL)
duo("mistral", "mistral", MISTRAL, own(Decoder, META, **_HALVES), TOKENS, nb="meta", both=False, **TOL)
duo("qwen2", "qwen2", QWEN2, own(Decoder, LIT, **_HALVES, biased="q k v"), TOKENS, nb="lit", **TOL)
