"""Which shapes a linear layer takes: text states of one width meet a projection of another, and PyTorch answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets
import torch
import torch.nn.functional as F

from musicgen_edu.inspection.pictures import BLUE, Picture, problem, svg_picture

WIDTHS = 512, 768, 1024
WIDTH, HEIGHT, TOP = 640, 250, 62  # pixels; TOP is where the matrices begin
PIXELS = 130 / 1024  # how long a width is drawn
PAPER, INK, FAINT = "#e3f0f8", "#111111", "#555555"
LABELS = {"description_width": "110px"}
GOOD, BAD = "#00664a", "#b30000"  # dark enough to read on white; "=" and "≠" say the same without colour


@dataclass(frozen=True)
class Multiplication:
    """What was multiplied, as PyTorch counts it: rows × columns. `result` is None where it refused."""

    states: tuple[int, ...]  # batch, text_tokens, text_width
    weight: tuple[int, int]  # as nn.Linear stores it: out, in
    left: tuple[int, int]  # the states as a matrix: batch · text_tokens rows
    right: tuple[int, int]  # the weight as it was multiplied
    result: tuple[int, ...] | None
    message: str  # PyTorch's own words, "" where the shapes fit


def multiply(
    prompts: int = 1, text_tokens: int = 4, text_width: int = 512, expected_width: int = 768, model_width: int = 512,
    transposed: bool = True,
) -> Multiplication:  # fmt: skip
    """Run states [prompts, text_tokens, text_width] through Linear(expected_width, model_width) and note the answer.

    `transposed=False` multiplies by the weight as it is stored, which is a common slip. Raises ValueError for a size
    below 1.
    """
    if min(prompts, text_tokens, text_width, expected_width, model_width) < 1:
        raise ValueError("Every size must be at least 1: a tensor of no numbers fits anywhere and says nothing.")
    states, weight = torch.zeros(prompts, text_tokens, text_width), torch.zeros(model_width, expected_width)
    shapes = tuple(states.shape), tuple(weight.shape), (prompts * text_tokens, text_width)
    right = tuple(weight.T.shape if transposed else weight.shape)
    try:
        result = F.linear(states, weight) if transposed else states @ weight
    except RuntimeError as error:
        return Multiplication(*shapes, right, None, str(error))
    return Multiplication(*shapes, right, tuple(result.shape), "")


def draw_multiplication(product: Multiplication) -> Picture:
    """Draw the states, the weight and what comes out as rectangles; the two sizes that must be equal are marked."""
    fits = product.result is not None
    mark, colour = ("=", GOOD) if fits else ("≠", BAD)
    (rows, text_width), (inner, outer) = product.left, product.right
    name, note = f"states: {_size(product.states)}", f"as a matrix: {rows}×{text_width}"
    drawn = _matrix(20, rows, text_width, name, note, colours=(FAINT, colour))
    drawn += _text(190, TOP + 30, "×", size=22)
    name = "weight as stored" if product.right == product.weight else "weight, transposed"
    if product.weight[0] == product.weight[1]:
        name = "weight (square)"
    note = f"{inner}×{outer} (stored {product.weight[0]}×{product.weight[1]})"
    drawn += _matrix(225, inner, outer, name, note, colours=(colour, FAINT))
    drawn += _text(400, TOP + 30, "=", size=22)
    if fits:
        drawn += _matrix(440, rows, outer, f"out: {_size(product.result)}", f"as a matrix: {rows}×{outer}")
    else:
        drawn += _text(440, TOP + 20, "nothing: PyTorch refuses", BAD, weight="bold")
    drawn += _text(20, HEIGHT - 36, f"inner sizes: {text_width} {mark} {inner}", colour, weight="bold")
    drawn += _text(20, HEIGHT - 14, product.message or "The shapes fit.", colour)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="14"><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>{drawn}</svg>'
    )
    return svg_picture(svg, describe(product))


def describe(product: Multiplication) -> str:
    """Return in a sentence or two what was multiplied and what came of it."""
    way = "transposed" if product.right == product.weight[::-1] else "as it is stored"
    end = f"PyTorch says: {product.message}." if product.result is None else f"Out comes {_size(product.result)}."
    return (
        f"States {_size(product.states)}, {product.left[0]} rows of {product.left[1]}, are multiplied by a weight "
        f"{_size(product.weight)}, {way}: {product.right[0]} rows of {product.right[1]}. {end}"
    )


def explore_projection() -> ipywidgets.Widget:
    """Change the widths of text encoder and projection, and read what PyTorch says. It begins with the report's."""
    controls = {
        "prompts": _slider("prompts", "How many prompts are made at once: the batch", 1, 4),
        "text_tokens": _slider("text tokens", "How many tokens the longest prompt has", 4, 16),
        "text_width": _choice("encoder gives", "The width of the states that the text encoder gives", 512),
        "expected_width": _choice("layer expects", "The width that the projection was built for: in_features", 768),
        "model_width": _choice("layer gives", "The width that the projection gives: out_features", 512),
        "transposed": ipywidgets.Checkbox(
            True, description="transpose the weight", tooltip="nn.Linear does; states @ weight does not", style=LABELS
        ),
    }
    shown = ipywidgets.HTML()

    def show(change: object = None) -> None:
        product = multiply(**{name: control.value for name, control in controls.items()})
        picture = draw_multiplication(product)._repr_html_()
        alarm = "" if product.result else problem(product.message)
        shown.value = picture + alarm

    for control in controls.values():
        control.observe(show, names="value")
    show()
    return ipywidgets.VBox([*controls.values(), shown])


def _slider(label: str, tooltip: str, value: int, largest: int) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(value, 1, largest, description=label, tooltip=tooltip, style=LABELS)


def _choice(label: str, tooltip: str, value: int) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=WIDTHS, value=value, description=label, tooltip=tooltip, style=LABELS)


def _matrix(left: int, rows: int, columns: int, name: str, note: str, colours: Sequence[str] = (FAINT, FAINT)) -> str:
    """A rectangle as high as it has rows and as wide as it has columns; `colours` are those of the two numbers."""
    height, width = max(6, round(rows * PIXELS)), max(6, round(columns * PIXELS))
    weights = ["bold" if colour in (GOOD, BAD) else "normal" for colour in colours]
    return (
        _text(left, TOP - 36, name, weight="bold")
        + _text(left, TOP - 16, note, FAINT)
        + f'<rect x="{left}" y="{TOP}" width="{width}" height="{height}" fill="{PAPER}" stroke="{BLUE}"/>'
        + _text(left + width + 4, TOP + height, str(rows), colours[0], weights[0])
        + _text(left, TOP + height + 16, str(columns), colours[1], weights[1])
    )


def _size(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _text(x: int, y: int, text: str, colour: str = INK, weight: str = "normal", size: int = 14) -> str:
    look = f'fill="{colour}" font-weight="{weight}" font-size="{size}"'
    return f'<text x="{x}" y="{y}" {look}>{escape(text)}</text>'
