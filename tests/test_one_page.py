"""MusicGen on one page: alone, without the package, it writes the package's tokens from any mono folder."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from reference import VARIANTS, write_reference
from safetensors.torch import load_file, save_file

from musicgen_edu import MusicGen
from musicgen_edu.presets import SHIPPED
from musicgen_edu.reality.parity import create_reference

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "musicgen_on_one_page.py"
PROMPT = "a happy flute arpeggio, fast, with drums"
MAY_IMPORT = {"soundfile", "torch", "safetensors", "transformers"}
FROM_TRANSFORMERS = {"AutoConfig", "AutoTokenizer", "EncodecModel", "T5EncoderModel"}


@pytest.fixture(scope="module")
def page():
    """The page as a module."""
    spec = importlib.util.spec_from_file_location("musicgen_on_one_page", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def write_folder(tokenizer, tmp_path_factory):
    """Write a random checkpoint as transformers does, and return its folder."""

    def write(name: str) -> Path:
        torch.manual_seed(2)
        variant = VARIANTS[name]
        folder = tmp_path_factory.mktemp(name)
        write_reference(
            create_reference(variant, tokenizer.vocab_size), tokenizer, folder, variant.get("max_shard_size", "1GB")
        )
        return folder

    return write


def assert_same_music(page, folder: Path, duration: float, **settings) -> torch.Tensor:
    """The page's codes are the package's, and so, but for rounding, are its samples."""
    guidance = settings.pop("guidance", None)
    codes, samples, rate = page.generate(PROMPT, folder, duration, guidance=guidance, **settings)
    audio = MusicGen.from_pretrained(folder).generate(PROMPT, duration, guidance_scale=guidance, **settings)
    assert torch.equal(codes, audio.codes[0]) and rate == audio.sample_rate
    torch.testing.assert_close(samples, audio.waveform[0, 0], atol=1e-4, rtol=0)
    return codes


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 3},
        {"seed": 4, "temperature": 1.2, "top_k": 0},
        {"seed": 5, "guidance": 1},
        {"seed": 6, "guidance": 0},
        {"temperature": 0},
        {"temperature": 0, "guidance": 3.5},
    ],
    ids=str,
)
def test_it_plays_the_shipped_model_as_the_package_does(page, settings):
    codes = assert_same_music(page, SHIPPED, 1.5, **settings)
    assert codes.shape == (4, 75) and len(codes.unique()) > 40, "this music would prove little"


@pytest.mark.filterwarnings("ignore::musicgen_edu.UnknownWordsWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_it_plays_what_transformers_wrote_as_the_package_does(page, write_folder, name):
    folder = write_folder(name)
    for settings in ({"seed": 3}, {"temperature": 0}, {"seed": 5, "guidance": 1, "top_k": 7}):
        codes = assert_same_music(page, folder, 0.5, **settings)
    assert len(codes.unique()) > 8


@pytest.mark.filterwarnings("ignore::musicgen_edu.UnknownWordsWarning")
def test_it_plays_the_names_and_doubles_of_metas_own_files(page, write_folder):
    folder = write_folder("base")
    today = page.generate(PROMPT, folder, 0.5)
    tensors = load_file(folder / "model.safetensors")
    for new, old in ((".original0", ".weight_g"), (".original1", ".weight_v")):
        tensors = {name.replace(f".parametrizations.weight{new}", old): tensor for name, tensor in tensors.items()}
    tensors["text_encoder.encoder.embed_tokens.weight"] = tensors.pop("text_encoder.shared.weight")
    tensors["decoder.model.decoder.embed_positions.weights"] = torch.zeros(8, 24)  # stored, and computed all the same
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    old = page.generate(PROMPT, folder, 0.5)
    assert torch.equal(today[0], old[0]) and torch.equal(today[1], old[1])
    assert_same_music(page, folder, 0.5)


@pytest.mark.filterwarnings("ignore::musicgen_edu.UnknownWordsWarning")
def test_a_folder_that_asks_for_greedy_codes_gets_them(page, write_folder):
    folder = write_folder("base")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_sample": False, "guidance_scale": None}))
    codes = assert_same_music(page, folder, 0.5)
    assert torch.equal(codes, page.generate(PROMPT, folder, 0.5, temperature=0, guidance=3, seed=9)[0])


def test_it_stands_alone_and_on_one_page():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 270
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {name for node in nodes for name in ([node.module] if isinstance(node, ast.ImportFrom) else
                                                   [alias.name for alias in node.names])}  # fmt: skip
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names == MAY_IMPORT
    taken = {alias.name for node in nodes if getattr(node, "module", "") == "transformers" for alias in node.names}
    assert taken == FROM_TRANSFORMERS


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the page as a script, somewhere else, and return what it says."""
    command = [sys.executable, str(PAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)


def test_it_writes_a_wav(tmp_path):
    done = run(tmp_path, "sad strings", "--duration", "0.5", "--output", "strings.wav")
    assert (done.returncode, done.stdout) == (0, "strings.wav: 0.50 s at 16000 Hz, from codes of shape [4, 25]\n")
    samples, rate = soundfile.read(tmp_path / "strings.wav")
    assert (len(samples), rate) == (8_000, 16_000) and abs(samples).max() > 0.01


def broken(folder: Path, kind: str) -> None:
    """Change a good folder into one that cannot be played."""
    config = json.loads((folder / "config.json").read_text())
    if kind == "melody":
        config["model_type"] = "musicgen_melody"
    elif kind == "stereo":
        config["decoder"]["audio_channels"] = 2
    elif kind == "pattern":
        config["codebook_pattern"] = "flatten"
    (folder / "config.json").write_text("{" if kind == "damaged config" else json.dumps(config))
    weights = folder / "model.safetensors"
    if kind == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "damaged weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind in ("lacking", "misshapen"):
        tensors = load_file(weights)
        lost = tensors.pop(
            "decoder.lm_heads.0.weight" if kind == "misshapen" else "decoder.model.decoder.layer_norm.bias"
        )
        tensors |= {"decoder.lm_heads.0.weight": lost[:, :5].contiguous()} if kind == "misshapen" else {}
        save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("melody", "its model_type is 'musicgen_melody', not 'musicgen'"),
        ("stereo", "its audio_channels is 2, not 1"),
        ("pattern", "its codebook_pattern is 'flatten', not 'delay'"),
        ("pickle", "holds no model.safetensors; pickles"),
        ("damaged config", "is damaged"),
        ("damaged weights", "is damaged"),
        ("lacking", "'model.decoder.layer_norm.bias' is missing"),
        ("misshapen", "do not fit each other or its config.json"),
    ],
)
def test_a_bad_folder_ends_in_one_sentence(page, write_folder, monkeypatch, kind, sentence):
    folder = write_folder("base")
    broken(folder, kind)
    assert_refused(page, monkeypatch, sentence, "sad strings", "--model", str(folder))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("",), "The prompt is empty"),
        (("sad", "--duration", "0"), "duration must be more than 0, not 0.0"),
        (("sad", "--duration", "nan"), "duration must be more than 0, not nan"),
        (("sad", "--duration", "inf"), "duration must be more than 0, not inf"),
        (("sad", "--guidance", "-1"), "guidance must be at least 0, not -1.0"),
        (("sad", "--top-k", "-1"), "top_k must be at least 0, not -1"),
        (("sad", "--seed", "-1"), "seed must be at least 0, not -1"),
        (("sad", "--output", "music.mp3"), "name a file that ends in .wav"),
        (("sad", "--output", "nowhere/music.wav"), "in a folder that exists"),
        (("sad", "--model", "nowhere"), "nowhere is no checkpoint's folder"),
    ],
)
def test_bad_input_ends_in_one_sentence(page, monkeypatch, arguments, sentence):
    assert_refused(page, monkeypatch, sentence, *arguments)


def assert_refused(page, monkeypatch, sentence: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [PAGE.name, *arguments])
    with pytest.raises(SystemExit) as refusal:
        page.main()
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)
    assert not Path("music.wav").exists()
