"""A recipe whose whole training takes seconds, its model, and the comparison of what two trainings made."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from musicgen_edu.config import CodecConfig, DecoderConfig, MusicGenConfig, SamplingSettings, TextEncoderConfig
from musicgen_edu.model import MusicGen
from musicgen_edu.tokenizer import Tokenizer
from musicgen_edu.training.data import ClipGroup
from musicgen_edu.training.recipes import Recipe

TINY_RECIPE = Recipe(
    config=MusicGenConfig(
        TextEncoderConfig(hidden_size=16, num_layers=1, num_heads=2, head_size=8, ffn_size=32),
        DecoderConfig(
            codebook_size=16, hidden_size=24, num_layers=1, num_heads=2, ffn_size=32, text_hidden_size=16
        ),
        CodecConfig(num_filters=10, hidden_size=16, codebook_size=16),
        sampling=SamplingSettings(top_k=16),
    ),
    captions=1_500, codec_clips=4, codec_batch=2, codec_segment=16, codec_warmup_steps=2, codec_steps=3,
    sharpen_steps=2, adversarial_steps=2, adversarial_batch=2,
    groups=(ClipGroup(50, 6, 0.5), ClipGroup(100, 3, 0.3), ClipGroup(30, 4, 0.2)),
    decoder_batch=200, decoder_steps=4, caption_steps=2, caption_batch=4,
)  # fmt: skip


def tiny_model(tokenizer: Tokenizer) -> MusicGen:
    """The recipe's model with random weights, for the words of one tokenizer."""
    torch.manual_seed(0)
    text_encoder = replace(TINY_RECIPE.config.text_encoder, vocab_size=tokenizer.vocab_size)
    return MusicGen(replace(TINY_RECIPE.config, text_encoder=text_encoder), tokenizer)


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), f"{name} differs"
