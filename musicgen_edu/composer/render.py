"""Plays a piece: FluidSynth renders each distinct note once, and a piece is the sum of its notes.

Dry (no reverb, no chorus), FluidSynth's voices do not touch one another, so adding single notes gives what playing them
together gives, and an hour of music takes seconds. FluidSynth runs at twice the sample rate and is then filtered down,
so that what lies above half of it does not fold back. The soundfont is FluidR3_GM by Frank Wen (MIT licence), looked
for where Debian puts it unless the environment variable MUSICGEN_EDU_SOUNDFONT names another file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from musicgen_edu.composer.score import FRAME_RATE, RELEASE_FRAMES, Piece

try:
    with redirect_stdout(StringIO()):  # where CI is set, pyfluidsynth prints the library's path
        import fluidsynth
    from scipy.signal import resample_poly
except ImportError:  # neither playing the shipped model nor a notebook needs it
    fluidsynth = None

SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
OVERSAMPLING = 2
PROGRAMS = {
    "piano": 0, "acoustic guitar": 25, "electric guitar": 27, "strings": 48, "flute": 73,
    "organ": 19, "marimba": 12, "music box": 10, "trumpet": 56, "synth": 81,
}  # fmt: skip
DRUM_BANK = 128
REFERENCE_PEAK = 0.2  # every instrument is brought to this peak at its reference note, as an engineer levels a mix
REFERENCE_PITCHES = {"drums": 38, "flute": 72, "music box": 72}  # others: 60
DEBIANS_SOUNDFONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"


class Renderer:
    """Renders pieces to mono audio at 16 kHz, each instrument by the General MIDI program that `programs` gives it.

    Without `soundfont` it is the file that MUSICGEN_EDU_SOUNDFONT names, else Debian's FluidR3_GM.

    Raises:
        FileNotFoundError: FluidSynth or the soundfont is not installed.
    """

    def __init__(self, soundfont: Path | None = None, programs: Mapping[str, int] = MappingProxyType(PROGRAMS)):
        soundfont = soundfont or Path(os.environ.get("MUSICGEN_EDU_SOUNDFONT") or DEBIANS_SOUNDFONT)
        if fluidsynth is None or not soundfont.is_file():
            raise FileNotFoundError(
                f"Rendering music needs FluidSynth and the soundfont {soundfont}; install them with: "
                'apt-get install fluidsynth fluid-soundfont-gm, and the extra "train" of this package with pip. '
                "Where the soundfont lies elsewhere, set MUSICGEN_EDU_SOUNDFONT to its path."
            )
        self._synth = fluidsynth.Synth(gain=0.5, samplerate=float(SAMPLE_RATE * OVERSAMPLING))
        for setting in ("synth.reverb.active", "synth.chorus.active"):
            self._synth.setting(setting, 0)
        self._font = self._synth.sfload(str(soundfont))
        self._programs = programs
        self.note_samples = cache(self._note_samples)
        self._gain = cache(self._instrument_gain)

    def render(self, piece: Piece) -> Float[np.ndarray, " samples"]:
        """The piece as float samples in [-1, 1], `piece.frames` × 320 of them; silent before the first note."""
        total = piece.frames * SAMPLES_PER_FRAME
        audio = np.zeros(total, np.float32)
        for note in piece.notes:
            start = note.start * SAMPLES_PER_FRAME
            samples = self.note_samples(note.instrument, note.pitch, note.frames, note.velocity)[: total - start]
            audio[start : start + len(samples)] += self._gain(note.instrument) * samples
        return np.clip(audio, -1, 1)

    def _note_samples(self, instrument: str, pitch: int, frames: int, velocity: int) -> Float[np.ndarray, " samples"]:
        """One note, alone, from its first sample until it has faded out: players damp their strings, too."""
        channel = self._select(instrument)
        held = frames * SAMPLES_PER_FRAME * OVERSAMPLING
        release = RELEASE_FRAMES * SAMPLES_PER_FRAME * OVERSAMPLING
        self._wait_for_silence()
        self._synth.noteon(channel, pitch, velocity)
        sound = self._play(held)
        self._synth.noteoff(channel, pitch)
        sound = np.concatenate([sound, self._play(release)])
        sound = resample_poly(sound, 1, OVERSAMPLING).astype(np.float32)
        fade = release // OVERSAMPLING
        sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return sound

    def _select(self, instrument: str) -> int:
        """Choose the sound and return its MIDI channel; percussion is channel 9 of General MIDI."""
        if instrument == "drums":
            self._synth.program_select(9, self._font, DRUM_BANK, 0)
            return 9
        self._synth.program_select(0, self._font, 0, self._programs[instrument])
        return 0

    def _instrument_gain(self, instrument: str) -> float:
        pitch = REFERENCE_PITCHES.get(instrument, 60)
        return REFERENCE_PEAK / float(np.abs(self.note_samples(instrument, pitch, FRAME_RATE // 2, 100)).max())

    def _play(self, samples: int) -> Float[np.ndarray, " samples"]:
        """What the synthesizer sounds next, its two channels averaged."""
        return self._synth.get_samples(samples).reshape(-1, 2).mean(axis=1, dtype=np.float32) / 32768

    def _wait_for_silence(self):
        """All-sounds-off leaves release tails behind, so play on until nothing is heard (above the dither)."""
        self._synth.all_sounds_off(0)
        self._synth.all_sounds_off(9)
        while np.abs(self._play(SAMPLES_PER_FRAME * OVERSAMPLING)).max() > 1.5 / 32768:
            pass
