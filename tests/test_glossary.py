"""The glossary holds the new words of all notebooks, as they stand there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent

spec = importlib.util.spec_from_file_location("glossary", ROOT / ".ci" / "glossary.py")
glossary = importlib.util.module_from_spec(spec)
spec.loader.exec_module(glossary)


def write_notebook(path: Path, *rows: str) -> None:
    table = "\n".join(["## New words", "", "| word | meaning |", "|---|---|", *rows])
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# A title", "| other | table |", table)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_the_glossary_is_in_step_with_the_notebooks():
    written = (glossary.FOLDER / glossary.GLOSSARY).read_text(encoding="utf-8")
    assert written == glossary.collect(), "run `make notebooks`, or python .ci/glossary.py"


def test_words_are_sorted_and_the_first_room_explains_them(tmp_path):
    write_notebook(tmp_path / "01_first.ipynb", "| `<pad>` | fills a row |", "| Fréchet | a distance |")
    write_notebook(tmp_path / "02_second.ipynb", "| free | alone |", "| Fréchet | said again |", "| a, b | two |")
    rows = glossary.collect(tmp_path).removeprefix(glossary.HEAD).splitlines()
    first, second = "[01](01_first.ipynb)", "[02](02_second.ipynb)"
    assert rows == [
        f"| a, b | two | {second} |",
        f"| Fréchet | a distance | {first}, {second} |",
        f"| free | alone | {second} |",
        f"| `<pad>` | fills a row | {first} |",
    ]


def test_a_notebook_without_new_words_is_named(tmp_path):
    write_notebook(tmp_path / "01_first.ipynb")
    with pytest.raises(ValueError, match="01_first.ipynb"):
        glossary.collect(tmp_path)
