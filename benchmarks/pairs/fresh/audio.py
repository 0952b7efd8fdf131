"""Networks for sound: two libraries each, weight norm in its old and its new clothes."""

from __future__ import annotations

import sys
import types
from typing import Any

import torch
from core import duo  # type: ignore[import-not-found]  # the folder's own
from torch import nn

from benchmarks.pairs.fresh.kit import LN5, hf, last, numbers, of
from benchmarks.pairs.fresh.pixels import reconstructed

# ------------------------------------------------------------------------------------------------------- Whisper
_SIZES: dict[str, Any] = {
    "d_model": 48,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 192,
    "decoder_ffn_dim": 192,
}
_BLOCK = """
    {0}.{1}.query.@     model.{2}.layers.#.{3}.q_proj.@
    {0}.{1}.key.@       model.{2}.layers.#.{3}.k_proj.@
    {0}.{1}.value.@     model.{2}.layers.#.{3}.v_proj.@
    {0}.{1}.out.@       model.{2}.layers.#.{3}.out_proj.@
    {0}.{1}_ln.@        model.{2}.layers.#.{3}_layer_norm.@
"""
_FEED = """
    {0}.mlp.0.@         model.{1}.layers.#.fc1.@
    {0}.mlp.2.@         model.{1}.layers.#.fc2.@
    {0}.mlp_ln.@        model.{1}.layers.#.final_layer_norm.@
"""
OPENAI_TO_WHISPER = """
    encoder.conv1.@                 model.encoder.conv1.@
    encoder.conv2.@                 model.encoder.conv2.@
    encoder.positional_embedding    model.encoder.embed_positions.weight
    encoder.ln_post.@               model.encoder.layer_norm.@
    decoder.token_embedding.@       model.decoder.embed_tokens.@
    decoder.positional_embedding    model.decoder.embed_positions.weight
    decoder.ln.@                    model.decoder.layer_norm.@
""" + "".join(
    [
        _BLOCK.format("encoder.blocks.#", "attn", "encoder", "self_attn"),
        _BLOCK.format("decoder.blocks.#", "attn", "decoder", "self_attn"),
        _BLOCK.format("decoder.blocks.#", "cross_attn", "decoder", "encoder_attn"),
        _FEED.format("encoder.blocks.#", "encoder"),
        _FEED.format("decoder.blocks.#", "decoder"),
    ]
)
HF_WHISPER = (
    "".join(
        f"{key}    {key}\n"
        for key in dict.fromkeys(line.split()[1] for line in OPENAI_TO_WHISPER.splitlines() if line.strip())
    )
    + "proj_out.weight  model.decoder.embed_tokens.weight\n"
)


def openai_whisper(m: Any) -> nn.Module:
    model: nn.Module = m.Whisper(m.ModelDimensions(20, 30, 48, 3, 3, 100, 32, 48, 3, 3))
    return model


def without_speech_tools() -> None:
    """The package asks for a tokenizer and a compiler on import; its model needs neither."""
    for name, words in (("tiktoken", ("Encoding",)), ("numba", ("jit",))):
        if name not in sys.modules:
            module = sys.modules[name] = types.ModuleType(name)
            for word in words:
                setattr(module, word, lambda *_, **__: lambda function: function)


def run_hf_whisper(model: Any, x: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_features=x[0], decoder_input_ids=x[1]).logits
    return found


def spoken() -> Any:
    dice = torch.Generator().manual_seed(11)
    return numbers(2, 20, 60)(), torch.randint(0, 100, (2, 8), generator=dice)


def in_any_precision(_: nn.Module, model: nn.Module) -> None:
    """The package's norms compute in float32, whatever they are given."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.__class__ = nn.LayerNorm


without_speech_tools()
WHISPER = hf(
    "WhisperForConditionalGeneration",
    HF_WHISPER,
    run_hf_whisper,
    vocab_size=100,
    num_mel_bins=20,
    max_source_positions=30,
    max_target_positions=32,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=1,
    **_SIZES,
)
duo(
    "whisper",
    "whisper",
    WHISPER,
    of("whisper", "whisper.model", openai_whisper, OPENAI_TO_WHISPER, lambda m, x: m(x[0], x[1])),
    spoken,
    fix=in_any_precision,
    tol=1e-5,
)

# -------------------------------------------------------------------------------------------- wav2vec 2.0 and HuBERT
TORCHAUDIO_TO_WAV2VEC2 = """
    feature_extractor.conv_layers.#.conv.@                             feature_extractor.conv_layers.#.conv.@
    feature_extractor.conv_layers.#.layer_norm.@                       feature_extractor.conv_layers.#.layer_norm.@
    encoder.feature_projection.layer_norm.@                            feature_projection.layer_norm.@
    encoder.feature_projection.projection.@                            feature_projection.projection.@
    encoder.transformer.pos_conv_embed.conv.bias                       encoder.pos_conv_embed.conv.bias
    encoder.transformer.pos_conv_embed.@.parametrizations.weight.@    encoder.pos_conv_embed.@.parametrizations.weight.@
    encoder.transformer.layer_norm.@                                   encoder.layer_norm.@
    encoder.transformer.layers.#.attention.@_proj.@                    encoder.layers.#.attention.@_proj.@
    encoder.transformer.layers.#.layer_norm.@                          encoder.layers.#.layer_norm.@
    encoder.transformer.layers.#.feed_forward.@.@                      encoder.layers.#.feed_forward.@.@
    encoder.transformer.layers.#.final_layer_norm.@                    encoder.layers.#.final_layer_norm.@
"""
OLD_WEIGHT_NORM = (
    TORCHAUDIO_TO_WAV2VEC2
    + """
    encoder.transformer.pos_conv_embed.conv.weight_g    encoder.pos_conv_embed.conv.parametrizations.weight.original0
    encoder.transformer.pos_conv_embed.conv.weight_v    encoder.pos_conv_embed.conv.parametrizations.weight.original1
"""
)
SAME_WAV2VEC2 = "".join(
    f"{key}    {key}\n" for key in (line.split()[1] for line in TORCHAUDIO_TO_WAV2VEC2.splitlines() if line.strip())
)
SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
}


def torchaudio_wav2vec2(m: Any) -> nn.Module:
    model: nn.Module = m.wav2vec2_model(
        "group_norm",
        [(32, 10, 5), (32, 3, 2), (32, 2, 2)],
        False,
        48,
        0.0,
        16,
        4,
        3,
        3,
        0.0,
        192,
        0.0,
        0.0,
        False,
        0.0,
        None,
    )
    return model


TORCHAUDIO = of("torchaudio", "torchaudio.models", torchaudio_wav2vec2, OLD_WEIGHT_NORM, lambda m, x: m(x)[0])
WAVE = numbers(2, 800)
duo(
    "wav2vec2",
    "wav2vec2",
    hf("Wav2Vec2Model", run=last, drop=("masked_spec_embed",), **SMALL),
    TORCHAUDIO,
    WAVE,
    fix=LN5,
)
duo(
    "hubert",
    "wav2vec2",
    hf("HubertModel", run=last, drop=("masked_spec_embed",), **SMALL),
    TORCHAUDIO,
    WAVE,
    fix=LN5,
    both=False,
)


# -------------------------------------------------------------------------------------------------------- EnCodec
def encodec(_: Any) -> nn.Module:
    from encodec.model import EncodecModel  # type: ignore[import-not-found]
    from encodec.modules import SEANetDecoder, SEANetEncoder  # type: ignore[import-not-found]
    from encodec.quantization import ResidualVectorQuantizer  # type: ignore[import-not-found]

    sizes = {"channels": 1, "dimension": 32, "n_filters": 8, "norm": "weight_norm", "causal": True}
    model: nn.Module = EncodecModel(
        SEANetEncoder(**sizes),
        SEANetDecoder(**sizes),
        ResidualVectorQuantizer(dimension=32, n_q=5, bins=16),
        [1.5],
        24000,
        1,
    )
    return model


_LEAVES = """
    {0}.bias        {1}.bias
    {0}.weight_g    {1}.parametrizations.weight.original0
    {0}.weight_v    {1}.parametrizations.weight.original1
"""
ENCODEC = """
    @.model.#.lstm.@                    @.layers.#.lstm.@
    quantizer.vq.layers.#._codebook.@    quantizer.layers.#.codebook.@
""" + "".join(
    _LEAVES.format("@.model.#." + ours, "@.layers.#." + theirs)
    for ours, theirs in (
        ("conv.conv", "conv"),
        ("convtr.convtr", "conv"),
        ("block.#.conv.conv", "block.#.conv"),
        ("shortcut.conv.conv", "shortcut.conv"),
    )
)
duo(
    "encodec",
    "encodec",
    hf(
        "EncodecModel",
        run=reconstructed,
        num_filters=8,
        hidden_size=32,
        codebook_size=16,
        codebook_dim=32,
        target_bandwidths=[1.5],
    ),
    of("encodec", "encodec", encodec, ENCODEC, reconstructed),
    numbers(1, 1, 3200),
)
