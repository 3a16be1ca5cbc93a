"""Room 07: the loop against transformers' `generate`, with every pattern, alone or in a batch, whole or left early."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import model_in_transformers

from musicgen_edu.conditioning import ChangingCondition, Condition
from musicgen_edu.config import DecoderConfig, SamplingSettings
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.generation import generate_codes, iterate_codes
from musicgen_edu.patterns import PATTERNS, create_pattern

CONFIG = DecoderConfig(
    codebook_size=32, num_codebooks=4, hidden_size=24, num_layers=2, num_heads=3, ffn_size=40, text_hidden_size=16
)
DELAY = create_pattern("delay", 4)
ALL = SamplingSettings(top_k=0)  # every code may be drawn


def make_decoder(config: DecoderConfig = CONFIG) -> MusicGenDecoder:
    """A random decoder that is sure of what it says: far from ties, and sensitive to the prompt."""
    torch.manual_seed(0)
    decoder = MusicGenDecoder(config).eval()
    with torch.no_grad():
        for head in decoder.lm_heads:
            head.weight.mul_(8)
        for layer in decoder.layers:
            layer.encoder_attn.out_proj.weight.mul_(3)
    return decoder


def make_text(lengths: list[int], width: int = CONFIG.hidden_size) -> Condition:
    """Text states and mask of prompts of these lengths; a prompt's states depend on its place in the list."""
    mask = torch.tensor([[int(token < length) for token in range(max(lengths))] for length in lengths])
    states = [torch.randn(9, width, generator=torch.Generator().manual_seed(row)) for row in range(len(lengths))]
    return Condition(torch.stack(states)[:, : max(lengths)] * mask[:, :, None], mask)


def write(decoder, condition, frames, pattern=DELAY, seed=0, progress=None, known=None, **settings) -> torch.Tensor:
    """`generate_codes` with all codes to draw from, unless told otherwise."""
    settings = SamplingSettings(**{"top_k": 0} | settings)
    return generate_codes(decoder, condition, frames, pattern, settings, seed=seed, progress=progress, known=known)


def assert_far_from_ties(decoder, condition, codes, guidance_scale):
    """The two best scores of every valid cell differ by far more than two implementations' rounding (1e-5)."""
    columns = DELAY.interleave(codes, decoder.config.special_token)[:, :, :-1]
    logits = decoder(columns, condition)
    null = decoder(columns, condition.null())
    best = DELAY.deinterleave(null + (logits - null) * guidance_scale, first_step=1).topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_greedy_tokens_are_those_of_transformers(guidance_scale, monkeypatch):
    """A padded batch through transformers' whole `generate`, its codes caught where they reach the codec."""
    decoder, frames, caught = make_decoder(), 20, []
    reference = model_in_transformers(decoder)
    ids = torch.tensor([[5, 17, 30, 1, 0, 0], [8, 9, 10, 11, 12, 1]])
    mask = (ids != 0).long()
    decode = reference.audio_encoder.decode

    def catch(codes, **others):
        caught.append(codes)
        return decode(codes, **others)

    monkeypatch.setattr(reference.audio_encoder, "decode", catch)
    reference.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        guidance_scale=guidance_scale,
        max_new_tokens=frames + 3,
        use_cache=True,
    )
    states = reference.enc_to_dec_proj(reference.text_encoder(ids, mask).last_hidden_state) * mask[:, :, None]
    condition = Condition(states, mask)
    codes = write(decoder, condition, frames, temperature=0.0, guidance_scale=guidance_scale)
    assert_far_from_ties(decoder, condition, codes, guidance_scale)
    assert torch.equal(codes, caught[0][0])
    assert not torch.equal(codes[0], codes[1]), "the prompt makes no difference: this test would prove little"


@torch.no_grad()
@pytest.mark.parametrize("name", PATTERNS)
def test_greedy_tokens_are_the_best_given_all_before_them(name):
    """Teacher forcing, without a cache: every token is the argmax of the scores on the finished sequence."""
    decoder, pattern, condition = make_decoder(), create_pattern(name, 4), make_text([3, 5])
    codes = write(decoder, condition, 6, pattern, temperature=0.0)
    columns = pattern.interleave(codes, CONFIG.special_token)[:, :, :-1]
    null = decoder(columns, condition.null())
    logits = pattern.deinterleave(null + 3 * (decoder(columns, condition) - null), first_step=1)
    best, chosen = logits.amax(-1), logits.gather(-1, codes[..., None])[..., 0]
    assert (best - chosen).max() < 1e-3


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(PATTERNS)),
    codebooks=st.integers(1, 5),
    frames=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_pattern_generates(name, codebooks, frames, seed):
    decoder = make_decoder(dataclasses.replace(CONFIG, num_codebooks=codebooks))
    condition = make_text([3, 1])
    seen = []
    chunks = list(
        iterate_codes(
            decoder,
            condition,
            frames,
            create_pattern(name, codebooks),
            SamplingSettings(top_k=10, top_p=0.9),
            seed=seed,
            progress=lambda done, total: seen.append((done, total)),
        )
    )
    codes = torch.cat(chunks, dim=2)
    assert codes.shape == (2, codebooks, frames) and 0 <= codes.min() and codes.max() < CONFIG.codebook_size
    total = create_pattern(name, codebooks).steps(frames) - 1
    assert seen == [(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("delay", [4, 5, 6, 7, 8]),
        ("parallel", [1, 2, 3, 4, 5]),
        ("partial_delay", [2, 3, 4, 5, 6]),
        ("flatten", [4, 8, 12, 16, 20]),
        ("partial_flatten", [2, 4, 6, 8, 10]),
        ("coarse_first", [6, 7, 8, 9, 10]),
        ("musiclm", [12, 14, 16, 18, 20]),
    ],
)
def test_frames_come_as_soon_as_they_are_complete(name, steps):
    decoder, condition, progress = make_decoder(), make_text([3]), []
    arrivals, frames = [], []
    for new in iterate_codes(
        decoder, condition, 5, create_pattern(name, 4), ALL, progress=lambda *now: progress.append(now)
    ):
        arrivals.append(progress[-1][0])
        frames.append(new)
    assert arrivals == steps
    whole = write(decoder, condition, 5, create_pattern(name, 4))
    assert torch.equal(torch.cat(frames, dim=2), whole)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4), row=st.integers(0, 3), seed=st.integers(0, 10**9))
def test_a_prompt_sounds_the_same_alone_and_in_a_batch(lengths, row, seed):
    decoder, condition, row = make_decoder(), make_text(lengths), row % len(lengths)
    seeds = [seed + prompt for prompt in range(len(lengths))]
    batch = write(decoder, condition, 4, seed=seeds, top_k=15)
    length = lengths[row]
    own = Condition(condition.states[row : row + 1, :length], condition.mask[row : row + 1, :length])
    alone = write(decoder, own, 4, seed=seeds[row], top_k=15)
    assert torch.equal(batch[row : row + 1], alone)


def test_the_same_seed_gives_the_same_codes_whatever_ran_before():
    decoder, condition = make_decoder(), make_text([4, 2])
    before = torch.get_rng_state()
    first = write(decoder, condition, 10, seed=3)
    assert torch.equal(before, torch.get_rng_state()), "generation must leave the global random state alone"
    torch.rand(5)
    assert torch.equal(write(decoder, condition, 10, seed=3), first)
    assert not torch.equal(write(decoder, condition, 10, seed=4), first)


def test_it_may_be_left_at_any_point():
    decoder, condition = make_decoder(), make_text([4, 2])
    whole = write(decoder, condition, 10)

    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(decoder, condition, 10, progress=interrupt)
    stream = iterate_codes(decoder, condition, 10, DELAY, ALL)
    next(stream)
    assert not torch.is_inference_mode_enabled(), "between two chunks the caller's own settings hold"
    stream.close()
    assert torch.equal(write(decoder, condition, 10), whole)


def test_guidance_of_one_runs_no_null_branch():
    decoder, condition, batches = make_decoder(), make_text([4, 2]), []
    decoder.register_forward_pre_hook(lambda module, arguments: batches.append(len(arguments[0])))
    write(decoder, condition, 2, guidance_scale=1.0)
    assert set(batches) == {2}
    write(decoder, condition, 2, guidance_scale=2.0)
    assert set(batches) == {2, 4}


def test_guidance_of_zero_ignores_the_prompt():
    decoder, condition = make_decoder(), make_text([4, 2])
    codes = write(decoder, condition, 10, guidance_scale=0.0)
    assert torch.equal(codes[0], codes[1])


def test_codes_can_be_trained_on():
    """They are ordinary tensors, not inference tensors that autograd refuses."""
    decoder, condition = make_decoder(), make_text([4])
    codes = write(decoder, condition, 4)
    decoder(DELAY.interleave(codes, CONFIG.special_token), condition).sum().backward()
    assert decoder.embed_tokens[0].weight.grad is not None


def test_it_computes_in_fp32_in_the_midst_of_a_mixed_precision_training():
    decoder, condition = make_decoder(), make_text([4])
    expected = write(decoder, condition, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(write(decoder, condition, 10), expected)
    assert write(decoder, condition.to("cpu", torch.bfloat16), 10).shape == (1, 4, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames must be a whole number of at least 1, not 0"),
        ({"frames": -1}, "frames must be a whole number of at least 1"),
        ({"pattern": create_pattern("delay", 3)}, "lays out 3 codebooks and the decoder writes 4"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"temperature": math.nan}, "temperature must be 0"),
        ({"top_k": 33}, "top_k must be a whole number from 0 .* the codebook's 32 entries, not 33"),
        ({"top_p": 0.0}, "top_p must be a number above 0"),
        ({"guidance_scale": math.nan}, "guidance_scale must be a number of at least 0"),
        ({"seed": [1, 2, 3]}, "3 seeds for 2 prompts"),
        ({"seed": -1}, "A seed must be a whole number from 0"),
        ({"known": torch.zeros(2, 4, 5, dtype=torch.long)}, "fewer frames than the 5 that are asked for"),
        ({"known": torch.zeros(1, 4, 2, dtype=torch.long)}, "must be 2 clips of 4 codebooks"),
        ({"known": torch.full((2, 4, 2), 32)}, "Codes lie in 0…31, not in 32…32"),
    ],
)
def test_bad_settings_are_refused_at_the_call(change, message):
    options = {"frames": 5, "pattern": DELAY, "seed": 0, "known": None} | change
    names = {field.name for field in dataclasses.fields(SamplingSettings)}
    chosen = {"top_k": 5} | {name: options.pop(name) for name in names & set(options)}
    with pytest.raises(ValueError, match=message):  # no step is asked for
        iterate_codes(make_decoder(), make_text([4, 2]), settings=SamplingSettings(**chosen), **options)


@pytest.mark.parametrize("name", PATTERNS)
def test_known_codes_are_kept_and_the_rest_is_what_it_would_have_been(name):
    """A clip that is cut anywhere and continued greedily is the clip: what is read at once is what was written."""
    decoder, pattern, condition = make_decoder(), create_pattern(name, 4), make_text([3, 5])
    whole = write(decoder, condition, 8, pattern, temperature=0.0)
    for cut in (1, 3, 7):
        assert torch.equal(write(decoder, condition, 8, pattern, known=whole[:, :, :cut], temperature=0.0), whole)


def test_known_codes_are_read_in_one_call():
    decoder, condition, columns = make_decoder(), make_text([4, 2]), []
    decoder.register_forward_pre_hook(lambda module, arguments: columns.append(arguments[0].shape[2]))
    known, seen = torch.randint(0, 32, (2, 4, 6)), []
    codes = write(decoder, condition, 9, known=known, progress=lambda *now: seen.append(now))
    assert torch.equal(codes[:, :, :6], known)
    assert columns == [7, 1, 1, 1, 1, 1], "step 0 and the six frames of codebook 0, then a step a call"
    assert seen == [(step, 12) for step in range(7, 13)]


def test_a_window_goes_on_where_the_last_one_ended():
    """Sliding windows: a new cache and the tail of what was written, as known codes."""
    decoder, condition = make_decoder(), make_text([4])
    first = write(decoder, condition, 10, seed=1)
    second = write(decoder, condition, 10, seed=2, known=first[:, :, 6:])
    assert torch.equal(second[:, :, :4], first[:, :, 6:]) and second.shape == (1, 4, 10)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("place", ["weights", "text"])
def test_scores_that_are_not_finite_are_refused_and_not_played(broken, temperature, place):
    decoder, condition = make_decoder(), make_text([4, 2])
    if place == "weights":
        with torch.no_grad():
            decoder.layers[1].fc1.weight[3, 5] = broken
    else:
        condition = Condition(condition.states + broken, condition.mask)
    with pytest.raises(ValueError, match="scores are no finite numbers: weights are broken"):
        write(decoder, condition, 3, temperature=temperature, top_k=5)


class Packed(torch.nn.Module):
    """Stands for a layer that keeps its numbers in a form of its own: it has no `weight` to ask."""

    def __init__(self, layer: torch.nn.Linear):
        super().__init__()
        self.packed = (layer.weight.detach().clone(),)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states @ self.packed[0].T


def test_packed_layers_generate():
    decoder, condition = make_decoder(), make_text([4, 2])
    expected = write(decoder, condition, 5, temperature=0.0)
    for k, head in enumerate(decoder.lm_heads):
        decoder.lm_heads[k] = Packed(head)
    for layer in decoder.layers:
        layer.fc1, layer.fc2 = Packed(layer.fc1), Packed(layer.fc2)
    assert (decoder.dtype, decoder.device) == (torch.float32, torch.device("cpu"))
    assert torch.equal(write(decoder, condition, 5, temperature=0.0), expected)


def test_another_default_device_changes_nothing():
    decoder, condition = make_decoder(), make_text([4, 2])
    expected = write(decoder, condition, 5)
    with torch.device("meta"):
        assert torch.equal(write(decoder, condition, 5), expected)


def write_changing(decoder, before: Condition, after: Condition, at: int, frames: int, **settings) -> torch.Tensor:
    """Codes that are told other words once `at` frames are complete, which is at step `at` + 3."""
    told, pieces = ChangingCondition(before), []
    for piece in iterate_codes(decoder, told, frames, DELAY, SamplingSettings(**{"top_k": 0} | settings), seed=0):
        pieces.append(piece)
        if len(pieces) == at:
            told.now = after
    return torch.cat(pieces, dim=2)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_other_words_count_from_the_next_step_on(guidance_scale):
    """One layer makes nothing of the words that stays: each token is the best that the words of its step score."""
    decoder = make_decoder(dataclasses.replace(CONFIG, num_layers=1))
    before, after = make_text([3]), make_text([2, 5])
    after = Condition(after.states[1:], after.mask[1:])
    codes = write_changing(decoder, before, after, 4, 10, temperature=0.0, guidance_scale=guidance_scale)
    columns = DELAY.interleave(codes, CONFIG.special_token)
    best = []
    for words, against in ((before, before.null()), (after, before)):  # away from the words before, not from none
        null = decoder(columns[:, :, :-1], against)
        best.append((null + guidance_scale * (decoder(columns[:, :, :-1], words) - null)).argmax(-1))
    first_changed = 4 + 4  # four frames are complete at step 7
    expected = torch.cat([best[0][:, :, : first_changed - 1], best[1][:, :, first_changed - 1 :]], dim=2)
    valid = DELAY.mask(10)[:, 1:]
    assert torch.equal(columns[:, :, 1:][:, valid], expected[:, valid])
    assert not torch.equal(best[0][:, valid], best[1][:, valid]), "the words make no difference"


def test_guidance_goes_away_from_the_words_before_for_a_second_and_then_from_none(monkeypatch):
    monkeypatch.setattr("musicgen_edu.conditioning.FAREWELL", 2)
    before, after = make_text([3]), make_text([5])
    told = ChangingCondition(before)
    assert told.at_next_step() is before
    told.now = after
    seen = [told.at_next_step() for _ in range(4)]
    assert [each.beside is None for each in seen] == [False, False, True, True]
    assert seen[0] is seen[1] and seen[2] is seen[3], "keys and values are computed anew only where words change"
    states, mask = seen[0].with_null().states, seen[0].with_null().mask
    assert torch.equal(states[0], after.states[0]) and mask.sum(dim=1).tolist() == [5, 3]
    assert torch.equal(states[1, :3], before.states[0]) and not states[1, 3:].any()
    assert torch.equal(seen[2].with_null().states[1], torch.zeros_like(after.states[0]))
    told.now = make_text([4])  # and before the first step nothing has been said
    unsaid = ChangingCondition(before)
    unsaid.now = after
    assert unsaid.at_next_step().beside is None and told.at_next_step().beside.mask.shape[1] == 5


def test_changed_words_leave_what_was_written_and_the_same_words_change_nothing():
    decoder, before, after = make_decoder(), make_text([3]), make_text([5])
    plain = write(decoder, before, 10)
    changed = write_changing(decoder, before, after, 4, 10)
    at_steps = [DELAY.interleave(codes, CONFIG.special_token) for codes in (plain, changed)]
    assert torch.equal(at_steps[0][:, :, :8], at_steps[1][:, :, :8]) and not torch.equal(plain, changed)
    assert torch.equal(write_changing(decoder, before, make_text([3]), 4, 10), plain)


def test_words_that_cannot_change_are_refused():
    told = ChangingCondition(make_text([3]))
    with pytest.raises(ValueError, match="for 2 clips, and 1 are written"):
        told.now = make_text([3, 4])
    prefix = torch.zeros(1, 2, CONFIG.hidden_size)
    with pytest.raises(ValueError, match="reads its words before the first code: they cannot change"):
        ChangingCondition(dataclasses.replace(told.now, prefix=prefix, null_prefix=prefix))
