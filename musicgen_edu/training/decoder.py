"""Room 08: teaches text encoder, projection and decoder together to write codes that fit a caption."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.composer.captions import caption
from musicgen_edu.composer.score import ALL_ATTRIBUTES
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.patterns import CodebookPattern
from musicgen_edu.projection import TextProjection
from musicgen_edu.text_encoder import TextEncoder
from musicgen_edu.tokenizer import Tokenizer
from musicgen_edu.training.data import CodedClips

CAPTION_DROPOUT = 0.15  # how often the caption is withheld: guidance needs a model that also knows music without words
ONSET_WEIGHT = 3.0  # frames in which something is struck are few and decide tempo and tune


@dataclass
class Batch:
    """Captions as ids, and the codes that belong to them."""

    text_ids: Int[Tensor, "batch text_tokens"]
    text_mask: Int[Tensor, "batch text_tokens"] | Bool[Tensor, "batch text_tokens"]
    codes: Int[Tensor, "batch codebooks frames"]
    onsets: Bool[Tensor, "batch frames"]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(tensor.to(device) for tensor in (self.text_ids, self.text_mask, self.codes, self.onsets)))


def draw_batch(
    groups: list[tuple[float, CodedClips]],
    frames_per_batch: int,
    tokenizer: Tokenizer,
    seed: str,
    longest: int | None = None,
) -> Batch:
    """A batch from one of the (share, clips) groups, chosen by its share, with freshly worded captions.

    `longest` cuts the clips to their first so many frames, and so puts more of them into a batch.
    """
    rng = random.Random(seed)
    clips = rng.choices([clips for _, clips in groups], [share for share, _ in groups])[0]
    frames = min(longest or clips.codes.shape[2], clips.codes.shape[2])
    size = max(1, frames_per_batch // frames)
    rows = [rng.randrange(len(clips.codes)) for _ in range(size)]
    captions = [caption(ALL_ATTRIBUTES[clips.attributes[row]], rng) for row in rows]
    ids, mask = tokenizer(captions)
    keep = torch.tensor([rng.random() >= CAPTION_DROPOUT for _ in rows])
    return Batch(ids, mask * keep[:, None], clips.codes[rows, :, :frames].long(), clips.onsets[rows, :frames])


class DecoderObjective(nn.Module):
    """The three parts that learn together, and their loss: cross-entropy of the next code of every codebook.

    Only cells of the pattern that hold a frame count (Copet et al. 2023, section 2.2); onset frames count more.
    """

    def __init__(
        self, text_encoder: TextEncoder, projection: TextProjection, decoder: MusicGenDecoder, pattern: CodebookPattern
    ):
        super().__init__()
        self.text_encoder, self.projection, self.decoder = text_encoder, projection, decoder
        self.pattern = pattern

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted loss, and the plain cross-entropy of each codebook in nats."""
        entropies = self.cross_entropies(batch)
        weights = 1 + (ONSET_WEIGHT - 1) * batch.onsets[:, None]
        loss = (entropies * weights).sum() / (weights.sum() * entropies.shape[1])
        by_codebook = {f"codebook{k}": value for k, value in enumerate(entropies.detach().mean(dim=(0, 2)))}
        onsets = entropies.detach().mean(dim=1)[batch.onsets].mean()
        return {"loss": loss, "cross_entropy": entropies.detach().mean(), "onset": onsets, **by_codebook}

    def cross_entropies(self, batch: Batch) -> Float[Tensor, "batch codebooks frames"]:
        """Nats of surprise at each code, given the caption and the codes before it."""
        sequence = self.pattern.interleave(batch.codes, self.decoder.config.special_token)
        mask = batch.text_mask
        # A withheld caption still runs through the encoder (with nothing masked there) and is silenced behind it.
        seen = torch.where(mask.any(dim=1, keepdim=True), mask, torch.ones_like(mask))
        states = self.projection(self.text_encoder(batch.text_ids, seen), mask)
        logits = self.decoder(sequence[:, :, :-1], states, mask)
        logits = self.pattern.deinterleave(logits, batch.codes.shape[2], first_step=1).float()
        return F.cross_entropy(logits.flatten(0, 2), batch.codes.flatten(), reduction="none").view(batch.codes.shape)
