"""Room 12: what a decoder is told besides the codes that it has written.

A text is looked at by cross-attention, at every step. Anything else may stand before the codes in the decoder's own
input, where self-attention meets it as a past (Copet et al. 2023, arXiv:2306.05284, section 2.3: so MusicGen Melody
hears its melody). Guidance compares either with the null condition, in which nothing is said.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import chroma_filter_bank

from musicgen_edu.audio import Audio
from musicgen_edu.config import MelodyConfig
from musicgen_edu.devices import own_precision

NO_MELODY = 'This model listens to no melody: take one of the "melody" models.'
FAREWELL = 50  # steps, one second: see `ChangingCondition`
TextMask = Bool[Tensor, "batch text_tokens"] | Int[Tensor, "batch text_tokens"]  # 1 on text, 0 on padding


@dataclass(frozen=True, eq=False)
class Condition:
    """What one batch of clips is told, in the decoder's width.

    `states` and `mask` are the text's, as they are after the projection: 0 on padding. `prefix` stands before the codes
    in the decoder's input, and `null_prefix` in its place where nothing is said; without them nothing stands there.
    Guidance compares all this with what is told in `beside`, if anything is, else with nothing said.
    """

    states: Float[Tensor, "batch text_tokens model_width"]
    mask: TextMask
    prefix: Float[Tensor, "batch prefix_steps model_width"] | None = None
    null_prefix: Float[Tensor, "batch prefix_steps model_width"] | None = None
    beside: Condition | None = None

    def __post_init__(self) -> None:
        if (self.prefix is None) != (self.null_prefix is None):
            raise ValueError("A prefix needs its null_prefix, what stands there where nothing is said, and no less.")

    def __len__(self) -> int:
        """How many clips it speaks of."""
        return len(self.states)

    @property
    def prefix_steps(self) -> int:
        """How many steps of the decoder's input stand before the codes."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def at_next_step(self) -> Condition:
        """What is told at the next step: always the same."""
        return self

    def null(self) -> Condition:
        """Return the condition that says nothing: text states and mask of 0, and the null prefix.

        With a mask of 0 everywhere cross-attention gathers nothing, and having no bias it adds exactly 0.
        """
        return Condition(torch.zeros_like(self.states), torch.zeros_like(self.mask), self.null_prefix, self.null_prefix)

    def with_null(self) -> Condition:
        """Return a batch twice as large, [conditional; null]: both branches of guidance in one run of the decoder."""
        null = self.null() if self.beside is None else self.beside
        prefixes = (None, None)
        if self.prefix is not None:
            prefixes = (torch.cat([self.prefix, null.prefix]), torch.cat([self.null_prefix, null.null_prefix]))
        longest = max(self.mask.shape[1], null.mask.shape[1])
        states, masks = (
            [F.pad(one, (*around, 0, longest - one.shape[1])) for one in both]
            for both, around in (((self.states, null.states), (0, 0)), ((self.mask, null.mask), ()))
        )
        return Condition(torch.cat(states), torch.cat(masks), *prefixes)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Condition:
        """Return the same on a device and in a precision; the mask keeps its type."""
        prefixes = (None if each is None else each.to(device, dtype) for each in (self.prefix, self.null_prefix))
        beside = None if self.beside is None else self.beside.to(device, dtype)
        return Condition(self.states.to(device, dtype), self.mask.to(device), *prefixes, beside)


class ChangingCondition:
    """What one batch of clips is told, and may be told anew while its codes are written.

    What `now` is set to counts from the next step on; another thread may set it. For the first `FAREWELL` steps
    guidance goes away from the words before, not from none: the past speaks for them, and so they are gone sooner.
    Raises ValueError for another number of clips and for a prefix, which the decoder has read once the first code is
    written.
    """

    prefix_steps = 0

    def __init__(self, condition: Condition) -> None:
        self._now, self._farewell, self._lock = condition, 0, threading.Lock()
        self._begun = False
        self.now = condition

    def __len__(self) -> int:
        return len(self._now)

    @property
    def now(self) -> Condition:
        """The words that count."""
        return self._now

    @now.setter
    def now(self, condition: Condition) -> None:
        if condition.prefix is not None:
            raise ValueError("This model reads its words before the first code: they cannot change while it plays.")
        if len(condition) != len(self):
            raise ValueError(f"These words are for {len(condition)} clips, and {len(self)} are written.")
        before = replace(self._now, beside=None)
        same = before.states.shape == condition.states.shape and torch.equal(before.states, condition.states)
        with self._lock:
            leaves = self._begun and not same
            self._now = replace(condition, beside=before) if leaves else condition
            self._farewell = FAREWELL if leaves else 0

    def at_next_step(self) -> Condition:
        """What is told at the next step; a call counts as a step."""
        with self._lock:
            self._begun = True
            if self._now.beside is not None and not self._farewell:
                self._now = replace(self._now, beside=None)
            self._farewell = max(0, self._farewell - 1)
            return self._now


Told = Condition | ChangingCondition


def chroma(
    waveform: Float[Tensor, "batch samples"], sample_rate: int, config: MelodyConfig
) -> Float[Tensor, "batch columns bins"]:
    """How loud each tone of the scale is (C, C♯, …, B), whatever the octave, over the loudest one of its column.

    A column every `config.hop_length` samples; a shorter waveform than one window stands in the middle of silence.
    Source: transformers' `MusicgenMelodyFeatureExtractor`, audiocraft's `ChromaExtractor`.
    """
    missing = max(0, config.window - waveform.shape[-1])
    waveform = F.pad(waveform, (missing // 2, missing - missing // 2))
    window = torch.hann_window(config.window, device=waveform.device, dtype=waveform.dtype)
    spectrum = torch.stft(waveform, config.window, config.hop_length, window=window, return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    with own_precision(waveform.device):
        tones = _tones(sample_rate, config).to(waveform) @ power
    return F.normalize(tones, p=float("inf"), dim=1, eps=1e-6).transpose(1, 2)


def loudest_tone(tones: Float[Tensor, "batch columns bins"]) -> Float[Tensor, "batch columns bins"]:
    """1 for the loudest tone of each column and 0 for the others: the melody and no more of the sound than that."""
    return F.one_hot(tones.argmax(dim=-1), tones.shape[-1]).to(tones.dtype)


def hear_melody(audio: Audio, sample_rate: int, config: MelodyConfig) -> Float[Tensor, "batch columns bins"]:
    """Return the melody of any sound: its channels mixed, at the codec's rate, the loudest tone of each column.

    audiocraft first takes voice and lead out of the mixture (demucs); here, as in transformers' feature extractor, the
    mixture itself is heard, so give a tune that leads.
    """
    heard = config.length * config.hop_length + config.window  # samples; what comes later has no column of its own
    waveform = audio.convert(sample_rate, 1).waveform[:, 0, :heard]
    return loudest_tone(chroma(waveform.float(), sample_rate, config))[:, : config.length]


@cache
def _tones(sample_rate: int, config: MelodyConfig) -> Float[Tensor, "bins frequencies"]:
    bank = chroma_filter_bank(num_frequency_bins=config.window, num_chroma=config.bins, sampling_rate=sample_rate)
    with torch.inference_mode(False):  # kept for later calls, of which one may be a training
        return torch.tensor(bank, dtype=torch.float32, device="cpu")


class MelodyProjection(nn.Linear):
    """Lays a melody before the codes: tones → model width, as many columns as the model was trained with.

    transformers calls the layer `audio_enc_to_dec_proj`.
    """

    def __init__(self, config: MelodyConfig, model_width: int) -> None:
        super().__init__(config.bins, model_width)
        self.length = config.length

    def forward(self, melody: Float[Tensor, "batch columns bins"]) -> Float[Tensor, "batch melody_length model_width"]:
        """Return the projected melody; a short one is repeated, a long one cut."""
        with own_precision(self.weight.device):
            states = super().forward(melody.to(self.weight.dtype))
        return states.repeat(1, -(-self.length // states.shape[1]), 1)[:, : self.length]

    def no_melody(self, batch: int) -> Float[Tensor, "batch columns bins"]:
        """What stands for no melody: the first tone throughout. With its projection's bias that is not 0."""
        tone = torch.zeros(batch, 1, self.in_features, device=self.weight.device, dtype=self.weight.dtype)
        tone[:, :, 0] = 1
        return tone


def before_the_codes(
    states: Float[Tensor, "batch text_tokens model_width"],
    mask: TextMask,
    projection: MelodyProjection,
    melody: Float[Tensor, "batch columns bins"] | None = None,
) -> Condition:
    """The condition of MusicGen Melody: [melody; text] before the codes, and nothing for cross-attention to look at.

    Padding of the text stands there as zeros and is looked at, as in the reference implementation. The null condition
    has no melody and zeros for the text.
    """
    silence = projection.no_melody(len(states))
    heard = projection(silence if melody is None else melody)
    null = torch.cat([projection(silence), torch.zeros_like(states)], dim=1)
    return Condition(states, mask, torch.cat([heard, states], dim=1), null)
