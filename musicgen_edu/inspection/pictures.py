"""Pictures that say in words what they show: an image with alt text wherever a notebook is read."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from musicgen_edu.player import small_png

# Okabe and Ito's palette: told apart by the colour-blind too (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PURPLE, YELLOW, GREY = "#56b4e9", "#cc79a7", "#f0e442", "#767676"


@dataclass(frozen=True)
class Picture:
    """An image, and the sentence that stands for it where it cannot be seen."""

    content: bytes = field(repr=False)  # or a notebook would store all of it as text too
    media_type: str  # "image/svg+xml" or "image/png"
    alt: str

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.content).decode()
        return f'<img alt="{html.escape(self.alt)}" src="data:{self.media_type};base64,{data}">'


def problem(message: object) -> str:
    """One sentence of HTML, red on white whatever the theme, announced by screen readers: what a view says when asked
    for something that cannot be."""
    return f'<p role="alert" style="color:#b30000;background:#ffffff;padding:4px">✗ {html.escape(str(message))}</p>'


def status(message: object) -> str:
    """One sentence of HTML that screen readers announce when they are at rest: what a view says of what it does."""
    return f'<p role="status">{html.escape(str(message))}</p>'


def picture(figure: Figure, alt: str) -> Picture:
    """A matplotlib figure as a small PNG with alt text. Make figures with `Figure(...)`, not with pyplot."""
    return Picture(small_png(figure), "image/png", alt)


def svg_drawing(width: int, height: int, drawn: str, alt: str, size: int = 15, family: str = "sans-serif") -> Picture:
    """SVG elements on white paper of this size in pixels: on a dark page without paper the ink would not be seen."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{family}" '
        f'font-size="{size}"><rect width="{width}" height="{height}" fill="#ffffff"/>{drawn}</svg>'
    )
    return svg_picture(svg, alt)


def svg_text(
    x: float | int, y: float | int, words: str, colour: str = "#111111", size: int | None = None, **look: str
) -> str:
    """Words for an SVG, "" for none. `look` are attributes of the element, with _ for -: `text_anchor="end"`."""
    if not words:
        return ""
    look = {"fill": colour} | ({"font-size": str(size)} if size else {}) | look
    attributes = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in look.items())
    return f'<text x="{x:g}" y="{y:g}" {attributes}>{html.escape(words)}</text>'


def svg_picture(svg: str, alt: str) -> Picture:
    """A hand-written SVG with alt text; its background should be painted, so that a dark theme does not hide it."""
    return Picture(svg.encode(), "image/svg+xml", alt)
