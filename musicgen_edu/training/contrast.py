"""Teaches the decoder to say at once what it says when its prompt is contrasted with the opposite one.

Guidance goes from the scores without a prompt towards those with it, and further. Another prompt may stand in place of
none: "a sad piano melody" and "a happy piano melody" differ in the mode alone, so the way from one to the other
exaggerates the mode and leaves the piano as it is. At every step that costs another run of the decoder. Here the
weights learn it once: the model as it was, the teacher, gives contrasted scores, and the decoder learns to give the
same without contrast (distillation, Hinton et al. 2015, arXiv:1503.02531; of guidance, Meng et al. 2022,
arXiv:2210.03142). Half of the clips are the teacher's own, since it is music gone astray that must turn back.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.samples import CodedClips
from musicgen_edu.composer.score import ALL_ATTRIBUTES, draw_attributes
from musicgen_edu.conditioning import Condition
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.generation import generate_codes
from musicgen_edu.model import MusicGen
from musicgen_edu.training.data import ClipGroup, load_tensors, save_tensors
from musicgen_edu.training.decoder import Batch, DecoderObjective, turn_mode

CONTRAST = 0.4  # how far the teacher goes beyond its own scores; with guidance, so much further: more harms the rest
WRITTEN_AT_ONCE = 48  # clips
Pair = tuple[Batch, Batch]  # clips with their captions, and the same with the mode in the captions turned


class ContrastObjective(nn.Module):
    """Text encoder, projection and decoder, which learn the contrasted scores of what they were at first."""

    def __init__(self, model: MusicGen):
        super().__init__()
        self.learner = DecoderObjective(model.text_encoder, model.projection, model.decoder, model.pattern)
        self.teacher = copy.deepcopy(self.learner).requires_grad_(False)

    def forward(self, batches: tuple[Pair, Pair]) -> dict[str, Tensor]:
        """The mean distance to the teacher over real clips and over the teacher's own, in nats a code.

        Real music is no aim here: its surprises are noise beside these distances, which can all become 0.
        """
        real, own = (self._distance(*pair) for pair in batches)
        return {"loss": real + own, "distance": real.detach(), "distance_own": own.detach()}

    def _distance(self, told: Batch, turned: Batch) -> Float[Tensor, ""]:
        """Kullback–Leibler divergence of the learner's next code from the teacher's."""
        with torch.no_grad():
            here, there = (self.teacher.scores(batch) for batch in (told, turned))
            wanted = (here + CONTRAST * (here - there)).log_softmax(dim=-1)
        given = self.learner.scores(told).log_softmax(dim=-1)
        return (wanted.exp() * (wanted - given)).sum(dim=-1).mean()


class ContrastedDecoder(MusicGenDecoder):
    """The same layers, for writing clips: the scores of the first ones go away from those of `turned`."""

    def __init__(self, decoder: MusicGenDecoder, turned: Condition, max_steps: int) -> None:
        nn.Module.__init__(self)  # it draws no weights of its own
        self.config, self.embed_tokens, self.layers = decoder.config, decoder.embed_tokens, decoder.layers
        self.layer_norm, self.lm_heads = decoder.layer_norm, decoder.lm_heads
        self.turned = turned
        self.cache = DecoderCache(decoder.config, len(turned), max_steps, decoder.device, decoder.cache_dtype)

    def forward(
        self, codes: Int[Tensor, "batch codebooks steps"], condition: Condition, cache: DecoderCache | None = None
    ) -> Float[Tensor, "batch codebooks steps codebook_size"]:
        """The decoder's scores, those of the clips that `turned` speaks of contrasted."""
        logits, count = super().forward(codes, condition, cache), len(self.turned)
        there = super().forward(codes[:count], self.turned, self.cache)
        return torch.cat([logits[:count] + CONTRAST * (logits[:count] - there), logits[count:]])


@torch.inference_mode()
def cached_own_clips(folder: Path, group: ClipGroup, model: MusicGen, seed: int = 0) -> CodedClips:
    """Clips that the model writes with contrast, for captions of training; written at the first call and kept.

    Where nothing is struck is not known of them.
    """
    file = folder / f"own-{group.frames}.safetensors"
    if not file.exists():
        rngs = [random.Random(f"own {seed} {group.frames} {row}") for row in range(group.clips)]
        pieces = [draw_attributes(rng) for rng in rngs]
        codes = []
        for start in tqdm(range(0, group.clips, WRITTEN_AT_ONCE), f"write {group.frames}", leave=False):
            rows = range(start, min(start + WRITTEN_AT_ONCE, group.clips))
            told, turned = (
                model.encode_text([describe(asked[row], random.Random(f"{seed} {row}"))[0] for row in rows])
                for asked in (pieces, [turn_mode(piece) for piece in pieces])
            )
            steps = model.pattern.steps(group.frames)
            contrasted = ContrastedDecoder(model.decoder, turned, steps)
            seeds = [seed + row for row in rows]
            codes.append(
                generate_codes(contrasted, told, group.frames, model.pattern, model.config.sampling, seed=seeds)
            )
        attributes = [ALL_ATTRIBUTES.index(piece) for piece in pieces]
        attributes = torch.tensor(attributes, dtype=torch.int16, device="cpu")
        save_tensors({"codes": torch.cat(codes).short(), "attributes": attributes}, file)
    kept = load_tensors(file)
    return CodedClips(**kept, onsets=torch.zeros_like(kept["codes"][:, 0], dtype=torch.bool))
