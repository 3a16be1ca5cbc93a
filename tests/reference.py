"""Random MusicGens made and written by transformers, and how its answers are asked for: what ours is held against."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    EncodecConfig,
    EncodecFeatureExtractor,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    MusicgenMelodyDecoderConfig,
    MusicgenMelodyForCausalLM,
    MusicgenProcessor,
    T5Config,
)

from musicgen_edu.config import DecoderConfig
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.reality.parity import CODEBOOK_SIZE

Decoder = MusicgenForCausalLM | MusicgenMelodyForCausalLM

# What a folder may hold besides the base: each line another path through the code.
VARIANTS = {
    "base": {},
    "equal_widths": {"decoder": {"hidden_size": 16}},
    "sharded": {"max_shard_size": "60KB"},
    "two_codebooks": {"decoder": {"num_codebooks": 2}},
    "gated": {"text_encoder": {"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 16}},
    "causal": {"audio_encoder": {"use_causal_conv": True, "trim_right_ratio": 0.5}},
    "other_codec": {
        "audio_encoder": {
            "sampling_rate": 24_000,
            "upsampling_ratios": [8, 5, 4, 2],
            "target_bandwidths": [1.5],
            "num_lstm_layers": 2,
            "num_residual_layers": 2,
            "use_conv_shortcut": True,
            "pad_mode": "constant",
            "compress": 1,
        }
    },
}


def write_reference(model: MusicgenForConditionalGeneration, tokenizer, folder: Path, max_shard_size: str) -> None:
    """Write the folder as transformers does: the model and its processor, and no file of ours."""
    model.generation_config.update(
        guidance_scale=3.0, do_sample=True, decoder_start_token_id=CODEBOOK_SIZE, max_length=40
    )
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    rate = model.config.audio_encoder.sampling_rate
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=rate)
    MusicgenProcessor(feature_extractor, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    (folder / "spiece.model").unlink()


def reference_logits(reference: MusicgenForConditionalGeneration, codes: Tensor, **text: Tensor) -> Tensor:
    """transformers' scores [batch, codebooks, steps, codebook_size] for interleaved codes [batch, codebooks, steps]."""
    with torch.inference_mode():
        logits = reference(decoder_input_ids=codes.flatten(0, 1), **text).logits
    return logits.unflatten(0, codes.shape[:2])


def reference_greedy(reference: MusicgenForConditionalGeneration, frames: int, **text: Tensor) -> tuple[Tensor, Tensor]:
    """The codes and the waveform of transformers' own greedy generation with guidance."""
    heard, decode = [], reference.audio_encoder.decode
    reference.audio_encoder.decode = lambda codes, **kwargs: heard.append(codes) or decode(codes, **kwargs)
    try:
        new = frames + reference.decoder.num_codebooks - 1
        waveform = reference.generate(**text, do_sample=False, guidance_scale=3.0, max_new_tokens=new)
    finally:
        del reference.audio_encoder.decode
    return heard[0][0], waveform


@contextmanager
def no_complaints():
    """Fail if transformers logs a warning, which a student would have to wonder about."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.getLogger("transformers").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not records, [record.getMessage() for record in records]


def decoder_sizes(config: DecoderConfig, **options: str) -> MusicgenDecoderConfig | MusicgenMelodyDecoderConfig:
    """The same decoder in transformers' words, written here by hand: checkpoints/ is under test, too."""
    kind = MusicgenDecoderConfig if config.cross_attention else MusicgenMelodyDecoderConfig
    return kind(
        vocab_size=config.codebook_size,
        num_codebooks=config.num_codebooks,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        ffn_dim=config.ffn_size,
        pad_token_id=config.special_token,
        bos_token_id=config.special_token,
        **options,
    )


def load_decoder(reference: Decoder, decoder: MusicGenDecoder) -> None:
    """Copy our decoder's weights into transformers' by names alone: a prefix for everything but the heads."""
    weights = {k if k.startswith("lm_heads") else f"model.decoder.{k}": v for k, v in decoder.state_dict().items()}
    reference.load_state_dict(weights, strict=True)


def decoder_in_transformers(decoder: MusicGenDecoder, attention: str = "sdpa") -> Decoder:
    """transformers' decoder with the weights of ours."""
    kind = MusicgenForCausalLM if decoder.config.cross_attention else MusicgenMelodyForCausalLM
    reference = kind(decoder_sizes(decoder.config, attn_implementation=attention)).eval()
    load_decoder(reference, decoder)
    return reference


def model_in_transformers(decoder: MusicGenDecoder) -> MusicgenForConditionalGeneration:
    """transformers' whole model around the weights of our decoder, its other parts random."""
    config = decoder.config
    t5 = T5Config(vocab_size=50, d_model=config.text_hidden_size, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    codec = EncodecConfig(
        num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=config.codebook_size, num_lstm_layers=1
    )
    parts = MusicgenConfig(text_encoder=t5, audio_encoder=codec, decoder=decoder_sizes(config))
    reference = MusicgenForConditionalGeneration(parts).eval()
    load_decoder(reference.decoder, decoder)
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), config.special_token)
    reference.generation_config.update(**special)
    return reference
