"""The composer: pieces, captions, sound."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musicgen_edu.composer import captions as language
from musicgen_edu.composer.captions import caption
from musicgen_edu.composer.compose import LEAD_IN, SCALES, TONICS, compose, triad
from musicgen_edu.composer.render import DEBIANS_SOUNDFONT, SAMPLES_PER_FRAME, Renderer
from musicgen_edu.composer.score import (
    ALL_ATTRIBUTES,
    FRAME_RATE,
    INSTRUMENTS,
    LOUDNESSES,
    RELEASE_FRAMES,
    Attributes,
    Note,
    Piece,
    draw_attributes,
    is_held_out,
)

# What the README promises that a prompt may say.
PROMPT_LANGUAGE = (
    "piano", "acoustic guitar", "electric guitar", "strings", "flute", "organ", "marimba", "music box", "trumpet",
    "synth", "slow", "medium", "fast", "happy", "cheerful", "major", "sad", "melancholic", "minor", "peaceful",
    "gentle", "soft", "energetic", "powerful", "loud", "melody", "arpeggio", "chords", "with drums", "without drums",
)  # fmt: skip
BEATS_A_MINUTE = {"slow": (62, 78), "medium": (98, 114), "fast": (140, 165)}


def random_piece(seed: int, frames: int = 500, **chosen) -> Piece:
    rng = random.Random(seed)
    attributes = rng.choice([a for a in ALL_ATTRIBUTES if all(getattr(a, name) == chosen[name] for name in chosen)])
    return compose(attributes, frames, rng)


PIECES = [compose(attributes, 500, random.Random(index)) for index, attributes in enumerate(ALL_ATTRIBUTES)]
CAPTIONS = [caption(draw_attributes(random.Random(seed)), random.Random(-seed)) for seed in range(5_000)]
HELD_OUT_CAPTIONS = [
    caption(draw_attributes(random.Random(seed), True), random.Random(-seed), held_out=True) for seed in range(2_000)
]


def voices(piece: Piece) -> list[Note]:
    return [note for note in piece.notes if note.instrument != "drums"]


def struck_together(piece: Piece) -> dict[int, set[int]]:
    """Onset → pitches, drums left out."""
    struck: dict[int, set[int]] = {}
    for note in voices(piece):
        struck.setdefault(note.start, set()).add(note.pitch)
    return struck


# Pieces


def test_the_same_seed_gives_the_same_piece_and_caption():
    for seed in range(20):
        first, second = random_piece(seed), random_piece(seed)
        assert first == second
        assert caption(first.attributes, random.Random(seed)) == caption(second.attributes, random.Random(seed))
    assert len({random_piece(seed).notes for seed in range(20)}) == 20


def test_one_combination_of_attributes_gives_many_pieces():
    attributes = ALL_ATTRIBUTES[0]
    assert len({compose(attributes, 500, random.Random(seed)).notes for seed in range(50)}) > 40


def test_everything_starts_on_the_grid_of_eighths():
    for piece in PIECES:
        assert piece.onsets[0] == LEAD_IN
        assert all((onset - LEAD_IN) % piece.eighth == 0 for onset in piece.onsets)


def test_tempo_lies_in_the_promised_range():
    for piece in PIECES:
        lowest, highest = BEATS_A_MINUTE[piece.attributes.tempo]
        assert lowest <= 60 * FRAME_RATE / (2 * piece.eighth) <= highest
        steps = [after - before for before, after in pairwise(sorted(struck_together(piece)))]
        assert min(steps) in [count * piece.eighth for count in (1, 2, 4)], "slow chords may last half a bar"


def test_a_struck_note_silences_the_one_before():
    for piece in PIECES:
        onsets = sorted(struck_together(piece))
        following = dict(zip(onsets, [*onsets[1:], piece.frames + 1], strict=True))
        assert all(note.frames >= 1 for note in piece.notes)
        assert all(
            note.start + note.frames + RELEASE_FRAMES <= following[note.start]
            for note in voices(piece)
            if following[note.start] <= piece.frames
        )
        assert len({(note.instrument, note.pitch, note.start) for note in piece.notes}) == len(piece.notes)


def test_the_music_fills_the_piece():
    for frames in (5, 50, 250, 1000):
        for seed in range(20):
            piece = random_piece(seed, frames)
            assert all(0 <= note.start and note.start + note.frames <= frames for note in voices(piece))
            assert frames - max(note.start for note in voices(piece)) <= 4 * piece.eighth


def test_pitches_belong_to_the_key():
    for piece in PIECES:
        scale = {(piece.tonic + step) % 12 for step in SCALES[piece.attributes.mode]}
        assert {note.pitch % 12 for note in voices(piece)} <= scale
        assert all(21 <= note.pitch <= 108 for note in voices(piece)), "outside of a piano's keys"


def test_a_triad_is_every_other_note_of_the_scale():
    assert triad(0, 9, "minor") == (9, 0, 4) and triad(6, 9, "minor") == (7, 11, 2)
    assert triad(4, 0, "major") == (7, 11, 2) and triad(4, 9, "minor") == (4, 7, 11)


def test_every_chord_has_the_mode_of_its_key():
    third = {"major": 4, "minor": 3}
    for piece in PIECES:
        if piece.attributes.texture == "chords":
            for pitches in struck_together(piece).values():
                classes = {pitch % 12 for pitch in pitches}
                roots = [root for root in classes if {root, (root + 7) % 12} <= classes]
                assert len(classes) == 3 and len(roots) == 1
                assert (roots[0] + third[piece.attributes.mode]) % 12 in classes


def test_chords_are_triads_of_the_key_and_the_first_is_the_tonic():
    for piece in PIECES:
        mode, tonic = piece.attributes.mode, piece.tonic
        struck = struck_together(piece)
        if piece.attributes.texture == "chords":
            triads = [set(triad(degree, tonic, mode)) for degree in range(7)]
            assert all({pitch % 12 for pitch in pitches} in triads for pitches in struck.values())
        assert {pitch % 12 for pitch in struck[LEAD_IN]} <= set(triad(0, tonic, mode))


def test_textures_differ_in_what_is_struck_together():
    for piece in PIECES:
        sizes = {len(pitches) for pitches in struck_together(piece).values()}  # a bass note may join
        assert sizes <= ({3, 4} if piece.attributes.texture == "chords" else {1, 2})
        if piece.attributes.texture == "arpeggio":
            steps = {after - before for before, after in pairwise(sorted(struck_together(piece)))}
            assert steps == {piece.eighth}


def test_drums_are_there_if_and_only_if_they_are_said():
    for piece in PIECES:
        assert any(note.instrument == "drums" for note in piece.notes) == piece.attributes.drums
        assert {note.instrument for note in piece.notes} <= {piece.attributes.instrument, "drums"}


def test_every_key_is_used_and_no_note_is_in_the_tonic_triads_of_both_modes():
    triads = {}
    for mode in SCALES:
        assert {piece.tonic for piece in PIECES if piece.attributes.mode == mode} == set(TONICS[mode])
        triads[mode] = {pitch_class for tonic in TONICS[mode] for pitch_class in triad(0, tonic, mode)}
    assert not triads["major"] & triads["minor"]


def test_bad_input_is_refused_in_a_sentence():
    for frames in (LEAD_IN, 0, -1):
        with pytest.raises(ValueError, match=f"more than {LEAD_IN} frames, and {frames} were asked for"):
            compose(ALL_ATTRIBUTES[0], frames, random.Random(0))
    with pytest.raises(ValueError, match="'kazoo' is not an attribute of a piece; choose one of piano, "):
        Attributes("kazoo", "slow", "major", "soft", "melody", False)
    with pytest.raises(FileNotFoundError, match="apt-get install fluidsynth fluid-soundfont-gm"):
        Renderer(Path("missing.sf2"))


def test_the_soundfont_may_lie_elsewhere(renderer, monkeypatch, tmp_path):
    moved = tmp_path / "moved.sf2"
    monkeypatch.setenv("MUSICGEN_EDU_SOUNDFONT", str(moved))
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(moved))}.*set MUSICGEN_EDU_SOUNDFONT to its path"):
        Renderer()
    moved.symlink_to(DEBIANS_SOUNDFONT)
    note = "piano", 60, 10, 80
    np.testing.assert_allclose(Renderer().note_samples(*note), renderer.note_samples(*note), atol=1e-3)


def test_articles_and_verbs_fit_the_noun():
    for template in (*language.TEMPLATES, *language.HELD_OUT_TEMPLATES):
        if "{a}" in template:
            one, several, uncountable = (
                language._fill(template, ["slow"], "piano", noun, ["that sounds sad"], random.Random(0))
                for noun in ("tune", "chords", "music")
            )
            assert "a" in one.split() and "some" not in one.split() and "sounds sad" in one
            assert "some" in several.split() and "a" not in several.split() and "that sound sad" in several
            assert ("that is slow" in one) == ("that are slow" in several)
            assert "some" in uncountable.split() and "a" not in uncountable.split() and "sounds sad" in uncountable


# What is held out


def test_held_out_combinations_never_come_in_training_and_are_a_tenth():
    held_out = {attributes for attributes in ALL_ATTRIBUTES if is_held_out(attributes)}
    assert len(ALL_ATTRIBUTES) == len(set(ALL_ATTRIBUTES)) == 720
    assert 0.08 < len(held_out) / len(ALL_ATTRIBUTES) < 0.12
    rng = random.Random(0)
    trained = {draw_attributes(rng) for _ in range(20_000)}
    assert trained == set(ALL_ATTRIBUTES) - held_out
    assert {draw_attributes(rng, held_out=True) for _ in range(3_000)} == held_out
    for name in ("instrument", "tempo", "mode", "loudness", "texture", "drums"):
        values = {getattr(attributes, name) for attributes in ALL_ATTRIBUTES}
        assert {getattr(attributes, name) for attributes in held_out} == values, f"every {name} is asked for"


def test_the_held_out_combinations_stay_what_they_are():
    """The same in every process and version: else a model trained today would be asked tomorrow for what it saw."""
    held_out = [attributes for attributes in ALL_ATTRIBUTES if is_held_out(attributes)]
    assert len(held_out) == 77
    assert held_out[0] == Attributes("piano", "slow", "major", "soft", "melody", True)
    assert held_out[-1] == Attributes("synth", "fast", "minor", "loud", "arpeggio", False)


# Captions


def said(text: str) -> str:
    return f" {re.sub(r'[^a-z]+', ' ', text.lower())} "


def test_every_word_of_the_prompt_language_occurs_often():
    for word in PROMPT_LANGUAGE:
        assert sum(said(word) in said(text) for text in CAPTIONS) >= 20, word


def test_captions_vary():
    assert len(set(CAPTIONS)) > 4_500
    attributes = ALL_ATTRIBUTES[0]
    assert len({caption(attributes, random.Random(seed)) for seed in range(200)}) > 150
    assert {2, 5, 10} <= {len(text.split()) for text in CAPTIONS}


def test_captions_are_tidy():
    for text in CAPTIONS + HELD_OUT_CAPTIONS:
        assert text == text.strip() and "  " not in text, text
        assert not re.search(r"[,:]$|^[,:]| [,:]|[,:]{2}|,(?! )|, [,:]|[{}]", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text
        assert not re.search(r"that is(?:,|$| played by| with| at| in )", text), text


def test_captions_say_nothing_wrong():
    """No word of another instrument, tempo, mode, loudness or texture, and drums only where there are some."""
    groups = {
        "instrument": language.INSTRUMENT_NAMES,
        "texture": language.TEXTURE_NOUNS,
        "tempo": {name: language.ADJECTIVES[name] + language.PHRASES[name] for name in ("slow", "medium", "fast")},
        "mode": {name: language.ADJECTIVES[name] + language.PHRASES[name] for name in ("major", "minor")},
        "loudness": {name: language.ADJECTIVES[name] + language.PHRASES[name] for name in ("soft", "loud")},
    }
    groups = {
        group: {value: [said(word) for word in words] for value, words in names.items()}
        for group, names in groups.items()
    }
    for seed in range(2_000):
        attributes = draw_attributes(random.Random(seed))
        text = said(caption(attributes, random.Random(seed)))
        for group, names in groups.items():
            true = names.get(getattr(attributes, group), ())
            for value in set(names) - {getattr(attributes, group)}:
                for wrong in names[value]:
                    within_true = any(wrong in right for right in true)
                    assert wrong not in text or within_true, (text, wrong, attributes)
        mentions = re.search(r"drum|percussion", text)
        denies = re.search(r"(without|no) (drums|percussion)", text)
        assert not mentions or bool(denies) != attributes.drums, (text, attributes)


def test_drums_are_nearly_always_said():
    with_drums = [
        caption(attributes, random.Random(seed)) for seed, attributes in enumerate(ALL_ATTRIBUTES) if attributes.drums
    ]
    assert 0.9 < np.mean([bool(re.search("drum|percussion", text)) for text in with_drums]) < 1


def test_held_out_wordings_are_new_but_their_words_are_known():
    known = {word for text in CAPTIONS for word in said(text).split()}
    assert {word for text in HELD_OUT_CAPTIONS for word in said(text).split()} <= known
    assert not set(language.TEMPLATES) & set(language.HELD_OUT_TEMPLATES)
    wants = [text for text in HELD_OUT_CAPTIONS if text.startswith("I want a ")]
    assert wants and not any(text.startswith("I want a ") for text in CAPTIONS)


# Sound

ATTACK = 64  # samples (4 ms) in which FluidSynth lets a note rise from what its voice played last: the only difference


def test_every_clip_is_silent_before_its_first_note(renderer):
    for seed in range(60):
        piece = random_piece(seed, 100, instrument=INSTRUMENTS[seed % 10])
        audio = renderer.render(piece)
        first = piece.onsets[0] * SAMPLES_PER_FRAME
        assert audio.shape == (100 * SAMPLES_PER_FRAME,) and audio.dtype == np.float32
        assert first > 0 and not audio[:first].any()
        assert np.abs(audio[first : first + 10 * SAMPLES_PER_FRAME]).max() > 0.005, "the first note is heard at once"
        assert np.abs(audio).max() <= 1


def test_nothing_of_the_note_before_is_left_in_a_note(renderer):
    """FluidSynth keeps release tails: the loudest note just before must not be heard in a soft one."""
    fresh = Renderer()._note_samples("flute", 72, 10, 45)[ATTACK:]
    for before in (("organ", 48, 50, 127), ("drums", 38, 1, 127), ("music box", 72, 5, 127), ("piano", 36, 50, 127)):
        renderer._note_samples(*before)
        again = renderer._note_samples("flute", 72, 10, 45)[ATTACK:]
        assert np.abs(again - fresh).max() * 32768 <= 2, before


@pytest.mark.parametrize("instrument", [*INSTRUMENTS, "drums"])
def test_a_note_gives_the_same_samples_whenever_it_is_struck(renderer, instrument):
    pitch = 38 if instrument == "drums" else 67
    once, again = (renderer._note_samples(instrument, pitch, 9, 78)[ATTACK:] for _ in range(2))
    assert np.abs(once).max() > 0.01
    assert np.abs(once - again).max() * 32768 <= 2
    attributes = Attributes("piano", "slow", "major", "soft", "melody", False)
    early, late = (
        renderer.render(Piece(attributes, 0, 22, 100, (Note(instrument, pitch, start, 9, 78),))) for start in (4, 37)
    )
    length = 60 * SAMPLES_PER_FRAME
    shifted = late[37 * SAMPLES_PER_FRAME :][:length]
    assert np.abs(early[4 * SAMPLES_PER_FRAME :][:length] - shifted).max() * 32768 <= 2


def test_a_piece_is_the_sum_of_its_notes(renderer):
    piece = random_piece(3, 120, drums=True, texture="chords")
    parts = [renderer.render(Piece(piece.attributes, piece.tonic, piece.eighth, 120, (note,))) for note in piece.notes]
    assert len(parts) > 6 and np.abs(sum(parts)).max() < 1
    np.testing.assert_allclose(renderer.render(piece), sum(parts), atol=1e-6)


def test_a_note_has_faded_out_when_the_next_one_is_struck(renderer):
    """Else a frame's sound would depend on what was struck before: the same notes after others, sample by sample."""
    for seed in range(20):
        piece, other = random_piece(seed, 250), random_piece(seed + 100, 250)
        onsets = sorted(struck_together(piece))
        start = onsets[len(onsets) // 2]
        after = tuple(note for note in piece.notes if note.start >= start)
        before = tuple(
            replace(note, frames=min(note.frames, start - RELEASE_FRAMES - note.start))
            for note in other.notes
            if note.start < start - RELEASE_FRAMES
        )
        mixed = renderer.render(replace(piece, notes=before + after))
        np.testing.assert_array_equal(
            mixed[start * SAMPLES_PER_FRAME :], renderer.render(piece)[start * SAMPLES_PER_FRAME :]
        )


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_loud_is_louder_than_soft(renderer, instrument):
    levels = []
    for loudness in LOUDNESSES:
        attributes = Attributes(instrument, "medium", "major", loudness, "chords", False)
        levels.append(np.sqrt(np.mean(renderer.render(compose(attributes, 100, random.Random(0))) ** 2)))
    soft, loud = levels
    assert soft * 2 < loud, levels
    assert 0.001 < soft and loud < 0.5
