"""Writes a piece that fits given attributes: key, chord progression with a cadence, phrases, rhythm, and drums.

Three rules make the music learnable by a small model (they were found by trial: see training/RUNS.md). Everything
starts on the eighth-note grid, whose step is a whole number of frames. A note or chord has faded out when the next one
is struck, as a drum has, so that a frame's sound depends on the last thing struck and its age, and on the drums. And
keys and chords are those that tell the mode from the first note on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from musicgen_edu.composer.score import EIGHTHS, RELEASE_FRAMES, Attributes, Note, Piece

LEAD_IN = 4  # frames of silence before the first note
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# The keys of each mode. No note is in the tonic triads of both modes, so that single notes speak for a mode: where
# every key was allowed in both, the word for the mode taught the decoder nothing (training/RUNS.md, round four).
TONICS = {"major": (2, 9), "minor": (0, 5)}
# Scale degrees of four chords: each phrase leaves the tonic and ends in a cadence or on the way back. Tonic,
# subdominant and dominant have the mode of their key (a minor key's dominant is not raised): every chord tells it.
PROGRESSIONS = ((0, 3, 4, 0), (0, 4, 3, 0), (0, 3, 0, 4), (0, 4, 0, 3))


@dataclass(frozen=True)
class Habits:
    """The keys and the chords that a composer allows itself: tonics (pitch classes) by mode, and scale degrees."""

    tonics: dict[str, tuple[int, ...]]
    progressions: tuple[tuple[int, ...], ...]


OWN_HABITS = Habits(TONICS, PROGRESSIONS)
# Another composer's: every key in both modes, and progressions of pop and of the textbook, with all degrees but the
# diminished ones. What has learned from this music knows a mode by more than two keys (listening/judges.py).
OTHER_HABITS = Habits(
    dict.fromkeys(SCALES, tuple(range(12))),
    ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 5, 4), (0, 2, 3, 4), (0, 4, 3, 0), (3, 4, 0, 5)),
)
VELOCITIES = {"soft": 45, "loud": 112}
# The lowest pitch of the octave in which each instrument plays its chords; one of three a piece.
REGISTERS = {
    "piano": (50, 55, 60), "acoustic guitar": (45, 50, 55), "electric guitar": (45, 50, 55), "strings": (50, 55, 60),
    "flute": (64, 67, 72), "organ": (50, 55, 60), "marimba": (55, 60, 65), "music box": (62, 67, 72),
    "trumpet": (54, 58, 62), "synth": (52, 57, 62),
}  # fmt: skip
# Rhythms of one chord, as lengths in eighths: a bar, of which a slow chord takes the first half.
MELODY_RHYTHMS = ((2, 2, 2, 2), (2, 1, 1, 2, 2), (1, 1, 2, 1, 1, 2), (2, 2, 1, 1, 2), (3, 1, 2, 2), (2, 1, 1, 2, 1, 1))
CHORD_RHYTHMS = ((2, 2, 2, 2), (4, 2, 2), (2, 1, 1, 2, 2), (3, 3, 2))
ARPEGGIOS = ((0, 1, 2, 1), (0, 1, 2, 3), (0, 2, 1, 2), (3, 2, 1, 0))
KICK, SNARE, HIHAT = 36, 38, 42
DRUM_PATTERNS = (  # the keys struck on each eighth of a bar
    ((KICK, HIHAT), (HIHAT,), (SNARE, HIHAT), (HIHAT,)) * 2,
    ((KICK,), (HIHAT,), (SNARE,), (HIHAT,)) * 2,
    ((KICK, HIHAT), (), (SNARE, HIHAT), (), (KICK, HIHAT), (KICK,), (SNARE, HIHAT), ()),
)


def compose(attributes: Attributes, frames: int, rng: random.Random, habits: Habits = OWN_HABITS) -> Piece:
    """Write a piece of `frames` frames (20 ms each) with these attributes.

    Args:
        attributes: what a caption may say of the piece.
        frames: its length; the music goes on to the end, as in an excerpt.
        rng: the source of every choice: the same state gives the same piece.
        habits: which keys and chords there are to choose from.

    Raises:
        ValueError: `frames` leaves no room for a note.
    """
    if frames <= LEAD_IN:
        raise ValueError(f"A piece needs more than {LEAD_IN} frames, and {frames} were asked for.")
    eighth = rng.choice(EIGHTHS[attributes.tempo])
    tonic = rng.choice(habits.tonics[attributes.mode])
    bars = (frames - LEAD_IN) // (8 * eighth) + 1
    struck = _play_bars(attributes, tonic, bars, habits, rng)
    notes = _strike(struck, attributes, eighth, frames)
    if attributes.drums:
        notes += _drum_notes(rng.choice(DRUM_PATTERNS), bars, eighth, frames, VELOCITIES[attributes.loudness])
    return Piece(attributes, tonic, eighth, frames, tuple(notes))


def chord_eighths(tempo: str) -> int:
    """Eighths that a chord lasts: half a bar when slow, else a bar."""
    return 4 if tempo == "slow" else 8


def triad(degree: int, tonic: int, mode: str) -> tuple[int, int, int]:
    """Pitch classes of the triad on a scale degree (0 = tonic)."""
    root, third, fifth = ((tonic + SCALES[mode][(degree + step) % 7]) % 12 for step in (0, 2, 4))
    return root, third, fifth


def voice(pitch_class: int, lowest: int) -> int:
    """The pitch of a class within the octave that starts at `lowest`: chords voiced so move by small steps."""
    return lowest + (pitch_class - lowest) % 12


def _play_bars(
    attributes: Attributes, tonic: int, bars: int, habits: Habits, rng: random.Random
) -> list[tuple[int, tuple[int, ...]]]:
    """What is struck: (length in eighths, pitches), bar after bar."""
    lowest = rng.choice(REGISTERS[attributes.instrument])
    with_bass = rng.random() < 0.5
    progression = rng.choice(habits.progressions)
    span = chord_eighths(attributes.tempo)
    play = {"melody": _melody, "arpeggio": _arpeggio, "chords": _chords}[attributes.texture](rng)
    struck = []
    for index in range(bars * 8 // span):
        chord = triad(progression[index % 4], tonic, attributes.mode)
        pitches = sorted(voice(pitch_class, lowest) for pitch_class in chord)
        scale = [(tonic + step) % 12 for step in SCALES[attributes.mode]]
        events = play(pitches, sorted(voice(pitch_class, lowest) for pitch_class in scale), span, index % 4 == 3)
        if with_bass:
            length, upper = events[0]
            events[0] = length, (voice(chord[0], lowest - 12), *upper)
        struck += events
    return struck


def _melody(rng: random.Random):
    """A line with a rhythm that returns with every chord: chord tones on the beats, neighbours in the scale between."""
    rhythm = rng.choice(MELODY_RHYTHMS)
    contour = [rng.choice((-1, 0, 1, 1)) for _ in rhythm]

    def play(chord, scale, span, cadence):
        if cadence:
            return [(span // 2, (chord[rng.randrange(3)],)), (span // 2, (chord[0],))]
        line, time = [], 0
        pitch = rng.choice(chord)
        for length, move in zip(rhythm, contour, strict=True):
            if time >= span:
                break
            near = sorted(chord if time % 2 == 0 else scale, key=lambda other: abs(other - (pitch + 3 * move)))
            pitch = near[0] if near[0] != pitch else near[1]
            line.append((min(length, span - time), (pitch,)))
            time += length
        return line

    return play


def _arpeggio(rng: random.Random):
    """A broken chord in even eighths; the pattern returns with every chord."""
    pattern = rng.choice(ARPEGGIOS)

    def play(chord, scale, span, cadence):
        tones = [*chord, chord[0] + 12]
        return [(1, (tones[pattern[step % 4]],)) for step in range(span)]

    return play


def _chords(rng: random.Random):
    """Struck triads in a rhythm that returns with every chord."""
    rhythm = rng.choice(CHORD_RHYTHMS)

    def play(chord, scale, span, cadence):
        events, time = [], 0
        for length in rhythm:
            if time < span:
                events.append((min(length, span - time), tuple(chord)))
                time += length
        return events

    return play


def _strike(struck, attributes: Attributes, eighth: int, frames: int) -> list[Note]:
    """Lay what is struck on the grid of frames. Each note ends early enough to fade out before the next one."""
    notes, time = [], LEAD_IN
    for eighths, pitches in struck:
        length = min(eighths * eighth - RELEASE_FRAMES, frames - time)
        if length > 0:
            velocity = VELOCITIES[attributes.loudness]
            notes += [Note(attributes.instrument, pitch, time, length, velocity) for pitch in pitches]
        time += eighths * eighth
    return notes


def _drum_notes(pattern, bars: int, eighth: int, frames: int, velocity: int) -> list[Note]:
    """The drum pattern, bar after bar. Drums are damped at the end of each eighth, as notes are."""
    length = eighth - RELEASE_FRAMES
    steps = [(LEAD_IN + step * eighth, keys) for step, keys in enumerate(pattern * bars)]
    return [Note("drums", key, time, length, velocity) for time, keys in steps if time < frames for key in keys]
