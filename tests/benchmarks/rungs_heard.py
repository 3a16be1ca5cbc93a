"""What each rung of room 14 costs the ear: adherence and Fréchet distance of the shipped model, before and after.

    python tests/benchmarks/rungs_heard.py [--prompts N] [--judge-clips N]

The same prompts and seeds on every rung, judged as `musicgen-edu evaluate` judges, with 95 % intervals. A rung's music
parts from the plain model's after some steps, so each set of clips is another draw, as with other seeds: what counts is
whether the intervals overlap. Fréchet distances (to real renders) are stated over the plain model's, whose clips from
other seeds tell how much of a difference is chance. Needs FluidSynth and its soundfont.
"""

from __future__ import annotations

import argparse

from musicgen_edu import create_musicgen_model
from musicgen_edu.composer.render import SAMPLE_RATE, Renderer
from musicgen_edu.composer.score import FRAME_RATE
from musicgen_edu.listening.clips import Clips, draw_prompts, generate_clips, real_clips, rebuild
from musicgen_edu.listening.judges import TASKS, Judge, right_answers, train_judges
from musicgen_edu.listening.measurements import JUDGE_SEED, REAL_SEED, hear
from musicgen_edu.listening.metrics import frechet_distance, mel_statistics, wilson_interval
from musicgen_edu.model import MusicGen
from musicgen_edu.optimization import PRODUCTS

SECONDS = 5.0
OTHER_SEED = 10_000


def main() -> None:
    """Print a line for each rung."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--judge-clips", type=int, default=600)
    asked = parser.parse_args()
    renderer, model, frames = Renderer(), create_musicgen_model("tiny"), round(SECONDS * FRAME_RATE)
    teachers = real_clips(renderer, model.codec, frames, JUDGE_SEED, asked.judge_clips, held_out=False)
    teachers = rebuild(teachers, model.codec)  # generated music comes out of it, and so do the judges' lessons
    judges = train_judges(hear(teachers), teachers.attributes)
    real = mel_statistics(real_clips(renderer, model.codec, frames, REAL_SEED, asked.prompts).waveforms, SAMPLE_RATE)
    print(f"{'rung':<18}" + "".join(f"{task:<20}" for task in TASKS) + "Fréchet distance / plain")
    plain = make(model, None, asked.prompts, seed=0)
    distance = frechet_distance(mel_statistics(plain.waveforms, SAMPLE_RATE), real)
    others = {"plain, other seeds": (None, OTHER_SEED), **{rung: (rung, 0) for rung in PRODUCTS}}
    show("plain", plain, judges, 1.0)
    for name, (rung, seed) in others.items():
        clips = make(model, rung, asked.prompts, seed)
        show(name, clips, judges, frechet_distance(mel_statistics(clips.waveforms, SAMPLE_RATE), real) / distance)


def make(model: MusicGen, rung: str | None, count: int, seed: int) -> Clips:
    """The clips of a rung, of the same prompts."""
    return generate_clips(model.optimize(rung), draw_prompts(count), SECONDS, seed)


def show(name: str, clips: Clips, judges: dict[str, Judge], ratio: float) -> None:
    """Print the shares that the judges hear as asked, with their intervals."""
    features, shares = hear(clips), []
    for task in TASKS:
        right, asked = right_answers(judges[task], features, clips.attributes, clips.named)
        shares.append("{:.2f} [{:.2f}, {:.2f}]".format(right / asked, *wilson_interval(right, asked)))
    print(f"{name:<18}" + "".join(f"{share:<20}" for share in shares) + f"{ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
