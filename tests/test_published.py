"""Room 13's published definitions of tempo, key and chord, against sounds whose answers are known."""

from __future__ import annotations

import random

import pytest
import torch

from musicgen_edu.composer.compose import OTHER_HABITS, OWN_HABITS, SCALES, compose
from musicgen_edu.composer.render import SAMPLE_RATE
from musicgen_edu.composer.score import Attributes
from musicgen_edu.listening.clips import Clips, in_a_room
from musicgen_edu.listening.judges import TASKS, confusion, right_answers, train_judge
from musicgen_edu.listening.published import (
    chord_figures,
    estimate_key,
    estimate_tempo,
    tempo_fits,
    track_chords,
)

FLUTE = Attributes("flute", "slow", "major", "soft", "melody", False)


def tones(pitch_classes: list[int], seconds: float = 1.0) -> torch.Tensor:
    """Sines in the octave above middle C, sounding together."""
    time = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(0.1 * torch.sin(2 * torch.pi * 261.63 * 2 ** (pitch / 12) * time) for pitch in pitch_classes)


def triad(root: int, mode: str) -> list[int]:
    return [root, (root + (4 if mode == "major" else 3)) % 12, (root + 7) % 12]


@pytest.mark.parametrize("tempo", [75, 100, 120, 150])
def test_tempo_of_clicks(tempo):
    clicks = torch.zeros(1, 8 * SAMPLE_RATE)
    clicks[:, :: round(60 / tempo * SAMPLE_RATE)] = 1
    assert estimate_tempo(clicks, SAMPLE_RATE).item() == pytest.approx(tempo, rel=0.03)


def test_a_tempo_fits_its_word_within_four_percent_and_its_multiples_only_if_asked():
    estimates = torch.tensor([62.5, 66.0, 125.0, 150.0, 200.0, 110.0])
    words = ["slow", "fast", "slow", "fast", "medium", "fast"]
    assert tempo_fits(estimates, words, octaves=False).tolist() == [True, False, False, True, False, False]
    assert tempo_fits(estimates, words, octaves=True).tolist() == [True, False, True, True, True, False]


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", [0, 3, 10])
def test_key_of_a_cadence(tonic, mode):
    degrees = (0, 3, 4, 0)
    chords = [[(tonic + SCALES[mode][(degree + step) % 7]) % 12 for step in (0, 2, 4)] for degree in degrees]
    tonics, modes = estimate_key(torch.cat([tones(chord) for chord in chords])[None], SAMPLE_RATE)
    assert (tonics.item(), modes[0]) == (tonic, mode)


def test_chords_are_tracked_and_music_that_sits_on_its_tonic_is_told():
    roots = ((2, "major"), (7, "major"), (9, "minor"), (2, "major"))
    moving = torch.cat([tones(triad(root, mode)) for root, mode in roots])
    chords = track_chords(moving[None], SAMPLE_RATE)
    assert chords.tolist() == [[2, 2, 7, 7, 21, 21, 2, 2]]
    still = chord_figures(track_chords(tones(triad(2, "major"), 4.0)[None], SAMPLE_RATE))
    assert still == {"roots": 1.0, "changes a second": 0.0, "share of the commonest root": 1.0}
    figures = chord_figures(chords)
    assert figures["roots"] == 3 and figures["share of the commonest root"] == 0.5
    assert figures["changes a second"] == pytest.approx(3 / 7 / 0.5)


def test_confusion_counts_each_asked_clip_once():
    features = {"timbre": torch.randn(30, 6)}
    attributes = [Attributes("flute", "slow", "major", "soft", "melody", index % 2 == 0) for index in range(30)]
    named = [frozenset({"drums"}) if index < 20 else frozenset() for index in range(30)]
    judge = train_judge(TASKS["drums"], features, attributes, epochs=2)
    counts = confusion(judge, features, attributes, named)
    assert counts.sum() == 20 and counts.sum(dim=1).tolist() == [10, 10]
    assert right_answers(judge, features, attributes, named) == (int(counts.diagonal().sum()), 20)


def test_a_room_adds_echoes_behind_the_sound_and_as_much_as_it_says():
    burst = torch.zeros(4, 2 * SAMPLE_RATE)
    burst[:, 1000:1400] = 0.5
    clips = Clips(burst, [FLUTE] * 4, torch.zeros(4, 4, 1, dtype=torch.long))
    wet = in_a_room(clips, seed=1).waveforms
    assert torch.equal(wet, in_a_room(clips, seed=1).waveforms) and clips.waveforms is burst
    assert (wet[:, :1000]).abs().max() < 1e-4  # nothing sounds before its cause
    below = 20 * torch.log10(burst.norm(dim=1) / (wet - burst).norm(dim=1))
    assert ((below > 5.9) & (below < 20.1)).all()


def test_another_composer_plays_in_every_key():
    sad = Attributes("piano", "fast", "minor", "loud", "chords", False)
    tonics = [
        {compose(sad, 50, random.Random(seed), habits).tonic for seed in range(120)}
        for habits in (OWN_HABITS, OTHER_HABITS)
    ]
    assert tonics == [{0, 5}, set(range(12))]
