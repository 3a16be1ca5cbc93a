"""`musicgen-edu train`: the whole way from nothing to a model that `musicgen-edu generate --model FOLDER` plays.

Six stages, each kept in the run's folder and not done twice: tokenizer, codec, codes, captions, decoder, export. Five
recipes go on from a trained model: "mode" with the decoder's heads in place of captions, "progressions", "highs" with
the codec's decoder alone, "contrast" with what the decoder says itself when captions are contrasted, and "clear" with
the codec's decoder behind codes that the decoder draws. A GPU is used where there is one. With several processes
(`torchrun --nproc-per-node 2 -m musicgen_edu.training.recipe …`, on CPUs as on GPUs) each trains on batches of its own,
and they share what they learn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from musicgen_edu._arguments import Parser, outlive_readers
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.composer.captions import caption
from musicgen_edu.composer.render import SAMPLE_RATE
from musicgen_edu.composer.score import draw_attributes
from musicgen_edu.model import MusicGen
from musicgen_edu.tokenizer import Tokenizer, train_tokenizer
from musicgen_edu.training.data import ClipGroup, cached_codes, save_samples
from musicgen_edu.training.loop import claim, create_accelerator
from musicgen_edu.training.recipes import GO_ON, RECIPES, Recipe
from musicgen_edu.training.stages import (
    scale_heads,
    train_codec,
    train_contrast,
    train_decoder,
    train_heads,
    train_redrawn,
    train_to_read,
)

STEPS = ("codec_warmup_steps", "codec_steps", "sharpen_steps", "adversarial_steps", "caption_steps", "aim_steps",
         "decoder_steps", "contrast_steps", "redrawn_steps")  # fmt: skip


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
    if recipe.contrast_steps:
        train_contrast(model, recipe, groups, folder / "contrast", accelerator)
    if recipe.head_scales:
        scale_heads(model, recipe.head_scales)
    if recipe.redrawn_steps:
        train_redrawn(model, recipe, folder / "redrawn", accelerator)
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
    later = ("caption_", "aim_", "decoder_", "sharpen_", "adversarial_", "contrast_", "redrawn_",
             "head_scales", "save_every")  # fmt: skip
    made_from = {name: value for name, value in asdict(recipe).items() if not name.startswith(later)}
    made_from["start"] = fingerprint(named_tensors(start)) if start else None
    claim(folder / "recipe.json", made_from)


def _tokenizer(recipe: Recipe, file: Path) -> Tokenizer:
    if file.exists():
        return Tokenizer(file)
    rng = random.Random(recipe.seed)
    captions = [caption(draw_attributes(rng), rng) for _ in range(recipe.captions)]
    return train_tokenizer(captions, file)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `musicgen-edu train`; returns its exit code."""
    parser = Parser(
        prog="musicgen-edu train",
        description="Train every part: music, captions, tokenizer, codec, text encoder and decoder. "
        "Needs Debian's fluidsynth and fluid-soundfont-gm. A stopped run goes on where it was when started again.",
        epilog="To teach a trained model your own sound: musicgen-edu train --from MODEL --data FOLDER (--help)",
    )
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="laptop", help="how much of everything (default: %(default)s)")
    add("--folder", type=Path, default=Path("runs/tiny"), help="where everything is kept (default: %(default)s)")
    add("--start", metavar="MODEL", type=Path, help="a model's folder to go on from (default: from nothing)")
    add("--codec-steps", metavar="N", type=int, help="default: the recipe's")
    add("--sharpen-steps", metavar="N", type=int, help="of the codec's decoder alone (default: the recipe's)")
    add(
        "--adversarial-steps", metavar="N", type=int, help="of the same against a discriminator (default: the recipe's)"
    )
    add("--decoder-steps", metavar="N", type=int, help="default: the recipe's")
    add("--steps", metavar="N", type=int, help="of every stage at most so many, for a trial (default: the recipe's)")
    add("--clips", type=float, default=1.0, help="share of the music to make, for a shorter trial (default: 1)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    if not 0 < args.clips <= 100:
        parser.error(f"--clips must be more than 0 and at most 100, not {args.clips:g}")
    base = RECIPES[args.recipe]
    names = ("codec_steps", "sharpen_steps", "adversarial_steps", "decoder_steps")
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.recipe in GO_ON and not args.start:
        parser.error(f"the recipe {args.recipe} goes on from a trained model: name its folder with --start")
    if not 0 <= args.seed < 2**32 or min([*chosen.values(), args.steps or 0]) < 0:
        parser.error("steps must be 0 or more, and the seed from 0 to 2**32 − 1")
    recipe = replace(
        base, seed=args.seed, codec_clips=max(200, round(base.codec_clips * args.clips)),
        groups=_share(base.groups, args.clips), own_groups=_share(base.own_groups, args.clips), **chosen,
    )  # fmt: skip
    if args.steps is not None:
        recipe = replace(recipe, **{name: min(args.steps, getattr(recipe, name)) for name in STEPS})
    train(recipe, args.folder, args.start)
    print(f"Hear the model with: musicgen-edu generate PROMPT --model {args.folder / 'model'}")
    return 0


def _share(groups: tuple[ClipGroup, ...], share: float) -> tuple[ClipGroup, ...]:
    return tuple(replace(group, clips=max(1, round(group.clips * share))) for group in groups)


if __name__ == "__main__":
    with outlive_readers():
        raise SystemExit(main())
