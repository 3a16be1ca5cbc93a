"""Codebooks by ear: a clip as the codec plays it back from its first codebook, its first two, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import ipywidgets
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from musicgen_edu.audio import Audio
from musicgen_edu.codec import Codec
from musicgen_edu.inspection.controls import Choice, Heard, Shown, Slider, View, play_button, row, stops
from musicgen_edu.inspection.pictures import ORANGE, SKY, Picture, picture, problem, status
from musicgen_edu.listening.metrics import si_sdr
from musicgen_edu.spectrogram import MEL_RESOLUTIONS, mel_distance

SHORTEST = max(n_fft for n_fft, _ in MEL_RESOLUTIONS)  # samples: one window of the coarsest spectrogram


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A clip decoded from its first `codebooks` codebooks, and how far it is from the original."""

    codebooks: int
    waveform: Float[Tensor, "1 channels samples"]
    si_sdr: float  # dB, the more the nearer
    mel_distance: float  # dB, the less the nearer


def rebuild_by_codebooks(codec: Codec, audio: Audio) -> list[Rebuilt]:
    """Encode one clip and decode its first codebook alone, its first two, … and all of them.

    Raises:
        ValueError: the audio is a batch, shorter than `SHORTEST` samples, or of another rate or number of channels
            than the codec's.
    """
    _check(codec, audio)
    original, codes = audio.waveform, codec.encode(audio.waveform)
    rebuilt = []
    for count in range(1, codec.config.num_codebooks + 1):
        waveform = codec.decode(codes[:, :count])[..., : original.shape[-1]]
        ratio = si_sdr(waveform.flatten(1), original.flatten(1)).item()
        distance = mel_distance(waveform.transpose(0, 1), original.transpose(0, 1), audio.sample_rate).item()
        rebuilt.append(Rebuilt(count, waveform, ratio, distance))
    return rebuilt


def draw_codebooks(rebuilt: Sequence[Rebuilt], chosen: int | None = None) -> Picture:
    """Draw both errors over the number of codebooks; the bars of `chosen` codebooks are hatched."""
    ratios, distances = [clip.si_sdr for clip in rebuilt], [clip.mel_distance for clip in rebuilt]
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_bars(left, rebuilt, ratios, chosen, "SI-SDR in dB: the higher, the nearer")
    _draw_bars(right, rebuilt, distances, chosen, "mel distance in dB: the lower, the nearer")
    alt = (
        f"Two bar charts over 1 to {len(rebuilt)} codebooks. SI-SDR: {_list(ratios)} dB. "
        f"Mel distance: {_list(distances)} dB."
    )
    return picture(figure, alt + (f" The bars of {_name(chosen)} are hatched." if chosen else ""))


def explore_codebooks(codec: Codec, clips: Mapping[str, Audio]) -> View:
    """Choose a clip and a number of codebooks, see the errors, press the button and hear it after the original.

    Clips that the codec cannot take are answered with a sentence in red.
    """
    rebuild = cache(lambda name: rebuild_by_codebooks(codec, clips[name]))
    count = codec.config.num_codebooks
    clip = Choice("Clip", clips, next(iter(clips)), tooltip="The clip that is encoded and decoded")
    codebooks = Slider("Codebooks", stops(1, count), 1, tooltip="How many codebooks, from the first on, are decoded")
    button = play_button("Decode and play", "Play the original; what the codec makes of it stands below")
    said, bars, sound = Shown(value=status("The original plays; the codec's clip stands below it.")), Shown(), Heard()

    def redraw(_: object = None) -> None:
        try:
            bars.value = draw_codebooks(rebuild(clip.value), codebooks.value)._repr_html_()
        except ValueError as error:
            bars.value = problem(error)

    def play(_: ipywidgets.Button) -> None:
        try:
            sound.play(_players(clips[clip.value], rebuild(clip.value)[codebooks.value - 1], clip.value, count))
        except ValueError as error:
            bars.value = problem(error)

    clip.observe(redraw, "value")
    codebooks.observe(redraw, "value")
    button.on_click(play)
    redraw()
    return View([row(clip, codebooks), bars, row(button, said), sound], bars)


def _check(codec: Codec, audio: Audio) -> None:
    config, (batch, channels, samples) = codec.config, audio.waveform.shape
    if batch != 1:
        raise ValueError(f"One clip is compared at a time, and this is a batch of {batch}: give one of them.")
    if audio.sample_rate != config.sample_rate:
        raise ValueError(
            f"The clip has {audio.sample_rate} samples a second and the codec works at {config.sample_rate}: "
            "resample it first."
        )
    if channels != config.channels:
        raise ValueError(f"The clip has {channels} channels and the codec {config.channels}: mix it first.")
    if samples < SHORTEST:
        raise ValueError(f"The clip has {samples} samples: give at least {SHORTEST}, one window of the spectrogram.")


def _draw_bars(axes: Axes, rebuilt: Sequence[Rebuilt], values: Sequence[float], chosen: int | None, title: str) -> None:
    counts = [clip.codebooks for clip in rebuilt]
    bars = axes.bar(
        counts, values, edgecolor="#222222",
        color=[ORANGE if count == chosen else SKY for count in counts],
        hatch=["//" if count == chosen else "" for count in counts],
    )  # fmt: skip
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set_xticks(counts)
    axes.set(xlabel="codebooks", ylabel="dB")
    axes.set_title(title, fontsize=10)


def _players(original: Audio, rebuilt: Rebuilt, name: str, count: int) -> str:
    pair = torch.cat([original.waveform, rebuilt.waveform])
    names = [f"{name}, the original", f"{name}, {_name(rebuilt.codebooks)} of {count}"]
    return Audio(pair, original.sample_rate, prompts=names)._repr_html_()


def _name(count: int) -> str:
    return "1 codebook" if count == 1 else f"{count} codebooks"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
