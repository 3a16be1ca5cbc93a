"""Write the repository's owner and name, which only pyproject.toml holds, into the notebooks.

    python .ci/repository_address.py [FOLDER]

`[tool.musicgen-edu] repository = "owner/name"` (on GitHub) gives every notebook a line of links that open it on Colab
and on Binder, and its set-up cell the address to install from. While the setting is empty there is no such line, and
on Colab the set-up cell asks for the address. `make notebooks` runs this first; running it again changes nothing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote

import nbformat

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "main"
TITLE, LINKS, SET_UP = "title", "open-elsewhere", "set-up-cell"  # the cells' ids
LINKS_SOURCE = """\
Open this notebook [on Colab](https://colab.research.google.com/github/{repository}/blob/{branch}/{path}) or
[on Binder](https://mybinder.org/v2/gh/{repository}/{branch}?labpath={quoted})."""
SET_UP_SOURCE = """\
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("musicgen_edu") is None:
    repository = {address}
    %pip install --quiet git+{{repository}}"""


def read_repository(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """Return the setting, "owner/name" or "". Raises ValueError if it is anything else."""
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("tool", {}).get("musicgen-edu", {})
    repository = settings.get("repository", "")
    if not isinstance(repository, str) or not re.fullmatch(r"([\w.-]+/[\w.-]+)?", repository):
        raise ValueError(f'{pyproject.name}: repository must be "owner/name" or "", not {repository!r}.')
    return repository


def set_up_source(repository: str) -> str:
    """Return the set-up cell, the same in every notebook."""
    question = 'input("Address of this course\'s repository (https://…): ")'
    return SET_UP_SOURCE.format(address=f'"https://github.com/{repository}"' if repository else question)


def links_source(repository: str, path: str) -> str:
    """Return the text of the links to the notebook at `path` in the repository."""
    return LINKS_SOURCE.format(repository=repository, branch=BRANCH, path=path, quoted=quote(path, safe=""))


def write_address(notebook: nbformat.NotebookNode, repository: str, path: str) -> None:
    """Bring the notebook's two cells up to date, in place. Raises ValueError where it lacks one."""
    cells = {cell["id"]: cell for cell in notebook.cells}
    if SET_UP not in cells or notebook.cells[0]["id"] != TITLE:
        raise ValueError(f"{path}: a notebook begins with the cell {TITLE!r} and holds the cell {SET_UP!r}.")
    cells[SET_UP].source = set_up_source(repository)
    notebook.cells = [cell for cell in notebook.cells if cell["id"] != LINKS]
    if repository:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(links_source(repository, path), id=LINKS))


def main(folder: Path) -> None:
    """Write the address into every notebook of the folder; files that hold it already are left alone."""
    repository = read_repository()
    for file in sorted(folder.glob("*.ipynb")):
        before = file.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        write_address(notebook, repository, f"notebooks/{file.name}")
        after = nbformat.writes(notebook) + "\n"
        if after != before:
            file.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "notebooks")
