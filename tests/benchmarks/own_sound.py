"""What fine-tuning teaches and what it costs: the shipped model learns a tuba, which it never heard.

    python tests/benchmarks/own_sound.py [--word W --program P --stands-for I] [--steps N] [--all-weights] [--no-keep]

Composed as for one of the ten instruments and played by another program of FluidSynth, under two minutes of it with
captions; the word is no piece of the tokenizer. A judge of eleven instruments, trained on real renders of other clips,
hears first what the codec makes of the sound: what it cannot carry, no model learns. Then it hears what is generated
before and after: to prompts for the new sound, to prompts for each of the ten, and to a word that nobody taught. Shares
come with Wilson's interval. Beside them stands the cross-entropy on shipped clips, none of which the training sees.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from musicgen_edu import Audio, MusicGen, create_musicgen_model
from musicgen_edu.composer.captions import INSTRUMENT_NAMES, describe
from musicgen_edu.composer.compose import compose
from musicgen_edu.composer.render import PROGRAMS, SAMPLE_RATE, Renderer
from musicgen_edu.composer.samples import shipped_codes
from musicgen_edu.composer.score import ALL_ATTRIBUTES, FRAME_RATE, INSTRUMENTS, Attributes, draw_attributes
from musicgen_edu.listening.judges import Judge, Task, extract_features, train_judge
from musicgen_edu.listening.metrics import wilson_interval
from musicgen_edu.reality.checks import surprises
from musicgen_edu.training.finetuning import FineTuning, finetune

UNTAUGHT = "koto"
SECONDS = 4.0  # of every clip
CLIPS, KEPT, JUDGED_BY, ASKED, REMEMBERED = 24, 30, 28, 24, 24


@dataclass(frozen=True)
class NewSound:
    """A word, FluidSynth's program for it, and the instrument as which it is composed."""

    word: str
    program: int
    stands_for: str

    def clips(self, count: int, seed: str, held_out: bool = False) -> list[tuple[str, Tensor]]:
        """Captions and waveforms [samples]."""
        programs = PROGRAMS | {self.stands_for: self.program}
        made = render_clips(Renderer(programs=programs), self.stands_for, count, seed, held_out)
        return [(self.renamed(caption), waveform) for caption, waveform in made]

    def renamed(self, caption: str) -> str:
        """The same caption with this word for the instrument."""
        names = sorted(INSTRUMENT_NAMES[self.stands_for], key=len, reverse=True)
        return re.sub("|".join(names), self.word, caption)


def draw(rng: random.Random, instrument: str, held_out: bool = False) -> tuple[str, Attributes]:
    """A caption that names the instrument, and what it tells of."""
    while True:
        attributes = replace(draw_attributes(rng, held_out), instrument=instrument, drums=False)
        caption, told = describe(attributes, rng, held_out)
        if "instrument" in told:
            return caption, attributes


def render_clips(
    renderer: Renderer, instrument: str, count: int, seed: str, held_out: bool = False
) -> list[tuple[str, Tensor]]:
    """Captions and waveforms [samples] of an instrument."""
    rng, clips = random.Random(f"{seed} {instrument}"), []
    for _ in range(count):
        caption, attributes = draw(rng, instrument, held_out)
        piece = compose(attributes, round(SECONDS * FRAME_RATE), rng)
        clips.append((caption, torch.from_numpy(renderer.render(piece))))
    return clips


def write_folder(folder: Path, sound: NewSound) -> None:
    """Audio files with text files beside them, as a person would lay them out."""
    folder.mkdir()
    for number, (caption, waveform) in enumerate(sound.clips(CLIPS, "to learn from")):
        Audio(waveform[None, None], SAMPLE_RATE).save(folder / f"{number:02d}.flac")
        (folder / f"{number:02d}.txt").write_text(caption)


class Eleven(Task):
    """The question after the instrument, asked of names."""

    def label(self, attributes: str) -> int:
        """The index of the right answer."""
        return self.answers.index(attributes)


def train_listener(sound: NewSound) -> Judge:
    """A judge of eleven instruments by their timbre, as FluidSynth plays them."""
    renderer, heard, names = Renderer(), [], []
    for instrument in (*INSTRUMENTS, sound.word):
        if instrument == sound.word:
            clips = sound.clips(JUDGED_BY, "to judge by")
        else:
            clips = render_clips(renderer, instrument, JUDGED_BY, "to judge by")
        heard += [waveform for _, waveform in clips]
        names += [instrument] * JUDGED_BY
    task = Eleven("instrument", (*INSTRUMENTS, sound.word), ("timbre",))
    return train_judge(task, extract_features(torch.stack(heard), SAMPLE_RATE), names)


@torch.no_grad()
def count_heard(judge: Judge, waveforms: Tensor, wanted: list[str]) -> tuple[int, int]:
    """In how many clips [clips, samples] the judge hears the instrument that is wanted, and of how many."""
    heard = judge(extract_features(waveforms, SAMPLE_RATE)).argmax(dim=1).tolist()
    return sum(judge.task.answers[index] == name for index, name in zip(heard, wanted, strict=True)), len(wanted)


def ask(model: MusicGen, judge: Judge, prompts: list[str], wanted: list[str]) -> tuple[int, int]:
    """The same for what the model plays to prompts."""
    parts = []
    for start in range(0, len(prompts), 8):
        texts = prompts[start : start + 8]
        parts.append(model.generate(texts, SECONDS, seed=list(range(start, start + len(texts)))).waveform[:, 0])
    return count_heard(judge, torch.cat(parts), wanted)


@torch.no_grad()
def measure(model: MusicGen, judge: Judge, sound: NewSound) -> dict[str, tuple[int, int] | float]:
    """What the model plays when it is asked for the new, the old and the untaught, and what it remembers."""
    rng = random.Random("asked")
    new = [sound.renamed(draw(rng, sound.stands_for, held_out=True)[0]) for _ in range(ASKED)]
    old = [(draw(rng, instrument, held_out=True)[0], instrument) for instrument in INSTRUMENTS for _ in range(4)]
    prompts, instruments = map(list, zip(*old, strict=True))
    untaught = [prompt.replace(sound.word, UNTAUGHT) for prompt in new[: ASKED // 2]]
    clips = shipped_codes()
    captions = [describe(ALL_ATTRIBUTES[index], rng, held_out=True)[0] for index in clips.attributes[-REMEMBERED:]]
    return {
        f"{sound.word} heard where it is asked for": ask(model, judge, new, [sound.word] * len(new)),
        "the old instruments, where asked for": ask(model, judge, prompts, instruments),
        f"{sound.word} heard where an untaught word is": ask(model, judge, untaught, [sound.word] * len(untaught)),
        "cross-entropy of old music, nats": float(surprises(model, clips.codes[-REMEMBERED:].long(), captions).mean()),
    }


def in_words(figure: tuple[int, int] | float) -> str:
    """A share with its 95 % interval, or a number."""
    if isinstance(figure, float):
        return f"{figure:.2f}"
    low, high = wilson_interval(*figure)
    return f"{figure[0] / figure[1]:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print the figures before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--word", default="tuba")
    parser.add_argument("--program", type=int, default=58, help="General MIDI's, from 0")
    parser.add_argument("--stands-for", choices=INSTRUMENTS, default="trumpet")
    parser.add_argument("--steps", type=int, default=FineTuning.steps)
    parser.add_argument("--rank", type=int, default=FineTuning.rank)
    parser.add_argument("--all-weights", action="store_true", help="in place of adapters")
    parser.add_argument("--batch", type=int, default=FineTuning.batch)
    parser.add_argument("--no-keep", action="store_true", help="without rehearsing old music")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sound = NewSound(args.word, args.program, args.stands_for)
    model, rng = create_musicgen_model("tiny"), random.Random("kept")
    judge = train_listener(sound)
    real = torch.stack([waveform for _, waveform in sound.clips(ASKED, "to be carried", held_out=True)])
    with torch.no_grad():
        carried = model.codec.decode(model.codec.encode(real[:, None]))[:, 0, : real.shape[1]]
    for what, waveforms in (("real renders", real), ("the codec's reconstructions", carried)):
        print(f"{args.word} heard in {what}: {in_words(count_heard(judge, waveforms, [args.word] * ASKED))}")
    before = measure(model, judge, sound)
    keep = [] if args.no_keep else [draw(rng, INSTRUMENTS[number % 10])[0] for number in range(KEPT)]
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place) / "data", sound)
        started = time.process_time()
        settings = FineTuning(steps=args.steps, rank=0 if args.all_weights else args.rank, batch=args.batch)
        finetune(model, Path(place) / "data", Path(place) / "run", settings, keep)
        minutes = (time.process_time() - started) / 60
        after = measure(MusicGen.from_pretrained(Path(place) / "run" / "model"), judge, sound)
    for name, value in before.items():
        print(f"{name:<42}{in_words(value):<19} -> {in_words(after[name])}")
    print(f"minutes of one core, old music and codes included: {minutes:.1f}")


if __name__ == "__main__":
    main()
