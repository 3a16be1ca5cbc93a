"""Room 07: the sampling functions against transformers' warpers, against probabilities, and against bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from musicgen_edu.sampling import (
    apply_guidance,
    apply_temperature,
    create_generators,
    keep_top_k,
    keep_top_p,
    sample,
)


def random_logits(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


seeds = st.integers(0, 10_000)


@settings(max_examples=200, deadline=None)
@given(seed=seeds, temperature=st.floats(0.01, 10))
def test_temperature_is_that_of_transformers(seed, temperature):
    logits = random_logits(seed, 4, 30)
    assert torch.allclose(apply_temperature(logits, temperature), TemperatureLogitsWarper(temperature)(None, logits))


@settings(max_examples=200, deadline=None)
@given(seed=seeds, top_k=st.integers(1, 30))
def test_top_k_is_that_of_transformers(seed, top_k):
    logits = random_logits(seed, 4, 30)
    assert torch.equal(keep_top_k(logits, top_k), TopKLogitsWarper(top_k)(None, logits))
    assert torch.equal(keep_top_k(logits, 0), logits)


@settings(max_examples=200, deadline=None)
@given(seed=seeds, top_p=st.floats(0.01, 1))
def test_top_p_is_that_of_transformers(seed, top_p):
    logits = random_logits(seed, 4, 30)
    ours, theirs = keep_top_p(logits, top_p), TopPLogitsWarper(top_p)(None, logits)
    mass = logits.softmax(-1)  # the two sum from opposite ends: they may differ on a token at the edge, by rounding
    on_the_edge = (mass * (ours.isfinite() | theirs.isfinite())).sum(-1) - top_p
    same = (ours == theirs).all(-1)
    assert (same | (on_the_edge.abs() < mass.amax(-1) + 1e-5)).all() and same.float().mean() >= 0.5


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    for top_p, kept in [(0.4, 1), (0.6, 2), (0.8, 3), (0.95, 4), (1, 4), (1e-9, 1)]:
        assert keep_top_p(logits, top_p).isfinite().sum() == kept


def test_guidance():
    conditional, null = random_logits(1, 2, 4, 9), random_logits(2, 2, 4, 9)
    assert torch.allclose(apply_guidance(conditional, null, 1), conditional, atol=1e-6)
    assert torch.equal(apply_guidance(conditional, null, 0), null)
    assert torch.allclose(apply_guidance(conditional, null, 3), 3 * conditional - 2 * null, atol=1e-5)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-300, 1e-9])
def test_temperature_zero_is_greedy(temperature):
    logits = random_logits(3, 5, 4, 20)
    tokens = sample(apply_temperature(logits, temperature), create_generators(0, 5))
    assert torch.equal(tokens, logits.argmax(-1))
    ties = torch.zeros(1, 2, 6)
    assert sample(apply_temperature(ties, temperature), create_generators(0, 1)).eq(0).all(), "the first of equals"


def test_sample_draws_with_the_softmax_probabilities():
    probability = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
    logits = probability.log().expand(1, 20_000, 5)  # as many codebooks as draws
    tokens = sample(logits, create_generators(4, 1))
    measured = torch.bincount(tokens[0], minlength=5) / 20_000
    assert torch.allclose(measured, probability, atol=0.015)  # 4 standard deviations
    assert measured[4] == 0


@settings(max_examples=200, deadline=None)
@given(seed=seeds, neighbours=st.lists(seeds, min_size=1, max_size=4), place=st.integers(0, 4))
def test_a_row_depends_on_its_own_generator_alone(seed, neighbours, place):
    place = min(place, len(neighbours))
    row_seeds = [*neighbours[:place], seed, *neighbours[place:]]
    batch, alone = create_generators(row_seeds, len(row_seeds)), create_generators(seed, 1)
    for step in range(3):
        logits = random_logits(step, len(row_seeds), 4, 30)
        assert torch.equal(sample(logits, batch)[place], sample(logits[place : place + 1], alone)[0])


def test_every_draw_takes_as_many_random_numbers():
    flat, peaked = create_generators([7, 7], 2)
    logits = random_logits(5, 1, 4, 30)
    sample(logits, [flat])
    sample(apply_temperature(logits, 0), [peaked])
    assert torch.equal(flat.get_state(), peaked.get_state())


def test_seeds():
    logits = torch.zeros(3, 4, 1000)
    same = sample(logits, create_generators(9, 3))
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    own = sample(logits, create_generators([9, 8, 9], 3))
    assert torch.equal(own[0], same[0]) and torch.equal(own[2], same[0]) and not torch.equal(own[0], own[1])
    fresh = sample(logits, create_generators(None, 3))
    assert not torch.equal(fresh[0], fresh[1])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    sample(torch.zeros(2, 4, 10), create_generators(1, 2))
    sample(torch.zeros(2, 4, 10), create_generators(None, 2))
    assert torch.equal(before, torch.get_rng_state())


LOGITS = torch.zeros(2, 4, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: apply_temperature(LOGITS, -0.1), r"temperature must be 0 \(greedy\) or a positive number, not -0.1"),
        (lambda: apply_temperature(LOGITS, math.nan), "temperature must be .* not nan"),
        (lambda: apply_temperature(LOGITS, math.inf), "temperature must be .* not inf"),
        (lambda: apply_temperature(LOGITS, np.float32("inf")), "temperature must be .* not .*inf"),
        (lambda: apply_guidance(LOGITS, LOGITS, np.float16("inf")), "guidance_scale must be .* not .*inf"),
        (lambda: keep_top_p(LOGITS, np.float32("nan")), "top_p must be .* not .*nan"),
        (
            lambda: keep_top_k(LOGITS, 11),
            r"top_k must be a whole number from 0 \(all\) to the codebook's 10 entries, not 11",
        ),
        (lambda: keep_top_k(LOGITS, -1), "top_k must be a whole number from 0"),
        (lambda: keep_top_p(LOGITS, 0.0), "top_p must be a number above 0 and at most 1, not 0.0"),
        (lambda: keep_top_p(LOGITS, 1.1), "top_p must be a number above 0"),
        (lambda: keep_top_p(LOGITS, math.nan), "top_p must be a number above 0"),
        (lambda: apply_guidance(LOGITS, LOGITS, -1.0), "guidance_scale must be a number of at least 0"),
        (lambda: apply_guidance(LOGITS, LOGITS, math.nan), "guidance_scale must be a number of at least 0"),
        (lambda: sample(LOGITS, create_generators(0, 3)), "one generator a row: 2 rows, 3 generators"),
        (lambda: sample(LOGITS * math.nan, create_generators(0, 2)), "scores are no finite numbers"),
        (lambda: sample(LOGITS - math.inf, create_generators(0, 2)), "scores are no finite numbers"),
        (lambda: create_generators([1, 2, 3], 2), "3 seeds for 2 prompts"),
        (lambda: create_generators(-1, 2), "A seed must be a whole number from 0 to 9223372036854775807, not -1"),
        (lambda: create_generators([1, 2**63], 2), "A seed must be a whole number from 0 to"),
    ],
)
def test_bad_settings_are_refused(unchecked_annotations, call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("seed", [torch.tensor(3), 3.0, "3", {3}])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(TypeError, match="A seed must be a whole number from 0 to"):
        create_generators(seed, 1)
