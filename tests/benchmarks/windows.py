"""How far the shipped model's memory reaches: why its windows are 30 s long, and what windows have to share.

    python tests/benchmarks/windows.py

Real clips of a minute, with their captions. First the cross-entropy of their codes in one window of 60 s, five seconds
at a time; then that of five seconds with less and less of what came before. Needs FluidSynth, and takes minutes.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from musicgen_edu import MusicGen, create_musicgen_model
from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.render import Renderer
from musicgen_edu.training.data import compose_clip, render_clips, to_float

CLIPS, FRAMES, PART = 3, 3000, 250
SEEDS = range(90_000_000, 90_000_000 + CLIPS)  # no training has heard these
CONTEXTS = (1, 2, 5, 8, 12, 20)  # seconds
STARTS = (1300, 2050, 2700)  # frames where the five seconds begin that are foretold


@torch.no_grad()
def surprise(model: MusicGen, codes: Tensor, captions: list[str]) -> Tensor:
    """Nats a code, frame by frame, for codes [batch, codebooks, frames] in one window."""
    sequence = model.pattern.interleave(codes, model.config.decoder.special_token)
    logits = model.decoder(sequence[:, :, :-1], model.encode_text(captions))
    scores = model.pattern.deinterleave(logits, codes.shape[2], first_step=1)
    return F.cross_entropy(scores.movedim(-1, 1), codes, reduction="none").mean(dim=(0, 1))


def main() -> None:
    """Print both tables."""
    model, renderer = create_musicgen_model("tiny"), Renderer()
    waveforms = to_float(render_clips(renderer, FRAMES, SEEDS, True))
    codes = torch.cat([model.codec.encode(waveform[None]) for waveform in waveforms])[:, :, :FRAMES]
    captions = [
        describe(compose_clip(FRAMES, seed, True).attributes, random.Random(seed), held_out=True)[0] for seed in SEEDS
    ]
    for part, values in enumerate(surprise(model, codes, captions).split(PART)):
        print(f"one window of 60 s, second {5 * part:>2} to {5 * part + 5:>2}: {values.mean():.2f} nats a code")
    for context in CONTEXTS:
        parts = [codes[:, :, start - 50 * context : start + PART] for start in STARTS]
        values = torch.stack([surprise(model, part, captions)[50 * context :].mean() for part in parts])
        print(f"with {context:>2} s before them: {values.mean():.2f} nats a code")


if __name__ == "__main__":
    main()
