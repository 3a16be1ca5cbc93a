"""The whole model: the same answers as transformers in both directions, and what `generate` promises."""

from __future__ import annotations

import copy
import json
import math
import pickle
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import (
    CODEBOOK_SIZE,
    VARIANTS,
    no_complaints,
    reference_greedy,
    reference_logits,
    write_reference,
)
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel
from transformers import AutoProcessor, AutoTokenizer, MusicgenForConditionalGeneration, pipeline

from musicgen_edu import (
    PATTERNS,
    Audio,
    CheckpointError,
    MusicGen,
    UnknownWordsWarning,
    WidthMismatchError,
    create_musicgen_model,
    devices,
)
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.config import SamplingSettings
from musicgen_edu.reality.parity import create_reference
from musicgen_edu.sampling import apply_guidance

PROMPTS = ["peaceful piano melody", "a happy flute arpeggio, fast, with drums"]


@pytest.fixture(scope="module", params=VARIANTS)
def folder(request, tokenizer, tmp_path_factory):
    """A folder that transformers wrote."""
    torch.manual_seed(2)
    variant = VARIANTS[request.param]
    reference = create_reference(variant, tokenizer.vocab_size)
    folder = tmp_path_factory.mktemp(request.param)
    write_reference(reference, tokenizer, folder, variant.get("max_shard_size", "1GB"))
    return folder


@pytest.fixture(scope="module")
def base_folder(tokenizer, tmp_path_factory):
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("base")
    write_reference(create_reference({}, tokenizer.vocab_size), tokenizer, folder, "1GB")
    return folder


@pytest.fixture(scope="module")
def own_folder(model, tmp_path_factory):
    """A folder that we wrote, in shards."""
    folder = tmp_path_factory.mktemp("own")
    model.save_pretrained(folder, max_shard_size=60_000)
    return folder


def assert_same_answers(ours: MusicGen, reference: MusicgenForConditionalGeneration, tokenize) -> None:
    """Ids, scores with and without prompt, codes of a waveform and samples of codes are the same."""
    ids, mask = ours.tokenizer(PROMPTS)
    theirs = tokenize(PROMPTS, padding=True, return_tensors="pt")
    assert torch.equal(ids, theirs.input_ids) and torch.equal(mask, theirs.attention_mask.bool())
    assert not mask.all()  # one prompt is padded

    codebooks = ours.config.decoder.num_codebooks
    codes = torch.randint(0, CODEBOOK_SIZE + 1, (2, codebooks, 9))
    with torch.inference_mode():
        logits = ours(codes, ids, mask)
        null_logits = ours(codes, ids, torch.zeros_like(mask))
    assert logits.std() > 0.5 and (logits - null_logits).abs().max() > 0.1  # the comparison says something
    wanted = reference_logits(reference, codes, input_ids=ids, attention_mask=mask.long())
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    null = {"encoder_outputs": (torch.zeros(*ids.shape, 16),), "attention_mask": torch.zeros_like(ids)}
    torch.testing.assert_close(null_logits, reference_logits(reference, codes, **null), atol=1e-4, rtol=0)

    codes = torch.randint(0, CODEBOOK_SIZE, (2, codebooks, 9))
    with torch.inference_mode():
        waveform = reference.audio_encoder.decode(codes[None], [None]).audio_values
        heard = reference.audio_encoder.encode(waveform, bandwidth=None).audio_codes[0]
    torch.testing.assert_close(ours.codec.decode(codes), waveform, atol=1e-5, rtol=0)
    assert torch.equal(ours.codec.encode(waveform), heard)


def test_ours_opens_what_transformers_wrote(folder):
    reference = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    ours = MusicGen.from_pretrained(folder)
    assert (ours.projection is None) == (reference.config.decoder.hidden_size == 16)
    assert_same_answers(ours, reference, AutoTokenizer.from_pretrained(folder))
    audio = ours.generate(PROMPTS, duration=0.1)
    chunks = ours.stream(PROMPTS, duration=0.1, chunk_duration=0.04)
    torch.testing.assert_close(torch.cat([c.waveform for c in chunks], 2), audio.waveform, atol=1e-4, rtol=0)


def test_transformers_opens_what_we_wrote(model, own_folder):
    with no_complaints():
        reference = MusicgenForConditionalGeneration.from_pretrained(own_folder).eval()
        processor = AutoProcessor.from_pretrained(own_folder)
        tokenizer = AutoTokenizer.from_pretrained(own_folder)
    assert_same_answers(model, reference, tokenizer)
    assert processor(text=PROMPTS, padding=True, return_tensors="pt").input_ids.equal(model.tokenizer(PROMPTS)[0])
    assert processor.feature_extractor.sampling_rate == model.config.codec.sample_rate
    settings = reference.generation_config
    assert (settings.guidance_scale, settings.temperature, settings.top_k, settings.do_sample) == (3.0, 1.0, 250, True)


def test_the_pipeline_opens_what_we_wrote(model, own_folder):
    with no_complaints():
        synthesiser = pipeline("text-to-audio", own_folder, device="cpu")
        output = synthesiser(PROMPTS[0], forward_params={"max_new_tokens": 20})
    assert output["sampling_rate"] == model.config.codec.sample_rate
    assert output["audio"].size == (20 - 3) * model.config.codec.hop_length


@pytest.mark.parametrize("written_by", ["base_folder", "own_folder"])
def test_greedy_tokens_are_transformers_own(written_by, request):
    """Under teacher forcing every token is transformers' best one, wherever its lead is more than rounding."""
    folder, frames = request.getfixturevalue(written_by), 12
    ours = MusicGen.from_pretrained(folder)
    reference = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    audio = ours.generate(PROMPTS, frames / ours.config.codec.frame_rate, temperature=0, guidance_scale=3)
    sequence = ours.pattern.interleave(audio.codes, CODEBOOK_SIZE)
    ids, mask = ours.tokenizer(PROMPTS)
    with torch.inference_mode():
        own = apply_guidance(ours(sequence, ids, mask), ours(sequence, ids, torch.zeros_like(mask)), 3)
    null = {"encoder_outputs": (torch.zeros(*ids.shape, 16),), "attention_mask": torch.zeros_like(ids)}
    conditional = reference_logits(reference, sequence, input_ids=ids, attention_mask=mask.long())
    theirs = apply_guidance(conditional, reference_logits(reference, sequence, **null), 3)

    difference = (own - theirs).abs().max()
    assert difference < 1e-4
    best = theirs.topk(2, dim=-1)
    clear = (best.values[..., 0] - best.values[..., 1] > 10 * difference)[:, :, :-1]
    checked = clear & ours.pattern.mask(frames)[:, 1:]
    assert checked.float().mean() > 0.7
    assert torch.equal(best.indices[:, :, :-1, 0][checked], sequence[:, :, 1:][checked])

    codes, waveform = reference_greedy(reference, frames, input_ids=ids, attention_mask=mask.long())
    parted = (ours.pattern.interleave(codes, CODEBOOK_SIZE) != sequence).any(dim=1)[:, 1:]
    assert not (parted.cumsum(1).eq(1) & clear.all(dim=1)).any(), "the sequences part, and not at a near-tie"
    if not parted.any():
        torch.testing.assert_close(audio.waveform, waveform, atol=1e-4, rtol=0)


def test_saved_and_opened_again_is_the_same(model, own_folder, tmp_path):
    again = MusicGen.from_pretrained(own_folder)
    assert again.config == model.config
    assert len(list(own_folder.glob("model-*.safetensors"))) > 1
    for name, tensor in named_tensors(model).items():
        assert torch.equal(tensor, named_tensors(again)[name]), name
    assert torch.equal(again.generate("piano", 0.2).waveform, model.generate("piano", 0.2).waveform)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (own_folder / "config.json").read_text()


def test_bfloat16_on_disk_is_float32_when_opened(model, tmp_path):
    model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for name, tensor in stored.items() if "audio" in name} == {torch.float32}
    assert {tensor.dtype for name, tensor in stored.items() if "audio" not in name} == {torch.bfloat16}
    ours = MusicGen.from_pretrained(tmp_path)
    with no_complaints():
        reference = MusicgenForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32} == {reference.dtype}
    assert_same_answers(ours, reference, AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": "flatten"},
        {"sampling": SamplingSettings(temperature=0.0)},
        {"sampling": SamplingSettings(top_k=7, guidance_scale=1.5)},
    ],
)
def test_settings_are_kept(model, tokenizer, tmp_path, change):
    config = replace(model.config, **change)
    MusicGen(config, tokenizer).save_pretrained(tmp_path)
    assert MusicGen.from_pretrained(tmp_path).config == config
    with no_complaints():
        MusicgenForConditionalGeneration.from_pretrained(tmp_path)


def test_names_of_older_checkpoints(base_folder, tmp_path):
    """Meta's own files store the positions and T5's embedding twice, and weight_norm's parts as weight_g, weight_v."""
    for file in base_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    old = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        for part, old_part in (("original0", "weight_g"), ("original1", "weight_v")):
            name = name.replace(f"parametrizations.weight.{part}", old_part)
        old[name] = tensor
    old["text_encoder.encoder.embed_tokens.weight"] = old["text_encoder.shared.weight"].clone()
    old["decoder.model.decoder.embed_positions.weights"] = torch.zeros(2048, 24)
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    wanted, found = (named_tensors(MusicGen.from_pretrained(folder)) for folder in (base_folder, tmp_path))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("decoder", {"audio_channels": 2, "num_codebooks": 10}, "5 codebooks of 32 codes, but its codec reads 4 of 32"),
        ("decoder", {"audio_channels": 2, "num_codebooks": 5}, "audio_channels=2 and 5 codebooks"),
        ("decoder", {"audio_channels": 3, "num_codebooks": 6}, "audio_channels=3"),
        ("audio_encoder", {"audio_channels": 2}, "audio_channels=2; only 1"),
        ("decoder", {"activation_function": "relu"}, "activation_function='relu'; only 'gelu'"),
        ("decoder", {"scale_embedding": True}, "scale_embedding=True"),
        ("decoder", {"cross_attention_hidden_size": 16}, "cross_attention_hidden_size=16"),
        ("decoder", {"num_codebooks": 5}, "5 codebooks of 32 codes, but its codec reads 4 of 32"),
        ("decoder", {"hidden_size": "wide"}, "hidden_size"),
        ("decoder", {"num_attention_heads": 5}, "num_heads=5"),
        ("decoder", {"ffn_dim": -1}, "ffn_dim=-1"),
        ("text_encoder", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj='gated-silu'"),
        ("text_encoder", {"model_type": "bert"}, "model_type='bert'; only 't5'"),
        ("text_encoder", {"vocab_size": 5}, "has text_encoder.shared.weight of shape"),
        ("audio_encoder", {"normalize": True}, "normalize=True"),
        ("audio_encoder", {"norm_type": "time_group_norm"}, "norm_type='time_group_norm'"),
        ("audio_encoder", {"chunk_length_s": 1.0}, "chunk_length_s=1.0"),
        ("audio_encoder", {"codebook_dim": 8}, "codebook_dim=8"),
        ("audio_encoder", {"pad_mode": "circular"}, "pad_mode='circular'"),
        ("audio_encoder", {"trim_right_ratio": 0.5}, "trim_right_ratio"),
        ("audio_encoder", {"upsampling_ratios": [0]}, "upsampling_ratios"),
        ("audio_encoder", {"target_bandwidths": []}, "target_bandwidths"),
        ("audio_encoder", None, "no 'audio_encoder'"),
        ("codebook_pattern", "zigzag", "no codebook pattern 'zigzag'"),
    ],
)
def test_what_is_not_supported_is_refused(base_folder, tmp_path, part, change, message):
    config = json.loads((base_folder / "config.json").read_text())
    config[part] = config[part] | change if isinstance(change, dict) else change
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((base_folder / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot be opened|does not fit") as caught:
        MusicGen.from_pretrained(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_thousands_of_layers_are_refused_before_a_model_is_built(base_folder, tmp_path, monkeypatch):
    config = json.loads((base_folder / "config.json").read_text())
    config["decoder"]["num_hidden_layers"] = 5_000
    (tmp_path / "model.safetensors").write_bytes((base_folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(MusicGen, "__init__", lambda *_, **__: pytest.fail("a model is built"))
    with pytest.raises(CheckpointError, match=r"lacks decoder\.model\.decoder\.layers\.2\.self_attn\.q_proj\.weight, "):
        MusicGen.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_refused(base_folder, tmp_path, kind):
    shutil.copytree(base_folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["enc_to_dec_proj.bias"] = tensors["enc_to_dec_proj.bias"].to(kind)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no plain floats: enc_to_dec_proj.bias"):
        MusicGen.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precisions_as_asked(own_folder, model, dtype):
    opened = MusicGen.from_pretrained(own_folder, dtype=dtype)
    assert not opened.training
    assert not any(tensor.is_meta for tensor in [*opened.parameters(), *opened.buffers()])
    wo = "text_encoder.model.encoder.block.0.layer.1.DenseReluDense.wo.weight"
    for name, parameter in opened.named_parameters():
        kept = name.startswith("codec.") or (dtype == torch.float16 and name == wo)
        assert parameter.dtype == (torch.float32 if kept else dtype), name
    reference = MusicgenForConditionalGeneration.from_pretrained(own_folder, dtype=dtype)
    assert reference.get_parameter(wo.replace(".model.", ".", 1)).dtype == opened.get_parameter(wo).dtype
    audio = opened.generate("peaceful piano melody", 0.2)
    assert audio.waveform.dtype == torch.float32 and audio.waveform.isfinite().all()


def test_parts_of_mixed_precision(model_config, tokenizer):
    """Any part alone in bfloat16 works, and changes the scores by no more than bfloat16 explains."""
    codes, (ids, mask) = torch.randint(32, (2, 4, 6)), tokenizer(PROMPTS)
    model = MusicGen(model_config, tokenizer)
    exact = model(codes, ids, mask)
    for part in ("text_encoder", "projection", "decoder"):
        lowered = copy.deepcopy(model)
        getattr(lowered, part).bfloat16()
        logits = lowered(codes, ids, mask).float()
        assert 0 < (logits - exact).abs().max() < 0.1 * exact.abs().max(), part
        assert lowered.generate(PROMPTS, 0.1).codes.shape == (2, 4, 5)


def test_surroundings_do_not_change_what_is_opened(own_folder, model):
    expected = model.generate("piano", 0.1).waveform
    torch.set_default_dtype(torch.float64)
    try:
        opened = MusicGen.from_pretrained(own_folder)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        elsewhere = MusicGen.from_pretrained(own_folder)
    for found in (opened, elsewhere):
        assert {(tensor.dtype, tensor.device.type) for tensor in found.parameters()} == {(torch.float32, "cpu")}
        assert torch.equal(found.generate("piano", 0.1).waveform, expected)


def test_progress_of_loading(own_folder, model):
    seen = []
    MusicGen.from_pretrained(own_folder, progress=lambda done, total: seen.append((done, total)))
    total = sum(tensor.nbytes for tensor in named_tensors(model).values())
    assert len(seen) == len(named_tensors(model)) and seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.int8}, "dtype must be torch.float32, torch.float16 or torch.bfloat16, not torch.int8"),
        ({"dtype": "float16"}, "dtype must be torch.float32, torch.float16 or torch.bfloat16, not 'float16'"),
        ({"device": "toaster"}, "There is no device 'toaster'"),
        ({"device": 1.5}, "There is no device 1.5"),
    ],
)
def test_options_of_loading_that_are_none(own_folder, options, message):
    with pytest.raises(ValueError, match=message):
        MusicGen.from_pretrained(own_folder, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize(
    "call", [MusicGen.from_pretrained, lambda _, **options: create_musicgen_model("tiny", **options)]
)
def test_a_device_that_this_machine_lacks(own_folder, call):
    with pytest.raises(ValueError, match="PyTorch finds no device 'cuda' in this machine"):
        call(own_folder, device="cuda")


def test_more_than_the_memory_holds_is_refused_before_it_is_taken(own_folder, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: 100_000)
    with pytest.raises(MemoryError, match=r"needs \d+ MB of memory and 0 MB are free"):
        MusicGen.from_pretrained(own_folder)


def snapshot(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.int8}, "dtype must be"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"dtype": torch.float64}, "dtype must be"),
        ({"max_shard_size": "many"}, "max_shard_size must be"),
        ({"max_shard_size": 0}, "max_shard_size must be"),
    ],
)
def test_options_of_saving_that_are_none(model, tmp_path, options, message):
    model.save_pretrained(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(tmp_path, **options)
    assert snapshot(tmp_path) == before


WRAPPED = {
    "decoder": lambda model: setattr(model, "decoder", torch.compile(model.decoder)),
    "layer": lambda model: model.decoder.layers.__setitem__(0, torch.compile(model.decoder.layers[0])),
    "projection": lambda model: setattr(model, "projection", torch.compile(model.projection)),
    "text encoder": lambda model: setattr(model, "text_encoder", torch.compile(model.text_encoder)),
    "codec": lambda model: setattr(model, "codec", torch.compile(model.codec)),
    "data parallel": lambda model: setattr(model, "decoder", torch.nn.DataParallel(model.decoder)),
    "in place": lambda model: model.decoder.compile(),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_what_was_compiled_is_saved_as_it_was(model, tmp_path, wrap):
    wrapped = copy.deepcopy(model)
    wrap(wrapped)
    wrapped.save_pretrained(tmp_path)
    found = named_tensors(MusicGen.from_pretrained(tmp_path))
    assert all(torch.equal(tensor, found[name]) for name, tensor in named_tensors(model).items())


class Wrapper(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner


CHANGED = {
    "quantised": lambda model: torch.ao.quantization.quantize_dynamic(model.decoder, inplace=True),
    "parametrised": lambda model: torch.nn.utils.parametrizations.weight_norm(model.decoder.lm_heads[0]),
    "replaced": lambda model: setattr(model.decoder, "lm_heads", torch.nn.ModuleList(model.decoder.lm_heads[:2])),
    "of another shape": lambda model: setattr(model.decoder.layers[0], "fc1", torch.nn.Linear(24, 7, bias=False)),
    "wrapped": lambda model: model.decoder.layers.__setitem__(0, Wrapper(model.decoder.layers[0])),
    "without values": lambda model: model.decoder.to("meta"),
}


@pytest.mark.filterwarnings("ignore:.*quantization.*")
@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_could_not_be_opened_again_is_not_saved(model, tmp_path, change):
    model.save_pretrained(tmp_path)
    before, changed = snapshot(tmp_path), copy.deepcopy(model)
    change(changed)
    with pytest.raises(ValueError, match="^This model cannot be saved") as caught:
        changed.save_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


IMPOSSIBLE = {
    "stride": {"window": 5.0, "stride": 9.0}, "nan": {"window": math.nan}, "zero": {"window": 0.0, "stride": 0.0},
    "infinite": {"window": math.inf}, "word": {"window": "9"}, "pattern": {"pattern": "zigzag"},
}  # fmt: skip


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_config_that_could_not_be_opened_again_is_not_saved(model, tmp_path, change, unchecked_annotations):
    changed = copy.deepcopy(model)
    changed.config = replace(model.config, **change)
    with pytest.raises(ValueError, match="^This model cannot be saved, since it could not be opened again"):
        changed.save_pretrained(tmp_path)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("value", "dtype"), [(math.nan, torch.float32), (-math.inf, torch.bfloat16), (1e6, torch.float16)]
)
def test_weights_that_are_no_finite_numbers_are_not_saved_over_good_ones(model, tmp_path, value, dtype):
    model.save_pretrained(tmp_path)
    before, broken = snapshot(tmp_path), copy.deepcopy(model)
    broken.decoder.layers[0].fc1.weight.data[0, 0] = value
    with pytest.raises(ValueError, match="fc1.weight would hold no finite numbers in torch"):
        broken.save_pretrained(tmp_path, dtype=dtype)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "sampling", [{"top_p": 0.9}, {"top_k": 0}, {"guidance_scale": 0}, {"temperature": np.float32(0.5)}]
)
def test_settings_come_back_as_they_were_saved(model, tmp_path, sampling, unchecked_annotations):
    changed = copy.deepcopy(model)
    changed.config = replace(model.config, sampling=replace(model.config.sampling, **sampling))
    changed.save_pretrained(tmp_path)
    assert MusicGen.from_pretrained(tmp_path).config == changed.config


def test_what_is_loaded_or_made_in_inference_mode_can_be_trained(own_folder):
    with torch.inference_mode():
        made = MusicGen.from_pretrained(own_folder), create_musicgen_model("tiny", num_layers=1)
    for model in made:
        model(torch.zeros(1, 4, 5, dtype=torch.long), *model.tokenizer(["piano"])).sum().backward()


def test_weights_that_share_memory_are_saved(model, tmp_path):
    tied = copy.deepcopy(model)
    tied.decoder.lm_heads[0].weight = tied.decoder.lm_heads[1].weight
    tied.save_pretrained(tmp_path)
    found = named_tensors(MusicGen.from_pretrained(tmp_path))
    assert torch.equal(found["decoder.lm_heads.0.weight"], model.decoder.lm_heads[1].weight)


def test_tensors_that_do_not_fit_are_named(base_folder, tmp_path):
    for file in base_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["enc_to_dec_proj.bias"]
    tensors["decoder.lm_heads.0.weight"] = torch.zeros(33, 24)
    tensors["decoder.lm_heads.7.weight"] = torch.zeros(32, 24)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks enc_to_dec_proj.bias; it has decoder.lm_heads.7.weight, which .*"
                       r"has decoder.lm_heads.0.weight of shape \[33, 24\] instead of \[32, 24\]"):  # fmt: skip
        MusicGen.from_pretrained(tmp_path)


def test_a_shard_that_is_missing_is_named(own_folder, tmp_path):
    for file in own_folder.iterdir():
        if "-00002-of-" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        FileNotFoundError, match=r"weights model-00002-of-000\d\d.safetensors are missing in .*: copy all"
    ):
        MusicGen.from_pretrained(tmp_path)


def test_a_folder_without_tokenizer_opens_but_cannot_read_prompts(base_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((base_folder / name).read_bytes())
    model = MusicGen.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer"):
        model.generate("piano", 0.1)


def test_a_tokenizer_of_another_model_is_refused(model_config, tokenizer):
    small = replace(model_config.text_encoder, vocab_size=tokenizer.vocab_size - 1)
    with pytest.raises(ValueError, match="they belong to different models"):
        MusicGen(replace(model_config, text_encoder=small), tokenizer)


def test_widths_that_do_not_fit(model_config, tokenizer, tmp_path):
    decoder = replace(model_config.decoder, text_hidden_size=20)
    config = replace(model_config, decoder=decoder)
    with pytest.raises(WidthMismatchError, match="width 16.*width 20"):
        MusicGen(config, tokenizer)
    model = MusicGen(config, tokenizer, preflight=False)
    with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(4x16 and 20x24\)"):
        model.generate("peaceful piano melody", 0.1)
    with pytest.raises(WidthMismatchError):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_copies_play_the_same_music_after_a_training_step_too(model_config, tokenizer):
    model = MusicGen(model_config, tokenizer)
    model.codec.encoder.requires_grad_(False)
    expected = model.generate("piano", 0.2, seed=3).waveform
    codes, (ids, mask) = torch.zeros(1, 4, 5, dtype=torch.long), tokenizer(["piano"])
    model(codes, ids, mask).sum().backward()
    model.codec.decoder(torch.randn(1, 16, 4)).sum().backward()
    for copied in (copy.deepcopy(model), AveragedModel(model).module, pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied.generate("piano", 0.2, seed=3).waveform, expected)
        assert not any(parameter.requires_grad for parameter in copied.codec.encoder.parameters())
        assert all(parameter.requires_grad for parameter in copied.codec.decoder.parameters())


def test_a_clip_has_whole_frames(model):
    for duration, frames in ((1, 50), (0.5, 25), (0.13, 6), (1e-9, 1)):
        audio = model.generate("piano", duration)
        assert audio.codes.shape == (1, 4, frames)
        assert audio.waveform.shape == (1, 1, frames * 8)
        assert audio.sample_rate == 400 and audio.prompts == ["piano"]


def test_the_same_seed_gives_the_same_samples_alone_and_in_a_batch(model):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    alone = model.generate("piano", 1, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's random numbers are used
    torch.rand(100)
    batch = model.generate(["piano", "a happy flute arpeggio, fast, with drums", "piano"], 1, seed=[3, 3, 4])
    assert torch.equal(batch.codes[0], alone.codes[0])
    torch.testing.assert_close(batch.waveform[0], alone.waveform[0], atol=1e-5, rtol=0)
    assert not torch.equal(batch.codes[2], batch.codes[0])
    assert not torch.equal(batch.codes[1], batch.codes[0])
    assert not torch.equal(model.generate("piano", 1, seed=None).codes, model.generate("piano", 1, seed=None).codes)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_generates_and_streams(model, tokenizer, name):
    other = MusicGen(replace(model.config, pattern=name), tokenizer)
    other.load_state_dict(model.state_dict())
    audio = other.generate(PROMPTS, 0.2)
    assert audio.codes.shape == (2, 4, 10)
    chunks = torch.cat([chunk.waveform for chunk in other.stream(PROMPTS, 0.2, chunk_duration=0.05)], dim=2)
    torch.testing.assert_close(chunks, audio.waveform, atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk_duration", [0.02, 0.1, 0.33, 5])
def test_streamed_chunks_are_the_same_music(model, chunk_duration):
    audio = model.generate(PROMPTS, 1.5, seed=7)
    chunks = list(model.stream(PROMPTS, 1.5, seed=7, chunk_duration=chunk_duration))
    assert len(chunks) > 1 or chunk_duration > 1
    joined = torch.cat([chunk.waveform for chunk in chunks], dim=2)
    torch.testing.assert_close(joined, audio.waveform, atol=1e-4, rtol=0)
    assert chunks[0].sample_rate == 400 and chunks[0].prompts == PROMPTS


def test_streaming_refuses_bad_input_at_the_call(model):
    with pytest.raises(ValueError, match="duration"):
        model.stream("piano", -1)
    with pytest.raises(ValueError, match="chunk_duration"):
        model.stream("piano", 1, chunk_duration=0)


def test_settings_take_effect(model):
    def codes(**settings):
        return model.generate("piano", 0.5, **settings).codes

    assert torch.equal(codes(temperature=0, seed=1), codes(temperature=0, seed=2))
    assert torch.equal(codes(top_k=1, seed=1), codes(temperature=0))
    assert torch.equal(codes(top_k=0), codes(top_k=32))
    assert torch.equal(codes(guidance_scale=3, temperature=1), codes())
    assert not torch.equal(codes(guidance_scale=1), codes())
    assert not torch.equal(codes(top_p=0.5), codes())


def test_progress_and_interruption(model):
    steps = []
    wanted = model.generate("piano", 0.2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(step, 13) for step in range(1, 14)]

    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate("piano", 0.2, progress=interrupt)
    assert torch.equal(model.generate("piano", 0.2).waveform, wanted.waveform)


def test_unknown_words_are_named_once(model):
    with pytest.warns(UnknownWordsWarning, match='does not know "bagpipe", "kazoo";') as caught:
        model.generate(["a happy bagpipe", "kazoo bagpipe", "piano"], 0.1)
    assert len(caught) == 1
    with pytest.warns(UnknownWordsWarning):
        assert model.generate("фисгармония", 0.1).codes.shape[2] == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate("Peaceful piano, melody!", 0.1)


def test_training_and_generating_can_alternate(model):
    ids, mask = model.tokenizer(PROMPTS)
    codes = torch.randint(0, CODEBOOK_SIZE + 1, (2, 4, 9))
    model.generate(PROMPTS, 0.1)
    loss = model(codes, ids, mask).logsumexp(-1).mean()
    gradients = torch.autograd.grad(loss, [model.projection.weight, model.text_encoder.model.shared.weight])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_codes_of_fewer_bits_are_codes(model, dtype):
    codes, told = torch.randint(0, CODEBOOK_SIZE, (1, 4, 6)), model.tokenizer(["piano"])
    assert torch.equal(model(codes.to(dtype), *told), model(codes, *told))
    assert torch.equal(model.decode(codes.to(dtype)), model.decode(codes))


@pytest.mark.parametrize("codes", [None, [[[1]]], torch.ones(4, 5).long(), torch.ones(1, 4, 5)])
def test_what_are_no_codes_is_refused_by_the_model(model, codes, unchecked_annotations):
    for call in (model.decode, lambda given: model(given, *model.tokenizer(["piano"]))):
        with pytest.raises(TypeError, match="Codes are a tensor of whole numbers"):
            call(codes)


def test_codes_that_the_decoder_does_not_read_are_refused(model):
    for wrong in (CODEBOOK_SIZE + 1, -1):
        with pytest.raises(ValueError, match=f"Codes lie in 0…{CODEBOOK_SIZE}, not in"):
            model(torch.full((1, 4, 5), wrong), *model.tokenizer(["piano"]))


def test_a_model_encodes_any_sound_and_nothing_else(model, tmp_path, unchecked_annotations):
    audio = Audio(0.1 * torch.randn(1, 1, 400, dtype=torch.float64), 400)
    codes = model.encode(audio)
    assert torch.equal(model.encode((audio.waveform.numpy(), 400)), codes)
    for wrong in (None, 3, audio.waveform):
        with pytest.raises(TypeError, match="A sound is an Audio"):
            model.encode(wrong)


@pytest.mark.parametrize("progress", [3, True, "print"])
def test_a_progress_that_cannot_be_called_is_refused_at_once(model, own_folder, progress, unchecked_annotations):
    for call in (lambda: model.stream("piano", 0.1, progress=progress),
                 lambda: MusicGen.from_pretrained(own_folder, progress=progress)):  # fmt: skip
        with pytest.raises(TypeError, match="progress must be a function"):
            call()


def test_a_codec_in_data_parallelism_is_saved_as_it_was(model, tmp_path):
    wrapped = copy.deepcopy(model)
    wrapped.codec = torch.nn.DataParallel(wrapped.codec)
    wrapped.save_pretrained(tmp_path / "wrapped")
    model.save_pretrained(tmp_path / "plain")
    read = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("wrapped", "plain")]
    assert read[0] == read[1]
