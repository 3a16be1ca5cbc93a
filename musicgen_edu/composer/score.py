"""What a piece of music is here: attributes that a caption can name, and notes on the codec's own grid of frames.

Time is counted in frames of 20 ms, 50 a second, the codec's frame rate. A note that starts on a frame gives the same
samples, and so nearly the same codes, wherever it stands: that is what makes the music learnable by a small model.
"""

from __future__ import annotations

import itertools
import random
import zlib
from dataclasses import astuple, dataclass

FRAME_RATE = 50
RELEASE_FRAMES = 2  # after its end a note fades out; then it is silent

INSTRUMENTS = (
    "piano", "acoustic guitar", "electric guitar", "strings", "flute",
    "organ", "marimba", "music box", "trumpet", "synth",
)  # fmt: skip
MODES = ("major", "minor")
LOUDNESSES = ("soft", "loud")
TEXTURES = ("melody", "arpeggio", "chords")
# Frames in an eighth note. An eighth of E frames is 1500 / E beats a minute: 62, 68 or 75, 100 or 107, 150.
EIGHTHS = {"slow": (20, 22, 24), "medium": (14, 15), "fast": (10,)}
TEMPOS = tuple(EIGHTHS)
# Every attribute of a piece and its values, in the order of `Attributes`.
VALUES = {
    "instrument": INSTRUMENTS, "tempo": TEMPOS, "mode": MODES, "loudness": LOUDNESSES, "texture": TEXTURES,
    "drums": (False, True),
}  # fmt: skip


@dataclass(frozen=True)
class Attributes:
    """Everything that a caption may say of a piece."""

    instrument: str
    tempo: str
    mode: str
    loudness: str
    texture: str
    drums: bool

    def __post_init__(self):
        for value, allowed in zip(astuple(self), VALUES.values(), strict=True):
            if value not in allowed:
                choice = ", ".join(map(str, allowed))
                raise ValueError(f"{value!r} is not an attribute of a piece; choose one of {choice}.")


ALL_ATTRIBUTES = tuple(Attributes(*values) for values in itertools.product(*VALUES.values()))


def is_held_out(attributes: Attributes) -> bool:
    """True for about a tenth of the 720 combinations: training never sees them, evaluation asks for them."""
    return zlib.crc32(repr(astuple(attributes)).encode()) % 10 == 0


def draw_attributes(rng: random.Random, held_out: bool = False) -> Attributes:
    """One combination, uniformly drawn among those that training sees, or among those that it does not."""
    while True:
        attributes = rng.choice(ALL_ATTRIBUTES)
        if is_held_out(attributes) == held_out:
            return attributes


@dataclass(frozen=True)
class Note:
    """One struck note. `start` and `frames` count frames of 20 ms; `pitch` and `velocity` are MIDI's (0–127)."""

    instrument: str  # one of INSTRUMENTS, or "drums", whose pitches are General MIDI's percussion keys
    pitch: int
    start: int
    frames: int
    velocity: int


@dataclass(frozen=True)
class Piece:
    """Notes with what they were written to be: `frames` long, in the key of `tonic` (pitch class, 0 = C)."""

    attributes: Attributes
    tonic: int
    eighth: int  # frames in an eighth note
    frames: int
    notes: tuple[Note, ...]

    @property
    def onsets(self) -> list[int]:
        """The frames at which something is struck, in order, each once."""
        return sorted({note.start for note in self.notes})
