"""The same sizes in transformers' words: what `config.json` and `generation_config.json` say in a checkpoint folder.

transformers nests a T5Config, an EncodecConfig and a MusicgenDecoderConfig in one MusicgenConfig. A table for each
part pairs our names with theirs. What our classes compute in one way only is held to that value: written as such, and
refused where a folder says otherwise, so that no checkpoint opens as a model that sounds wrong.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from transformers import (
    EncodecConfig,
    MusicgenDecoderConfig,
    MusicgenMelodyDecoderConfig,
    T5Config,
)

from musicgen_edu.checkpoints.sounds import check_melody, melody_config, read_melody
from musicgen_edu.checkpoints.values import checked
from musicgen_edu.config import (
    CodecConfig,
    DecoderConfig,
    MusicGenConfig,
    SamplingSettings,
    TextEncoderConfig,
)

Json = dict[str, Any]
MODEL_TYPES = ("musicgen", "musicgen_melody")
MAX_RATIOS = 16  # strides of a codec
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
    "audio_channels": "audio_channels",
}
_CODEC_NAMES = {
    "sample_rate": "sampling_rate",
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
_DECODER_FIXED = {"activation_function": "gelu", "scale_embedding": False}
_DECODER_TYPES = {  # with cross-attention and without
    True: {"model_type": "musicgen_decoder", "cross_attention_hidden_size": None} | _DECODER_FIXED,
    False: {"model_type": "musicgen_melody_decoder"} | _DECODER_FIXED,
}
_CODEC_FIXED = {
    "model_type": "encodec",
    "audio_channels": 1,
    "norm_type": "weight_norm",
    "normalize": False,
    "chunk_length_s": None,
}
_LONG_FORM = {name: getattr(MusicGenConfig(), name) for name in ("window", "stride")}  # ours, written where they differ
_FEED_FORWARDS = ("relu", "gated-gelu")  # of T5 and of T5 1.1
_PAD_MODES = ("reflect", "replicate", "constant")


def to_transformers(config: MusicGenConfig) -> Json:
    """Return the content of `config.json`.

    The keys `codebook_pattern`, `window` and `stride` are ours; transformers knows the delay only, and makes no clip
    that is longer than one window.
    Raises ValueError for what transformers cannot be: codebooks whose size is no power of two, a codec of two channels,
    a decoder with a melody before its codes and cross-attention too, or with neither.
    """
    codec, melody, decoder = config.codec, config.melody, config.decoder
    if (melody is None) != decoder.cross_attention:
        raise ValueError("transformers' decoders have either cross-attention or a melody before their codes.")
    if codec.channels != 1:
        raise ValueError(f"transformers' MusicGen has a mono codec, not one of {codec.channels} channels.")
    if codec.codebook_size & (codec.codebook_size - 1):
        raise ValueError(f"transformers wants codebooks of 2, 4, 8, … entries, not of {codec.codebook_size}.")
    own = {name: getattr(config, name) for name in _LONG_FORM if getattr(config, name) != _LONG_FORM[name]}
    tokens = {"pad_token_id": None, "bos_token_id": None}  # the special token is past the vocabulary: it would warn
    types = _DECODER_TYPES[decoder.cross_attention]
    return {
        "architectures": [f"Musicgen{'Melody' if melody else ''}ForConditionalGeneration"],
        "model_type": MODEL_TYPES[melody is not None],
        "dtype": "float32",  # in whatever precision the weights are stored, open them in this one
        "is_encoder_decoder": True,
        "codebook_pattern": config.pattern,
        **own,
        "text_encoder": _rename(config.text_encoder, _TEXT_ENCODER_NAMES) | _TEXT_ENCODER_FIXED,
        "audio_encoder": _rename(codec, _CODEC_NAMES) | {"target_bandwidths": [_bandwidth(codec)]} | _CODEC_FIXED,
        "decoder": _rename(decoder, _DECODER_NAMES) | tokens | {"dropout": 0.0} | types,
        **(melody_config(melody) if melody else {}),
    }


def generation_config(config: MusicGenConfig) -> Json:
    """Return the content of `generation_config.json`: how transformers' `generate` samples unless told otherwise."""
    special_token = config.decoder.special_token
    sampling = {"do_sample": False}
    own = config.sampling
    if own.temperature > 0:
        sampling = {"do_sample": True, "temperature": own.temperature, "top_k": own.top_k}
        sampling |= {"top_p": own.top_p} if own.top_p != 1 else {}
    return {
        "bos_token_id": special_token,
        "decoder_start_token_id": special_token,
        "pad_token_id": special_token,
        "guidance_scale": own.guidance_scale,
        "max_length": round(DEFAULT_SECONDS * config.codec.frame_rate) + config.decoder.num_codebooks,
        **sampling,
    }


def from_transformers(config: Json, generation: Json, extractor: Json) -> MusicGenConfig:
    """Read the content of `config.json`, `generation_config.json` and `preprocessor_config.json`.

    A size that a file leaves out has transformers' default, a sampling setting that it leaves out has ours. Every
    value is checked before anything is computed from it.
    Raises ValueError where a part is missing, a value is impossible, or our classes cannot compute what it asks for.
    """
    text_encoder = TextEncoderConfig(
        **_read_part(config, "text_encoder", TextEncoderConfig, T5Config(), _TEXT_ENCODER_NAMES, _TEXT_ENCODER_FIXED)
    )
    _check_text_encoder(text_encoder)
    melody = read_melody(config, extractor) if config["model_type"] == "musicgen_melody" else None
    defaults, fixed = (
        MusicgenMelodyDecoderConfig() if melody else MusicgenDecoderConfig(),
        _DECODER_TYPES[melody is None],
    )
    decoder = _read_part(config, "decoder", DecoderConfig, defaults, _DECODER_NAMES, fixed)
    decoder = DecoderConfig(**decoder, text_hidden_size=text_encoder.hidden_size, cross_attention=melody is None)
    codec = _read_part(config, "audio_encoder", CodecConfig, EncodecConfig(), _CODEC_NAMES, _CODEC_FIXED)
    codec = _read_codec(config["audio_encoder"], CodecConfig(**codec))
    _check_codes(decoder, codec)
    if melody:
        check_melody(melody, decoder.hidden_size, codec.sample_rate, extractor)
    pattern = checked("codebook_pattern", config.get("codebook_pattern", "delay"), str)
    sampling = SamplingSettings(**_read_sampling(generation))
    window, stride = (checked(name, config.get(name, default), float) for name, default in _LONG_FORM.items())
    if not 0 < stride < window:
        raise ValueError(f"Its config.json has window={window} and stride={stride}, which must be less and above 0.")
    return MusicGenConfig(text_encoder, decoder, codec, pattern, sampling, melody, window, stride)


def _check_codes(decoder: DecoderConfig, codec: CodecConfig) -> None:
    if decoder.audio_channels not in (1, 2) or decoder.num_codebooks % decoder.audio_channels:
        raise ValueError(
            f"Its decoder has audio_channels={decoder.audio_channels} and {decoder.num_codebooks} codebooks: there can "
            "be 1 channel, or 2 that share them."
        )
    codebooks = decoder.num_codebooks // decoder.audio_channels
    if codebooks > codec.num_codebooks or decoder.codebook_size > codec.codebook_size:
        raise ValueError(
            f"Its decoder writes {codebooks} codebooks of {decoder.codebook_size} codes, but its codec "
            f"reads {codec.num_codebooks} of {codec.codebook_size}."
        )


def _rename(config: TextEncoderConfig | DecoderConfig | CodecConfig, names: dict[str, str]) -> Json:
    return {theirs: getattr(config, ours) for ours, theirs in names.items()}


def _read_part(config: Json, part: str, ours: type, defaults: object, names: dict[str, str], fixed: Json) -> Json:
    """Return the fields of one of our dataclasses, each of the type of its default."""
    given = config.get(part)
    if not isinstance(given, dict):
        raise ValueError(f"Its config.json has no {part!r}.")
    for name, value in fixed.items():
        if given.get(name, getattr(defaults, name)) != value:
            raise ValueError(f"Its {part} has {name}={given[name]!r:.60}; only {value!r} is supported.")
    kinds = {field.name: type(field.default) for field in fields(ours)}
    return {
        own: checked(f"{part} has {theirs}", given.get(theirs, getattr(defaults, theirs)), kinds[own])
        for own, theirs in names.items()
    }


def _check_text_encoder(config: TextEncoderConfig) -> None:
    if config.feed_forward not in _FEED_FORWARDS:
        found = config.feed_forward
        raise ValueError(f"Its T5 has feed_forward_proj={found!r}; only {' and '.join(_FEED_FORWARDS)} are supported.")
    buckets, distance = config.relative_attention_num_buckets, config.relative_attention_max_distance
    if buckets < 4 or distance <= buckets // 4:  # T5 counts the near distances one by one, in half of each direction's
        raise ValueError(
            f"Its T5 has {buckets} buckets for distances up to {distance}: at least 4, and fewer than 4 ×."
        )


def _read_codec(given: Json, codec: CodecConfig) -> CodecConfig:
    """Check what depends on more than one value, and count the codebooks."""
    if len(codec.ratios) > MAX_RATIOS or codec.hop_length > codec.sample_rate:
        raise ValueError(
            f"Its codec has {len(codec.ratios)} upsampling_ratios: at most {MAX_RATIOS}, and together no more than "
            f"its {codec.sample_rate} samples a second."
        )
    if given.get("codebook_dim") not in (None, codec.hidden_size):
        raise ValueError(
            f"Its codec has codebook_dim={given['codebook_dim']!r}; only {codec.hidden_size} is supported."
        )
    if codec.pad_mode not in _PAD_MODES:
        raise ValueError(f"Its codec has pad_mode={codec.pad_mode!r}; only {', '.join(_PAD_MODES)} are supported.")
    if codec.trim_right_ratio != 1 and not (codec.causal and codec.trim_right_ratio < 1):
        raise ValueError("Its codec has a trim_right_ratio other than 1, which only causal convolutions have, below 1.")
    if codec.compress > codec.num_filters or codec.codebook_size < 2:
        raise ValueError("Its codec needs a codebook_size of at least 2, and num_filters of at least compress.")
    return replace(codec, num_codebooks=_count_codebooks(given, codec))


def _count_codebooks(given: Json, codec: CodecConfig) -> int:
    """As transformers' `EncodecConfig.num_quantizers`: how many fit into the largest bandwidth, in kilobits/s."""
    bandwidths = given.get("target_bandwidths", EncodecConfig().target_bandwidths)
    if not isinstance(bandwidths, list) or not bandwidths:
        raise ValueError(f"Its codec has target_bandwidths={bandwidths!r:.60}, which must be a list of numbers.")
    bandwidth = checked("audio_encoder has target_bandwidths with an entry", bandwidths[-1], float)
    bits = math.ceil(codec.frame_rate) * math.ceil(math.log2(codec.codebook_size))
    count = int(1000 * bandwidth // bits)
    if count < 1:
        raise ValueError(f"Its codec has target_bandwidths up to {bandwidth}: less than one codebook of {bits} bits/s.")
    return count


def _read_sampling(generation: Json) -> Json:
    settings = {}
    for name, kind in (("guidance_scale", float), ("temperature", float), ("top_k", int), ("top_p", float)):
        value = generation.get(name)
        if value is not None:
            settings[name] = checked(f"generation_config.json has {name}", value, kind)
    if generation.get("do_sample") is False:
        settings["temperature"] = 0.0  # greedy
    return settings


def _bandwidth(codec: CodecConfig) -> float:
    """The kilobits a second of all codebooks, from which transformers computes how many there are."""
    return codec.num_codebooks * math.ceil(codec.frame_rate) * math.ceil(math.log2(codec.codebook_size)) / 1000
