"""What comes out of the house: a waveform, written to a sound file or read from one; `player.py` shows it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch
from jaxtyping import Float, Int
from torch import Tensor

from musicgen_edu import player
from musicgen_edu._checks import LARGEST, check_codes, check_number, check_path
from musicgen_edu.files import one_line, write_whole

if TYPE_CHECKING:  # loaded when a picture is drawn
    import matplotlib.figure

MAX_SAMPLE_RATE = 1_000_000
MAX_GAIN = 200  # decibels: 10 ** 10, beside which nothing is heard
MAX_CHANNELS = 1_024  # of a sound file, for libsndfile
# Suffix -> the container and the coding of samples in it, by libsndfile's names.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
MAX_VORBIS_RATE, MAX_VORBIS_CHANNELS = 200_000, 255
WRITTEN_AT_ONCE = 2**16  # samples: libsndfile's Vorbis coder takes them from the stack, which a long clip overflows


@dataclass(eq=False, repr=False)
class Audio:
    """One clip or a batch of them: waveform [batch, channels, samples] between −1 and 1, samples a second.

    `codes` [batch, codebooks, frames] are those that it was decoded from and `prompts` the texts, where there are any.
    `gain` says how a notebook plays it: None at the listening level (`player.LISTENING_LUFS`), all clips of a batch
    with the gain of the loudest, so that they can be compared; a number adds so many decibels, so 0 is the true level.

    Raises:
        TypeError: the waveform is no tensor of floating-point numbers, the sample rate no whole number, the gain no
            number, a prompt no string, or the codes are no whole numbers.
        ValueError: the waveform is empty, not finite or has not three axes, the sample rate lies outside
            1 … `MAX_SAMPLE_RATE`, the gain is not finite, or there is not one prompt, or one row of codes, a clip.
    """

    waveform: Float[Tensor, "batch channels samples"]
    sample_rate: int
    codes: Int[Tensor, "batch codebooks frames"] | None = None
    prompts: list[str] | None = None
    gain: float | int | None = None

    def __post_init__(self) -> None:
        _check_waveform(self.waveform)
        wanted = f"sample_rate must be a whole number of samples a second from 1 to {MAX_SAMPLE_RATE:,}"
        self.sample_rate = check_number(wanted, self.sample_rate, Integral, 1, MAX_SAMPLE_RATE)
        if self.codes is not None:
            check_codes(self.codes)
        if self.prompts is not None and not _are_texts(self.prompts):
            raise TypeError(f"prompts must be a list of strings, not {self.prompts!r:.60}.")
        batch = len(self.waveform)
        for name, rows in (("prompts", self.prompts), ("codes", self.codes)):
            if rows is not None and len(rows) != batch:
                raise ValueError(f"There must be {name} for each clip: {len(rows)} for a batch of {batch}.")
        if self.gain is not None:
            wanted = f"gain must be None or a number of decibels from −{MAX_GAIN} to {MAX_GAIN}"
            self.gain = check_number(wanted, self.gain, Real, -MAX_GAIN, MAX_GAIN)

    @property
    def duration(self) -> float:
        """Length of each clip in seconds."""
        return self.waveform.shape[2] / self.sample_rate

    def __repr__(self) -> str:
        batch, channels, _ = self.waveform.shape
        return f"Audio({batch} × {channels} channel × {self.duration:.2f} s at {self.sample_rate} Hz)"

    def convert(self, sample_rate: int, channels: int) -> Audio:
        """Return the same sound at another rate and number of channels, without its codes.

        The rate is changed by a polyphase filter (`scipy.signal.resample_poly`). Channels of another number are mixed
        to one, and that is repeated. Raises TypeError and ValueError like `Audio`, and ValueError for no channel.
        """
        wanted = f"channels must be a whole number from 1 to {MAX_CHANNELS:,}"
        channels = check_number(wanted, channels, Integral, 1, MAX_CHANNELS)
        wanted = replace(self, sample_rate=sample_rate, codes=None)  # refuses a rate that is none
        waveform = self.waveform
        if channels != waveform.shape[1]:
            waveform = waveform.mean(dim=1, keepdim=True).expand(-1, channels, -1)
        return replace(wanted, waveform=_resample(waveform, self.sample_rate, wanted.sample_rate))

    def listening_gain(self, level: float | int = player.LISTENING_LUFS) -> float:
        """Return the decibels that bring the loudest clip to `level` LUFS, less where it would pass −1 dBFS.

        Raises TypeError and ValueError for a level that is no finite number.
        """
        wanted = f"level must be a finite loudness in LUFS, such as {player.LISTENING_LUFS:g}"
        level = check_number(wanted, level, Real, -LARGEST, LARGEST)
        return player.listening_gain(self.waveform, self.sample_rate, level)

    def save(self, path: str | os.PathLike[str], level: float | int | None = None) -> Path | list[Path]:
        """Write a sound file and return its path; of a batch, numbered files and the list of theirs.

        The name's end says which: .wav, .flac (16 bits a sample), .ogg or .mp3 (with loss). MP3 knows nine
        sample rates and two channels, so another sound is converted. Samples outside −1 … 1 are clipped. Without
        `level` nothing is rescaled; with it (`level=-16`) the loudest clip gets that integrated loudness in LUFS, by
        one gain for all, less where a sample would pass −1 dBFS. A file appears whole or not at all.

        Raises:
            ValueError: a name that ends otherwise, a level that is not finite, or a sound that the format cannot hold.
            OSError: of the fitting kind, where the folder cannot be written.
        """
        path = check_path(path)
        if path.suffix.lower() not in FORMATS:
            *some, last = FORMATS
            raise ValueError(f"Give a file name that ends in {', '.join(some)} or {last}, not {path.name!r}.")
        gain = 0.0 if level is None else self.listening_gain(level)
        batch = len(self.waveform)
        paths = [path if batch == 1 else path.with_stem(f"{path.stem}-{item + 1}") for item in range(batch)]
        for item, item_path in enumerate(paths):
            write_whole(item_path, encode_file(self._samples(item, gain), self.sample_rate, path.suffix.lower()))
        return paths[0] if batch == 1 else paths

    def plot(self, item: int = 0) -> matplotlib.figure.Figure:
        """Draw one clip as loud as it is played, its channels mixed: the waveform above its mel spectrogram.

        Raises TypeError and ValueError where there is no clip of that number.
        """
        last = len(self.waveform) - 1
        item = check_number(f"item must be the number of a clip, from 0 to {last}", item, Integral, 0, last)
        return player.draw(self._samples(item, self._playing_gain()).mean(dim=0), self.sample_rate)

    def _repr_html_(self) -> str:
        """A player and a picture for each clip: what a notebook shows."""
        gain = self._playing_gain()
        played = [self._samples(item, gain) for item in range(len(self.waveform))]
        return "\n".join(
            player.clip_html(
                self._name(item), samples, self.sample_rate, gain, encode_file(samples, self.sample_rate, ".mp3")
            )
            for item, samples in enumerate(played)
        )

    def _playing_gain(self) -> float:
        return self.listening_gain() if self.gain is None else float(self.gain)

    def _name(self, item: int) -> str:
        return shorten(self.prompts[item], 120, placeholder=" …") if self.prompts else f"clip {item + 1}"

    def _samples(self, item: int, gain: float) -> Float[Tensor, "channels samples"]:
        return (self.waveform[item].detach().float().cpu() * 10 ** (gain / 20)).clamp(-1, 1)


Sound = Audio | tuple[Tensor | np.ndarray, int] | str | os.PathLike  # what may be given where a sound is wanted


def as_audio(sound: Sound) -> Audio:
    """Return any sound as an `Audio`: one already, a pair (waveform, sample rate), or the path of a sound file.

    The waveform of a pair is a tensor or an array [samples], [channels, samples] or [batch, channels, samples].
    Raises what `Audio` and `load_audio` raise, and TypeError for anything else.
    """
    if isinstance(sound, Audio):
        return sound
    if isinstance(sound, str | os.PathLike):
        return load_audio(sound)
    if not isinstance(sound, tuple) or len(sound) != 2:
        raise TypeError(f"A sound is an Audio, (waveform, sample_rate) or the path of a file, not {sound!r:.60}.")
    waveform, sample_rate = sound
    if isinstance(waveform, np.ndarray):
        with suppress(TypeError):  # of what torch has no numbers for, `Audio` says it
            waveform = torch.from_numpy(np.ascontiguousarray(waveform))  # some arrays are read backwards
    if isinstance(waveform, Tensor) and waveform.ndim in (1, 2):
        waveform = waveform[(None,) * (3 - waveform.ndim)]
    return Audio(waveform, sample_rate)


def load_audio(path: str | os.PathLike[str], sample_rate: int | None = None, channels: int | None = None) -> Audio:
    """Read a sound file (WAV, FLAC, OGG, MP3, …) as a batch of one, at its own rate and channels or at those asked for.

    Raises FileNotFoundError where there is none, ValueError for a file that is no sound, holds no samples or more than
    the memory, and what `Audio.convert` raises.
    """
    path = check_path(path)
    name = one_line(path)
    if not os.path.exists(path):  # not Path.exists, which some names break
        raise FileNotFoundError(f"There is no audio file {name}.")
    unreadable = f"{name} cannot be read as audio; give a WAV, FLAC, OGG or MP3 file."
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(unreadable)
    try:
        samples, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(unreadable) from error
    except MemoryError as error:
        raise ValueError(f"{name} holds more samples than the memory, or says so and is damaged: cut it.") from error
    if len(samples) == 0:
        raise ValueError(f"{name} holds no samples.")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds samples that are no finite numbers: it is damaged; export it again.")
    audio = Audio(torch.from_numpy(samples.T.copy())[None], own_rate)
    return audio.convert(
        own_rate if sample_rate is None else sample_rate, samples.shape[1] if channels is None else channels
    )


def _check_waveform(waveform: object) -> None:
    if not isinstance(waveform, Tensor) or not waveform.is_floating_point() or waveform.is_sparse or waveform.is_meta:
        found = f"of {str(waveform.dtype)[6:]}" if isinstance(waveform, Tensor) else f"a {type(waveform).__name__}"
        raise TypeError(
            "The waveform must be a tensor of floating-point numbers between −1 and 1, "
            f"not {found}: torch.from_numpy takes an array, and 16-bit samples are divided by 32,768."
        )
    if waveform.ndim != 3:
        raise ValueError(
            f"The waveform must have the axes [batch, channels, samples], not {waveform.ndim} of them: "
            "for one clip of one channel write `samples[None, None]`."
        )
    if waveform.numel() == 0 or not waveform.float().isfinite().all():
        raise ValueError("The waveform must hold samples, all of them finite numbers: NaN comes of broken weights.")


def _are_texts(prompts: object) -> bool:
    return isinstance(prompts, list | tuple) and all(isinstance(prompt, str) for prompt in prompts)


def _resample(
    waveform: Float[Tensor, "*batch samples"], old_rate: int, new_rate: int
) -> Float[Tensor, "*batch new_samples"]:
    if old_rate == new_rate:
        return waveform
    from scipy.signal import resample_poly  # loaded when it is used

    shared = math.gcd(old_rate, new_rate)
    samples = waveform.detach().double().cpu().numpy()
    resampled = resample_poly(samples, new_rate // shared, old_rate // shared, axis=-1)
    return torch.from_numpy(resampled).to(waveform)


def encode_file(samples: Float[Tensor, "channels samples"], sample_rate: int, suffix: str) -> bytes:
    """Return the content of a sound file of this suffix, a key of `FORMATS`, from samples between −1 and 1.

    16-bit samples are rounded. Raises ValueError for a rate or a number of channels that the format does not hold.
    """
    kind, subtype = FORMATS[suffix]
    if kind == "MP3":
        samples, old_rate = player.mix_beyond_stereo(samples), sample_rate
        sample_rate = player.mp3_rate(sample_rate)
        samples = _resample(samples, old_rate, sample_rate).clamp(-1, 1)
    if subtype == "PCM_16":  # python-soundfile lets libsndfile clip, and in that mode it cuts off instead of rounding
        samples = (samples * 2**15).round().clamp(max=2**15 - 1).to(torch.int16)
    content = BytesIO()
    refused = f"A {kind} file cannot hold {len(samples)} channels at {sample_rate} samples a second: save as .wav."
    if kind == "OGG" and (sample_rate > MAX_VORBIS_RATE or len(samples) > MAX_VORBIS_CHANNELS):
        raise ValueError(refused)  # libsndfile's coder does not refuse it: the process ends
    try:
        with soundfile.SoundFile(content, "w", sample_rate, len(samples), subtype, format=kind) as file:
            for part in samples.T.split(WRITTEN_AT_ONCE):
                file.write(part.numpy())
    except soundfile.LibsndfileError as error:
        raise ValueError(refused) from error
    return content.getvalue()
