"""The house stands as it was drawn: imports run down its floors, and the top level is the way from text to sound."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import musicgen_edu

PACKAGE = Path(musicgen_edu.__file__).parent

# From the top down. A name may import what stands below it or, on its own floor, to its right.
DRAWING = """
cli
classroom
inspection
listening
reality
training
composer
live presets model request
checkpoints
generation sampling codec patterns decoder projection text_encoder tokenizer
conditioning optimization steps
audio player spectrogram config devices files
_arguments _checks _normalization _threads _torchaudio
"""
FLOORS = [line.split() for line in DRAWING.split("\n") if line]
ORDER = [name for floor in FLOORS for name in floor]
ROOMS_01_TO_07 = next(floor for floor in FLOORS if "generation" in floor)
SHARED = next(floor for floor in FLOORS if "audio" in floor)
FOLDERS_WITHOUT_CODE = {"data", "weights"}


def imported_modules(source: str, module: str, is_package: bool = False) -> set[str]:
    """Return the modules of the package that the source of `module` imports, wherever in it, as dotted names.

    `module` is relative to the package ("" is the package's own `__init__`). Of the package itself a name is imported
    that stands for the module in which it is defined, or for the whole house.
    """
    found = set()
    here = module.split(".") if module else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {".".join(name[1:]) or "the whole" for name in names if name[0] == "musicgen_edu"}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = here if is_package else here[:-1]
                base = above[: len(above) - node.level + 1] + (node.module or "").split(".") * bool(node.module)
            elif (node.module or "").split(".")[0] == "musicgen_edu":
                base = node.module.split(".")[1:]
            else:
                continue
            found |= {_resolve(base, alias.name) for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found |= {str(text).partition(".")[2] for text in texts if str(text).startswith("musicgen_edu.")}
    return found


def _resolve(base: list[str], name: str) -> str:
    """`from base import name`, as a module: `name` may be one itself, or stand in the package's table of exports."""
    path = PACKAGE.joinpath(*base, name)
    if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
        return ".".join([*base, name])
    return ".".join(base) or musicgen_edu._MODULE_OF.get(name, "the whole")


def find_climbing(imports: dict[str, set[str]]) -> list[str]:
    """Return a line for each import that runs against the drawing. `imports` are modules by module."""
    climbing = []
    for module, targets in imports.items():
        top = module.partition(".")[0]
        if top in ("", "__main__"):  # they stand in front of the house and may show everything
            continue
        for target in targets:
            below = "presets" if target == "the whole" else target.partition(".")[0]  # the highest that it exports
            if below != top and ORDER.index(below) < ORDER.index(top):
                climbing.append(f"{module} imports {target}")
    return sorted(climbing)


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, or nothing."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        circles = (walk(target, [*way, module]) for target in sorted(imports.get(module, ())) if target not in done)
        circle = next((circle for circle in circles if circle), [])
        done.add(module)
        return circle

    return next((circle for circle in (walk(module, []) for module in sorted(imports)) if circle), [])


def imports_of_the_house() -> dict[str, set[str]]:
    """Return what each module imports, of the house."""
    imports = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        imports[module] = imported_modules(path.read_text(encoding="utf-8"), module, is_package)
    return imports


def test_no_import_runs_against_the_drawing():
    assert find_climbing(imports_of_the_house()) == []


def test_no_modules_import_each_other_in_a_circle():
    assert find_circle({name: targets for name, targets in imports_of_the_house().items() if name}) == []


def test_rooms_of_the_way_import_nothing_above_them():
    """Rooms 01 to 07 know neither the whole model nor files of weights: each can be studied without the others."""
    imports = imports_of_the_house()
    allowed = set(ORDER[ORDER.index(ROOMS_01_TO_07[0]) :])
    assert set(ROOMS_01_TO_07) <= set(imports)
    assert {target for room in ROOMS_01_TO_07 for target in imports[room]} <= allowed


def test_the_composer_needs_nothing_but_the_shared_floor():
    imports = imports_of_the_house()
    composer = {target for module in imports if module.startswith("composer") for target in imports[module]}
    assert {target for target in composer if not target.startswith("composer")} <= set(SHARED)


def test_files_of_tensors_are_read_without_knowing_a_model():
    assert imports_of_the_house()["checkpoints.tensors"] == {"files"}


def test_the_top_level_holds_what_the_drawing_names():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} == set(ORDER)
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders - there == FOLDERS_WITHOUT_CODE


def test_every_module_is_read_in_one_sitting():
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(PACKAGE)): count for path, count in lines.items() if count > 300} == {}
    way = [lines[PACKAGE / f"{room}.py"] for room in ROOMS_01_TO_07]
    assert sum(way) <= 2_000


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("codec", "import musicgen_edu.model", "codec imports model"),
        ("codec", "from musicgen_edu.model import MusicGen", "codec imports model"),
        ("codec", "from musicgen_edu import model", "codec imports model"),
        ("codec", "from musicgen_edu import MusicGen", "codec imports model"),
        ("codec", "from . import model", "codec imports model"),
        ("codec", "from .model import MusicGen", "codec imports model"),
        ("codec", "def f():\n    from musicgen_edu.presets import SHIPPED", "codec imports presets"),
        ("codec", "import musicgen_edu", "codec imports the whole"),
        ("codec", "import importlib\nimportlib.import_module('musicgen_edu.model')", "codec imports model"),
        ("training.data", "from ..listening.clips import Clips", "training.data imports listening.clips"),
        ("training.data", "from .. import inspection", "training.data imports inspection"),
        (
            "checkpoints.tensors",
            "from musicgen_edu.training.loop import fit",
            "checkpoints.tensors imports training.loop",
        ),
        ("decoder", "from musicgen_edu.sampling import sample", "decoder imports sampling"),
        ("model", "if True:\n    from musicgen_edu.presets import SHIPPED", "model imports presets"),
    ],
)
def test_a_planted_climb_is_found(module, source, found):
    assert find_climbing({module: imported_modules(source, module)}) == [found]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "from musicgen_edu.codec import Codec\nfrom .decoder import MusicGenDecoder\nimport torch.nn"),
        ("training.data", "from .decoder import Batch\nfrom ..codec import Codec\nfrom musicgen_edu import Codec"),
        ("cli", "import musicgen_edu\nfrom musicgen_edu import MusicGen"),
        ("generation", "from musicgen_edu.sampling import sample"),
    ],
)
def test_an_import_that_runs_down_is_left_alone(module, source):
    assert find_climbing({module: imported_modules(source, module)}) == []


def test_a_planted_circle_is_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
