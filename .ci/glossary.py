"""Collect the tables under "New words" of all notebooks into notebooks/glossary.md.

    python .ci/glossary.py

Words stand in the order of the alphabet, each with the rooms that list it. Where several do, the first room's meaning
is kept: later rooms may say more, but must not say otherwise. `make notebooks` runs this; a test compares the file with
the notebooks.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
GLOSSARY = "glossary.md"
HEADING = "## New words\n"
ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)
HEAD = """\
# Glossary

The new words of every notebook, with the rooms that list them. Where several do, the meaning is that of the first.

`make notebooks` writes this file. To change a line, change it in the notebook.

| word | meaning | rooms |
|---|---|---|
"""


def read_words(notebook: Path) -> dict[str, str]:
    """Return the meaning of each word in the notebook's table. Raises ValueError where there is no such table."""
    cells = nbformat.read(notebook, as_version=4).cells
    text = "".join(cell.source for cell in cells if cell.cell_type == "markdown" and HEADING in cell.source)
    words = dict(ROW.findall(text.partition(HEADING)[2]))
    words.pop("word", None)  # the table's own heading
    if not words:
        raise ValueError(f'{notebook.name} holds no table under "New words".')
    return words


def alphabetical(word: str) -> str:
    """Return what a word is sorted by: its letters and digits, without case, accents and marks."""
    return re.sub(r"[^\w ]", "", unicodedata.normalize("NFKD", word.casefold())).strip()


def collect(folder: Path = FOLDER) -> str:
    """Return the glossary of all notebooks in the folder, as Markdown."""
    meanings: dict[str, str] = {}
    rooms: dict[str, list[str]] = {}
    for notebook in sorted(folder.glob("*.ipynb")):
        for word, meaning in read_words(notebook).items():
            meanings.setdefault(word, meaning)
            rooms.setdefault(word, []).append(f"[{notebook.name[:2]}]({notebook.name})")
    words = sorted(meanings, key=alphabetical)
    return HEAD + "".join(f"| {word} | {meanings[word]} | {', '.join(rooms[word])} |\n" for word in words)


if __name__ == "__main__":
    (FOLDER / GLOSSARY).write_text(collect(), encoding="utf-8")
