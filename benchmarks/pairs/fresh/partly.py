"""Pairs where only a part has a counterpart, and pairs that are not the same network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core import PAIRS, Impl, Pair, duo, tmi, tvi  # type: ignore[import-not-found]  # the folder's own
from oracle import IDENT, transfer  # type: ignore[import-not-found]
from torch import nn

from benchmarks.pairs.fresh import audio, language, language_two, vision, vision_more
from benchmarks.pairs.fresh.decoders import Decoder
from benchmarks.pairs.fresh.kit import LN5, hf, images, of, own, tokens
from benchmarks.pairs.fresh.networks import Encoder, Seq2Seq
from benchmarks.pairs.fresh.tables import table
from benchmarks.pairs.fresh.written import Tensor

TOKENS = tokens()
State = Mapping[str, Tensor]


def partly(name: str, family: str, source: Any, target: Any, x: Callable[[], Any], **options: Any) -> None:
    """A pair where the parts that both tables name are to be filled, and no others."""

    def expected(given: State, own: State) -> dict[str, Tensor]:
        have, want = source.canon.specs(given), target.canon.specs(own)
        known = {atom for spec in have.values() for atom in spec.atoms}
        wanted = {key: spec for key, spec in want.items() if known.issuperset(spec.atoms)}
        found: dict[str, Tensor] = transfer(given, own, have, wanted)
        return found

    PAIRS.append(Pair(name, family, source, target, x, kind="partial", expect=expected, tags=("partial",), **options))


class With(nn.Module):
    """A network and something new behind it."""

    def __init__(self, name: str, network: nn.Module, head: str, new: nn.Module) -> None:
        super().__init__()
        self.add_module(name, network)
        self.add_module(head, new)
        self.names = name, head

    def forward(self, x: Any) -> Tensor:
        network, new = (self.get_submodule(name) for name in self.names)
        found: Tensor = new(network(x))
        return found


class LowRank(nn.Module):
    """A linear layer that stays as it is, and a low-rank change to it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 4, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(4, base.out_features, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))
        return found


def prefixed(text: str, prefix: str, more: str = "") -> str:
    return "".join(f"{prefix}{line.strip()}\n" for line in text.splitlines() if line.strip()) + more


# ------------------------------------------------------------------------------------------------------------ parts
def low_rank() -> nn.Module:
    model: Any = language.LLAMA.build()
    for layer in model.model.layers:
        for name in ("q_proj", "v_proj"):
            setattr(layer.self_attn, name, LowRank(getattr(layer.self_attn, name)))
    wrapper = nn.Module()
    wrapper.base_model = nn.Module()
    wrapper.base_model.model = model
    return wrapper


_LORA = prefixed(language.HF_LLAMA, "base_model.model.").replace("q_proj.@", "q_proj.base_layer.@")
_LORA = (
    _LORA.replace("v_proj.@", "v_proj.base_layer.@")
    + """
    base_model.model.model.layers.#.self_attn.@_proj.lora_A.default.weight    new
    base_model.model.model.layers.#.self_attn.@_proj.lora_B.default.weight    new
"""
)


def run_inside(model: Any, x: Tensor) -> Any:
    return model.base_model.model(x)


partly(
    "llama meta -> hf with low rank",
    "llama",
    own(Decoder, language.META, **language._HALVES),
    Impl("hf", low_rank, table(_LORA), run_inside),
    TOKENS,
    tol=1e-5,
)

partly(
    "clip openai -> timm vision tower",
    "clip",
    vision_more.open_clip(4),
    vision.timm_clip(),
    vision_more.both_inputs,
    note="the other tower has no place",
)
PAIRS[-1].target.run = lambda m, x: m(x[0])

partly(
    "wav2vec2 torchaudio -> hf for CTC",
    "wav2vec2",
    audio.TORCHAUDIO,
    hf(
        "Wav2Vec2ForCTC",
        prefixed(audio.SAME_WAV2VEC2, "wav2vec2.", "lm_head.@  new\nwav2vec2.masked_spec_embed  new\n"),
        vocab_size=20,
        **audio.SMALL,
    ),
    audio.WAVE,
)

partly(
    "whisper hf -> encoder and classifier",
    "whisper",
    audio.WHISPER,
    of(
        "whisper",
        "whisper.model",
        lambda m: With("tower", m.AudioEncoder(20, 30, 48, 3, 3), "classes", nn.Linear(48, 5)),
        prefixed(
            "\n".join(
                line.strip().removeprefix("encoder.")
                for line in audio.OPENAI_TO_WHISPER.splitlines()
                if line.strip().startswith("encoder.")
            ),
            "tower.",
            "classes.@   new.@\n",
        ),
        lambda m, x: m(x[0]),
    ),
    audio.spoken,
    fix=audio.in_any_precision,
)


def classifier(names: str, **options: Any) -> Any:
    def make() -> nn.Module:
        return With("text", Encoder(names, **options), "classifier", nn.Linear(48, 3))

    return Impl("own", make, table(prefixed(names, "text.", "classifier.@   new.@\n")), label="hand-written")


partly(
    "roberta hf -> classifier",
    "roberta",
    language_two.ROBERTA,
    classifier(
        "\n".join(line for line in language_two.FAIRSEQ.splitlines() if "lm_head" not in line), eps=1e-5, first=2
    ),
    TOKENS,
)

_BODY = of(
    "tv",
    "torchvision.models.detection.backbone_utils",
    lambda m: m.resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d),
)
_BODY.canon = table("""
    body.conv1.weight                    conv1.weight
    body.bn1.@                           bn1.@
    body.layer#.#.@.@                    layer#.#.@.@
    body.layer#.#.downsample.#.@         layer#.#.downsample.#.@
    fpn.@_blocks.#.#.@                   new
""")
_BODY.run = lambda m, x: m(x)["0"]
partly(
    "resnet18 timm -> torchvision pyramid",
    "resnet pyramid",
    Impl("timm", tmi("resnet18").build, IDENT),
    _BODY,
    images(64),
)

_LRASPP = of(
    "tv",
    "torchvision.models.segmentation",
    lambda m: m.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4),
)
_LRASPP.canon = table("""
    backbone.@.@.@            features.@.@.@
    backbone.@.block.@.@.@    features.@.block.@.@.@
    backbone.@.block.@.fc1.@  features.@.block.@.fc1.@
    backbone.@.block.@.fc2.@  features.@.block.@.fc2.@
    classifier.cbr.@.@        new
    classifier.scale.@.@      new
    classifier.low_classifier.@     new
    classifier.high_classifier.@    new
""")
_LRASPP.run = lambda m, x: m(x)["out"]
partly(
    "mobilenet_v3 torchvision -> segmenter",
    "mobilenet_v3 segmenter",
    Impl("tv", tvi("mobilenet_v3_large").build, IDENT),
    _LRASPP,
    images(64),
)


def adapted(m: Any) -> nn.Module:
    model = m.VisionTransformer(img_size=64, embed_dim=48, depth=4, num_heads=3, num_classes=7, class_token=True)
    for block in model.blocks:
        block.adapter = nn.Sequential(nn.Linear(48, 8), nn.GELU(), nn.Linear(8, 48))
    found: nn.Module = model
    return found


_HF_VIT = """
    blocks.#.adapter.#.@       new
    cls_token                  vit.embeddings.cls_token
    pos_embed                  vit.embeddings.position_embeddings
    patch_embed.proj.@         vit.embeddings.patch_embeddings.projection.@
    blocks.#.norm1.@           vit.layers.#.layernorm_before.@
    blocks.#.norm2.@           vit.layers.#.layernorm_after.@
    blocks.#.attn.qkv.@        vit.layers.#.attention.{q,k,v}_proj.@
    blocks.#.attn.proj.@       vit.layers.#.attention.o_proj.@
    blocks.#.mlp.fc1.@         vit.layers.#.mlp.fc1.@
    blocks.#.mlp.fc2.@         vit.layers.#.mlp.fc2.@
    norm.@                     vit.layernorm.@
    head.@                     new
"""
partly(
    "vit hf -> timm with adapters, other head",
    "vit adapters",
    hf("ViTForImageClassification", num_labels=10, intermediate_size=192, layer_norm_eps=1e-6, **vision._VIT),
    of("timm", "timm.models.vision_transformer", adapted, _HF_VIT),
    images(64),
)
partly(
    "t5 hf -> encoder only",
    "t5",
    language_two.T5,
    own(
        Seq2Seq,
        "\n".join(line for line in language_two.T5_OWN.splitlines() if not line.strip().startswith("decoder")),
        lambda m, x: m.at["tok"](x[0]),
    ),
    language_two.texts,
)
partly(
    "gpt2 nano -> hf with a score head",
    "gpt2",
    own(Decoder, language.NANO, tied=True),
    hf(
        "GPT2ForSequenceClassification",
        language.HF_GPT2.replace("lm_head.weight                   tok.weight", "score.weight new"),
        num_labels=3,
        pad_token_id=0,
        vocab_size=100,
        n_positions=32,
        n_embd=48,
        n_layer=4,
        n_head=3,
    ),
    TOKENS,
)

# ---------------------------------------------------------------------------------------------- wrapped on the way
duo(
    "gpt2 compiled and wrapped",
    "gpt2",
    own(Decoder, language.NANO, tied=True),
    language.GPT2,
    TOKENS,
    both=False,
    na="training",
    nb="hf",
    storage="pth",
    wrap=lambda state: {"model": {"_orig_mod." + key: value for key, value in state.items()}, "iter_num": 7},
)
duo(
    "swin_v2 distributed",
    "swin_v2",
    vision_more.tv_swin2(),
    vision_more.timm_swin2(),
    images(64),
    both=False,
    na="ddp",
    nb="timm",
    fix=LN5,
    tol=1e-5,
    wrap=lambda state: {"module." + key: value for key, value in state.items()},
)
