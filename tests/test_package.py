"""The package as a whole: what it exports, what importing it costs, and that it leaves other libraries importable."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import musicgen_edu
from musicgen_edu import _torchaudio

ENCODEC = "import encodec; encodec.EncodecModel.encodec_model_24khz(pretrained=False)"
TRANSFORMERS = "from transformers import MusicgenForConditionalGeneration, pipeline"
TORCHAUDIO = "import torch, torchaudio; assert torchaudio.functional.resample(torch.zeros(48), 3, 1).shape == (16,)"


def run(code: str) -> str:
    """Run code in a new interpreter, and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", musicgen_edu.__all__)
def test_every_exported_name_can_be_used(name):
    assert getattr(musicgen_edu, name) is not None
    assert name in dir(musicgen_edu)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'create_musicgen_modle'"):
        _ = musicgen_edu.create_musicgen_modle


def test_exports_are_defined_in_the_module_they_are_taken_from():
    for name, module in musicgen_edu._MODULE_OF.items():
        value = getattr(musicgen_edu, name)
        assert getattr(value, "__module__", None) in (f"musicgen_edu.{module}", "builtins", None), name


@pytest.mark.parametrize("order", [(ENCODEC, TRANSFORMERS, TORCHAUDIO), (TORCHAUDIO, TRANSFORMERS, ENCODEC)])
def test_encodec_and_transformers_import_after_the_package(order):
    run("\n".join(["import musicgen_edu", *order]))


def test_the_package_imports_after_transformers_itself():
    run(f"import transformers; import musicgen_edu; {TRANSFORMERS}; {ENCODEC}")


def test_importing_the_package_imports_nothing_heavy():
    heavy = "transformers", "encodec", "torchaudio", "matplotlib", "sentencepiece", "soundfile", "musicgen_edu.model"
    loaded = run(f"import sys, musicgen_edu; print([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_the_package_takes_little_longer_than_torch():
    code = "import time, torch; start = time.perf_counter(); import musicgen_edu; print(time.perf_counter() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def fake_torchaudio(monkeypatch, folder: Path, library: bytes | None) -> None:
    """Put a package `torchaudio` on the path whose native library has this content."""
    (folder / "torchaudio" / "lib").mkdir(parents=True)
    (folder / "torchaudio" / "__init__.py").touch()
    if library is not None:
        (folder / "torchaudio" / "lib" / "_torchaudio.so").write_bytes(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


@pytest.mark.skipif(sys.platform == "win32", reason="the fake library is named as on Linux and macOS")
def test_torchaudio_is_mended_where_its_library_does_not_load(monkeypatch, tmp_path):
    fake_torchaudio(monkeypatch, tmp_path, b"not a library")
    _torchaudio.mend_torchaudio()
    stub = sys.modules.pop("torchaudio._extension")
    assert stub._IS_TORCHAUDIO_EXT_AVAILABLE is False


def test_torchaudio_is_left_alone_where_nothing_is_broken(monkeypatch, tmp_path):
    fake_torchaudio(monkeypatch, tmp_path, None)
    _torchaudio.mend_torchaudio()
    assert "torchaudio._extension" not in sys.modules


def test_torchaudio_is_left_alone_where_it_is_missing_or_imported(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    with monkeypatch.context() as context:
        context.setattr(importlib.util, "find_spec", lambda name: None)
        _torchaudio.mend_torchaudio()
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    _torchaudio.mend_torchaudio()
    assert "torchaudio._extension" not in sys.modules
