"""What comes out of the house: a waveform, written to a WAV file; `player.py` is its face in a notebook."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import soundfile
import torch
from jaxtyping import Float, Int
from torch import Tensor

from musicgen_edu import player
from musicgen_edu.files import write_whole

if TYPE_CHECKING:  # loaded when a picture is drawn
    import matplotlib.figure


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

    def plot(self, item: int = 0) -> matplotlib.figure.Figure:
        """Draw one clip, its channels mixed: the waveform above its mel spectrogram, as a figure of its own."""
        return player.draw(self._samples(item).mean(dim=0), self.sample_rate)

    def _repr_html_(self) -> str:
        """A player and a picture for each clip: what a notebook shows."""
        kind = player.sound_format(self.sample_rate)
        return "\n".join(
            player.clip_html(self._name(item), self._samples(item), self.sample_rate, self._encode(item, kind))
            for item in range(len(self.waveform))
        )

    def _name(self, item: int) -> str:
        return shorten(self.prompts[item], 120, placeholder=" …") if self.prompts else f"clip {item + 1}"

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
