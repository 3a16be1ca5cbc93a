"""Room 08: teaches text encoder, projection and decoder together to write codes that fit a caption."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.samples import CodedClips
from musicgen_edu.composer.score import ALL_ATTRIBUTES, MODES, VALUES, Attributes
from musicgen_edu.conditioning import Condition, TextMask
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.patterns import CodebookPattern
from musicgen_edu.projection import TextProjection, zero_padding
from musicgen_edu.text_encoder import TextEncoder
from musicgen_edu.tokenizer import Tokenizer

CAPTION_DROPOUT = 0.15  # how often the caption is withheld: guidance needs a model that also knows music without words
ONSET_WEIGHT = 3.0  # frames in which something is struck are few and decide tempo and tune
CHANGE_WEIGHT = 8.0  # instead, where a new chord begins: without a progression, music sits on its tonic
# How often clips of an instrument are drawn, where it is not once: those that are heard least well.
INSTRUMENT_SHARES = {"organ": 1.5, "trumpet": 1.5, "flute": 1.5, "music box": 1.5}
ONSET_FRAMES = 3  # that count so: 20 ms are too short to hear a pitch in, and the two frames after it surprise as much
PAST_DROPOUT = 0.1  # how often a clip's past is withheld up to a random step, so that only the caption tells
CODE_NOISE = 0.05  # the share of the past's codes that are wrong, so that the decoder survives mistakes of its own
ATTRIBUTES_WEIGHT = 0.5  # of the attributes' loss beside the codes'
UNSAID = -1


@dataclass
class Batch:
    """Captions as ids, what they say, and the codes that belong to them."""

    text_ids: Int[Tensor, "batch text_tokens"]
    text_mask: TextMask
    codes: Int[Tensor, "batch codebooks frames"]
    onsets: Bool[Tensor, "batch frames"]
    said: Int[Tensor, "batch attributes"]  # which value each attribute has, or UNSAID
    counted: Bool[Tensor, "batch frames"] | None = None  # the frames whose codes are to be learned; None for all
    changes: Bool[Tensor, "batch frames"] | None = None  # where a new chord begins; None where it is not known

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = (getattr(self, field.name) for field in fields(self))
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in tensors))


def draw_batch(
    groups: list[tuple[float, CodedClips]], frames_per_batch: int, tokenizer: Tokenizer, seed: str, turned: bool = False
) -> Batch:
    """A batch from one of the (share, clips) groups, chosen by its share, with freshly worded captions.

    With `turned` the same clips, in the same words, but that these name the other mode, where they name one.
    """
    rng = random.Random(seed)
    clips = rng.choices([clips for _, clips in groups], [share for share, _ in groups])[0]
    size = max(1, frames_per_batch // clips.codes.shape[2])
    pieces = [ALL_ATTRIBUTES[index] for index in clips.attributes.tolist()]
    rows = rng.choices(range(len(pieces)), [INSTRUMENT_SHARES.get(piece.instrument, 1.0) for piece in pieces], k=size)
    told = [turn_mode(pieces[row]) if turned else pieces[row] for row in rows]
    ids, mask, said = word_captions(told, tokenizer, rng)
    kept = [rng.random() >= CAPTION_DROPOUT for _ in rows]
    keep = torch.tensor(kept, dtype=torch.bool, device="cpu")[:, None]
    codes, counted = splice(clips, rows, rng) if clips.partners else (clips.codes[rows], None)
    changes = None if clips.changes is None else clips.changes[rows]
    return Batch(ids, mask * keep, codes.long(), clips.onsets[rows], said.where(keep, UNSAID), counted, changes)


def turn_mode(attributes: Attributes) -> Attributes:
    """The same piece in the other mode. Both modes have equally many words, so the same `rng` words them alike."""
    return replace(attributes, mode=MODES[1 - MODES.index(attributes.mode)])


def splice(
    clips: CodedClips, rows: list[int], rng: random.Random
) -> tuple[Int[Tensor, "batch codebooks frames"], Bool[Tensor, "batch frames"]]:
    """The clips of these rows, each with the past of a partner up to one of its onsets, and which frames are its own.

    A past in the wrong mode is what a decoder meets that once went astray: there only the caption tells the way back.
    """
    codes, frames = clips.codes[rows].clone(), clips.codes.shape[2]
    own = torch.ones(len(rows), frames, dtype=torch.bool, device="cpu")
    for number, row in enumerate(rows):
        onsets = clips.onsets[row, : 3 * frames // 4].nonzero().flatten().tolist()[1:]
        if onsets and clips.partners[row]:
            first = rng.choice(onsets)
            codes[number, :, :first] = clips.codes[rng.choice(clips.partners[row]), :, :first]
            own[number, :first] = False
    return codes, own


def word_captions(pieces: Sequence[Attributes], tokenizer: Tokenizer, rng: random.Random) -> tuple[Tensor, ...]:
    """Fresh captions for pieces: ids and mask [batch, text_tokens], and what they say [batch, attributes]."""
    captions, told = zip(*(describe(attributes, rng) for attributes in pieces), strict=True)
    said = [_said(attributes, names) for attributes, names in zip(pieces, told, strict=True)]
    return *tokenizer(list(captions)), torch.tensor(said, dtype=torch.long, device="cpu")


def _said(attributes: Attributes, names: frozenset[str]) -> list[int]:
    """The number of each attribute's value, UNSAID where a caption does not tell it."""
    numbers = {name: values.index(getattr(attributes, name)) for name, values in VALUES.items()}
    return [number if name in names else UNSAID for name, number in numbers.items()]


class AttributeHeads(nn.Module):
    """Linear classifiers of what a caption says, on any states: an aid of training that no exported model has."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in VALUES.values())

    def forward(self, states: Float[Tensor, "batch steps width"], said: Int[Tensor, "batch attributes"]) -> Tensor:
        """Mean cross-entropy over attributes that are said, with the same answer wanted at every step."""
        wanted = said[:, None].expand(-1, states.shape[1], -1)
        losses = [
            F.cross_entropy(head(states).float().flatten(0, 1), wanted[..., index].flatten(), reduction="none",
                            ignore_index=UNSAID)
            for index, head in enumerate(self.heads)
        ]  # fmt: skip
        return torch.stack(losses).sum() / (wanted != UNSAID).sum().clamp(min=1)


class CaptionObjective(nn.Module):
    """Text encoder and projection alone: what a caption says must be readable from the mean of its states.

    Through the decoder they learn this slowly, since the music's past tells the same.
    """

    def __init__(self, text_encoder: TextEncoder, projection: TextProjection, width: int):
        super().__init__()
        self.text_encoder, self.projection = text_encoder, projection
        self.aid = AttributeHeads(width)

    def forward(self, captions: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The loss of ids, mask and what is said, as `word_captions` gives them."""
        ids, mask, said = captions
        states = self.projection(self.text_encoder(ids, mask), mask)
        return {"loss": self.aid(mean_of_tokens(states, mask), said)}


def mean_of_tokens(
    states: Float[Tensor, "batch text_tokens width"],
    mask: TextMask,
) -> Float[Tensor, "batch 1 width"]:
    """The mean over unmasked tokens; zero where all are masked. Masked states must be zero already."""
    return states.sum(dim=1, keepdim=True) / mask.sum(dim=1).clamp(min=1)[:, None, None]


class DecoderObjective(nn.Module):
    """The three parts that learn together, and their loss: cross-entropy of the next code of every codebook.

    Only cells of the pattern that hold a frame count (Copet et al. 2023, section 2.2); onset frames count more.

    With `heed_words`, three things keep the decoder from going by a clip's past alone. The past of some clips is
    withheld (Bowman et al. 2016, arXiv:1511.06349, section 3.1, drop words of the past for the same reason), some codes
    of every past are wrong, and what a caption says must be readable from the text states and from the decoder's states
    at every step. Without `aided` the last of the three is left out, for weights that have learned it before: beside
    them its classifiers would begin at random, and pull good states towards nothing (RUNS.md, round six).
    """

    def __init__(
        self, text_encoder: TextEncoder, projection: TextProjection | None, decoder: MusicGenDecoder,
        pattern: CodebookPattern, heed_words: bool = False, aided: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.text_encoder, self.projection, self.decoder = text_encoder, projection, decoder
        self.pattern = pattern
        width = decoder.config.hidden_size
        self.heed_words = heed_words
        self.aids = nn.ModuleList(AttributeHeads(width) for _ in range(2 if heed_words and aided else 0))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted loss, and the plain cross-entropy of each codebook in nats."""
        entropies, attributes = self.losses(batch)
        counted = torch.ones_like(batch.onsets) if batch.counted is None else batch.counted
        weights = 1 + (ONSET_WEIGHT - 1) * _with_frames_after(batch.onsets)
        if batch.changes is not None:
            weights = weights + (CHANGE_WEIGHT - ONSET_WEIGHT) * _with_frames_after(batch.changes & batch.onsets)
        weights = weights * counted[:, None]
        loss = (entropies * weights).sum() / (weights.sum() * entropies.shape[1])
        by_codebook = (entropies.detach() * counted[:, None]).sum(dim=(0, 2)) / counted.sum()
        onsets = batch.onsets & counted
        changes = onsets if batch.changes is None else onsets & batch.changes
        by_frame = entropies.detach().mean(dim=1)
        return {
            "loss": loss + ATTRIBUTES_WEIGHT * sum(attributes.values()), "cross_entropy": by_codebook.mean(),
            "onset": (by_frame * onsets).sum() / onsets.sum().clamp(min=1),
            "change": (by_frame * changes).sum() / changes.sum().clamp(min=1),
            **{f"codebook{k}": value for k, value in enumerate(by_codebook)}, **attributes,
        }  # fmt: skip

    def states(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "batch text_tokens model_width"], Float[Tensor, "batch steps model_width"]]:
        """The text's states as the decoder sees them, and the decoder's own, from which its heads read."""
        sequence = self.pattern.interleave(batch.codes, self.decoder.config.special_token)[:, :, :-1]
        if self.heed_words and self.training:
            sequence = disturb_past(sequence, self.decoder.config.special_token)
            sequence = withhold_past(sequence, self.decoder.config.special_token)
        mask = batch.text_mask
        # A withheld caption still runs through the encoder (with nothing masked there) and is silenced behind it.
        seen = torch.where(mask.any(dim=1, keepdim=True), mask, torch.ones_like(mask))
        text_states = self.text_encoder(batch.text_ids, seen)
        text_states = zero_padding(text_states, mask) if self.projection is None else self.projection(text_states, mask)
        return text_states, self.decoder.hidden_states(sequence, Condition(text_states, mask))

    def scores(self, batch: Batch) -> Float[Tensor, "batch codebooks frames codebook_size"]:
        """What the heads say of each code of the batch, in float32, given the caption and the codes before it."""
        return self._read(self.states(batch)[1], batch)

    def losses(self, batch: Batch) -> tuple[Float[Tensor, "batch codebooks frames"], dict[str, Tensor]]:
        """Nats of surprise at each code, given the caption and the codes before it; and the losses of the aids."""
        text_states, states = self.states(batch)
        entropies = F.cross_entropy(self._read(states, batch).flatten(0, 2), batch.codes.flatten(), reduction="none")
        places = mean_of_tokens(text_states, batch.text_mask), states
        read = zip(("in_text", "in_music"), self.aids, places, strict=False)
        return entropies.view(batch.codes.shape), {name: aid(there, batch.said) for name, aid, there in read}

    def _read(self, states: Tensor, batch: Batch) -> Tensor:
        logits = torch.stack([head(states) for head in self.decoder.lm_heads], dim=1)
        return self.pattern.deinterleave(logits, batch.codes.shape[2], first_step=1).float()


def _with_frames_after(marked: Bool[Tensor, "batch frames"]) -> Float[Tensor, "batch 1 frames"]:
    """1 in the marked frames and in those after them that decide as much, else 0."""
    return F.max_pool1d(F.pad(marked[:, None].float(), (ONSET_FRAMES - 1, 0)), ONSET_FRAMES, stride=1)


def disturb_past(
    sequence: Int[Tensor, "batch codebooks steps"], special_token: int
) -> Int[Tensor, "batch codebooks steps"]:
    """Replace some codes of each clip by random ones, none to twice `CODE_NOISE` of them; the special token stays."""
    like = dict(dtype=torch.float32, device=sequence.device)
    share = 2 * CODE_NOISE * torch.rand(len(sequence), 1, 1, **like)
    wrong = (torch.rand(sequence.shape, **like) < share) & (sequence != special_token)
    return torch.where(wrong, torch.randint_like(sequence, special_token), sequence)


def withhold_past(
    sequence: Int[Tensor, "batch codebooks steps"], special_token: int
) -> Int[Tensor, "batch codebooks steps"]:
    """Replace, in some rows, everything before a random step by the special token."""
    batch, _, steps = sequence.shape
    like = dict(dtype=torch.float32, device=sequence.device)
    chosen = torch.rand(batch, 1, **like) < PAST_DROPOUT
    first = torch.rand(batch, 1, **like) * steps
    withheld = chosen & (torch.arange(steps, **like) < first)
    return sequence.where(~withheld[:, None], special_token)
