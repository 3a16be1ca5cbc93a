"""Room 10: what proves that a model is real? Experiments that a mock fails, each beside a control of its own.

None has a limit that was chosen to fit a model. Parity is held to the rounding of the reference itself, an ablation to
a run in which nothing is cut, and what chance alone might do to a permutation test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MusicgenForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from musicgen_edu._arguments import Parser
from musicgen_edu._checks import check_codes
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.composer.samples import shipped_clips
from musicgen_edu.model import MusicGen
from musicgen_edu.presets import SHIPPED
from musicgen_edu.reality.permutation_tests import grouping_test, pairing_test, sign_test
from musicgen_edu.reality.rounding import farthest, in_both_precisions
from musicgen_edu.spectrogram import log_mel

LEVEL = 0.01  # what chance alone passes once in a hundred times
ROUNDING = 10  # two right programs that sum in other orders differ by a few roundings, not by more than this many
PROMPTS = ["peaceful piano melody", "a happy flute arpeggio, fast, with drums"]
# The same thing in other words; the names are of one length, so that a sound made from the length cannot tell them.
WORDINGS = "{} melody", "some music for {}", "{} playing a tune", "play some {} music", "a piece on {}", "{} chords"
INSTRUMENTS = ("piano", "organ", "flute", "synth")
PARTS = ("tokenizer", "text_encoder", "projection", "decoder", "pattern", "codec")
INSIDE = ("weights", "scores", "codes", "sound", "steps", "parts", "captions", "order")


@dataclass(frozen=True)
class Check:
    """One experiment's result: what was found, beside what it was held against."""

    name: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.name:<10}{self.found}"


def run_checks(model: MusicGen | object, reference: MusicgenForConditionalGeneration | None) -> Iterator[Check]:
    """Yield every check of a model, or of whatever else has a `generate` like `MusicGen`'s, one after the other.

    `reference` is transformers' model of the same folder. What has no reference, or not the parts of a MusicGen, fails
    each check that looks inside.
    """
    missing = [part for part in PARTS if not hasattr(model, part)] + ["reference"] * (reference is None)
    missing += ["tokenizer"] * (getattr(model, "tokenizer", "missed above") is None)
    if missing:
        yield from (Check(name, False, f"cannot be looked into: no {', '.join(missing)}") for name in INSIDE)
    else:
        yield check_weights(named_tensors(model))
        yield check_scores(model, reference)
        yield from check_music_of_codes(model, reference)
        for check in (check_steps, check_parts, check_captions, check_order):
            yield check(model)
    yield check_words(model)


def check_weights(tensors: dict[str, Tensor]) -> Check:
    """All numbers are finite, and no tensor is one number throughout, as a layer norm is before its training.

    That number is not 0: some weights are held at 0 on purpose, as the encoder's LSTM is in the shipped codec.
    """
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    constant = [name for name, tensor in tensors.items() if tensor.numel() > 1 and tensor.max() == tensor.min() != 0]
    found = f"{len(tensors)} tensors, {len(broken)} not finite, {len(constant)} constant"
    found += f" (as {(broken + constant)[0]})" if broken or constant else f", sha256 {fingerprint(tensors)[:16]}"
    return Check("weights", bool(tensors) and not broken and not constant, found)


@torch.no_grad()
def check_scores(model: MusicGen, reference: MusicgenForConditionalGeneration) -> Check:
    """The scores of random codes are the reference's, as near as its own in float32 are to its own in float64."""
    shape = len(PROMPTS), model.config.decoder.num_codebooks, 20
    like = dict(generator=torch.Generator("cpu").manual_seed(0), dtype=torch.long, device="cpu")
    codes = torch.randint(model.config.decoder.codebook_size, shape, **like)
    ids, mask = model.tokenizer(PROMPTS)
    rounded, exact = in_both_precisions(reference, lambda: _reference_scores(reference, codes, ids, mask))
    ours = model(*(each.to(model.decoder.device) for each in (codes, ids, mask)))
    difference, rounding = farthest(ours, exact), farthest(rounded, exact)
    found = f"{difference:.0e} from the reference in float64; its own rounding is {rounding:.0e}"
    return Check("scores", difference <= ROUNDING * rounding, found)


@torch.no_grad()
def check_music_of_codes(model: MusicGen, reference: MusicgenForConditionalGeneration) -> list[Check]:
    """What `generate` writes: greedy codes are the reference's best by more than rounding, and it plays them alike."""
    frames = 20
    audio = model.generate(PROMPTS, frames / model.config.codec.frame_rate, seed=0, temperature=0, guidance_scale=1)
    shape = [len(PROMPTS), model.config.decoder.num_codebooks, frames]
    if audio.codes is None or list(audio.codes.shape) != shape:
        return [Check(name, False, f"it shows no codes of shape {shape}") for name in ("codes", "sound")]
    written = audio.codes.cpu()
    sequence = model.pattern.interleave(written, model.config.decoder.special_token)
    text = model.tokenizer(PROMPTS)
    rounded, exact = in_both_precisions(reference, lambda: _reference_scores(reference, sequence, *text))
    best = exact.topk(2, dim=-1)
    clear = best.values[..., 0] - best.values[..., 1] > ROUNDING * farthest(rounded, exact)
    clear = clear[:, :, :-1] & model.pattern.mask(frames)[:, 1:]
    right = (best.indices[:, :, :-1, 0] == sequence[:, :, 1:])[clear]
    found = f"{int(right.sum())} of {len(right)} greedy codes are the reference's"
    codes = Check("codes", len(right) > 0 and bool(right.all()), found)
    decode, written = reference.audio_encoder.decode, written[None].to(reference.device)
    rounded, exact = in_both_precisions(reference, lambda: decode(written, [None]).audio_values)
    fits = audio.waveform.shape == exact.shape
    difference, rounding = farthest(audio.waveform, exact) if fits else math.inf, farthest(rounded, exact)
    found = f"{difference:.0e} from the reference's playing in float64; its own rounding is {rounding:.0e}"
    return [codes, Check("sound", difference <= ROUNDING * rounding, found)]


def check_steps(model: MusicGen) -> Check:
    """Work grows with the music: the decoder runs once a step, counted by a hook, since seconds can be slept away."""
    lengths = 10, 30
    wanted = [model.pattern.steps(frames) - 1 for frames in lengths]
    counts = [_count_runs(model, frames / model.config.codec.frame_rate) for frames in lengths]
    found = f"the decoder ran {counts[0]} and {counts[1]} times; {wanted[0]} and {wanted[1]} steps were due"
    return Check("steps", all(count >= steps for count, steps in zip(counts, wanted, strict=True)), found)


def check_parts(model: MusicGen) -> Check:
    """Each part matters: without it the music is another, and with nothing cut it is the same again."""

    def play() -> Tensor:
        return model.generate(PROMPTS[0], 10 / model.config.codec.frame_rate, seed=0).waveform

    whole, layers = play(), model.decoder.layers
    parts = {"text encoder": [model.text_encoder], "cross-attention": [layer.encoder_attn for layer in layers]}
    parts |= {f"layer {number}": [layer] for number, layer in enumerate(layers)} | {"codec": [model.codec.decoder]}
    changes = {}
    for name, modules in parts.items():
        with without(modules, skip=name.startswith("layer")):
            changes[name] = farthest(play(), whole)
    least, again = min(changes, key=changes.get), farthest(play(), whole)
    found = f"cutting one of {len(parts)} changes the music by {changes[least]:.1e} at least ({least}); "
    return Check("parts", changes[least] > again, found + f"cutting none by {again:.1e}")


@contextmanager
def without(modules: Sequence[nn.Module], skip: bool = False) -> Iterator[None]:
    """While open, the modules give zeros, or with `skip` what they were given."""

    def cut(module, inputs, output):
        return inputs[0] if skip else torch.zeros_like(output)

    hooks = [module.register_forward_hook(cut) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_captions(model: MusicGen) -> Check:
    """Real music surprises less under its own caption than under those of other clips, shuffled at random."""
    codes, captions = real_music(model)
    table = [surprises(model, codes, [caption] * len(codes)).mean(dim=(1, 2)) for caption in captions]
    gain, p = pairing_test(torch.stack(table, dim=1))
    found = f"the right caption saves {gain:.4f} nats a code over shuffled ones, p = {p:.4f}"
    return Check("captions", p < LEVEL, found)


def check_order(model: MusicGen) -> Check:
    """Real music surprises less in its own order than with its frames shuffled: the decoder has learned some music."""
    codes, captions = real_music(model)
    like = dict(generator=torch.Generator("cpu").manual_seed(0), dtype=torch.long, device="cpu")
    shuffle = torch.randperm(codes.shape[2], **like)
    mixed, plain = (surprises(model, each, captions).mean(dim=(1, 2)) for each in (codes[:, :, shuffle], codes))
    p, guess = sign_test(mixed - plain), math.log(model.config.decoder.codebook_size)
    found = f"{plain.mean():.2f} nats a code, {mixed.mean():.2f} with frames shuffled, {guess:.2f} by guessing"
    return Check("order", p < LEVEL, f"{found}, p = {p:.4f}")


def check_words(model: MusicGen | object) -> Check:
    """From outside: music of prompts about one instrument is more alike than music of prompts in the same words."""
    prompts = [wording.format(name) for wording in WORDINGS for name in INSTRUMENTS]
    audio = model.generate(prompts, 1.5, seed=list(range(len(prompts))))
    timbre = log_mel(audio.waveform.cpu().mean(dim=1), audio.sample_rate, bands=24).mean(dim=2)
    distances = torch.cdist(timbre, timbre, p=1) / timbre.shape[1]
    same, other, p = grouping_test(distances.view(2 * (len(WORDINGS), len(INSTRUMENTS))))
    found = f"reworded prompts sound {same:.1f} dB apart, other prompts {other:.1f} dB, p = {p:.4f}"
    return Check("words", p < LEVEL, found)


def real_music(model: MusicGen) -> tuple[Int[Tensor, "clips codebooks frames"], list[str]]:
    """The first second of a render of each instrument as the model's own codes, and a caption for each."""
    rate, clips = model.config.codec.sample_rate, shipped_clips()
    heard = [clip.convert(rate, 1).waveform[0, :, :rate] for clip in clips.values()]
    codes = model.codec.encode(torch.stack(heard).to(model.decoder.device))[:, : model.config.decoder.num_codebooks]
    return codes.clone(), [f"a piece of {instrument} music" for instrument in clips]


@torch.no_grad()
def surprises(
    model: MusicGen, codes: Int[Tensor, "batch codebooks frames"], captions: list[str], withheld: bool = False
) -> Float[Tensor, "batch codebooks frames"]:
    """How many nats each code surprises the model, given all before and the caption, or without it; on the CPU."""
    ids, mask = (each.to(model.decoder.device) for each in model.tokenizer(captions))
    codes = check_codes(codes).to(model.decoder.device)
    sequence = model.pattern.interleave(codes, model.config.decoder.special_token)
    logits = model(sequence[:, :, :-1], ids, torch.zeros_like(mask) if withheld else mask)
    logits = model.pattern.deinterleave(logits, codes.shape[2], first_step=1)
    return F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none").view(codes.shape).cpu()


def _reference_scores(reference: nn.Module, codes: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    rows, ids, mask = (each.to(reference.device) for each in (codes.flatten(0, 1), ids, mask.long()))
    logits = reference(input_ids=ids, attention_mask=mask, decoder_input_ids=rows).logits
    return logits.unflatten(0, codes.shape[:2]).cpu()


def _count_runs(model: MusicGen, duration: float) -> int:
    runs = []
    hook = model.decoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        model.generate(PROMPTS[0], duration, seed=0)
    finally:
        hook.remove()
    return len(runs)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `musicgen-edu verify`; returns 0 if every check passes, else 1."""
    parser = Parser(
        prog="musicgen-edu verify",
        description="Test by experiments whether a model is real: its weights, its parity with transformers, and "
        "whether its parts, the prompt and the length matter. One line a check; exit code 1 if any fails. It cannot "
        "tell good music from bad (`musicgen-edu evaluate` can).",
    )
    what = "a model in transformers' layout (default: the one shipped)"
    parser.add_argument("--model", metavar="FOLDER", type=Path, default=SHIPPED, help=what)
    folder = parser.parse_args(argv).model
    model = MusicGen.from_pretrained(folder)
    disable_progress_bar()
    reference = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    failed = 0
    for check in run_checks(model, reference):
        print(check, flush=True)
        failed += not check.passed
    print(f"Failed checks: {failed}." if failed else "All checks passed.")
    return 1 if failed else 0
