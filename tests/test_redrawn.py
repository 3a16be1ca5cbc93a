"""Codes that the model draws in place of the encoder's, and the codec's decoder that learns to play them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_recipe import TINY_RECIPE, assert_equal_weights, tiny_model

from musicgen_edu.codec import Codec
from musicgen_edu.config import SamplingSettings
from musicgen_edu.training.decoder import Batch, DecoderObjective
from musicgen_edu.training.recipe import train
from musicgen_edu.training.redrawn import REAL_WEIGHTS, REDRAWN_WEIGHTS, TIMES, RedrawnObjective, draw_pairs, redraw
from musicgen_edu.training.sharpening import SharpenObjective

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def heard(real_tokenizer) -> tuple[DecoderObjective, Batch]:
    """A small decoder whose scores differ from code to code, and two clips."""
    model = tiny_model(real_tokenizer)
    with torch.no_grad():
        for head in model.decoder.lm_heads:
            head.weight.mul_(20)
        model.decoder.layers[0].encoder_attn.out_proj.weight.mul_(10)
    ids, mask = real_tokenizer(["happy piano", "sad flute melody"])
    codes = torch.randint(16, (2, 4, 40), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids, mask, codes, torch.zeros(2, 40, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.long))
    return DecoderObjective(model.text_encoder, model.projection, model.decoder, model.pattern).eval(), batch


def test_codes_are_drawn_from_guided_scores_given_the_real_past(heard):
    objective, batch = heard
    with torch.no_grad():
        told = objective.scores(batch)
        null = objective.scores(replace(batch, text_mask=torch.zeros_like(batch.text_mask)))
    greedy = redraw(objective, batch, SamplingSettings(temperature=0, top_k=16, guidance_scale=2.0), seed=0)
    assert torch.equal(greedy, (null + 2 * (told - null)).argmax(dim=-1))
    assert not torch.equal(greedy, told.argmax(dim=-1)), "guidance matters here"

    settings = SamplingSettings(top_k=3, guidance_scale=1.0)
    drawn = torch.stack([redraw(objective, batch, settings, seed) for seed in range(200)])
    assert torch.equal(drawn[3], redraw(objective, batch, settings, seed=3)) and not torch.equal(drawn[0], drawn[1])
    ranks = told.argsort(dim=-1, descending=True).argsort(dim=-1)
    assert ranks.expand(200, *ranks.shape).gather(-1, drawn[..., None]).max() == 2, "one of the three likeliest"
    best = (drawn == told.argmax(dim=-1)).float().mean()
    expected = told.topk(3, dim=-1).values.softmax(dim=-1)[..., 0].mean()
    assert abs(best - expected) < 0.02


def test_pairs_are_the_sound_of_a_clip_and_codes_for_the_same_frames():
    hop, clips, frames = 4, 3, 12
    samples = torch.arange(clips * frames * hop, dtype=torch.int16).view(clips, 1, -1)
    first = torch.arange(clips * frames).view(1, clips, 1, frames).expand(-1, -1, 4, -1)  # code: the frame's number
    codes = torch.cat([first + 1_000 * time for time in range(1 + len(TIMES))])
    draw = draw_pairs(samples, codes.short(), [1.0, 0.0, 1.0], hop, segment=5, batch=5, seed=0)
    seen = set()
    for step in range(30):
        for number, (sound, written) in enumerate(draw(step, 0)):
            assert sound.shape == ((2, 1, 20), (3, 1, 20))[number] and written.shape == ((2, 4, 5), (3, 4, 5))[number]
            numbers = (sound[:, 0, ::hop] * 32767 / hop).round().long()
            assert torch.equal(numbers[:, None].expand(-1, 4, -1), written % 1_000)
            starts = torch.stack([written[:, 0, 0] // 1_000, numbers[:, 0] // frames], dim=1).tolist()
            seen |= {(number, time, row) for time, row in starts}
    assert seen == {(0, 0, 0), (0, 0, 2)} | {(1, time, row) for time in (1, 2, 3) for row in (0, 2)}
    assert torch.equal(draw(7, 0)[0][1], draw(7, 0)[0][1])


def test_only_the_codecs_decoder_learns_and_an_error_counts_less_behind_redrawn_codes():
    torch.manual_seed(0)
    codec = Codec(TINY_RECIPE.config.codec)
    objective = RedrawnObjective(codec)
    waveform, codes = 0.3 * torch.randn(2, 1, 32 * 320), torch.randint(16, (2, 4, 32))
    figures = objective(((waveform, codes), (waveform, codes)))
    for kind, weights in (("real", REAL_WEIGHTS), ("redrawn", REDRAWN_WEIGHTS)):
        assert {name.removesuffix(f"_{kind}") for name in figures if name.endswith(f"_{kind}")} == set(weights)
    by_hand = sum((REAL_WEIGHTS[name] + REDRAWN_WEIGHTS[name]) * figures[f"{name}_real"] for name in REAL_WEIGHTS)
    torch.testing.assert_close(figures["loss"], by_hand)
    assert REDRAWN_WEIGHTS["noise"] < REAL_WEIGHTS["noise"]
    figures["loss"].backward()
    assert all(weight.grad is None for weight in codec.encoder.parameters())
    moved = [weight.grad for weight in codec.decoder.parameters() if weight.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in moved)

    plain = SharpenObjective(codec)(waveform)
    same = objective(((waveform, codec.encode(waveform)), (waveform[:1], codes[:1])))
    for name in ("snr", "heard", "partials", "narrow", "wide"):
        sign, other = (-1, "noise") if name == "snr" else (1, name)
        torch.testing.assert_close(same[f"{other}_real"], sign * plain[name])


def test_the_recipe_scales_the_heads_and_then_changes_the_codecs_decoder_alone(renderer, tmp_path):
    first = train(TINY_RECIPE, tmp_path / "first")
    AcceleratorState._reset_state(reset_partial_state=True)
    still = dict(codec_steps=0, sharpen_steps=0, adversarial_steps=0, decoder_steps=0)
    redrawing = replace(TINY_RECIPE, head_scales=(1.0, 2.0, 2.0, 4.0), redrawn_steps=2, **still)
    second = train(redrawing, tmp_path / "second", start=tmp_path / "first" / "model")
    start = train(replace(TINY_RECIPE, **still), tmp_path / "start", start=tmp_path / "first" / "model")
    for (name, one), other in zip(start.state_dict().items(), second.state_dict().values(), strict=True):
        head = name.removeprefix("decoder.lm_heads.")
        if head != name:
            assert torch.equal((1.0, 2.0, 2.0, 4.0)[int(head[0])] * one, other), name
        elif not name.startswith("codec.decoder"):
            assert torch.equal(one, other), name
    last = f"codec.decoder.model.{len(first.codec.decoder.model) - 1}.conv.conv.bias"
    assert not torch.equal(start.state_dict()[last], second.state_dict()[last])
    codes = load_file(tmp_path / "second" / "redrawn" / "codes.safetensors")["codes"]
    assert codes.shape == (1 + len(TIMES), 4, 4, 250) and codes.max() < 16
    assert not torch.equal(codes[0], codes[1]) and not torch.equal(codes[1], codes[2])
    AcceleratorState._reset_state(reset_partial_state=True)
    again = train(redrawing, tmp_path / "second", start=tmp_path / "first" / "model")
    assert_equal_weights(second, again)
