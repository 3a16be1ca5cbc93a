"""The instructor's page is in step with the notebooks: its plans add up and name sections that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
ROOM = re.compile(r"^### (\d\d) · (.+)$", re.MULTILINE)
ROW = re.compile(r"^\| (.+?) \| (\d+|–) \| (\d+|–) \|$", re.MULTILINE)
PLANS = {room: (title, ROW.findall(text)) for room, title, text in zip(*[iter(ROOM.split(PAGE)[1:])] * 3, strict=True)}


def headings(room: str) -> list[str]:
    """The notebook's headings, its title first; an exercise's is its number alone."""
    (path,) = FOLDER.glob(f"{room}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    prose = re.sub(r"^```.*?^```", "", prose, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"^(Exercise \d+):.*", r"\1", text) for text in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)]


def test_the_page_has_plans_and_lists_every_notebook():
    assert PLANS
    assert {path.stem for path in FOLDER.glob("*.ipynb")} <= set(re.findall(r"`(\d\d_\w+)`", PAGE))


@pytest.mark.parametrize("room", PLANS)
def test_a_plan_adds_up_and_names_sections_of_its_notebook(room):
    title, rows = PLANS[room]
    found = headings(room)
    assert title == found[0]
    assert not {name for names, *_ in rows for name in names.split(" · ")} - set(found)
    assert [sum(int(row[column]) for row in rows if row[column] != "–") for column in (1, 2)] == [45, 90]


@pytest.mark.parametrize("room", [path.name[:2] for path in sorted(FOLDER.glob("*.ipynb"))])
def test_the_page_says_the_minutes_of_the_exercises(room):
    (path,) = FOLDER.glob(f"{room}_*.ipynb")
    titles = re.findall(r"### Exercise \d+: .*?\([★☆]{3}, (\d+) minutes\)", path.read_text(encoding="utf-8"))
    (row,) = re.findall(rf"^\| \[`{path.stem}`\].*$", PAGE, re.MULTILINE)
    assert int(row.split("|")[4]) == sum(map(int, titles))


@pytest.mark.parametrize("room", ["00", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15"])
def test_a_room_and_the_page_say_the_same_minutes_and_where_to_stop(room):
    (path,) = FOLDER.glob(f"{room}_*.ipynb")
    text = path.read_text(encoding="utf-8")
    reading, exercises = re.search(r"About (\d+) minutes, and (\d+) more for the exercises", text).groups()
    (row,) = re.findall(rf"^\| \[`{path.stem}`\].*$", PAGE, re.MULTILINE)
    assert [cell.strip() for cell in row.split("|")[3:5]] == [reading, exercises]
    assert text.count("**You can stop here.**") == 1
