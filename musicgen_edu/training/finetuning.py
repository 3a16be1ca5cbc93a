"""Room 15: `musicgen-edu train --from MODEL --data FOLDER` teaches a trained model one thing more.

The decoder goes on learning on somebody's own clips: all its weights, or low-rank adapters beside them (Hu et al. 2021,
arXiv:2106.09685), which learn W + B·A with thin matrices A and B and are added into W at the end, so that the result is
a checkpoint like any other. The codec stays what it was, and so does the text encoder, but for words that no caption
ever held: each becomes a piece of the tokenizer, whose vector learns along. In letters it would have none of its own,
for theirs belong to every word that is spelled.

What a model is not reminded of, it forgets. So that it need not be given its old music, it plays some of its own before
it learns, from prompts that must keep their meaning, and rehearses it along (Robins 1995, "Catastrophic forgetting,
rehearsal and pseudorehearsal").
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from musicgen_edu._arguments import Parser
from musicgen_edu._checks import check_path
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.model import MusicGen
from musicgen_edu.presets import SHIPPED
from musicgen_edu.tokenizer import WORD_VOCABULARY, Tokenizer
from musicgen_edu.training.audio_folder import CaptionedCodes, read_audio_folder
from musicgen_edu.training.data import load_tensors, save_tensors
from musicgen_edu.training.decoder import CAPTION_DROPOUT, UNSAID, Batch, DecoderObjective
from musicgen_edu.training.loop import claim, create_accelerator, fit

# Every matrix of every layer, and the heads, which must learn to choose codes that they seldom chose; embeddings stay.
ADAPTED = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)|lm_heads\.\d+"
LEARNING_RATES = {"adapters": 1e-3, "all weights": 5e-4}  # adapters begin at 0 and have further to go
WORD_RATE = 5.0  # times the learning rate: a word's vector has as far to go as an adapter, in numbers 30 times as large
BATCH_OF_PROMPTS = 8  # that are played at a time


@dataclass(frozen=True)
class FineTuning:
    """Every number of a fine-tuning."""

    steps: int = 200
    rank: int = 16  # of the adapters; 0 trains all weights of the decoder and the projection
    learning_rate: float | None = None  # None: as LEARNING_RATES says
    seconds: float = 5.0  # the longest excerpt of a clip
    batch: int = 8  # excerpts a step; where there is music to keep, half of them are that
    save_every: int = 50  # steps between two saved states
    seed: int = 0

    @property
    def peak_rate(self) -> float:
        """The learning rate that holds."""
        usual = LEARNING_RATES["adapters" if self.rank else "all weights"]
        return usual if self.learning_rate is None else self.learning_rate


def finetune(
    model: MusicGen,
    data: str | os.PathLike,
    folder: str | os.PathLike,
    settings: FineTuning | None = None,
    keep: Sequence[str] = (),
) -> None:
    """Teach `model` the clips of `data`, or what is left of that, and save it in `folder`/model.

    `keep` are prompts that must keep their meaning. Stopped at any moment, it goes on when it is called again.

    Raises:
        FileNotFoundError: there is no folder `data`.
        ValueError: nothing in `data` can be used, or `folder` holds another training.
        FloatingPointError: the loss or a weight is no number any more; the last good state is kept.
    """
    settings, folder = settings or FineTuning(), check_path(folder)
    if model.tokenizer is None:
        raise ValueError("This model has no tokenizer, so no caption can be read: put spiece.model into its folder.")
    clips = read_audio_folder(data, model.codec, folder / "codes")
    claim(folder / "finetuning.json", _made_from(model, clips, settings, keep))
    kept = play_own_music(model, keep, settings, folder / "kept.safetensors")
    frames = round(settings.seconds * model.config.codec.frame_rate)

    def batch(step: int, process: int) -> Batch:
        rng = random.Random(f"{settings.seed} {step} {process}")
        groups = (clips, kept) if kept else (clips,)
        chosen = [rng.choice(groups[number % len(groups)]) for number in range(settings.batch)]
        return make_batch(chosen, frames, model.tokenizer, rng)

    torch.manual_seed(settings.seed)
    with learning_part(model, settings.rank), learning_words(model, [clip.caption for clip in clips]):
        parts = model.text_encoder, model.projection, model.decoder, model.pattern
        objective = DecoderObjective(*parts, heed_words=True, aided=False)
        objective.rates = {"text_encoder.": WORD_RATE}
        fit(objective, batch, steps=settings.steps, learning_rate=settings.peak_rate, folder=folder,
            accelerator=create_accelerator(), seed=settings.seed, save_every=settings.save_every,
            warmup=max(1, settings.steps // 10))  # fmt: skip
        objective.cpu().eval()
    model.save_pretrained(folder / "model")


@contextmanager
def learning_part(model: MusicGen, rank: int) -> Iterator[None]:
    """Inside, only this part of `model` learns: adapters of that rank or, at 0, decoder and projection.

    Behind it the adapters are part of the weights; after an error they are gone.
    """
    model.requires_grad_(False)
    adapters = None
    if rank:
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ADAPTED)
        adapters = LoraModel(model.decoder, config, "own_sound")
    else:
        model.decoder.requires_grad_(True)
        if model.projection is not None:
            model.projection.requires_grad_(True)
    learned = False
    try:
        yield
        learned = True
    finally:
        if adapters is not None:
            adapters.merge_and_unload() if learned else adapters.unload()
        model.requires_grad_(True)


@contextmanager
def learning_words(model: MusicGen, captions: Sequence[str]) -> Iterator[list[str]]:
    """Inside, each word of the captions that `model` does not know has a piece, and a vector that learns; yield them.

    Behind it the words are the model's; after an error they are gone. A vocabulary as large as T5's has pieces for
    every word, and stays as it is.
    """
    known, before = model.tokenizer, model.config
    small = known.vocab_size < WORD_VOCABULARY
    words = sorted({word for caption in captions for word in known.unknown_words(caption)}) if small else []
    if not words:
        yield []
        return
    model.tokenizer = known.with_words(words)
    model.text_encoder.resize(model.tokenizer.vocab_size)
    model.config = replace(before, text_encoder=model.text_encoder.config)
    table = model.text_encoder.model.encoder.embed_tokens.requires_grad_(False)
    register_parametrization(table, "weight", LastRows(table.weight[-len(words) :]))
    learned = False
    try:
        yield words
        learned = True
    finally:
        remove_parametrizations(table, "weight", leave_parametrized=learned)
        if not learned:
            model.tokenizer, model.config = known, before
            model.text_encoder.resize(known.vocab_size)


class LastRows(nn.Module):
    """Of a table of vectors only the last rows learn: a parametrization of its weight."""

    def __init__(self, rows: Float[Tensor, "words text_width"]):
        super().__init__()
        self.rows = nn.Parameter(rows.clone())

    def forward(self, table: Float[Tensor, "pieces text_width"]) -> Float[Tensor, "pieces text_width"]:
        """The table with these rows at its end."""
        return torch.cat([table[: -len(self.rows)], self.rows])


def play_own_music(model: MusicGen, prompts: Sequence[str], settings: FineTuning, file: Path) -> list[CaptionedCodes]:
    """What the model plays to the prompts before it learns anything new: made at the first call, and kept in `file`."""
    if not prompts:
        return []
    if not file.exists():
        parts = []
        for start in range(0, len(prompts), BATCH_OF_PROMPTS):
            texts = list(prompts[start : start + BATCH_OF_PROMPTS])
            seeds = list(range(settings.seed + start, settings.seed + start + len(texts)))
            parts.append(model.generate(texts, settings.seconds, seed=seeds).codes)
        save_tensors({"codes": torch.cat(parts).short()}, file)
    codes = load_tensors(file)["codes"].long()
    return [CaptionedCodes(prompt, row) for prompt, row in zip(prompts, codes, strict=True)]


def make_batch(clips: Sequence[CaptionedCodes], frames: int, tokenizer: Tokenizer, rng: random.Random) -> Batch:
    """Excerpts of at most `frames` frames, the shorter ones padded; some captions are withheld, as guidance needs."""
    codes, counted = zip(*(_excerpt(clip.codes, frames, rng) for clip in clips), strict=True)
    ids, mask = tokenizer([clip.caption for clip in clips])
    kept = [rng.random() >= CAPTION_DROPOUT for _ in clips]
    said = torch.tensor(kept, dtype=torch.bool, device="cpu")[:, None]
    counted = torch.stack(counted)
    unsaid = torch.full_like(mask[:, :1], UNSAID, dtype=torch.long)
    return Batch(ids, mask * said, torch.stack(codes), torch.zeros_like(counted), unsaid, counted)


def _excerpt(
    codes: Int[Tensor, "codebooks all_frames"], frames: int, rng: random.Random
) -> tuple[Int[Tensor, "codebooks frames"], Bool[Tensor, " frames"]]:
    """`frames` frames from a random one on, and which of them are the clip's own."""
    start = rng.randrange(max(1, codes.shape[1] - frames + 1))
    excerpt = codes[:, start : start + frames]
    missing = frames - excerpt.shape[1]
    return F.pad(excerpt, (0, missing)), torch.arange(frames, dtype=torch.long, device="cpu") < frames - missing


def _made_from(model: MusicGen, clips: list[CaptionedCodes], settings: FineTuning, keep: Sequence[str]) -> dict:
    music = {f"{number} {clip.caption}": clip.codes for number, clip in enumerate(clips)}
    return asdict(settings) | {
        "start": fingerprint(named_tensors(model)), "clips": fingerprint(music), "keep": list(keep)
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `musicgen-edu train --from`; returns its exit code."""
    parser = Parser(
        prog="musicgen-edu train",
        description="Teach a trained model your own sound, from a folder of audio files with captions: a text file "
        "beside each (drone.wav, drone.txt), or one CSV table with the columns file and caption. "
        "A stopped run goes on where it was when started again.",
    )
    add = parser.add_argument
    add("--from", dest="start", metavar="MODEL", required=True, help='"tiny", a folder, or a name on the hub')
    add("--data", metavar="FOLDER", type=Path, required=True, help="your audio files and captions")
    add("--folder", type=Path, default=Path("runs/own-sound"), help="where everything is kept (default: %(default)s)")
    add("--keep", metavar="FILE", type=Path, help="prompts that must keep their meaning, one a line")
    add("--steps", type=int, default=FineTuning.steps, help="default: %(default)s")
    add("--rank", type=int, default=FineTuning.rank, help="of the low-rank adapters (default: %(default)s)")
    add("--all-weights", action="store_true", help="train the whole decoder instead of adapters")
    add("--learning-rate", metavar="R", type=float, help="default: 1e-3 for adapters, 5e-4 for all weights")
    add("--batch", type=int, default=FineTuning.batch, help="excerpts a step (default: %(default)s)")
    add("--seconds", type=float, default=FineTuning.seconds, help="of the longest excerpt (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    if min(args.steps, args.rank, args.batch) < 1 or not 0 <= args.seed < 2**32:
        parser.error("steps, rank and batch must be at least 1, and the seed from 0 to 2**32 − 1")
    if not 0 < args.seconds < math.inf or not 0 < (1 if args.learning_rate is None else args.learning_rate) < math.inf:
        parser.error("seconds and the learning rate must be more than 0")
    keep = [line.strip() for line in args.keep.read_text(encoding="utf-8-sig").splitlines()] if args.keep else []
    settings = FineTuning(args.steps, 0 if args.all_weights else args.rank, args.learning_rate, args.seconds,
                          args.batch, seed=args.seed)  # fmt: skip
    model = MusicGen.from_pretrained(SHIPPED if args.start == "tiny" else args.start)
    finetune(model, args.data, args.folder, settings, [prompt for prompt in keep if prompt])
    print(f"Hear the model with: musicgen-edu generate PROMPT --model {args.folder / 'model'}")
    return 0
