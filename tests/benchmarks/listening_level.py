"""How loud the shipped model's music is, as made and as it is heard; 1 if it is not heard as it should be.

    python tests/benchmarks/listening_level.py

Files by `musicgen-edu generate`, read back and measured, shall have −16 ± 2 LUFS, whatever the prompt says of loudness.
A stream's chunks all get `STREAM_GAIN`: no clip shall pass the listening level by it, or full scale. Run it again when
the weights change, and give `STREAM_GAIN` the figure of the last line.
"""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import sys
import tempfile
from pathlib import Path

from musicgen_edu import cli, create_musicgen_model
from musicgen_edu.audio import load_audio
from musicgen_edu.composer.score import INSTRUMENTS
from musicgen_edu.model import STREAM_GAIN
from musicgen_edu.player import LISTENING_LUFS, integrated_loudness, listening_gain

PROMPTS = ("peaceful piano melody", "marimba arpeggio", "loud strings, fast chords, with drums")
WORDS, SECONDS, TOLERANCE = ("soft ", "", "loud "), 4.0, 2.0


def main() -> int:
    """Print both tables; 1 if a file or a stream is not as loud as it should be."""
    levels = [heard(prompt) for prompt in PROMPTS]
    for prompt, level in zip(PROMPTS, levels, strict=True):
        print(f"generate {prompt!r}: {level:.1f} LUFS in the file")
    gains = [gain for word in WORDS for gain in print_gains(word)]
    lowest = math.floor(min(gains))
    print(f"no clip of {len(gains)} is too loud in a stream with {lowest} dB; STREAM_GAIN is {STREAM_GAIN:g} dB")
    return int(any(abs(level - LISTENING_LUFS) > TOLERANCE for level in levels) or lowest != STREAM_GAIN)


def heard(prompt: str) -> float:
    """The loudness of the file that the command line writes for `prompt`, in LUFS."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "heard.wav"
        cli.main(["generate", f"--duration={SECONDS}", f"--output={path}", "--", prompt])
        audio = load_audio(path)
    return integrated_loudness(audio.waveform[0], audio.sample_rate)


def print_gains(word: str) -> list[float]:
    """The decibels that bring a clip of every instrument to the listening level, with `word` before its name."""
    prompts = [f"{word}{instrument} melody" for instrument in INSTRUMENTS]
    audio = create_musicgen_model("tiny").generate(prompts, SECONDS)
    loudness = [integrated_loudness(clip, audio.sample_rate) for clip in audio.waveform]
    gains = [listening_gain(clip[None], audio.sample_rate) for clip in audio.waveform]
    print(
        f"{word or 'unsaid ':<8}{len(gains)} clips of {min(loudness):.1f} … {max(loudness):.1f} LUFS as made, "
        f"median {statistics.median(loudness):.1f}; gains of {min(gains):.1f} … {max(gains):.1f} dB"
    )
    return gains


if __name__ == "__main__":
    sys.exit(main())
