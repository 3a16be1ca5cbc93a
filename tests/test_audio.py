"""Audio: what is saved can be read again, files appear whole or not at all, and the notebook's view is small."""

from __future__ import annotations

import base64
import math
import os
import re
import resource
import sys
from io import BytesIO

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen_edu.audio import Audio, load_audio


def make_audio(batch: int = 1, channels: int = 1, samples: int = 16_000, sample_rate: int = 16_000, **fields) -> Audio:
    """Two struck notes an octave apart, with a little noise."""
    time = torch.arange(samples) / sample_rate
    notes = sum(torch.sin(2 * math.pi * pitch * time) * torch.exp(-3 * (time % 0.5)) for pitch in (220, 440))
    waveform = 0.3 * notes + 0.01 * torch.randn(batch, channels, samples)
    return Audio(waveform, sample_rate, **fields)


def read_player(page: str) -> tuple[torch.Tensor, int]:
    data = base64.b64decode(re.search(r'src="data:audio/\w+;base64,([^"]+)"', page)[1])
    samples, sample_rate = soundfile.read(BytesIO(data), always_2d=True)
    return torch.from_numpy(samples.T).float(), sample_rate


@settings(max_examples=200, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 2),
    samples=st.integers(1, 500),
    sample_rate=st.sampled_from([8_000, 16_000, 32_000]),
    loudness=st.sampled_from([1e-4, 0.5, 3]),
)
def test_what_is_saved_is_read_again(tmp_path_factory, batch, channels, samples, sample_rate, loudness):
    audio = Audio(loudness * torch.randn(batch, channels, samples), sample_rate)
    paths = audio.save(tmp_path_factory.mktemp("audio") / "clip.wav")
    paths = [paths] if batch == 1 else paths
    names = [path.name for path in paths]
    assert names == (["clip.wav"] if batch == 1 else [f"clip-{item + 1}.wav" for item in range(batch)])
    assert sorted(os.listdir(paths[0].parent)) == names, "no temporary file may remain"
    for item, path in enumerate(paths):
        again = load_audio(path)
        assert again.sample_rate == sample_rate and again.duration == samples / sample_rate
        expected = audio.waveform[item : item + 1].clamp(-1, 1)
        torch.testing.assert_close(again.waveform, expected, atol=1.01 / 32768, rtol=0)


def test_samples_are_rounded_and_not_cut_off(tmp_path):
    audio = make_audio(samples=16_000)
    moved = load_audio(audio.save(tmp_path / "clip.wav")).waveform - audio.waveform.clamp(-1, 1)
    assert abs(moved.mean()) < 0.02 / 32768


def test_the_file_is_16_bit_wav(tmp_path):
    path = make_audio(samples=100).save(str(tmp_path / "clip.WAV"))
    assert soundfile.info(path).subtype == "PCM_16" and soundfile.info(path).format == "WAV"
    make_audio(samples=50).save(path)
    assert load_audio(path).waveform.shape == (1, 1, 50), "a second save replaces the first"


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    path = make_audio(samples=100).save(tmp_path / "clip.wav")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # the system refuses to write on, as a full disk
        with pytest.raises(OSError, match=r"^Cannot write .*clip.wav \(File too large\): choose a folder"):
            make_audio().save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == ["clip.wav"] and load_audio(path).waveform.shape[2] == 100


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    for path, error in {
        tmp_path / "missing" / "clip.wav": FileNotFoundError,
        tmp_path / "file" / "clip.wav": NotADirectoryError,
        tmp_path / "folder.wav": IsADirectoryError,
        tmp_path / f"{'long' * 100}.wav": OSError,
    }.items():
        with pytest.raises(error, match=r"^Cannot write .*\.wav \(.*\): choose a folder that exists and has room\.$"):
            make_audio().save(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"^Cannot write"):
        make_audio().save(tmp_path / "clip.wav")


@pytest.mark.parametrize("name", ["clip.mp3", "clip", ".wav"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="give a file name that ends in .wav, not "):
        make_audio().save(tmp_path / name)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no audio file .*missing.wav"):
        load_audio(tmp_path / "missing.wav")
    for name, content in {"text.wav": b"not a sound", "nothing.wav": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as audio"):
            load_audio(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read as audio"):
        load_audio(tmp_path)
    soundfile.write(tmp_path / "empty.wav", torch.zeros(0, 1).numpy(), 16_000)
    with pytest.raises(ValueError, match="empty.wav holds no samples"):
        load_audio(tmp_path / "empty.wav")


@pytest.mark.parametrize("bad", [torch.zeros(1, 1, 0), torch.tensor([[[0.0, math.nan]]]), torch.tensor([[[math.inf]]])])
def test_bad_waveforms_are_refused(bad):
    with pytest.raises(ValueError, match="must hold samples, all of them finite"):
        Audio(bad, 16_000)
    with pytest.raises(ValueError, match="sample_rate must be at least 1"):
        Audio(torch.zeros(1, 1, 1), 0)


@pytest.mark.parametrize("sample_rate", [16_000, 32_000])
def test_the_view_of_ten_seconds_is_small_and_plays(sample_rate):
    audio = make_audio(samples=10 * sample_rate, sample_rate=sample_rate, prompts=["peaceful piano melody"])
    page = audio._repr_html_()
    assert len(page) < 150_000
    assert '<audio controls aria-label="peaceful piano melody, 10.0 seconds" src="data:audio/mpeg;' in page
    assert '<img alt="Waveform and mel spectrogram of peaceful piano melody, 10.0 seconds: heard from 0.00 to' in page
    heard, heard_rate = read_player(page)
    assert heard_rate == sample_rate and abs(heard.shape[1] - 10 * sample_rate) < 0.1 * sample_rate
    assert heard.abs().max().item() == pytest.approx(audio.waveform.abs().max().item(), rel=0.2)


def test_the_picture_is_told_in_words_that_were_measured():
    time = torch.arange(16_000) / 16_000
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time) * ((time >= 0.25) & (time < 0.75))
    page = Audio(torch.stack([tone, 0 * tone])[:, None], 16_000)._repr_html_()
    assert "1.0 seconds: heard from 0.25 to 0.75 s, peak 0.50, mean level -12 dB, strongest near 440 Hz" in page
    assert "1.0 seconds: nothing can be heard" in page


@pytest.mark.filterwarnings("error")
def test_every_clip_has_a_player_and_a_picture_and_prompts_are_escaped():
    audio = make_audio(batch=2, channels=2, samples=4_000, prompts=['a "loud" <script> $\\frac$', "音楽 " * 1000])
    page = audio._repr_html_()
    assert page.count("<audio") == page.count("<img") == 2 and len(page) < 100_000
    assert "<script>" not in page and "a &quot;loud&quot; &lt;script&gt;" in page


@pytest.mark.parametrize("sample_rate", [8_000, 12_345, 48_000])
@pytest.mark.parametrize("samples", [1, 320, 3_000])
@pytest.mark.filterwarnings("error")
def test_any_rate_and_length_can_be_shown(sample_rate, samples):
    page = make_audio(samples=samples, sample_rate=sample_rate)._repr_html_()
    heard, heard_rate = read_player(page)
    assert heard_rate == sample_rate and heard.shape[1] >= samples


def test_the_picture_shows_the_waveform_above_the_spectrogram():
    figure = make_audio().plot()
    above, below, colours = figure.axes
    assert len(above.lines[0].get_xdata()) == 16_000
    assert (below.get_xlabel(), below.get_ylabel(), colours.get_ylabel()) == ("seconds", "Hz", "dB")
    picture = torch.from_numpy(below.images[0].get_array().data)
    middle = picture[:, picture.shape[1] // 4]
    brightest = int(middle.argmax())
    ticks = dict(zip((t.get_text() for t in below.get_yticklabels()), below.get_yticks(), strict=True))
    assert ticks["100"] < brightest < ticks["500"], "the notes are at 220 and 440 Hz"
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_line_of_text():
    assert repr(make_audio(samples=24_000)) == "Audio(1 × 1 channel × 1.50 s at 16000 Hz)"
