"""Room 09: the codec's decoder learns to play codes as the model writes them, not only as the encoder does.

What instrument plays can be read from the model's own codes nearly as surely as from the encoder's, and yet is heard
less well in their sound: where several codes would do, the model draws one, and the codec's decoder never met such a
choice. Here it does. The codes of real clips are drawn anew by the model, each given the real ones before it, and what
is to be heard stays the real clip. So learned the vocoder of Tacotron 2, from spectrograms that were predicted with the
real past (Shen et al. 2017, arXiv:1712.05884, section 3.1). Drawn again with these as their past, codes drift further,
as those of a clip of the model's own do, while every note stays in its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from musicgen_edu.config import SamplingSettings
from musicgen_edu.devices import own_precision
from musicgen_edu.model import MusicGen
from musicgen_edu.sampling import apply_guidance, create_generators, filter_logits, sample
from musicgen_edu.spectrogram import mel_distance
from musicgen_edu.training.data import compose_clip, load_tensors, save_tensors, to_float
from musicgen_edu.training.decoder import Batch, DecoderObjective, word_captions
from musicgen_edu.training.sharpening import WEIGHTS, SharpenObjective

TIMES = 1, 2, 4  # how often codes are drawn anew
AT_ONCE = 20  # clips
# Whose codes were drawn anew cannot be right sample for sample: there the error itself counts for little.
REAL_WEIGHTS = WEIGHTS | {"noise": 0.3, "mel": 0.3}
REDRAWN_WEIGHTS = WEIGHTS | {"noise": 0.02, "mel": 0.3}
Pair = tuple[Float[Tensor, "_ channels samples"], Int[Tensor, "_ codebooks frames"]]  # sound, and codes for it


class RedrawnObjective(SharpenObjective):
    """The codec's decoder behind codes that are given: real ones, and such as the model drew in their place."""

    def forward(self, batch: tuple[Pair, Pair]) -> dict[str, Tensor]:
        """The loss over real and redrawn codes, and the parts of each."""
        figures = {"loss": 0.0}
        with own_precision(batch[0][0].device):
            kinds = ("real", REAL_WEIGHTS), ("redrawn", REDRAWN_WEIGHTS)
            for (kind, weights), (waveform, codes) in zip(kinds, batch, strict=True):
                rebuilt = self.codec.decoder(self.codec.dequantize(codes))
                losses = self._distances(rebuilt, waveform) | self._loud_distances(rebuilt, waveform)
                losses["mel"] = mel_distance(rebuilt, waveform, self.codec.config.sample_rate)
                figures["loss"] = figures["loss"] + sum(weight * losses[name] for name, weight in weights.items())
                figures |= {f"{name}_{kind}": loss.detach() for name, loss in losses.items()}
        return figures


@torch.inference_mode()
def redraw(
    objective: DecoderObjective, batch: Batch, settings: SamplingSettings, seed: int
) -> Int[Tensor, "batch codebooks frames"]:
    """Draw every code of the batch anew, with guidance, given its caption and the batch's codes before it."""
    told = objective.scores(batch)
    null = objective.scores(replace(batch, text_mask=torch.zeros_like(batch.text_mask)))
    scores = apply_guidance(told, null, settings.guidance_scale)
    scores = filter_logits(scores, settings.temperature, settings.top_k, settings.top_p)
    return sample(scores.flatten(1, 2), create_generators(seed, len(scores))).view(batch.codes.shape)


def cached_redrawn_codes(
    file: Path, samples: Int[Tensor, "clips channels samples"], model: MusicGen, seed: int = 0
) -> Int[Tensor, "times clips codebooks frames"]:
    """The codes of composed clips, as they are and drawn anew once, twice and four times; made once and kept."""
    if not file.exists():
        parts = model.text_encoder, model.projection, model.decoder, model.pattern
        objective = DecoderObjective(*parts).eval()
        written = [
            _redraw_all(objective, model, samples[start : start + AT_ONCE], start, seed)
            for start in tqdm(range(0, len(samples), AT_ONCE), "redraw", leave=False)
        ]
        save_tensors({"codes": torch.cat(written, dim=1).short()}, file)
    return load_tensors(file)["codes"]


def _redraw_all(objective: DecoderObjective, model: MusicGen, samples: Tensor, first: int, seed: int) -> Tensor:
    """What `cached_redrawn_codes` keeps, of a few clips; `first` is the number of the first of them."""
    codes = model.codec.encode(to_float(samples))
    frames, rng = codes.shape[2], random.Random(f"redraw {seed} {first}")
    pieces = [compose_clip(frames, first + row).attributes for row in range(len(codes))]
    ids, mask, said = word_captions(pieces, model.tokenizer, rng)
    onsets = torch.zeros(len(codes), frames, dtype=torch.bool, device="cpu")  # not asked for here
    kept = [codes]
    for time in range(1, max(TIMES) + 1):
        batch = Batch(ids, mask, codes, onsets, said)
        codes = redraw(objective, batch, model.config.sampling, seed + max(TIMES) * first + time)
        if time in TIMES:
            kept.append(codes)
    return torch.stack(kept)


def draw_pairs(
    samples: Int[Tensor, "clips channels samples"], codes: Int[Tensor, "times clips codebooks frames"],
    shares: list[float], hop: int, segment: int, batch: int, seed: int,
) -> Callable[[int, int], tuple[Pair, Pair]]:  # fmt: skip
    """Batches of segments by step and process: two fifths with their real codes, the others with redrawn ones.

    `shares` tells how often each clip is drawn; `hop` is in samples a frame, `segment` in frames.
    """
    real = max(1, 2 * batch // 5)

    def cut(rng: random.Random, count: int, redrawn: bool) -> Pair:
        rows = rng.choices(range(codes.shape[1]), shares, k=count)
        starts = [rng.randrange(codes.shape[3] - segment + 1) for _ in rows]
        times = [rng.randrange(1, len(codes)) if redrawn else 0 for _ in rows]
        sound = [samples[row, :, start * hop : (start + segment) * hop]
                 for row, start in zip(rows, starts, strict=True)]  # fmt: skip
        written = [codes[time, row, :, start : start + segment]
                   for time, row, start in zip(times, rows, starts, strict=True)]  # fmt: skip
        return to_float(torch.stack(sound)), torch.stack(written).long()

    def pairs(step: int, process: int) -> tuple[Pair, Pair]:
        rng = random.Random(f"pairs {seed} {step} {process}")
        return cut(rng, real, redrawn=False), cut(rng, batch - real, redrawn=True)

    return pairs
