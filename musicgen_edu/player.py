"""A sound's face in a notebook: a player, a picture, and in words what the picture shows.

Pure functions on samples. Matplotlib and Pillow are loaded when the first picture is drawn, so that who only generates
does not wait for them.
"""

from __future__ import annotations

import base64
import html
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

MP3_SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
PICTURE_FFT, PICTURE_BANDS = 2048, 80
PICTURE_HERTZ = (100, 500, 1_000, 2_000, 4_000, 8_000, 16_000)  # the ticks, as far as the sample rate reaches
PICTURE_DPI, PICTURE_COLOURS = 70, 128


def sound_format(sample_rate: int) -> str:
    """Return MP3 where that knows the sample rate, else WAV: both play in every browser, and MP3 is small."""
    return "MP3" if sample_rate in MP3_SAMPLE_RATES else "WAV"


def clip_html(name: str, samples: Float[Tensor, "channels samples"], sample_rate: int, sound: bytes) -> str:
    """Return a player and a picture of one clip. `sound` are its samples as a file of `sound_format`."""
    mixed = samples.mean(dim=0)
    media_type = {"MP3": "audio/mpeg", "WAV": "audio/wav"}[sound_format(sample_rate)]
    picture = _data_uri("image/png", small_png(draw(mixed, sample_rate)))
    name = html.escape(f"{name}, {len(mixed) / sample_rate:.1f} seconds")
    return (
        f'<figure><figcaption>{name}</figcaption><audio controls aria-label="{name}" '
        f'src="{_data_uri(media_type, sound)}"></audio><br><img alt="Waveform and mel spectrogram of {name}: '
        f'{in_words(mixed, sample_rate)}" src="{picture}"></figure>'
    )


def draw(samples: Float[Tensor, " samples"], sample_rate: int) -> matplotlib.figure.Figure:
    """Draw the waveform above its mel spectrogram, as a figure of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    above.plot((torch.arange(len(samples)) / sample_rate).numpy(), samples.numpy(), linewidth=0.4)
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
