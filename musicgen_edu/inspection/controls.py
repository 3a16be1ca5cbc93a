"""What views are made of: controls with names, moved by keyboard, as wide as there is room; and the view itself.

The sliders and drop-down lists of ipywidgets have no name for a screen reader and lose their arrow keys to JupyterLab;
these are the browser's own elements, drawn by controls.js. Texts, tick boxes and buttons are those of ipywidgets.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from html import escape
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

Option = Hashable | tuple[str, Hashable]  # a value that is its own label, or a label and its value
FOLDER = Path(__file__).parent
NAME_WIDTH, WIDTH = "9em", "31em"  # of a control's name, and of the whole; controls.css has the same
FITTING = {"width": WIDTH, "max_width": "calc(100% - 4px)"}  # ipywidgets puts 2 pixels on either side


class _Drawn(anywidget.AnyWidget):
    """Drawn by controls.js as the `kind` that it is."""

    _esm = FOLDER / "controls.js"
    _css = FOLDER / "controls.css"
    kind = traitlets.Unicode().tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)


class _Stops(_Drawn):
    """One of several values, each with a label; `value` is what Python reads, sets and observes."""

    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    index = traitlets.Int(-1).tag(sync=True)  # -1: nothing is chosen yet
    continuous = traitlets.Bool(True).tag(sync=True)  # whether it reports while it is dragged, or when it rests
    disabled = traitlets.Bool(False).tag(sync=True)
    value = traitlets.Any()

    def __init__(self, description: str, options: Iterable[Option], value: Hashable = None, **traits) -> None:
        self.options: list[tuple[str, Hashable]] = []
        super().__init__(description=description, **traits)
        self.offer(options, value)

    def offer(self, options: Iterable[Option], value: Hashable = None) -> None:
        """Put these options in place of those before. Raises ValueError where `value` is none of them and not None."""
        options = [option if isinstance(option, tuple) else (str(option), option) for option in options]
        before, self.options = self.options, options
        try:
            index = self._find(value)
        except ValueError:
            self.options = before
            raise
        with self.hold_trait_notifications(), self.hold_sync():
            self.labels, self.index, self.value = [label for label, _ in options], index, value

    def _find(self, value: Hashable) -> int:
        values = [value for _, value in self.options]
        if value in values:
            return values.index(value)
        if value is None:
            return -1
        raise ValueError(f"{self.description} has no {value!r}: choose among {', '.join(map(str, values))}.")

    @traitlets.validate("value")
    def _check(self, proposal: dict) -> Hashable:
        self._find(proposal["value"])
        return proposal["value"]

    @traitlets.observe("value")
    def _point(self, change: dict) -> None:
        self.index = self._find(change["new"])

    @traitlets.observe("index")
    def _take(self, change: dict) -> None:
        self.value = self.options[change["new"]][1] if change["new"] >= 0 else None


class Slider(_Stops):
    """A slider that stops at each option: numbers, as `stops` lists them, or whatever has an order."""

    kind = traitlets.Unicode("slider").tag(sync=True)


class Choice(_Stops):
    """A few options, all of them seen, one of them taken."""

    kind = traitlets.Unicode("choice").tag(sync=True)


class Shown(_Drawn):
    """HTML that a view shows. What the reader has unfolded stays unfolded, and nothing jumps while pictures change."""

    kind = traitlets.Unicode("shown").tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)


class Heard(Shown):
    """Players: a new one plays at once and stands above the earlier ones, which stay to be compared."""

    def __init__(self, **traits) -> None:
        self.players: list[str] = []
        super().__init__(**traits)

    def play(self, players: str) -> None:
        """Put the HTML of one or more players on top, and start the first of them."""
        self.players.insert(0, players)
        self.value = "".join([players.replace("<audio ", "<audio autoplay ", 1), *self.players[1:]])


class View(ipywidgets.VBox):
    """Controls and what they show. Without a kernel it is a sentence that says so, and what was shown at first."""

    def __init__(self, children: Sequence[ipywidgets.Widget], first: Shown | None = None) -> None:
        super().__init__(list(children), layout={"max_width": "100%", "overflow": "visible"})
        self.first = first

    def _repr_mimebundle_(self, **kwargs) -> dict:
        names = [control.description for control in _controls(self)]
        say = f"An interactive view, to be run: it needs a kernel. Its controls: {', '.join(names)}."
        shown = self.first.value if self.first else ""
        html = f'<p role="note">{escape(say)}{" It begins with this:" if shown else ""}</p>{shown}'
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": say, "text/html": html}


def stops(low: float | int, high: float | int, step: float | int = 1) -> list[tuple[str, float | int]]:
    """The numbers from `low` to `high`, both included, with their labels."""
    numbers = [low + place * step for place in range(round((high - low) / step) + 1)]
    return [(f"{number:g}", round(number, 9)) for number in numbers]


def text_box(description: str, value: str, tooltip: str, continuous: bool = False) -> ipywidgets.Text:
    """A line to type in, which reports when Enter is pressed or, if `continuous`, with every letter."""
    return ipywidgets.Text(
        value, description=description, tooltip=tooltip, continuous_update=continuous,
        style={"description_width": NAME_WIDTH}, layout=FITTING,
    )  # fmt: skip


def tick_box(description: str, value: bool, tooltip: str, disabled: bool = False) -> ipywidgets.Checkbox:
    """A box to tick, in line with the other controls."""
    return ipywidgets.Checkbox(
        value, description=description, tooltip=tooltip, disabled=disabled,
        style={"description_width": NAME_WIDTH}, layout=FITTING,
    )  # fmt: skip


def play_button(description: str, tooltip: str) -> ipywidgets.Button:
    """A button as wide as its words. It stays enabled while it works, or the keyboard would lose it."""
    return ipywidgets.Button(
        description=description, tooltip=tooltip, layout={"width": "auto", "max_width": "100%", "flex": "0 0 auto"}
    )


def row(*children: ipywidgets.Widget) -> ipywidgets.HBox:
    """Side by side where there is room, and below each other where there is none."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "max_width": "100%", "overflow": "visible"}
    return ipywidgets.HBox(children, layout=layout)


def _controls(box: ipywidgets.Box) -> Iterable[ipywidgets.Widget]:
    for child in box.children:
        if isinstance(child, ipywidgets.Box):
            yield from _controls(child)
        elif not isinstance(child, Shown) and child.description:
            yield child
