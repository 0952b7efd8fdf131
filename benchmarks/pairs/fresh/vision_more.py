"""More transformers for images: hierarchies, convolutions between, two towers."""

from __future__ import annotations

from typing import Any

import torch
from core import Impl, duo, hfi  # type: ignore[import-not-found]  # the folder's own
from torch import nn

from benchmarks.pairs.fresh.kit import LN5, LN6, ORDER, RUN, hf, images, of, tokens
from benchmarks.pairs.fresh.pixels import Mix, square
from benchmarks.pairs.fresh.tables import table

IMAGE = images(64)

# ---------------------------------------------------------------------------------------------------------- LeViT
duo(
    "levit",
    "levit",
    hf(
        "LevitForImageClassificationWithTeacher",
        num_labels=10,
        hidden_sizes=[32, 48, 64],
        num_attention_heads=[2, 3, 4],
        depths=[2, 2, 2],
        key_dim=[8, 8, 8],
        image_size=64,
    ),
    of(
        "timm",
        "timm.models.levit",
        lambda m: m.LevitDistilled(
            img_size=64, num_classes=10, embed_dim=(32, 48, 64), depth=(2, 2, 2), key_dim=8, num_heads=(2, 3, 4)
        ),
    ),
    IMAGE,
    ORDER,
)

# ------------------------------------------------------------------------------------- Swin v2: keys without a bias
TIMM_TO_SWIN2 = """
    patch_embed.proj.@                  swinv2.embeddings.patch_embeddings.projection.@
    patch_embed.norm.@                  swinv2.embeddings.norm.@
    layers.#.blocks.#.attn.logit_scale  swinv2.encoder.layers.#.blocks.#.attention.self.logit_scale
    layers.#.blocks.#.attn.q_bias       swinv2.encoder.layers.#.blocks.#.attention.self.query.bias
    layers.#.blocks.#.attn.v_bias       swinv2.encoder.layers.#.blocks.#.attention.self.value.bias
    layers.#.blocks.#.attn.qkv.@        swinv2.encoder.layers.#.blocks.#.attention.self.{query,key,value}.@
    layers.#.blocks.#.attn.cpb_mlp.#.@  swinv2.encoder.layers.#.blocks.#.attention.self.continuous_position_bias_mlp.#.@
    layers.#.blocks.#.attn.proj.@       swinv2.encoder.layers.#.blocks.#.attention.output.dense.@
    layers.#.blocks.#.norm1.@           swinv2.encoder.layers.#.blocks.#.layernorm_before.@
    layers.#.blocks.#.norm2.@           swinv2.encoder.layers.#.blocks.#.layernorm_after.@
    layers.#.blocks.#.mlp.fc1.@         swinv2.encoder.layers.#.blocks.#.intermediate.dense.@
    layers.#.blocks.#.mlp.fc2.@         swinv2.encoder.layers.#.blocks.#.output.dense.@
    layers.#.downsample.reduction.@     swinv2.encoder.layers.#-1.downsample.reduction.@
    layers.#.downsample.norm.@          swinv2.encoder.layers.#-1.downsample.norm.@
    norm.@                              swinv2.layernorm.@
    head.fc.@                           classifier.@
"""
_STAGE = """
    features.{0}.#.norm1.@                   layers.{1}.blocks.#.norm1.@
    features.{0}.#.norm2.@                   layers.{1}.blocks.#.norm2.@
    features.{0}.#.attn.logit_scale          layers.{1}.blocks.#.attn.logit_scale
    features.{0}.#.attn.relative_coords_table  -
    features.{0}.#.attn.qkv.weight           layers.{1}.blocks.#.attn.qkv.weight
    features.{0}.#.attn.qkv.bias             layers.{1}.blocks.#.attn.[q_bias,?k_bias,v_bias]
    features.{0}.#.attn.proj.@               layers.{1}.blocks.#.attn.proj.@
    features.{0}.#.attn.cpb_mlp.#.@          layers.{1}.blocks.#.attn.cpb_mlp.#.@
    features.{0}.#.mlp.0.@                   layers.{1}.blocks.#.mlp.fc1.@
    features.{0}.#.mlp.3.@                   layers.{1}.blocks.#.mlp.fc2.@
"""
TV_TO_TIMM_SWIN2 = """
    features.0.0.@            patch_embed.proj.@
    features.0.2.@            patch_embed.norm.@
    features.2.reduction.@    layers.1.downsample.reduction.@
    features.2.norm.@         layers.1.downsample.norm.@
    norm.@                    norm.@
    head.@                    head.fc.@
""" + "".join(_STAGE.format(2 * n + 1, n).replace("[", "{").replace("]", "}") for n in range(2))
SWIN2: dict[str, Any] = {
    "img_size": 64,
    "embed_dim": 24,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
    "num_classes": 10,
}


def timm_swin2(names: str = "") -> Any:
    return of("timm", "timm.models.swin_transformer_v2", lambda m: m.SwinTransformerV2(**SWIN2), names)


def tv_swin2() -> Any:
    def make(m: Any) -> nn.Module:
        model: nn.Module = m.SwinTransformer(
            [4, 4],
            24,
            [2, 2],
            [2, 4],
            [4, 4],
            num_classes=10,
            block=m.SwinTransformerBlockV2,
            downsample_layer=m.PatchMergingV2,
        )
        return model

    return of("tv", "torchvision.models.swin_transformer", make, TV_TO_TIMM_SWIN2)


duo(
    "swin_v2",
    "swin_v2",
    hf(
        "Swinv2ForImageClassification",
        num_labels=10,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        image_size=64,
        window_size=4,
    ),
    timm_swin2(TIMM_TO_SWIN2),
    IMAGE,
    fix=LN5,
    tol=1e-5,
)
duo("swin_v2", "swin_v2", tv_swin2(), timm_swin2(), IMAGE, fix=LN5, tol=1e-5)

# --------------------------------------------------------------------------------------------- FocalNet and Hiera
duo(
    "focalnet",
    "focalnet",
    hf(
        "FocalNetForImageClassification",
        num_labels=10,
        embed_dim=24,
        depths=[2, 2],
        hidden_sizes=[24, 48],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        image_size=64,
    ),
    of(
        "timm",
        "timm.models.focalnet",
        lambda m: m.FocalNet(embed_dim=24, depths=(2, 2), focal_levels=(2, 2), focal_windows=(3, 3), num_classes=10),
    ),
    IMAGE,
    RUN,
    fix=LN5,
)
_HIERA = """
    blocks.{0}.norm1.@        hiera.encoder.stages.{1}.layers.{2}.layernorm_before.@
    blocks.{0}.norm2.@        hiera.encoder.stages.{1}.layers.{2}.layernorm_after.@
    blocks.{0}.attn.qkv.@     hiera.encoder.stages.{1}.layers.{2}.attn.qkv.@
    blocks.{0}.attn.proj.@    hiera.encoder.stages.{1}.layers.{2}.attn.proj.@
    blocks.{0}.mlp.fc1.@      hiera.encoder.stages.{1}.layers.{2}.mlp.fc1.@
    blocks.{0}.mlp.fc2.@      hiera.encoder.stages.{1}.layers.{2}.mlp.fc2.@
    blocks.{0}.proj.@         hiera.encoder.stages.{1}.layers.{2}.proj.@
"""
TIMM_TO_HIERA = """
    pos_embed                 hiera.embeddings.position_embeddings
    patch_embed.proj.@        hiera.embeddings.patch_embeddings.projection.@
    head.norm.@               hiera.pooler.layernorm.@
    head.fc.@                 classifier.@
""" + "".join(
    _HIERA.format(n, *place) for n, place in enumerate(((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0)))
)
duo(
    "hiera",
    "hiera",
    hf("HieraForImageClassification", num_labels=10, embed_dim=24, depths=[1, 2, 3, 1], image_size=[224, 224]),
    of(
        "timm",
        "timm.models.hiera",
        lambda m: m.Hiera(img_size=(224, 224), embed_dim=24, num_heads=1, stages=(1, 2, 3, 1), num_classes=10),
        TIMM_TO_HIERA,
    ),
    images(224, 1),
    fix=LN6,
)

# ----------------------------------------------------------------------------------- CLIP as OpenAI stored it, whole
_TOWER = """
    {0}.ln_1.@              {1}.layer_norm1.@
    {0}.attn.in_proj_@      {1}.self_attn.[q,k,v]_proj.@
    {0}.attn.out_proj.@     {1}.self_attn.out_proj.@
    {0}.ln_2.@              {1}.layer_norm2.@
    {0}.mlp.c_fc.@          {1}.mlp.fc1.@
    {0}.mlp.c_proj.@        {1}.mlp.fc2.@
"""
OPENAI_TO_CLIP = """
    positional_embedding           text_model.embeddings.position_embedding.weight
    text_projection                T|text_projection.weight
    logit_scale                    logit_scale
    visual.class_embedding         vision_model.embeddings.class_embedding
    visual.positional_embedding    vision_model.embeddings.position_embedding.weight
    visual.proj                    T|visual_projection.weight
    visual.conv1.@                 vision_model.embeddings.patch_embedding.@
    visual.ln_pre.@                vision_model.pre_layrnorm.@
    visual.ln_post.@               vision_model.post_layernorm.@
    token_embedding.@              text_model.embeddings.token_embedding.@
    ln_final.@                     text_model.final_layer_norm.@
""" + "".join(
    _TOWER.format(ours, theirs).replace("[", "{").replace("]", "}")
    for ours, theirs in (
        ("visual.transformer.resblocks.#", "vision_model.encoder.layers.#"),
        ("transformer.resblocks.#", "text_model.encoder.layers.#"),
    )
)


def _end(ids: torch.Tensor) -> torch.Tensor:
    ids[:, -1] = 99
    return ids


def both_hf(model: nn.Module, x: Any) -> torch.Tensor:
    out = model(input_ids=x[1], pixel_values=x[0])
    return torch.cat([out.logits_per_image, out.image_embeds], 1)


def both_openai(model: Any, x: Any) -> torch.Tensor:
    image, text = model.encode_image(x[0], normalize=True), model.encode_text(x[1], normalize=True)
    return torch.cat([model.logit_scale.exp() * image @ text.T, image], 1)


def open_clip(layers: int = 3) -> Any:
    def make(m: Any) -> nn.Module:
        vision = m.CLIPVisionCfg(layers=layers, width=48, head_width=16, patch_size=16, image_size=64)
        text = m.CLIPTextCfg(context_length=16, vocab_size=100, width=32, heads=2, layers=layers)
        model: nn.Module = m.CLIP(32, vision, text)
        return model

    return of("openclip", "open_clip.model", make, OPENAI_TO_CLIP, both_openai)


_SMALL: dict[str, Any] = {"num_hidden_layers": 3, "projection_dim": 32, "hidden_act": "gelu"}
CLIP = hfi(
    "CLIPModel",
    "CLIPConfig",
    hf("CLIPModel").canon,
    both_hf,
    projection_dim=32,
    text_config={
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "eos_token_id": 99,
        **_SMALL,
    },
    vision_config={
        "hidden_size": 48,
        "num_attention_heads": 3,
        "intermediate_size": 192,
        "image_size": 64,
        "patch_size": 16,
        **_SMALL,
    },
)


def both_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return IMAGE(), _end(tokens(99, 16)())


duo("clip both towers", "clip", CLIP, open_clip(), both_inputs, fix=LN5)

# ------------------------------------------------------------------------------------------------------ SegFormer
_MIX = """
    patch_embed{0}.proj.@              stages.{1}.patch_embeddings.proj.@
    patch_embed{0}.norm.@              stages.{1}.patch_embeddings.layer_norm.@
    block{0}.#.norm1.@                 stages.{1}.blocks.#.layernorm_before.@
    block{0}.#.attn.q.@                stages.{1}.blocks.#.attention.q_proj.@
    block{0}.#.attn.kv.@               stages.{1}.blocks.#.attention.[k,v]_proj.@
    block{0}.#.attn.proj.@             stages.{1}.blocks.#.attention.o_proj.@
    block{0}.#.attn.sr.@               stages.{1}.blocks.#.attention.sequence_reduction.sequence_reduction.@
    block{0}.#.attn.norm.@             stages.{1}.blocks.#.attention.sequence_reduction.layer_norm.@
    block{0}.#.norm2.@                 stages.{1}.blocks.#.layernorm_after.@
    block{0}.#.mlp.fc1.@               stages.{1}.blocks.#.mlp.fc1.@
    block{0}.#.mlp.dwconv.dwconv.@     stages.{1}.blocks.#.mlp.dwconv.dwconv.@
    block{0}.#.mlp.fc2.@               stages.{1}.blocks.#.mlp.fc2.@
    norm{0}.@                          stages.{1}.layer_norm.@
"""
MIX = "".join(_MIX.format(n + 1, n).replace("[", "{").replace("]", "}") for n in range(4))
duo(
    "segformer",
    "segformer",
    hf(
        "SegformerModel",
        run=square,
        hidden_sizes=[16, 32, 40, 64],
        depths=[2, 2, 2, 2],
        num_attention_heads=[1, 2, 5, 8],
    ),
    Impl("own", Mix, table(MIX), label="hand-written"),
    IMAGE,
    fix=LN5,
)
