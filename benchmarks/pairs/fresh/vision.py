"""Vision transformers that two libraries have."""

from __future__ import annotations

import functools
from typing import Any

import torch
from core import duo  # type: ignore[import-not-found]  # the folder's own
from torch import nn

from benchmarks.pairs.fresh.kit import LN5, LN6, hf, images, last, of

IMAGE = images(64)
_VIT: dict[str, Any] = {
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_hidden_layers": 4,
    "image_size": 64,
    "patch_size": 16,
}
_WIDE: dict[str, Any] = {**_VIT, "intermediate_size": 192}


def timm_vit(names: str, run: Any, **options: Any) -> Any:
    sizes = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 0}
    return of(
        "timm", "timm.models.vision_transformer", lambda m: m.VisionTransformer(**{**sizes, **options}), names, run
    )


def features(model: Any, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model.forward_features(x)
    return found


def pooled(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(x).pooler_output
    return found


# ------------------------------------------------------------------------------------------------ SigLIP, CLIP, AIM
TIMM_TO_SIGLIP = """
    pos_embed                  embeddings.position_embedding.weight
    patch_embed.proj.@         embeddings.patch_embedding.@
    blocks.#.norm1.@           encoder.layers.#.layer_norm1.@
    blocks.#.norm2.@           encoder.layers.#.layer_norm2.@
    blocks.#.attn.qkv.@        encoder.layers.#.self_attn.{q,k,v}_proj.@
    blocks.#.attn.proj.@       encoder.layers.#.self_attn.out_proj.@
    blocks.#.mlp.fc1.@         encoder.layers.#.mlp.fc1.@
    blocks.#.mlp.fc2.@         encoder.layers.#.mlp.fc2.@
    norm.@                     post_layernorm.@
    attn_pool.latent           head.probe
    attn_pool.q.@              pool.q.@
    attn_pool.kv.@             pool.{k,v}.@
    attn_pool.proj.@           head.attention.out_proj.@
    attn_pool.norm.@           head.layernorm.@
    attn_pool.mlp.fc1.@        head.mlp.fc1.@
    attn_pool.mlp.fc2.@        head.mlp.fc2.@
"""
HF_SIGLIP = """
    head.attention.in_proj_@   pool.{q,k,v}.@
"""
_SAME = """
    embeddings.patch_embedding.@             embeddings.patch_embedding.@
    embeddings.position_embedding.@          embeddings.position_embedding.@
    encoder.layers.#.layer_norm1.@           encoder.layers.#.layer_norm1.@
    encoder.layers.#.layer_norm2.@           encoder.layers.#.layer_norm2.@
    encoder.layers.#.self_attn.q_proj.@      encoder.layers.#.self_attn.q_proj.@
    encoder.layers.#.self_attn.k_proj.@      encoder.layers.#.self_attn.k_proj.@
    encoder.layers.#.self_attn.v_proj.@      encoder.layers.#.self_attn.v_proj.@
    encoder.layers.#.self_attn.out_proj.@    encoder.layers.#.self_attn.out_proj.@
    encoder.layers.#.mlp.fc1.@               encoder.layers.#.mlp.fc1.@
    encoder.layers.#.mlp.fc2.@               encoder.layers.#.mlp.fc2.@
    post_layernorm.@                         post_layernorm.@
    head.probe                               head.probe
    head.attention.out_proj.@                head.attention.out_proj.@
    head.layernorm.@                         head.layernorm.@
    head.mlp.fc1.@                           head.mlp.fc1.@
    head.mlp.fc2.@                           head.mlp.fc2.@
"""
SIGLIP = hf("SiglipVisionModel", HF_SIGLIP + _SAME, pooled, hidden_act="gelu", **_WIDE)
duo(
    "siglip",
    "siglip",
    SIGLIP,
    timm_vit(TIMM_TO_SIGLIP, lambda m, x: m.forward_head(m.forward_features(x)), class_token=False, global_pool="map"),
    IMAGE,
    fix=LN6,
)

TIMM_TO_CLIP = """
    cls_token                  vision_model.embeddings.class_embedding
    pos_embed                  vision_model.embeddings.position_embedding.weight
    patch_embed.proj.@         vision_model.embeddings.patch_embedding.@
    norm_pre.@                 vision_model.pre_layrnorm.@
    blocks.#.norm1.@           vision_model.encoder.layers.#.layer_norm1.@
    blocks.#.norm2.@           vision_model.encoder.layers.#.layer_norm2.@
    blocks.#.attn.qkv.@        vision_model.encoder.layers.#.self_attn.{q,k,v}_proj.@
    blocks.#.attn.proj.@       vision_model.encoder.layers.#.self_attn.out_proj.@
    blocks.#.mlp.fc1.@         vision_model.encoder.layers.#.mlp.fc1.@
    blocks.#.mlp.fc2.@         vision_model.encoder.layers.#.mlp.fc2.@
    norm.@                     vision_model.post_layernorm.@
    head.@                     visual_projection.@
"""


def _no_bias(model: Any) -> Any:
    model.head = nn.Linear(48, 32, bias=False)
    return model


def timm_clip() -> Any:
    def make(m: Any) -> nn.Module:
        model: nn.Module = _no_bias(
            m.VisionTransformer(
                img_size=64, embed_dim=48, depth=4, num_heads=3, num_classes=0, pre_norm=True, norm_layer=nn.LayerNorm
            )
        )
        model.patch_embed.proj.bias = None  # type: ignore[union-attr]
        return model

    return of("timm", "timm.models.vision_transformer", make, TIMM_TO_CLIP)


def embeds(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(x).image_embeds
    return found


CLIP = hf("CLIPVisionModelWithProjection", run=embeds, projection_dim=32, hidden_act="gelu", **_WIDE)
duo("clip vision", "clip", CLIP, timm_clip(), IMAGE, fix=LN5)

# ----------------------------------------------------------------------------------------------- BEiT: no key bias
TIMM_TO_BEIT = """
    cls_token                                       beit.embeddings.cls_token
    patch_embed.proj.@                              beit.embeddings.patch_embeddings.projection.@
    blocks.#.gamma_1                                beit.layers.#.lambda_1
    blocks.#.gamma_2                                beit.layers.#.lambda_2
    blocks.#.norm1.@                                beit.layers.#.layernorm_before.@
    blocks.#.norm2.@                                beit.layers.#.layernorm_after.@
    blocks.#.attn.qkv.@                             beit.layers.#.attention.{q,k,v}_proj.@
    blocks.#.attn.q_bias                            beit.layers.#.attention.q_proj.bias
    blocks.#.attn.v_bias                            beit.layers.#.attention.v_proj.bias
    blocks.#.attn.relative_position_bias_table      beit.layers.#.relative_position_bias.relative_position_bias_table
    blocks.#.attn.proj.@                            beit.layers.#.attention.o_proj.@
    blocks.#.mlp.fc1.@                              beit.layers.#.mlp.fc1.@
    blocks.#.mlp.fc2.@                              beit.layers.#.mlp.fc2.@
    fc_norm.@                                       beit.pooler.layernorm.@
    head.@                                          classifier.@
"""
BEIT = hf(
    "BeitForImageClassification",
    use_relative_position_bias=True,
    num_labels=10,
    layer_norm_eps=1e-6,
    **{**_WIDE, "num_hidden_layers": 12},
)
duo(
    "beit",
    "beit",
    BEIT,
    of(
        "timm",
        "timm.models.beit",
        lambda m: m.Beit(
            img_size=64,
            embed_dim=48,
            depth=12,
            num_heads=3,
            num_classes=10,
            init_values=0.1,
            use_abs_pos_emb=False,
            use_rel_pos_bias=True,
        ),
        TIMM_TO_BEIT,
    ),
    IMAGE,
)

# ------------------------------------------------------------------------------------ Segment Anything's image tower
TIMM_TO_SAM = """
    pos_embed                  vision_encoder.pos_embed
    patch_embed.proj.@         vision_encoder.patch_embed.projection.@
    blocks.#.norm1.@           vision_encoder.layers.#.layer_norm1.@
    blocks.#.norm2.@           vision_encoder.layers.#.layer_norm2.@
    blocks.#.attn.rel_pos_@    vision_encoder.layers.#.attn.rel_pos_@
    blocks.#.attn.qkv.@        vision_encoder.layers.#.attn.qkv.@
    blocks.#.attn.proj.@       vision_encoder.layers.#.attn.proj.@
    blocks.#.mlp.fc1.@         vision_encoder.layers.#.mlp.lin1.@
    blocks.#.mlp.fc2.@         vision_encoder.layers.#.mlp.lin2.@
    neck.0.@                   vision_encoder.neck.conv1.@
    neck.1.@                   vision_encoder.neck.layer_norm1.@
    neck.2.@                   vision_encoder.neck.conv2.@
    neck.3.@                   vision_encoder.neck.layer_norm2.@
"""
META_TO_SAM = TIMM_TO_SAM.replace("mlp.fc1.@ ", "mlp.lin1.@").replace("mlp.fc2.@ ", "mlp.lin2.@")
SAM = hf(
    "SamVisionModel",
    run=last,
    mlp_dim=192,
    window_size=3,
    global_attn_indexes=[1, 3],
    output_channels=32,
    **{**_VIT, "patch_size": 8},
)
duo(
    "sam vision",
    "sam",
    SAM,
    of(
        "timm",
        "timm.models.vision_transformer_sam",
        lambda m: m.VisionTransformerSAM(
            img_size=64,
            patch_size=8,
            embed_dim=48,
            depth=4,
            num_heads=3,
            window_size=3,
            global_attn_indexes=(1, 3),
            neck_chans=32,
            num_classes=0,
            use_rel_pos=True,
        ),
        TIMM_TO_SAM,
        features,
    ),
    IMAGE,
    fix=LN6,
)
duo(
    "sam vision",
    "sam",
    of(
        "meta",
        "segment_anything.modeling.image_encoder",
        lambda m: m.ImageEncoderViT(
            img_size=64,
            patch_size=8,
            embed_dim=48,
            depth=4,
            num_heads=3,
            out_chans=32,
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1, 3),
        ),
        META_TO_SAM,
    ),
    SAM,
    IMAGE,
    fix=LN6,
)

# ------------------------------------------------------------------- DINOv2: register tokens, and gated feed-forward
TIMM_TO_DINO = """
    cls_token                  embeddings.cls_token
    reg_token                  embeddings.register_tokens
    pos_embed                  embeddings.position_embeddings
    patch_embed.proj.@         embeddings.patch_embeddings.projection.@
    blocks.#.norm1.@           encoder.layer.#.norm1.@
    blocks.#.norm2.@           encoder.layer.#.norm2.@
    blocks.#.attn.qkv.@        encoder.layer.#.attention.{q,k,v}_proj.@
    blocks.#.attn.proj.@       encoder.layer.#.attention.o_proj.@
    blocks.#.ls1.gamma         encoder.layer.#.layer_scale1.lambda1
    blocks.#.ls2.gamma         encoder.layer.#.layer_scale2.lambda1
    blocks.#.mlp.fc1.@         encoder.layer.#.mlp.up_proj.@
    blocks.#.mlp.fc2.@         encoder.layer.#.mlp.down_proj.@
    blocks.#.mlp.fc1_g.@       encoder.layer.#.mlp.gate_proj.@
    blocks.#.mlp.fc1_x.@       encoder.layer.#.mlp.up_proj.@
    norm.@                     layernorm.@
"""
DINO: dict[str, Any] = {
    "layer_norm_eps": 1e-6,
    "run": last,
    "drop": ("embeddings.mask_token",),
    "use_swiglu_ffn": True,
    **_VIT,
}
_JOINED = TIMM_TO_DINO.replace(
    "blocks.#.mlp.fc1.@         encoder.layer.#.mlp.up_proj.@",
    "blocks.#.mlp.fc1.@         encoder.layer.#.mlp.{gate,up}_proj.@",
)


def gated_vit(layer: str, names: str, **options: Any) -> Any:
    """timm's Vision Transformer with one of timm's gated layers in its blocks."""

    def make(m: Any) -> nn.Module:
        import timm.layers

        mlp = functools.partial(getattr(timm.layers, layer), **options)
        sizes = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 0, "init_values": 1.0}
        found: nn.Module = m.VisionTransformer(mlp_layer=lambda **k: mlp(k["in_features"]), **sizes)
        return found

    return of("timm", "timm.models.vision_transformer", make, names, features)


duo(
    "dinov2 gated",
    "dinov2 gated",
    hf("Dinov2Model", **DINO),
    gated_vit("GluMlp", _JOINED, hidden_features=256, act_layer=nn.SiLU, gate_last=False),
    IMAGE,
)
duo(
    "dinov2 gated apart",
    "dinov2 gated",
    hf("Dinov2Model", **DINO),
    gated_vit("SwiGLU", TIMM_TO_DINO, hidden_features=128),
    IMAGE,
)
