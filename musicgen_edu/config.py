"""Sizes of every part, as frozen dataclasses, and the presets that `create_musicgen_model` knows.

A config holds numbers only: no tensor, no file. The text side and the codec side describe what transformers calls
`T5Config` and `EncodecConfig`; the decoder side what it calls `MusicgenDecoderConfig`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Integral, Real

from musicgen_edu._checks import LARGEST, SMALLEST, check_number

# What each setting of sampling may be, in words and in numbers.
_SETTINGS = {
    "temperature": ("temperature must be 0 (greedy) or a positive number", Real, 0, LARGEST),
    "top_k": ("top_k must be a whole number of at least 0 (all)", Integral, 0, LARGEST),
    "top_p": ("top_p must be a number above 0 and at most 1", Real, SMALLEST, 1),
    "guidance_scale": ("guidance_scale must be a number of at least 0 (1 is no guidance)", Real, 0, LARGEST),
}


@dataclass(frozen=True)
class TextEncoderConfig:
    """A T5 encoder (Raffel et al. 2020, arXiv:1910.10683, section 2.1). The defaults are the shipped model's."""

    vocab_size: int = 266
    hidden_size: int = 512  # text_width
    num_layers: int = 3
    num_heads: int = 8
    head_size: int = 64
    ffn_size: int = 1024
    feed_forward: str = "relu"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6


@dataclass(frozen=True)
class DecoderConfig:
    """MusicGen's decoder (Copet et al. 2023, arXiv:2306.05284, section 2). The defaults are the shipped model's."""

    codebook_size: int = 1024
    num_codebooks: int = 4
    hidden_size: int = 768  # model_width
    num_layers: int = 3
    num_heads: int = 12
    ffn_size: int = 1536
    text_hidden_size: int = 512  # the width that the decoder's text projection expects
    project_text: bool = True  # False: the text states must already be `hidden_size` wide
    cross_attention: bool = True  # False: what is told stands before the codes, as in MusicGen Melody
    audio_channels: int = 1  # 2: codebooks alternate, one for the left, one for the right (Copet et al., section 2.2)

    @property
    def special_token(self) -> int:
        """The id one past the last code: it starts every codebook and fills the cells that hold no frame."""
        return self.codebook_size

    @property
    def has_projection(self) -> bool:
        """Whether a layer translates the text states: equal widths need none, and none is built."""
        return self.project_text and self.text_hidden_size != self.hidden_size


@dataclass(frozen=True)
class CodecConfig:
    """EnCodec (Défossez et al. 2022, arXiv:2210.13438, section 3). The defaults are the shipped model's."""

    sample_rate: int = 16_000
    channels: int = 1
    ratios: tuple[int, ...] = (4, 4, 5, 4)  # decoder order, as in the reference implementation
    num_filters: int = 16
    hidden_size: int = 128  # width of one latent frame
    num_residual_layers: int = 1
    num_lstm_layers: int = 1
    kernel_size: int = 7
    residual_kernel_size: int = 3
    last_kernel_size: int = 7
    dilation_growth_rate: int = 2
    compress: int = 2
    causal: bool = False
    pad_mode: str = "reflect"
    trim_right_ratio: float = 1.0
    conv_shortcut: bool = False  # False: a residual block's shortcut is the identity
    num_codebooks: int = 4
    codebook_size: int = 1024

    @property
    def hop_length(self) -> int:
        """Samples in one frame of codes."""
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> float:
        """Frames of codes in one second (50 for every MusicGen)."""
        return self.sample_rate / self.hop_length


@dataclass(frozen=True)
class MelodyConfig:
    """How a melody is heard: its chroma, the loudness of each of the twelve tones of the scale, whatever the octave.

    The defaults are those of MusicGen Melody (Copet et al. 2023, section 2.3, and transformers' feature extractor).
    """

    bins: int = 12
    length: int = 235  # columns of chroma that stand before the codes: a shorter melody is repeated
    window: int = 16_384  # samples; as many as the Fourier transform takes
    hop_length: int = 4096


@dataclass(frozen=True)
class SamplingSettings:
    """How a code is drawn from the decoder's scores. The defaults are MusicGen's (Copet et al. 2023, section 3.1).

    Raises TypeError and ValueError for what none of them can be.
    """

    temperature: float | int = 1.0  # below 1 the likely codes gain; 0 is greedy
    top_k: int = 250  # the likeliest codes, among which is drawn; 0 is all
    top_p: float | int = 1.0  # the probability that the likeliest codes must reach together; 1 is all
    guidance_scale: float | int = 3.0  # how many times what the prompt changes counts; 1 is no guidance

    def __post_init__(self) -> None:
        for setting in fields(self):  # numpy's numbers become Python's, which files can hold
            object.__setattr__(self, setting.name, check_setting(setting.name, getattr(self, setting.name)))


def check_setting(name: str, value: object) -> float | int:
    """Return a setting's value as a number. Raises TypeError and ValueError where it cannot be."""
    wanted, kind, low, high = _SETTINGS[name]
    return check_number(wanted, value, kind, low, high)


@dataclass(frozen=True)
class MusicGenConfig:
    """The three parts, how the decoder's output is laid out in time, and how it is sampled."""

    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    pattern: str = "delay"  # a name that `patterns.create_pattern` knows
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    melody: MelodyConfig | None = None  # None: no melody is listened to
    window: float | int = 30.0  # seconds that the model holds together; longer music is written window after window
    stride: float | int = 18.0  # seconds from the start of one window to that of the next


# t5-base and EnCodec at 32 kHz, which every released MusicGen uses.
_T5_BASE = TextEncoderConfig(vocab_size=32_128, hidden_size=768, num_layers=12, num_heads=12, ffn_size=3072)
_ENCODEC_32KHZ = CodecConfig(
    sample_rate=32_000, ratios=(8, 5, 4, 4), num_filters=64, num_lstm_layers=2, codebook_size=2048
)


def _released(
    hidden_size: int, num_layers: int, num_heads: int, audio_channels: int = 1, melody: bool = False
) -> MusicGenConfig:
    decoder = DecoderConfig(
        2048, 4 * audio_channels, hidden_size, num_layers, num_heads, 4 * hidden_size, text_hidden_size=768,
        cross_attention=not melody, audio_channels=audio_channels,
    )  # fmt: skip
    return MusicGenConfig(_T5_BASE, decoder, _ENCODEC_32KHZ, melody=MelodyConfig() if melody else None)


_SMALL, _MEDIUM, _LARGE = (1024, 24, 16), (1536, 48, 24), (2048, 48, 32)

PRESETS = {
    # A small model errs more: it draws with care.
    "tiny": MusicGenConfig(sampling=SamplingSettings(temperature=0.8, top_k=20, guidance_scale=2.0)),
    "small": _released(*_SMALL),
    "medium": _released(*_MEDIUM),
    "large": _released(*_LARGE),
    "melody": _released(*_MEDIUM, melody=True),
    "melody-large": _released(*_LARGE, melody=True),
    "stereo-small": _released(*_SMALL, audio_channels=2),
    "stereo-medium": _released(*_MEDIUM, audio_channels=2),
    "stereo-large": _released(*_LARGE, audio_channels=2),
    "stereo-melody": _released(*_MEDIUM, audio_channels=2, melody=True),
    "stereo-melody-large": _released(*_LARGE, audio_channels=2, melody=True),
}
