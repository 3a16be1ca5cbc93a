"""Room 05: the patterns against tables written out by hand and against coordinate lists in audiocraft's order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen_edu.patterns import PATTERNS, create_pattern

names = st.sampled_from(sorted(PATTERNS))
sizes = {"codebooks": st.integers(1, 9), "frames": st.integers(1, 40)}

# Reference layouts: for every step after the first, the (frame, codebook) cells that hold a code.
LAYOUTS = {
    "delay": lambda K, T: [[(s - k, k) for k in range(K) if 0 <= s - k < T] for s in range(T + K - 1)],
    "parallel": lambda K, T: [[(t, k) for k in range(K)] for t in range(T)],
    "partial_delay": lambda K, T: [
        [(s - min(k, 1), k) for k in range(K) if 0 <= s - min(k, 1) < T] for s in range(T + min(K - 1, 1))
    ],
    "flatten": lambda K, T: [[(t, k)] for t in range(T) for k in range(K)],
    "partial_flatten": lambda K, T: [
        cells for t in range(T) for cells in ([(t, 0)], [(t, k) for k in range(1, K)]) if cells
    ],
    "coarse_first": lambda K, T: (
        [[(t, 0)] for t in range(T)] + ([[(t, k) for k in range(1, K)] for t in range(T)] if K > 1 else [])
    ),
    "musiclm": lambda K, T: [
        [(t, k)] for first in range(0, K, 2) for t in range(T) for k in range(first, min(first + 2, K))
    ],
}


def ascending_codes(codebooks: int, frames: int) -> torch.Tensor:
    """Codes 1, 2, 3, … in every codebook, so that 0 can be the special token."""
    return torch.arange(1, frames + 1).expand(1, codebooks, frames)


@pytest.mark.parametrize(
    ("name", "codebooks", "frames", "expected"),
    [
        ("delay", 4, 4, ["01234000", "00123400", "00012340", "00001234"]),
        ("parallel", 2, 3, ["0123", "0123"]),
        ("partial_delay", 4, 3, ["01230", "00123", "00123", "00123"]),
        ("flatten", 3, 4, ["0100200300400", "0010020030040", "0001002003004"]),
        ("partial_flatten", 3, 4, ["010203040", "001020304", "001020304"]),
        ("coarse_first", 3, 3, ["0123000", "0000123", "0000123"]),
        ("musiclm", 4, 2, ["010200000", "001020000", "000001020", "000000102"]),
        ("musiclm", 3, 2, ["0102000", "0010200", "0000012"]),
    ],
)
def test_written_out_tables(name, codebooks, frames, expected):
    sequence = create_pattern(name, codebooks).interleave(ascending_codes(codebooks, frames), special_token=0)
    assert ["".join(map(str, row)) for row in sequence[0].tolist()] == expected


def test_stereo_delays():
    pattern = create_pattern("delay", 8, delays=[0, 0, 1, 1, 2, 2, 3, 3])
    sequence = pattern.interleave(ascending_codes(8, 4), special_token=0)
    assert torch.equal(sequence[:, 0::2], sequence[:, 1::2])
    assert torch.equal(sequence[:, 0::2], create_pattern("delay", 4).interleave(ascending_codes(4, 4), 0))


@settings(max_examples=300, deadline=None)
@given(name=names, **sizes)
def test_frame_index_is_the_reference_layout(name, codebooks, frames):
    layout = [[]] + LAYOUTS[name](codebooks, frames)
    expected = torch.full((codebooks, len(layout)), -1)
    for step, cells in enumerate(layout):
        for frame, codebook in cells:
            expected[codebook, step] = frame
    pattern = create_pattern(name, codebooks)
    assert torch.equal(pattern.frame_index(frames), expected)
    assert torch.equal(pattern.mask(frames), expected >= 0)
    assert pattern.steps(frames) == len(layout)


@settings(max_examples=300, deadline=None)
@given(name=names, batch=st.integers(1, 3), seed=st.integers(0, 1000), **sizes)
def test_deinterleave_undoes_interleave(name, batch, codebooks, frames, seed):
    codes = torch.randint(50, (batch, codebooks, frames), generator=torch.Generator().manual_seed(seed))
    pattern = create_pattern(name, codebooks)
    sequence = pattern.interleave(codes, special_token=50)
    assert torch.equal(pattern.deinterleave(sequence), codes)
    assert torch.equal(pattern.deinterleave(sequence, frames), codes)
    assert torch.equal((sequence == 50).any(0), ~pattern.mask(frames)), "special token in a valid cell or the reverse"


@settings(max_examples=200, deadline=None)
@given(name=names, data=st.data(), **sizes)
def test_any_ascending_delays_fit(name, data, codebooks, frames):
    numbers = st.lists(st.integers(0, 5), min_size=codebooks, max_size=codebooks)
    pattern = create_pattern(name, codebooks, delays=sorted(data.draw(numbers)))
    codes = ascending_codes(codebooks, frames)
    sequence = pattern.interleave(codes, special_token=0)
    assert torch.equal(pattern.deinterleave(sequence), codes)
    assert pattern.mask(frames).sum() == codebooks * frames and not pattern.mask(frames)[:, 0].any()


@settings(max_examples=200, deadline=None)
@given(name=names, **sizes)
def test_logits_deinterleave_like_their_tokens(name, codebooks, frames):
    """One-hot logits on steps 0 … S − 2, each predicting the next step, come back as the codes themselves."""
    pattern, codes = create_pattern(name, codebooks), ascending_codes(codebooks, frames)
    sequence = pattern.interleave(codes, special_token=0)
    logits = torch.nn.functional.one_hot(sequence[:, :, 1:], frames + 1).float()
    assert torch.equal(pattern.deinterleave(logits, first_step=1).argmax(-1), codes)
    masked = logits[:, pattern.mask(frames)[:, 1:]]  # what a loss over valid cells sees
    assert torch.equal(masked.argmax(-1), sequence[:, pattern.mask(frames)])


def test_tables_made_while_generating_serve_training():
    pattern = create_pattern("delay", 3)
    with torch.inference_mode():
        pattern.steps(17)
    logits = torch.randn(1, 3, pattern.steps(17), 5, requires_grad=True)
    pattern.deinterleave(logits).sum().backward()
    assert logits.grad.sum() == 3 * 17 * 5


def test_the_cached_table_cannot_be_spoilt():
    pattern = create_pattern("delay", 4)
    pattern.frame_index(4).fill_(7)
    pattern.step_index(4).fill_(7)
    assert pattern.frame_index(4).max() == 3 and pattern.step_index(4).max() == 7
    assert torch.equal(pattern.step_index(4)[:, 0], torch.tensor([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("delayed", 4), "no codebook pattern 'delayed'; choose one of delay, parallel"),
        (("delay", 0), "codebooks must be a whole number from 1 to 1,000, not 0"),
        (("delay", 2, [0]), "delays must be 2 ascending whole numbers"),
        (("delay", 2, [1, 0]), "delays must be 2 ascending whole numbers"),
        (("delay", 2, [-1, 0]), "delays must be 2 ascending whole numbers"),
    ],
)
def test_bad_patterns_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_pattern(*arguments)


@pytest.mark.parametrize("odd", [math.nan, math.inf, True, 1.5, "1", None, [1], 10**400, np.float32(1)])
def test_what_is_no_whole_number_lays_out_nothing(odd, unchecked_annotations):
    for arguments in (("delay", odd), ("delay", 2, [0, odd]), ("delay", 2, [odd, 5])):
        with pytest.raises((TypeError, ValueError), match="^(codebooks|delays) must be"):
            create_pattern(*arguments)
    with pytest.raises(ValueError, match="no codebook pattern"):
        create_pattern(odd, 2)
    assert create_pattern("delay", np.int64(2), np.array([0, 1])).delays == (0, 1)


@pytest.mark.parametrize("frames", [0, -3])
def test_bad_frames_are_refused(frames):
    with pytest.raises(ValueError, match="frames must be a whole number of at least 1"):
        create_pattern("delay", 4).frame_index(frames)


def test_sizes_that_do_not_fit_are_refused():
    pattern = create_pattern("flatten", 4)
    with pytest.raises(ValueError, match="is for 4 codebooks; got 3"):
        pattern.interleave(ascending_codes(3, 5), special_token=0)
    with pytest.raises(ValueError, match="7 steps are no whole number of frames .*5 steps for 1 frame, 4 more"):
        pattern.deinterleave(torch.zeros(1, 4, 7))
    with pytest.raises(ValueError, match="3 frames need 13 steps; the sequence has 9"):
        pattern.deinterleave(torch.zeros(1, 4, 9), frames=3)
