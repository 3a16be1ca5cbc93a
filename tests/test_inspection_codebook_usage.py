"""Codebook usage: counts, perplexity and dead entries, the picture of them, and the widget."""

from __future__ import annotations

import pytest
import torch
from encodec.quantization.core_vq import EuclideanCodebook

from musicgen_edu.audio import Audio
from musicgen_edu.codec import Codec
from musicgen_edu.config import CodecConfig
from musicgen_edu.inspection.codebook_usage import ALL_CLIPS, draw_usage, explore_codebook_usage, measure_usage
from musicgen_edu.training.codec_start import start_as_lapped_transform, start_codebooks

CONFIG = CodecConfig(num_filters=10, hidden_size=16, codebook_size=8, num_codebooks=2)


def clip(seed: int, rate: int = 16_000) -> Audio:
    time = torch.arange(4_800) / rate
    return Audio(0.3 * torch.sin(2 * torch.pi * (200.0 + 90 * seed) * time)[None, None] * time.flip(0), rate)


def codec(collapsed: bool) -> Codec:
    torch.manual_seed(0)
    codec = Codec(CONFIG).eval()
    waveforms = torch.cat([clip(seed).waveform for seed in range(3)])
    start_as_lapped_transform(codec, waveforms)
    with torch.no_grad():
        start_codebooks(codec, codec.encoder(waveforms).transpose(1, 2).flatten(0, 1))
        if collapsed:
            for layer in codec.quantizer.vq.layers:
                layer._codebook.embed[1:] = 1e3  # far from every latent
    return codec


def test_counts_perplexity_and_dead_entries_of_codes_that_are_known():
    even, one, two = torch.arange(4).repeat(3), torch.full((12,), 2), torch.tensor([1, 3] * 6)
    usages = measure_usage(torch.stack([even, one, two])[None], 4)
    assert [usage.counts.tolist() for usage in usages] == [[3, 3, 3, 3], [0, 0, 12, 0], [0, 6, 0, 6]]
    assert [usage.perplexity for usage in usages] == pytest.approx([4.0, 1.0, 2.0])
    assert [usage.dead for usage in usages] == [0, 3, 2]


def test_perplexity_is_that_of_the_definition():
    counts = torch.tensor([5, 1, 0, 2])
    codes = torch.repeat_interleave(torch.arange(4), counts)[None, None]
    shares = counts[counts > 0] / 8
    expected = float(torch.exp(-(shares * shares.log()).sum()))
    assert measure_usage(codes, 4)[0].perplexity == pytest.approx(expected, rel=1e-6)


def test_all_clips_of_a_batch_count_and_small_integers_do():
    codes = torch.tensor([[[0, 1]], [[1, 1]]], dtype=torch.int16)
    assert measure_usage(codes, 2)[0].counts.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 2, 0, dtype=torch.long), "no codes to count"),
        (torch.tensor([[[0, 8]]]), "0…7, not in 0…8"),
        (torch.tensor([[[-1, 3]]]), "0…7, not in -1…3"),
    ],
)
def test_codes_that_cannot_be_counted_are_refused_in_one_sentence(codes, message):
    with pytest.raises(ValueError, match=message):
        measure_usage(codes, 8)


def test_encodecs_own_update_collapses_from_an_unprepared_start():
    """What room 09 shows: its counts begin at zero, so that unused entries are flung away at the first update."""
    codebook = EuclideanCodebook(dim=4, codebook_size=16, kmeans_init=False).train()
    vectors = torch.randn(64, 4)
    for _ in range(3):
        codebook(vectors)
    assert measure_usage(codebook.quantize(vectors)[None, None], 16)[0].dead >= 12


def test_the_picture_tells_the_figures_and_marks_the_chosen_codebook():
    usages = measure_usage(torch.tensor([[[0, 1, 2, 2], [3, 3, 3, 3]]]), 4)
    plain, marked = draw_usage(usages), draw_usage(usages, chosen=2)
    assert plain.media_type == "image/png" and plain.content != marked.content
    assert "codebook 1: perplexity 2.8 of 4, 1 never used" in plain.alt
    assert "codebook 2: perplexity 1.0 of 4, 3 never used" in plain.alt


def test_one_codebook_has_a_picture_too():
    assert draw_usage(measure_usage(torch.zeros(1, 1, 3, dtype=torch.long), 4)).content


@pytest.fixture
def view():
    codecs = {"alive": codec(collapsed=False), "collapsed": codec(collapsed=True)}
    clips = {"one": clip(0), "two": clip(1), "too fast": clip(2, rate=32_000)}
    *controls, bars, buttons, sound = explore_codebook_usage(codecs, clips).children
    return *controls, buttons.children[0], bars, sound


def test_a_clip_of_another_rate_is_answered_in_red_and_the_next_one_works(view):
    _, choice, _, button, bars, sound = view
    assert choice.value == ALL_CLIPS and "takes 1 channel(s) at 16000" in bars.value and 'role="alert"' in bars.value
    choice.value = "too fast"
    button.click()
    assert 'role="alert"' in bars.value and not sound.value
    choice.value = "one"
    assert "<img" in bars.value and 'role="alert"' not in bars.value


def test_codec_clip_and_slider_redraw(view):
    which, choice, codebook, _, bars, _ = view
    seen = []
    for control, value in ((choice, "one"), (choice, "two"), (codebook, 2), (which, "collapsed")):
        control.value = value
        seen.append(bars.value)
    assert len(set(seen)) == 4
    assert "codebook 2 of collapsed: perplexity 1.0 of 8, 7 never used" in bars.value


def test_the_button_plays_and_earlier_clips_stay_to_be_compared(view):
    which, choice, _, button, _, sound = view
    choice.value = "one"
    assert sound.value == "", "no sound is made before the button is pressed"
    button.click()
    assert sound.value.count("<audio ") == 1 and 'aria-label="one, alive, 0.3 seconds, played ' in sound.value
    assert "<audio autoplay " in sound.value
    which.value = "collapsed"
    assert 'aria-label="one, alive' in sound.value
    button.click()
    new, old = sound.value.index('aria-label="one, collapsed'), sound.value.index('aria-label="one, alive')
    assert new < old and sound.value.count("autoplay") == 1 and sound.value.index("autoplay") < new


def test_every_control_has_a_label_and_a_tooltip(view):
    assert all(control.description and control.tooltip for control in view[:4])
