"""Presets: overrides that are checked, and what follows from them."""

from __future__ import annotations

import math

import pytest
import torch

from musicgen_edu import PRESETS, WidthMismatchError, create_musicgen_model
from musicgen_edu.checkpoints.transformers_config import to_transformers


def on_meta(name: str = "tiny", **overrides):
    return create_musicgen_model(name, device="meta", **overrides)


def test_the_two_fixes_of_the_width_mismatch():
    projected, equal = on_meta(), on_meta(hidden_size=512)
    assert (projected.projection.in_features, projected.projection.out_features) == (512, 768)
    assert projected.projection.bias is not None
    assert equal.projection is None and equal.config.decoder.num_heads == 8  # heads stay 64 wide


def test_what_does_not_fit_is_refused_unless_asked_for():
    with pytest.raises(WidthMismatchError) as caught:
        on_meta(project_text=False)
    for part in ("512", "768", "encoder_attn.k_proj", "project_text=True", "hidden_size=512"):
        assert part in str(caught.value)
    with pytest.raises(WidthMismatchError, match="width 512, .*expects width 768"):
        on_meta(hidden_size=512, text_hidden_size=768)
    assert on_meta(hidden_size=512, text_hidden_size=768, preflight=False).projection.in_features == 768


def test_overrides():
    model = on_meta(num_layers=1, ffn_size=64, pattern="flatten", guidance_scale=2, top_k=5)
    assert len(model.decoder.layers) == 1 and model.decoder.layers[0].fc1.out_features == 64
    assert model.pattern.name == "flatten" and model.config.sampling.top_k == 5
    assert on_meta(hidden_size=96).config.decoder.num_heads == 1
    assert on_meta(hidden_size=96, num_heads=4).config.decoder.num_heads == 4


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [({"num_codebooks": 2}, True), ({"num_codebooks": 6}, False), ({"codebook_size": 64}, False)],
)
def test_the_codec_follows_the_codes(overrides, kept):
    config = on_meta(**overrides).config
    assert (config.codec == PRESETS["tiny"].codec) == kept
    assert config.codec.codebook_size == config.decoder.codebook_size
    assert config.codec.num_codebooks >= config.decoder.num_codebooks


@pytest.mark.parametrize(
    ("name", "overrides", "error", "message"),
    [
        ("huge", {}, ValueError, "no preset 'huge': choose one of tiny, small, medium, large, melody, "),
        (None, {}, ValueError, "no preset None"),
        ("tiny", {"hiden_size": 512}, TypeError, "no override 'hiden_size': choose among codebook_size, num_codebooks"),
        ("tiny", {"hidden_size": "512"}, TypeError, "hidden_size must be of type int, not '512'"),
        ("tiny", {"hidden_size": True}, TypeError, "hidden_size must be of type int, not True"),
        ("tiny", {"hidden_size": 512.0}, TypeError, "hidden_size must be of type int"),
        ("tiny", {"hidden_size": 0}, ValueError, "hidden_size must be at least 1, not 0"),
        ("tiny", {"num_layers": -3}, ValueError, "num_layers must be at least 1"),
        ("tiny", {"hidden_size": 7}, ValueError, "hidden_size=7 must be even"),
        ("tiny", {"num_heads": 5}, ValueError, "num_heads=5"),
        ("tiny", {"project_text": 1}, TypeError, "project_text must be of type bool"),
        ("tiny", {"temperature": math.nan}, ValueError, "temperature must be 0 (greedy) or a positive number, not nan"),
        ("tiny", {"temperature": 10**400}, ValueError, "temperature must be 0 (greedy) or a positive number, not 1000"),
        ("tiny", {"guidance_scale": math.inf}, ValueError, "guidance_scale must be a number of at least 0"),
        ("tiny", {"top_p": -math.inf}, ValueError, "top_p must be a number above 0 and at most 1, not -inf"),
        ("tiny", {"top_k": -1}, ValueError, "top_k must be a whole number of at least 0 (all), not -1"),
        ("tiny", {"num_codebooks": 10**9}, ValueError, "codebooks must be a whole number from 1 to 1,000"),
        ("tiny", {"pattern": "zigzag"}, ValueError, "no codebook pattern 'zigzag'"),
    ],
)
def test_bad_presets_and_overrides(unchecked_annotations, name, overrides, error, message):
    with pytest.raises(error) as caught:
        on_meta(name, **overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": 2**70}, "A seed must be a whole number"), ({"device": "toaster"}, "There is no device 'toaster'")],
)
def test_bad_seeds_and_devices(options, message):
    with pytest.raises(ValueError, match=message):
        create_musicgen_model("tiny", hidden_size=32, num_layers=1, ffn_size=8, **options)


def test_bandwidths_make_transformers_count_the_right_codebooks():
    for name, config in PRESETS.items():
        codec = to_transformers(config)["audio_encoder"]
        bits = 50 * math.ceil(math.log2(codec["codebook_size"]))
        assert int(1000 * codec["target_bandwidths"][-1] // bits) == config.codec.num_codebooks, name


def test_device_is_where_the_model_is():
    assert on_meta().decoder.layer_norm.weight.device == torch.device("meta")
