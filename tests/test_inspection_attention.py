"""Attention maps: those that the decoder really used, drawn with words, and the view over them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from musicgen_edu.conditioning import Condition
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.inspection.attention import (
    AttentionMaps,
    attend_to_prompt,
    draw_all_heads,
    draw_attention,
    explore_attention,
    record_cross_attention,
)

PROMPT = "sad piano melody"


@pytest.fixture
def codes(model) -> torch.Tensor:
    return torch.randint(0, 32, (1, 4, 7))


@pytest.fixture
def maps(model, codes) -> AttentionMaps:
    return attend_to_prompt(model, PROMPT, codes)


@torch.no_grad()
def test_maps_are_what_the_fused_kernel_used(decoder_config):
    """The recorded weights times the values give what the kernel gathered, in every layer, padding included."""
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states = torch.randint(0, 21, (1, 4, 6)), torch.randn(1, 5, 24)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    gathered = []
    for layer in decoder.layers:
        layer.encoder_attn.out_proj.register_forward_pre_hook(lambda _, arguments: gathered.append(arguments[0]))
    weights = record_cross_attention(decoder, codes, Condition(text_states, mask))
    assert weights.shape == (2, 3, 6, 5)
    for layer, of_layer, expected in zip(decoder.layers, weights, gathered, strict=True):
        values = layer.encoder_attn.keys_and_values(text_states)[1][0]
        torch.testing.assert_close((of_layer @ values).transpose(0, 1).flatten(1), expected[0], rtol=1e-5, atol=1e-5)
    assert (weights[..., 3:] == 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 6))


def test_the_decoder_stays_as_it_was(decoder_config, monkeypatch):
    """No hook stays behind, not even after an error."""
    decoder = MusicGenDecoder(decoder_config)
    inputs = torch.randint(0, 21, (1, 4, 6)), Condition(torch.randn(1, 5, 24), torch.ones(1, 5, dtype=torch.bool))
    record_cross_attention(decoder, *inputs)
    monkeypatch.setattr(F, "gelu", lambda states: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record_cross_attention(decoder, *inputs)
    assert not any(module._forward_pre_hooks for module in decoder.modules())


def test_a_frame_is_the_step_that_predicts_its_first_code(model, codes, maps):
    """Frame t's first code stands in column t + 1, which step t predicts."""
    condition = model.encode_text([PROMPT])
    sequence = model.pattern.interleave(codes, model.config.decoder.special_token)
    weights = record_cross_attention(model.decoder, sequence, condition)
    torch.testing.assert_close(maps.weights, weights[:, :, :7])
    assert maps.pieces == model.tokenizer.pieces(PROMPT) and maps.weights.shape == (1, 2, 7, len(maps.pieces))


def test_one_head_or_the_mean(maps):
    torch.testing.assert_close(maps.of(0), (maps.of(0, 0) + maps.of(0, 1)) / 2)
    with pytest.raises(IndexError, match="There is no layer 0, head 2: layers are 0–0, heads 0–1"):
        maps.of(0, 2)


def test_pictures_say_what_they_show():
    weights = torch.full((1, 2, 5, 3), 0.25)
    weights[0, 1, :, 1], weights[:, :, 4] = 0.5, torch.tensor([0.1, 0.1, 0.8])
    maps = AttentionMaps(weights, ["▁sad", "▁piano", "</s>"])
    drawn = draw_attention(maps, 0, 1, frame=4)
    assert drawn.content.startswith(b"\x89PNG")
    assert "layer 0, head 1: 5 frames to the right, 3 tokens downwards" in drawn.alt
    assert drawn.alt.endswith("the most goes to “piano”. Frame 4 is marked; it looks most at “</s>”.")
    assert "mean of all heads" in draw_attention(maps, 0).alt
    assert "1 layers with 2 heads each" in draw_all_heads(maps).alt
    with pytest.raises(IndexError, match="no frame 5: frames are 0–4"):
        draw_attention(maps, 0, frame=5)


def test_the_view_redraws_at_every_control(model, codes):
    view = explore_attention(model, PROMPT, codes)
    text, choices, output = view.children
    layer, head, frame = choices.children
    seen = [output.value]
    for control, value in ((head, 1), (frame, 5), (text, "happy flute arpeggio")):
        control.value = value
        assert output.value.startswith("<img alt=") and output.value not in seen
        seen.append(output.value)
    assert "head 1" in output.value and "Frame 5" in output.value
    assert all(control.description and control.tooltip for control in (text, layer, head, frame))


def test_the_view_says_what_is_wrong(model, codes):
    view = explore_attention(model, PROMPT, codes)
    text, _, output = view.children
    text.value = "piano " * 41
    assert 'role="alert"' in output.value and "42 tokens and the picture holds 40" in output.value
    text.value = "  "
    assert 'role="alert"' in output.value
    text.value = PROMPT
    assert output.value.startswith("<img alt=")


def test_the_view_does_not_run_the_model_again_for_another_head(model, codes):
    view = explore_attention(model, PROMPT, codes)
    runs = []
    hook = model.decoder.register_forward_pre_hook(lambda *_: runs.append("forward"))
    other = model.decoder.layers[0].register_forward_pre_hook(lambda *_: runs.append("layer"))
    view.children[1].children[1].value = 0
    assert not runs
    view.children[0].value = "happy flute"
    assert runs == ["layer"]
    hook.remove()
    other.remove()
