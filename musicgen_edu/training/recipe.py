"""`musicgen-edu train`: the whole way from nothing to a model that `musicgen-edu generate --model FOLDER` plays.

Six stages, each kept in the run's folder and not done twice: tokenizer, codec, codes, captions, decoder, export. The
recipe "mode", which goes on from a trained model, has the decoder's heads in place of the captions. A GPU is used where
there is one. With several processes (`torchrun --nproc-per-node 2 -m musicgen_edu.training.recipe …`, on CPUs as on
GPUs) each trains on batches of its own, and they share what they learn.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from musicgen_edu._arguments import Parser
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.codec import Codec
from musicgen_edu.composer.captions import caption
from musicgen_edu.composer.render import SAMPLE_RATE
from musicgen_edu.composer.samples import CodedClips
from musicgen_edu.composer.score import draw_attributes
from musicgen_edu.config import PRESETS, MusicGenConfig
from musicgen_edu.files import write_whole
from musicgen_edu.model import MusicGen
from musicgen_edu.tokenizer import Tokenizer, train_tokenizer
from musicgen_edu.training.aim import aimed_heads, mode_directions
from musicgen_edu.training.codec import CodecObjective, SharpenObjective
from musicgen_edu.training.codec_start import make_encoder_memoryless, start_as_lapped_transform, start_codebooks
from musicgen_edu.training.data import ClipGroup, cached_codes, cached_waveforms, save_samples, to_float
from musicgen_edu.training.decoder import Batch, CaptionObjective, DecoderObjective, draw_batch, word_captions
from musicgen_edu.training.loop import create_accelerator, fit

Group = tuple[float, CodedClips]  # the share of the batches, and their clips


@dataclass(frozen=True)
class Recipe:
    """Every number of a training. What made the shipped weights, run by run, stands in RUNS.md."""

    config: MusicGenConfig = PRESETS["tiny"]
    captions: int = 30_000  # that the tokenizer learns from
    codec_clips: int = 6_000  # of five seconds
    codec_batch: int = 12  # segments a step
    codec_segment: int = 64  # frames in a segment
    codec_warmup_steps: int = 60  # as an autoencoder, before the quantizer
    codec_steps: int = 6_000
    codec_learning_rate: float = 4e-4
    sharpen_steps: int = 1_000  # of the codec's decoder alone, behind codes that stay
    sharpen_learning_rate: float = 1e-4
    # Whole clips, clips of twice the length, and beginnings, in which the caption decides.
    groups: tuple[ClipGroup, ...] = (ClipGroup(250, 9_000, 0.6), ClipGroup(500, 1_000, 0.2), ClipGroup(64, 10_000, 0.2))
    caption_steps: int = 1_500  # of the text encoder alone, before the decoder
    caption_batch: int = 64  # captions a step
    caption_learning_rate: float = 1.5e-3
    aim_steps: int = 0  # of the decoder's heads alone, towards the mode, before the decoder goes on
    aim_learning_rate: float = 0.1
    decoder_batch: int = 1_250  # frames a step
    decoder_steps: int = 6_000
    decoder_learning_rate: float = 5e-4
    save_every: int = 200  # steps between two saved states
    seed: int = 0


RECIPES = {
    "laptop": Recipe(),
    # What most of the shipped weights took on one H100, in 25 minutes; a CPU did the sharpening and then "mode"
    # (RUNS.md). Some clips last half a minute, so that the model can go so long.
    "gpu": Recipe(
        codec_clips=20_000, codec_batch=96, codec_steps=20_000, codec_learning_rate=5e-4,
        groups=(ClipGroup(250, 120_000, 0.45), ClipGroup(500, 30_000, 0.2), ClipGroup(1_500, 10_000, 0.15),
                ClipGroup(64, 60_000, 0.2)),
        caption_batch=256, decoder_batch=16_000, decoder_steps=23_000, decoder_learning_rate=7e-4, save_every=4_000,
    ),
    # For --start: the mode, taught on two cores in an hour (half of it to make the music) to weights that know all
    # else. The codec stays.
    "mode": Recipe(
        codec_clips=200, codec_steps=0, sharpen_steps=0,
        groups=(ClipGroup(250, 8_000, 0.24), ClipGroup(500, 600, 0.08), ClipGroup(1_500, 160, 0.04),
                ClipGroup(64, 8_000, 0.44), ClipGroup(250, 8_000, 0.2, spliced=True)),
        aim_steps=200, decoder_batch=4_000, decoder_steps=600, decoder_learning_rate=1.5e-4, save_every=100,
    ),
}  # fmt: skip


def train(recipe: Recipe, folder: Path, start: Path | None = None) -> MusicGen:
    """Run the recipe, or what is left of it, in `folder`; the model is saved in `folder`/model.

    `start` is a model's folder to go on from, with its sizes and its tokenizer; without it all begins from nothing.

    Raises:
        FileNotFoundError: FluidSynth's soundfont is not installed.
        ValueError: `folder` holds another recipe's music or codes, or `start` cannot be trained.
    """
    torch.set_flush_denormal(True)  # numbers under 1e-38 are slow on CPUs and say nothing
    torch.backends.cudnn.allow_tf32 = False  # a GPU, too, should write the codes that the codec means
    accelerator = create_accelerator()
    model = _open(start) if start else None
    folder.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        _claim(folder, recipe, model)
        tokenizer = model.tokenizer if model else _tokenizer(recipe, folder / "tokenizer.model")
    if model is None:
        text_encoder = replace(recipe.config.text_encoder, vocab_size=tokenizer.vocab_size)
        torch.manual_seed(recipe.seed)
        model = MusicGen(replace(recipe.config, text_encoder=text_encoder), tokenizer)
    train_codec(model.codec, recipe, folder / "codec", accelerator, from_nothing=not start)
    with accelerator.main_process_first():
        model.codec.to(accelerator.device)
        groups = [(group.share, cached_codes(folder / "codes", group, model.codec)) for group in recipe.groups]
        model.codec.cpu()
    if not start:
        train_to_read(model, recipe, folder / "captions", accelerator)
    if recipe.aim_steps:
        train_heads(model, recipe, groups, folder / "aim", accelerator)
    train_decoder(model, recipe, groups, folder / "decoder", accelerator, from_nothing=not start)
    if accelerator.is_main_process:
        model.save_pretrained(folder / "model", dtype=torch.bfloat16)
        save_samples(folder / "data", groups[0][1])
    return model


def _open(start: Path) -> MusicGen:
    model = MusicGen.from_pretrained(start)
    if model.tokenizer is None or model.projection is None or model.config.codec.sample_rate != SAMPLE_RATE:
        raise ValueError(
            f"{start} cannot be trained: that takes a tokenizer, a text projection and a codec of {SAMPLE_RATE} Hz."
        )
    return model


def _claim(folder: Path, recipe: Recipe, start: MusicGen | None) -> None:
    """Note what the folder's music and codes are made from, and refuse a folder in which that is something else."""
    later = ("caption_", "aim_", "decoder_", "sharpen_", "save_every")
    made_from = {name: value for name, value in asdict(recipe).items() if not name.startswith(later)}
    made_from["start"] = fingerprint(named_tensors(start)) if start else None
    content = json.dumps(made_from, indent=2) + "\n"
    note = folder / "recipe.json"
    if note.exists() and note.read_text(encoding="utf-8") != content:
        raise ValueError(f"{folder} holds a training with other settings (see {note}): choose another --folder.")
    write_whole(note, content.encode())


def _tokenizer(recipe: Recipe, file: Path) -> Tokenizer:
    if file.exists():
        return Tokenizer(file)
    rng = random.Random(recipe.seed)
    captions = [caption(draw_attributes(rng), rng) for _ in range(recipe.captions)]
    return train_tokenizer(captions, file)


def train_codec(
    codec: Codec, recipe: Recipe, folder: Path, accelerator: Accelerator, from_nothing: bool = True
) -> None:
    """Start as a lapped transform, warm up as an autoencoder, place the codebooks, train all of it, then its decoder.

    Without `from_nothing` only the last two: the codec goes on as it is. Either way its encoder has no memory.
    """
    with accelerator.main_process_first():
        samples = cached_waveforms(folder / "waveforms.safetensors", 250, recipe.codec_clips)
    hop, first = codec.config.hop_length, to_float(samples[:160])
    if from_nothing:
        start_as_lapped_transform(codec, first)
    make_encoder_memoryless(codec)

    def segments(step: int, process: int) -> Tensor:
        rng = random.Random(f"{recipe.seed} {step} {process}")
        length, last = recipe.codec_segment * hop, samples.shape[2] // hop - recipe.codec_segment
        starts = [rng.randrange(last + 1) * hop for _ in range(recipe.codec_batch)]
        chosen = [samples[rng.randrange(len(samples)), :, start : start + length] for start in starts]
        gains = [10 ** rng.uniform(-0.5, 0.0) for _ in starts]  # more levels than the composer's two
        return to_float(torch.stack(chosen)) * torch.tensor(gains)[:, None, None]

    common = dict(learning_rate=recipe.codec_learning_rate, accelerator=accelerator, seed=recipe.seed,
                  save_every=recipe.save_every)  # fmt: skip
    if from_nothing:
        autoencoder = CodecObjective(codec, quantize=False)
        fit(autoencoder, segments, steps=recipe.codec_warmup_steps, folder=folder / "warmup", **common)
        codec.cpu()
        torch.manual_seed(recipe.seed)  # as if the warm-up had not run just now, for it may have been loaded
        with torch.no_grad():
            start_codebooks(codec, codec.encoder(first).transpose(1, 2).flatten(0, 1))
    fit(CodecObjective(codec), segments, steps=recipe.codec_steps, folder=folder, **common)
    common["learning_rate"] = recipe.sharpen_learning_rate
    fit(SharpenObjective(codec), segments, steps=recipe.sharpen_steps, folder=folder / "sharpen", **common)
    codec.cpu().eval()


def train_to_read(model: MusicGen, recipe: Recipe, folder: Path, accelerator: Accelerator) -> None:
    """Train text encoder and projection to read captions, before there is music to explain them away.

    Once a clip is under way, its own past tells nearly everything about it: through the decoder alone the text encoder
    would learn slowly.
    """

    def captions(step: int, process: int) -> tuple[Tensor, ...]:
        rng = random.Random(f"captions {recipe.seed} {step} {process}")
        pieces = [draw_attributes(rng) for _ in range(recipe.caption_batch)]
        return word_captions(pieces, model.tokenizer, rng)

    torch.manual_seed(recipe.seed)
    reading = CaptionObjective(model.text_encoder, model.projection, model.decoder.config.hidden_size)
    fit(reading, captions, steps=recipe.caption_steps, learning_rate=recipe.caption_learning_rate, folder=folder,
        accelerator=accelerator, seed=recipe.seed, save_every=recipe.save_every)  # fmt: skip


def train_heads(model: MusicGen, recipe: Recipe, groups: list[Group], folder: Path, accelerator: Accelerator) -> None:
    """Teach the decoder's heads alone to read the mode that the caption asks for, where the past misleads."""
    spliced = [(share, clips) for share, clips in groups if clips.partners] or groups

    def batch(step: int, process: int) -> Batch:
        return draw_batch(spliced, recipe.decoder_batch, model.tokenizer, f"aim {recipe.seed} {step} {process}")

    torch.manual_seed(recipe.seed)
    parts = model.text_encoder, model.projection, model.decoder, model.pattern
    objective = DecoderObjective(*parts, heed_words=True, aided=False).cpu()
    with aimed_heads(objective, mode_directions(objective, spliced[0][1], model.tokenizer, recipe.seed)):
        fit(objective, batch, steps=recipe.aim_steps, learning_rate=recipe.aim_learning_rate, folder=folder,
            accelerator=accelerator, seed=recipe.seed, save_every=recipe.save_every)  # fmt: skip
    objective.cpu()


def train_decoder(
    model: MusicGen, recipe: Recipe, groups: list[Group], folder: Path, accelerator: Accelerator,
    from_nothing: bool = True,
) -> None:  # fmt: skip
    """Train text encoder, projection and decoder together on codes and freshly worded captions.

    Without `from_nothing` they have no aid: classifiers that know nothing yet would pull their states astray.
    """

    def batch(step: int, process: int) -> Batch:
        seed = f"{recipe.seed} {step} {process}"
        return draw_batch(groups, recipe.decoder_batch, model.tokenizer, seed)

    torch.manual_seed(recipe.seed)
    parts = model.text_encoder, model.projection, model.decoder, model.pattern
    objective = DecoderObjective(*parts, heed_words=True, aided=from_nothing)
    fit(objective, batch, steps=recipe.decoder_steps, learning_rate=recipe.decoder_learning_rate, folder=folder,
        accelerator=accelerator, seed=recipe.seed, save_every=recipe.save_every)  # fmt: skip
    objective.cpu().eval()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `musicgen-edu train`; returns its exit code."""
    parser = Parser(
        prog="musicgen-edu train",
        description="Train every part: music, captions, tokenizer, codec, text encoder and decoder. "
        "Needs Debian's fluidsynth and fluid-soundfont-gm. A stopped run goes on where it was when started again.",
    )
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="laptop", help="how much of everything (default: %(default)s)")
    add("--folder", type=Path, default=Path("runs/tiny"), help="where everything is kept (default: %(default)s)")
    add("--start", metavar="MODEL", type=Path, help="a model's folder to go on from (default: from nothing)")
    add("--codec-steps", metavar="N", type=int, help="default: the recipe's")
    add("--sharpen-steps", metavar="N", type=int, help="of the codec's decoder alone (default: the recipe's)")
    add("--decoder-steps", metavar="N", type=int, help="default: the recipe's")
    add("--clips", type=float, default=1.0, help="share of the music to make, for a shorter trial (default: 1)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    if not 0 < args.clips <= 100:
        parser.error(f"--clips must be more than 0 and at most 100, not {args.clips:g}")
    base = RECIPES[args.recipe]
    chosen = {name: getattr(args, name) for name in ("codec_steps", "sharpen_steps", "decoder_steps")}
    chosen = {name: steps for name, steps in chosen.items() if steps is not None}
    if args.recipe == "mode" and not args.start:
        parser.error("the recipe mode goes on from a trained model: name its folder with --start")
    if not 0 <= args.seed < 2**32 or min(chosen.values(), default=0) < 0:
        parser.error("steps must be 0 or more, and the seed from 0 to 2**32 − 1")
    recipe = replace(
        base, seed=args.seed, codec_clips=max(200, round(base.codec_clips * args.clips)),
        groups=tuple(replace(group, clips=max(1, round(group.clips * args.clips))) for group in base.groups), **chosen,
    )  # fmt: skip
    train(recipe, args.folder, args.start)
    print(f"Hear the model with: musicgen-edu generate PROMPT --model {args.folder / 'model'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
