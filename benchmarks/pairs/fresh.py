"""Pairs of our own, of families that are not in the folder: the engine was not made with them at hand.

The file is copied beside the folder's modules as `pairs_heldout.py`, which its `pairs.py` imports; so the classes here
are found by that name.  Whatever reaches equal output is right; `fresh.json` says for each pair how it was certified.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own way to say it
from common import tokens  # type: ignore[import-not-found]  # the folder's own
from core import (  # type: ignore[import-not-found]
    PAIRS,
    Impl,
    call,
    cvi,
    duo,
    hfi,
    neg,
    set_eps,
    tmi,
    tvi,
)
from oracle import ExecOrder, Order  # type: ignore[import-not-found]
from torch import nn

Build = Callable[[], nn.Module]
ORDER, RUN = Order(), ExecOrder()
EPS = set_eps(bn=1e-5)
NORMS = set_eps(ln=1e-5)


def small() -> torch.Tensor:
    return images(64)


def large() -> torch.Tensor:
    return images(224, 1)


def images(size: int, batch: int = 2) -> torch.Tensor:
    dice = torch.Generator().manual_seed(11)
    return torch.randn(batch, 3, size, size, generator=dice, dtype=torch.float64)


def cadene(name: str, **changed: Any) -> Any:
    def build() -> nn.Module:
        module = importlib.import_module("pretrainedmodels")
        model: nn.Module = getattr(module, name)(num_classes=10, pretrained=None)
        for place, value in changed.items():
            setattr(model, place, value)
        return model

    return Impl("cadene", build, label=f"pretrainedmodels {name}")


def own(name: str, build: Build) -> Any:
    return Impl("own", build, label=f"hand-written {name}")


# ------------------------------------------------------------------------------------------------ convolutional
duo("densenet121", "densenet", tvi("densenet121"), cvi("densenet121"), oracle=ORDER)
duo("mnasnet", "mnasnet", tvi("mnasnet1_0"), tmi("mnasnet_100"), oracle=ORDER, fix=EPS)
duo("shufflenet_v2", "shufflenet", tvi("shufflenet_v2_x1_0"), cvi("shufflenetv2b_w1"), oracle=RUN)
duo("efficientnet_b0", "efficientnet", tvi("efficientnet_b0"), tmi("efficientnet_b0"), oracle=ORDER)
duo(
    "efficientnet_b0", "efficientnet", tmi("efficientnet_b0"), cvi("efficientnet_b0"), oracle=ORDER, fix=EPS, both=False
)
duo("xception", "xception", cadene("xception"), tmi("legacy_xception"), oracle=ORDER, x=lambda: images(96), both=False)
duo("inception_v4", "inception", cadene("inceptionv4", avg_pool=nn.AdaptiveAvgPool2d(1)), tmi("inception_v4"),
    x=lambda: images(160), oracle=ORDER, both=False)  # fmt: skip
duo("inception_v4", "inception", cadene("inceptionv4", avg_pool=nn.AdaptiveAvgPool2d(1)), cvi("inceptionv4"),
    x=lambda: images(160), oracle=RUN, fix=EPS, both=False)  # fmt: skip
duo("inception_v3", "inception", tvi("inception_v3", init_weights=False, aux_logits=False, transform_input=False),
    cvi("inceptionv3"), x=lambda: images(160), oracle=RUN, fix=EPS, both=False)  # fmt: skip
duo("dpn68", "dpn", cadene("dpn68"), tmi("dpn68"), x=large, oracle=ORDER, fix=EPS, both=False)
duo("dpn68", "dpn", tmi("dpn68"), cvi("dpn68"), x=large, oracle=RUN, fix=EPS, both=False)
duo("dla34", "dla", tmi("dla34"), cvi("dla34"), oracle=RUN, fix=EPS, both=False)
duo(
    "hrnet_w18_small_v2", "hrnet", tmi("hrnet_w18_small_v2"), cvi("hrnet_w18_small_v2"), oracle=RUN, fix=EPS, both=False
)
duo("ghostnet", "ghostnet", tmi("ghostnet_100"), cvi("ghostnet"), oracle=RUN, fix=EPS, both=False)
duo("selecsls42b", "selecsls", tmi("selecsls42b"), cvi("selecsls42b"), oracle=RUN, fix=EPS, both=False)

# ------------------------------------------------------------------------------------------------- transformers
duo("convnext_tiny", "convnext", tvi("convnext_tiny"), tmi("convnext_tiny"), fix=set_eps(ln=1e-6))
duo("convnext_tiny", "convnext", hfi("ConvNextForImageClassification", "ConvNextConfig", num_labels=10),
    tmi("convnext_tiny"), oracle=RUN, fix=set_eps(ln=1e-6))  # fmt: skip
duo("swin_t", "swin", tvi("swin_t"), tmi("swin_tiny_patch4_window7_224"), x=large, fix=NORMS, both=False)
duo("swin_t", "swin", hfi("SwinForImageClassification", "SwinConfig", num_labels=10),
    tmi("swin_tiny_patch4_window7_224"), x=large, fix=NORMS)  # fmt: skip
duo("pvt_v2_b0", "pvt", hfi("PvtV2ForImageClassification", "PvtV2Config", num_labels=10), tmi("pvt_v2_b0"), fix=NORMS)
duo("mobilevit_xxs", "mobilevit",
    hfi("MobileViTForImageClassification", "MobileViTConfig", num_labels=10, hidden_sizes=[64, 80, 96],
        neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320], expand_ratio=2.0, hidden_act="silu"),
    tmi("mobilevit_xxs"), x=lambda: images(256, 1), fix=NORMS)  # fmt: skip


def _last(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(x).last_hidden_state
    return found


# -------------------------------------------------------------------------------------- hand-written, for language
class Attention(nn.Module):
    """Queries, keys and values in one Linear, as in minGPT's successors."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.to_qkv, self.merge, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.to_qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        merged: torch.Tensor = self.merge(mixed.transpose(1, 2).reshape(batch, length, width))
        return merged


class GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.pre_attention, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.pre_feed, self.widen, self.narrow = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.pre_attention(x))
        y: torch.Tensor = x + self.narrow(F.gelu(self.widen(self.pre_feed(x)), approximate="tanh"))
        return y


class Gpt(nn.Module):
    def __init__(self, depth: int = 12, width: int = 48, heads: int = 3) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, width), nn.Embedding(32, width)
        self.body = nn.ModuleList(GptBlock(width, heads) for _ in range(depth))
        self.last = nn.LayerNorm(width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.body:
            x = block(x)
        y: torch.Tensor = self.last(x)
        return y


def gpt2(depth: int = 12) -> Any:
    return hfi(
        "GPT2Model", "GPT2Config", None, _last, vocab_size=100, n_positions=32, n_embd=48, n_layer=depth, n_head=3
    )


class LlamaBlock(nn.Module):
    """A gated block with rotary positions, half-split as transformers has them."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.norm_att, self.norm_mlp = (nn.RMSNorm(width, eps=1e-6) for _ in range(2))
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        normed, shape = self.norm_att(x), (batch, length, self.heads, -1)
        q, k, v = (each(normed).view(shape).transpose(1, 2) for each in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(_turned(q), _turned(k), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        normed = self.norm_mlp(x)
        y: torch.Tensor = x + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return y


def _turned(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    speeds = 1.0 / 10000 ** (torch.arange(0, half).float() / half)
    angles = torch.arange(x.shape[-2]).float()[:, None] * speeds
    cos, sin = torch.cat([angles, angles], -1).cos().to(x.dtype), torch.cat([angles, angles], -1).sin().to(x.dtype)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Llama(nn.Module):
    def __init__(self, depth: int = 6, width: int = 48, heads: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, width)
        self.layers = nn.ModuleList(LlamaBlock(width, heads, 128) for _ in range(depth))
        self.final = nn.RMSNorm(width, eps=1e-6)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        y: torch.Tensor = self.final(x)
        return y


LLAMA = hfi("LlamaModel", "LlamaConfig", None, _last, vocab_size=100, hidden_size=48, intermediate_size=128,
            num_hidden_layers=6, num_attention_heads=3, max_position_embeddings=64)  # fmt: skip
duo("gpt2", "gpt", gpt2(), own("GPT on nn.Linear", Gpt), x=tokens, fix=NORMS)
duo("llama", "llama", LLAMA, own("Llama, half-split rotary", Llama), x=tokens, tol=1e-5)


class Decoder(nn.Module):
    """An image in and an image out, with a skip; another style than the folder's U-Nets."""

    def __init__(self, first: str, second: str, norms: bool = True) -> None:
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


duo("autoencoder", "decoder",
    own("down/up", lambda: Decoder("down", "up")), own("enc/dec", lambda: Decoder("enc", "dec")),
    oracle=ORDER, na="down", nb="enc", both=False)  # fmt: skip

# ----------------------------------------------------------------------- negatives: another depth or width, or trick
neg("densenet121 -> densenet169", tvi("densenet121"), cvi("densenet169"))
neg("efficientnet_b0 -> b1", tvi("efficientnet_b0"), tmi("efficientnet_b1"))
neg("efficientnet_b1 -> b0", tvi("efficientnet_b1"), cvi("efficientnet_b0"))
neg("convnext_tiny -> small", tvi("convnext_tiny"), tmi("convnext_small"))
neg("gpt2 12 -> 8 layers", gpt2(), own("GPT, 8 layers", lambda: Gpt(8)), tokens)
neg("gpt2 8 -> 12 layers", gpt2(8), own("GPT on nn.Linear", Gpt), tokens)
neg("llama 6 -> 4 layers", LLAMA, own("Llama, 4 layers", lambda: Llama(4)), tokens)
neg("dpn68 -> dpn92", cadene("dpn68"), tmi("dpn92"), x=large)
neg("poolformer_s12 hf -> timm",
    hfi("PoolFormerForImageClassification", "PoolFormerConfig", num_labels=10), tmi("poolformer_s12"), tier="models",
    note="the same tensors: one normalises before it pools, the other behind")  # fmt: skip
neg("shufflenet_v2 x1.0 -> x1.5", tvi("shufflenet_v2_x1_0"), cvi("shufflenetv2b_w3d2"))

__all__ = ["PAIRS", "call"]
