"""The recipes of `musicgen-edu train`: every number of a training, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from musicgen_edu.config import PRESETS, MusicGenConfig
from musicgen_edu.training.data import ClipGroup


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
    adversarial_steps: int = 2_000  # of the same, against a discriminator
    adversarial_batch: int = 6  # segments a step
    adversarial_learning_rate: float = 2e-4
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
    own_groups: tuple[ClipGroup, ...] = ()  # clips that the model writes itself, for what follows
    contrast_batch: int = 4_000  # frames a step, half of them its own
    contrast_steps: int = 0  # in which it learns what it says when captions are contrasted, after all else
    contrast_learning_rate: float = 6e-5
    head_scales: tuple[float, ...] = ()  # by which each codebook's scores are multiplied then; none: they stay
    redrawn_steps: int = 0  # of the codec's decoder behind codes that the model draws, last of all
    redrawn_learning_rate: float = 2e-4
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
        codec_clips=200, codec_steps=0, sharpen_steps=0, adversarial_steps=0,
        groups=(ClipGroup(250, 8_000, 0.24), ClipGroup(500, 600, 0.08), ClipGroup(1_500, 160, 0.04),
                ClipGroup(64, 8_000, 0.44), ClipGroup(250, 8_000, 0.2, spliced=True)),
        aim_steps=200, decoder_batch=4_000, decoder_steps=600, decoder_learning_rate=1.5e-4, save_every=100,
    ),
    # For --start: chords that move and clips that go on, on two cores in two hours. No beginnings of 64 frames, since
    # in them no chord ever changes: what is learned from them sits on its tonic.
    "progressions": Recipe(
        codec_clips=4_000, codec_steps=0, sharpen_learning_rate=3e-4, sharpen_steps=1_000, adversarial_steps=4_000,
        groups=(ClipGroup(250, 5_000, 0.4), ClipGroup(500, 3_000, 0.3), ClipGroup(1_000, 700, 0.17),
                ClipGroup(250, 5_000, 0.13, spliced=True)),
        decoder_batch=6_000, decoder_steps=800, decoder_learning_rate=2e-4, save_every=50,
    ),
    # For --start: the codec's decoder alone, on one core in half an hour. All else stays as it is.
    "highs": Recipe(
        codec_clips=3_000, codec_batch=5, codec_segment=80, codec_steps=0, sharpen_learning_rate=3e-4,
        sharpen_steps=6_000, adversarial_steps=0, groups=(ClipGroup(250, 1_500, 1.0),), decoder_steps=0,
        save_every=400,
    ),
    # For --start: the mode is said more clearly, and all else as before, on two cores in an hour.
    "contrast": Recipe(
        codec_clips=200, codec_steps=0, sharpen_steps=0, adversarial_steps=0,
        groups=(ClipGroup(250, 4_000, 0.75), ClipGroup(1_000, 300, 0.25)), decoder_steps=0,
        own_groups=(ClipGroup(250, 384, 0.75), ClipGroup(1_000, 48, 0.25)), contrast_steps=250, save_every=50,
    ),
    # For --start: what plays is heard more clearly, on one core in an hour. The model is surer of how a sound goes on,
    # and the codec's decoder learns to play codes as the model writes them.
    "clear": Recipe(
        codec_clips=1_000, codec_batch=5, codec_segment=80, codec_steps=0, sharpen_steps=0, adversarial_steps=0,
        groups=(ClipGroup(250, 1_500, 1.0),), decoder_steps=0, head_scales=(1.0, 2.0, 2.0, 2.0),
        redrawn_steps=8_000, save_every=400,
    ),
}  # fmt: skip
GO_ON = ("mode", "progressions", "highs", "contrast", "clear")  # those that need a trained model to start from
