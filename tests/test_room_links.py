"""The rooms link to each other, and every link to a file leads to one."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TARGET = re.compile(r"\]\(([^)\s]+)\)")
ROOMS = {"01": "01_first", "02": "02_second"}

spec = importlib.util.spec_from_file_location("room_links", ROOT / ".ci" / "room_links.py")
room_links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(room_links)


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("Room 02, `02_second`, goes on.", "Room 02, [`02_second`](02_second.ipynb), goes on."),
        ("Back to room 01 with\nroom 02.", "Back to [room 01](01_first.ipynb) with\n[room 02](02_second.ipynb)."),
        ("A room with 02 chairs, `notes.py`.", "A room with 02 chairs, `notes.py`."),
    ],
)
def test_rooms_become_links_and_stay_so(text, linked):
    assert room_links.link_rooms(text, ROOMS) == linked
    assert room_links.link_rooms(linked, ROOMS) == linked


@pytest.mark.parametrize("text", ["Room 03 is next.", "Room 02, `02_another`, is next.", "`03_third`"])
def test_a_room_that_is_not_there_is_named(text):
    with pytest.raises(ValueError, match="There is no notebook for .*: choose among 01_first, 02_second"):
        room_links.link_rooms(text, ROOMS)


def test_a_notebook_that_leads_nowhere_is_named(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("## What comes next\n\nNothing.", id="next")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_first.ipynb")
    with pytest.raises(ValueError, match=r"01_first\.ipynb: the cell 'next' must name the room"):
        room_links.main(tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_room_leads_to_another_and_no_link_is_broken(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    (ahead,) = [cell.source for cell in cells if cell["id"] == room_links.NEXT]
    rooms = {file.stem[:2]: file.stem for file in NOTEBOOKS}
    assert room_links.link_rooms(ahead, rooms) == ahead, "run `make notebooks`, or python .ci/room_links.py"
    assert re.search(r"\]\(\d\d_\w+\.ipynb\)", ahead)
    targets = [target for cell in cells for target in TARGET.findall(cell.source) if "://" not in target]
    files = [target.partition("#")[0] for target in targets if not target.startswith(("#", "data:", "attachment:"))]
    assert all((path.parent / file).exists() for file in files), files
