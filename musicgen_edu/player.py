"""A sound's face in a notebook: how loud it is played, a player, a picture, and in words what the picture shows.

Pure functions on samples. Matplotlib, Pillow and pyloudnorm are loaded when they are first used, so that who only
generates does not wait for them.
"""

from __future__ import annotations

import base64
import html
import math
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import hertz_to_mel

from musicgen_edu.spectrogram import FLOOR_DB, log_mel

if TYPE_CHECKING:  # loaded when a picture is drawn
    import matplotlib.axes
    import matplotlib.figure

LISTENING_LUFS = -16.0  # integrated loudness (ITU-R BS.1770) of what is played: that of podcasts and music services
PEAK_DB = -1.0  # no sample passes it (dBFS), so a sharp sound stays below the listening level, and nothing is squeezed
BLOCK_SECONDS = 0.4  # the meter's window; a shorter clip is measured as if it went on and on
METER_RATE = 8_000  # the meter's filters need as many samples a second
MP3_SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
PICTURE_FFT, PICTURE_BANDS = 2048, 80
PICTURE_HERTZ = (100, 500, 1_000, 2_000, 4_000, 8_000, 16_000)  # the ticks, as far as the sample rate reaches
PICTURE_DPI, PICTURE_COLOURS = 70, 128


def listening_gain(
    waveform: Float[Tensor, "batch channels samples"], sample_rate: int, level: float | int = LISTENING_LUFS
) -> float:
    """Return the decibels that bring clips to `level` LUFS: one gain for all, the loudest clip's, so that they compare.

    It is less where a sample would pass `PEAK_DB`, and 0 where there is nothing but silence.
    """
    clips = mix_beyond_stereo(waveform.detach().float().cpu())
    loudest = max(integrated_loudness(clip, sample_rate) for clip in clips)
    if loudest == -math.inf:
        return 0.0
    return min(level - loudest, PEAK_DB - 20 * math.log10(float(clips.abs().max())))


def integrated_loudness(samples: Float[Tensor, "channels samples"], sample_rate: int) -> float:
    """Return the loudness in LUFS of a clip of one or two channels (ITU-R BS.1770-4, `pyloudnorm`); silence has −∞."""
    import pyloudnorm

    if not samples.any():
        return -math.inf
    held = math.ceil(METER_RATE / sample_rate)  # a slow rate's samples are held, which changes no loudness below 2 kHz
    samples = samples.repeat_interleave(held, dim=1)
    sample_rate *= held
    samples = samples.tile(math.ceil(BLOCK_SECONDS * sample_rate / samples.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of the mean of no block where all are too soft
        loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(samples.T.double().numpy()))
    return loudness if math.isfinite(loudness) else -math.inf


def mix_beyond_stereo(waveform: Float[Tensor, "*batch channels samples"]) -> Float[Tensor, "*batch heard samples"]:
    """What two loudspeakers can play: more channels than two are mixed to one."""
    return waveform if waveform.shape[-2] <= 2 else waveform.mean(dim=-2, keepdim=True)


def gain_in_words(gain: float) -> str:
    """Say what a gain in decibels did, to the whole decibel: "played 22 dB louder than made"."""
    if abs(gain) < 0.5:
        return "played as loud as made"
    return f"played {abs(gain):.0f} dB {'louder' if gain > 0 else 'softer'} than made"


def mp3_rate(sample_rate: int) -> int:
    """Return the sample rate of an MP3, which knows nine of them: it is small, and every browser plays it."""
    return next((rate for rate in MP3_SAMPLE_RATES if rate >= sample_rate), MP3_SAMPLE_RATES[-1])


def clip_html(name: str, samples: Float[Tensor, "channels samples"], sample_rate: int, gain: float, mp3: bytes) -> str:
    """Return a player and a picture of one clip. `mp3` are its samples, which have got `gain` already, as a file."""
    mixed = samples.mean(dim=0)
    picture = _data_uri("image/png", small_png(draw(mixed, sample_rate)))
    name = html.escape(f"{name}, {len(mixed) / sample_rate:.1f} seconds")
    said = f"{name}, {gain_in_words(gain)}"
    return (
        f'<figure><figcaption>{said}</figcaption><audio controls aria-label="{said}" '
        f'src="{_data_uri("audio/mpeg", mp3)}"></audio><br><img alt="Waveform and mel spectrogram of {name}: '
        f'{in_words(mixed, sample_rate)}" src="{picture}"></figure>'
    )


def draw(samples: Float[Tensor, " samples"], sample_rate: int) -> matplotlib.figure.Figure:
    """Draw the waveform above its mel spectrogram, as a figure of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    seconds = torch.arange(len(samples), dtype=torch.float64, device="cpu") / sample_rate
    above.plot(seconds.numpy(), samples.numpy(), linewidth=0.4)
    above.set(ylabel="amplitude", ylim=(-1, 1))
    _draw_mel(below, samples, sample_rate)
    figure.colorbar(below.images[0], ax=(above, below), label="dB")
    return figure


def in_words(samples: Float[Tensor, " samples"], sample_rate: int) -> str:
    """What the picture shows, measured, for who cannot see it."""
    heard = (samples.abs() > 0.01).nonzero()  # −40 dB against full scale
    if len(heard) == 0:
        return "nothing can be heard"
    level = 10 * torch.log10(samples.square().mean())
    strongest = torch.fft.rfft(samples).abs().argmax() * sample_rate / len(samples)
    first, last = heard[0, 0] / sample_rate, heard[-1, 0] / sample_rate
    return (
        f"heard from {first:.2f} to {last:.2f} s, peak {samples.abs().max():.2f}, mean level {level:.0f} dB, "
        f"strongest near {strongest:.0f} Hz"
    )


def _draw_mel(axes: matplotlib.axes.Axes, samples: Float[Tensor, " samples"], sample_rate: int) -> None:
    shortage = max(0, PICTURE_FFT - len(samples))  # a clip shorter than the window is followed by silence
    decibels = log_mel(F.pad(samples, (0, shortage))[None], sample_rate, PICTURE_FFT, PICTURE_BANDS)[0].numpy()
    extent = (0, (len(samples) + shortage) / sample_rate, 0, PICTURE_BANDS)
    look = {"origin": "lower", "aspect": "auto", "cmap": "magma", "interpolation": "nearest"}
    axes.imshow(decibels, extent=extent, vmin=FLOOR_DB, vmax=0, **look)
    hertz = [tick for tick in PICTURE_HERTZ if tick <= sample_rate / 2]
    highest = hertz_to_mel(sample_rate / 2, "slaney")
    axes.set_yticks([PICTURE_BANDS * hertz_to_mel(tick, "slaney") / highest for tick in hertz], hertz)
    axes.set(xlabel="seconds", ylabel="Hz", xlim=(0, len(samples) / sample_rate))


def small_png(figure: matplotlib.figure.Figure) -> bytes:
    """A picture in few colours takes a third of the bytes; MAXCOVERAGE keeps the rare bright ones of the scale."""
    from PIL import Image

    full, small = BytesIO(), BytesIO()
    figure.savefig(full, format="png", dpi=PICTURE_DPI)
    reduced = Image.open(full).convert("RGB").quantize(PICTURE_COLOURS, Image.Quantize.MAXCOVERAGE)
    reduced.save(small, format="PNG", optimize=True)
    return small.getvalue()


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
