"""What every notebook holds besides the outputs that nbval compares.

Exercises are found by the tags of their cells: `exercise-1` is the stub, `check-1` its check, `solution-1` the text
with the solution; cells tagged `context` are all that these need. A stub's check prints "Not yet: …", a solution's
prints "Right."
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
MAX_BYTES, MAX_SOUND_BYTES = 1_000_000, 300_000
MAX_CODE_LINES, MAX_CODE_WIDTH, MAX_PRINTED = 10, 100, 106
DATA_URI = re.compile(r"data:(\w+)/[\w.+-]+;base64,([A-Za-z0-9+/=]+)")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~)\]-])/\w[\w.-]*/|\b[A-Z]:\\|file://")
GRADIENTS = "gradients are on"  # a name in a notebook's namespace that no cell can use
UNCOMPARED = re.compile(r"nbval[-_](ignore[-_]output|skip)|validate[-_]ignore[-_]output", re.IGNORECASE)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path) -> list[dict]:
    """The notebook's cells, with every multi-line string joined."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5), "cells have ids from nbformat 4.5 on"
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]


@pytest.fixture
def code_cells(cells) -> list[dict]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def prose(cells) -> str:
    """All Markdown, without code."""
    text = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def texts(cell: dict) -> list[str]:
    """Everything that a code cell has put out, as text."""
    printed = [output.get("text", "") for output in cell["outputs"]]
    shown = [value for output in cell["outputs"] for value in output.get("data", {}).values()]
    return ["".join(value) if isinstance(value, list) else str(value) for value in printed + shown]


def shows_something(source: str) -> bool:
    """Whether a cell prints, or ends with a value that Jupyter displays."""
    statements = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE)).body
    outside = [node for node in statements if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    calls = {ast.unparse(node.func) for top in outside for node in ast.walk(top) if isinstance(node, ast.Call)}
    ends_in_value = isinstance(statements[-1], ast.Expr) and not isinstance(statements[-1].value, ast.Call)
    return ends_in_value or bool(calls & {"print", "display", "report"})


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_every_cell_was_run_in_order(code_cells):
    assert [cell["execution_count"] for cell in code_cells] == list(range(1, len(code_cells) + 1))


def test_outputs_are_there_and_hold_no_error(code_cells):
    missing = [cell["id"] for cell in code_cells if shows_something(cell["source"]) and not cell["outputs"]]
    outputs = [(cell["id"], output) for cell in code_cells for output in cell["outputs"]]
    errors = [name for name, output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not missing and not errors


def test_at_most_a_third_of_the_outputs_is_not_compared(code_cells):
    with_output = [cell for cell in code_cells if cell["outputs"]]
    uncompared = [cell["id"] for cell in with_output if UNCOMPARED.search(" ".join([cell["source"], *tags(cell)]))]
    assert len(uncompared) <= len(with_output) / 3, uncompared


def test_every_picture_has_alt_text_and_every_player_a_label(cells, code_cells):
    in_markdown = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
    shown = [text for cell in code_cells for text in texts(cell)] + in_markdown
    for tag in re.findall(r"<(?:img|audio)\b[^>]*>", "\n".join(shown)):
        assert re.search(r'\b(alt|aria-label)="[^"]{10,}"', tag), tag[:120]
    assert all(len(alt) >= 10 for alt in re.findall(r"!\[(.*?)\]", "\n".join(in_markdown), flags=re.DOTALL))
    kinds = {kind for cell in code_cells for output in cell["outputs"] for kind in output.get("data", {})}
    assert not [kind for kind in kinds if kind.startswith("image/")], 'show pictures as <img alt="…" src="data:…">'


def test_no_absolute_path_is_named(cells, code_cells):
    shown = [text for cell in code_cells for text in texts(cell)] + [cell["source"] for cell in cells]
    found = [match.group() for text in shown for match in ABSOLUTE_PATH.finditer(DATA_URI.sub("", text))]
    assert not found


def test_cell_ids_are_unique_and_well_formed(cells):
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in ids)


def test_headings_start_at_one_and_skip_no_level(prose):
    levels = [len(marks) for marks in re.findall(r"^(#+) ", prose, flags=re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(following <= level + 1 for level, following in pairwise(levels))


def test_the_notebook_and_its_sound_are_small(path, code_cells):
    shown = "".join(text for cell in code_cells for text in texts(cell))
    sound = sum(len(base64.b64decode(data)) for kind, data in DATA_URI.findall(shown) if kind == "audio")
    assert path.stat().st_size <= MAX_BYTES
    assert sound <= MAX_SOUND_BYTES


def test_lessons_come_in_small_cells(code_cells):
    lessons = [cell for cell in code_cells if not any(tag.startswith("check-") for tag in tags(cell))]
    lengths = {cell["id"]: len([line for line in cell["source"].splitlines() if line.strip()]) for cell in lessons}
    assert not {name: length for name, length in lengths.items() if length > MAX_CODE_LINES}


def test_no_line_of_code_is_cut_off(code_cells):
    lines = [(cell["id"], line) for cell in code_cells for line in cell["source"].splitlines()]
    assert not [(name, line) for name, line in lines if len(line) > MAX_CODE_WIDTH]


def test_no_printed_line_is_wrapped_by_the_browser(code_cells):
    """At a width of 1300 a line has room for so many letters. What has a face of its own, as HTML, is not printed."""
    outputs = [(cell["id"], output) for cell in code_cells for output in cell["outputs"]]
    printed = [
        (name, "".join(output.get("text") or output["data"]["text/plain"]))
        for name, output in outputs
        if "text" in output or set(output.get("data", {})) == {"text/plain"}
    ]
    longest = {name: max(map(len, text.split("\n"))) for name, text in printed}
    assert not {name: length for name, length in longest.items() if length > MAX_PRINTED}


def test_prose_is_calm(prose):
    prose = re.sub(r"!\[", "[", prose)
    assert "!" not in prose
    assert not re.search(r"\bsimply\b", prose, flags=re.IGNORECASE)


@pytest.mark.filterwarnings("ignore")
def test_stubs_fail_their_checks_and_solutions_pass(cells):
    tagged = {tag: cell["source"] for cell in cells for tag in tags(cell) if tag != "context"}
    numbers = [tag.removeprefix("exercise-") for tag in tagged if tag.startswith("exercise-")]
    assert len(numbers) >= 3
    namespace: dict = {}
    for cell in cells:
        if "context" in tags(cell):
            run(cell["source"], namespace)
    for number in numbers:
        run(tagged[f"exercise-{number}"], namespace)
        assert run(tagged[f"check-{number}"], namespace).startswith("Not yet: "), f"the stub of exercise {number}"
        run(folded_solution(tagged[f"solution-{number}"]), namespace)
        assert run(tagged[f"check-{number}"], namespace) == "Right.\n", f"the solution of exercise {number}"


def test_exercises_say_how_hard_and_how_long_they_are(prose):
    headings = re.findall(r"^### (Exercise .*)$", prose, flags=re.MULTILINE)
    assert len(headings) >= 3
    assert all(re.fullmatch(r"Exercise \d+: .+ \([★☆]{3}, \d+ minutes\)", heading) for heading in headings)


def folded_solution(text: str) -> str:
    """Return the code of a solution from the text that it is folded into."""
    return re.search(r"<details>.*?^```python\n(.*?)^```.*?</details>", text, re.MULTILINE | re.DOTALL).group(1)


def run(source: str, namespace: dict) -> str:
    """Run a cell's code and return what it prints.

    Gradients are on or off as the cells before left them: a notebook has a kernel of its own.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), torch.set_grad_enabled(namespace.get(GRADIENTS, True)):
        exec(source, namespace)
        namespace[GRADIENTS] = torch.is_grad_enabled()
    return printed.getvalue()
