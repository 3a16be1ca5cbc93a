"""What is installed where: pyproject.toml, constraints.txt, environment.yml and binder/ must say the same."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from musicgen_edu import cli
from musicgen_edu.composer import captions, score

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python has none

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "musicgen_edu"
PYTHONS = "3.10", "3.11", "3.12", "3.13"
ONLY_THROUGH_ENCODEC = {"torchaudio"}  # pinned too, since the package mends its import

project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by canonical name."""
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def pins(python: str) -> dict[str, str]:
    """The version that constraints.txt pins on `python`, by canonical name."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    wanted = [Requirement(line) for line in lines if line]
    wanted = [pin for pin in wanted if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(pin.name) for pin in wanted]
    assert len(names) == len(set(names)), "a dependency is pinned twice"
    assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in wanted), "a pin is one version: name==1.2.3"
    return {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, wanted, strict=True)}


core = requirements(project["dependencies"])
direct = requirements([*project["dependencies"], *(line for lines in extras.values() for line in lines)])


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_dependency_is_pinned_within_its_range(python):
    pinned = pins(python)
    assert set(pinned) == set(direct) | ONLY_THROUGH_ENCODEC
    outside = [name for name, requirement in direct.items() if pinned[name] not in requirement.specifier]
    assert not outside


def test_conda_environment_has_the_pinned_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (through_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    through_conda = dict(entry.split("=") for entry in environment["dependencies"] if "=" in entry)
    found = {name: str(line.specifier).removeprefix("==") for name, line in requirements(through_pip).items()}
    found["torch"] = through_conda["pytorch-cpu"]
    wanted = set(core) | set(requirements(extras["notebooks"])) | ONLY_THROUGH_ENCODEC
    pinned = pins(through_conda["python"])
    assert found == {name: pinned[name] for name in wanted}


def test_binder_builds_the_same_environment():
    assert (ROOT / "binder/environment.yml").samefile(ROOT / "environment.yml")
    assert sorted(path.name for path in (ROOT / "binder").iterdir()) == ["environment.yml", "postBuild", "start"]
    assert all(os.access(ROOT / "binder" / script, os.X_OK) for script in ("postBuild", "start"))


def test_threads_that_wait_sleep_wherever_the_course_is_started():
    """Six kernels on two cores never finish where waiting threads spin; it must be said before torch is loaded."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    wanted = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
    assert {name: str(value) for name, value in environment["variables"].items()} == wanted
    bare = {name: value for name, value in os.environ.items() if name not in wanted}
    show = "import os, sys; print({name: os.environ[name] for name in sys.argv[1:]}, 'torch' in sys.modules)"
    command = [sys.executable, "-c", show, *wanted]
    started = subprocess.run([ROOT / "binder/start", *command], env=bare, capture_output=True, text=True, check=True)
    assert started.stdout == f"{wanted} False\n"
    for given in ({}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}):
        command[2] = f"import musicgen_edu; {show}"
        done = subprocess.run(command, env=bare | given, capture_output=True, text=True)
        assert done.stdout.startswith(str(wanted | given)), done.stderr


def imported_distributions(paths: list[Path]) -> set[str]:
    """Canonical names of the distributions that the modules at `paths` import."""
    modules = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module)
    modules |= {"google.protobuf" for module in modules if module.endswith("_pb2")}  # compiled messages import it
    top_level = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"musicgen_edu"}
    providers = importlib.metadata.packages_distributions() | {"fluidsynth": ["pyfluidsynth"], "google": ["protobuf"]}
    return {canonicalize_name(providers[module][0]) for module in top_level}


def test_the_package_imports_what_it_declares_and_nothing_else():
    for_training = [path for folder in ("composer", "training") for path in (PACKAGE / folder).rglob("*.py")]
    for_notebooks = [path for folder in ("inspection", "classroom") for path in (PACKAGE / folder).rglob("*.py")]
    otherwise = [path for path in PACKAGE.rglob("*.py") if path not in for_training + for_notebooks]
    assert imported_distributions(otherwise) | {"numpy"} == set(core)  # numpy is met through Tensor.numpy()
    assert imported_distributions(for_training) <= set(core) | set(requirements(extras["train"]))
    assert imported_distributions(for_notebooks) <= set(core) | set(requirements(extras["notebooks"]))


def test_readme_promises_only_words_that_captions_hold():
    lists = [captions.INSTRUMENT_NAMES, captions.ADJECTIVES, captions.PHRASES, captions.TEXTURE_NOUNS]
    lists = [set(names) for table in lists for names in table.values()]
    lists += [set(captions.WITH_DRUMS), set(captions.WITHOUT_DRUMS)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| | say | or |\n|---|---|---|\n")[2].partition("\n\n")[0]
    promised = {word.strip() for row in table.splitlines() for word in re.split("[|,]", row)[2:]} - {""}
    assert promised <= set.union(*lists)
    assert all(promised & names for names in lists), "an attribute for which the table has no word"


def test_readme_gives_the_tempos_of_the_composer():
    slow, medium, fast = ([1500 / frames for frames in score.EIGHTHS[tempo]] for tempo in ("slow", "medium", "fast"))
    sentence = (
        f"Slow is {min(slow):.0f} to {max(slow):.0f} beats a minute, "
        f"medium {min(medium):.0f} to {max(medium):.0f}, fast {fast[0]:.0f}."
    )
    assert sentence in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_shipped_files_are_small_enough():
    megabytes = {path: path.stat().st_size / 1e6 for path in PACKAGE.rglob("*") if path.is_file()}
    weights = [size for path, size in megabytes.items() if PACKAGE / "weights" in path.parents]
    data = [size for path, size in megabytes.items() if PACKAGE / "data" in path.parents]
    assert weights, "the package ships a model"
    assert sum(weights) <= 90 and max(weights) <= 50
    assert sum(data) <= 5


def test_readme_make_the_command_line_and_room_00_begin_with_the_same_clip():
    prompt, seed = re.findall(
        r"^(?:PROMPT|SEED) \?= (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"make music  # {prompt}\n" in readme
    assert f'model.generate("{prompt}", duration=8.0, seed={seed})' in readme
    command = f'musicgen-edu generate "{prompt}" --seed {seed}\n'
    assert command in readme and command in cli.EXAMPLES
    (path,) = (ROOT / "notebooks").glob("00_*.ipynb")
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    first = next(cell for cell in cells if "model.generate(" in cell)
    assert f'"{prompt}"' in first and f"seed={seed})" in first
