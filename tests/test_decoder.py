"""The decoder: equal to transformers', causal, the same with a cache, and trainable."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from reference import decoder_in_transformers

from musicgen_edu.conditioning import Condition
from musicgen_edu.config import PRESETS, DecoderConfig
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder, attention_weights, sinusoidal_positions

SIZES = {
    "one codebook, one layer": DecoderConfig(11, 1, 8, 1, 1, 16),
    "four codebooks": DecoderConfig(20, 4, 24, 2, 3, 40),
    "stereo": DecoderConfig(33, 8, 32, 3, 4, 64),
    "the shipped width": DecoderConfig(64, 4, 768, 2, 12, 1536),
}


def make_inputs(config: DecoderConfig, steps: int = 9, tokens: int = 5):
    """Three rows: a full prompt, a padded one and the null condition."""
    codes = torch.randint(0, config.codebook_size + 1, (3, config.num_codebooks, steps))
    mask = torch.ones(3, tokens, dtype=torch.long)
    mask[1, 2:], mask[2] = 0, 0
    return codes, torch.randn(3, tokens, config.hidden_size) * mask[..., None], mask


@torch.no_grad()
@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES.keys())
def test_logits_equal_transformers(config):
    decoder = MusicGenDecoder(config)
    for parameter in decoder.parameters():  # norms that do something, unlike freshly made ones
        parameter.add_(0.1 * torch.randn_like(parameter) * parameter.std().nan_to_num(1).clamp(min=0.1))
    codes, text_states, mask = make_inputs(config)
    reference = decoder_in_transformers(decoder)
    expected = reference(codes.flatten(0, 1), encoder_hidden_states=text_states, encoder_attention_mask=mask).logits
    logits = decoder(codes, Condition(text_states, mask))
    torch.testing.assert_close(logits.flatten(0, 1), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_long_sequence_equals_transformers(decoder_config):
    """Positions past 2048, where transformers' table grows."""
    decoder = MusicGenDecoder(decoder_config)
    reference = decoder_in_transformers(decoder)
    codes, text_states, mask = make_inputs(decoder_config, steps=2100)
    expected = reference(codes.flatten(0, 1), encoder_hidden_states=text_states, encoder_attention_mask=mask).logits
    torch.testing.assert_close(
        decoder(codes, Condition(text_states, mask)).flatten(0, 1), expected, rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(1,) * 9, (9,), (4, 5), (1, 3, 1, 4), (2, 1, 1, 5)])
def test_cache_changes_nothing(decoder_config, chunks):
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states, mask = make_inputs(decoder_config, steps=sum(chunks))
    cache = DecoderCache(decoder_config, batch=3, max_steps=20)
    parts = [decoder(part, Condition(text_states, mask), cache) for part in codes.split(chunks, dim=2)]
    torch.testing.assert_close(
        torch.cat(parts, dim=2), decoder(codes, Condition(text_states, mask)), rtol=1e-5, atol=1e-5
    )
    assert cache.steps == 9


@torch.no_grad()
def test_cache_computes_the_text_once(decoder_config):
    decoder = MusicGenDecoder(decoder_config)
    calls = []
    decoder.layers[0].encoder_attn.k_proj.register_forward_hook(lambda *_: calls.append(1))
    codes, text_states, mask = make_inputs(decoder_config)
    cache = DecoderCache(decoder_config, batch=3, max_steps=9)
    for step in codes.split(1, dim=2):
        decoder(step, Condition(text_states, mask), cache)
    assert len(calls) == 1


@torch.no_grad()
def test_cache_memory_is_reserved_once(decoder_config):
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states, mask = make_inputs(decoder_config)
    cache = DecoderCache(decoder_config, batch=3, max_steps=9)
    addresses = [layer.keys.data_ptr() for layer in cache.layers]
    for step in codes.split(1, dim=2):
        decoder(step, Condition(text_states, mask), cache)
    assert [layer.keys.data_ptr() for layer in cache.layers] == addresses


def test_full_cache_says_so(decoder_config):
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states, mask = make_inputs(decoder_config, steps=4)
    cache = DecoderCache(decoder_config, batch=3, max_steps=6)
    decoder(codes, Condition(text_states, mask), cache)
    with pytest.raises(ValueError, match="holds 6 steps, 4 of them used, and 4 more do not fit"):
        decoder(codes, Condition(text_states, mask), cache)
    assert cache.steps == 4


@pytest.mark.parametrize("step", [0, 3, 8])
def test_no_step_sees_a_later_one(decoder_config, step):
    """The gradient of one step's logits with respect to every later input is exactly 0, to its own it is not."""
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states, mask = make_inputs(decoder_config)
    inputs = []
    decoder.layers[0].register_forward_pre_hook(
        lambda _, arguments: (inputs.append(arguments[0].retain_grad() or arguments[0]), None)[1]
    )
    decoder(codes, Condition(text_states, mask))[:, :, step].square().sum().backward()
    assert (inputs[0].grad[:, step + 1 :] == 0).all(), "is the causal mask aligned with the diagonal?"
    assert (inputs[0].grad[:, : step + 1].abs().amax(dim=2) > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("tokens", [1, 6])
def test_padding_and_company_change_nothing(decoder_config, steps, tokens):
    """A row alone gives what it gives beside longer prompts, whatever stands on its padding."""
    decoder = MusicGenDecoder(decoder_config)
    codes = torch.randint(0, 21, (2, 4, steps))
    text_states = torch.randn(2, tokens + 3, decoder_config.hidden_size)
    mask = torch.ones(2, tokens + 3, dtype=torch.bool)
    mask[0, tokens:] = False
    together = decoder(codes, Condition(text_states, mask))[:1]
    alone = decoder(codes[:1], Condition(text_states[:1, :tokens], mask[:1, :tokens]))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_null_condition_is_no_cross_attention(decoder_config, attention):
    """A row without any text: finite, blind to the text states, and transformers' logits in both its kernels."""
    decoder = MusicGenDecoder(decoder_config)
    reference = decoder_in_transformers(decoder, attention)
    codes, text_states, _ = make_inputs(decoder_config)
    mask, silence = torch.zeros(3, 5, dtype=torch.bool), torch.zeros_like(text_states)
    logits = decoder(codes, Condition(text_states, mask))
    expected = reference(codes.flatten(0, 1), encoder_hidden_states=silence, encoder_attention_mask=mask.long()).logits
    torch.testing.assert_close(logits.flatten(0, 1), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(9,), (3, 1, 5)])
def test_a_condition_before_the_codes_equals_transformers(decoder_config, chunks):
    """MusicGen Melody's decoder: no cross-attention, what is told stands before the codes; with a cache and without."""
    config = dataclasses.replace(decoder_config, cross_attention=False)
    decoder = MusicGenDecoder(config)
    reference = decoder_in_transformers(decoder)
    codes, prefix, nothing = make_inputs(config)[0], torch.randn(3, 6, 24), torch.zeros(3, 0, 24)
    condition = Condition(nothing, torch.zeros(3, 0, dtype=torch.bool), prefix, torch.zeros_like(prefix))
    expected = reference(codes.flatten(0, 1), encoder_hidden_states=prefix).logits[:, -9:]
    cache = DecoderCache(config, 3, max_steps=15)
    parts = [decoder(part, condition, cache) for part in codes.split(chunks, dim=2)]
    torch.testing.assert_close(torch.cat(parts, dim=2).flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoder(codes, condition).flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="holds 14 steps, 0 of them used, and 15 more do not fit"):
        decoder(codes, condition, DecoderCache(config, 3, max_steps=14))


def test_text_matters(decoder_config):
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states, mask = make_inputs(decoder_config)
    assert (decoder(codes, Condition(text_states, mask)) - decoder(codes, Condition(-text_states, mask)))[
        :2
    ].abs().max() > 0.01


def test_null_condition_has_finite_gradients_in_bf16(decoder_config):
    decoder = MusicGenDecoder(decoder_config)
    codes, text_states, mask = make_inputs(decoder_config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = decoder(codes, Condition(text_states, mask))
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())
    torch.testing.assert_close(logits.float(), decoder(codes, Condition(text_states, mask)), rtol=0.1, atol=0.1)


def test_positions_are_cosines_then_sines():
    waves = sinusoidal_positions(start=3, steps=2, width=8)
    assert waves.shape == (2, 8)
    torch.testing.assert_close(waves[0, 0], torch.tensor(3.0).cos())
    torch.testing.assert_close(waves[1, 7], torch.tensor(4.0 / 10_000).sin())
    torch.testing.assert_close(waves[1], sinusoidal_positions(0, 5, 8)[4], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_attention_weights_are_those_of_the_fused_kernel(masked):
    queries, keys, values = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    mask = torch.tensor([[1, 1, 0, 1, 0, 0], [0] * 6]).bool()[:, None, None] if masked else None
    weights = attention_weights(queries, keys, mask)
    torch.testing.assert_close(weights @ values, F.scaled_dot_product_attention(queries, keys, values, mask))
    rows = weights.sum(dim=-1)
    torch.testing.assert_close(rows, torch.tensor([1.0, 0.0 if masked else 1.0])[:, None, None].expand_as(rows))


def test_training_starts_near_the_uniform_distribution():
    config = PRESETS["tiny"].decoder
    codes, text_states, mask = make_inputs(config, steps=20)
    states, decoder = [], MusicGenDecoder(config)
    decoder.layer_norm.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    logits = decoder(codes, Condition(text_states, mask))
    loss = F.cross_entropy(logits.flatten(0, 2), torch.randint(0, config.codebook_size, (3 * 4 * 20,)))
    assert abs(loss.item() - torch.tensor(config.codebook_size).log()) < 0.3
    assert 0.5 < states[0].std() < 3


def test_learns_to_copy_the_text_within_seconds(decoder_config):
    """Two prompts, two codes to play: a decoder that cannot learn this cannot learn music."""
    decoder = MusicGenDecoder(decoder_config)
    text_states, mask = torch.randn(2, 3, decoder_config.hidden_size), torch.ones(2, 3)
    codes = torch.full((2, 4, 6), 20)
    target = torch.tensor([3, 7])[:, None, None].expand(2, 4, 6)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(decoder(codes, Condition(text_states, mask.bool())).flatten(0, 2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize("sizes", [{"hidden_size": 26}, {"hidden_size": 9}, {"hidden_size": 2, "num_heads": 1}])
def test_impossible_width_is_refused(decoder_config, sizes):
    with pytest.raises(ValueError, match=f"hidden_size={sizes['hidden_size']} must be even"):
        MusicGenDecoder(dataclasses.replace(decoder_config, **sizes))


def test_wrong_number_of_codebooks_is_named(decoder_config):
    codes, text_states, mask = make_inputs(decoder_config)
    with pytest.raises(ValueError, match="has 4 codebooks but the codes have 3"):
        MusicGenDecoder(decoder_config)(codes[:, :3], Condition(text_states, mask))


def test_shape_annotations_are_checked():
    """The import hook of conftest.py is at work: a wrong shape is an error of the annotation, not of the arithmetic."""
    with pytest.raises(TypeCheckError, match="keys"):
        attention_weights(torch.zeros(1, 2, 3, 4), torch.zeros(1, 5, 3, 4))


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_stays_on_its_device(decoder_config, cached):
    """On the meta device, which computes shapes only, any tensor made elsewhere would be an error."""
    decoder = MusicGenDecoder(decoder_config).to("meta")
    codes, text_states, mask = (tensor.to("meta") for tensor in make_inputs(decoder_config))
    cache = DecoderCache(decoder_config, 3, 20, device="meta") if cached else None
    for _ in range(2):
        logits = decoder(codes, Condition(text_states, mask), cache)
    assert logits.device.type == "meta" and logits.shape == (3, 4, 9, 20)
