"""Looks at text states: how alike two prompts are, word by word, and where captions lie on a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from musicgen_edu.inspection.controls import Shown, View, text_box, tick_box
from musicgen_edu.inspection.pictures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    Picture,
    picture,
    problem,
    svg_drawing,
    svg_text,
)
from musicgen_edu.model import MusicGen

MAX_SHOWN = 16  # pieces of a prompt that fit beside a picture of 640 pixels
COLOURS, MARKERS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, YELLOW, GREY), "osD^vPX*<>h"
# The parts of an encoder from bottom to top: what it is, and whether a block holds it.
PARTS = (
    ("embedding: a row of the table for each id", False), ("RMSNorm", True), ("attention + position bias", True),
    ("RMSNorm", True), ("feed-forward", True), ("RMSNorm", False),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The pieces of two prompts, and the cosine of every state of the first with every state of the second."""

    first: list[str]
    second: list[str]
    cosines: Float[Tensor, "first_tokens second_tokens"]

    def same_words(self) -> list[tuple[str, float]]:
        """Each piece that stands once in both prompts, with the cosine of its two states."""
        shared = [piece for piece in self.first if self.first.count(piece) == self.second.count(piece) == 1]
        return [(piece, float(self.cosines[self.first.index(piece), self.second.index(piece)])) for piece in shared]


def compare_prompts(
    model: MusicGen, first: str, second: str, centre: Float[Tensor, " text_width"] | None = None
) -> Comparison:
    """Compare two prompts token by token; `centre`, where given, is subtracted from every state before.

    Raises ValueError for a prompt that is blank or longer than a picture can show.
    """
    pieces = [model.tokenizer.pieces(prompt) for prompt in (first, second)]
    if (longest := max(map(len, pieces))) > MAX_SHOWN:
        raise ValueError(f"A prompt has {longest} pieces and the picture has room for {MAX_SHOWN}: shorten it.")
    ids, mask = (each.to(model.decoder.device) for each in model.tokenizer([first, second]))
    with torch.no_grad():
        of_first, of_second = model.text_encoder(ids, mask).float().cpu()
    shift = torch.zeros_like(of_first[0, 0]) if centre is None else centre
    pairs = of_first[: len(pieces[0]), None] - shift, of_second[None, : len(pieces[1])] - shift
    return Comparison(*([piece.strip("▁") for piece in row] for row in pieces), F.cosine_similarity(*pairs, dim=-1))


def draw_comparison(comparison: Comparison) -> Picture:
    """Draw the cosines as a table of tones with figures in it."""
    rows, columns = comparison.cosines.shape
    figure = Figure(figsize=(8, 1.8 + 0.36 * rows), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(comparison.cosines.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(columns), comparison.second, rotation=45, ha="right")
    axes.set_yticks(range(rows), comparison.first)
    axes.set(xlabel="tokens of the second prompt", ylabel="tokens of the first")
    for row, values in enumerate(comparison.cosines.tolist()):
        for column, value in enumerate(values):
            ink = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, _rounded(value), ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(image, label="cosine")
    words = "; ".join(f"“{word}” {_rounded(cosine)}" for word, cosine in comparison.same_words())
    return picture(figure, f"Cosines between the tokens of two prompts. Words that stand in both: {words or 'none'}.")


def _rounded(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # a zero without a sign


def draw_caption_map(
    points: Float[Tensor, "points 2"], labels: Sequence[str], names: Sequence[str], title: str
) -> Picture:
    """Draw captions as marks, with a colour and a shape for each name; `labels` holds the name of each point."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, marker in zip(names, cycle(COLOURS), cycle(MARKERS), strict=False):
        chosen = points[[label == name for label in labels]].numpy()
        axes.scatter(*chosen.T, s=34, c=colour, marker=marker, edgecolors="black", linewidths=0.4, label=name)
    axes.set(xlabel="first principal direction", ylabel="second principal direction", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    alt = f"{title}: {len(labels)} captions as points of a plane, a colour and a shape for each of {', '.join(names)}."
    return picture(figure, alt)


def draw_encoder(layers: int = 3) -> Picture:
    """Draw a T5 encoder from bottom to top, with the two sums by which each block adds to the states."""
    tops = [36 + 64 * place for place in reversed(range(len(PARTS)))]
    height = tops[0] + 90
    drawn = "".join(_part(top, name, in_block) for top, (name, in_block) in zip(tops, PARTS, strict=True))
    drawn += _sum(tops[2], tops[0] - 25) + _sum(tops[4], tops[2] - 25)
    drawn += svg_text(500, tops[3] + 54, f"{layers} times")
    drawn += svg_text(320, height - 8, "ids", text_anchor="middle")
    drawn += svg_text(320, 18, "states", text_anchor="middle")
    alt = (
        f"A T5 encoder from bottom to top: ids, embedding, then {layers} times a block (RMSNorm, attention with "
        "position bias, added to what came in; RMSNorm, feed-forward, added to what came in), a last RMSNorm, states."
    )
    return svg_drawing(640, height, drawn, alt)


def _part(top: int, name: str, in_block: bool) -> str:
    """A box, and the arrow that leads into it from below."""
    return (
        f'<rect x="150" y="{top}" width="340" height="32" rx="6" fill="{"#ffd27f" if in_block else "#eaf1fb"}" '
        f'stroke="#08306b"/>{svg_text(320, top + 21, name, text_anchor="middle")}'
        f'<path d="M320 {top + 64} V{top + 33} m-4 7 l4 -7 l4 7" stroke="#333333" fill="none"/>'
    )


def _sum(top: int, start: int) -> str:
    """A plus sign above the box at `top`, and the way around that leads to it from `start`."""
    return (
        f'<path d="M320 {start} H120 V{top - 10} H312 m-7 -4 l7 4 l-7 4" stroke="#333333" fill="none"/>'
        f'<circle cx="320" cy="{top - 10}" r="8" fill="#ffffff" stroke="#333333"/>'
        + svg_text(320, top - 5, "+", text_anchor="middle")
    )


def explore_prompts(model: MusicGen, centre: Float[Tensor, " text_width"] | None = None) -> View:
    """Two prompts to type, and the picture of their cosines under them; the tick box takes the common part away."""
    first = text_box("First prompt", "electric guitar melody", "Words to compare; press Enter")
    second = text_box("Second prompt", "acoustic guitar, fast", "Words to compare with them; press Enter")
    centred = tick_box(
        "Without the common part", centre is not None, "Subtract the mean state", disabled=centre is None
    )
    shown = Shown()

    def show(_=None) -> None:
        try:
            comparison = compare_prompts(model, first.value, second.value, centre if centred.value else None)
            shown.value = draw_comparison(comparison)._repr_html_()
        except ValueError as error:
            shown.value = problem(error)

    for control in (first, second, centred):
        control.observe(show, names="value")
    show()
    return View([first, second, centred, shown], shown)
