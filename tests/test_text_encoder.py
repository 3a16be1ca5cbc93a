"""The text encoder: transformers' T5 with our sizes."""

from __future__ import annotations

import pytest
import torch
from transformers import T5EncoderModel

from musicgen_edu.config import PRESETS
from musicgen_edu.text_encoder import TextEncoder, t5_config


def make_inputs():
    ids = torch.randint(3, 100, (2, 6))
    mask = torch.ones(2, 6, dtype=torch.long)
    ids[1, 3:], mask[1, 3:] = 0, 0
    return ids, mask


@torch.no_grad()
def test_states_equal_transformers(text_encoder_config):
    encoder = TextEncoder(text_encoder_config)
    reference = T5EncoderModel(t5_config(text_encoder_config)).eval()
    reference.load_state_dict(encoder.model.state_dict())
    ids, mask = make_inputs()
    states = encoder(ids, mask)  # in training mode: there is no dropout to make a difference
    assert states.shape == (2, 6, encoder.hidden_size)
    torch.testing.assert_close(states, reference(ids, mask).last_hidden_state, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_padding_changes_nothing(text_encoder_config, tokens):
    encoder = TextEncoder(text_encoder_config)
    ids, mask = make_inputs()
    mask[1, tokens:] = 0
    alone = encoder(ids[1:, :tokens], mask[1:, :tokens])
    torch.testing.assert_close(encoder(ids, mask)[1:, :tokens], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_states_know_their_neighbours(text_encoder_config):
    encoder = TextEncoder(text_encoder_config)
    ids, mask = make_inputs()
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % 100
    assert (encoder(ids, mask) - encoder(changed, mask))[0, 5].abs().max() > 1e-3


@torch.no_grad()
def test_states_start_at_unit_scale():
    """At the shipped size: root mean square 1, and different prompts give different states."""
    encoder = TextEncoder(PRESETS["tiny"].text_encoder)
    states = encoder(
        torch.randint(3, PRESETS["tiny"].text_encoder.vocab_size, (4, 8)), torch.ones(4, 8, dtype=torch.bool)
    )
    torch.testing.assert_close(states.square().mean(dim=-1).sqrt(), torch.ones(4, 8), rtol=1e-3, atol=0)
    assert torch.corrcoef(states.flatten(1)).fill_diagonal_(0).abs().max() < 0.5


def test_empty_mask_stays_finite(text_encoder_config):
    encoder = TextEncoder(text_encoder_config)
    ids, _ = make_inputs()
    states = encoder(ids, torch.zeros_like(ids))
    states.sum().backward()
    assert states.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_trains_in_bf16(text_encoder_config):
    encoder = TextEncoder(text_encoder_config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = encoder(*make_inputs())
    states.float().square().sum().backward()
    assert encoder.model.shared.weight.grad.isfinite().all()
    assert states.isfinite().all()


def test_t5_base_has_its_published_size():
    """109,628,544 parameters, as the encoder of the released t5-base."""
    with torch.device("meta"):
        encoder = TextEncoder(PRESETS["small"].text_encoder)
    assert encoder.hidden_size == 768
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 109_628_544
