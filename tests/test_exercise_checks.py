"""The checks of the exercises, tried with the answers that students write.

`test_notebooks.py` tries each check with its stub and its solution. Here it meets plausible slips, kept in
`exercise_answers/`: it must tell each of them, in one line, what the mistake is, and never end in a bare traceback.
"""

from __future__ import annotations

import ast
import copy
import importlib
import pkgutil
from functools import cache

import exercise_answers
import nbformat
import pytest
import torch
from exercise_answers import Answer
from test_notebooks import NOTEBOOKS, folded_solution, run, tags

ROOMS = {
    f"room_{path.name[:2]}": path
    for path in NOTEBOOKS
    if importlib.util.find_spec(f"exercise_answers.room_{path.name[:2]}")
}
STOPPED = "your answer stops the check"  # how `report` begins, in every notebook, where an answer raises an exception
ANYTHING = {
    "not written": "raise NotImplementedError",
    "a number": "return 0",
    "a text": "return 'x'",
    "an empty list": "return []",
    "a tensor": "import torch; return torch.zeros(())",
    "itself": "return args",
}


@cache
def read_room(room: str) -> tuple[dict[str, str], dict]:
    """Return the text of each tagged cell, and the names that the exercises find."""
    cells = nbformat.read(ROOMS[room], as_version=4).cells
    namespace: dict = {}
    for cell in cells:
        if "context" in tags(cell):
            run(cell.source, namespace)
    return {tag: cell.source for cell in cells for tag in tags(cell) if tag != "context"}, namespace


def check(room: str, exercise: int, code: str) -> str:
    """Return what the check prints when this code stands in the exercise's cell."""
    tagged, names = read_room(room)
    namespace = copy.copy(names)
    for number in range(1, exercise):  # later exercises may use what earlier ones defined
        run(folded_solution(tagged[f"solution-{number}"]), namespace)
    torch.manual_seed(0)
    run(code, namespace)
    return run(tagged[f"check-{exercise}"], namespace)


def code_of(room: str, answer: Answer) -> str:
    """Return the answer's cell. Raises AssertionError where a part to be changed is not in the solution."""
    if isinstance(answer.code, str):
        return answer.code
    code = folded_solution(read_room(room)[0][f"solution-{answer.exercise}"])
    for part, instead in answer.code.items():
        assert part in code, f"{part!r} is no part of the solution of exercise {answer.exercise}"
        code = code.replace(part, instead)
    return code


def answers(kind: str) -> list:
    """Return all answers of a kind as (room, answer), named for pytest."""
    modules = {room: importlib.import_module(f"exercise_answers.{room}") for room in ROOMS}
    pairs = [(room, answer) for room, module in modules.items() for answer in getattr(module, kind, [])]
    return [pytest.param(*pair, id=f"{pair[0]}-{pair[1].exercise}-{pair[1].slip}") for pair in pairs]


def test_every_file_of_answers_belongs_to_a_notebook():
    assert {module.name for module in pkgutil.iter_modules(exercise_answers.__path__)} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_every_exercise_is_tried_with_four_slips(room):
    tried = [answer.exercise for answer in importlib.import_module(f"exercise_answers.{room}").WRONG]
    numbers = [int(tag.removeprefix("check-")) for tag in read_room(room)[0] if tag.startswith("check-")]
    assert not [number for number in numbers if tried.count(number) < 4]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("room", "answer"), answers("WRONG"))
def test_a_slip_is_named(room, answer):
    told = check(room, answer.exercise, code_of(room, answer))
    assert told.startswith("Not yet: ") and told.count("\n") == 1, told
    assert answer.says in told, told
    assert STOPPED not in told, "name the likely mistake; the exception alone is for slips that nobody foresaw"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("room", "answer"), answers("RIGHT"))
def test_another_right_way_is_accepted(room, answer):
    assert check(room, answer.exercise, code_of(room, answer)) == "Right.\n"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("body", ANYTHING.values(), ids=ANYTHING)
@pytest.mark.parametrize("room", ROOMS)
def test_no_answer_ends_in_a_traceback(room, body):
    tagged, _ = read_room(room)
    for tag in (tag for tag in tagged if tag.startswith("exercise-")):
        names = [node.name for node in ast.parse(tagged[tag]).body if isinstance(node, ast.FunctionDef)]
        code = "\n".join(f"def {name}(*args, **named):\n    {body}" for name in names)
        number = int(tag.removeprefix("exercise-"))
        told = check(room, number, code)
        assert told.startswith("Not yet: "), f"exercise {number} says {told!r}"
