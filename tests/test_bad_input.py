"""Whatever is handed to the public calls, they answer, or say in one sentence what was wrong (property-based)."""

from __future__ import annotations

import json
import math
import os
import shutil
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import musicgen_edu
from musicgen_edu import Audio, MusicGen, create_musicgen_model
from musicgen_edu.audio import as_audio
from musicgen_edu.generation import iterate_codes
from musicgen_edu.request import MAX_DURATION

pytestmark = pytest.mark.usefixtures("unchecked_annotations")
thorough = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FRAME = 0.02  # seconds
PACKAGE = Path(musicgen_edu.__file__).parent
odd_numbers = st.one_of(
    st.sampled_from([0, -1, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, 2**63, -(2**63), 10**400, True, False]),
    st.integers(),
    st.floats(),
)
no_numbers = st.one_of(
    st.text(max_size=5), st.binary(max_size=5), st.lists(st.integers(), max_size=3), st.just({}), st.complex_numbers()
)
anything = st.one_of(odd_numbers, no_numbers, st.none())


def assert_clear(error: Exception) -> None:
    """One sentence for a person, of a type that fits, and written here: no library's own words (but the system's)."""
    assert isinstance(error, (ValueError, TypeError, OSError)), repr(error)
    message = str(error)
    assert len(message) > 10 and "\n" not in message, message[:2000]
    last = traceback.extract_tb(error.__traceback__)[-1]  # a call into a library has no frame, and is no `raise`
    ours = Path(last.filename).is_relative_to(PACKAGE) and last.line.startswith("raise")
    assert isinstance(error, OSError) or ours, f"{last.filename}, line {last.lineno}: {message}"


def generate(model: MusicGen, prompt="piano", duration=FRAME, **options) -> Audio | None:
    """The music, whole and sound, or None where a clear error said no."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            audio = model.generate(prompt, duration, **options)
        except Exception as error:
            assert_clear(error)
            return None
    assert audio.waveform.isfinite().all()
    assert audio.waveform.shape[2] == audio.codes.shape[2] * 8
    return audio


@thorough
@given(prompt=st.text(max_size=200))
@example(prompt="")
@example(prompt=" \t\n\u00a0")
@example(prompt="\ud800 piano \udfff")
@example(prompt="\x00")
@example(prompt="\u200b\ufeff")
@example(prompt="пианино 钢琴 ピアノ 🎹")
@example(prompt="<pad></s><unk>")
@example(prompt="piano " * 50_000)
@example(prompt="x" * 300_000)
def test_any_text(model, prompt):
    audio = generate(model, prompt)
    assert (audio is None) or audio.prompts == [prompt]
    if any(letter.isascii() and letter.isalnum() for letter in prompt):
        assert audio is not None


@thorough
@given(prompt=st.one_of(anything, st.lists(st.one_of(st.text(max_size=9), anything), max_size=3), st.sets(st.text())))
@example(prompt=[])
@example(prompt=("piano", "flute"))
@example(prompt=["piano", None])
@example(prompt=["piano", " "])
@example(prompt=b"piano")
@example(prompt={"piano": 1})
def test_any_prompt(model, prompt):
    audio = generate(model, prompt)
    if audio is not None:
        prompts = [prompt] if isinstance(prompt, str) else prompt and list(prompt)
        assert audio.prompts == prompts and len(audio.waveform) == (1 if prompts is None else len(prompts))
        assert prompts is None or all(isinstance(text, str) for text in prompts)


@thorough
@given(duration=st.one_of(anything, st.floats(-0.1, 0.2), st.fractions(0, 1, max_denominator=99)))
@example(duration=MAX_DURATION + 0.01)
@example(duration="1")
def test_any_duration(model, duration):
    audio = generate(model, duration=duration) if not _is_long(duration) else None
    if audio is not None:
        assert not isinstance(duration, bool) and 0 < duration <= MAX_DURATION
        assert audio.codes.shape[2] == max(1, round(float(duration) * 50))


def _is_long(duration) -> bool:
    return isinstance(duration, (int, float)) and 1 < duration <= MAX_DURATION  # well, but slow


@thorough
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.one_of(anything, st.floats(0, 3)),
            "top_k": st.one_of(anything, st.integers(-1, 40)),
            "top_p": st.one_of(anything, st.floats(0, 1)),
            "guidance_scale": st.one_of(anything, st.floats(0, 9)),
        },
    )
)
@example(options={"temperature": -1})
@example(options={"temperature": 1e-300})
@example(options={"top_k": 33})
@example(options={"top_k": 2.5})
@example(options={"top_p": 0})
@example(options={"guidance_scale": 1e300})
def test_any_sampling_settings(model, options):
    audio = generate(model, **options)
    if audio is not None:
        numbers = {name: value for name, value in options.items() if value is not None}
        assert all(not isinstance(value, (str, bool)) for value in numbers.values()), options
        assert all(value >= 0 for value in numbers.values()), options
        assert numbers.get("top_k", 0) <= 32 and numbers.get("top_p", 1) <= 1


@thorough
@given(seed=st.one_of(anything, st.lists(st.one_of(anything, st.integers(0, 9)), max_size=3)))
@example(seed=2**63 - 1)
@example(seed=[1, 2])
@example(seed=[1, 2, 3])
@example(seed=[1, 2.0])
def test_any_seed(model, seed):
    audio = generate(model, ["piano", "flute"], seed=seed)
    if audio is not None and seed is not None:
        seeds = [seed, seed] if isinstance(seed, int) else list(seed)
        assert len(seeds) == 2 and all(0 <= value < 2**63 and not isinstance(value, bool) for value in seeds)


@thorough
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "samples": st.one_of(anything, st.integers(-1, 4)),
            "window": st.one_of(anything, st.floats(0, 0.2)),
            "stride": st.one_of(anything, st.floats(0, 0.2)),
            "continue_from": st.one_of(anything, st.integers(0, 40).map(lambda samples: (torch.ones(samples), 400))),
        },
    )
)
@example(options={"continue_from": (torch.ones(8), 400, 400)})
@example(options={"continue_from": (torch.ones(8), math.nan)})
@example(options={"continue_from": "\x00"})
@example(options={"window": 0.1, "stride": 0.08})
def test_any_request(model, options):
    audio = generate(model, duration=0.12, **options)
    if audio is not None:
        samples = options.get("samples", 1)
        assert type(samples) is int and 1 <= samples == len(audio.waveform) and audio.codes.shape[2] == 6
        assert all(options.get(name) is None or 0 < options[name] <= MAX_DURATION for name in ("window", "stride"))


@thorough
@given(duration=st.one_of(anything, st.floats(0, 0.1)), chunk_duration=st.one_of(anything, st.floats(0, 0.1)))
def test_any_stream(model, duration, chunk_duration):
    if _is_long(duration):
        duration = -duration
    try:
        chunks = model.stream("piano", duration, chunk_duration=chunk_duration)
    except Exception as error:
        assert_clear(error)
    else:
        samples = sum(chunk.waveform.shape[2] for chunk in chunks)
        assert samples == max(1, round(float(duration) * 50)) * 8


@thorough
@given(name=st.one_of(anything, st.sampled_from(["tiny", "small"])), overrides=st.dictionaries(
    st.sampled_from(["hidden_size", "num_heads", "num_codebooks", "codebook_size", "pattern", "top_k", "project_text",
                     "temperature", "text_hidden_size", "width", ""]),
    st.one_of(anything, st.integers(1, 64), st.sampled_from(["delay", "flatten"])), max_size=3,
))  # fmt: skip
def test_any_override(name, overrides):
    if isinstance(overrides.get("num_codebooks"), int) and overrides["num_codebooks"] > 64:
        overrides["num_codebooks"] = 64  # well, but slow
    try:
        create_musicgen_model(name, device="meta", **overrides)
    except Exception as error:
        assert_clear(error)


@pytest.fixture(scope="module")
def good_folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    model.save_pretrained(folder)
    return folder


def from_changed(good_folder: Path, change) -> MusicGen | None:
    """Open a copy of the folder after a change to it: a model that generates, or None after a clear error."""
    broken = good_folder.with_name("broken")
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(good_folder, broken)
    change(broken)
    try:
        model = MusicGen.from_pretrained(broken)
    except Exception as error:
        assert_clear(error)
        return None
    generate(model)
    return model


@thorough
@given(name=st.sampled_from(["model.safetensors", "config.json", "generation_config.json", "spiece.model"]),
       kept=st.floats(0, 1), junk=st.binary(max_size=20))  # fmt: skip
@example(name="config.json", kept=0.0, junk=b"")
@example(name="model.safetensors", kept=0.0, junk=b"\xff" * 8)
@example(name="model.safetensors", kept=0.999, junk=b"")
@example(name="model.safetensors", kept=0.9999999999999999, junk=b"\0")
def test_truncated_files(good_folder, name, kept, junk):
    content = (good_folder / name).read_bytes()
    changed = content[: int(kept * len(content))] + junk
    opened = from_changed(good_folder, lambda folder: (folder / name).write_bytes(changed))
    # With junk for its last bytes a file of weights is as whole as before: its last numbers are others.
    whole = len(changed) == len(content) if name == "model.safetensors" else changed.strip() == content.strip()
    assert opened is None or name == "spiece.model" or whole


@thorough
@given(data=st.data())
def test_changed_configs(good_folder, data):
    def change_one_value(folder):
        config = json.loads((folder / "config.json").read_text())
        part = data.draw(st.sampled_from(["text_encoder", "audio_encoder", "decoder"]))
        key = data.draw(st.sampled_from(sorted(config[part])))
        small = st.one_of(st.integers(-2, 70), st.floats(-1, 3), st.none(), st.booleans(), st.text(max_size=5))
        config[part][key] = data.draw(st.one_of(small, st.lists(small, max_size=3)))
        (folder / "config.json").write_text(json.dumps(config))

    from_changed(good_folder, change_one_value)


@thorough
@given(data=st.data())
def test_missing_files(good_folder, data):
    removed = data.draw(st.sets(st.sampled_from(sorted(os.listdir(good_folder))), min_size=1))

    def remove(folder):
        for name in removed:
            (folder / name).unlink()
        if data.draw(st.booleans()):
            torch.save({}, folder / "pytorch_model.bin")

    if {"config.json", "model.safetensors"} & removed:
        assert from_changed(good_folder, remove) is None


@thorough
@given(folder=st.one_of(st.text(max_size=30), st.sampled_from(["", ".", "/", "no/such/folder", "\0", "~", "x" * 5000])))
def test_any_folder_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as caught:
        MusicGen.from_pretrained(folder)
    assert_clear(caught.value)


@thorough
@given(name=st.text(max_size=30))
@example(name="0/\n")  # in a folder that is not there: the sentence stays one line
@example(name="")
@example(name="\0")
@example(name="/")
@example(name="x" * 5000)
@example(name="no/such/folder/piano.wav")
@example(name="\ud800.wav")
def test_any_output_name(name, tmp_path):
    """A WAV and nothing else, or nothing at all."""
    folder = tmp_path / "output"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    audio = Audio(torch.zeros(1, 1, 100), 16_000)
    try:
        path = audio.save(folder / (name.lstrip("/") + ".wav"))
    except Exception as error:
        assert_clear(error)
        assert [file for file in folder.rglob("*") if file.is_file()] == []
    else:
        assert [file for file in folder.rglob("*") if file.is_file()] == [path]


@thorough
@given(name=st.text(max_size=20), in_the_way=st.booleans())
@example(name="\0", in_the_way=False)
@example(name="x" * 5000, in_the_way=False)
def test_any_folder_to_save_to(model, tmp_path, name, in_the_way):
    """A whole model or nothing: no folder, no temporary file."""
    parent = tmp_path / "parent"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir()
    folder = parent / "models" / (name.replace("/", "") or "x")
    if in_the_way:
        (parent / "models").touch()
    try:
        model.save_pretrained(folder)
    except Exception as error:
        assert_clear(error)
        assert [file for file in parent.rglob("*") if file.is_file() and file.name != "models"] == []
    else:
        assert (folder / "model.safetensors").is_file()
        assert not [file for file in folder.parent.iterdir() if file.name.startswith(".") and file != folder]


@pytest.mark.parametrize("ratios", [[10**9] * 37, [2] * 1084, [10**9] * 100_000], ids=["huge", "many", "endless"])
def test_strides_that_overflow_are_refused(good_folder, ratios):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        config["audio_encoder"]["upsampling_ratios"] = ratios
        (folder / "config.json").write_text(json.dumps(config))

    assert from_changed(good_folder, change) is None


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.save_pretrained(None),
        lambda model: model.save_pretrained(b"folder"),
        lambda model: MusicGen.from_pretrained("facebook/musicgen-small", revision=3),
        lambda model: model.condition(torch.full((1, 3), 9_999), torch.ones(1, 3, dtype=torch.bool)),
        lambda model: list(continued(model, torch.zeros(1, 4, 2))),
        lambda model: list(continued(model, [1])),
        lambda model: Audio(torch.zeros(1, 1, 9), 16_000).plot(5),
        lambda model: Audio(torch.zeros(1, 1, 9), 16_000).plot("a"),
        lambda model: Audio(torch.zeros(1, 1, 9), 16_000, gain=1e308),
        lambda model: Audio(torch.zeros(1, 1, 9, device="meta"), 16_000),
        lambda model: Audio(torch.zeros(1, 1, 9).to_sparse(), 16_000),
        lambda model: model.generate("piano", 1.0, continue_from=(np.array(["a"]), 400)),
        lambda model: create_musicgen_model("tiny", device="hpu"),
        lambda model: Audio(torch.zeros(1, 1, 1), 200_001).save("no.ogg"),
        lambda model: Audio(torch.zeros(1, 256, 1), 8_000).save("no.ogg"),
    ],
)
def test_what_a_library_would_refuse_in_its_own_words(model, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError)) as raised:
        call(model)
    assert_clear(raised.value)
    assert os.listdir(tmp_path) == []


def continued(model: MusicGen, known):
    return iterate_codes(model.decoder, model.encode_text(["piano"]), 9, model.pattern, known=known)


def test_an_array_that_is_read_backwards_is_a_sound():
    backwards = np.linspace(-1, 1, 400, dtype=np.float64)[::-1]
    assert torch.equal(as_audio((backwards, 400)).waveform[0, 0], torch.from_numpy(backwards.copy()))


@pytest.mark.parametrize("override", [{"hidden_size": 2**40}, {"codebook_size": 2**40}, {"num_layers": 10**9}])
def test_a_model_beyond_the_memory_is_refused_before_it_is_made(override):
    with pytest.raises(MemoryError, match=r"needs [\d,]+ MB of memory"):
        create_musicgen_model("tiny", **override)
