"""The same sizes in transformers' words: what `config.json` and `generation_config.json` say in a checkpoint folder.

transformers nests a T5Config, an EncodecConfig and a MusicgenDecoderConfig in one MusicgenConfig. A table for each
part pairs our names with theirs. What our classes compute in one way only is held to that value: written as such, and
refused where a folder says otherwise, so that no checkpoint opens as a model that sounds wrong.
"""

from __future__ import annotations

import math
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import EncodecConfig, MusicgenDecoderConfig, T5Config

from musicgen_edu.config import CodecConfig, DecoderConfig, MusicGenConfig, TextEncoderConfig

Json = dict[str, Any]
DEFAULT_SECONDS = 8  # how long a clip transformers makes of a folder of ours unless told otherwise

# Our field -> the key in transformers' config.
_TEXT_ENCODER_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "head_size": "d_kv",
    "ffn_size": "d_ff",
    "feed_forward": "feed_forward_proj",
    "relative_attention_num_buckets": "relative_attention_num_buckets",
    "relative_attention_max_distance": "relative_attention_max_distance",
    "layer_norm_epsilon": "layer_norm_epsilon",
}
_DECODER_NAMES = {
    "codebook_size": "vocab_size",
    "num_codebooks": "num_codebooks",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_size": "ffn_dim",
}
_CODEC_NAMES = {
    "sample_rate": "sampling_rate",
    "channels": "audio_channels",
    "ratios": "upsampling_ratios",
    "num_filters": "num_filters",
    "hidden_size": "hidden_size",
    "num_residual_layers": "num_residual_layers",
    "num_lstm_layers": "num_lstm_layers",
    "kernel_size": "kernel_size",
    "residual_kernel_size": "residual_kernel_size",
    "last_kernel_size": "last_kernel_size",
    "dilation_growth_rate": "dilation_growth_rate",
    "compress": "compress",
    "causal": "use_causal_conv",
    "pad_mode": "pad_mode",
    "trim_right_ratio": "trim_right_ratio",
    "conv_shortcut": "use_conv_shortcut",
    "codebook_size": "codebook_size",
}

# What our classes compute in one way only.
_TEXT_ENCODER_FIXED = {"model_type": "t5"}
_DECODER_FIXED = {
    "model_type": "musicgen_decoder",
    "activation_function": "gelu",
    "scale_embedding": False,
    "cross_attention_hidden_size": None,
    "audio_channels": 1,
}
_CODEC_FIXED = {"model_type": "encodec", "norm_type": "weight_norm", "normalize": False, "chunk_length_s": None}
_FEED_FORWARDS = ("relu", "gated-gelu")  # of T5 and of T5 1.1
_PAD_MODES = ("reflect", "replicate", "constant")


def to_transformers(config: MusicGenConfig) -> Json:
    """Return the content of `config.json`. The key `codebook_pattern` is ours; transformers knows the delay only.

    Raises ValueError if the codebooks' size is no power of two, which transformers' EnCodec requires.
    """
    codec = config.codec
    if codec.codebook_size & (codec.codebook_size - 1):
        raise ValueError(f"transformers wants codebooks of 2, 4, 8, … entries, not of {codec.codebook_size}.")
    tokens = {"pad_token_id": None, "bos_token_id": None}  # the special token is past the vocabulary: it would warn
    return {
        "architectures": ["MusicgenForConditionalGeneration"],
        "model_type": "musicgen",
        "dtype": "float32",  # in whatever precision the weights are stored, open them in this one
        "is_encoder_decoder": True,
        "codebook_pattern": config.pattern,
        "text_encoder": _rename(config.text_encoder, _TEXT_ENCODER_NAMES) | _TEXT_ENCODER_FIXED,
        "audio_encoder": _rename(codec, _CODEC_NAMES) | {"target_bandwidths": [_bandwidth(codec)]} | _CODEC_FIXED,
        "decoder": _rename(config.decoder, _DECODER_NAMES) | tokens | {"dropout": 0.0} | _DECODER_FIXED,
    }


def generation_config(config: MusicGenConfig) -> Json:
    """Return the content of `generation_config.json`: how transformers' `generate` samples unless told otherwise."""
    special_token = config.decoder.special_token
    sampling = {"do_sample": False}
    if config.temperature > 0:
        sampling = {"do_sample": True, "temperature": config.temperature, "top_k": config.top_k}
    return {
        "bos_token_id": special_token,
        "decoder_start_token_id": special_token,
        "pad_token_id": special_token,
        "guidance_scale": config.guidance_scale,
        "max_length": round(DEFAULT_SECONDS * config.codec.frame_rate) + config.decoder.num_codebooks,
        **sampling,
    }


def feature_extractor_config(config: MusicGenConfig) -> Json:
    """Return the content of `preprocessor_config.json`: how transformers' processor prepares a waveform."""
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": config.codec.channels,
        "sampling_rate": config.codec.sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "chunk_length_s": None,
        "overlap": None,
    }


def from_transformers(config: Json, generation: Json) -> MusicGenConfig:
    """Read the content of `config.json` and of `generation_config.json`.

    A size that the file leaves out has transformers' default, a sampling setting that it leaves out has ours.
    Raises ValueError where a part is missing, a value is impossible, or our classes cannot compute what it asks for.
    """
    text_encoder = _read_part(config, "text_encoder", T5Config, _TEXT_ENCODER_FIXED)
    if text_encoder.feed_forward_proj not in _FEED_FORWARDS:
        found = text_encoder.feed_forward_proj
        raise ValueError(f"Its T5 has feed_forward_proj={found!r}; only {' and '.join(_FEED_FORWARDS)} are supported.")
    audio_encoder = _read_part(config, "audio_encoder", EncodecConfig, _CODEC_FIXED)
    decoder = _read_part(config, "decoder", MusicgenDecoderConfig, _DECODER_FIXED)
    return MusicGenConfig(
        TextEncoderConfig(**_pick(text_encoder, _TEXT_ENCODER_NAMES)),
        DecoderConfig(**_pick(decoder, _DECODER_NAMES), text_hidden_size=text_encoder.d_model),
        _read_codec(audio_encoder, decoder),
        config.get("codebook_pattern", "delay"),
        **_read_sampling(generation),
    )


def _rename(config: TextEncoderConfig | DecoderConfig | CodecConfig, names: dict[str, str]) -> Json:
    return {theirs: getattr(config, ours) for ours, theirs in names.items()}


def _pick(config: T5Config | EncodecConfig | MusicgenDecoderConfig, names: dict[str, str]) -> Json:
    return {ours: getattr(config, theirs) for ours, theirs in names.items()}


def _read_part(config: Json, part: str, kind: type, fixed: Json) -> T5Config | EncodecConfig | MusicgenDecoderConfig:
    """Parse one part with transformers' own class, which fills in its defaults and checks the types."""
    if not isinstance(config.get(part), dict):
        raise ValueError(f"Its config.json has no {part!r}.")
    if config[part].get("audio_channels", 1) != 1:
        raise ValueError("It is a stereo model, and stereo is not supported yet: choose a mono one.")
    try:
        parsed = kind(**config[part])
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ValueError(f"Its {part} cannot be read: {' '.join(str(error).split())}") from error
    for name, value in fixed.items():
        if getattr(parsed, name) != value:
            raise ValueError(f"Its {part} has {name}={getattr(parsed, name)!r}; only {value!r} is supported.")
    for name, value in parsed.to_dict().items():
        if type(value) is int and value < 0:
            raise ValueError(f"Its {part} has {name}={value}, which must not be negative.")
    return parsed


def _read_codec(codec: EncodecConfig, decoder: MusicgenDecoderConfig) -> CodecConfig:
    """Check what depends on more than one value, and count the codebooks."""
    if codec.codebook_dim != codec.hidden_size:
        raise ValueError(f"Its codec has codebook_dim={codec.codebook_dim}; only {codec.hidden_size} is supported.")
    if codec.pad_mode not in _PAD_MODES:
        raise ValueError(f"Its codec has pad_mode={codec.pad_mode!r}; only {', '.join(_PAD_MODES)} are supported.")
    if codec.trim_right_ratio != 1 and not codec.use_causal_conv:
        raise ValueError("Its codec has a trim_right_ratio other than 1, which only causal convolutions have.")
    if min(codec.upsampling_ratios, default=0) < 1 or codec.codebook_size < 2 or not codec.target_bandwidths:
        raise ValueError("Its codec needs upsampling_ratios of at least 1, a codebook_size and target_bandwidths.")
    if decoder.num_codebooks > codec.num_quantizers or decoder.vocab_size > codec.codebook_size:
        raise ValueError(
            f"Its decoder writes {decoder.num_codebooks} codebooks of {decoder.vocab_size} codes, but its codec reads "
            f"{codec.num_quantizers} of {codec.codebook_size}."
        )
    fields = _pick(codec, _CODEC_NAMES) | {"ratios": tuple(codec.upsampling_ratios)}
    return CodecConfig(**fields, num_codebooks=codec.num_quantizers)


def _read_sampling(generation: Json) -> Json:
    settings = {}
    for name, kind in (("guidance_scale", float), ("temperature", float), ("top_k", int)):
        value = generation.get(name)
        if value is not None:
            if not isinstance(value, (int, kind)) or isinstance(value, bool):
                raise ValueError(f"Its generation_config.json has {name}={value!r}, which is no number of that kind.")
            settings[name] = kind(value)
    if generation.get("do_sample") is False:
        settings["temperature"] = 0.0  # greedy
    return settings


def _bandwidth(codec: CodecConfig) -> float:
    """The kilobits a second of all codebooks, from which transformers computes how many there are."""
    return codec.num_codebooks * math.ceil(codec.frame_rate) * math.ceil(math.log2(codec.codebook_size)) / 1000
