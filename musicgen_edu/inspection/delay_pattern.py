"""The grid of a codebook pattern: which frame stands in which cell, as numbers, as a picture, and moved by sliders."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from musicgen_edu.inspection.controls import Choice, Shown, Slider, View, row, stops
from musicgen_edu.inspection.pictures import BLUE, GREY, ORANGE, Picture, status, svg_drawing, svg_text
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
    drawn = HATCHING + svg_text(8, 20, title, "#222222", 15, font_weight="bold")
    drawn += _names(len(rows), grid.shape[1], width) + cells
    return svg_drawing(whole_width, height, drawn, _describe_rows(rows, title, describe_grid(grid), lit), size=13)


def _cell(left: int, top: int, width: int, frame: int, lit: int | None) -> str:
    """One cell with its sign: a number on colour, or × on hatching."""
    empty, followed = frame < 0, frame >= 0 and frame == lit
    fill, ink = ("url(#hatching)", "#444444") if empty else (ORANGE, "#000000") if followed else ("#d6e9f6", "#08306b")
    edge, thick = ("#000000", 2) if followed else (GREY if empty else BLUE, 1)
    weight = "bold" if followed else "normal"
    frame_of_cell = (
        f'<rect x="{left + 1}" y="{top + 1}" width="{width - 2}" height="{ROW - 2}" fill="{fill}" stroke="{edge}" '
        f'stroke-width="{thick}"/>'
    )
    sign = EMPTY if empty else str(frame)
    return frame_of_cell + svg_text(left + width / 2, top + 20, sign, ink, text_anchor="middle", font_weight=weight)


def _names(codebooks: int, steps: int, width: int) -> str:
    """The names of the rows, and the numbers of the steps above the columns."""
    rows = "".join(svg_text(8, TOP + ROW * k + 20, f"codebook {k}", "#222222") for k in range(codebooks))
    columns = "".join(
        svg_text(LEFT + width * step + width / 2, TOP - 8, str(step), "#444444", 11, text_anchor="middle")
        for step in range(steps)
    )
    return rows + svg_text(8, TOP - 8, "step", "#444444", 11) + columns


def _describe_rows(rows: list[list[int]], title: str, summary: str, lit: int | None) -> str:
    table = " ".join(
        f"Codebook {k}: {' '.join(EMPTY if frame < 0 else str(frame) for frame in row)}." for k, row in enumerate(rows)
    )
    followed = "" if lit is None else f" The cells of frame {lit} are lit."
    return f"{title}. {summary} The frame in each cell, step by step, {EMPTY} for none. {table}{followed}"


def explore_pattern(name: str = "delay", codebooks: int = 4, frames: int = 5) -> View:
    """Choose a pattern and move its codebooks, frames and delays; the grid and its length follow.

    Delays ascend with the codebooks: one that is moved past its neighbours takes them along.
    """
    return _View(name, codebooks, frames).box


class _View:
    """The controls and the picture. A delay has a slider of its own for every codebook."""

    def __init__(self, name: str, codebooks: int, frames: int) -> None:
        self.pattern = Choice("pattern", PATTERNS, name, tooltip="How the codebooks are laid out in time")
        self.codebooks = Slider("codebooks", stops(1, MAX_CODEBOOKS), codebooks, tooltip="How many codes a frame has")
        self.frames = Slider("frames", stops(1, MAX_FRAMES), frames, tooltip="How many frames the clip has")
        self.lit = Slider("follow frame", stops(0, frames - 1), min(1, frames - 1), tooltip="The frame that is lit")
        self.delays = [
            Slider(f"delay {k}", stops(0, MAX_DELAY), 0, tooltip=f"How late codebook {k} is; it takes others along")
            for k in range(MAX_CODEBOOKS)
        ]
        self.picture, self.delay_row, self.listening = Shown(), row(), True
        for control in (self.pattern, self.codebooks):
            control.observe(lambda change: self.reset_delays(), "value")
        self.frames.observe(lambda change: self.bound_lit(), "value")
        self.lit.observe(lambda change: self.draw(), "value")
        for place, slider in enumerate(self.delays):
            slider.observe(lambda change, place=place: self.take_along(place), "value")
        settings = row(self.codebooks, self.frames, self.lit)
        self.box = View([self.pattern, settings, self.delay_row, self.picture], self.picture)
        self.reset_delays()

    @property
    def own_delays(self) -> list[int]:
        """The delays that the pattern itself has."""
        return list(create_pattern(self.pattern.value, self.codebooks.value).delays)

    def set_delays(self, delays: Sequence[int]) -> None:
        """Move the sliders, and draw once."""
        self.listening = False
        for slider, delay in zip(self.delays, delays, strict=False):
            slider.value = delay
        self.listening = True
        self.draw()

    def reset_delays(self) -> None:
        """Show a slider for each codebook, at the delay that the pattern gives it."""
        own = self.own_delays
        self.set_delays(own)
        self.delay_row.children = self.delays[: len(own)]

    def take_along(self, moved: int) -> None:
        """Keep the delays ascending: earlier ones are no larger than the one moved, later ones no smaller."""
        if self.listening:
            delays, limit = [slider.value for slider in self.delays], self.delays[moved].value
            earlier, later = delays[:moved], delays[moved:]
            self.set_delays([min(limit, delay) for delay in earlier] + [max(limit, delay) for delay in later])

    def bound_lit(self) -> None:
        """Keep the followed frame within the clip."""
        last = self.frames.value - 1
        self.lit.offer(stops(0, last), min(self.lit.value, last))
        self.draw()

    def draw(self) -> None:
        """Draw the grid, with its length in words below."""
        if not self.listening:
            return
        delays = [slider.value for slider in self.delays[: self.codebooks.value]]
        grid = pattern_grid(self.pattern.value, self.codebooks.value, self.frames.value, delays)
        whose = "" if delays == self.own_delays else ", with your own delays"
        drawn = draw_pattern(grid, f"The {self.pattern.value} pattern{whose}", self.lit.value)
        self.picture.value = drawn._repr_html_() + status(describe_grid(grid))
