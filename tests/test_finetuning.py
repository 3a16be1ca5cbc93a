"""Room 15: a folder of one's own sound is read with care, and a trained model learns it and stays a checkpoint."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState
from torch import nn
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

from musicgen_edu import Audio, MusicGen, UnknownWordsWarning, cli, load_audio
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.training import command, finetuning, loop, recipe
from musicgen_edu.training.audio_folder import CaptionedCodes, find_captions, read_audio_folder
from musicgen_edu.training.finetuning import FineTuning, finetune, learning_part, learning_words, make_batch

pytestmark = pytest.mark.usefixtures("alone")
QUICK = FineTuning(steps=4, rank=2, seconds=0.5, batch=2, save_every=2)


@pytest.fixture
def student(model) -> MusicGen:
    """A model to teach: the shared one's weights, copied."""
    student = MusicGen(model.config, model.tokenizer)
    student.load_state_dict(model.state_dict())
    return student


def write_sound(file: Path, rate: int = 400, channels: int = 1, seconds: float = 0.8, level: float = 0.3) -> None:
    """A tone that every file has at another pitch."""
    time = torch.arange(round(seconds * rate)) / rate
    tone = level * torch.sin(2 * torch.pi * (20 + len(file.stem)) * time)
    soundfile.write(file, tone[:, None].expand(-1, channels).numpy(), rate)


@pytest.fixture
def data(tmp_path) -> Path:
    """Three sounds of several rates and numbers of channels, with text files."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rate, channels in (("a.wav", 400, 1), ("bb.flac", 8_000, 2), ("ccc.ogg", 44_100, 3)):
        write_sound(folder / name, rate, channels)
        (folder / name).with_suffix(".txt").write_text(f"a slow  zither\nmelody {name[0]}\n")
    return folder


# The folder


def test_any_rate_and_any_channels_become_the_codecs_codes(data, model, tmp_path):
    clips = read_audio_folder(data, model.codec, tmp_path / "cache")
    assert [clip.caption for clip in clips] == [f"a slow zither melody {name}" for name in "abc"]
    for clip, file in zip(clips, sorted(data.glob("*.[wfo]*")), strict=True):
        waveform = load_audio(file, model.config.codec.sample_rate, channels=1).waveform
        assert torch.equal(clip.codes, model.codec.encode(waveform)[0])


def test_a_long_file_is_encoded_piece_by_piece(data, model, tmp_path, monkeypatch):
    lengths, encode = [], type(model.codec).encode
    monkeypatch.setattr("musicgen_edu.training.audio_folder.PIECE", 16)
    monkeypatch.setattr(
        type(model.codec), "encode", lambda self, piece: lengths.append(piece.shape) or encode(self, piece)
    )
    clips = read_audio_folder(data, model.codec, tmp_path / "cache")
    assert lengths[:3] == [(1, 1, 128), (1, 1, 128), (1, 1, 64)] and clips[0].codes.shape == (4, 40)


def test_codes_are_made_once_for_each_file_and_codec(data, model, tmp_path, monkeypatch):
    first = read_audio_folder(data, model.codec, tmp_path / "cache")
    monkeypatch.setattr(type(model.codec), "encode", lambda *_: pytest.fail("it is encoded again"))
    (data / "a.txt").write_text("another caption")
    again = read_audio_folder(data, model.codec, tmp_path / "cache")
    assert all(torch.equal(one.codes, other.codes) for one, other in zip(first, again, strict=True))
    assert again[0].caption == "another caption"
    write_sound(data / "a.wav", seconds=0.9)
    with pytest.raises(BaseException, match="encoded again"):
        read_audio_folder(data, model.codec, tmp_path / "cache")


def test_files_that_cannot_be_used_are_named_and_left_out(data, model, tmp_path):
    write_sound(data / "short.wav", seconds=0.4)
    write_sound(data / "silent.wav", level=0)
    (data / "broken.wav").write_bytes(b"no sound")
    (data / "empty.wav").touch()
    (data / "folder.wav").mkdir()
    soundfile.write(data / "nan.wav", torch.full((400,), torch.nan).numpy(), 400, subtype="FLOAT")
    for name in ("short", "silent", "broken", "empty", "folder", "nan"):
        (data / f"{name}.txt").write_text("a caption")
    for name, caption in {
        "dots": "… —",
        "utf-16": "flute".encode("utf-16"),
        "latin": "flûte".encode("latin-1"),
    }.items():
        write_sound(data / f"{name}.wav")
        (data / f"{name}.txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())
    write_sound(data / "wordless.wav")
    write_sound(data / "blank.wav")
    (data / "blank.txt").write_text(" \n")
    with pytest.warns(UserWarning) as caught:
        clips = read_audio_folder(data, model.codec, tmp_path / "cache")
    said = {str(warning.message).partition(" is left out: ")[::2] for warning in caught}
    reasons = {name: reason for name, reason in said if reason}
    assert len(clips) == 3
    assert reasons["short.wav"] == "it is shorter than 0.5 s." and reasons["silent.wav"] == "it is silent."
    assert reasons["wordless.wav"] == reasons["blank.wav"] == "it has no caption in words, as UTF-8 text."
    assert {reasons[f"{name}.wav"] for name in ("dots", "utf-16", "latin")} == {reasons["blank.wav"]}
    assert "cannot be read as audio" in reasons["broken.wav"] and set(reasons) > {"empty.wav", "folder.wav", "nan.wav"}


def test_captions_of_other_systems_are_read(data, model, tmp_path):
    """With the mark that some editors write first, and under names in capitals."""
    (data / "a.txt").write_text("a slow drone", encoding="utf-8-sig")
    (data / "bb.txt").rename(data / "bb.TXT")
    clips = read_audio_folder(str(data), model.codec, str(tmp_path / "cache"))
    assert len(clips) == 3 and clips[0].caption == "a slow drone"


def test_a_table_may_name_files_anywhere_and_names_that_no_file_can_have(data, model, tmp_path):
    write_sound(tmp_path / "elsewhere.wav")
    names = [tmp_path / "elsewhere.wav", data / "a.wav", "../nowhere.wav", "/nowhere.wav", "x" * 5000, "a\0.wav"]
    (data / "sounds.CSV").write_text("file,caption\n" + "".join(f'"{name}",slow\n' for name in names))
    with pytest.warns(UserWarning) as caught:
        clips = read_audio_folder(data, model.codec, tmp_path / "cache")
    assert len(clips) == 2 and len(caught) == 4
    assert all("is left out: there is no such file." in str(warning.message) for warning in caught)


def test_a_sound_that_is_there_twice_is_encoded_once(data, model, tmp_path):
    (data / "again.wav").write_bytes((data / "a.wav").read_bytes())
    (data / "again.txt").write_text("the same tone")
    clips = read_audio_folder(data, model.codec, tmp_path / "cache")
    assert len(clips) == 4 and len(list((tmp_path / "cache").iterdir())) == 3


def test_a_table_may_hold_the_captions(data):
    (data / "sounds.csv").write_text('caption,file,who\n"slow, soft",a.wav,me\nfast,nowhere.wav,me\nloud,bb.flac,you\n')
    with pytest.warns(UserWarning, match="nowhere.wav is left out: there is no such file"):
        found = list(find_captions(data))
    assert found == [(data / "a.wav", "slow, soft"), (data / "bb.flac", "loud")]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"one.csv": "name,text\na.wav,slow\n"}, "one.csv cannot be read: it needs the columns file and caption"),
        ({"one.csv": ""}, "it needs the columns file and caption"),
        ({"one.csv": "file,caption\n", "two.csv": ""}, "more than one CSV table .one.csv, two.csv.: keep one"),
        ({"one.csv": "file,caption\n"}, "holds no audio file that can be used"),
    ],
)
def test_a_bad_table_is_refused(data, model, tmp_path, tables, sentence):
    for name, text in tables.items():
        (data / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_audio_folder(data, model.codec, tmp_path / "cache")


def test_no_folder_and_an_empty_one_are_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        read_audio_folder(tmp_path / "nowhere", model.codec, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no audio file that can be used"):
        read_audio_folder(tmp_path / "empty", model.codec, tmp_path)


# Batches


def test_short_clips_are_padded_and_their_padding_is_not_learned(tokenizer):
    clips = [CaptionedCodes("slow piano", torch.randint(32, (4, frames))) for frames in (3, 9, 5)]
    batch = make_batch(clips, 5, tokenizer, random.Random(0))
    assert batch.codes.shape == (3, 4, 5) and batch.counted.sum(dim=1).tolist() == [3, 5, 5]
    assert torch.equal(batch.codes[0, :, :3], clips[0].codes) and torch.equal(batch.codes[2], clips[2].codes)
    windows = clips[1].codes.unfold(1, 5, 1).unbind(dim=1)
    assert any(torch.equal(batch.codes[1], window) for window in windows)


def test_captions_are_withheld_now_and_then(tokenizer):
    clips = [CaptionedCodes("slow piano", torch.zeros(4, 5, dtype=torch.long))] * 400
    withheld = ~make_batch(clips, 5, tokenizer, random.Random(0)).text_mask.any(dim=1)
    assert 0.1 < withheld.float().mean() < 0.2


# What learns


@pytest.mark.parametrize("rank", [2, 0])
def test_only_the_decoders_part_learns(student, model, data, tmp_path, rank):
    finetune(student, data, tmp_path / "run", replace(QUICK, rank=rank, learning_rate=0.05))
    before, after = named_tensors(model), named_tensors(MusicGen.from_pretrained(tmp_path / "run" / "model"))
    assert before.keys() == after.keys()
    known = before["text_encoder.shared.weight"]
    words = after["text_encoder.shared.weight"][len(known) :]
    assert torch.equal(after["text_encoder.shared.weight"][: len(known)], known)
    assert len(words) == 3 and (words - known.mean(dim=0)).abs().amax(dim=1).min() > 0.01  # zither, b and c
    after["text_encoder.shared.weight"] = known
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    layer = "decoder.model.decoder.layers.0."
    matrices = {f"{layer}{part}.weight" for part in ("fc1", "fc2", "self_attn.q_proj", "encoder_attn.v_proj")}
    assert matrices <= changed
    if rank:
        assert all(name.startswith((layer, "decoder.lm_heads.")) and "norm" not in name for name in changed)
        ranks = [torch.linalg.matrix_rank(after[name] - before[name], atol=1e-4) for name in matrices]
        assert max(ranks) <= rank
    else:
        assert "decoder.lm_heads.0.weight" in changed and "enc_to_dec_proj.bias" in changed
        assert not {name for name in changed if name.startswith(("text_encoder.", "audio_encoder."))}
    taught = named_tensors(student) | {"text_encoder.shared.weight": known}
    assert all(torch.equal(tensor, after[name]) for name, tensor in taught.items())


def test_adapters_begin_as_nothing_and_vanish_after_an_error(student, model):
    with learning_part(student, 2):
        learning = {name.rpartition(".")[2] for name, weight in student.named_parameters() if weight.requires_grad}
        assert learning == {"weight"}
    assert fingerprint(named_tensors(student)) == fingerprint(named_tensors(model))
    with pytest.raises(KeyboardInterrupt), learning_part(student, 2):
        for parameter in student.parameters():
            nn.init.ones_(parameter) if parameter.requires_grad else None
        raise KeyboardInterrupt
    assert fingerprint(named_tensors(student)) == fingerprint(named_tensors(model))
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_it_learns_and_transformers_opens_the_result(student, data, tmp_path):
    settings = replace(QUICK, steps=40, rank=4, learning_rate=0.03, batch=3, save_every=40)
    clips = read_audio_folder(data, student.codec, tmp_path / "codes")
    batch = make_batch(clips, 25, student.tokenizer, random.Random(1))

    def surprise(learner: MusicGen) -> float:
        parts = learner.text_encoder, learner.projection, learner.decoder, learner.pattern
        with torch.no_grad():
            return float(finetuning.DecoderObjective(*parts).losses(batch)[0].mean())

    before = surprise(student)
    finetune(student, data, tmp_path / "run", settings)
    learned = MusicGen.from_pretrained(tmp_path / "run" / "model")
    assert surprise(learned) < 0.8 * before
    reference = MusicgenForConditionalGeneration.from_pretrained(tmp_path / "run" / "model").eval()
    theirs = dict(reference.named_parameters())["decoder.model.decoder.layers.0.fc1.weight"]
    assert torch.equal(theirs, learned.decoder.layers[0].fc1.weight)


def test_equal_widths_have_no_projection_and_learn_too(model_config, tokenizer, data, tmp_path):
    decoder = replace(model_config.decoder, hidden_size=16)
    finetune(MusicGen(replace(model_config, decoder=decoder), tokenizer), data, tmp_path / "run", QUICK)
    assert MusicGen.from_pretrained(tmp_path / "run" / "model").projection is None


def test_the_models_own_music_is_rehearsed(student, model, data, tmp_path, monkeypatch):
    seen = []
    real = finetuning.make_batch
    monkeypatch.setattr(finetuning, "make_batch", lambda clips, *rest: seen.append(clips) or real(clips, *rest))
    keep = ["happy piano melody", "sad strings"]
    finetune(student, data, tmp_path / "run", QUICK, keep)
    own = [model.generate(prompt, 0.5, seed=seed).codes[0] for seed, prompt in enumerate(keep)]
    assert len(seen) == 4
    for new, old in seen:
        assert "zither" in new.caption and torch.equal(old.codes, own[keep.index(old.caption)])


# Stopped, spoiled, or of something else


def test_a_stopped_run_goes_on_to_the_last_bit(model, data, tmp_path, monkeypatch):
    def learner() -> MusicGen:
        AcceleratorState._reset_state(reset_partial_state=True)
        copy = MusicGen(model.config, model.tokenizer)
        copy.load_state_dict(model.state_dict())
        return copy

    finetune(learner(), data, tmp_path / "whole", QUICK)
    save = loop._save_state

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "_save_state", save_and_stop)
        finetune(learner(), data, tmp_path / "stopped", QUICK)
    assert not (tmp_path / "stopped" / "model").exists()
    finetune(learner(), data, tmp_path / "stopped", QUICK)
    whole, resumed = (named_tensors(MusicGen.from_pretrained(tmp_path / run / "model")) for run in ("whole", "stopped"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_state_holds_only_what_learns(student, data, tmp_path):
    finetune(student, data, tmp_path / "run", QUICK)
    names = loop.safe_open(tmp_path / "run" / loop.STATE_FILE, "pt").keys()
    assert names and all("lora_" in name or name.endswith("0.rows") for name in names)


@pytest.mark.parametrize("rank", [2, 0])
def test_a_loss_that_is_no_number_is_never_saved(student, model, data, tmp_path, monkeypatch, rank):
    real, calls = finetuning.DecoderObjective.forward, []

    def forward(self, batch):
        calls.append(batch)
        figures = real(self, batch)
        return figures | {"loss": figures["loss"] * float("nan")} if len(calls) > 3 else figures

    monkeypatch.setattr(finetuning.DecoderObjective, "forward", forward)
    with pytest.raises(FloatingPointError, match="keeps the weights of before. Go on from there with a lower"):
        finetune(student, data, tmp_path / "run", replace(QUICK, rank=rank))
    with loop.safe_open(tmp_path / "run" / loop.STATE_FILE, "pt") as state:
        assert state.metadata()["step"] == "2"
        assert all(state.get_tensor(name).isfinite().all() for name in state.keys())
    assert not (tmp_path / "run" / "model").exists()
    if rank:
        assert fingerprint(named_tensors(student)) == fingerprint(named_tensors(model))


def test_a_folder_keeps_one_training(student, data, tmp_path):
    finetune(student, data, tmp_path / "run", QUICK)
    with pytest.raises(ValueError, match="other settings .* choose another --folder"):
        finetune(student, data, tmp_path / "run", QUICK)  # it begins with another model now


# The command line


@pytest.fixture
def checkpoint(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_the_command_teaches_a_word_that_is_then_known(checkpoint, data, tmp_path, capsys):
    (tmp_path / "keep.txt").write_text("happy piano melody\n\nsad strings\n")
    options = ["--from", str(checkpoint), "--data", str(data), "--folder", str(tmp_path / "run")]
    options += ["--steps=2", "--rank=2", "--batch=2", "--seconds=0.5", "--keep", str(tmp_path / "keep.txt")]
    assert cli.main(["train", *options]) == 0
    assert "Hear the model with: musicgen-edu generate" in capsys.readouterr().out
    taught = MusicGen.from_pretrained(tmp_path / "run" / "model")
    assert taught.tokenizer.pieces("slow zithers") == ["▁slow", "▁zither", "s", "</s>"]
    reference = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert reference("slow zithers melody b").input_ids == taught.tokenizer.encode("slow zithers melody b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(taught.generate("slow zither melody", 0.2), Audio)
    with pytest.warns(UnknownWordsWarning, match="koto"):
        taught.generate("slow koto", 0.2)


def test_a_word_gets_a_vector_and_old_prompts_mean_what_they_meant(student, model):
    prompts = ["happy piano melody", "sad strings with drums"]
    before = model.encode_text(prompts).states
    with learning_part(student, 2), learning_words(student, ["slow zither melody", "zither, KOTO!"]) as words:
        assert words == ["koto", "zither"]
        (rows,) = (weight for weight in student.text_encoder.parameters() if weight.requires_grad)
        assert rows.shape == (2, model.config.text_encoder.hidden_size)
    with learning_words(student, ["slow zither melody"]) as words:
        assert words == []
    assert student.text_encoder.config == student.config.text_encoder
    assert student.config.text_encoder.vocab_size == student.tokenizer.vocab_size == model.tokenizer.vocab_size + 2
    assert torch.equal(student.encode_text(prompts).states, before)


def test_after_an_error_a_word_is_unknown_again(student, model):
    with pytest.raises(KeyboardInterrupt), learning_words(student, ["slow zither melody"]):
        raise KeyboardInterrupt
    assert fingerprint(named_tensors(student)) == fingerprint(named_tensors(model))
    assert student.config == model.config and student.tokenizer is model.tokenizer


def test_a_large_vocabulary_stays_as_it_is(student, monkeypatch):
    monkeypatch.setattr(finetuning, "WORD_VOCABULARY", student.tokenizer.vocab_size)
    with learning_words(student, ["slow zither melody"]) as words:
        assert words == []


def test_bad_files_are_named_and_the_rest_is_learned(checkpoint, data, tmp_path, capsys):
    (data / "broken.wav").write_bytes(b"no sound")
    (data / "broken.txt").write_text("a caption")
    options = ["--from", str(checkpoint), "--data", str(data), "--folder", str(tmp_path / "run"), "--steps=1"]
    assert cli.main(["train", *options, "--all-weights", "--seconds=0.5"]) == 0
    assert "musicgen-edu: broken.wav is left out: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "data"], "the following arguments are required: --from"),
        (["--from", "tiny"], "the following arguments are required: --data"),
        (["--from", "nowhere", "--data", "data"], "nowhere"),
        (["--from", "tiny", "--data", "nowhere"], "There is no folder nowhere"),
        (["--from", "tiny", "--data", "data", "--keep", "nowhere.txt"], "nowhere.txt: no such file or directory"),
        (["--from", "tiny", "--data", "data", "--rank", "0"], "steps, rank and batch must be at least 1"),
        (["--from", "tiny", "--data", "data", "--learning-rate", "nan"], "learning rate must be more than 0"),
        (["--from", "tiny", "--data", "data", "--learning-rate", "0"], "learning rate must be more than 0"),
        (["--from", "tiny", "--data", "data", "--learning-rate", "-0.0"], "learning rate must be more than 0"),
        (["--from", "tiny", "--data", "data", "--seconds", "-1"], "seconds and the learning rate"),
    ],
)
def test_bad_options_end_in_one_sentence(options, sentence, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["train", *options])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2 and sentence in said and said.count("\n") == 1


def test_without_a_model_to_go_on_from_all_is_trained(monkeypatch):
    asked = []
    monkeypatch.setattr(recipe, "main", lambda argv: asked.append(argv) or 0)
    assert command.main(["--recipe", "gpu"]) == 0 and asked == [["--recipe", "gpu"]]
