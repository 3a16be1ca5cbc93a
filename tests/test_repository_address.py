"""The repository's owner and name stand in pyproject.toml and nowhere else: a script writes them into the notebooks."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPT = ROOT / ".ci" / "repository_address.py"

spec = importlib.util.spec_from_file_location("repository_address", SCRIPT)
address = importlib.util.module_from_spec(spec)
spec.loader.exec_module(address)


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_markdown_cell("# A title", id="title"), nbformat.v4.new_code_cell("1", id="set-up-cell")]
    return nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_markdown_cell("The rest.", id="rest")])


def ids(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell["id"] for cell in notebook.cells]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_holds_what_the_setting_says(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    address.write_address(notebook, address.read_repository(), f"notebooks/{path.name}")
    assert notebook == nbformat.reads(text, as_version=4), "run `make notebooks`, or python .ci/repository_address.py"


def test_a_repository_gives_links_and_an_address(notebook):
    address.write_address(notebook, "someone/music", "notebooks/00_a.ipynb")
    assert ids(notebook) == ["title", "open-elsewhere", "set-up-cell", "rest"]
    links = re.findall(r"\]\((\S+)\)", notebook.cells[1].source)
    assert links == [
        "https://colab.research.google.com/github/someone/music/blob/main/notebooks/00_a.ipynb",
        "https://mybinder.org/v2/gh/someone/music/main?labpath=notebooks%2F00_a.ipynb",
    ]
    assert 'repository = "https://github.com/someone/music"\n    %pip install' in notebook.cells[2].source
    assert "input(" not in notebook.cells[2].source


def test_without_a_repository_the_cell_asks_and_there_are_no_links(notebook):
    address.write_address(notebook, "someone/music", "notebooks/00_a.ipynb")
    address.write_address(notebook, "", "notebooks/00_a.ipynb")
    assert ids(notebook) == ["title", "set-up-cell", "rest"]
    assert "repository = input(" in notebook.cells[1].source


@pytest.mark.parametrize("repository", ["", "someone/music"])
def test_set_up_cell_is_python_and_short(repository):
    source = address.set_up_source(repository)
    ast.parse(source.replace("%pip install --quiet git+{repository}", "pass"))
    assert "%pip install --quiet git+{repository}" in source and len(source.splitlines()) <= 7


def test_a_notebook_without_these_cells_is_named(notebook):
    for broken in (notebook.cells[1:], notebook.cells[:1]):
        with pytest.raises(ValueError, match=r"02_x\.ipynb: a notebook begins with the cell 'title'"):
            address.write_address(nbformat.v4.new_notebook(cells=broken), "", "notebooks/02_x.ipynb")


@pytest.mark.parametrize(
    ("written", "read"),
    [('repository = ""', ""), ('repository = "someone/music.edu-2"', "someone/music.edu-2"), ("", "")],
)
def test_setting_is_read(tmp_path, written, read):
    (tmp_path / "pyproject.toml").write_text(f"[tool.musicgen-edu]\n{written}\n")
    assert address.read_repository(tmp_path / "pyproject.toml") == read


@pytest.mark.parametrize("wrong", ['"https://github.com/a/b"', '"a"', '"a/b c"', "3"])
def test_a_setting_that_is_no_owner_and_name_is_refused(tmp_path, wrong):
    (tmp_path / "pyproject.toml").write_text(f"[tool.musicgen-edu]\nrepository = {wrong}\n")
    with pytest.raises(ValueError, match='repository must be "owner/name" or ""'):
        address.read_repository(tmp_path / "pyproject.toml")


def test_script_writes_once_and_then_leaves_the_files_alone(tmp_path, notebook, monkeypatch):
    file = tmp_path / "00_a.ipynb"
    nbformat.write(notebook, file)
    monkeypatch.setattr(address, "read_repository", lambda: "someone/music")
    address.main(tmp_path)
    written = file.read_bytes()
    assert b"someone/music" in written
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: pytest.fail("an up-to-date file was written again"))
    address.main(tmp_path)
    assert file.read_bytes() == written
