"""Choose what a newcomer hears first: of fifty clips, the one that is heard best as its prompt.

    python tests/benchmarks/choose_first_clip.py

The prompts ask for loud, fast, happy music in the plainest words. Two kinds of judges, those that learned from real
renders and those that learned from the codec's sound, listen to the first five and the last five seconds of each clip,
and answer the six questions of room 13. Clips stand in the order of their right answers and, among equals, of the mean
probability that judges give to what was asked for. Beside it: how loud a clip was made, and how loud it is played:
less than the listening level where one sharp sound stands out. The clip that is first now is marked.

The last line is the choice: the best clip of a piano, since the founding prompt, "peaceful piano melody", comes second,
and with one instrument the other words are heard. Run it again when the weights change, and write another choice into
README, Makefile, the command line's help and notebook 00. Needs FluidSynth, on which the judges learn.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

import torch

from musicgen_edu import Audio, create_musicgen_model
from musicgen_edu.codec import Codec
from musicgen_edu.composer.render import SAMPLE_RATE, Renderer
from musicgen_edu.composer.score import FRAME_RATE, Attributes
from musicgen_edu.listening.clips import WINDOW, real_clips, rebuild
from musicgen_edu.listening.judges import Judge, extract_features, train_judges
from musicgen_edu.listening.measurements import JUDGE_SEED, hear
from musicgen_edu.player import integrated_loudness, listening_gain

SECONDS, SEEDS, JUDGE_CLIPS = 8.0, 5, 600
SECOND = "piano"  # the instrument of the clip that is heard next
WANTED = [
    Attributes(instrument, "fast", "major", "loud", texture, False)
    for instrument, texture in itertools.product(
        ("piano", "marimba", "acoustic guitar", "strings", "synth"), ("melody", "arpeggio")
    )
]
MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"


class Candidate(NamedTuple):
    """A clip and what was found; candidates sort from the worst to the best."""

    right: int
    probability: float
    made: float  # LUFS
    played: float
    prompt: str
    seed: int


def main() -> None:
    """Print the fifty clips, the best one last, and the choice."""
    model = create_musicgen_model("tiny")
    judges = learn(model.codec)
    found = []
    for wanted in WANTED:
        prompt = f"loud happy {wanted.instrument} {wanted.texture}, fast"
        audio = model.generate([prompt] * SEEDS, SECONDS, seed=list(range(SEEDS)))
        found += examine(audio, wanted, prompt, judges)
    first = re.findall(r"^(?:PROMPT|SEED) \?= (.+)$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    answers = 2 * len(judges)
    for clip in sorted(found):
        levels = f"made at {clip.made:.1f} LUFS, played at {clip.played:.1f}"
        mark = "   <- first now" if [clip.prompt, str(clip.seed)] == first else ""
        heard = f"{clip.right} of {answers} right, {clip.probability:.2f} sure"
        print(f"{heard}, {levels}: {clip.prompt!r}, {clip.seed}{mark}")
    choice = max(clip for clip in found if SECOND in clip.prompt)
    print(f"choice: {choice.prompt!r}, seed {choice.seed}")


def learn(codec: Codec) -> list[Judge]:
    """Judges of every question, of both kinds."""
    real = real_clips(Renderer(), codec, round(WINDOW * FRAME_RATE), JUDGE_SEED, JUDGE_CLIPS, held_out=False)
    kinds = [train_judges(hear(clips), clips.attributes) for clips in (real, rebuild(real, codec))]
    return [judge for kind in kinds for judge in kind.values()]


@torch.no_grad()
def examine(audio: Audio, wanted: Attributes, prompt: str, judges: list[Judge]) -> list[Candidate]:
    """What the judges hear in both ends of each clip of one prompt, and how loud it is."""
    window, sound = round(WINDOW * SAMPLE_RATE), audio.waveform[:, 0]
    heard = [
        judge(features).softmax(dim=1)
        for features in (extract_features(end, SAMPLE_RATE) for end in (sound[:, :window], sound[:, -window:]))
        for judge in judges
    ]
    labels = [judge.task.label(wanted) for judge in judges] * 2
    right = torch.stack([share.argmax(dim=1) == label for share, label in zip(heard, labels, strict=True)]).sum(dim=0)
    sure = torch.stack([share[:, label] for share, label in zip(heard, labels, strict=True)]).mean(dim=0)
    loudness = [integrated_loudness(clip, SAMPLE_RATE) for clip in audio.waveform]
    gains = [listening_gain(clip[None], SAMPLE_RATE) for clip in audio.waveform]
    return [
        Candidate(int(right[seed]), float(sure[seed]), made, made + gain, prompt, seed)
        for seed, (made, gain) in enumerate(zip(loudness, gains, strict=True))
    ]


if __name__ == "__main__":
    main()
