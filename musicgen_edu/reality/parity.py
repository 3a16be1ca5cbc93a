"""Every variant of Meta's family against transformers, on small random checkpoints: `make parity`.

Nothing is downloaded: transformers makes and writes a checkpoint of each variant, this package opens it, and both
compute the same things. What holds for random weights holds for trained ones, since no check knows any number.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyDecoderConfig,
    MusicgenMelodyFeatureExtractor,
    MusicgenMelodyForConditionalGeneration,
    T5Config,
)
from transformers.utils import logging

from musicgen_edu._arguments import outlive_readers
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.conditioning import chroma, loudest_tone
from musicgen_edu.config import SamplingSettings
from musicgen_edu.generation import generate_codes
from musicgen_edu.model import MusicGen
from musicgen_edu.reality.checks import Check
from musicgen_edu.reality.divergence import first_divergence
from musicgen_edu.reality.rounding import farthest
from musicgen_edu.sampling import apply_guidance

Reference = MusicgenForConditionalGeneration | MusicgenMelodyForConditionalGeneration
Scores = Float[Tensor, "batch codebooks steps codebook_size"]

CODEBOOK_SIZE = 32
LIMIT = 1e-4  # how far scores and samples may lie apart, in float32
VARIANTS = {
    "mono": {},
    "mono, equal widths": {"decoder": {"hidden_size": 16}},
    "stereo": {"decoder": {"audio_channels": 2, "num_codebooks": 8}},
    "stereo, equal widths": {"decoder": {"audio_channels": 2, "num_codebooks": 8, "hidden_size": 16}},
    "melody": {"melody": True},
    "melody, equal widths": {"melody": True, "decoder": {"hidden_size": 16}},
    "stereo melody": {"melody": True, "decoder": {"audio_channels": 2, "num_codebooks": 8}},
}


def create_reference(variant: dict, vocab_size: int = 74) -> Reference:
    """A random model of transformers', with weights large enough for the prompt and the codes to matter.

    `variant` changes sizes of the parts "text_encoder", "decoder" and "audio_encoder", or asks for a "melody".
    """
    text_encoder = {"vocab_size": vocab_size, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    decoder = {
        "vocab_size": CODEBOOK_SIZE, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_codebooks": 4, "pad_token_id": CODEBOOK_SIZE, "bos_token_id": CODEBOOK_SIZE,
    } | variant.get("decoder", {})  # fmt: skip
    codec = {
        "sampling_rate": 1600, "upsampling_ratios": [4, 4, 2], "num_filters": 4, "hidden_size": 16,
        "codebook_size": CODEBOOK_SIZE, "target_bandwidths": [1.0], "use_causal_conv": False, "num_lstm_layers": 1,
        "use_conv_shortcut": False,
    } | variant.get("audio_encoder", {})  # fmt: skip
    parts = {
        "text_encoder": T5Config(**text_encoder | variant.get("text_encoder", {})),
        "audio_encoder": EncodecConfig(**codec),
    }
    if variant.get("melody"):
        config = MusicgenMelodyConfig(**parts, decoder=MusicgenMelodyDecoderConfig(**decoder), chroma_length=7)
        return _enlarged(MusicgenMelodyForConditionalGeneration(config))
    config = MusicgenConfig(**parts, decoder=MusicgenDecoderConfig(**decoder))
    return _enlarged(MusicgenForConditionalGeneration(config))


@torch.no_grad()
def _enlarged(model: Reference) -> Reference:
    for parameter in model.decoder.parameters():
        if parameter.dim() == 2:
            parameter.normal_(std=0.4)
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.normal_()
    return model.eval()


@dataclass(frozen=True, eq=False)
class Pair:
    """One checkpoint in both programs, and what both are asked: two prompts, one of them padded, and a melody."""

    ours: MusicGen
    reference: Reference
    ids: Int[Tensor, "batch text_tokens"]
    mask: Int[Tensor, "batch text_tokens"]
    melody: Float[Tensor, "batch columns bins"] | None

    def our_scores(self, codes: Tensor, told: bool = True) -> Scores:
        """This package's scores; without `told` those of the null condition."""
        with torch.no_grad():
            return self.ours(codes, self.ids, self.mask * told, self.melody if told else None)

    def their_scores(self, codes: Tensor, told: bool = True) -> Scores:
        """transformers' scores of the same; those of what stands before the codes are left out."""
        melody = {} if self.melody is None or not told else {"input_features": self.melody}
        options = {"input_ids": self.ids, "attention_mask": self.mask * told, "decoder_input_ids": codes.flatten(0, 1)}
        with torch.no_grad():
            logits = self.reference(**options, **melody).logits
        return logits.unflatten(0, codes.shape[:2])[:, :, -codes.shape[2] :]

    def explain(self, codes: Tensor, played: bool = False) -> str:
        """Where the two part on the way to scores, or to sound, for the message of a check that failed."""
        ways = self.our_scores, self.their_scores
        if played:
            ways = self.ours.codec.decode, lambda codes: self.reference.audio_encoder.decode(codes[None], [None])
        found = first_divergence(self.ours, self.reference, lambda model: ways[model is not self.ours](codes))
        return f"; {found or 'no layer differs'}"


@contextmanager
def opened_pair(variant: dict) -> Iterator[Pair]:
    """A random checkpoint of the variant, written by transformers and opened by both."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        create_reference(variant).save_pretrained(folder)
        kind = MusicgenMelodyForConditionalGeneration if variant.get("melody") else MusicgenForConditionalGeneration
        melody = (
            loudest_tone(torch.rand(2, 5, 12, dtype=torch.float32, device="cpu")) if variant.get("melody") else None
        )
        ids = torch.tensor([[5, 17, 30, 9, 1], [8, 40, 1, 0, 0]], dtype=torch.long, device="cpu")
        yield Pair(
            MusicGen.from_pretrained(folder), kind.from_pretrained(folder).eval(), ids, (ids != 0).long(), melody
        )


def check_scores(pair: Pair) -> Check:
    """Scores of random codes, with a padded prompt in the batch."""
    return _near("scores", pair, _random_codes(pair), told=True)


def check_null(pair: Pair) -> Check:
    """The same where nothing is said: the branch that guidance starts from."""
    return _near("null", pair, _random_codes(pair), told=False)


def _near(name: str, pair: Pair, codes: Tensor, told: bool) -> Check:
    ours, theirs = pair.our_scores(codes, told), pair.their_scores(codes, told)
    difference = farthest(ours, theirs)
    other = farthest(theirs, pair.their_scores(codes, not told))
    passed = difference <= LIMIT < other  # the condition matters, or nothing would be shown
    return Check(name, passed, f"{difference:.0e} apart" + ("" if passed else pair.explain(codes)))


def check_guided(pair: Pair, frames: int = 500) -> Check:
    """Greedy codes with guidance are transformers' best, given all before them, wherever that one clearly leads."""
    return _greedy("guided", pair, frames, 3.0)


def check_unguided(pair: Pair, frames: int = 100) -> Check:
    """The same without guidance."""
    return _greedy("unguided", pair, frames, 1.0)


def check_continued(pair: Pair, frames: int = 100) -> Check:
    """A clip is continued: its codes stay as they are, and what follows is transformers' best given them."""
    return _greedy("continued", pair, frames, 3.0, known=_random_codes(pair, frames // 3))


def _greedy(name: str, pair: Pair, frames: int, scale: float, known: Tensor | None = None) -> Check:
    ours, settings = pair.ours, SamplingSettings(temperature=0, top_k=0, guidance_scale=scale)
    with torch.no_grad():
        condition = ours.condition(pair.ids, pair.mask, pair.melody)
    codes = generate_codes(ours.decoder, condition, frames, ours.pattern, settings, known=known)
    sequence = ours.pattern.interleave(codes, CODEBOOK_SIZE)
    theirs, own = (
        apply_guidance(scores(sequence), scores(sequence, told=False), scale)
        for scores in (pair.their_scores, pair.our_scores)
    )
    best = theirs.topk(2, dim=-1)
    clear = best.values[..., 0] - best.values[..., 1] > 10 * farthest(own, theirs)
    start = 0 if known is None else known.shape[2]
    counted = clear[:, :, :-1] & (ours.pattern.frame_index(frames)[:, 1:] >= start)
    right = (best.indices[:, :, :-1, 0] == sequence[:, :, 1:])[counted]
    kept = known is None or torch.equal(codes[:, :, :start], known)
    passed = kept and bool(right.all()) and len(right) > frames
    return Check(name, passed, f"{int(right.sum())} of {len(right)} codes" + ("" if passed else pair.explain(sequence)))


def check_sound(pair: Pair) -> Check:
    """Codes become the same samples, the left and the right channel each its own."""
    channels = pair.ours.config.decoder.audio_channels
    codes = _random_codes(pair)
    with torch.no_grad():
        theirs = [
            pair.reference.audio_encoder.decode(codes[None, :, channel::channels], [None]).audio_values
            for channel in range(channels)
        ]
        ours = pair.ours.decode(codes)
    difference = farthest(ours, torch.cat(theirs, dim=1))
    where = "" if difference <= LIMIT else pair.explain(codes[:, ::channels], played=True)
    return Check("sound", difference <= LIMIT, f"{difference:.0e} apart{where}")


def check_saved(pair: Pair) -> Check:
    """Saved by this package, transformers opens it, and every tensor is the same to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        pair.ours.save_pretrained(folder)
        found = type(pair.reference).from_pretrained(folder).state_dict()
        again = named_tensors(MusicGen.from_pretrained(folder))
    wanted = pair.reference.state_dict()
    other = [name for name in wanted if name not in found or not torch.equal(wanted[name], found[name])]
    other += [name for name, tensor in named_tensors(pair.ours).items() if not torch.equal(tensor, again[name])]
    return Check("saved", not other, f"{len(wanted)} tensors" + (f", but for {other[0]}" if other else ""))


def check_bfloat16(pair: Pair) -> Check:
    """In bfloat16 the scores move away from float32 by at most 1.5 times as much as transformers' do."""
    codes = _random_codes(pair)
    exact = pair.their_scores(codes)
    with tempfile.TemporaryDirectory() as folder:
        pair.ours.save_pretrained(folder)
        ours = MusicGen.from_pretrained(folder, dtype=torch.bfloat16)
        reference = type(pair.reference).from_pretrained(folder, dtype=torch.bfloat16).eval()
    melody = None if pair.melody is None else pair.melody.bfloat16()
    lowered = Pair(ours, reference, pair.ids, pair.mask, melody)
    error, limit = ((scores(codes).float() - exact).square().mean().sqrt() for scores in
                    (lowered.our_scores, lowered.their_scores))  # fmt: skip
    return Check("bfloat16", bool(error <= 1.5 * limit), f"error {error / limit:.2f} times theirs")


def check_chroma(pair: Pair) -> Check:
    """The melody that is heard in a sound: raw chroma, and its loudest tone wherever that one clearly leads."""
    if pair.melody is None:
        return Check("chroma", True, "no melody")
    config, rate = pair.ours.config.melody, 32_000
    time = torch.arange(3 * rate, dtype=torch.float32, device="cpu") / rate
    sound = torch.stack([torch.sin(2 * torch.pi * pitch * time) for pitch in (220.0, 523.25)])
    like = dict(generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu")
    sound = sound + 0.1 * torch.randn(sound.shape, **like)
    extractor = MusicgenMelodyFeatureExtractor()
    raw = extractor.chroma_filters @ extractor.spectrogram(sound)
    raw = (raw / raw.amax(dim=1, keepdim=True)).transpose(1, 2)
    ours, theirs = chroma(sound, rate, config), extractor(sound, sampling_rate=rate, return_tensors="pt").input_features
    difference, best = farthest(ours, raw), raw.topk(2, dim=-1).values
    clear = best[..., 0] - best[..., 1] > difference
    same = (loudest_tone(ours) == theirs).all(dim=-1)[clear]
    return Check("chroma", difference <= LIMIT and bool(same.all()), f"{difference:.0e} apart, {len(same)} tones")


def check_prefix(pair: Pair) -> Check:
    """What stands before the codes: the projected melody, repeated and cut, and the projected text."""
    if pair.melody is None:
        return Check("prefix", True, "nothing stands there")
    shape = 2 * pair.ours.config.decoder.num_codebooks, 1
    start = torch.full(shape, CODEBOOK_SIZE, dtype=torch.long, device="cpu")
    options = {"input_ids": pair.ids, "attention_mask": pair.mask, "input_features": pair.melody}
    with torch.no_grad():
        theirs = pair.reference(**options, decoder_input_ids=start).encoder_hidden_states
        ours = pair.ours.condition(pair.ids, pair.mask, pair.melody).prefix
    difference = farthest(ours, theirs)
    where = "" if difference <= LIMIT else pair.explain(_random_codes(pair))
    return Check("prefix", difference <= LIMIT, f"{difference:.0e} apart{where}")


CHECKS: tuple[Callable[[Pair], Check], ...] = (
    check_scores, check_null, check_guided, check_unguided, check_continued, check_sound, check_saved, check_bfloat16,
    check_chroma, check_prefix,
)  # fmt: skip


def _random_codes(pair: Pair, frames: int = 12) -> Int[Tensor, "batch codebooks frames"]:
    shape = 2, pair.ours.config.decoder.num_codebooks, frames
    like = dict(generator=torch.Generator("cpu").manual_seed(0), dtype=torch.long, device="cpu")
    return torch.randint(CODEBOOK_SIZE, shape, **like)


def main() -> int:
    """Print a line a variant and check; return 0 if all passed, else 1."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    failed = 0
    for name, variant in VARIANTS.items():
        with opened_pair(variant) as pair:
            for check in CHECKS:
                result = check(pair)
                print(f"{name:<22}{result}", flush=True)
                failed += not result.passed
    print(f"Failed checks: {failed}." if failed else "All variants are transformers' own.")
    return 1 if failed else 0


if __name__ == "__main__":
    with outlive_readers():
        sys.exit(main())
