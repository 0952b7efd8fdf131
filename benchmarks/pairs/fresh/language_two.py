"""Encoders, encoders with decoders, and a state space."""

from __future__ import annotations

from typing import Any

import torch
from core import Impl, duo  # type: ignore[import-not-found]  # the folder's own
from torch import nn

from benchmarks.pairs.fresh.kit import hf, last, of, own, tokens
from benchmarks.pairs.fresh.networks import Encoder, Mamba, Seq2Seq, TorchSeq2Seq
from benchmarks.pairs.fresh.tables import table

TOKENS = tokens()
_SIZE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 192}

# ------------------------------------------------------------------------------------- RoBERTa, ALBERT, ELECTRA's kin
HF_ROBERTA = """
    roberta.embeddings.word_embeddings.@                tok.@
    roberta.embeddings.token_type_embeddings.@          seg.@
    roberta.embeddings.LayerNorm.@                      ne.@
    roberta.embeddings.position_embeddings.@            pos.@
    roberta.encoder.layer.#.attention.self.query.@      #.q.@
    roberta.encoder.layer.#.attention.self.key.@        #.k.@
    roberta.encoder.layer.#.attention.self.value.@      #.v.@
    roberta.encoder.layer.#.attention.output.dense.@    #.o.@
    roberta.encoder.layer.#.attention.output.LayerNorm.@  #.n1.@
    roberta.encoder.layer.#.intermediate.dense.@        #.up.@
    roberta.encoder.layer.#.output.dense.@              #.down.@
    roberta.encoder.layer.#.output.LayerNorm.@          #.n2.@
    lm_head.bias                                        by_word
    lm_head.dense.@                                     dense.@
    lm_head.layer_norm.@                                nh.@
    lm_head.decoder.weight                              tok.weight
    lm_head.decoder.bias                                by_word
"""
FAIRSEQ = """
    encoder.sentence_encoder.embed_tokens.@                     tok.@
    encoder.sentence_encoder.embed_positions.@                  pos.@
    encoder.sentence_encoder.layers.#.self_attn.k_proj.@        #.k.@
    encoder.sentence_encoder.layers.#.self_attn.v_proj.@        #.v.@
    encoder.sentence_encoder.layers.#.self_attn.q_proj.@        #.q.@
    encoder.sentence_encoder.layers.#.self_attn.out_proj.@      #.o.@
    encoder.sentence_encoder.layers.#.self_attn_layer_norm.@    #.n1.@
    encoder.sentence_encoder.layers.#.fc1.@                     #.up.@
    encoder.sentence_encoder.layers.#.fc2.@                     #.down.@
    encoder.sentence_encoder.layers.#.final_layer_norm.@        #.n2.@
    encoder.sentence_encoder.emb_layer_norm.@                   ne.@
    encoder.sentence_encoder.segments.@                         seg.@
    encoder.lm_head.dense.@                                     dense.@
    encoder.lm_head.layer_norm.@                                nh.@
    encoder.lm_head.weight                                      tok.weight
    encoder.lm_head.bias                                        by_word
"""
ROBERTA = hf(
    "RobertaForMaskedLM",
    HF_ROBERTA,
    num_hidden_layers=4,
    max_position_embeddings=32,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    **_SIZE,
)
duo("roberta", "roberta", ROBERTA, own(Encoder, FAIRSEQ, eps=1e-5, first=2), TOKENS, nb="fairseq")
HF_ALBERT = """
    embeddings.word_embeddings.@          tok.@
    embeddings.position_embeddings.@      pos.@
    embeddings.token_type_embeddings.@    seg.@
    embeddings.LayerNorm.@                ne.@
    encoder.embedding_hidden_mapping_in.@    in.@
    encoder.albert_layer_groups.0.albert_layers.#.full_layer_layer_norm.@   #.n2.@
    encoder.albert_layer_groups.0.albert_layers.#.attention.query.@         #.q.@
    encoder.albert_layer_groups.0.albert_layers.#.attention.key.@           #.k.@
    encoder.albert_layer_groups.0.albert_layers.#.attention.value.@         #.v.@
    encoder.albert_layer_groups.0.albert_layers.#.attention.dense.@         #.o.@
    encoder.albert_layer_groups.0.albert_layers.#.attention.LayerNorm.@     #.n1.@
    encoder.albert_layer_groups.0.albert_layers.#.ffn.@                     #.up.@
    encoder.albert_layer_groups.0.albert_layers.#.ffn_output.@              #.down.@
"""
ALBERT_OWN = """
    embed.tokens.@             tok.@
    embed.segments.@           seg.@
    embed.positions.@          pos.@
    embed.norm.@               ne.@
    embed.projection.@         in.@
    layer.attn.proj_query.@    0.q.@
    layer.attn.proj_key.@      0.k.@
    layer.attn.proj_value.@    0.v.@
    layer.attn.proj_out.@      0.o.@
    layer.attn.norm.@          0.n1.@
    layer.mlp.fc1.@            0.up.@
    layer.mlp.fc2.@            0.down.@
    layer.mlp.norm.@           0.n2.@
"""
duo(
    "albert",
    "albert",
    hf(
        "AlbertModel",
        HF_ALBERT,
        last,
        drop=("pooler.*",),
        embedding_size=16,
        num_hidden_layers=4,
        max_position_embeddings=32,
        add_pooling_layer=False,
        hidden_act="gelu_new",
        **_SIZE,
    ),
    own(Encoder, ALBERT_OWN, depth=1, repeat=4, embed=16, activation="tanh"),
    TOKENS,
    both=False,
)

# -------------------------------------------------------------------------------------------------- ESM-2 of fair-esm
FAIR_TO_ESM = """
    embed_tokens.@                       esm.embeddings.word_embeddings.@
    layers.#.self_attn.k_proj.@          esm.encoder.layer.#.attention.self.key.@
    layers.#.self_attn.v_proj.@          esm.encoder.layer.#.attention.self.value.@
    layers.#.self_attn.q_proj.@          esm.encoder.layer.#.attention.self.query.@
    layers.#.self_attn.out_proj.@        esm.encoder.layer.#.attention.output.dense.@
    layers.#.self_attn.rot_emb.inv_freq  -
    layers.#.self_attn_layer_norm.@      esm.encoder.layer.#.attention.LayerNorm.@
    layers.#.fc1.@                       esm.encoder.layer.#.intermediate.dense.@
    layers.#.fc2.@                       esm.encoder.layer.#.output.dense.@
    layers.#.final_layer_norm.@          esm.encoder.layer.#.LayerNorm.@
    contact_head.regression.@            esm.contact_head.regression.@
    emb_layer_norm_after.@               esm.encoder.emb_layer_norm_after.@
    lm_head.weight                       esm.embeddings.word_embeddings.weight
    lm_head.bias                         lm_head.bias
    lm_head.dense.@                      lm_head.dense.@
    lm_head.layer_norm.@                 lm_head.layer_norm.@
"""


def fair_esm(m: Any) -> nn.Module:
    model: nn.Module = m.ESM2(4, 48, 3)
    return model


ESM = hf(
    "EsmForMaskedLM",
    drop=("esm.rotary_embeddings.inv_freq", "lm_head.decoder.bias", "lm_head.decoder.weight"),
    num_hidden_layers=4,
    pad_token_id=1,
    mask_token_id=32,
    max_position_embeddings=64,
    position_embedding_type="rotary",
    emb_layer_norm_before=False,
    token_dropout=True,
    **{**_SIZE, "vocab_size": 33},
)
duo(
    "esm2",
    "esm",
    of("fair", "esm.model.esm2", fair_esm, FAIR_TO_ESM, lambda m, x: m(x)["logits"]),
    ESM,
    tokens(30),
    tol=1e-4,
)

# ------------------------------------------------------------------------------------------------- T5, BART, Mamba
HF_T5 = """
    shared.@                     tok.@
    encoder.embed_tokens.@       tok.@
    encoder.block.0.layer.0.SelfAttention.relative_attention_bias.@    enc.far.@
    encoder.block.#.layer.0.SelfAttention.@.@         #.enc.@.@
    encoder.block.#.layer.0.layer_norm.@              #.enc.n1.@
    encoder.block.#.layer.1.DenseReluDense.wi.@       #.enc.up.@
    encoder.block.#.layer.1.DenseReluDense.wo.@       #.enc.down.@
    encoder.block.#.layer.1.layer_norm.@              #.enc.n2.@
    encoder.final_layer_norm.@                        enc.nf.@
    decoder.embed_tokens.@       tok.@
    decoder.block.0.layer.0.SelfAttention.relative_attention_bias.@    dec.far.@
    decoder.block.#.layer.0.SelfAttention.@.@         #.dec.@.@
    decoder.block.#.layer.0.layer_norm.@              #.dec.n1.@
    decoder.block.#.layer.1.EncDecAttention.@.@       #.dec.x@.@
    decoder.block.#.layer.1.layer_norm.@              #.dec.nx.@
    decoder.block.#.layer.2.DenseReluDense.wi.@       #.dec.up.@
    decoder.block.#.layer.2.DenseReluDense.wo.@       #.dec.down.@
    decoder.block.#.layer.2.layer_norm.@              #.dec.n2.@
    decoder.final_layer_norm.@                        dec.nf.@
    lm_head.@                    tok.@
"""
T5_OWN = """
    token_emb.@                            tok.@
    encoder.layers.#.attn.norm.@           #.enc.n1.@
    encoder.layers.#.attn.to_qkv.@         #.enc.{q,k,v}.@
    encoder.layers.#.attn.to_out.@         #.enc.o.@
    encoder.layers.#.ff.norm.@             #.enc.n2.@
    encoder.layers.#.ff.w_in.@             #.enc.up.@
    encoder.layers.#.ff.w_out.@            #.enc.down.@
    encoder.rel_pos.@                      enc.far.@
    encoder.norm.@                         enc.nf.@
    decoder.layers.#.self_attn.norm.@      #.dec.n1.@
    decoder.layers.#.self_attn.to_qkv.@    #.dec.{q,k,v}.@
    decoder.layers.#.self_attn.to_out.@    #.dec.o.@
    decoder.layers.#.cross_attn.norm.@     #.dec.nx.@
    decoder.layers.#.cross_attn.to_q.@     #.dec.xq.@
    decoder.layers.#.cross_attn.to_kv.@    #.dec.{xk,xv}.@
    decoder.layers.#.cross_attn.to_out.@   #.dec.xo.@
    decoder.layers.#.ff.norm.@             #.dec.n2.@
    decoder.layers.#.ff.w_in.@             #.dec.up.@
    decoder.layers.#.ff.w_out.@            #.dec.down.@
    decoder.rel_pos.@                      dec.far.@
    decoder.norm.@                         dec.nf.@
"""


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(11)
    return torch.randint(3, 100, (2, 10), generator=dice), torch.randint(3, 100, (2, 7), generator=dice)


def run_hf(model: Any, x: Any) -> torch.Tensor:
    out = model(input_ids=x[0], decoder_input_ids=x[1])
    found: torch.Tensor = out.logits if hasattr(out, "logits") else out.last_hidden_state
    return found


def run_own(model: Any, x: Any) -> torch.Tensor:
    found: torch.Tensor = model(*x)
    return found


T5 = hf(
    "T5ForConditionalGeneration",
    HF_T5,
    run_hf,
    vocab_size=100,
    d_model=48,
    d_kv=16,
    d_ff=192,
    num_layers=3,
    num_heads=3,
)
duo("t5", "t5", T5, own(Seq2Seq, T5_OWN, run_own), texts, tol=1e-5)

_BART = """
    {1}.embed_positions.@                  {0}_pos.@
    {1}.layernorm_embedding.@              {0}_norm.@
    {1}.layers.#.self_attn.q_proj.@        transformer.{1}.layers.#.self_attn.q.@
    {1}.layers.#.self_attn.k_proj.@        transformer.{1}.layers.#.self_attn.k.@
    {1}.layers.#.self_attn.v_proj.@        transformer.{1}.layers.#.self_attn.v.@
    {1}.layers.#.self_attn.out_proj.@      transformer.{1}.layers.#.self_attn.out_proj.@
    {1}.layers.#.self_attn_layer_norm.@    transformer.{1}.layers.#.norm1.@
    {1}.layers.#.fc1.@                     transformer.{1}.layers.#.linear1.@
    {1}.layers.#.fc2.@                     transformer.{1}.layers.#.linear2.@
    {1}.layers.#.final_layer_norm.@        transformer.{1}.layers.#.{2}.@
    {1}.embed_tokens.@                     tok.@
"""
HF_BART = (
    _BART.format("src", "encoder", "norm2")
    + _BART.format("tgt", "decoder", "norm3")
    + """
    shared.@                                       tok.@
    decoder.layers.#.encoder_attn.q_proj.@         transformer.decoder.layers.#.multihead_attn.q.@
    decoder.layers.#.encoder_attn.k_proj.@         transformer.decoder.layers.#.multihead_attn.k.@
    decoder.layers.#.encoder_attn.v_proj.@         transformer.decoder.layers.#.multihead_attn.v.@
    decoder.layers.#.encoder_attn.out_proj.@       transformer.decoder.layers.#.multihead_attn.out_proj.@
    decoder.layers.#.encoder_attn_layer_norm.@     transformer.decoder.layers.#.norm2.@
"""
)
TORCH_SEQ2SEQ = """
    src_tok_emb.@                                  tok.@
    tgt_tok_emb.@                                  tok.@
    @_pos.@                                        @_pos.@
    @_norm.@                                       @_norm.@
    transformer.@.layers.#.self_attn.in_proj_@     transformer.@.layers.#.self_attn.{q,k,v}.@
    transformer.@.layers.#.multihead_attn.in_proj_@     transformer.@.layers.#.multihead_attn.{q,k,v}.@
    transformer.@.layers.#.@.out_proj.@            transformer.@.layers.#.@.out_proj.@
    transformer.@.layers.#.@.@                     transformer.@.layers.#.@.@
"""
BART = hf(
    "BartModel",
    HF_BART,
    run_hf,
    vocab_size=100,
    d_model=48,
    encoder_layers=3,
    decoder_layers=3,
    encoder_attention_heads=3,
    decoder_attention_heads=3,
    encoder_ffn_dim=192,
    decoder_ffn_dim=192,
    max_position_embeddings=32,
)
duo(
    "bart",
    "bart",
    BART,
    Impl("own", TorchSeq2Seq, table(TORCH_SEQ2SEQ), run_own, label="torch.nn.TransformerDecoder"),
    texts,
)

MAMBA_OWN = """
    embedding.@                 tok.@
    layers.#.mixer.in_proj.@    #.in.@
    layers.#.mixer.conv.@       #.conv.@
    layers.#.mixer.to_bcdt.@    #.x.@
    layers.#.mixer.dt.@         #.dt.@
    layers.#.mixer.log_a        #.A
    layers.#.mixer.skip         #.D
    layers.#.mixer.out_proj.@   #.out.@
    layers.#.norm.@             #.n.@
    norm.@                      nf.@
"""
HF_MAMBA = """
    backbone.embeddings.@                tok.@
    backbone.layers.#.norm.@             #.n.@
    backbone.layers.#.mixer.A_log        #.A
    backbone.layers.#.mixer.D            #.D
    backbone.layers.#.mixer.conv1d.@     #.conv.@
    backbone.layers.#.mixer.in_proj.@    #.in.@
    backbone.layers.#.mixer.x_proj.@     #.x.@
    backbone.layers.#.mixer.dt_proj.@    #.dt.@
    backbone.layers.#.mixer.out_proj.@   #.out.@
    backbone.norm_f.@                    nf.@
    lm_head.@                            tok.@
"""
duo(
    "mamba",
    "mamba",
    hf("MambaForCausalLM", HF_MAMBA, vocab_size=100, hidden_size=48, num_hidden_layers=3, state_size=8),
    own(Mamba, MAMBA_OWN),
    TOKENS,
    tol=1e-5,
)
