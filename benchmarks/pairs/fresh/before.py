"""The first fresh pairs, there before the draw (draw.py)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own way to say it
from core import Impl, cvi, duo, neg, tmi, tvi  # type: ignore[import-not-found]  # the folder's own
from oracle import IDENT  # type: ignore[import-not-found]
from torch import nn

from benchmarks.pairs.fresh.decoders import Decoder
from benchmarks.pairs.fresh.kit import BN5, LN5, LN6, ORDER, RUN, hf, images, last, of, own, tokens
from benchmarks.pairs.fresh.tables import table

SMALL, LARGE, TOKENS = images(64), images(224, 1), tokens()


def cadene(name: str, pool: str = "") -> Any:
    def make(module: Any) -> nn.Module:
        model: nn.Module = getattr(module, name)(num_classes=10, pretrained=None)
        if pool:
            setattr(model, pool, nn.AdaptiveAvgPool2d(1))
        return model

    return of("cadene", "pretrainedmodels", make)


def timm(name: str, names: str = "") -> Any:
    return Impl("timm", tmi(name).build, table(names) if names else IDENT)


# ------------------------------------------------------------------------------------------------ convolutional
INCEPTION_V4 = cadene("inceptionv4", "avg_pool")
duo("densenet121", "densenet", tvi("densenet121"), cvi("densenet121"), SMALL, ORDER)
duo("mnasnet", "mnasnet", tvi("mnasnet1_0"), tmi("mnasnet_100"), SMALL, ORDER, fix=BN5)
duo("efficientnet_b0", "efficientnet", tvi("efficientnet_b0"), tmi("efficientnet_b0"), SMALL, ORDER)
duo(
    "efficientnet_b0", "efficientnet", tmi("efficientnet_b0"), cvi("efficientnet_b0"), SMALL, ORDER, fix=BN5, both=False
)
duo("xception", "xception", cadene("xception"), tmi("legacy_xception"), images(96), ORDER, both=False)
duo("inception_v4", "inception", INCEPTION_V4, tmi("inception_v4"), images(160), ORDER, both=False)
duo("inception_v4", "inception", INCEPTION_V4, cvi("inceptionv4"), images(160), RUN, fix=BN5, both=False)
duo(
    "inception_v3",
    "inception",
    tvi("inception_v3", init_weights=False, aux_logits=False, transform_input=False),
    cvi("inceptionv3"),
    images(160),
    RUN,
    fix=BN5,
    both=False,
)
duo("dpn68", "dpn", cadene("dpn68"), tmi("dpn68"), LARGE, ORDER, fix=BN5, both=False)
duo("dpn68", "dpn", tmi("dpn68"), cvi("dpn68"), LARGE, RUN, fix=BN5, both=False)
duo("dla34", "dla", tmi("dla34"), cvi("dla34"), SMALL, RUN, fix=BN5, both=False)
duo(
    "hrnet_w18_small_v2",
    "hrnet",
    tmi("hrnet_w18_small_v2"),
    cvi("hrnet_w18_small_v2"),
    SMALL,
    ORDER,
    fix=BN5,
    both=False,
)
duo("selecsls42b", "selecsls", tmi("selecsls42b"), cvi("selecsls42b"), SMALL, RUN, fix=BN5, both=False)

# ------------------------------------------------------------------------------------------------- transformers
duo("convnext_tiny", "convnext", tvi("convnext_tiny"), tmi("convnext_tiny"), SMALL, ORDER, fix=LN6)
duo(
    "convnext_tiny",
    "convnext",
    hf("ConvNextForImageClassification", num_labels=10),
    tmi("convnext_tiny"),
    SMALL,
    RUN,
    fix=LN6,
)
TIMM_SWIN = """
    patch_embed.proj.@                                   swin.embeddings.patch_embeddings.projection.@
    patch_embed.norm.@                                   swin.embeddings.norm.@
    layers.#.blocks.#.attn.relative_position_bias_table  swin.encoder.layers.#.blocks.#.attention.relative_position_bias.relative_position_bias_table
    layers.#.blocks.#.attn.qkv.@                         swin.encoder.layers.#.blocks.#.attention.{q,k,v}_proj.@
    layers.#.blocks.#.attn.proj.@                        swin.encoder.layers.#.blocks.#.attention.o_proj.@
    layers.#.blocks.#.norm1.@                            swin.encoder.layers.#.blocks.#.layernorm_before.@
    layers.#.blocks.#.norm2.@                            swin.encoder.layers.#.blocks.#.layernorm_after.@
    layers.#.blocks.#.mlp.fc1.@                          swin.encoder.layers.#.blocks.#.mlp.fc1.@
    layers.#.blocks.#.mlp.fc2.@                          swin.encoder.layers.#.blocks.#.mlp.fc2.@
    layers.#.downsample.@.@                              swin.encoder.layers.#-1.downsample.@.@
    norm.@                                               swin.layernorm.@
    head.fc.@                                            classifier.@
"""  # noqa: E501
_STAGE = """
    features.{0}.#.attn.relative_position_bias_table  layers.{1}.blocks.#.attn.relative_position_bias_table
    features.{0}.#.attn.@.@     layers.{1}.blocks.#.attn.@.@
    features.{0}.#.norm1.@      layers.{1}.blocks.#.norm1.@
    features.{0}.#.norm2.@      layers.{1}.blocks.#.norm2.@
    features.{0}.#.mlp.0.@      layers.{1}.blocks.#.mlp.fc1.@
    features.{0}.#.mlp.3.@      layers.{1}.blocks.#.mlp.fc2.@
"""
TV_SWIN = """
    features.0.0.@    patch_embed.proj.@
    features.0.2.@    patch_embed.norm.@
    features.2.@.@    layers.1.downsample.@.@
    features.4.@.@    layers.2.downsample.@.@
    features.6.@.@    layers.3.downsample.@.@
    norm.@            norm.@
    head.@            head.fc.@
""" + "".join(_STAGE.format(2 * n + 1, n) for n in range(4))
SWIN = "swin_tiny_patch4_window7_224"
duo("swin_t", "swin", Impl("tv", tvi("swin_t").build, table(TV_SWIN)), timm(SWIN), LARGE, fix=LN5, both=False)
duo("swin_t", "swin", hf("SwinForImageClassification", num_labels=10), timm(SWIN, TIMM_SWIN), LARGE, fix=LN5)
TIMM_PVT = """
    patch_embed.proj.@              pvt_v2.encoder.layers.0.patch_embedding.proj.@
    patch_embed.norm.@              pvt_v2.encoder.layers.0.patch_embedding.layer_norm.@
    stages.#.downsample.proj.@      pvt_v2.encoder.layers.#.patch_embedding.proj.@
    stages.#.downsample.norm.@      pvt_v2.encoder.layers.#.patch_embedding.layer_norm.@
    stages.#.blocks.#.norm1.@       pvt_v2.encoder.layers.#.blocks.#.layer_norm_1.@
    stages.#.blocks.#.norm2.@       pvt_v2.encoder.layers.#.blocks.#.layer_norm_2.@
    stages.#.blocks.#.attn.q.@      pvt_v2.encoder.layers.#.blocks.#.attention.query.@
    stages.#.blocks.#.attn.kv.@     pvt_v2.encoder.layers.#.blocks.#.attention.{key,value}.@
    stages.#.blocks.#.attn.proj.@   pvt_v2.encoder.layers.#.blocks.#.attention.proj.@
    stages.#.blocks.#.attn.sr.@     pvt_v2.encoder.layers.#.blocks.#.attention.spatial_reduction.@
    stages.#.blocks.#.attn.norm.@   pvt_v2.encoder.layers.#.blocks.#.attention.layer_norm.@
    stages.#.blocks.#.mlp.fc1.@     pvt_v2.encoder.layers.#.blocks.#.mlp.dense1.@
    stages.#.blocks.#.mlp.fc2.@     pvt_v2.encoder.layers.#.blocks.#.mlp.dense2.@
    stages.#.blocks.#.mlp.dwconv.@  pvt_v2.encoder.layers.#.blocks.#.mlp.dwconv.dwconv.@
    stages.#.norm.@                 pvt_v2.encoder.layers.#.layer_norm.@
    head.@                          classifier.@
"""
duo("pvt_v2_b0", "pvt", hf("PvtV2ForImageClassification", num_labels=10), timm("pvt_v2_b0", TIMM_PVT), SMALL, fix=LN5)
_BOTTLENECK = """
    stages.{0}.{1}.conv1_1x1.conv.@     {2}.expand_1x1.convolution.@
    stages.{0}.{1}.conv1_1x1.bn.@       {2}.expand_1x1.normalization.@
    stages.{0}.{1}.conv2_kxk.conv.@     {2}.conv_3x3.convolution.@
    stages.{0}.{1}.conv2_kxk.bn.@       {2}.conv_3x3.normalization.@
    stages.{0}.{1}.conv3_1x1.conv.@     {2}.reduce_1x1.convolution.@
    stages.{0}.{1}.conv3_1x1.bn.@       {2}.reduce_1x1.normalization.@
"""
_PLACES = {
    (0, 0): "0.layer.0",
    (1, 0): "1.layer.0",
    (1, 1): "1.layer.1",
    (1, 2): "1.layer.2",
    **{(n, 0): f"{n}.downsampling_layer" for n in (2, 3, 4)},
}
TIMM_MOBILEVIT = (
    """
    stem.conv.@                         mobilevit.conv_stem.convolution.@
    stem.bn.@                           mobilevit.conv_stem.normalization.@
    stages.#.1.conv_kxk.conv.@          mobilevit.encoder.layer.#.conv_kxk.convolution.@
    stages.#.1.conv_kxk.bn.@            mobilevit.encoder.layer.#.conv_kxk.normalization.@
    stages.#.1.conv_1x1.@               mobilevit.encoder.layer.#.conv_1x1.convolution.@
    stages.#.1.transformer.#.norm1.@    mobilevit.encoder.layer.#.transformer.layer.#.layernorm_before.@
    stages.#.1.transformer.#.norm2.@    mobilevit.encoder.layer.#.transformer.layer.#.layernorm_after.@
    stages.#.1.transformer.#.attn.qkv.@  mobilevit.encoder.layer.#.transformer.layer.#.mixed.{query,key,value}.@
    stages.#.1.transformer.#.attn.proj.@  mobilevit.encoder.layer.#.transformer.layer.#.attention.output.dense.@
    stages.#.1.transformer.#.mlp.fc1.@  mobilevit.encoder.layer.#.transformer.layer.#.intermediate.dense.@
    stages.#.1.transformer.#.mlp.fc2.@  mobilevit.encoder.layer.#.transformer.layer.#.output.dense.@
    stages.#.1.norm.@                   mobilevit.encoder.layer.#.layernorm.@
    stages.#.1.conv_proj.conv.@         mobilevit.encoder.layer.#.conv_projection.convolution.@
    stages.#.1.conv_proj.bn.@           mobilevit.encoder.layer.#.conv_projection.normalization.@
    stages.#.1.conv_fusion.conv.@       mobilevit.encoder.layer.#.fusion.convolution.@
    stages.#.1.conv_fusion.bn.@         mobilevit.encoder.layer.#.fusion.normalization.@
    final_conv.conv.@                   mobilevit.conv_1x1_exp.convolution.@
    final_conv.bn.@                     mobilevit.conv_1x1_exp.normalization.@
    head.fc.@                           classifier.@
""".replace("mixed", "attention.attention")
    + "".join(_BOTTLENECK.format(*at, "mobilevit.encoder.layer." + place) for at, place in _PLACES.items())
)
duo(
    "mobilevit_xxs",
    "mobilevit",
    hf(
        "MobileViTForImageClassification",
        num_labels=10,
        hidden_sizes=[64, 80, 96],
        expand_ratio=2.0,
        hidden_act="silu",
        neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320],
    ),
    timm("mobilevit_xxs", TIMM_MOBILEVIT),
    images(256, 1),
    fix=LN5,
)

# -------------------------------------------------------------------------------------- hand-written, for language
HF_GPT = """
    wte.@                 tok.@
    wpe.@                 pos.@
    h.#.ln_1.@            #.n1.@
    h.#.attn.c_attn.@     T|#.{q,k,v}.@
    h.#.attn.c_proj.@     T|#.o.@
    h.#.ln_2.@            #.n2.@
    h.#.mlp.c_fc.@        T|#.up.@
    h.#.mlp.c_proj.@      T|#.down.@
    ln_f.@                nf.@
"""
OWN_GPT = """
    words.@                      tok.@
    places.@                     pos.@
    body.#.attention.to_qkv.@    #.{q,k,v}.@
    body.#.attention.merge.@     #.o.@
    body.#.pre_attention.@       #.n1.@
    body.#.pre_feed.@            #.n2.@
    body.#.widen.@               #.up.@
    body.#.narrow.@              #.down.@
    last.@                       nf.@
"""
HF_LLAMA = """
    embed_tokens.@                         tok.@
    layers.#.self_attn.q_proj.@            #.q.@
    layers.#.self_attn.k_proj.@            #.k.@
    layers.#.self_attn.v_proj.@            #.v.@
    layers.#.self_attn.o_proj.@            #.o.@
    layers.#.mlp.gate_proj.@               #.gate.@
    layers.#.mlp.up_proj.@                 #.up.@
    layers.#.mlp.down_proj.@               #.down.@
    layers.#.input_layernorm.@             #.n1.@
    layers.#.post_attention_layernorm.@    #.n2.@
    norm.@                                 nf.@
"""
OWN_LLAMA = """
    embed.@                tok.@
    layers.#.q.@           #.q.@
    layers.#.k.@           #.k.@
    layers.#.v.@           #.v.@
    layers.#.out.@         #.o.@
    layers.#.gate.@        #.gate.@
    layers.#.up.@          #.up.@
    layers.#.down.@        #.down.@
    layers.#.norm_att.@    #.n1.@
    layers.#.norm_mlp.@    #.n2.@
    final.@                nf.@
"""
_LLAMA: dict[str, Any] = {"hidden": 128, "bias": False, "rms": True, "eps": 1e-6, "gated": True, "rotary": "halves"}
LLAMA = hf(
    "LlamaModel",
    HF_LLAMA,
    last,
    vocab_size=100,
    hidden_size=48,
    intermediate_size=128,
    num_hidden_layers=6,
    num_attention_heads=3,
    max_position_embeddings=64,
)


def gpt2(depth: int = 12) -> Any:
    return hf("GPT2Model", HF_GPT, last, vocab_size=100, n_positions=32, n_embd=48, n_layer=depth, n_head=3)


def gpt(depth: int = 12) -> Any:
    return own(Decoder, OWN_GPT, depth=depth)


duo("gpt2", "gpt", gpt2(), gpt(), TOKENS)
duo("llama", "llama", LLAMA, own(Decoder, OWN_LLAMA, depth=6, **_LLAMA), TOKENS, tol=1e-5)


class Halves(nn.Module):
    """An image in and an image out; another style than the folder's U-Nets."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.first, self.second = first, second
        for n, (have, want) in enumerate(((3, 16), (16, 32), (32, 64))):
            setattr(self, f"{first}{n}", _stage(have, want, 2))
        for n, (have, want) in enumerate(((64, 32), (32, 16), (16, 8))):
            setattr(self, f"{second}{n}", _stage(have, want, 1))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for n in range(3):
            x = getattr(self, f"{self.first}{n}")(x)
        for n in range(3):
            x = F.interpolate(getattr(self, f"{self.second}{n}")(x), scale_factor=2)
        y: torch.Tensor = self.head(x)
        return y


def _stage(have: int, want: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(have, want, 3, stride, 1, bias=False), nn.BatchNorm2d(want), nn.ReLU())


duo(
    "autoencoder",
    "decoder",
    Impl("own", lambda: Halves("down", "up")),
    Impl("own", lambda: Halves("enc", "dec")),
    SMALL,
    ORDER,
    na="down",
    nb="enc",
    both=False,
)

# ----------------------------------------------------------------------- negatives: another depth or width, or trick
neg("densenet121 -> densenet169", tvi("densenet121"), cvi("densenet169"))
neg("efficientnet_b0 -> b1", tvi("efficientnet_b0"), tmi("efficientnet_b1"))
neg("efficientnet_b1 -> b0", tvi("efficientnet_b1"), cvi("efficientnet_b0"))
neg("convnext_tiny -> small", tvi("convnext_tiny"), tmi("convnext_small"))
neg("gpt2 12 -> 8 layers", gpt2(), gpt(8), TOKENS)
neg("gpt2 8 -> 12 layers", gpt2(8), gpt(), TOKENS)
neg("llama 6 -> 4 layers", LLAMA, own(Decoder, OWN_LLAMA, depth=4, **_LLAMA), TOKENS)
neg("dpn68 -> dpn92", cadene("dpn68"), tmi("dpn92"), LARGE)
neg(
    "poolformer_s12 hf -> timm",
    hf("PoolFormerForImageClassification", num_labels=10),
    tmi("poolformer_s12"),
    tier="models",
    note="the same tensors: one normalises before it pools, the other behind",
)
neg("shufflenet_v2 x1.0 -> x1.5", tvi("shufflenet_v2_x1_0"), cvi("shufflenetv2b_w3d2"))
