"""What a model may be asked for besides a text: a beginning, a melody, nothing, several samples, more than a window."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from reference import write_reference
from transformers import (
    AutoTokenizer,
    MusicgenForConditionalGeneration,
    MusicgenMelodyFeatureExtractor,
    MusicgenMelodyForConditionalGeneration,
)

from musicgen_edu import Audio, CheckpointError, MusicGen, create_musicgen_model
from musicgen_edu.codec import join_channels
from musicgen_edu.conditioning import chroma, hear_melody, loudest_tone
from musicgen_edu.config import MelodyConfig
from musicgen_edu.generation import generate_codes
from musicgen_edu.reality.parity import create_reference
from musicgen_edu.request import MAX_SAMPLES

PROMPTS = ["peaceful piano melody", "a happy flute arpeggio, fast, with drums"]
RATE, FRAME_RATE, HOP = 400, 50, 8  # of the model that conftest.py makes
STEREO = {"decoder": {"audio_channels": 2, "num_codebooks": 8}}


def noise(batch: int, channels: int, samples: int, rate: int = RATE) -> Audio:
    return Audio(0.3 * torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(5)), rate)


@pytest.fixture(scope="module")
def stereo_folder(tokenizer, tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("stereo")
    write_reference(create_reference(STEREO, tokenizer.vocab_size), tokenizer, folder, "1GB")
    return folder


@pytest.fixture(scope="module")
def mono_folder(tokenizer, tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("mono")
    write_reference(create_reference({}, tokenizer.vocab_size), tokenizer, folder, "1GB")
    return folder


@pytest.fixture(scope="module")
def melody_folder(tokenizer, tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("melody")
    create_reference({"melody": True}, tokenizer.vocab_size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2])
def test_a_continuation_is_transformers_own(channels, mono_folder, stereo_folder, monkeypatch):
    """Its whole `generate` with an audio prompt: the codes that reach the codec, and the order of the channels."""
    folder = stereo_folder if channels == 2 else mono_folder
    ours, reference = MusicGen.from_pretrained(folder), MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    codebooks, known, new = 4 * channels, 7, 12
    start = noise(2, channels, known * 32, 1600)
    text = AutoTokenizer.from_pretrained(folder)(PROMPTS, padding=True, return_tensors="pt")
    caught, decode = [], reference.audio_encoder.decode
    monkeypatch.setattr(
        reference.audio_encoder, "decode", lambda codes, **others: caught.append(codes) or decode(codes, **others)
    )
    waveform = reference.generate(
        **text, input_values=start.waveform, do_sample=False, guidance_scale=3.0, max_new_tokens=new + 3
    )
    theirs = (
        caught[0][0] if channels == 1 else join_channels(torch.stack([row[0] for row in caught], 1).flatten(0, 1), 2)
    )
    audio = ours.generate(PROMPTS, (known + new) / 50, continue_from=start, temperature=0, guidance_scale=3, window=30)
    assert theirs.shape == (2, codebooks, known + new)
    assert torch.equal(audio.codes[:, :, :known], theirs[:, :, :known]), "the beginning is encoded otherwise"
    assert torch.equal(audio.codes, theirs)
    torch.testing.assert_close(audio.waveform, waveform, atol=1e-4, rtol=0)
    assert not torch.equal(
        audio.codes, ours.generate(PROMPTS, (known + new) / 50, temperature=0, guidance_scale=3).codes
    )


def test_left_and_right_stay_where_they_are(stereo_folder):
    model = MusicGen.from_pretrained(stereo_folder)
    left, right = noise(1, 1, 320, 1600), Audio(0.3 * torch.randn(1, 1, 320), 1600)
    both = Audio(torch.cat([left.waveform, right.waveform], dim=1), 1600)
    codes = model.encode(both)
    assert torch.equal(codes[:, 0::2], model.codec.encode(left)) and torch.equal(
        codes[:, 1::2], model.codec.encode(right)
    )
    assert torch.equal(model.encode(left)[:, 0::2], model.encode(left)[:, 1::2]), "mono sounds on both sides"


@pytest.mark.parametrize("rate", [RATE, 700, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_sound_goes_on(model, rate, channels):
    start = noise(1, channels, rate, rate)
    audio = model.generate("piano", 1.5, continue_from=start)
    own = model.encode(start.convert(RATE, 1))
    assert torch.equal(audio.codes[:, :, :FRAME_RATE], own) and audio.codes.shape == (1, 4, 75)
    assert audio.duration == 1.5, "the beginning counts among the duration"


def test_a_sound_may_be_given_in_three_ways(model, tmp_path):
    start = noise(1, 1, 80)
    start.save(tmp_path / "start.wav")
    saved, _ = soundfile.read(tmp_path / "start.wav", dtype="float32")
    given = [
        tmp_path / "start.wav", str(tmp_path / "start.wav"), (saved, RATE), (torch.from_numpy(saved)[None], RATE),
        (saved[None, None], RATE), Audio(torch.from_numpy(saved)[None, None], RATE), (saved.astype(np.float64), RATE),
    ]  # fmt: skip
    first, *others = [model.generate("piano", 0.4, continue_from=sound).codes for sound in given]
    assert all(torch.equal(first, other) for other in others)


def test_half_a_frame_at_the_end_is_left_out(model):
    start = noise(1, 1, 5 * HOP + 7)
    audio = model.generate("piano", 0.4, continue_from=start)
    whole = Audio(start.waveform[:, :, : 5 * HOP], RATE)
    assert torch.equal(audio.codes[:, :, :5], model.encode(whole))
    assert torch.equal(audio.codes, model.generate("piano", 0.4, continue_from=whole).codes)


def test_streams_begin_with_it_too(model):
    start = noise(2, 1, 200)
    audio = model.generate(PROMPTS, 2, continue_from=start, seed=4)
    chunks = model.stream(PROMPTS, 2, continue_from=start, seed=4, chunk_duration=0.2)
    torch.testing.assert_close(torch.cat([c.waveform for c in chunks], 2), audio.waveform, atol=1e-4, rtol=0)


def test_without_a_prompt_it_plays_what_comes_to_its_mind(model):
    """The null condition, alone: what guidance of 0 plays, whatever the prompt."""
    audio = model.generate(None, 0.5, samples=2, seed=[3])
    assert audio.prompts is None and audio.codes.shape == (2, 4, 25)
    for sample in range(2):
        ignored = model.generate("happy piano", 0.5, guidance_scale=0, seed=3 + sample)
        assert torch.equal(audio.codes[sample], ignored.codes[0])
    batches = []
    hook = model.decoder.register_forward_pre_hook(lambda module, arguments: batches.append(len(arguments[0])))
    model.generate(None, 0.1)
    hook.remove()
    assert set(batches) == {1}, "nothing is to be guided"


def test_a_model_without_tokenizer_plays_without_a_prompt(model, model_config):
    mute = MusicGen(model_config)
    mute.load_state_dict(model.state_dict())
    assert torch.equal(mute.generate(None, 0.2).codes, model.generate(None, 0.2).codes)


@torch.no_grad()
def test_unconditional_codes_are_transformers_own(mono_folder, monkeypatch):
    ours = MusicGen.from_pretrained(mono_folder)
    reference = MusicgenForConditionalGeneration.from_pretrained(mono_folder).eval()
    caught, decode = [], reference.audio_encoder.decode
    monkeypatch.setattr(
        reference.audio_encoder, "decode", lambda codes, **others: caught.append(codes) or decode(codes, **others)
    )
    nothing = reference.get_unconditional_inputs(num_samples=2)
    reference.generate(**nothing, do_sample=False, max_new_tokens=15)
    assert torch.equal(ours.generate(None, 12 / 50, samples=2, temperature=0).codes, caught[0][0])


def test_samples_of_a_prompt_follow_each_other_and_can_be_made_again(model):
    audio = model.generate(PROMPTS, 0.5, samples=3, seed=[7, 20])
    assert audio.prompts == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
    for clip, seed in enumerate([7, 8, 9, 20, 21, 22]):
        alone = model.generate(audio.prompts[clip], 0.5, seed=seed)
        assert torch.equal(audio.codes[clip], alone.codes[0])
    starts = noise(2, 1, 80)
    continued = model.generate(PROMPTS, 0.5, samples=2, continue_from=starts)
    own = model.encode(starts)
    assert torch.equal(continued.codes[:, :, :10], own[[0, 0, 1, 1]])
    assert len(model.generate("piano", 0.1, samples=4, seed=None).codes.unique(dim=0)) == 4


def test_a_clip_longer_than_a_window_keeps_what_windows_share(model):
    """Window for window by hand: each is a continuation of the last one's tail, and nothing of it is written anew."""
    audio = model.generate("piano", 2.0, window=1, stride=0.6, temperature=0)
    assert audio.codes.shape == (1, 4, 100) and audio.waveform.shape[2] == 100 * HOP
    codes = model.generate("piano", 1.0, temperature=0).codes
    for start, end in ((30, 80), (60, 100)):
        tail = codes[:, :, start:]
        condition = model.encode_text(["piano"])
        settings = replace(model.config.sampling, temperature=0, top_k=0)
        written = generate_codes(model.decoder, condition, end - start, model.pattern, settings, known=tail)
        assert torch.equal(written[:, :, : tail.shape[2]], tail)
        codes = torch.cat([codes[:, :, :start], written], dim=2)
    assert torch.equal(audio.codes, codes)
    torch.testing.assert_close(audio.waveform, model.decode(codes), atol=1e-5, rtol=0)


def test_up_to_a_window_nothing_changes(model):
    assert torch.equal(model.generate("piano", 1.0).codes, model.generate("piano", 1.0, window=1, stride=0.3).codes)
    longer = model.generate("piano", 2.0, window=1, stride=0.3)
    assert torch.equal(longer.codes[:, :, :50], model.generate("piano", 1.0).codes)
    assert not torch.equal(longer.codes, model.generate("piano", 2.0).codes)


def test_long_clips_stream_as_they_are_written(model):
    options = dict(window=0.8, stride=0.4, seed=2)
    audio = model.generate(PROMPTS, 3, **options)
    chunks = list(model.stream(PROMPTS, 3, chunk_duration=0.3, **options))
    torch.testing.assert_close(torch.cat([c.waveform for c in chunks], 2), audio.waveform, atol=1e-4, rtol=0)
    assert max(chunk.duration for chunk in chunks) < 0.7


def test_a_beginning_longer_than_a_window_is_kept_and_its_tail_goes_on(model):
    start = noise(1, 1, 2 * RATE)
    audio = model.generate("piano", 2.5, continue_from=start, window=1, stride=0.6, temperature=0)
    own = model.encode(start)
    assert torch.equal(audio.codes[:, :, :100], own)
    tail = Audio(start.waveform[:, :, -160:], RATE)  # 0.4 s: a window less a stride
    other = model.generate("piano", 0.9, continue_from=tail, temperature=0)
    assert audio.codes.shape == other.codes.shape[:2] + (125,)


def test_the_models_own_window_is_used_and_kept_in_its_folder(model, tmp_path):
    config = replace(model.config, window=1.0, stride=0.5)
    short = MusicGen(config, model.tokenizer)
    short.load_state_dict(model.state_dict())
    audio = short.generate("piano", 2)
    assert torch.equal(audio.codes, model.generate("piano", 2, window=1, stride=0.5).codes)
    assert torch.equal(short.generate("piano", 4, window=2).codes, model.generate("piano", 4, window=2, stride=1).codes)
    short.save_pretrained(tmp_path)
    assert MusicGen.from_pretrained(tmp_path).config == config
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["window"], written["stride"]) == (1.0, 0.5)
    for stride in (0, 1.0, -1, "long"):
        (tmp_path / "config.json").write_text(json.dumps(written | {"stride": stride}))
        with pytest.raises(CheckpointError, match="stride=") as caught:
            MusicGen.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)


def test_progress_counts_the_steps_of_all_windows(model):
    seen = []
    model.generate("piano", 2, window=1, stride=0.5, progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen, strict=True)
    assert set(totals) == {3 * 53} and list(done) == sorted(set(done)) and done[-1] == 3 * 53
    seen.clear()
    for _ in model.stream("piano", 1, continue_from=noise(1, 1, 200), progress=lambda *now: seen.append(now)):
        pass
    assert seen[-1] == (53, 53) and seen[0] == (26, 53)


def test_memory_does_not_grow_with_windows(model):
    """The cache holds one window, and the streaming codec a few frames, however long the clip."""
    sizes = []
    hook = model.decoder.register_forward_pre_hook(lambda module, arguments: sizes.append(arguments[2].max_steps))
    for _ in model.stream("piano", 6, window=0.5, stride=0.3):
        pass
    hook.remove()
    assert max(sizes) == 25 + 4 and len(sizes) > 300


def test_a_melody_is_heard_as_transformers_hears_it(melody_folder, tmp_path):
    """From the sound to what stands before the codes, with the melody's own sizes."""
    folder, rate = shutil.copytree(melody_folder, tmp_path / "melody"), 1600
    extractor = MusicgenMelodyFeatureExtractor(sampling_rate=rate, n_fft=512, hop_length=128)
    extractor.save_pretrained(folder)
    model = MusicGen.from_pretrained(folder)
    assert model.config.melody == MelodyConfig(length=7, window=512, hop_length=128)
    time = torch.arange(3 * rate) / rate
    tune = torch.cat([torch.sin(2 * math.pi * pitch * time[: rate // 2]) for pitch in (110, 131, 165, 196, 220, 262)])
    theirs = extractor(tune.numpy(), sampling_rate=rate, return_tensors="pt").input_features
    ours = hear_melody(Audio(tune[None, None], rate), rate, replace(model.config.melody, length=100))
    assert torch.equal(ours, theirs) and len(ours[0].argmax(-1).unique()) > 3
    reference = MusicgenMelodyForConditionalGeneration.from_pretrained(folder).eval()
    ids, mask = model.tokenizer(["happy piano"])
    shape = 4, 1
    with torch.no_grad():
        before = reference(
            input_ids=ids, attention_mask=mask.long(), input_features=theirs, decoder_input_ids=torch.full(shape, 32)
        ).encoder_hidden_states
    told = []
    hook = model.decoder.register_forward_pre_hook(lambda module, arguments: told.append(arguments[1]))
    model.generate("happy piano", 0.1, melody=(tune, rate))
    hook.remove()
    torch.testing.assert_close(told[0].prefix[:1], before, atol=1e-5, rtol=0)


def test_a_melody_changes_the_music_alone_and_with_words(melody_folder):
    model = MusicGen.from_pretrained(melody_folder)
    tune, other = ((torch.sin(torch.arange(32_000) * pitch), 1600) for pitch in (0.9, 1.4))
    for prompt in ("happy piano", None):
        plain, followed, again, elsewhere = (
            model.generate(prompt, 0.3, melody=melody, temperature=0).codes for melody in (None, tune, tune, other)
        )
        assert torch.equal(followed, again)
        assert not torch.equal(followed, plain) and not torch.equal(followed, elsewhere)
    assert model.generate(["piano", "flute"], 0.1, samples=2, melody=tune).codes.shape[0] == 4


def test_a_long_melody_is_not_heard_beyond_its_length():
    config = MelodyConfig(length=5, window=256, hop_length=64)
    sound = noise(1, 1, 20_000, 1600)
    heard = hear_melody(sound, 1600, config)
    whole = loudest_tone(chroma(sound.waveform[:, 0], 1600, config))
    assert heard.shape == (1, 5, 12) and torch.equal(heard, whole[:, :5])


def test_sizes_of_a_melody_that_do_not_fit_are_refused(melody_folder, tmp_path):
    for file in melody_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changes = {"n_fft": 0, "hop_length": "far", "num_chroma": 11, "sampling_rate": 32_000}
    for name, value in changes.items():
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({name: value}))
        with pytest.raises(CheckpointError, match=rf"preprocessor_config.json has {name}=") as caught:
            MusicGen.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)


def write_sound(path, samples, subtype="FLOAT"):
    soundfile.write(path, np.asarray(samples, dtype=np.float32), RATE, subtype=subtype)
    return path


BAD_SOUNDS = {
    "missing": (lambda folder: folder / "missing.wav", FileNotFoundError, "There is no audio file"),
    "a folder": (lambda folder: folder, ValueError, "cannot be read as audio"),
    "not audio": (lambda folder: (folder / "a.wav").write_text("la la la") and folder / "a.wav", ValueError,
                  "cannot be read as audio"),
    "an empty file": (lambda folder: (folder / "a.wav").touch() or folder / "a.wav", ValueError, "cannot be read"),
    "no samples": (lambda folder: write_sound(folder / "a.wav", []), ValueError, "holds no samples"),
    "silent": (lambda folder: write_sound(folder / "a.wav", [0] * 200), ValueError, "is silent"),
    "nearly silent": (lambda folder: write_sound(folder / "a.wav", [3e-5] * 200), ValueError, "is silent"),
    "NaN": (lambda folder: write_sound(folder / "a.wav", [0.1, math.nan]), ValueError, "no finite numbers"),
    "infinite": (lambda folder: write_sound(folder / "a.wav", [0.1, math.inf]), ValueError, "no finite numbers"),
    "NaN in memory": (lambda folder: (torch.full((99,), math.nan), RATE), ValueError, "finite numbers"),
    "whole numbers": (lambda folder: (torch.ones(99, dtype=torch.int16), RATE), TypeError, "floating-point"),
    "no rate": (lambda folder: (torch.ones(99), None), TypeError, "sample_rate must be a whole number"),
    "four axes": (lambda folder: (torch.ones(1, 1, 1, 99), RATE), ValueError, "must have the axes"),
    "a number": (lambda folder: 5, TypeError, "A sound is an Audio"),
    "a tensor alone": (lambda folder: torch.ones(99), TypeError, "A sound is an Audio"),
    "one too many": (lambda folder: noise(3, 1, 80), ValueError, "one a prompt: not 3 for 2"),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("option", ["continue_from", "melody"])
@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_bad_sounds_are_refused_in_one_sentence(model, melody_folder, tmp_path, name, option):
    make, kind, message = BAD_SOUNDS[name]
    asked = MusicGen.from_pretrained(melody_folder) if option == "melody" else model
    with pytest.raises(kind, match=message) as caught:
        asked.generate(PROMPTS, 1, **{option: make(tmp_path)})
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"continue_from": noise(1, 1, HOP - 1)}, ValueError, "less than one frame of 20 ms"),
        ({"continue_from": noise(1, 1, RATE)}, ValueError, "lasts 1.00 s and counts among the duration"),
        ({"continue_from": noise(1, 1, 3 * RATE)}, ValueError, "lasts 3.00 s and counts among the duration"),
        ({"melody": noise(1, 1, RATE)}, ValueError, 'listens to no melody: take one of the "melody" models'),
        ({"melody": "missing.wav"}, ValueError, "listens to no melody"),
        ({"samples": 0}, ValueError, "samples must be at least 1"),
        ({"samples": -1}, ValueError, "samples must be at least 1"),
        ({"samples": MAX_SAMPLES + 1}, ValueError, f"at most {MAX_SAMPLES}"),
        ({"samples": 1.5}, TypeError, "samples must be at least 1"),
        ({"samples": True}, TypeError, "samples must be at least 1"),
        ({"window": 0}, ValueError, "window must be more than 0"),
        ({"window": "long"}, TypeError, "window must be more than 0 and at most 600 seconds, not 'long'"),
        ({"stride": 0}, ValueError, "stride must be more than 0"),
        ({"stride": math.nan}, ValueError, "stride must be more than 0"),
        ({"window": 2, "stride": 2}, ValueError, "stride must be shorter than the window"),
        ({"window": 2, "stride": 3}, ValueError, "stride must be shorter than the window"),
        ({"stride": 30}, ValueError, "30 seconds are too many for 30"),
        ({"window": 0.01}, ValueError, "stride must be shorter than the window"),
        ({"seed": [1, 2]}, ValueError, "2 seeds for 1 prompts"),
        ({"samples": 2, "seed": 2**63 - 1}, ValueError, "A seed must be a whole number from 0"),
        ({"louder": 3}, TypeError, "There is no setting 'louder'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["generate", "stream"])
def test_bad_requests_are_refused_at_the_call(model, call, options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        getattr(model, call)("piano", 1, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(model, tmp_path):
    write_sound(tmp_path / "a.wav", [0.1] * 200).chmod(0)
    with pytest.raises((OSError, ValueError)):
        model.generate("piano", 1, continue_from=tmp_path / "a.wav")


@pytest.mark.filterwarnings("ignore::musicgen_edu.UnknownWordsWarning")
def test_seams_cannot_be_heard():
    """The shipped model: where a window ends, the waveform makes no larger step than it makes elsewhere.

    A step is the difference of two samples that follow each other, in the 20 ms around a seam.
    """
    model = create_musicgen_model("tiny")
    audio = model.generate("loud happy piano melody, fast", 8, window=2, stride=1.2, seed=3)
    steps = audio.waveform[0, 0].diff().abs()
    one_window = steps[: 2 * 16_000]
    seams = [round((2 + 1.2 * seam) * 16_000) for seam in range(5)]
    worst = max(steps[seam - 320 : seam + 320].max() for seam in seams)
    assert worst <= one_window.max()
    joined = torch.cat([model.decode(part) for part in audio.codes.split(60, dim=2)], dim=2)  # as it must not be done
    assert (joined[0, 0].diff().abs() - steps).abs().max() > 0.01 * one_window.max()
