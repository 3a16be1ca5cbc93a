"""The clips that an evaluation compares: real renders, the codec's reconstruction of them, and what the model makes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from scipy.signal import fftconvolve
from torch import Tensor
from tqdm import tqdm

from musicgen_edu.codec import Codec
from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.compose import OWN_HABITS, Habits
from musicgen_edu.composer.render import SAMPLE_RATE, Renderer
from musicgen_edu.composer.score import Attributes, draw_attributes
from musicgen_edu.model import MusicGen
from musicgen_edu.training.data import compose_clip, render_clips, to_float

WINDOW = 5.0  # seconds, the last of a clip, that are judged
BATCH = 16  # clips that are rendered, reconstructed or generated at a time


@dataclass(frozen=True)
class Prompt:
    """A held-out caption, what it was written for, and which attributes it names."""

    text: str
    attributes: Attributes
    named: frozenset[str]


@dataclass
class Clips:
    """Clips with what they were made to be. `codes` are the codec's or the model's own.

    `named` tells which attributes each clip's prompt spoke of; None where there was no prompt, and all of them count.
    """

    waveforms: Float[Tensor, "clips samples"]
    attributes: list[Attributes]
    codes: Int[Tensor, "clips codebooks frames"]
    named: list[frozenset[str]] | None = None

    def asked(self, attribute: str) -> list[bool]:
        """Which clips have to answer for an attribute."""
        return [self.named is None or attribute in self.named[row] for row in range(len(self.attributes))]


def draw_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Captions for attribute combinations, and in sentence forms, that training never sees."""
    prompts = []
    for index in range(count):
        rng = random.Random(f"prompt {seed} {index}")
        attributes = draw_attributes(rng, held_out=True)
        text, named = describe(attributes, rng, held_out=True)
        prompts.append(Prompt(text, attributes, named))
    return prompts


def last_window(waveforms: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips samples"]:
    """The last `WINDOW` seconds of each clip: what is judged."""
    return waveforms[:, -round(WINDOW * SAMPLE_RATE) :]


@torch.no_grad()
def real_clips(
    renderer: Renderer, codec: Codec, frames: int, first_seed: int, count: int, held_out: bool = True,
    habits: Habits = OWN_HABITS,
) -> Clips:  # fmt: skip
    """The last windows of freshly rendered clips, and their codes."""
    parts = [
        last_window(to_float(render_clips(renderer, frames, seeds, held_out, habits))[:, 0])
        for seeds in _batches(range(first_seed, first_seed + count), "render")
    ]
    pieces = (compose_clip(frames, seed, held_out, habits) for seed in range(first_seed, first_seed + count))
    codes = [codec.encode(part[:, None]) for part in parts]
    return Clips(torch.cat(parts), [piece.attributes for piece in pieces], torch.cat(codes))


def in_a_room(clips: Clips, seed: int = 0) -> Clips:
    """The same clips as they sound in rooms of many sizes: decaying noise behind each, as loud as it and no louder.

    A room's echoes are noise that decays exponentially (Moorer 1979, "About this reverberation business"): here by
    60 dB in 0.2 to 1 s, 6 to 20 dB under the sound itself. What has learned from such clips listens past silence.
    """
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(SAMPLE_RATE, dtype=torch.float32, device="cpu") / SAMPLE_RATE
    heard = []
    for dry in clips.waveforms:
        decay, level = torch.rand(2, generator=generator, dtype=torch.float32, device="cpu").tolist()
        noise = torch.randn(len(time), generator=generator, dtype=torch.float32, device="cpu")
        echoes = noise * 10 ** (-3 * time / (0.2 + 0.8 * decay))
        wet = torch.from_numpy(fftconvolve(dry.cpu().numpy(), echoes.numpy())[: len(dry)]).to(dry)
        gain = 10 ** (-(6 + 14 * level) / 20) * dry.norm() / wet.norm().clamp(min=1e-9)
        heard.append(dry + gain * wet)
    return replace(clips, waveforms=torch.stack(heard))


def rebuild(clips: Clips, codec: Codec) -> Clips:
    """The same clips as the codec plays their codes back."""
    parts = [codec.decode(codes)[:, 0] for codes in clips.codes.split(BATCH)]
    return replace(clips, waveforms=torch.cat(parts)[:, : clips.waveforms.shape[1]])


def generate_clips(
    model: MusicGen, prompts: Sequence[Prompt], duration: float, seed: int, guidance_scale: float | None = None
) -> Clips:
    """What the model makes of the prompts, each from a seed of its own, judged by its last window."""
    audios = []
    for rows in _batches(range(len(prompts)), "generate"):
        texts = [prompts[row].text for row in rows]
        seeds = [seed + row for row in rows]
        audios.append(model.generate(texts, duration, seed=seeds, guidance_scale=guidance_scale))
    waveforms = torch.cat([last_window(audio.waveform[:, 0]) for audio in audios])
    codes = torch.cat([audio.codes for audio in audios])
    return Clips(waveforms, [each.attributes for each in prompts], codes, [each.named for each in prompts])


def _batches(indices: range, title: str) -> Iterator[range]:
    starts = range(0, len(indices), BATCH)
    return (indices[start : start + BATCH] for start in tqdm(starts, title, leave=False))
