"""Networks that are not the same: another depth or width, another number of heads, the same tensors used otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import PAIRS, Impl, Pair, cvi, tmi  # type: ignore[import-not-found]  # the folder's own

from benchmarks.pairs.fresh import audio, language, language_more, language_two, own_pairs, vision
from benchmarks.pairs.fresh.convolution import lukemelas
from benchmarks.pairs.fresh.decoders import Decoder
from benchmarks.pairs.fresh.kit import hf, images, of, own, tokens
from benchmarks.pairs.fresh.networks import Encoder, Mamba, Seq2Seq
from benchmarks.pairs.fresh.shapes import Autoencoder, Gated, Stack

TOKENS = tokens()


def never(name: str, family: str, source: Any, target: Any, x: Callable[[], Any], **options: Any) -> None:
    """A pair of networks that are not the same."""
    PAIRS.append(Pair("NEG " + name, family, source, target, x, kind="negative", **options))


_LLAMA: dict[str, Any] = {**language._HALVES}
never(
    "llama grouped -> one key head a head",
    "llama",
    language.LLAMA,
    own(Decoder, language.META, **{**_LLAMA, "key_heads": 3}),
    TOKENS,
)
never("llama 4 -> 6 layers", "llama", language.LLAMA, own(Decoder, language.META, depth=6, **_LLAMA), TOKENS)
never("llama 4 -> 3 layers", "llama", language.LLAMA, own(Decoder, language.LIT, depth=3, **_LLAMA), TOKENS)
never("phi3 hidden 128 -> 160", "phi3", language.PHI3, own(Decoder, language.LIT, **{**_LLAMA, "hidden": 160}), TOKENS)
never("qwen2 -> llama without biases", "qwen2", language.QWEN2, own(Decoder, language.META, **_LLAMA), TOKENS)
never(
    "gpt2 3 -> 4 heads",
    "gpt2",
    language.GPT2,
    own(Decoder, language.NANO, tied=True, heads=4),
    TOKENS,
    tier="models",
    note="the same tensors, another number of heads",
)
never("gpt2 width 48 -> 60", "gpt2", language.GPT2, own(Decoder, language.MINI_TIED, tied=True, width=60), TOKENS)
never(
    "gpt_neox in parallel -> in sequence",
    "gpt_neox",
    language_more.NEOX,
    own(Decoder, language_more.NEOX_ALIKE, hidden=128, **{**language_more._NEOX, "parallel": False}),
    TOKENS,
    tier="models",
    note="the same tensors: attention and feed-forward side by side, or one behind the other",
)
_FOURTH = "\n".join(line for line in language_more.MIXTRAL_OWN.splitlines() if "experts.2" in line)
never(
    "mixtral 3 -> 4 experts",
    "mixtral",
    language_more.MIXTRAL,
    own(
        Decoder,
        language_more.MIXTRAL_OWN + _FOURTH.replace("experts.2", "experts.3").replace("#.2.", "#.3."),
        **{**_LLAMA, "experts": 4},
    ),
    TOKENS,
)
never(
    "t5 3 -> 4 layers",
    "t5",
    language_two.T5,
    own(Seq2Seq, language_two.T5_OWN, language_two.run_own, depth=4),
    language_two.texts,
)
never(
    "mamba state 8 -> 16",
    "mamba",
    hf("MambaForCausalLM", vocab_size=100, hidden_size=48, num_hidden_layers=3, state_size=8),
    own(Mamba, language_two.MAMBA_OWN, state=16),
    TOKENS,
)
never(
    "roberta -> norms before",
    "roberta",
    own(
        Encoder,
        "\n".join(
            line for line in language_two.FAIRSEQ.splitlines() if "lm_head" not in line and "segments" not in line
        ),
    ),
    own(Decoder, language_more.JOINED, depth=4),
    TOKENS,
    tier="models",
    note="the same tensors, but the norm of the input is a norm of the output there",
)
never(
    "whisper 3 -> 2 layers",
    "whisper",
    audio.WHISPER,
    of(
        "whisper",
        "whisper.model",
        lambda m: m.Whisper(m.ModelDimensions(20, 30, 48, 3, 2, 100, 32, 48, 3, 2)),
        run=lambda m, x: m(x[0], x[1]),
    ),
    audio.spoken,
    fix=audio.in_any_precision,
)
never("siglip -> clip", "siglip", vision.SIGLIP, vision.timm_clip(), images(64))
never(
    "sam 4 -> 5 layers",
    "sam",
    vision.SAM,
    of(
        "timm",
        "timm.models.vision_transformer_sam",
        lambda m: m.VisionTransformerSAM(
            img_size=64,
            patch_size=8,
            embed_dim=48,
            depth=5,
            num_heads=3,
            window_size=3,
            global_attn_indexes=(1, 3),
            neck_chans=32,
            num_classes=0,
            use_rel_pos=True,
        ),
        run=vision.features,
    ),
    images(64),
)
never(
    "beit 12 -> 10 layers",
    "beit",
    vision.BEIT,
    of(
        "timm",
        "timm.models.beit",
        lambda m: m.Beit(
            img_size=64,
            embed_dim=48,
            depth=10,
            num_heads=3,
            num_classes=10,
            init_values=0.1,
            use_abs_pos_emb=False,
            use_rel_pos_bias=True,
        ),
    ),
    images(64),
)
never(
    "latent autoencoder 16 -> 32 channels",
    "autoencoder kl",
    own(Autoencoder, own_pairs.COMPVIS),
    own(Autoencoder, own_pairs.DIFFUSERS, flat=True, width=32),
    images(32),
)
never(
    "lstm -> gru",
    "gates turned",
    Impl("own", lambda: Stack("LSTM")),
    Impl("own", lambda: Gated("GRU", "turned")),
    tokens(50),
)
never(
    "resnet20 -> preresnet20", "cifar", cvi("resnet20_cifar10"), Impl("own", lambda: own_pairs.Cifar(True)), images(32)
)
never(
    "efficientnet-b1 -> tf_efficientnet_b0",
    "efficientnet tf",
    lukemelas("efficientnet-b1"),
    tmi("tf_efficientnet_b0"),
    images(64),
)
