"""Codebooks by ear: the clips and errors of each number of codebooks, the picture of them, and the widget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from musicgen_edu.audio import Audio
from musicgen_edu.codec import Codec
from musicgen_edu.config import CodecConfig
from musicgen_edu.inspection.codebooks import draw_codebooks, explore_codebooks, rebuild_by_codebooks
from musicgen_edu.listening.metrics import si_sdr
from musicgen_edu.spectrogram import mel_distance
from musicgen_edu.training.codec_start import start_as_lapped_transform, start_codebooks

CONFIG = CodecConfig(num_filters=10, hidden_size=32, codebook_size=16)


def clip(seed: int, samples: int = 8_000, channels: int = 1, rate: int = 16_000) -> Audio:
    time = torch.arange(samples) / rate
    pitches = 200.0 + 40 * torch.arange(seed + 1, seed + 1 + channels)
    tones = 0.3 * torch.sin(2 * torch.pi * pitches[:, None] * time) * torch.exp(-3 * (time % 0.25))
    return Audio(tones[None], rate)


@pytest.fixture(scope="module")
def codec() -> Codec:
    """A small codec that lets sound through, with codebooks fitted to three clips."""
    torch.manual_seed(0)
    codec = Codec(CONFIG).eval()
    waveforms = torch.cat([clip(seed).waveform for seed in range(3)])
    start_as_lapped_transform(codec, waveforms)
    with torch.no_grad():
        start_codebooks(codec, codec.encoder(waveforms).transpose(1, 2).flatten(0, 1))
    return codec


def test_each_count_is_what_the_codec_decodes_and_its_errors_are_those_of_the_metrics(codec):
    audio = clip(1, samples=7_900)  # no whole number of frames
    codes = codec.encode(audio.waveform)
    rebuilt = rebuild_by_codebooks(codec, audio)
    assert [part.codebooks for part in rebuilt] == [1, 2, 3, 4]
    for part in rebuilt:
        expected = codec.decode(codes[:, : part.codebooks])[..., :7_900]
        assert torch.equal(part.waveform, expected)
        assert part.si_sdr == si_sdr(expected[:, 0], audio.waveform[:, 0]).item()
        assert part.mel_distance == mel_distance(expected, audio.waveform, 16_000).item()


def test_more_codebooks_come_nearer(codec):
    ratios = [part.si_sdr for part in rebuild_by_codebooks(codec, clip(0))]
    assert ratios[0] + 1 < ratios[-1] and ratios == sorted(ratios), ratios


def test_every_channel_counts_in_both_errors():
    torch.manual_seed(0)
    stereo = Codec(replace(CONFIG, channels=2)).eval()
    audio = clip(0, channels=2)
    last = rebuild_by_codebooks(stereo, audio)[-1]
    assert last.waveform.shape == (1, 2, 8_000)
    sides = [mel_distance(last.waveform[:, [side]], audio.waveform[:, [side]], 16_000).item() for side in (0, 1)]
    assert last.mel_distance == pytest.approx(sum(sides) / 2, rel=1e-5)
    assert last.si_sdr == si_sdr(last.waveform.flatten(1), audio.waveform.flatten(1)).item()


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (clip(0, rate=32_000), "32000 samples a second and the codec works at 16000"),
        (clip(0, channels=2), "2 channels and the codec 1"),
        (clip(0, samples=2_047), "2047 samples: give at least 2048"),
        (Audio(torch.zeros(2, 1, 8_000), 16_000), "a batch of 2"),
    ],
)
def test_clips_that_do_not_fit_are_refused_in_one_sentence(codec, audio, message):
    with pytest.raises(ValueError, match=message):
        rebuild_by_codebooks(codec, audio)


def test_the_shortest_clip_and_a_silent_one_have_finite_errors(codec):
    for audio in (clip(0, samples=2_048), Audio(torch.zeros(1, 1, 4_000), 16_000)):
        errors = [(part.si_sdr, part.mel_distance) for part in rebuild_by_codebooks(codec, audio)]
        assert torch.tensor(errors).isfinite().all()


def test_the_picture_tells_both_errors_and_marks_the_chosen_count(codec):
    rebuilt = rebuild_by_codebooks(codec, clip(2))
    plain, marked = draw_codebooks(rebuilt), draw_codebooks(rebuilt, chosen=3)
    assert plain.media_type == "image/png" and plain.content != marked.content
    assert all(f"{part.si_sdr:.1f}" in plain.alt and f"{part.mel_distance:.1f}" in plain.alt for part in rebuilt)
    assert "hatched" not in plain.alt and "The bars of 3 codebooks are hatched." in marked.alt
    assert "The bars of 1 codebook are hatched." in draw_codebooks(rebuilt, chosen=1).alt


@pytest.fixture
def view(codec):
    clips = {"one": clip(0), "<two>": clip(1), "too fast": clip(2, rate=32_000)}
    controls, bars, buttons, sound = explore_codebooks(codec, clips).children
    return *controls.children, buttons.children[0], bars, sound


def test_the_slider_and_the_clip_redraw_the_bars(view):
    choice, codebooks, _, bars, _ = view
    seen = [bars.value]
    codebooks.value = 3
    seen.append(bars.value)
    choice.value = "<two>"
    seen.append(bars.value)
    assert len(set(seen)) == 3
    assert "The bars of 1 codebook are hatched" in seen[0] and "The bars of 3 codebooks are hatched" in seen[2]


def test_the_button_makes_two_players_and_earlier_ones_stay(view):
    choice, codebooks, button, _, sound = view
    assert sound.value == "", "no sound is made before the button is pressed"
    choice.value, codebooks.value = "<two>", 2
    button.click()
    assert sound.value.count("<audio ") == 2
    assert 'aria-label="&lt;two&gt;, the original, 0.5 seconds, played ' in sound.value
    assert 'aria-label="&lt;two&gt;, 2 codebooks of 4, 0.5 seconds, played ' in sound.value
    codebooks.value = 4
    button.click()
    assert sound.value.count("<audio ") == 4 and sound.value.count("autoplay") == 1
    assert sound.value.index("4 codebooks of 4") < sound.value.index("2 codebooks of 4")


def test_a_clip_of_another_rate_is_answered_in_red_and_the_next_one_works(view):
    choice, _, button, bars, sound = view
    choice.value = "too fast"
    button.click()
    assert "32000 samples a second" in bars.value and 'role="alert"' in bars.value and sound.value == ""
    choice.value = "one"
    button.click()
    assert "<img" in bars.value and "<audio" in sound.value


def test_every_control_has_a_label_and_a_tooltip(view):
    assert all(control.description and control.tooltip for control in view[:3])
