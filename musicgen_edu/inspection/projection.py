"""Which shapes a linear layer takes: text states of one width meet a projection of another, and PyTorch answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from musicgen_edu.inspection.controls import Choice, Shown, Slider, View, row, stops, tick_box
from musicgen_edu.inspection.pictures import BLUE, Picture, problem, status, svg_drawing, svg_text

WIDTHS = 512, 768, 1024
WIDTH, HEIGHT, TOP = 640, 250, 62  # pixels; TOP is where the matrices begin
PIXELS = 130 / 1024  # how long a width is drawn
PAPER, FAINT = "#e3f0f8", "#555555"
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
    sizes = (prompts, text_tokens, text_width), (model_width, expected_width)
    states, weight = (torch.zeros(size, dtype=torch.float32, device="cpu") for size in sizes)
    shapes = tuple(states.shape), tuple(weight.shape), (prompts * text_tokens, text_width)
    right = tuple(weight.T.shape if transposed else weight.shape)
    try:
        result = F.linear(states, weight) if transposed else states @ weight
    except RuntimeError as error:
        return Multiplication(*shapes, right, None, str(error))
    return Multiplication(*shapes, right, tuple(result.shape), "")


def draw_multiplication(product: Multiplication, answer: bool = True) -> Picture:
    """Draw the states, the weight and what comes out as rectangles; the two sizes that must be equal are marked.

    Below stands PyTorch's `answer`, unless it is told elsewhere.
    """
    fits = product.result is not None
    mark, colour = ("=", GOOD) if fits else ("≠", BAD)
    (rows, text_width), (inner, outer) = product.left, product.right
    name, note = f"states: {_size(product.states)}", f"as a matrix: {rows}×{text_width}"
    drawn = _matrix(20, rows, text_width, name, note, colours=(FAINT, colour))
    drawn += svg_text(190, TOP + 30, "×", size=22)
    name = "weight as stored" if product.right == product.weight else "weight, transposed"
    if product.weight[0] == product.weight[1]:
        name = "weight (square)"
    note = f"{inner}×{outer} (stored {product.weight[0]}×{product.weight[1]})"
    drawn += _matrix(225, inner, outer, name, note, colours=(colour, FAINT))
    drawn += svg_text(400, TOP + 30, "=", size=22)
    if fits:
        drawn += _matrix(440, rows, outer, f"out: {_size(product.result)}", f"as a matrix: {rows}×{outer}")
    else:
        drawn += svg_text(440, TOP + 20, "nothing: PyTorch refuses", BAD, font_weight="bold")
    drawn += svg_text(20, HEIGHT - 36, f"inner sizes: {text_width} {mark} {inner}", colour, font_weight="bold")
    if answer:
        drawn += svg_text(20, HEIGHT - 14, product.message or "The shapes fit.", colour)
    return svg_drawing(WIDTH, HEIGHT if answer else HEIGHT - 22, drawn, describe(product), size=14)


def describe(product: Multiplication) -> str:
    """Return in a sentence or two what was multiplied and what came of it."""
    way = "transposed" if product.right == product.weight[::-1] else "as it is stored"
    end = f"PyTorch says: {product.message}." if product.result is None else f"Out comes {_size(product.result)}."
    return (
        f"States {_size(product.states)}, {product.left[0]} rows of {product.left[1]}, are multiplied by a weight "
        f"{_size(product.weight)}, {way}: {product.right[0]} rows of {product.right[1]}. {end}"
    )


def explore_projection() -> View:
    """Change the widths of text encoder and projection, and read what PyTorch says. It begins with the report's."""
    controls = {
        "prompts": Slider("prompts", stops(1, 4), 1, tooltip="How many prompts are made at once: the batch"),
        "text_tokens": Slider("text tokens", stops(1, 16), 4, tooltip="How many tokens the longest prompt has"),
        "text_width": Choice("encoder gives", WIDTHS, 512, tooltip="The width of the text encoder's states"),
        "expected_width": Choice("layer expects", WIDTHS, 768, tooltip="The projection's in_features"),
        "model_width": Choice("layer gives", WIDTHS, 512, tooltip="The projection's out_features"),
        "transposed": tick_box("transpose the weight", True, "nn.Linear does; states @ weight does not"),
    }
    shown = Shown()

    def show(change: object = None) -> None:
        product = multiply(**{name: control.value for name, control in controls.items()})
        answer = status("✓ The shapes fit.") if product.result else problem(product.message)
        shown.value = draw_multiplication(product, answer=False)._repr_html_() + answer

    for control in controls.values():
        control.observe(show, names="value")
    show()
    return View([row(*controls.values()), shown], shown)


def _matrix(left: int, rows: int, columns: int, name: str, note: str, colours: Sequence[str] = (FAINT, FAINT)) -> str:
    """A rectangle as high as it has rows and as wide as it has columns; `colours` are those of the two numbers."""
    height, width = max(6, round(rows * PIXELS)), max(6, round(columns * PIXELS))
    weights = ["bold" if colour in (GOOD, BAD) else "normal" for colour in colours]
    return (
        svg_text(left, TOP - 36, name, font_weight="bold")
        + svg_text(left, TOP - 16, note, FAINT)
        + f'<rect x="{left}" y="{TOP}" width="{width}" height="{height}" fill="{PAPER}" stroke="{BLUE}"/>'
        + svg_text(left + width + 4, TOP + height, str(rows), colours[0], font_weight=weights[0])
        + svg_text(left, TOP + height + 16, str(columns), colours[1], font_weight=weights[1])
    )


def _size(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
