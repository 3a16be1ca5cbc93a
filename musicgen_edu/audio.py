"""What comes out of the house: a waveform that plays and shows itself in a notebook and is written to a WAV file."""

from __future__ import annotations

import base64
import html
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import shorten

import soundfile
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from transformers.audio_utils import hertz_to_mel

from musicgen_edu.files import write_whole
from musicgen_edu.spectrogram import FLOOR_DB, log_mel

MP3_SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
PICTURE_FFT, PICTURE_BANDS = 2048, 80
PICTURE_HERTZ = (100, 500, 1_000, 2_000, 4_000, 8_000, 16_000)  # the ticks, as far as the sample rate reaches
PICTURE_DPI, PICTURE_COLOURS = 70, 128


@dataclass(eq=False, repr=False)
class Audio:
    """One clip or a batch of them: waveform [batch, channels, samples] between −1 and 1, samples a second.

    `codes` [batch, codebooks, frames] are those that it was decoded from and `prompts` the texts, where there are any.
    Raises ValueError for a waveform that is empty or not finite, or a sample rate below 1.
    """

    waveform: Float[Tensor, "batch channels samples"]
    sample_rate: int
    codes: Int[Tensor, "batch codebooks frames"] | None = None
    prompts: list[str] | None = None

    def __post_init__(self) -> None:
        if self.waveform.numel() == 0 or not self.waveform.isfinite().all():
            raise ValueError("The waveform must hold samples, all of them finite numbers: NaN comes of broken weights.")
        if self.sample_rate < 1:
            raise ValueError(f"sample_rate must be at least 1 sample a second, not {self.sample_rate}.")

    @property
    def duration(self) -> float:
        """Length of each clip in seconds."""
        return self.waveform.shape[2] / self.sample_rate

    def __repr__(self) -> str:
        batch, channels, _ = self.waveform.shape
        return f"Audio({batch} × {channels} channel × {self.duration:.2f} s at {self.sample_rate} Hz)"

    def save(self, path: str | os.PathLike[str]) -> Path | list[Path]:
        """Write a WAV file of 16 bits a sample and return its path; of a batch, numbered files and the list of theirs.

        Samples outside −1 … 1 are clipped, nothing is rescaled. A file appears whole or not at all. Raises ValueError
        for a name that does not end in .wav, and the fitting OSError where the folder cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".wav":
            raise ValueError(f"Audio is saved as WAV: give a file name that ends in .wav, not {path.name!r}.")
        batch = len(self.waveform)
        paths = [path if batch == 1 else path.with_stem(f"{path.stem}-{item + 1}") for item in range(batch)]
        for item, item_path in enumerate(paths):
            write_whole(item_path, self._encode(item, "WAV"))
        return paths[0] if batch == 1 else paths

    def plot(self, item: int = 0) -> Figure:
        """Draw one clip, its channels mixed: the waveform above its mel spectrogram, as a figure of its own."""
        samples = self._samples(item).mean(dim=0)
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        above.plot((torch.arange(len(samples)) / self.sample_rate).numpy(), samples.numpy(), linewidth=0.4)
        above.set(ylabel="amplitude", ylim=(-1, 1))
        _draw_mel(below, samples, self.sample_rate)
        figure.colorbar(below.images[0], ax=(above, below), label="dB")
        return figure

    def _repr_html_(self) -> str:
        """A player and a picture for each clip: what a notebook shows."""
        return "\n".join(self._item_html(item) for item in range(len(self.waveform)))

    def _item_html(self, item: int) -> str:
        kind = "MP3" if self.sample_rate in MP3_SAMPLE_RATES else "WAV"  # both play in every browser; MP3 is small
        sound = _data_uri({"MP3": "audio/mpeg", "WAV": "audio/wav"}[kind], self._encode(item, kind))
        picture = _data_uri("image/png", small_png(self.plot(item)))
        name = html.escape(f"{self._name(item)}, {self.duration:.1f} seconds")
        return (
            f'<figure><figcaption>{name}</figcaption><audio controls aria-label="{name}" src="{sound}"></audio><br>'
            f'<img alt="Waveform and mel spectrogram of {name}: {self._in_words(item)}" src="{picture}"></figure>'
        )

    def _name(self, item: int) -> str:
        return shorten(self.prompts[item], 120, placeholder=" …") if self.prompts else f"clip {item + 1}"

    def _in_words(self, item: int) -> str:
        """What the picture shows, measured, for who cannot see it."""
        samples = self._samples(item).mean(dim=0)
        heard = (samples.abs() > 0.01).nonzero()  # −40 dB against full scale
        if len(heard) == 0:
            return "nothing can be heard"
        level = 10 * torch.log10(samples.square().mean())
        strongest = torch.fft.rfft(samples).abs().argmax() * self.sample_rate / len(samples)
        first, last = heard[0, 0] / self.sample_rate, heard[-1, 0] / self.sample_rate
        return (
            f"heard from {first:.2f} to {last:.2f} s, peak {samples.abs().max():.2f}, mean level {level:.0f} dB, "
            f"strongest near {strongest:.0f} Hz"
        )

    def _samples(self, item: int) -> Float[Tensor, "channels samples"]:
        return self.waveform[item].detach().float().cpu().clamp(-1, 1)

    def _encode(self, item: int, kind: str) -> bytes:
        subtype = {"WAV": "PCM_16", "MP3": "MPEG_LAYER_III"}[kind]
        samples = self._samples(item).T
        if kind == "WAV":  # libsndfile would round down, which shifts the whole clip by half a step
            samples = (samples * 2**15).round().clamp(max=2**15 - 1).to(torch.int16)
        file = BytesIO()
        soundfile.write(file, samples.numpy(), self.sample_rate, format=kind, subtype=subtype)
        return file.getvalue()


def load_audio(path: str | os.PathLike[str]) -> Audio:
    """Read a sound file (WAV, FLAC, OGG, MP3, …) at its own sample rate, as a batch of one.

    Raises FileNotFoundError where there is none, ValueError for a file that is no sound or holds no samples.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no audio file {path}.")
    try:
        samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as audio; give a WAV, FLAC, OGG or MP3 file.") from error
    if len(samples) == 0:
        raise ValueError(f"{path} holds no samples.")
    return Audio(torch.from_numpy(samples.T.copy())[None], sample_rate)


def _draw_mel(axes: Axes, samples: Float[Tensor, "samples"], sample_rate: int) -> None:
    shortage = max(0, PICTURE_FFT - len(samples))  # a clip shorter than the window is followed by silence
    decibels = log_mel(F.pad(samples, (0, shortage))[None], sample_rate, PICTURE_FFT, PICTURE_BANDS)[0].numpy()
    extent = (0, (len(samples) + shortage) / sample_rate, 0, PICTURE_BANDS)
    look = {"origin": "lower", "aspect": "auto", "cmap": "magma", "interpolation": "nearest"}
    axes.imshow(decibels, extent=extent, vmin=FLOOR_DB, vmax=0, **look)
    hertz = [tick for tick in PICTURE_HERTZ if tick <= sample_rate / 2]
    highest = hertz_to_mel(sample_rate / 2, "slaney")
    axes.set_yticks([PICTURE_BANDS * hertz_to_mel(tick, "slaney") / highest for tick in hertz], hertz)
    axes.set(xlabel="seconds", ylabel="Hz", xlim=(0, len(samples) / sample_rate))


def small_png(figure: Figure) -> bytes:
    """A picture in few colours takes a third of the bytes; MAXCOVERAGE keeps the rare bright ones of the scale."""
    full, small = BytesIO(), BytesIO()
    figure.savefig(full, format="png", dpi=PICTURE_DPI)
    reduced = Image.open(full).convert("RGB").quantize(PICTURE_COLOURS, Image.Quantize.MAXCOVERAGE)
    reduced.save(small, format="PNG", optimize=True)
    return small.getvalue()


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
