"""Make links of the rooms that "What comes next" names, in every notebook.

    python .ci/room_links.py [FOLDER]

In the cell `next`, `` `05_codebook_interleaving` `` becomes a link to that notebook, and so does a bare "room 05".
`make notebooks` runs this; running it again changes nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NEXT = "next"  # the cell's id
# A link that is there already is passed over: it comes first, and is given back as it was.
ROOM = re.compile(r"\[[^\]]*\]\([^)]*\)|`(?P<name>\d\d_\w+)`|\b[Rr]oom\s(?P<number>\d\d)\b(?!,\s\[?`)")


def link_rooms(text: str, rooms: Mapping[str, str]) -> str:
    """Return the text with links to `rooms`, which are names of notebooks by number. Raises ValueError for others."""

    def link(found: re.Match) -> str:
        words, number = found[0], found["number"] or (found["name"] or "")[:2]
        if not number:
            return words
        if number not in rooms or found["name"] not in (None, rooms[number]):
            raise ValueError(f"There is no notebook for {words}: choose among {', '.join(rooms.values())}.")
        return f"[{words}]({rooms[number]}.ipynb)"

    return ROOM.sub(link, text)


def main(folder: Path = FOLDER) -> None:
    """Write the links into every notebook of the folder. Raises ValueError where the cell names no room."""
    files = sorted(folder.glob("*.ipynb"))
    rooms = {file.stem[:2]: file.stem for file in files}
    for file in files:
        before = file.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        cell = next((cell for cell in notebook.cells if cell["id"] == NEXT), None)
        if cell is None or not ROOM.search(cell.source):
            raise ValueError(f"{file.name}: the cell {NEXT!r} must name the room that comes next, such as `01_name`.")
        cell.source = link_rooms(cell.source, rooms)
        after = nbformat.writes(notebook) + "\n"
        if after != before:
            file.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
