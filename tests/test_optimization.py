"""Packed weights: the same decoder, the same numbers as far as its bits go, and everything undone on demand."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import test_decoder
import torch
import torch.nn.functional as F
from reference import decoder_in_transformers
from torch import nn

from musicgen_edu import MusicGen, create_musicgen_model, optimization, steps
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.conditioning import Condition
from musicgen_edu.config import DecoderConfig
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.devices import mkl_is_fast
from musicgen_edu.optimization import PRODUCTS, PackedLinear, optimize, quantize_to_4_bits
from musicgen_edu.sampling import apply_guidance
from musicgen_edu.steps import attend

CONFIG = DecoderConfig(32, 4, 64, 2, 4, 128, text_hidden_size=16)
# The largest error of a logit, relative to their spread: about 2⁻²³, 2⁻⁸, 1/254 and 1/30 of a weight, over two layers.
RELATIVE_ERROR = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.1, "int4": 0.6}
PROMPTS = ["peaceful piano melody", "an energetic marimba arpeggio, fast, with drums", "sad strings"]

can_use_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
RUNGS = [
    pytest.param(rung, marks=pytest.mark.skipif(rung == "bf16" and not can_use_bf16, reason="no bf16 here"))
    for rung in PRODUCTS
]


def make_inputs(config: DecoderConfig, steps: int = 9) -> tuple[torch.Tensor, Condition]:
    """Codes, and a full prompt, a padded one and the null condition."""
    codes, states, mask = test_decoder.make_inputs(config, steps)
    return codes, Condition(states, mask)


@pytest.fixture
def decoder() -> MusicGenDecoder:
    return MusicGenDecoder(CONFIG)


def step_by_step(decoder: MusicGenDecoder, codes: torch.Tensor, condition: Condition) -> torch.Tensor:
    """Logits as in generation: with a cache, a step at a time."""
    cache = DecoderCache(decoder.config, len(codes), codes.shape[2], dtype=decoder.cache_dtype)
    return torch.cat([decoder(step, condition, cache).float() for step in codes.split(1, dim=2)], dim=2)


@torch.no_grad()
@pytest.mark.parametrize("rung", RUNGS)
def test_logits_differ_by_the_rounding_of_the_weights_only(decoder, rung):
    codes, condition = make_inputs(CONFIG, steps=20)
    wanted = decoder(codes, condition)
    optimize(decoder, rung)
    for logits in (step_by_step(decoder, codes, condition), decoder(codes, condition).float()):
        error = (logits - wanted).abs().max() / wanted.std()
        assert error < RELATIVE_ERROR[rung]
        assert rung == "fp32" or error > 1e-4, "are the weights rounded at all?"


@torch.no_grad()
def test_fp32_gives_the_greedy_tokens_of_transformers(decoder):
    """Teacher forcing, step by step with a cache; ties closer than ten times the difference are left out."""
    reference = decoder_in_transformers(decoder)
    codes, condition = make_inputs(CONFIG, steps=40)
    theirs = reference(
        codes.flatten(0, 1), encoder_hidden_states=condition.states, encoder_attention_mask=condition.mask
    ).logits.unflatten(0, codes.shape[:2])
    optimize(decoder, "fp32")
    ours = step_by_step(decoder, codes, condition)
    difference, best = (ours - theirs).abs().max(), theirs.topk(2, dim=-1).values
    clear = best[..., 0] - best[..., 1] > 10 * difference
    assert difference < 1e-5 and clear.float().mean() > 0.99
    assert torch.equal(ours.argmax(-1)[clear], theirs.argmax(-1)[clear])


@torch.no_grad()
@pytest.mark.parametrize("rung", RUNGS)
def test_all_of_it_can_be_undone(decoder, rung):
    codes, condition = make_inputs(CONFIG)
    wanted, names, text = decoder(codes, condition), list(decoder.state_dict()), repr(decoder)
    optimize(decoder, rung)
    assert list(decoder.state_dict()) == names and PRODUCTS[rung].__name__ in repr(decoder)
    optimize(decoder, None)
    assert repr(decoder) == text
    assert torch.equal(decoder(codes, condition), wanted)
    assert decoder.cache_dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("rung", RUNGS)
def test_every_linear_layer_is_packed_and_the_readers_of_the_same_states_as_one(decoder, rung):
    optimize(decoder, rung)
    layers = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    assert all(type(layer) is PackedLinear for layer in layers)
    products = {id(layer.product): layer.product for layer in layers}
    assert len(products) == 2 * 7 + 1  # in each layer qkv, out, q, kv, out, fc1, fc2; the heads
    first = decoder.layers[0]
    assert first.self_attn.q_proj.product is first.self_attn.v_proj.product
    assert first.encoder_attn.q_proj.product is not first.encoder_attn.k_proj.product
    bits = {"fp32": 32, "bf16": 16, "int8": 8 + 16 / 128, "int4": 4 + 32 / 32}[rung]  # with scales
    weights = sum(layer.weight.numel() for layer in layers)
    assert sum(product.nbytes for product in products.values()) == pytest.approx(weights * bits / 8, rel=0.03)


@torch.no_grad()
def test_readers_of_the_same_states_multiply_once_and_never_with_states_of_yesterday(decoder):
    optimize(decoder, "fp32")
    attention = decoder.layers[0].self_attn
    calls, multiply = [], attention.q_proj.product.multiply
    attention.q_proj.product.multiply = lambda states: calls.append(1) or multiply(states)
    for _ in range(3):
        states = torch.randn(2, 1, 64)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj):
            torch.testing.assert_close(layer(states), F.linear(states, layer.weight), rtol=1e-5, atol=1e-5)
    assert len(calls) == 3


@torch.no_grad()
def test_weights_can_be_given_up(decoder):
    codes, condition = make_inputs(CONFIG)
    kept = copy.deepcopy(decoder)
    optimize(kept, "int8")
    optimize(decoder, "int8", keep_weights=False)
    assert torch.equal(decoder(codes, condition), kept(codes, condition))
    left = sum(parameter.numel() for parameter in decoder.parameters() if not parameter.is_meta)
    assert left == sum(p.numel() for name, p in decoder.named_parameters() if "embed" in name or "norm" in name)
    for rung in ("int4", None):
        with pytest.raises(ValueError, match="given up: load the model again"):
            optimize(decoder, rung)


@pytest.mark.parametrize("rung", RUNGS)
def test_it_is_copied_and_pickled(decoder, rung):
    codes, condition = make_inputs(CONFIG)
    optimize(decoder, rung)
    with torch.no_grad():
        wanted = decoder(codes, condition)
        for other in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
            assert torch.equal(other(codes, condition), wanted)
            optimize(other, None)
        assert torch.equal(decoder(codes, condition), wanted), "a copy is a copy"


def test_it_refuses_to_be_trained(decoder):
    codes, condition = make_inputs(CONFIG)
    optimize(decoder, "fp32")
    with pytest.raises(RuntimeError, match="no gradients: use torch.no_grad"):
        decoder(codes, condition)
    optimize(decoder, None)
    decoder(codes, condition).sum().backward()


@torch.no_grad()
def test_it_notices_that_the_weights_have_changed(decoder):
    codes, condition = make_inputs(CONFIG)
    optimize(decoder, "fp32")
    decoder.load_state_dict(MusicGenDecoder(CONFIG).state_dict())
    with pytest.raises(RuntimeError, match=r"changed since they were packed: call optimize\(\) again"):
        decoder(codes, condition)
    optimize(decoder, "fp32")
    decoder(codes, condition)


@pytest.mark.parametrize("width", [24, 48])
def test_what_cannot_be_packed_is_refused_before_anything_is(width):
    decoder = MusicGenDecoder(replace(CONFIG, hidden_size=width))
    with pytest.raises(ValueError, match="int4 takes 32 weights of 16 rows at once"):
        optimize(decoder, "int4")
    if width == 24:
        with pytest.raises(ValueError, match="int8 reads 16 weights at once"):
            optimize(decoder, "int8")
    with pytest.raises(ValueError, match="There is no rung 'int2': choose one of fp32, bf16, int8, int4"):
        optimize(decoder, "int2")
    assert not any(isinstance(module, PackedLinear) for module in decoder.modules())


@torch.no_grad()
def test_four_bits_are_the_best_of_their_kind():
    weight = torch.randn(16, 128) / 11
    numbers, scale, offset = quantize_to_4_bits(weight)
    assert numbers.min() == 0 and numbers.max() == 15
    restored = (numbers.unflatten(1, (-1, 32)) * scale[..., None] + offset[..., None]).flatten(1)
    error = (restored - weight).square().mean().sqrt() / weight.std()
    assert error < 0.08  # the plain range from least to greatest leaves 0.078, one around 0 alone 0.097
    constant = torch.full((16, 32), 0.3)
    numbers, scale, offset = quantize_to_4_bits(constant)
    torch.testing.assert_close(numbers * scale + offset, constant)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_the_fused_kernels(dtype, fast, monkeypatch):
    monkeypatch.setattr(steps, "mkl_is_fast", lambda: fast)
    keys, values = (torch.randn(2, 3, 700, 16, dtype=dtype)[:, :, :650] for _ in range(2))
    for count, mask in ((1, None), (4, None), (1, torch.rand(2, 1, 1, 650) > 0.5)):
        queries = 3 * torch.randn(2, 3, count, 16, dtype=dtype)
        found = attend(queries, keys, values, mask)
        wanted = F.scaled_dot_product_attention(queries.double(), keys.double(), values.double(), mask)
        tolerance = 0.03 if fast and dtype == torch.bfloat16 else 1e-5  # what is read as it lies is rounded once more
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_weights_lie_as_they_are_where_mkl_is_fast(decoder, monkeypatch):
    codes, condition = make_inputs(CONFIG)
    wanted = decoder(codes, condition)
    for fast in (True, False):
        monkeypatch.setattr(optimization, "mkl_is_fast", lambda fast=fast: fast)
        optimize(decoder, "fp32")
        assert all(layer.product.held[0].is_mkldnn != fast for layer in decoder.lm_heads)
        torch.testing.assert_close(decoder(codes, condition), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pickle.loads(pickle.dumps(decoder))(codes, condition), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("narrow", [True, False])
def test_many_rows_are_multiplied_as_few_are(narrow, monkeypatch):
    monkeypatch.setattr(optimization, "has_bfloat16", lambda: narrow)
    product, states = PRODUCTS["int8"](torch.randn(96, 64), [96]), torch.randn(3 * optimization.MANY, 64).bfloat16()
    one_by_one = torch.cat([product(row[None], 0) for row in states])
    numbers, scale = product.held
    wanted = states.double() @ (numbers.double() * scale.double()[:, None]).T
    for found in (product(states, 0), one_by_one):
        assert (found.double() - wanted).abs().max() < 0.01 * wanted.abs().max()  # two roundings to bfloat16


@pytest.mark.parametrize(
    ("processor", "capability", "fast"),
    [("GenuineIntel", "AVX512", True), ("GenuineIntel", "AVX2", False), ("AuthenticAMD", "AVX512", False)],
)
def test_mkl_is_fast_on_intels_processors_with_avx512(processor, capability, fast, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nvendor_id\t: {processor}\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert mkl_is_fast(file) == (fast and torch.backends.mkl.is_available())


def test_memory_does_not_grow_with_every_step():
    """A kernel that is compiled for each length of the past would be kept for each."""
    code = """if True:
        import psutil, torch
        from musicgen_edu.steps import attend
        past, query = torch.randn(2, 2, 512, 64).bfloat16(), torch.randn(2, 2, 1, 64).bfloat16()
        attend(query, past[:, :, :300], past[:, :, :300])
        before = psutil.Process().memory_info().rss
        for length in range(301, 501):
            attend(query, past[:, :, :length], past[:, :, :length])
        print(psutil.Process().memory_info().rss - before)"""
    assert int(subprocess.check_output([sys.executable, "-c", code], text=True)) < 30e6


@pytest.fixture(scope="module")
def shipped() -> MusicGen:
    return create_musicgen_model("tiny")


# The share of greedy tokens that stay, and the root mean square of the logits' error, as a share of their spread.
SHIPPED_BOUNDS = {"fp32": (1.0, 1e-5), "bf16": (0.97, 0.008), "int8": (0.97, 0.02), "int4": (0.87, 0.15)}


@torch.no_grad()
@pytest.mark.parametrize("rung", RUNGS)
def test_the_shipped_model_keeps_its_greedy_tokens(shipped, rung):
    """Teacher forcing on two seconds of its own music, with guidance."""
    model, (share, error) = copy.deepcopy(shipped), SHIPPED_BOUNDS[rung]
    condition = model.encode_text(PROMPTS).with_null()
    codes = model.generate(PROMPTS, duration=2, seed=[1, 2, 3]).codes
    columns = model.pattern.interleave(codes, 1024).repeat(2, 1, 1)[:, :, :-1]
    valid = model.pattern.mask(codes.shape[2])[:, 1:].expand(3, -1, -1)
    wanted = model.decoder(columns, condition)
    logits = step_by_step(model.optimize(rung).decoder, columns, condition)
    assert (logits - wanted).square().mean().sqrt() < error * wanted.std()
    best, other = (apply_guidance(*scores.chunk(2), 3).argmax(dim=-1)[valid] for scores in (wanted, logits))
    assert (best == other).float().mean() >= share


@pytest.mark.parametrize("rung", RUNGS)
def test_the_shipped_model_makes_music_with_packed_weights_and_saves_its_own(shipped, rung, tmp_path):
    model = copy.deepcopy(shipped).optimize(rung)
    audio = model.generate(PROMPTS[0], duration=0.5, seed=3)
    if rung == "fp32":
        assert torch.equal(audio.codes, shipped.generate(PROMPTS[0], duration=0.5, seed=3).codes)
    assert audio.waveform.abs().max() > 0.01
    if rung == "int4":
        model.save_pretrained(tmp_path / "kept")
        again = named_tensors(MusicGen.from_pretrained(tmp_path / "kept"))
        assert all(torch.equal(tensor, again[name]) for name, tensor in named_tensors(shipped).items())
        model.optimize(rung, keep_weights=False)
        again = copy.deepcopy(model).generate(PROMPTS[0], duration=0.5, seed=3)
        assert torch.equal(again.waveform, audio.waveform)
        with pytest.raises(ValueError, match="cannot be saved: decoder.* is no tensor of floats with values"):
            model.save_pretrained(tmp_path / "given_up")
        assert not (tmp_path / "given_up").exists()
