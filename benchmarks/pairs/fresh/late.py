"""Families that were added when the rules were done: kept, all of them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from core import Impl, cvi, duo, tmi  # type: ignore[import-not-found]  # the folder's own
from torch import nn

from benchmarks.pairs.fresh.decoders import Decoder
from benchmarks.pairs.fresh.kit import BN5, LN6, ORDER, RUN, hf, images, last, numbers, of, own, tokens
from benchmarks.pairs.fresh.language_two import HF_ROBERTA
from benchmarks.pairs.fresh.networks import Encoder
from benchmarks.pairs.fresh.vision import features, timm_vit

IMAGE, TOKENS = images(64), tokens()
_SIZE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 48, "num_hidden_layers": 4, "intermediate_size": 192}

# ------------------------------------------------------------------------------------ ELECTRA: a narrower embedding
HF_ELECTRA = (
    "\n".join(line for line in HF_ROBERTA.splitlines() if "lm_head" not in line).replace("roberta.", "")
    + "\n    embeddings_project.@    in.@"
)
ELECTRA_OWN = """
    bert.tok.@                    tok.@
    bert.pos.@                    pos.@
    bert.typ.@                    seg.@
    bert.norm.@                   ne.@
    bert.widen.@                  in.@
    bert.layers.#.attn.query.@    #.q.@
    bert.layers.#.attn.key.@      #.k.@
    bert.layers.#.attn.value.@    #.v.@
    bert.layers.#.attn.out.@      #.o.@
    bert.layers.#.norm1.@         #.n1.@
    bert.layers.#.ffn.0.@         #.up.@
    bert.layers.#.ffn.2.@         #.down.@
    bert.layers.#.norm2.@         #.n2.@
"""
duo("electra", "electra",
    hf("ElectraModel", HF_ELECTRA, last, embedding_size=16, num_attention_heads=3, max_position_embeddings=32, **_SIZE),
    own(Encoder, ELECTRA_OWN, embed=16), TOKENS)  # fmt: skip

# ------------------------------------------------------------------------------------------- Phi-1.5 and StarCoder 2
HF_PHI = """
    model.embed_tokens.@                  tok.@
    model.layers.#.self_attn.q_proj.@     #.q.@
    model.layers.#.self_attn.k_proj.@     #.k.@
    model.layers.#.self_attn.v_proj.@     #.v.@
    model.layers.#.self_attn.dense.@      #.o.@
    model.layers.#.mlp.fc1.@              #.up.@
    model.layers.#.mlp.fc2.@              #.down.@
    model.layers.#.input_layernorm.@      #.n1.@
    model.final_layernorm.@               nf.@
    lm_head.@                             head.@
"""
PHI_OLD = """
    transformer.embd.wte.@              tok.@
    transformer.h.#.ln.@                #.n1.@
    transformer.h.#.mixer.Wqkv.@        #.{q,k,v}.@
    transformer.h.#.mixer.out_proj.@    #.o.@
    transformer.h.#.mlp.fc1.@           #.up.@
    transformer.h.#.mlp.fc2.@           #.down.@
    lm_head.ln.@                        nf.@
    lm_head.linear.@                    head.@
"""
duo("phi", "phi",
    hf("PhiForCausalLM", HF_PHI, num_attention_heads=3, max_position_embeddings=32, **_SIZE),
    own(Decoder, PHI_OLD, biased="q k v o up down head", parallel=True, rotary="halves", turn=8), TOKENS,
    tol=1e-5)  # fmt: skip
HF_STARCODER = """
    model.embed_tokens.@                         tok.@
    model.layers.#.self_attn.q_proj.@            #.q.@
    model.layers.#.self_attn.k_proj.@            #.k.@
    model.layers.#.self_attn.v_proj.@            #.v.@
    model.layers.#.self_attn.o_proj.@            #.o.@
    model.layers.#.mlp.c_fc.@                    #.up.@
    model.layers.#.mlp.c_proj.@                  #.down.@
    model.layers.#.input_layernorm.@             #.n1.@
    model.layers.#.post_attention_layernorm.@    #.n2.@
    model.norm.@                                 nf.@
    lm_head.@                                    head.@
"""
STARCODER_OWN = """
    embed.@                    tok.@
    blocks.#.norm1.@           #.n1.@
    blocks.#.attn.to_q.@       #.q.@
    blocks.#.attn.to_kv.@      #.{k,v}.@
    blocks.#.attn.to_out.@     #.o.@
    blocks.#.norm2.@           #.n2.@
    blocks.#.mlp.fc_in.@       #.up.@
    blocks.#.mlp.fc_out.@      #.down.@
    norm.@                     nf.@
    to_logits.@                head.@
"""
duo("starcoder2", "starcoder2",
    hf("Starcoder2ForCausalLM", HF_STARCODER, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=False,
       max_position_embeddings=32, **_SIZE),
    own(Decoder, STARCODER_OWN, key_heads=1, rotary="halves"), TOKENS, tol=1e-5)  # fmt: skip

# -------------------------------------------------------------------------------------- more that two libraries have
TIMM_IJEPA = """
    pos_embed               embeddings.position_embeddings
    patch_embed.proj.@      embeddings.patch_embeddings.projection.@
    blocks.#.norm1.@        layers.#.layernorm_before.@
    blocks.#.norm2.@        layers.#.layernorm_after.@
    blocks.#.attn.qkv.@     layers.#.attention.{q,k,v}_proj.@
    blocks.#.attn.proj.@    layers.#.attention.o_proj.@
    blocks.#.mlp.fc1.@      layers.#.mlp.fc1.@
    blocks.#.mlp.fc2.@      layers.#.mlp.fc2.@
    norm.@                  layernorm.@
"""
duo("ijepa", "ijepa",
    hf("IJepaModel", run=last, drop=("pooler.*",), hidden_size=48, num_attention_heads=3, num_hidden_layers=4,
       image_size=64, patch_size=16, intermediate_size=192, layer_norm_eps=1e-6),
    timm_vit(TIMM_IJEPA, features, class_token=False, global_pool="avg", fc_norm=False), IMAGE)  # fmt: skip
duo("convnextv2", "convnextv2",
    hf("ConvNextV2ForImageClassification", num_labels=10, hidden_sizes=[16, 24, 32, 48], depths=[2, 2, 3, 2]),
    of("timm", "timm.models.convnext", lambda m: m.ConvNeXt(num_classes=10, depths=(2, 2, 3, 2), dims=(16, 24, 32, 48),
       use_grn=True, ls_init_value=None)), IMAGE, ORDER, fix=LN6)  # fmt: skip


def _same_slope(*models: nn.Module) -> None:
    BN5(*models)
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.LeakyReLU):
                module.negative_slope = 0.1


duo("darknet53", "darknet", tmi("darknet53"), cvi("darknet53"), IMAGE, ORDER,
    fix=_same_slope, both=False)  # fmt: skip


class Upwards(nn.Module):
    """The generator of DCGAN: as one list, or stage by stage."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        widths = (20, 64, 32, 16, 8)
        layers: list[nn.Module] = []
        for n, (have, want) in enumerate(itertools.pairwise(widths)):
            layers += [
                nn.ConvTranspose2d(have, want, 4, 2 if n else 1, 1 if n else 0, bias=False),
                nn.BatchNorm2d(want),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.listed = listed
        if listed:
            self.main = nn.Sequential(*layers)
            return
        self.stages = nn.ModuleList()
        for deconv, norm in zip(layers[0:-2:3], layers[1:-2:3], strict=True):
            stage = nn.Module()
            stage.norm, stage.deconv = norm, deconv
            self.stages.append(stage)
        self.to_rgb = layers[-2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.listed:
            found: torch.Tensor = self.main(x)
            return found
        for stage in self.stages:
            x = F.relu(stage.norm(stage.deconv(x)))  # type: ignore[operator]
        return torch.tanh(self.to_rgb(x))


duo("dcgan", "dcgan", Impl("own", lambda: Upwards(True)), Impl("own", lambda: Upwards(False)), numbers(4, 20, 1, 1),
    RUN, na="listed", nb="staged")  # fmt: skip
