"""Training curves: the log files that `training/loop.py` writes, read, smoothed and drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musicgen_edu.files import one_line
from musicgen_edu.inspection.controls import Choice, Shown, Slider, View, row, stops, tick_box
from musicgen_edu.inspection.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, picture, problem

Log = Mapping[str, Sequence[float | int]]  # what was logged, by name: as many numbers each, with "step" (and "minutes")

ACROSS = {"step": "steps", "minutes": "minutes of training"}  # what the axis across may count
# A line is told by its colour and by its dashes, so that neither is needed alone.
STYLES = tuple(zip((BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY), ("-", "--", "-.", ":", "-", "--", "-."), strict=True))


def read_log(file: Path) -> dict[str, list[float]]:
    """Return the columns of a log, each a list of numbers, NaN where a line lacks the figure.

    A last line that a kill has cut off is left out, as the training itself does when it goes on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no whole line, or a line that is none of a log.
    """
    name = one_line(file.name)
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        rows = [{column: float(value) for column, value in json.loads(line).items()} for line in lines]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is no log of a training: each line must be a JSON object of numbers.") from error
    if not rows or not all("step" in row for row in rows):
        raise ValueError(f'{name} is no log of a training: it needs lines, each with a "step".')
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: [row.get(column, math.nan) for row in rows] for column in columns}


def read_logs(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return every log under a folder, by name: `codec.jsonl` is "codec", and so is `codec/log.jsonl`.

    Raises:
        FileNotFoundError: there is no log under the folder.
        ValueError: one of the files is no log.
    """
    files = sorted(Path(folder).rglob("*.jsonl"))
    if not files:
        raise FileNotFoundError(
            f"There is no log (*.jsonl) in {one_line(Path(folder).name)}: give the folder of a training."
        )
    return {_name(file.relative_to(folder)): read_log(file) for file in files}


def smooth(values: Sequence[float | int], weight: float | int) -> list[float]:
    """Return the moving average that gives each earlier value `weight` times the say of the one after it.

    The average of the values seen so far, so that it does not start at 0 (the correction of Kingma and Ba 2015,
    arXiv:1412.6980, section 3). A NaN counts for nothing. Raises ValueError for a weight outside 0 … 1, 1 excluded.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"The smoothing must be at least 0 and less than 1, not {weight}.")
    smoothed, total, weights = [], 0.0, 0.0
    for value in values:
        known = not math.isnan(value)
        total = weight * total + (value if known else 0.0)
        weights = weight * weights + known
        smoothed.append(total / weights if weights else math.nan)
    return smoothed


def draw_curves(
    logs: Mapping[str, Log],
    figures: Sequence[str] = ("loss",),
    *,
    smoothing: float | int = 0.9,
    across: str = "step",
    log_scale: bool = False,
    alt: str | None = None,
) -> Picture:
    """Draw a line for each figure of each log that has it: pale as logged, dark as `smooth` makes of it.

    Args:
        logs: by name, as `read_logs` gives them, or lists of your own with a "step".
        figures: names of columns, such as "loss".
        smoothing: the weight of `smooth`; 0 shows the values alone.
        across: "step" or "minutes".
        log_scale: whether the axis upwards is logarithmic.
        alt: what one should see; otherwise it gives each line's smoothed start and end.

    Raises:
        ValueError: no log has any of the figures, or a setting is outside its range.
    """
    if across not in ACROSS:
        raise ValueError(f"The axis across counts {' or '.join(ACROSS)}, not {across!r}.")
    lines = _lines(logs, figures, across)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    ends = []
    for (label, (places, values)), (colour, dashes) in zip(lines.items(), STYLES * len(lines), strict=False):
        smoothed = smooth(values, smoothing)
        axes.plot(places, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(places, smoothed, color=colour, linestyle=dashes, linewidth=1.8, label=label)
        ends.append(f"{label} from {smoothed[0]:.2f} to {smoothed[-1]:.2f}")
    _finish(axes, ACROSS[across], figures, log_scale)
    return picture(figure, alt or f"Training curves over {ACROSS[across]}: {'; '.join(ends)}.")


def explore_curves(logs: Mapping[str, Log]) -> View:
    """Choose logs, a figure, the axis across and the smoothing; the picture follows, and errors come in red."""
    names = list(dict.fromkeys(name for log in logs.values() for name in log if name not in ACROSS))
    ticks = {name: tick_box(name, True, "Whether this training is drawn") for name in logs}
    controls = {
        "figure": Choice("figure", names, names[0], tooltip="What was logged"),
        "across": Choice(
            "across", [(words, name) for name, words in ACROSS.items()], "step", tooltip="What the axis across counts"
        ),
        "smoothing": Slider(
            "smoothing", stops(0.0, 0.99, 0.01), 0.9, tooltip="The weight of earlier values; 0 shows the values alone"
        ),
        "log_scale": tick_box("logarithmic", False, "Equal ratios have equal heights"),
    }
    shown = Shown()

    def redraw(_: object = None) -> None:
        settings = {name: control.value for name, control in controls.items()}
        chosen = {name: logs[name] for name, tick in ticks.items() if tick.value}
        try:
            shown.value = draw_curves(chosen, (settings.pop("figure"),), **settings)._repr_html_()
        except ValueError as error:
            shown.value = problem(error)

    for control in (*ticks.values(), *controls.values()):
        control.observe(redraw, "value")
    redraw()
    return View([row(*ticks.values()), *controls.values(), shown], shown)


def _name(file: Path) -> str:
    return (file.parent if file.name == "log.jsonl" and file.parent.name else file.with_suffix("")).as_posix()


def _lines(
    logs: Mapping[str, Log], figures: Sequence[str], across: str
) -> dict[str, tuple[Sequence[float | int], Sequence[float | int]]]:
    """Places and values of each line, by its label."""
    if not logs:
        raise ValueError("No log is chosen: choose at least one.")
    lines = {
        _label(name, figure, logs, figures): (log[across], log[figure])
        for name, log in logs.items()
        for figure in figures
        if figure in log and across in log
    }
    if not lines:
        known = dict.fromkeys(name for log in logs.values() for name in log if name not in ACROSS)
        wanted = " or ".join(repr(figure) for figure in figures)
        raise ValueError(f"None of the chosen logs has {wanted} over {ACROSS[across]}; they have {', '.join(known)}.")
    return lines


def _label(name: str, figure: str, logs: Mapping[str, Log], figures: Sequence[str]) -> str:
    return name if len(figures) == 1 else figure if len(logs) == 1 else f"{name}: {figure}"


def _finish(axes: Axes, across: str, figures: Sequence[str], log_scale: bool) -> None:
    axes.set(xlabel=across, ylabel=", ".join(figures) if len(figures) < 3 else "value")
    if log_scale:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
