"""The stages of a recipe, in order: codec, captions, the decoder's heads, decoder, contrast, redrawn codes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from musicgen_edu.codec import Codec
from musicgen_edu.composer.samples import CodedClips
from musicgen_edu.composer.score import draw_attributes
from musicgen_edu.model import MusicGen
from musicgen_edu.training.aim import aimed_heads, mode_directions
from musicgen_edu.training.codec import CodecObjective
from musicgen_edu.training.codec_start import make_encoder_memoryless, start_as_lapped_transform, start_codebooks
from musicgen_edu.training.contrast import ContrastObjective, Pair, cached_own_clips
from musicgen_edu.training.data import cached_waveforms, compose_clip, to_float
from musicgen_edu.training.decoder import Batch, CaptionObjective, DecoderObjective, draw_batch, word_captions
from musicgen_edu.training.loop import fit
from musicgen_edu.training.recipes import Recipe
from musicgen_edu.training.redrawn import RedrawnObjective, cached_redrawn_codes, draw_pairs
from musicgen_edu.training.sharpening import AdversarialObjective, SharpenObjective

Group = tuple[float, CodedClips]  # the share of the batches, and their clips
# How often the codec's decoder hears an instrument, where it is not once: those that it blurred. A music box is in a
# third of the draws (RUNS.md, round nine).
BLURRED = {"music box": 6.0, "synth": 2.0, "acoustic guitar": 1.7, "piano": 1.5}
# The same for those that it blurs behind the model's own codes.
UNCLEAR = {"music box": 3.0, "synth": 2.0, "acoustic guitar": 1.7, "organ": 1.5, "piano": 1.2}


def train_codec(
    codec: Codec, recipe: Recipe, folder: Path, accelerator: Accelerator, from_nothing: bool = True
) -> None:
    """Start as a lapped transform, warm up as an autoencoder, place the codebooks, train all of it, then its decoder.

    Without `from_nothing` it goes on as it is: the start is left out. Either way its encoder has no memory.
    """
    with accelerator.main_process_first():
        samples = cached_waveforms(folder / "waveforms.safetensors", 250, recipe.codec_clips)
    first = to_float(samples[:160])
    if from_nothing:
        start_as_lapped_transform(codec, first)
    make_encoder_memoryless(codec)
    instruments = [compose_clip(250, seed).attributes.instrument for seed in range(len(samples))]
    segments_of = partial(draw_segments, samples, instruments, codec.config.hop_length, recipe)
    segments = segments_of(recipe.codec_batch, {})
    common = dict(accelerator=accelerator, seed=recipe.seed, save_every=recipe.save_every)
    learning = dict(learning_rate=recipe.codec_learning_rate, **common)
    if from_nothing:
        autoencoder = CodecObjective(codec, quantize=False)
        fit(autoencoder, segments, steps=recipe.codec_warmup_steps, folder=folder / "warmup", **learning)
        codec.cpu()
        torch.manual_seed(recipe.seed)  # as if the warm-up had not run just now, for it may have been loaded
        with torch.no_grad():
            start_codebooks(codec, codec.encoder(first).transpose(1, 2).flatten(0, 1))
    fit(CodecObjective(codec), segments, steps=recipe.codec_steps, folder=folder, **learning)
    _train_codecs_decoder(codec, segments_of, recipe, folder, common)
    codec.cpu().eval()


def _train_codecs_decoder(codec: Codec, segments_of: Callable, recipe: Recipe, folder: Path, common: dict) -> None:
    """The stages that leave the codes alone: first by the spectrum, then against a discriminator."""
    learning = dict(learning_rate=recipe.sharpen_learning_rate, **common)
    segments = segments_of(recipe.codec_batch, BLURRED)
    fit(SharpenObjective(codec), segments, steps=recipe.sharpen_steps, folder=folder / "sharpen", **learning)
    learning = dict(learning_rate=recipe.adversarial_learning_rate, **common)
    segments = segments_of(recipe.adversarial_batch, BLURRED)
    torch.manual_seed(recipe.seed)  # the discriminator begins at random
    adversarial = AdversarialObjective(codec)
    fit(adversarial, segments, steps=recipe.adversarial_steps, folder=folder / "adversarial", **learning)


def draw_segments(
    samples: Int[Tensor, "clips channels samples"], instruments: list[str], hop: int, recipe: Recipe, batch: int,
    shares: dict[str, float],
) -> Callable[[int, int], Float[Tensor, "batch channels segment"]]:  # fmt: skip
    """Batches of segments, by step and process; `shares` tells how often an instrument is drawn, else once."""
    weights = [shares.get(instrument, 1.0) for instrument in instruments]
    length, last = recipe.codec_segment * hop, samples.shape[2] // hop - recipe.codec_segment

    def segments(step: int, process: int) -> Float[Tensor, "batch channels segment"]:
        rng = random.Random(f"{recipe.seed} {step} {process}")
        rows = rng.choices(range(len(samples)), weights, k=batch)
        starts = [rng.randrange(last + 1) * hop for _ in rows]
        chosen = [samples[row, :, start : start + length] for row, start in zip(rows, starts, strict=True)]
        gains = [10 ** rng.uniform(-0.5, 0.0) for _ in rows]  # more levels than the composer's two
        return to_float(torch.stack(chosen)) * torch.tensor(gains, dtype=torch.float32, device="cpu")[:, None, None]

    return segments


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


def train_contrast(
    model: MusicGen, recipe: Recipe, groups: list[Group], folder: Path, accelerator: Accelerator
) -> None:
    """Teach text encoder, projection and decoder what they say themselves when a caption is contrasted."""
    with accelerator.main_process_first():
        own = [(group.share, cached_own_clips(folder, group, model, recipe.seed)) for group in recipe.own_groups]

    def pair(step: int, process: int, clips: list[Group], whose: str) -> Pair:
        seed = f"contrast {whose} {recipe.seed} {step} {process}"
        told, turned = (
            draw_batch(clips, recipe.contrast_batch // 2, model.tokenizer, seed, turned) for turned in (False, True)
        )
        return told, turned

    def batch(step: int, process: int) -> tuple[Pair, Pair]:
        return pair(step, process, groups, "real"), pair(step, process, own, "own")

    fit(ContrastObjective(model), batch, steps=recipe.contrast_steps, learning_rate=recipe.contrast_learning_rate,
        folder=folder, accelerator=accelerator, seed=recipe.seed, save_every=recipe.save_every)  # fmt: skip
    model.cpu().eval()


@torch.no_grad()
def scale_heads(model: MusicGen, scales: Sequence[float]) -> None:
    """Multiply the scores of each codebook, as a temperature of its own would divide them.

    The first codebook says what is played, the others how it sounds: there a likely code is better than another one.
    """
    for head, scale in zip(model.decoder.lm_heads, scales, strict=True):
        head.weight.mul_(scale)


def train_redrawn(model: MusicGen, recipe: Recipe, folder: Path, accelerator: Accelerator) -> None:
    """Teach the codec's decoder to play the codes that the model draws in place of the encoder's."""
    with accelerator.main_process_first():
        samples = cached_waveforms(folder.parent / "codec" / "waveforms.safetensors", 250, recipe.codec_clips)
        codes = cached_redrawn_codes(folder / "codes.safetensors", samples, model, recipe.seed)
    shares = [UNCLEAR.get(compose_clip(250, seed).attributes.instrument, 1.0) for seed in range(len(samples))]
    hop = model.config.codec.hop_length
    pairs = draw_pairs(samples, codes, shares, hop, recipe.codec_segment, recipe.codec_batch, recipe.seed)
    fit(RedrawnObjective(model.codec), pairs, steps=recipe.redrawn_steps, learning_rate=recipe.redrawn_learning_rate,
        folder=folder, accelerator=accelerator, seed=recipe.seed, save_every=recipe.save_every)  # fmt: skip
    model.cpu().eval()
