"""What a trace holds, and how it shows itself: a row for each form of the data, as a table, a picture or text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from textwrap import shorten

from musicgen_edu.audio import Audio
from musicgen_edu.inspection.pictures import ORANGE, RED, Picture, svg_drawing, svg_text

INK, PALE, PALE_RED = "#08306b", "#eaf1fb", "#fdece4"
ROW, LINE, GAP, WIDTH = 50, 25, 26, 640  # a box of two lines, of one, what is between, and the whole; in pixels
LEFT = "text-align:left;vertical-align:top"


@dataclass(frozen=True)
class Stage:
    """One form that the data took, as it was met in a run."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    memory: int  # bytes of the tensor
    seconds: float  # spent on making it
    line: str  # the line of code that made it
    parameters: int = 0  # of the module that made it
    parameter_memory: int = 0  # in bytes

    @property
    def sizes(self) -> str:
        """The sizes with the names of their axes: "batch 1 × text_tokens 4"."""
        return " × ".join(f"{axis} {size:,}" for axis, size in zip(self.axes, self.shape, strict=True))


@dataclass(frozen=True)
class Failure:
    """Where a run broke: the module, as PyTorch prints it, its name in the model, PyTorch's message and the line."""

    layer: str
    module: str
    message: str
    line: str

    def __str__(self) -> str:
        return f"✗ breaks at {self.layer}, {self.module}: {self.message}"


@dataclass(frozen=True)
class Trace:
    """The stages of a run in their order; `failure` says where it broke, `audio` is what came out if it did not.

    A stage is found by its name: `way["codes"].shape`. In a notebook a trace shows itself as a table; `draw` gives the
    picture, `str` the text. `show_seconds=False` leaves out what differs from run to run.
    """

    stages: tuple[Stage, ...]
    failure: Failure | None = None
    audio: Audio | None = None
    show_seconds: bool = True

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"There is no stage {name!r} in this trace: choose among {', '.join(self._names())}.")

    def __repr__(self) -> str:
        rows = [[stage.name, stage.sizes, *self._cells(stage)] for stage in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*(line.rstrip() for line in lines), *([str(self.failure)] if self.failure else [])])

    def _repr_html_(self) -> str:
        titles = ["stage", "axes and sizes", "dtype", "meaning", "memory", "parameters", "line of code"]
        if self.show_seconds:
            titles.insert(-1, "seconds")
        head = "".join(f'<th scope="col" style="{LEFT}">{title}</th>' for title in titles)
        rows = "".join(self._html_row(stage) for stage in self)
        if self.failure:
            red = f'style="{LEFT};border:3px solid {RED};background:{PALE_RED};color:#000"'
            rows += f'<tr><th scope="row" {red}>✗ breaks here</th><td colspan="{len(titles) - 1}" {red}>'
            rows += "<br/>".join(escape(line) for line in self._broken()) + "</td></tr>"
        table = f"<table><caption>{self._title()}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        # A narrow page scrolls the table sideways: by keyboard too, so it can be reached, and has a name.
        return f'<div role="region" aria-label="{self._title()}" tabindex="0" style="overflow-x:auto">{table}</div>'

    def draw(self, before: Trace | None = None, compact: bool = False) -> Picture:
        """Draw the stages from top to bottom, and between them the module that leads from each to the next.

        What differs from the trace `before` is marked, with the shape that it had there. A `compact` drawing has one
        line a stage, without its meaning.
        """
        was = {stage.name: stage.shape for stage in before or ()}
        changes = [f"was {_times(was[stage.name])}" if was.get(stage.name, stage.shape) != stage.shape else ""
                   for stage in self]  # fmt: skip
        box, row = (_line, LINE) if compact else (_box, ROW)
        tops = [place * (row + GAP) for place in range(len(self))]
        boxes = [box(top, stage, change) for top, stage, change in zip(tops, self, changes, strict=True)]
        arrows = [_arrow(top, stage) for top, stage in list(zip(tops, self, strict=True))[1:]]
        height = (row + GAP) * len(self) - GAP + 4
        alt = "; ".join(
            f"{stage.name}: {stage.sizes}" + f" ({change})" * bool(change)
            for stage, change in zip(self, changes, strict=True)
        )
        if self.failure:
            boxes.append(_broken_box(height, [*self._broken()[:2], _file(self.failure.line)]))
            height, alt = height + GAP + 76, f"{alt}. {self.failure}"
        alt = f"The forms that the data took, from top to bottom. {alt}."
        return svg_drawing(WIDTH, height, "".join(arrows + boxes), alt)

    def _names(self) -> list[str]:
        return [stage.name for stage in self.stages]

    def _title(self) -> str:
        way = "What went through the model, until it broke" if self.failure else "What went through the model"
        return f"{way}: {escape(self.stages[0].meaning)}" if self.stages else way

    def _broken(self) -> list[str]:
        return [f"{self.failure.layer}, {self.failure.module}", self.failure.message, self.failure.line]

    def _cells(self, stage: Stage) -> list[str]:
        """Everything beside the name and the sizes, as text."""
        parameters = f"{stage.parameters:,} ({_bytes(stage.parameter_memory)})" if stage.parameters else "–"
        seconds = [f"{stage.seconds:.3f}"] if self.show_seconds else []
        return [stage.dtype, stage.meaning, _bytes(stage.memory), parameters, *seconds, stage.line]

    def _html_row(self, stage: Stage) -> str:
        sizes = escape(stage.sizes).replace(" × ", "<br/>× ")
        shown = f'<td style="{LEFT};white-space:nowrap">{sizes}</td>'
        shown += "".join(f'<td style="{LEFT}">{escape(cell)}</td>' for cell in self._cells(stage))
        return f'<tr><th scope="row" style="{LEFT}">{escape(stage.name)}</th>{shown}</tr>'


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _file(line: str) -> str:
    """A picture names the file only, so that it stays the same when lines move."""
    return line.rpartition(":")[0]


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{size:,}" for size in shape)


def _box(top: int, stage: Stage, change: str) -> str:
    return (
        _frame(top, ROW, change)
        + svg_text(14, top + 22, stage.name, INK, font_weight="bold")
        + svg_text(14, top + 42, shorten(stage.meaning, 52, placeholder=" …"), INK, 13)
        + svg_text(WIDTH - 14, top + 22, f"{_times(stage.shape)}  {stage.dtype}", INK, text_anchor="end")
        + svg_text(WIDTH - 14, top + 42, " × ".join(stage.axes), INK, 13, text_anchor="end")
    )


def _line(top: int, stage: Stage, change: str) -> str:
    """A box of one line."""
    return (
        _frame(top, LINE, change)
        + svg_text(14, top + 18, stage.name, INK, 13, font_weight="bold")
        + svg_text(140, top + 18, " × ".join(stage.axes), INK, 13)
        + svg_text(WIDTH - 14, top + 18, f"{_times(stage.shape)}  {stage.dtype}", INK, 13, text_anchor="end")
    )


def _frame(top: int, height: int, change: str) -> str:
    """An empty box; one whose shape has changed has a thick edge, and its old shape is written above it."""
    edge = f'stroke="{ORANGE}" stroke-width="4"' if change else f'stroke="{INK}"'
    drawn = f'<rect x="2" y="{top + 2}" width="{WIDTH - 4}" height="{height}" rx="6" fill="{PALE}" {edge}/>'
    return drawn + svg_text(WIDTH - 14, top - 5, change, INK, 13, font_weight="bold", text_anchor="end")


def _arrow(top: int, stage: Stage) -> str:
    parameters = f" · {stage.parameters:,} parameters" if stage.parameters else ""
    return svg_text(40, top - 5, f"↓ {_file(stage.line)}{parameters}", INK, 13)


def _broken_box(top: int, lines: list[str]) -> str:
    drawn = f'<rect x="3" y="{top + GAP}" width="{WIDTH - 6}" height="70" rx="6" fill="{PALE_RED}" stroke="{RED}"'
    drawn += ' stroke-width="4"/>' + svg_text(40, top + 17, "↓ ✗ breaks here", RED, font_weight="bold")
    rows = enumerate(shorten(line, 84, placeholder=" …") for line in lines)
    return drawn + "".join(svg_text(14, top + GAP + 21 + 20 * row, line, INK, 13) for row, line in rows)
