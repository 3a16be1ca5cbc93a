"""How a codec uses its codebooks: how often each entry is chosen, how many are never, and perplexity as one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import ipywidgets
import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from musicgen_edu.audio import Audio
from musicgen_edu.codec import Codec, check_range
from musicgen_edu.inspection.controls import Choice, Heard, Shown, Slider, View, play_button, row, stops
from musicgen_edu.inspection.pictures import BLUE, GREY, ORANGE, Picture, picture, problem, status

ALL_CLIPS = "all clips"


@dataclass(frozen=True, eq=False)
class Usage:
    """How often each entry of one codebook was chosen."""

    counts: Int[Tensor, " codebook_size"]

    @property
    def perplexity(self) -> float:
        """How many entries, used evenly, would be as hard to guess: 1 where one does all, all where each does alike.

        It is e to the entropy (in nats) of the shares with which the entries are chosen.
        """
        shares = self.counts.double() / self.counts.sum()
        return float(torch.special.entr(shares).sum().exp())

    @property
    def dead(self) -> int:
        """The number of entries that were never chosen."""
        return int((self.counts == 0).sum())


def measure_usage(codes: Int[Tensor, "batch codebooks frames"], codebook_size: int) -> list[Usage]:
    """Count how often each entry stands in these codes, a `Usage` for each codebook.

    Raises:
        ValueError: there are no codes, or one of them is no entry of a codebook of this size.
    """
    if codes.numel() == 0:
        raise ValueError("There are no codes to count: give at least one clip of at least one frame.")
    check_range(codes, codebook_size)
    return [Usage(torch.bincount(row.flatten(), minlength=codebook_size)) for row in codes.long().unbind(dim=1)]


def draw_usage(usages: Sequence[Usage], chosen: int | None = None) -> Picture:
    """Draw each codebook's entries from the most to the least used, with the line of even use.

    Codebooks count from 1; the panel of the `chosen` one is orange and framed in bold.
    """
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    panels = figure.subplots(1, len(usages), sharey=True, squeeze=False)[0]
    for number, (panel, usage) in enumerate(zip(panels, usages, strict=True), start=1):
        _draw_panel(panel, usage, number, number == chosen)
    panels[0].set_ylabel("% of frames")
    figure.supxlabel("entries, from the most to the least used", fontsize=10)
    sizes = ", ".join(f"{_name(number)}: {_summary(usage)}" for number, usage in enumerate(usages, start=1))
    return picture(figure, f"How often each entry is used, falling from left to right, codebook by codebook. {sizes}.")


def explore_codebook_usage(codecs: Mapping[str, Codec], clips: Mapping[str, Audio]) -> View:
    """Choose a codec, one clip or all, and a codebook: see its use, and press the button to hear the codec play it.

    Clips that a codec cannot take are answered with a sentence in red.
    """
    encode = cache(lambda codec, clip: _encode(codecs[codec], [clips[name] for name in _names(clip, clips)]))
    codec = Choice("Codec", codecs, next(iter(codecs)), tooltip="The codec whose codebooks are counted")
    clip = Choice("Clip", [ALL_CLIPS, *clips], ALL_CLIPS, tooltip="The clips that it encodes")
    codebook = Slider("Codebook", stops(1, 1), 1, tooltip="The codebook that is marked")
    button = play_button("Decode and play", "Play what the codec makes of the clip")
    bars, sound = Shown(), Heard()
    said = Shown(value=status("The clip plays as the codec gives it back; of all clips, the first."))

    def fit(_: object = None) -> None:
        count = codecs[codec.value].config.num_codebooks
        codebook.offer(stops(1, count), min(codebook.value, count))
        redraw()

    def redraw(_: object = None) -> None:
        try:
            usages = measure_usage(encode(codec.value, clip.value), codecs[codec.value].config.codebook_size)
            mark = status(f"{_name(codebook.value)} of {codec.value}: {_summary(usages[codebook.value - 1])}")
            bars.value = draw_usage(usages, codebook.value)._repr_html_() + mark
        except ValueError as error:
            bars.value = problem(error)

    def play(_: ipywidgets.Button) -> None:
        name = _names(clip.value, clips)[0]
        try:
            waveform = codecs[codec.value].decode(encode(codec.value, name))
            sound.play(Audio(waveform, clips[name].sample_rate, prompts=[f"{name}, {codec.value}"])._repr_html_())
        except ValueError as error:
            bars.value = problem(error)

    codec.observe(fit, "value")
    clip.observe(redraw, "value")
    codebook.observe(redraw, "value")
    button.on_click(play)
    fit()
    return View([codec, clip, codebook, bars, row(button, said), sound], bars)


def _encode(codec: Codec, clips: Sequence[Audio]) -> Int[Tensor, "1 codebooks frames"]:
    """The codes of the clips, one after the other."""
    config = codec.config
    for clip in clips:
        if (clip.sample_rate, clip.waveform.shape[1]) != (config.sample_rate, config.channels):
            raise ValueError(
                f"The codec takes {config.channels} channel(s) at {config.sample_rate} samples a second, and a clip "
                f"has {clip.waveform.shape[1]} at {clip.sample_rate}: resample or mix it first."
            )
    return torch.cat([codec.encode(clip.waveform[:1]) for clip in clips], dim=2)


def _names(clip: str, clips: Mapping[str, Audio]) -> list[str]:
    return list(clips) if clip == ALL_CLIPS else [clip]


def _draw_panel(panel: Axes, usage: Usage, number: int, chosen: bool) -> None:
    shares = 100 * usage.counts.sort(descending=True).values / usage.counts.sum()
    size = len(shares)
    panel.fill_between(range(size), shares.numpy(), step="mid", color=ORANGE if chosen else BLUE)
    panel.axhline(100 / size, color=GREY, linestyle="--", linewidth=1)
    panel.set(yscale="symlog", ylim=(0, 150), xlim=(-0.02 * size, size), yticks=[0, 1, 10, 100])
    panel.set_yticklabels(["0", "1", "10", "100"])
    title = f"{_name(number)}\nperplexity {usage.perplexity:.1f} of {size}\n{usage.dead} never used"
    panel.set_title(title, fontsize=9, fontweight="bold" if chosen else "normal")


def _summary(usage: Usage) -> str:
    return f"perplexity {usage.perplexity:.1f} of {len(usage.counts)}, {usage.dead} never used"


def _name(number: int) -> str:
    return f"codebook {number}"
