"""The command line, run for real on a small model with random weights."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import musicgen_edu
from musicgen_edu import MusicGen, cli
from musicgen_edu.audio import FORMATS
from musicgen_edu.cli import output
from musicgen_edu.reality.parity import create_reference

SAMPLE_RATE, FRAME_RATE = 400, 50  # of the model that conftest.py makes


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    """The folder of a model with text width 16 and model width 24."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def generate(checkpoint, tmp_path, monkeypatch):
    """`generate(prompt, *options)` runs the command in an empty folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main(["generate", "--model", str(checkpoint), "--duration", "2", *words])


@pytest.fixture
def generate_in_a_process(checkpoint, tmp_path):
    """`generate_in_a_process(prompt, *options, **settings)` starts the command as a program; it may write music.wav."""
    command = [sys.executable, "-m", "musicgen_edu", "generate", "--model", checkpoint, "--duration=2"]
    command += ["--output", tmp_path / "music.wav"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return lambda *words, **settings: subprocess.Popen([*command, *words], **pipes, **settings)


def test_generate_writes_a_wav_named_from_the_prompt(generate, capsys):
    assert generate("Happy piano, fast!") == 0
    samples, sample_rate = soundfile.read("happy-piano-fast.wav")
    assert (len(samples), sample_rate) == (2 * SAMPLE_RATE, SAMPLE_RATE)
    assert os.listdir() == ["happy-piano-fast.wav"]


def test_generate_shows_the_way_of_the_data(generate, tokenizer, capsys):
    assert generate("happy piano") == 0
    out, err = capsys.readouterr()
    stages = {line.split()[0]: re.findall(r"\[[\d, ]+\]", line) for line in out.splitlines()}
    tokens = len(tokenizer.encode("happy piano"))
    assert list(stages) == ["text", "ids", "T5", "projection", "codes", "waveform", "level", "file", "time"]
    assert stages["ids"] == [f"[1, {tokens}]"]
    assert stages["T5"] == [f"[1, {tokens}, 16]"]
    assert stages["projection"] == [f"[1, {tokens}, 24]"]
    assert stages["codes"] == [f"[1, 4, {2 * FRAME_RATE}]"]
    assert stages["waveform"] == [f"[1, 1, {2 * SAMPLE_RATE}]"]
    assert "4 codebooks × 100 frames, 50 a second" in out
    assert "2.00 s at 0.4 kHz" in out
    assert " ".join(map(str, tokenizer.encode("happy piano"))) in out
    assert err == ""


def test_without_a_projection_its_line_is_missing(model_config, tokenizer, tmp_path, monkeypatch, capsys):
    config = replace(model_config, decoder=replace(model_config.decoder, hidden_size=16))
    MusicGen(config, tokenizer).save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", "piano", "--duration", "1", "--model", "model"]) == 0
    assert "projection" not in capsys.readouterr().out


def test_the_same_seed_is_the_same_file_and_another_seed_another(generate):
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert generate("sad flute", "--seed", seed, "--output", f"{name}.wav") == 0
    a, b, c = (Path(f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


def test_options_reach_the_model(generate, checkpoint):
    options = "--temperature 0.7 --top-k 5 --top-p 0.9 --guidance 2.0 --seed 3".split()
    assert generate("sad flute", *options, "--output", "options.wav") == 0
    settings = dict(temperature=0.7, top_k=5, top_p=0.9, guidance_scale=2.0, seed=3)
    MusicGen.from_pretrained(checkpoint).generate("sad flute", duration=2.0, **settings).save("wanted.wav", level=-16)
    assert Path("options.wav").read_bytes() == Path("wanted.wav").read_bytes()


def test_a_name_that_is_taken_is_not_overwritten(generate):
    for seed in "123":
        assert generate("sad flute", "--seed", seed) == 0
    assert sorted(os.listdir()) == ["sad-flute-2.wav", "sad-flute-3.wav", "sad-flute.wav"]
    assert len({Path(name).read_bytes() for name in os.listdir()}) == 3


def test_the_music_is_written_at_a_listening_level_and_the_gain_is_said(generate, capsys):
    assert generate("sad flute") == 0
    said = re.search(r"^level +played (\d+) dB (louder|softer) than made \(--true-level", capsys.readouterr().out, re.M)
    assert generate("sad flute", "--true-level", "--output", "true.wav") == 0
    assert re.search(r"^level +played as loud as made$", capsys.readouterr().out, re.M)
    played, true = musicgen_edu.load_audio("sad-flute.wav"), musicgen_edu.load_audio("true.wav")
    gain = 20 * math.log10(played.waveform.std() / true.waveform.std())
    assert abs(gain - int(said[1]) * (1 if said[2] == "louder" else -1)) < 0.6
    assert abs(gain - true.listening_gain()) < 0.1


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".MP3"])
def test_other_formats_are_written_by_suffix(generate, suffix):
    assert generate("sad flute", "--output", f"music{suffix}") == 0
    assert soundfile.info(f"music{suffix}").format == suffix[1:].upper()


def test_the_formats_of_the_help_are_those_that_audio_writes():
    assert set(output.SUFFIXES) == set(FORMATS)


def test_two_commands_at_once_write_two_files(checkpoint, tmp_path):
    command = [sys.executable, "-m", "musicgen_edu", "generate", "--model", checkpoint, "--duration=2", "piano"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(2)]
    named = {re.search(r"^file +(.*)$", process.communicate(timeout=600)[0], re.M)[1] for process in both}
    assert named == {"piano.wav", "piano-2.wav"} == set(os.listdir(tmp_path))
    assert all(soundfile.info(tmp_path / name).frames == 2 * SAMPLE_RATE for name in named)


def test_a_reader_that_leaves_stops_the_printing_and_not_the_music(generate_in_a_process, tmp_path):
    """As in `musicgen-edu generate … | head -1`."""
    process = generate_in_a_process("piano")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=600) == 0
    assert soundfile.info(tmp_path / "music.wav").frames == 2 * SAMPLE_RATE


@pytest.mark.skipif(os.name == "nt", reason="its shells close no streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", ">/dev/full"])
def test_streams_that_are_closed_from_the_start(checkpoint, tmp_path, closed):
    command = f'exec "$0" -m musicgen_edu generate "happy zither" --duration 1 --model "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, checkpoint], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert soundfile.info(tmp_path / "happy-zither.wav").frames == SAMPLE_RATE


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_what_is_asked_to_end_leaves_no_file(checkpoint, tmp_path):
    """As by `kill` and `timeout`: the name that was taken is given back."""
    command = [sys.executable, "-m", "musicgen_edu", "generate", "piano", "--duration=60", "--model", checkpoint]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not process.stdout.readline().startswith("projection"):
        assert process.poll() is None
    assert os.listdir(tmp_path) == ["piano.wav"]
    process.terminate()
    assert process.communicate(timeout=600)[1] == "" and process.returncode == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == []


def test_a_warning_that_was_made_an_error_is_one_sentence(generate, capsys, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate("happy zither") == 2
    err = capsys.readouterr().err
    assert err.startswith('musicgen-edu: The model does not know "zither"') and err.count("\n") == 1
    assert os.listdir() == []


def test_a_model_without_a_name_is_not_the_one_shipped(generate, capsys):
    """As of `--model "$MODEL"`, where nobody has set it."""
    assert generate("piano", "--model", "") == 2
    assert "There is no" in capsys.readouterr().err and os.listdir() == []


PROGRAMS = {
    "": "musicgen_edu",
    "verify": "musicgen_edu",
    "generate": "musicgen_edu",
    "a training by itself": "musicgen_edu.training.recipe",
    "a class": "musicgen_edu.classroom.class_test",
}


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_outlives_its_reader(name, unbuffered, monkeypatch):
    """Also where the pipe breaks only at the end, when what was kept in a buffer is written."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)  # some machines set it, and it hides what waits in a buffer
    words = [name] * (name in ("verify", "generate")) + ["--help"]
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", PROGRAMS[name], *words]
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert process.communicate(timeout=600)[1] == b"" and process.returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    ],
    ids=["Python", "CPU", "GPU"],
)
def test_out_of_memory_is_one_sentence(generate, monkeypatch, capsys, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(MusicGen, "generate", fail)
    assert generate("piano") == 2
    assert capsys.readouterr().err == "musicgen-edu: there is not enough memory for this; ask for a shorter duration\n"
    assert os.listdir() == []


def test_other_runtime_errors_are_not_hidden(generate, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(MusicGen, "generate", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        generate("piano")
    assert os.listdir() == []


def test_evaluate_refuses_before_it_makes_a_folder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("fluidsynth")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "--prompts", "3"]) == 2
    assert "at least 16 prompts" in capsys.readouterr().err
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "codes-250-000.safetensors").write_bytes(b"damaged")
    assert cli.main(["evaluate", "--training-codes", "codes"]) == 2
    assert "is damaged, or holds no codes" in capsys.readouterr().err
    assert os.listdir() == ["codes"]


def test_unknown_words_are_named_in_one_line(generate, capsys):
    assert generate("happy zither") == 0
    err = capsys.readouterr().err
    assert err.startswith("musicgen-edu: ") and "zither" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [""],
        ["   "],
        ["piano", "--duration", "0"],
        ["piano", "--duration", "-3"],
        ["piano", "--duration", "nan"],
        ["piano", "--duration", "inf"],
        ["piano", "--duration", "1e9"],
        ["piano", "--duration", "long"],
        ["piano", "--temperature", "-1"],
        ["piano", "--temperature", "nan"],
        ["piano", "--top-k", "-1"],
        ["piano", "--top-k", "33"],
        ["piano", "--top-k", "1.5"],
        ["piano", "--top-p", "0"],
        ["piano", "--top-p", "1.1"],
        ["piano", "--guidance", "-2"],
        ["piano", "--seed", "-1"],
        ["piano", "--seed", str(2**70)],
        ["piano", "--seed", "x"],
        ["piano", "--output", "music.aac"],
        ["piano", "--output", "missing/music.wav"],
        ["piano", "--output", "music.wav/music.wav"],
        ["piano", "--model", "missing"],
        ["piano", "--model", "."],
        ["piano", "--model", "some/thing"],
        ["piano", "--louder"],
        ["piano", "melody"],
        [],
        ["piano", "--unconditional"],
        ["piano", "--samples", "0"],
        ["piano", "--samples", "-2"],
        ["piano", "--samples", "101"],
        ["piano", "--samples", "some"],
        ["piano", "--window", "0"],
        ["piano", "--stride", "0"],
        ["piano", "--stride", "nan"],
        ["piano", "--window", "2", "--stride", "2"],
        ["piano", "--stride", "99"],
        ["piano", "--duration", "601"],
        ["piano", "--continue", "missing.wav"],
        ["piano", "--continue", "."],
        ["piano", "--continue", os.devnull],
        ["piano", "--melody", "missing.wav"],
        ["piano", "--continue"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_sentence_and_exit_code_2(generate, words, capsys, unchecked_annotations):
    try:
        code = generate(*words)
    except SystemExit as stopped:  # how argparse ends
        code = stopped.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("musicgen-edu: ") and err.count("\n") == 1 and len(err) > 30
    assert os.listdir() == []


SOUNDS = {  # what is wrong with each, and the samples
    "is silent": [0.0] * 800,
    "no finite numbers": [0.5, math.nan],
    "holds no samples": [],
    "less than one frame of 20 ms": [0.5] * 7,
    "counts among the duration": [0.5, -0.5] * 400,
}


@pytest.mark.parametrize("wrong", SOUNDS)
def test_sounds_that_cannot_be_continued(generate, wrong, capsys):
    soundfile.write("start.wav", np.array(SOUNDS[wrong], dtype=np.float32), SAMPLE_RATE, subtype="FLOAT")
    assert generate("piano", "--continue", "start.wav") == 2
    err = capsys.readouterr().err
    assert err.startswith("musicgen-edu: ") and wrong in err and err.count("\n") == 1
    assert os.listdir() == ["start.wav"]


def test_text_is_no_sound(generate, capsys):
    Path("start.wav").write_text("la la la")
    assert generate("piano", "--continue", "start.wav") == 2
    assert "start.wav cannot be read as audio; give a WAV" in capsys.readouterr().err


def test_a_model_that_listens_to_no_melody(generate, capsys):
    soundfile.write("tune.wav", np.full(800, 0.5), SAMPLE_RATE)
    assert generate("piano", "--melody", "tune.wav") == 2
    assert capsys.readouterr().err == (
        'musicgen-edu: This model listens to no melody: take one of the "melody" models.\n'
    )


def test_a_sound_goes_on(generate, checkpoint, capsys):
    """Stereo and of another rate, into a mono model."""
    start = 0.5 * torch.randn(1, 2, 1000)
    musicgen_edu.Audio(start, 1000).save("start.wav")
    assert generate("piano", "--continue", "start.wav", "--output", "on.wav", "--true-level", "--seed", "3") == 0
    assert "start       [1, 1, 400]     start.wav, 50 frames of it\n" in capsys.readouterr().out
    audio = MusicGen.from_pretrained(checkpoint).generate("piano", 2, continue_from="start.wav", seed=3)
    audio.save("wanted.wav")
    assert Path("on.wav").read_bytes() == Path("wanted.wav").read_bytes()


def test_without_a_prompt(generate, capsys):
    assert generate("--unconditional") == 0
    out = capsys.readouterr().out
    assert out.startswith("text        none\ncodes ") and "T5" not in out
    assert os.listdir() == ["music.wav"]


def test_samples_get_a_file_each(generate, capsys):
    assert generate("sad flute", "--samples", "3", "--true-level") == 0
    names = ["sad-flute.wav", "sad-flute-2.wav", "sad-flute-3.wav"]
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("file")] == names
    assert generate("sad flute", "--samples", "2", "--true-level", "--output", "flute.wav") == 0
    assert sorted(os.listdir()) == sorted([*names, "flute-1.wav", "flute-2.wav"])
    for sample, name in enumerate(names):
        assert generate("sad flute", "--seed", str(sample), "--true-level", "--output", "one.wav") == 0
        one, many = musicgen_edu.load_audio("one.wav"), musicgen_edu.load_audio(name)
        torch.testing.assert_close(one.waveform, many.waveform, atol=1e-3, rtol=0)


def test_long_music_is_written_in_windows(generate, checkpoint):
    assert generate("sad flute", "--duration", "4", "--window", "1", "--stride", "0.5", "--true-level") == 0
    MusicGen.from_pretrained(checkpoint).generate("sad flute", 4, window=1, stride=0.5).save("wanted.wav")
    assert Path("sad-flute.wav").read_bytes() == Path("wanted.wav").read_bytes()


def test_a_melody_is_followed(tokenizer, tmp_path, monkeypatch, capsys):
    create_reference({"melody": True}, tokenizer.vocab_size).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    musicgen_edu.Audio(torch.sin(torch.arange(32_000) * 0.9)[None, None], 1600).save("tune.wav")
    command = ["generate", "piano", "--model", "model", "--duration", "0.5", "--melody", "tune.wav"]
    assert cli.main([*command, "--true-level"]) == 0
    assert "melody      [1, 7, 12]" in capsys.readouterr().out
    MusicGen.from_pretrained("model").generate("piano", 0.5, melody="tune.wav").save("wanted.wav")
    assert Path("piano.wav").read_bytes() == Path("wanted.wav").read_bytes()


def test_an_existing_folder_is_no_output(generate, capsys):
    os.mkdir("music.wav")
    assert generate("piano", "--output", "music.wav") == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(generate, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert generate("piano") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk(generate_in_a_process, tmp_path):
    """A limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    process = generate_in_a_process("piano", preexec_fn=limit)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert err.startswith("musicgen-edu: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_interrupting_ends_with_130_and_leaves_no_file(generate_in_a_process, tmp_path):
    # Whoever runs the tests in the background may ignore interrupts, and processes inherit that.
    listens = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    process = generate_in_a_process("piano", "--duration=60", **listens)
    while not process.stdout.readline().startswith("projection"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert err.startswith("musicgen-edu: stopped") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_the_prompts_letters(generate_in_a_process, tmp_path):
    process = generate_in_a_process("пианино 🎹", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert '"??????? ?"' in out
    assert [path.name for path in tmp_path.iterdir()] == ["music.wav"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("peaceful piano melody", "peaceful-piano-melody"),
        ("  Café: a/b\\c?* ", "cafe-a-b-c"),
        ("../../etc/passwd", "etc-passwd"),
        ("ピアノ", "music"),
        ("", "music"),
        ("nul", "music-nul"),
        ("COM1", "music-com1"),
        ("x" * 500, "x" * 60),
        ("a" * 59 + " bc", "a" * 59),
    ],
)
def test_slug(prompt, name):
    assert output.slug(prompt) == name


def test_version_and_help(capsys):
    for option, expected in (("--version", musicgen_edu.__version__), ("--help", "generate")):
        with pytest.raises(SystemExit) as stopped:
            cli.main([option])
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    code = "import sys, musicgen_edu.cli\ntry: musicgen_edu.cli.main(['generate', '--help'])\n"
    code += "except SystemExit: print({'transformers', 'encodec', 'matplotlib', 'soundfile'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", cli.DELEGATED)
def test_commands_of_other_modules_have_their_own_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: musicgen-edu {command}" in capsys.readouterr().out


def test_a_missing_extra_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "jupyterlab", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "jupyterlab.labapp", raising=False)
    assert cli.main(["lab", str(tmp_path)]) == 2
    assert '".[notebooks]"' in capsys.readouterr().err


def read_page(address: str, tries: int = 120) -> str:
    """What a server has to show, as soon as it listens."""
    for _ in range(tries):
        with suppress(urllib.error.URLError), urllib.request.urlopen(address, timeout=60) as answer:
            return answer.read().decode()
        time.sleep(0.5)
    raise TimeoutError(f"{address} does not answer.")


def test_lab_serves_the_folder(tmp_path):
    """JupyterLab really starts; it says where, and stops when told to."""
    pytest.importorskip("jupyterlab")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "jupyter_server_config.json").write_text('{"ServerApp": {"allow_root": true}}')
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    command = [sys.executable, "-m", "musicgen_edu", "lab", str(tmp_path), "--no-browser"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            addresses = (re.search(r"http://localhost\S+", line) for line in iter(process.stderr.readline, ""))
            address = next(found[0] for found in addresses if found)
            assert "JupyterLab" in read_page(address)  # until it answers, it may not hear that it is to stop
            process.terminate()
            process.communicate(timeout=60)
        finally:
            process.kill()  # where it did not stop by itself; else nothing is left to be killed
