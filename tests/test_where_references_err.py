"""Where transformers or audiocraft err, both answers are shown: theirs, as pinned, and ours, which is right.

A reference that is mended fails its test here, which then says so. audiocraft cannot be installed beside today's
PyTorch: what it does to padding is computed with transformers' own layers, and that its `two_step_cfg` ignores a call's
`cfg_coef` is not shown; that a call's `guidance_scale` counts here is (`test_model.py`).
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from musicgen_edu.conditioning import Condition
from musicgen_edu.patterns import create_pattern
from musicgen_edu.reality import parity
from musicgen_edu.reality.parity import CODEBOOK_SIZE, VARIANTS, opened_pair
from musicgen_edu.reality.rounding import farthest

MENDED = "transformers is mended: hold ours against it"


@pytest.fixture
def pair():
    """A mono checkpoint in both programs; transformers' `generate` knows the special token of a small codebook."""
    with opened_pair(VARIANTS["mono"]) as pair:
        tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), CODEBOOK_SIZE)
        pair.reference.generation_config.update(**tokens)
        yield pair


def texts(pair) -> torch.Tensor:
    """The projected states of both prompts, zero on padding."""
    return pair.ours.condition(pair.ids, pair.mask).states


@torch.no_grad()
def test_audiocraft_looks_at_padding(pair):
    """Its cross-attention has no mask: padding of zeros takes weight, and a short prompt's music has its company's."""
    states, codes = texts(pair), torch.randint(CODEBOOK_SIZE, (2, 4, 12))
    short = int(pair.mask[1].sum())
    assert short < states.shape[1] and not states[1, short:].any()
    alone = pair.ours.decoder(codes[1:], Condition(states[1:, :short], pair.mask[1:, :short]))
    ours = pair.ours.decoder(codes, Condition(states, pair.mask))[1:]
    decode = pair.reference.decoder
    audiocrafts = decode(codes.flatten(0, 1), encoder_hidden_states=states).logits.unflatten(0, (2, 4))[1:]
    assert farthest(ours, alone) < 1e-5
    assert farthest(audiocrafts, alone) > 0.1


def test_a_clip_shorter_than_the_delays_is_delayed_all_the_same(pair):
    """transformers 5.23 drops the delay where fewer than 2K − 1 columns are asked for: 5 tokens become 5 frames."""
    options = {"do_sample": False, "guidance_scale": 3.0, "max_new_tokens": 5}
    theirs = pair.reference.generate(pair.ids, attention_mask=pair.mask, **options)
    result = parity.check_guided(pair, frames=2)
    assert theirs.shape[-1] == 5 * pair.ours.config.codec.hop_length, MENDED
    assert result.passed, "5 columns of 4 delayed codebooks hold 2 frames, and these are right"


def test_several_clips_of_several_prompts(pair, monkeypatch):
    """transformers 5.23 makes two clips of two prompts into 2 of twice the length, and gives codebooks wrong delays."""
    frames, decoder, heard, masks = 20, pair.reference.decoder, [], []
    decode, apply = pair.reference.audio_encoder.decode, decoder.apply_delay_pattern_mask
    monkeypatch.setattr(
        pair.reference.audio_encoder, "decode", lambda codes, **others: heard.append(codes) or decode(codes, **others)
    )
    monkeypatch.setattr(
        decoder, "apply_delay_pattern_mask", lambda codes, mask: masks.append(mask) or apply(codes, mask)
    )
    text = {"input_ids": pair.ids, "attention_mask": pair.mask}
    best = {"do_sample": True, "top_k": 1, "guidance_scale": 3.0, "max_new_tokens": frames + 3}
    one = pair.reference.generate(**text, **best)
    two = pair.reference.generate(**text, **best, num_return_sequences=2)
    assert one.shape[0] == 2 and two.shape == (2, 1, 2 * one.shape[2]), MENDED
    delays = (masks[-1] == -1).long().argmax(dim=1) - 1  # where each row's first free cell stands
    assert delays.view(4, 4)[:2].tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]], "the first prompt's two clips"

    condition = pair.ours.condition(pair.ids.repeat(2, 1), pair.mask.repeat(2, 1))
    settings = parity.SamplingSettings(temperature=0, top_k=0, guidance_scale=3.0)
    ours = parity.generate_codes(pair.ours.decoder, condition, frames, pair.ours.pattern, settings)
    assert torch.equal(ours, heard[0][0].repeat(2, 1, 1)), "four clips, each what transformers makes of it alone"


@torch.no_grad()
def test_labels_are_shifted_but_not_delayed(pair):
    """transformers' loss of plain codes is that of the parallel pattern; delayed by the caller, it is ours."""
    ours, codes = pair.ours, torch.randint(CODEBOOK_SIZE, (2, 4, 10))

    def loss_of(labels: torch.Tensor) -> torch.Tensor:
        text = {"encoder_hidden_states": texts(pair), "encoder_attention_mask": pair.mask}
        return pair.reference.decoder(**text, labels=labels.transpose(1, 2)).loss

    def own_loss(pattern) -> torch.Tensor:
        sequence = pattern.interleave(codes, CODEBOOK_SIZE)[:, :, :-1]
        scores = pattern.deinterleave(ours(sequence, pair.ids, pair.mask), codes.shape[2], first_step=1)
        return F.cross_entropy(scores.flatten(0, 2), codes.flatten())

    delayed = ours.pattern.interleave(codes, CODEBOOK_SIZE)[:, :, 1:]
    right = own_loss(ours.pattern)
    torch.testing.assert_close(loss_of(delayed), right)
    torch.testing.assert_close(loss_of(codes), own_loss(create_pattern("parallel", 4)), msg=MENDED)
    assert (loss_of(codes) - right).abs() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_null_branch_in_half_precision_is_finite(pair, dtype):
    """A softmax over nothing but −∞ is no number: so transformers' null branch was in fp16 (its issue 30020)."""
    scores = torch.randn(2, 5, dtype=dtype).masked_fill(torch.ones(2, 5, dtype=torch.bool), -torch.inf)
    assert scores.softmax(-1).isnan().all(), "the formula of that time"
    states, codes = texts(pair), torch.randint(CODEBOOK_SIZE, (2, 4, 12))
    null = Condition(states, pair.mask).null()
    exact = pair.ours.decoder(codes, null)
    ours = pair.ours.decoder.to(dtype)(codes, null)
    silent = {"encoder_hidden_states": null.states.to(dtype), "encoder_attention_mask": null.mask}
    theirs = pair.reference.decoder.to(dtype)(codes.flatten(0, 1), **silent).logits.unflatten(0, (2, 4))
    assert ours.isfinite().all() and theirs.isfinite().all()
    error, limit = (float((each.double() - exact).square().mean().sqrt()) for each in (ours, theirs))
    assert 0 < error <= 1.5 * limit
