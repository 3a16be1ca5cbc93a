"""The grid of a codebook pattern: which frame stands in which cell, as numbers, as a picture, and moved by sliders."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets
from jaxtyping import Int
from torch import Tensor

from musicgen_edu.inspection.pictures import BLUE, GREY, ORANGE, Picture, problem, svg_picture
from musicgen_edu.patterns import PATTERNS, create_pattern

MAX_CODEBOOKS, MAX_FRAMES, MAX_DELAY = 8, 8, 8  # of the view: 65 steps at most that can still be read
EMPTY = "×"  # the sign of a cell that holds no frame
LEFT, TOP, ROW = 104, 58, 30  # the room for the rows' names, for title and step numbers, and for a row; in pixels
HATCHING = (
    '<defs><pattern id="hatching" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#f2f2f2"/><line y2="6" stroke="#b8b8b8" stroke-width="1.6"/></pattern></defs>'
)


def pattern_grid(
    name: str, codebooks: int, frames: int, delays: Sequence[int] | None = None
) -> Int[Tensor, "codebooks steps"]:
    """The frame that each cell of a pattern holds, -1 where it holds none; step 0 is all -1.

    Raises ValueError for a pattern, a number or delays that `create_pattern` refuses.
    """
    return create_pattern(name, codebooks, delays).frame_index(frames)


def describe_grid(grid: Int[Tensor, "codebooks steps"]) -> str:
    """Say in one sentence how long the sequence is and how much of it is empty."""
    frames, steps, empty = int(grid.max()) + 1, grid.shape[1], int((grid < 0).sum())
    clip = f"{frames} frame{'' if frames == 1 else 's'} in {steps} steps, step 0 included"
    return f"{clip}; {empty} of {grid.numel()} cells hold no frame."


def draw_pattern(grid: Int[Tensor, "codebooks steps"], title: str, lit: int | None = None) -> Picture:
    """Draw a grid: a row a codebook, a column a step, in each cell its frame; empty cells are hatched and marked ×.

    Args:
        grid: the frame of each cell, -1 for none: `pattern_grid`'s, or one of your own.
        title: what is written above, and begins the alt text.
        lit: a frame whose cells are framed and orange, so that the eye can follow it; None lights none.
    """
    width = max(18, min(36, 540 // grid.shape[1]))
    rows = grid.tolist()
    cells = "".join(
        _cell(LEFT + width * step, TOP + ROW * codebook, width, frame, lit)
        for codebook, row in enumerate(rows)
        for step, frame in enumerate(row)
    )
    whole_width, height = max(640, LEFT + width * grid.shape[1] + 8), TOP + ROW * len(rows) + 8
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole_width}" height="{height}" font-family="sans-serif" '
        f'font-size="13">{HATCHING}<rect width="{whole_width}" height="{height}" fill="#ffffff"/>'
        f'<text x="8" y="20" font-size="15" font-weight="bold" fill="#222222">{escape(title)}</text>'
        f"{_names(len(rows), grid.shape[1], width)}{cells}</svg>"
    )
    return svg_picture(svg, _describe_rows(rows, title, describe_grid(grid), lit))


def _cell(left: int, top: int, width: int, frame: int, lit: int | None) -> str:
    """One cell with its sign: a number on colour, or × on hatching."""
    empty, followed = frame < 0, frame >= 0 and frame == lit
    fill, ink = ("url(#hatching)", "#444444") if empty else (ORANGE, "#000000") if followed else ("#d6e9f6", "#08306b")
    edge, thick = ("#000000", 2) if followed else (GREY if empty else BLUE, 1)
    weight = "bold" if followed else "normal"
    return (
        f'<rect x="{left + 1}" y="{top + 1}" width="{width - 2}" height="{ROW - 2}" fill="{fill}" stroke="{edge}" '
        f'stroke-width="{thick}"/><text x="{left + width / 2}" y="{top + 20}" text-anchor="middle" fill="{ink}" '
        f'font-weight="{weight}">{EMPTY if empty else frame}</text>'
    )


def _names(codebooks: int, steps: int, width: int) -> str:
    """The names of the rows, and the numbers of the steps above the columns."""
    rows = "".join(f'<text x="8" y="{TOP + ROW * k + 20}" fill="#222222">codebook {k}</text>' for k in range(codebooks))
    columns = "".join(
        f'<text x="{LEFT + width * step + width / 2}" y="{TOP - 8}" text-anchor="middle" font-size="11" '
        f'fill="#444444">{step}</text>'
        for step in range(steps)
    )
    return f'{rows}<text x="8" y="{TOP - 8}" font-size="11" fill="#444444">step</text>{columns}'


def _describe_rows(rows: list[list[int]], title: str, summary: str, lit: int | None) -> str:
    table = " ".join(
        f"Codebook {k}: {' '.join(EMPTY if frame < 0 else str(frame) for frame in row)}." for k, row in enumerate(rows)
    )
    followed = "" if lit is None else f" The cells of frame {lit} are lit."
    return f"{title}. {summary} The frame in each cell, step by step, {EMPTY} for none. {table}{followed}"


def explore_pattern(name: str = "delay", codebooks: int = 4, frames: int = 5) -> ipywidgets.Widget:
    """Choose a pattern and move its codebooks, frames and delays; the grid and its length follow."""
    return _View(name, codebooks, frames).box


class _View:
    """The controls and the picture. A delay has a slider of its own for every codebook."""

    def __init__(self, name: str, codebooks: int, frames: int) -> None:
        self.pattern = ipywidgets.Dropdown(
            options=list(PATTERNS), value=name, description="pattern", tooltip="How the codebooks are laid out in time"
        )
        self.codebooks = _slider("codebooks", 1, MAX_CODEBOOKS, codebooks, "How many codes a frame has")
        self.frames = _slider("frames", 1, MAX_FRAMES, frames, "How many frames the clip has")
        self.lit = _slider("follow frame", 0, frames - 1, min(1, frames - 1), "The frame whose cells are lit")
        self.delays = [
            _slider(f"delay {k}", 0, MAX_DELAY, 0, f"The delay of codebook {k}: no smaller than the one before it")
            for k in range(MAX_CODEBOOKS)
        ]
        self.picture, self.delay_box, self.listening = ipywidgets.HTML(), ipywidgets.VBox(), True
        for control in (self.pattern, self.codebooks):
            control.observe(lambda change: self.reset_delays(), "value")
        self.frames.observe(lambda change: self.bound_lit(), "value")
        for control in (self.lit, *self.delays):
            control.observe(lambda change: self.draw(), "value")
        choices = ipywidgets.VBox([self.pattern, self.codebooks, self.frames, self.lit])
        self.box = ipywidgets.VBox([ipywidgets.HBox([choices, self.delay_box]), self.picture])
        self.reset_delays()

    def reset_delays(self) -> None:
        """Show a slider for each codebook, at the delay that the pattern gives it."""
        own = create_pattern(self.pattern.value, self.codebooks.value).delays
        self.listening = False
        for slider, delay in zip(self.delays, own, strict=False):
            slider.value = delay
        self.delay_box.children = self.delays[: len(own)]
        self.listening = True
        self.draw()

    def bound_lit(self) -> None:
        """Keep the followed frame within the clip."""
        self.lit.max = self.frames.value - 1
        self.draw()

    def draw(self) -> None:
        """Draw the grid, or say in red why there is none."""
        if not self.listening:
            return
        delays = [slider.value for slider in self.delays[: self.codebooks.value]]
        try:
            grid = pattern_grid(self.pattern.value, self.codebooks.value, self.frames.value, delays)
        except ValueError as error:
            self.picture.value = problem(error)
            return
        drawn = draw_pattern(grid, f"The {self.pattern.value} pattern", self.lit.value)
        self.picture.value = f"{drawn._repr_html_()}<p>{describe_grid(grid)}</p>"


def _slider(description: str, low: int, high: int, value: int, tooltip: str) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(value=value, min=low, max=high, description=description, tooltip=tooltip)
