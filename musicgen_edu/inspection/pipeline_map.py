"""The map of the house: from prompt to sound, a box for each form of the data and an arrow for each room."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from musicgen_edu.inspection.pictures import Picture, svg_picture

# The forms that the data takes, and the rooms that lead from each to the next.
FORMS = ("prompt", "ids", "text states", "projected states", "codes", "waveform")
ROOMS = (
    ((1,), "01 · tokenizer"), ((2,), "02 · T5 text encoder"), ((3,), "03 · projection"),
    ((4, 5, 7), "04 · decoder, with 05 · patterns and 07 · sampling"), ((6,), "06 · codec"),
)  # fmt: skip
SHAPES = {
    "prompt": "text", "ids": "[batch, text_tokens]", "text states": "[batch, text_tokens, 512]",
    "projected states": "[batch, text_tokens, 768]", "codes": "[batch, 4, frames]",
    "waveform": "[batch, channels, samples]",
}  # fmt: skip
HEIGHT, INK, PALE, LIT = 72, "#08306b", "#eaf1fb", "#ffd27f"


def draw_map(room: int | None = None, notes: Mapping[str, str] = SHAPES) -> Picture:
    """Draw the way from prompt to waveform, top to bottom.

    Args:
        room: the number of the notebook whose arrow is lit; None lights none.
        notes: what is written in each form's box, by the names in `FORMS`: their shapes unless told otherwise.

    Raises:
        ValueError: `notes` names a form that does not exist.
    """
    unknown = set(notes) - set(FORMS)
    if unknown:
        raise ValueError(f"There is no form {sorted(unknown)[0]!r} on the map: choose among {', '.join(FORMS)}.")
    drawn = "".join(_box(HEIGHT * place, form, notes.get(form, "")) for place, form in enumerate(FORMS))
    drawn += "".join(_arrow(HEIGHT * place, name, room in numbers) for place, (numbers, name) in enumerate(ROOMS))
    height = HEIGHT * (len(FORMS) - 1) + 46
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" font-family="sans-serif" '
        f'font-size="16"><rect width="640" height="{height}" fill="#ffffff"/>{drawn}</svg>'
    )
    return svg_picture(svg, _describe(room, notes))


def _box(top: int, form: str, note: str) -> str:
    return (
        f'<rect x="2" y="{top + 2}" width="560" height="40" rx="6" fill="{PALE}" stroke="{INK}"/>'
        f'<text x="16" y="{top + 28}" fill="{INK}">{form}</text>'
        f'<text x="548" y="{top + 28}" fill="{INK}" text-anchor="end">{escape(note)}</text>'
    )


def _arrow(top: int, name: str, lit: bool) -> str:
    band = f'<rect x="48" y="{top + 44}" width="514" height="28" fill="{LIT}"/>' if lit else ""
    weight, mark = ("bold", " ← you are here") if lit else ("normal", "")
    return f'{band}<text x="60" y="{top + 64}" fill="#333333" font-weight="{weight}">↓ {name}{mark}</text>'


def _describe(room: int | None, notes: Mapping[str, str]) -> str:
    stops = [f"{form} ({notes[form]})" if form in notes else form for form in FORMS]
    way = "".join(f"{stop}; room {name} → " for stop, (_, name) in zip(stops, ROOMS, strict=False)) + stops[-1]
    lit = [name for numbers, name in ROOMS if room in numbers]
    return f"The way from text to sound: {way}." + (f" You are here: room {lit[0]}." if lit else "")
