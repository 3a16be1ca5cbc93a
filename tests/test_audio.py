"""Audio: what is saved can be read again, files appear whole or not at all, and the notebook's view is small."""

from __future__ import annotations

import base64
import math
import os
import re
import sys
from io import BytesIO

import numpy as np
import pyloudnorm
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen_edu.audio import FORMATS, MAX_SAMPLE_RATE, Audio, load_audio
from musicgen_edu.player import LISTENING_LUFS, MP3_SAMPLE_RATES, integrated_loudness


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
    resource = pytest.importorskip("resource")  # Windows has none
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


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"^Cannot write"):
        make_audio().save(tmp_path / "clip.wav")


@pytest.mark.parametrize("name", ["clip.aac", "clip", ".wav", "clip.wav.txt"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="Give a file name that ends in .wav, .flac, .ogg or .mp3, not "):
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


@pytest.mark.parametrize(
    ("waveform", "error", "words"),
    [
        (torch.zeros(1, 1, 9, dtype=torch.int16), TypeError, "not of int16: .* 16-bit samples are divided by 32,768"),
        (torch.zeros(1, 1, 9, dtype=torch.complex64), TypeError, "not of complex64"),
        (torch.zeros(1, 1, 9, dtype=torch.bool), TypeError, "not of bool"),
        (np.zeros((1, 1, 9)), TypeError, "not a ndarray"),
        ([[[0.0, 0.5]]], TypeError, "not a list"),
        (None, TypeError, "not a NoneType"),
        (torch.zeros(9), ValueError, r"not 1 of them: for one clip of one channel write `samples\[None, None\]`"),
        (torch.zeros(2, 9), ValueError, "not 2 of them"),
        (torch.zeros(1, 1, 1, 9), ValueError, "not 4 of them"),
    ],
)
def test_waveforms_of_another_kind_are_refused_at_once(waveform, error, words, unchecked_annotations):
    with pytest.raises(error, match=words):
        Audio(waveform, 16_000)


@pytest.mark.parametrize("rate", [16_000.0, 16_000j, "16000", True, None, math.nan])
def test_rates_that_are_no_whole_number_are_refused(rate, unchecked_annotations):
    with pytest.raises(
        TypeError, match="sample_rate must be a whole number of samples a second from 1 to 1,000,000, not"
    ):
        Audio(torch.zeros(1, 1, 1), rate)


@pytest.mark.parametrize("rate", [0, -16_000, MAX_SAMPLE_RATE + 1])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(
        ValueError, match="sample_rate must be a whole number of samples a second from 1 to 1,000,000, not"
    ):
        Audio(torch.zeros(1, 1, 1), rate)


def test_rates_of_numpy_and_samples_of_half_precision_are_welcome(tmp_path, unchecked_annotations):
    audio = Audio(torch.full((1, 1, 50), 0.5, dtype=torch.bfloat16), np.int64(8_000))
    assert type(audio.sample_rate) is int and "audio" in audio._repr_html_()
    assert load_audio(audio.save(tmp_path / "clip.wav")).waveform.unique().tolist() == [0.5]


def test_there_is_a_prompt_and_a_row_of_codes_for_each_clip(unchecked_annotations):
    with pytest.raises(ValueError, match="There must be prompts for each clip: 1 for a batch of 2"):
        Audio(torch.zeros(2, 1, 9), 16_000, prompts=["piano"])
    with pytest.raises(ValueError, match="There must be codes for each clip: 3 for a batch of 2"):
        Audio(torch.zeros(2, 1, 9), 16_000, codes=torch.zeros(3, 4, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="gain must be None or a number of decibels"):
        Audio(torch.zeros(1, 1, 9), 16_000, gain=math.inf)


@pytest.mark.parametrize("gain", ["loud", True, [3], torch.tensor(3.0), 10**400, -math.inf, np.float32("nan")])
def test_gains_that_are_none_are_refused(gain, unchecked_annotations):
    with pytest.raises((TypeError, ValueError), match="gain must be None or a number of decibels from"):
        Audio(torch.zeros(1, 1, 9), 16_000, gain=gain)


@pytest.mark.parametrize("prompts", ["p", [1], [None], [b"piano"], torch.zeros(1), 5])
def test_prompts_that_are_no_list_of_strings_are_refused(prompts, unchecked_annotations):
    with pytest.raises(TypeError, match="prompts must be a list of strings, not"):
        Audio(torch.zeros(1, 1, 9), 16_000, prompts=prompts)


@pytest.mark.parametrize(
    "codes", ["c", [1], torch.tensor(3), torch.zeros(1, 4, 2), torch.zeros(1, 4).long(), np.ones(1)]
)
def test_codes_that_are_no_whole_numbers_are_refused(codes, unchecked_annotations):
    with pytest.raises(TypeError, match="Codes are a tensor of whole numbers"):
        Audio(torch.zeros(1, 1, 9), 16_000, codes=codes)


@pytest.mark.parametrize("channels", [0, -1, 1.5, True, "2", None, torch.tensor(2), math.nan, 10**400])
def test_numbers_of_channels_that_are_none_are_refused(channels, tmp_path, unchecked_annotations):
    with pytest.raises((TypeError, ValueError), match="channels must be a whole number from 1 to 1,024, not"):
        make_audio().convert(16_000, channels)
    if channels is not None:
        with pytest.raises((TypeError, ValueError), match="channels must be a whole number from 1 to 1,024, not"):
            load_audio(make_audio().save(tmp_path / "clip.wav"), channels=channels)


@pytest.mark.parametrize("path", [None, 3, b"clip.wav", ["clip.wav"]])
def test_what_is_no_path_is_refused(path, unchecked_annotations):
    for use in (load_audio, make_audio().save):
        with pytest.raises(TypeError, match="A path is a string or a pathlib.Path, not"):
            use(path)


def test_a_rate_of_zero_is_not_the_files_own(tmp_path):
    with pytest.raises(ValueError, match="sample_rate must be a whole number"):
        load_audio(make_audio().save(tmp_path / "clip.wav"), sample_rate=0)


def test_numbers_too_large_for_single_precision_are_no_sound():
    with pytest.raises(ValueError, match="all of them finite"):
        Audio(torch.full((1, 1, 9), 1e300, dtype=torch.float64), 16_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_no_sound_file_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ValueError, match="pipe.wav cannot be read as audio"):
        load_audio(tmp_path / "pipe.wav")


def test_a_file_that_says_it_is_endless_is_refused(tmp_path):
    soundfile.write(tmp_path / "endless.flac", np.zeros(100), 16_000)
    content = bytearray((tmp_path / "endless.flac").read_bytes())
    content[21:26] = bytes([content[21] | 0x0F]) + b"\xff" * 4  # the count of samples, 36 bits of FLAC's STREAMINFO
    (tmp_path / "endless.flac").write_bytes(content)
    with pytest.raises(ValueError, match="endless.flac holds more samples than the memory"):
        load_audio(tmp_path / "endless.flac")


def loudness(audio: Audio) -> list[float]:
    """Each clip's integrated loudness, by the library itself."""
    meter = pyloudnorm.Meter(audio.sample_rate)
    return [meter.integrated_loudness(clip.T.double().numpy()) for clip in audio.waveform]


@pytest.mark.parametrize("factor", [0.01, 0.2, 3.0])
@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100])
def test_a_level_is_reached_by_one_linear_gain(tmp_path, factor, sample_rate):
    audio = make_audio(samples=2 * sample_rate, sample_rate=sample_rate)
    audio.waveform *= factor / audio.waveform.abs().max()
    played = load_audio(audio.save(tmp_path / "clip.wav", level=-25))
    assert loudness(played)[0] == pytest.approx(-25, abs=0.1)
    gain = 10 ** (audio.listening_gain(-25) / 20)
    torch.testing.assert_close(played.waveform, audio.waveform * gain, atol=1.01 / 32768, rtol=0)


def test_a_sharp_sound_stays_below_the_level_and_is_not_squeezed(tmp_path):
    waveform = 0.01 * torch.randn(1, 1, 32_000)
    waveform[0, 0, 16_000] = 0.5
    played = load_audio(Audio(waveform, 16_000).save(tmp_path / "clip.wav", level=LISTENING_LUFS))
    assert 20 * math.log10(played.waveform.abs().max()) == pytest.approx(-1, abs=0.01)
    assert loudness(played)[0] < LISTENING_LUFS - 3
    torch.testing.assert_close(played.waveform / played.waveform.max(), waveform / 0.5, atol=1e-4, rtol=0)


def test_clips_of_a_batch_share_the_gain_of_the_loudest(tmp_path):
    soft, loud = 0.02 * torch.randn(1, 1, 32_000), 0.05 * torch.randn(1, 1, 32_000)
    both = Audio(torch.cat([soft, loud]), 16_000)
    assert both.listening_gain() == Audio(loud, 16_000).listening_gain() < Audio(soft, 16_000).listening_gain()
    first, second = map(load_audio, both.save(tmp_path / "clip.wav", level=LISTENING_LUFS))
    assert loudness(second)[0] == pytest.approx(LISTENING_LUFS, abs=0.1)
    assert loudness(second)[0] - loudness(first)[0] == pytest.approx(8, abs=0.2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("samples", [1, 300, 6_399, 6_400, 6_401])
def test_clips_shorter_than_the_meters_block_have_a_level(samples):
    time = torch.arange(samples, dtype=torch.float32) / 16_000
    tone = 0.01 * torch.sin(2 * math.pi * 1_000 * time + 1)
    assert math.isfinite(Audio(tone[None, None], 16_000).listening_gain())
    if samples >= 300:
        assert integrated_loudness(tone[None], 16_000) == pytest.approx(-43, abs=0.8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("silence", [torch.zeros(1, 1, 32_000), torch.zeros(1, 1, 10), 1e-9 * torch.ones(1, 2, 32_000)])
def test_silence_is_left_alone(silence, tmp_path):
    audio = Audio(silence, 16_000)
    assert audio.listening_gain() == 0.0
    assert "nothing can be heard" in audio._repr_html_()
    assert load_audio(audio.save(tmp_path / "clip.wav", level=LISTENING_LUFS)).waveform.abs().max() == 0


@pytest.mark.filterwarnings("error")
def test_slow_rates_and_many_channels_have_a_level():
    time = torch.arange(4_000) / 2_000
    tone = 0.1 * torch.sin(2 * math.pi * 300 * time)
    slow = Audio(tone[None, None], 2_000).listening_gain()
    fast = Audio(tone[None, None], 2_000).convert(16_000, 1).listening_gain()
    assert slow == pytest.approx(fast, abs=0.7)
    six = Audio(0.1 * torch.randn(1, 1, 32_000).expand(-1, 6, -1), 16_000)
    assert six.listening_gain() == pytest.approx(Audio(six.waveform[:, :1], 16_000).listening_gain())


@pytest.mark.parametrize("level", [math.nan, math.inf, np.float32("nan"), 10**400, "loud", True])
def test_levels_that_are_none_are_refused(tmp_path, level, unchecked_annotations):
    with pytest.raises((ValueError, TypeError), match="level must be a .*loudness in LUFS, such as -16, not"):
        make_audio().save(tmp_path / "clip.wav", level=level)
    with pytest.raises((ValueError, TypeError), match="level must be a finite loudness in LUFS, such as -16, not"):
        make_audio().listening_gain(level)
    assert not os.listdir(tmp_path)


def test_waveform_and_file_keep_the_true_level_and_the_player_does_not():
    audio = Audio(0.02 * torch.sin(torch.arange(32_000) / 7)[None, None], 16_000)
    before = audio.waveform.clone()
    heard, _ = read_player(audio._repr_html_())
    assert torch.equal(audio.waveform, before)
    assert heard.abs().max() > 5 * before.abs().max()
    assert f"played {audio.listening_gain():.0f} dB louder than made" in audio._repr_html_()
    true = Audio(before, 16_000, gain=0.0)
    heard, _ = read_player(true._repr_html_())
    assert heard.abs().max() == pytest.approx(0.02, rel=0.2) and "played as loud as made" in true._repr_html_()
    assert "played 6 dB softer than made" in Audio(before, 16_000, gain=-6)._repr_html_()
    line = audio.plot().axes[0].lines[0].get_ydata()
    assert np.abs(line).max() == pytest.approx(0.02 * 10 ** (audio.listening_gain() / 20), rel=0.01)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_written_and_read_again(tmp_path, suffix, channels):
    audio = make_audio(channels=channels, samples=40_000)
    path = audio.save(tmp_path / f"clip{suffix.upper()}")
    assert soundfile.info(path).format == {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}[suffix]
    again = load_audio(path)
    assert (again.sample_rate, again.waveform.shape[1]) == (16_000, channels)
    assert again.duration == pytest.approx(2.5, abs=0.1)
    strength = again.waveform.square().mean().sqrt() / audio.waveform.square().mean().sqrt()
    assert strength == pytest.approx(1, abs=0.05)


def test_a_minute_of_ogg_is_written(tmp_path):
    minute = Audio(0.1 * torch.randn(1, 2, 60 * 44_100), 44_100)
    assert soundfile.info(minute.save(tmp_path / "clip.ogg")).frames == 60 * 44_100


def test_what_mp3_cannot_hold_is_converted_and_what_flac_cannot_is_refused(tmp_path):
    path = make_audio(channels=6, samples=96_000, sample_rate=96_000).save(tmp_path / "clip.mp3")
    assert (soundfile.info(path).samplerate, soundfile.info(path).channels) == (48_000, 1)
    with pytest.raises(ValueError, match="A FLAC file cannot hold 9 channels at 16000 samples a second"):
        make_audio(channels=9, samples=100).save(tmp_path / "clip.flac")
    assert os.listdir(tmp_path) == ["clip.mp3"]


@pytest.mark.parametrize("own_rate", [8_000, 22_050, 44_100, 48_000, 44_101])
@pytest.mark.parametrize("own_channels", [1, 2, 6])
def test_a_file_of_any_rate_and_channels_is_converted(tmp_path, own_rate, own_channels):
    time = torch.arange(own_rate) / own_rate
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time).expand(1, own_channels, -1)
    audio = load_audio(Audio(tone, own_rate).save(tmp_path / "tone.wav"), sample_rate=16_000, channels=1)
    assert audio.sample_rate == 16_000 and audio.waveform.shape[:2] == (1, 1)
    assert audio.duration == pytest.approx(1, abs=0.001)
    samples = audio.waveform[0, 0, :16_000]
    strongest = torch.fft.rfft(samples).abs().argmax().item()
    assert strongest == 440 and samples.square().mean().sqrt() == pytest.approx(0.5 / math.sqrt(2), rel=0.02)


def test_a_converted_batch_keeps_its_prompts_and_loses_its_codes():
    codes = torch.zeros(2, 4, 5, dtype=torch.long)
    audio = make_audio(batch=2, prompts=["a", "b"], codes=codes).convert(8_000, 2)
    assert (audio.prompts, audio.codes, audio.waveform.shape) == (["a", "b"], None, (2, 2, 8_000))
    with pytest.raises(ValueError, match="channels must be a whole number from 1 to 1,024, not 0"):
        audio.convert(8_000, 0)


@pytest.mark.parametrize("sample_rate", [16_000, 32_000])
def test_the_view_of_ten_seconds_is_small_and_plays(sample_rate):
    audio = make_audio(samples=10 * sample_rate, sample_rate=sample_rate, prompts=["peaceful piano melody"])
    page = audio._repr_html_()
    assert len(page) < 150_000
    assert '<audio controls aria-label="peaceful piano melody, 10.0 seconds, played ' in page
    assert '<img alt="Waveform and mel spectrogram of peaceful piano melody, 10.0 seconds: heard from 0.00 to' in page
    heard, heard_rate = read_player(page)
    assert heard_rate == sample_rate and abs(heard.shape[1] - 10 * sample_rate) < 0.1 * sample_rate
    gain = 10 ** (audio.listening_gain() / 20)
    assert heard.abs().max().item() == pytest.approx(gain * audio.waveform.abs().max().item(), rel=0.2)


def test_the_picture_is_told_in_words_that_were_measured():
    time = torch.arange(16_000) / 16_000
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time) * ((time >= 0.25) & (time < 0.75))
    page = Audio(torch.stack([tone, 0 * tone])[:, None], 16_000, gain=0.0)._repr_html_()
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
    assert heard_rate in MP3_SAMPLE_RATES and heard_rate >= sample_rate and heard.shape[1] >= samples


@pytest.mark.parametrize(("sample_rate", "channels"), [(88_200, 2), (96_000, 1), (16_000, 6)])
def test_the_player_of_a_minute_is_small_whatever_its_rate_and_channels(sample_rate, channels):
    time = torch.arange(60 * sample_rate) / sample_rate
    minute = Audio(0.3 * torch.sin(2 * math.pi * 440 * time).expand(1, channels, -1), sample_rate)
    page = minute._repr_html_()
    heard, heard_rate = read_player(page)
    assert len(page) < 2_000_000 and heard_rate <= 48_000 and len(heard) <= 2
    assert heard.shape[1] / heard_rate == pytest.approx(60, abs=0.1)


def test_views_do_not_follow_another_default_dtype_or_device():
    audio = make_audio(batch=2, prompts=["a", "b"])
    page = audio._repr_html_()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        assert audio._repr_html_() == page
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")


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
