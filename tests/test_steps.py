"""Compiled steps: the same codes, nothing compiled twice, and a clear sentence where nothing can be compiled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from musicgen_edu.config import DecoderConfig
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.optimization import optimize

CONFIG = DecoderConfig(32, 4, 64, 2, 4, 128, text_hidden_size=16)
HAS_COMPILER = shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    """What `compiled_steps.py` found, in a process of its own: it compiles two layers, which takes some seconds."""
    if not HAS_COMPILER:
        pytest.skip("there is no C++ compiler here")
    # fp32 is multiplied by an operation that the compiler does not know, all other ways by those that it does.
    rung = "fp32" if torch.backends.mkldnn.is_available() else "int8"
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    script = Path(__file__).with_name("compiled_steps.py")
    return json.loads(subprocess.check_output([sys.executable, str(script), rung], text=True, env=environment))


@pytest.mark.parametrize(
    "what", ["steps", "known codes", "other shapes", "a copy", "pickled", "thread", "without text"]
)
def test_compiled_steps_choose_the_codes_of_the_others(report, what):
    assert report[what]["difference"] < 0.02 and report[what]["clear"] > 0.9
    assert report[what]["same"] == 1


def test_compiled_fp32_writes_the_codes_of_the_weights_themselves(report):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch comes without oneDNN, which multiplies in fp32")
    assert report["writes the same"]


def test_one_form_serves_all_layers_steps_batches_and_texts(report):
    assert report["graphs"] == report["graphs later"] == 1


def test_compiled_steps_can_be_undone_and_are_no_way_around_what_packed_layers_refuse(report):
    assert report["undone"]
    assert "Packed weights give no gradients" in report["training"]
    assert "call optimize() again" in report["changed weights"]


def test_without_a_compiler_it_says_so_before_anything_is_packed(monkeypatch):
    decoder = MusicGenDecoder(CONFIG)
    text = repr(decoder)
    with pytest.raises(ValueError, match="Only packed layers are compiled: choose a rung"):
        optimize(decoder, None, compiled=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="there is no 'no-such-compiler' on this machine: install one"):
        optimize(decoder, "int8", compiled=True)
    assert repr(decoder) == text
