"""The map of the house: from prompt to sound, a box for each form of the data and an arrow for each room."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten

from musicgen_edu.inspection.pictures import Picture, svg_drawing, svg_text

# The forms that the data takes, and the rooms, by number, that lead from each to the next.
FORMS = ("prompt", "ids", "text states", "projected states", "codes", "waveform")
ROOMS = (
    {1: "tokenizer"}, {2: "T5 text encoder"}, {3: "projection"}, {4: "decoder", 5: "patterns", 7: "sampling"},
    {6: "codec"},
)  # fmt: skip
SHAPES = {
    "prompt": "text", "ids": "[batch, text_tokens]", "text states": "[batch, text_tokens, 512]",
    "projected states": "[batch, text_tokens, 768]", "codes": "[batch, 4, frames]",
    "waveform": "[batch, channels, samples]",
}  # fmt: skip
WIDTH, HEIGHT, INK, PALE, LIT = 640, 72, "#08306b", "#eaf1fb", "#ffd27f"


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
        raise ValueError(f"There is no form {min(unknown)!r} on the map: choose among {', '.join(FORMS)}.")
    drawn = "".join(_box(HEIGHT * place, form, notes.get(form, "")) for place, form in enumerate(FORMS))
    drawn += "".join(_arrow(HEIGHT * place, rooms, room) for place, rooms in enumerate(ROOMS))
    height = HEIGHT * (len(FORMS) - 1) + 46
    return svg_drawing(WIDTH, height, drawn, _describe(room, notes), size=16)


def _box(top: int, form: str, note: str) -> str:
    return (
        f'<rect x="2" y="{top + 2}" width="{WIDTH - 4}" height="40" rx="6" fill="{PALE}" stroke="{INK}"/>'
        + svg_text(16, top + 28, form, INK)
        + svg_text(WIDTH - 16, top + 28, shorten(note, 56, placeholder=" …"), INK, text_anchor="end")
    )


def _arrow(top: int, rooms: Mapping[int, str], lit: int | None) -> str:
    band = f'<rect x="48" y="{top + 44}" width="{WIDTH - 64}" height="28" fill="{LIT}"/>' if lit in rooms else ""
    here = f'<text x="{WIDTH - 24}" y="{top + 64}" text-anchor="end" font-weight="bold">you are here</text>'
    weight = {number: "bold" if number == lit else "normal" for number in rooms}
    spans = [f'<tspan font-weight="{weight[room]}">{_name(room, part)}</tspan>' for room, part in rooms.items()]
    return f'{band}<text x="60" y="{top + 64}" fill="#333333">↓ {_join(spans)}</text>{here if band else ""}'


def _name(number: int, part: str) -> str:
    return f"{number:02} · {part}"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}, with {' and '.join(names[1:])}"


def _describe(room: int | None, notes: Mapping[str, str]) -> str:
    stops = [f"{form} ({notes[form]})" if form in notes else form for form in FORMS]
    names = [_join([_name(number, part) for number, part in rooms.items()]) for rooms in ROOMS]
    way = "".join(f"{stop}; room {name} → " for stop, name in zip(stops, names, strict=False)) + stops[-1]
    lit = [_name(room, rooms[room]) for rooms in ROOMS if room in rooms]
    return f"The way from text to sound: {way}." + (f" You are here: room {lit[0]}." if lit else "")
