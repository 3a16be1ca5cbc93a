"""What fine-tuning teaches and what it costs: the shipped model learns the accordion, which it never heard.

    python tests/benchmarks/own_sound.py [--steps N] [--rank R] [--no-keep]

Composed as for the ten instruments and played by FluidSynth's accordion, two minutes of it with captions; the word is
no piece of the tokenizer and falls apart into letters. A judge of eleven instruments, trained on the codec's sound of
other clips, hears what is generated before and after: to prompts for the accordion, to prompts for each of the ten, and
to a word that nobody taught. Beside it the cross-entropy on shipped clips, none of which the training sees.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from musicgen_edu import Audio, MusicGen, create_musicgen_model
from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.compose import compose
from musicgen_edu.composer.render import Renderer
from musicgen_edu.composer.samples import shipped_codes
from musicgen_edu.composer.score import ALL_ATTRIBUTES, INSTRUMENTS, Attributes, draw_attributes
from musicgen_edu.listening.judges import Judge, Task, extract_features, train_judge
from musicgen_edu.reality.checks import surprises
from musicgen_edu.training.finetuning import FineTuning, finetune

WORD, PROGRAM, STANDS_FOR = "accordion", 21, "organ"  # it is composed as the organ is, and played by another program
UNTAUGHT = "koto"
FRAMES, SECONDS = 250, 4.0  # of a clip to learn from, and of one to be judged
CLIPS, KEPT, JUDGED_BY, ASKED, REMEMBERED = 24, 24, 12, 16, 32


def draw(rng: random.Random, instrument: str, held_out: bool = False) -> tuple[str, Attributes]:
    """A caption that names the instrument, and what it tells of."""
    while True:
        attributes = replace(draw_attributes(rng, held_out), instrument=instrument, drums=False)
        caption, told = describe(attributes, rng, held_out)
        if "instrument" in told:
            return caption, attributes


def renamed(caption: str, word: str) -> str:
    """The same caption for another instrument than the organ."""
    return re.sub(r"(church |pipe )?organ", word, caption)


def new_clips(count: int, seed: str) -> list[tuple[str, torch.Tensor]]:
    """Captions and waveforms [1, 1, samples] of the new instrument."""
    renderer, rng, clips = Renderer(programs={STANDS_FOR: PROGRAM}), random.Random(seed), []
    for _ in range(count):
        caption, attributes = draw(rng, STANDS_FOR)
        waveform = torch.from_numpy(renderer.render(compose(attributes, FRAMES, rng)))
        clips.append((renamed(caption, WORD), waveform[None, None]))
    return clips


def write_folder(folder: Path) -> None:
    """Audio files with text files beside them, as a person would lay them out."""
    folder.mkdir()
    for number, (caption, waveform) in enumerate(new_clips(CLIPS, "to learn from")):
        Audio(waveform, 16_000).save(folder / f"{number:02d}.flac")
        (folder / f"{number:02d}.txt").write_text(caption)


def train_listener(model: MusicGen) -> Judge:
    """A judge of eleven instruments by their timbre, as the codec plays it."""
    clips, names, counts = shipped_codes(), [], dict.fromkeys(INSTRUMENTS, JUDGED_BY)
    rows = []
    for row, index in enumerate(clips.attributes.tolist()):
        instrument = ALL_ATTRIBUTES[index].instrument
        if counts[instrument]:
            counts[instrument] -= 1
            rows.append(row)
            names.append(Attributes(instrument, "slow", "major", "soft", "melody", False))
    codes = [clips.codes[rows].long()]
    for _, waveform in new_clips(2 * JUDGED_BY, "to judge by"):
        codes.append(model.codec.encode(waveform))
        names.append(WORD)
    sound = torch.cat([model.codec.decode(part)[:, 0] for whole in codes for part in whole.split(8)])
    sound = sound[:, : round(SECONDS * 16_000)]
    return train_judge(Eleven("instrument", (*INSTRUMENTS, WORD), ("timbre",)), extract_features(sound, 16_000), names)


class Eleven(Task):
    """The question after the instrument, for clips that the composer knows and others."""

    def label(self, attributes: Attributes | str) -> int:
        """The index of the right answer."""
        return self.answers.index(getattr(attributes, "instrument", attributes))


def share_heard(model: MusicGen, judge: Judge, prompts: list[str], wanted: list[str]) -> float:
    """How often the judge hears the instrument that is wanted in what the model plays."""
    heard = []
    for start in range(0, len(prompts), 8):
        texts = prompts[start : start + 8]
        audio = model.generate(texts, SECONDS, seed=list(range(start, start + len(texts))))
        heard += judge(extract_features(audio.waveform[:, 0], 16_000)).argmax(dim=1).tolist()
    return sum(judge.task.answers[index] == name for index, name in zip(heard, wanted, strict=True)) / len(wanted)


@torch.no_grad()
def measure(model: MusicGen, judge: Judge) -> dict[str, float]:
    """What the model plays when it is asked for the new, the old and the untaught, and what it remembers."""
    rng = random.Random("asked")
    new = [renamed(draw(rng, STANDS_FOR, held_out=True)[0], WORD) for _ in range(ASKED)]
    old = [(draw(rng, instrument, held_out=True)[0], instrument) for instrument in INSTRUMENTS for _ in range(2)]
    clips = shipped_codes()
    codes = clips.codes[-REMEMBERED:].long()
    captions = [describe(ALL_ATTRIBUTES[index], rng, held_out=True)[0] for index in clips.attributes[-REMEMBERED:]]
    untaught = [prompt.replace(WORD, UNTAUGHT) for prompt in new[: ASKED // 2]]
    return {
        f"{WORD} heard where it is asked for": share_heard(model, judge, new, [WORD] * ASKED),
        "the old instruments, where asked for": share_heard(model, judge, *map(list, zip(*old, strict=True))),
        f"{WORD} heard where an untaught word is": share_heard(model, judge, untaught, [WORD] * len(untaught)),
        "cross-entropy of old music, nats": float(surprises(model, codes, captions).mean()),
    }


def main() -> None:
    """Print the figures before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=FineTuning.steps)
    parser.add_argument("--rank", type=int, default=FineTuning.rank)
    parser.add_argument("--batch", type=int, default=FineTuning.batch)
    parser.add_argument("--no-keep", action="store_true", help="without rehearsing old music")
    args = parser.parse_args()
    model, rng = create_musicgen_model("tiny"), random.Random("kept")
    judge = train_listener(model)
    before = measure(model, judge)
    keep = [] if args.no_keep else [draw(rng, INSTRUMENTS[number % 10])[0] for number in range(KEPT)]
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place) / "data")
        started = time.perf_counter()
        settings = FineTuning(steps=args.steps, rank=args.rank, batch=args.batch)
        finetune(model, Path(place) / "data", Path(place) / "run", settings, keep)
        minutes = (time.perf_counter() - started) / 60
        after = measure(MusicGen.from_pretrained(Path(place) / "run" / "model"), judge)
    for name, value in before.items():
        print(f"{name:<42}{value:.2f} -> {after[name]:.2f}")
    print(f"{'minutes':<42}{minutes:.1f}, of one core {time.process_time() / 60:.1f} in all")


if __name__ == "__main__":
    main()
